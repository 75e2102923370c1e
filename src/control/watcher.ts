// Notices that a file is no longer what it was. That is always told by one comparison, made every
// half second; watches on directories only say when to look sooner. So nothing depends on inotify,
// which misses swaps behind symbolic links, dies with its directory, and can run out.
// (chokidar 6 finds no more than this and costs 40 ms at start and 11 MiB.)
import { type FSWatcher, watch } from 'node:fs'
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Config, IdentityConfig } from '../config/config.ts'
import { isRemote } from '../config/values.ts'
import { fingerprint } from './files.ts'

export interface WatcherEvents {
  /**
   * One of the files is not what it was; called once for what changed within one look. `sinceMs`: not
   * before this, in epoch milliseconds: the first hint, or the last look that found it as it was.
   */
  changed(sinceMs: number): void
  /** A directory cannot be watched: changes are noticed by looking only. Said once. */
  degraded(message: string): void
}

export interface WatcherOptions {
  readonly paths: readonly string[]
  readonly events: WatcherEvents
  /** Epoch milliseconds. */
  readonly clock: () => number
  /** How long to wait after a hint for the other files that belong with it. */
  readonly settleMs?: number
  readonly pollMs?: number
  /** In place of `fs.watch`, for tests. */
  readonly watchDirectory?: typeof watch
}

export class Watcher {
  readonly #options: Required<WatcherOptions>
  readonly #directories: readonly string[]
  readonly #watches = new Map<string, { readonly id: string; readonly watch: FSWatcher }>()
  #seen: string | undefined
  #timer: NodeJS.Timeout | undefined
  #hinted = false
  #hintedAtMs: number | undefined
  #lookedAtMs = 0
  #degraded = false
  #stopped = false

  constructor(options: WatcherOptions) {
    this.#options = { settleMs: 100, pollMs: 500, watchDirectory: watch, ...options }
    // The path as well: a policy bundle may be a directory.
    this.#directories = [...new Set(options.paths.flatMap((path) => [dirname(path), path]))]
  }

  /**
   * Resolves when the present state has been noted: any change after that is told. To be started
   * before the first load, or what changes between the two is missed.
   */
  async start(): Promise<void> {
    await this.#look()
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
    for (const { watch } of this.#watches.values()) watch.close()
    this.#watches.clear()
  }

  async #look(): Promise<void> {
    const hintedAtMs = this.#hintedAtMs
    this.#hinted = false
    this.#hintedAtMs = undefined
    const nowMs = this.#options.clock()
    // Armed first, so that nothing can happen between the comparison and the watch.
    await Promise.all(this.#directories.map((directory) => this.#arm(directory)))
    const seen = (await Promise.all(this.#options.paths.map(fingerprint))).join('\n')
    if (this.#stopped) return
    const changed = this.#seen !== undefined && seen !== this.#seen
    this.#seen = seen
    const sinceMs = hintedAtMs ?? this.#lookedAtMs
    this.#lookedAtMs = nowMs
    this.#lookIn(this.#hinted ? this.#options.settleMs : this.#options.pollMs)
    if (changed) this.#options.events.changed(sinceMs)
  }

  #lookIn(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      void this.#look()
    }, ms).unref()
  }

  /** Only the first hint counts: a busy directory must not put the look off for ever. */
  #hint(): void {
    if (this.#hinted || this.#stopped) return
    this.#hinted = true
    this.#hintedAtMs = this.#options.clock()
    if (this.#timer !== undefined) this.#lookIn(this.#options.settleMs)
  }

  async #arm(directory: string): Promise<void> {
    const found = await stat(directory, { bigint: true }).catch(() => undefined)
    const id = found?.isDirectory() ? `${found.dev}:${found.ino}` : undefined
    const armed = this.#watches.get(directory)
    if (armed?.id === id || this.#stopped) return
    armed?.watch.close()
    this.#watches.delete(directory)
    if (id === undefined) return
    try {
      const watch = this.#options.watchDirectory(directory, { persistent: false }, () =>
        this.#hint(),
      )
      watch.on('error', (error) => this.#lose(directory, error))
      this.#watches.set(directory, { id, watch })
    } catch (error) {
      this.#lose(directory, error)
    }
  }

  /** It is armed again at the next look, if it can be. */
  #lose(directory: string, error: unknown): void {
    this.#watches.get(directory)?.watch.close()
    this.#watches.delete(directory)
    if (this.#degraded) return
    this.#degraded = true
    const { message } = error as Error
    this.#options.events.degraded(
      `${directory} cannot be watched (${message}); its files are compared every ${this.#options.pollMs} ms`,
    )
  }
}

/** Every file and directory that the configuration reads materials from. */
export function watchedPaths({ identity, trust, policy }: Config): string[] {
  return [
    ...identityPaths(identity),
    ...trust.bundles.map(({ file }) => file),
    ...trust.crls,
    ...(trust.revoked === undefined ? [] : [trust.revoked]),
    ...(policy === undefined
      ? []
      : [policy.bundle, ...policy.data, policy.candidate?.bundle ?? []]
          .flat()
          .filter((one) => !isRemote(one))),
    ...(policy?.signing?.keys ?? []).map(({ file }) => file),
    ...(policy?.input.protoDescriptor === undefined ? [] : [policy.input.protoDescriptor]),
  ]
}

function identityPaths(identity: IdentityConfig): string[] {
  if (identity.kind === 'workloadApi') return []
  const { passphraseFile } = identity
  const passphrase = passphraseFile === undefined ? [] : [passphraseFile]
  switch (identity.kind) {
    case 'bundle':
      return [identity.credentialBundle, ...passphrase]
    case 'files':
      return [identity.certificate, identity.privateKey, ...passphrase]
    case 'directory':
      return [identity.directory, ...passphrase]
  }
}
