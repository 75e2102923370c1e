// The kubelet's atomic writer (pkg/volume/util/atomic_writer.go), step by step: what a Secret,
// ConfigMap or projected volume looks like from inside a container while it is updated.
import { mkdir, mkdtemp, readdir, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'

export class AtomicWriter {
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
  }

  /** Full path of a file as the container names it. */
  path(name: string): string {
    return join(this.directory, name)
  }

  /** Replaces the whole content of the volume; names may have slashes. */
  async write(files: Readonly<Record<string, string | Uint8Array>>): Promise<void> {
    await mkdir(this.directory, { recursive: true })
    const data = join(this.directory, '..data')
    const old = await readlink(data).catch(() => undefined)

    // A directory named after the moment, with random letters after it.
    const stamp = new Date().toISOString().replace(/[-:]/g, '_').replace('T', '_').replace('Z', '.')
    const fresh = await mkdtemp(join(this.directory, `..${stamp}`))
    for (const [name, content] of Object.entries(files)) {
      await mkdir(dirname(join(fresh, name)), { recursive: true })
      await writeFile(join(fresh, name), content)
    }

    const temporary = join(this.directory, '..data_tmp')
    await symlink(fresh.slice(this.directory.length + 1), temporary)
    await rename(temporary, data)

    // The names that the container sees are made after the swap, and lead through `..data`.
    for (const top of new Set(Object.keys(files).map((name) => name.split('/')[0] as string))) {
      const seen = join(this.directory, top)
      if ((await readlink(seen).catch(() => '')) === '') await symlink(join('..data', top), seen)
    }
    if (old !== undefined) await this.#removeOld(old, files)
  }

  async #removeOld(old: string, files: Readonly<Record<string, unknown>>): Promise<void> {
    const now = new Set(Object.keys(files).map((name) => name.split('/')[0]))
    for (const top of await readdir(join(this.directory, old))) {
      if (!now.has(top)) await rm(join(this.directory, top), { force: true })
    }
    await rm(join(this.directory, old), { recursive: true, force: true })
  }
}
