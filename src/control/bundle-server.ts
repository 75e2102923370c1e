// Keeps one bundle of a bundle server at hand: asks for it again and again, with pauses that differ
// from sidecar to sidecar, and keeps what was good when the server has nothing better. What it hands
// out is bytes; whether they are a policy is for others to say, and they say so here.
import { createHash, randomUUID } from 'node:crypto'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { BundleServiceConfig } from '../config/config.ts'
import type { Problem } from '../errors.ts'
import { ARCHIVE_LIMITS } from '../policy/bundle.ts'
import {
  type Download,
  type DownloadRequest,
  type DownloadTimeouts,
  download,
} from './bundle-download.ts'
import { type FileRequest, readFiles } from './files.ts'

/** One version of the bundle, as it came. */
export interface BundleVersion {
  readonly bytes: Buffer
  /** SHA-256, lower-case hex. */
  readonly digest: string
  readonly etag: string | undefined
}

/** For the operator; times in epoch milliseconds. */
export interface BundleServerStatus {
  readonly url: string
  readonly lastRequestMs: number | undefined
  readonly lastSuccessfulRequestMs: number | undefined
  readonly lastSuccessfulDownloadMs: number | undefined
  readonly lastActivationMs: number | undefined
  /** Why there is nothing new. */
  readonly problem: Problem | undefined
}

export interface BundleServerOptions {
  readonly url: string
  /** The configuration key that names the bundle. */
  readonly where: string
  readonly service: BundleServiceConfig
  /** Epoch milliseconds. */
  readonly clock: () => number
  /** There is another version, or something else to tell. */
  readonly changed: () => void
  /** From 0 to 1, exclusive; for tests. */
  readonly random?: () => number
  readonly timeouts?: DownloadTimeouts
}

export class BundleServer {
  readonly #options: BundleServerOptions
  readonly #stopped = new AbortController()
  readonly #firstAnswer = Promise.withResolvers<void>()
  #newest: BundleVersion | undefined
  #active: BundleVersion | undefined
  #problem: Problem | undefined
  /** Digest of what the directory of `persist` holds. */
  #onDisk: string | undefined
  #diskProblem: Problem | undefined
  /** The problem lies in our own files: no server can make it go away. */
  #local = false
  #timer: NodeJS.Timeout | undefined
  #failures = 0
  /** Until an answer says otherwise. */
  #longPolls = true
  #times: { request?: number; success?: number; download?: number; activation?: number } = {}

  constructor(options: BundleServerOptions) {
    this.#options = options
  }

  /** Resolves when what was kept on disk has been read; the first request is on its way then. */
  async start(): Promise<void> {
    this.#newest = await this.#persisted()
    void this.#poll()
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#stopped.abort()
    this.#firstAnswer.resolve()
  }

  /** Resolves with the end of the first request, good or bad. */
  get firstAnswer(): Promise<void> {
    return this.#firstAnswer.promise
  }

  /** What to try: the last that came, be it good or not. */
  get newest(): BundleVersion | undefined {
    return this.#newest
  }

  /** What was good last. */
  get active(): BundleVersion | undefined {
    return this.#active
  }

  get problems(): readonly Problem[] {
    return [this.#problem, this.#diskProblem].filter((one) => one !== undefined)
  }

  get isLocalProblem(): boolean {
    return this.#local
  }

  get status(): BundleServerStatus {
    const { request, success, download, activation } = this.#times
    return {
      url: this.#options.url,
      lastRequestMs: request,
      lastSuccessfulRequestMs: success,
      lastSuccessfulDownloadMs: download,
      lastActivationMs: activation,
      problem: this.#problem ?? this.#diskProblem,
    }
  }

  /** The version with this digest has gone into force. */
  async activated(digest: string): Promise<void> {
    const version = this.#newest
    if (version === undefined || version.digest !== digest || version === this.#active) return
    this.#active = version
    this.#times.activation = this.#options.clock()
    await this.#persist()
  }

  async #poll(): Promise<void> {
    const beganMs = this.#options.clock()
    const waitMs =
      this.#longPolls && this.#active !== undefined ? this.#options.service.longPollMs : 0
    this.#times.request = beganMs
    const outcome = await this.#download(waitMs)
    if (this.#stopped.signal.aborted) return
    const isNew = this.#settle(outcome)
    const nowMs = this.#options.clock()
    if (outcome.kind !== 'failed') {
      this.#times.success = nowMs
      await this.#persist()
    }
    // A server that answers at once although it may wait, with nothing new, is asked in pauses.
    const held = waitMs > 0 && this.#longPolls && (isNew || nowMs - beganMs >= waitMs / 2)
    this.#firstAnswer.resolve()
    this.#timer = setTimeout(() => void this.#poll(), held ? SHORTEST_MS : this.#pauseMs()).unref()
  }

  /** True when there is something to look at. */
  #settle(outcome: Download): boolean {
    const told = this.#problem?.what
    let isNew = false
    if (outcome.kind === 'failed') {
      this.#failures++
      this.#problem = this.#problemOf(outcome)
    } else {
      this.#failures = 0
      this.#problem = undefined
      this.#local = false
      this.#longPolls = outcome.longPolls
      isNew = outcome.kind === 'bundle' ? this.#take(outcome) : this.#takeBack()
    }
    if (isNew || told !== this.#problem?.what) this.#options.changed()
    return isNew
  }

  #take({ bytes, etag }: Download & { kind: 'bundle' }): boolean {
    this.#times.download = this.#options.clock()
    const digest = createHash('sha256').update(bytes).digest('hex')
    const known = [this.#newest, this.#active].find((one) => one?.digest === digest)
    const version = { bytes: known?.bytes ?? bytes, digest, etag }
    const isNew = this.#newest?.digest !== digest
    // The same bytes under another ETag: it is the new one that the server knows.
    if (this.#active?.digest === digest) this.#active = version
    this.#newest = version
    return isNew
  }

  /** The server has the version in force again: what came in between is of no interest any more. */
  #takeBack(): boolean {
    const isNew = this.#newest !== this.#active
    this.#newest = this.#active
    return isNew
  }

  #pauseMs(): number {
    const { random = Math.random, service } = this.#options
    const { pollMinMs, pollMaxMs } = service
    if (this.#failures === 0) return pollMinMs + random() * (pollMaxMs - pollMinMs)
    const growing = FIRST_RETRY_MS * GROWTH ** (this.#failures - 1)
    return Math.min(growing, pollMaxMs) * (1 - JITTER + 2 * JITTER * random())
  }

  async #download(waitMs: number): Promise<Download> {
    const { url, timeouts } = this.#options
    const files = await this.#files()
    if ('where' in files) {
      this.#local = true
      return { kind: 'failed', ...files }
    }
    this.#local = false
    const etag = this.#active?.etag
    const request = { url, etag, waitMs, maxBytes: ARCHIVE_LIMITS.fileBytes, ...files }
    return download(request, this.#stopped.signal, timeouts)
  }

  /** Read for each request, because tokens and certificates are short-lived. */
  async #files(): Promise<Pick<DownloadRequest, (typeof FILES)[number] | 'token'> | Problem> {
    const { service } = this.#options
    const requests = ([...FILES, 'tokenFile'] as const).flatMap((name): FileRequest[] => {
      const path = service[name]
      return path === undefined
        ? []
        : [{ path, where: `policy.service.${name}`, maxBytes: 1 << 20 }]
    })
    const contents = await readFiles(requests)
    const found: Record<string, Buffer | string> = {}
    for (const [at, content] of contents.entries()) {
      if (content.kind === 'problem') return content.problem
      const { where } = requests[at] as FileRequest
      const name = where.slice(where.lastIndexOf('.') + 1)
      if (name !== 'tokenFile') {
        found[name] = content.bytes
        continue
      }
      const token = content.bytes.toString('latin1').trim()
      if (!/^[\x21-\x7e]+$/.test(token)) {
        return { where, what: `${service.tokenFile} holds no token`, remedy: 'write one line' }
      }
      found['token'] = token
    }
    return found
  }

  #problemOf({ what, remedy, ...more }: Download & { kind: 'failed' }): Problem {
    const where = 'where' in more ? String(more.where) : this.#options.where
    return { where, what: this.#local ? what : `${this.#options.url} ${what}`, remedy }
  }

  async #persisted(): Promise<BundleVersion | undefined> {
    const path = this.#path
    if (path === undefined) return undefined
    const file = { path, where: 'policy.service.persist', maxBytes: ARCHIVE_LIMITS.fileBytes }
    const [content] = await readFiles([file])
    if (content?.kind !== 'bytes') return undefined
    const { bytes } = content
    this.#onDisk = createHash('sha256').update(bytes).digest('hex')
    return { bytes, digest: this.#onDisk, etag: undefined }
  }

  /** Replaced as a whole: who reads it finds the old one or the new one. */
  async #persist(): Promise<void> {
    const { persist: directory } = this.#options.service
    const path = this.#path
    const version = this.#active
    if (!path || !directory || !version || version.digest === this.#onDisk) return
    const temporary = `${path}.${randomUUID()}`
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 })
      const file = await open(temporary, 'wx', 0o600)
      try {
        await file.writeFile(version.bytes)
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(temporary, path)
      this.#onDisk = version.digest
      this.#diskProblem = undefined
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => {})
      this.#diskProblem = {
        where: 'policy.service.persist',
        what: `the bundle could not be kept in ${directory}: ${(error as Error).message}`,
        remedy: 'let this process write there; what is in force stays in force',
        severity: 'warning',
      }
    }
  }

  /** One file for each address: several bundles share the directory. */
  get #path(): string | undefined {
    const { service, url } = this.#options
    const name = createHash('sha256').update(url).digest('hex').slice(0, 32)
    return service.persist === undefined ? undefined : join(service.persist, `${name}.tar.gz`)
  }
}

const FILES = ['certificate', 'privateKey', 'ca'] as const
const FIRST_RETRY_MS = 100
const GROWTH = 1.6
const JITTER = 0.2
/** Between two answers that the server held back. */
const SHORTEST_MS = 100
