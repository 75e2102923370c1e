// Reads files that somebody may be replacing at this moment. Promises that what comes back existed
// together: everything from one directory of a Kubernetes volume (all files below the same
// `realpath(..data)`), and nothing that was rewritten, renamed over or swapped while it was read.
// Reading through the names in the mount itself gave 0.5 % mismatched pairs under torture.
import { constants } from 'node:fs'
import { lstat, open, readdir, readlink, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, relative, resolve, sep } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Problem } from '../errors.ts'

export interface FileRequest {
  readonly path: string
  /** The configuration key that names the file, for messages. */
  readonly where: string
  readonly maxBytes: number
}

export type FileContent =
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  | { readonly kind: 'problem'; readonly problem: Problem }

/** Reads all files as of one moment; the answers are in the order of the requests. */
export async function readFiles(requests: readonly FileRequest[]): Promise<FileContent[]> {
  const contents = await readStable(() => locateFiles(requests))
  return requests.map((request, at) => {
    const content = contents?.[at] ?? trouble(request, UNSTABLE)
    return content.kind === 'bytes' && content.bytes.length === 0
      ? trouble(request, EMPTY)
      : content
  })
}

export interface TreeLimits {
  readonly fileBytes: number
  readonly totalBytes: number
  readonly fileCount: number
}

export type Tree =
  | { readonly kind: 'entries'; readonly entries: ReadonlyMap<string, Buffer> }
  | { readonly kind: 'problem'; readonly problem: Problem }

/** Reads a directory with everything below it; names are relative and in order. */
export async function readTree(path: string, where: string, limits: TreeLimits): Promise<Tree> {
  const root = { path, where, maxBytes: limits.fileBytes }
  const names: string[] = []
  const contents = await readStable(async () => {
    const located = await locateTree(root, limits)
    names.splice(0, names.length, ...located.map((one) => one.name))
    return located
  })
  if (contents === undefined) return trouble(root, UNSTABLE)
  const entries = new Map<string, Buffer>()
  for (const [at, content] of contents.entries()) {
    if (content.kind === 'problem') return content
    entries.set(names[at] as string, content.bytes)
  }
  return { kind: 'entries', entries }
}

/** Differs when the file, or anything below the directory, was replaced or rewritten. */
export async function fingerprint(path: string): Promise<string> {
  const request = { path, where: '', maxBytes: Number.POSITIVE_INFINITY }
  try {
    const { version, fault } = await locateFile(request, path, path)
    if (fault !== IS_DIRECTORY) return version
    const located = await locateTree(request, ANY_SIZE)
    return located.map((one) => `${one.name}=${one.version}`).join('|')
  } catch (error) {
    return faultOf(error).what
  }
}

/** Where the bytes of a request are at this moment, and what would differ if they were replaced. */
interface Located {
  readonly name: string
  readonly request: FileRequest
  readonly realPath: string
  readonly version: string
  readonly bytes: number
  readonly fault?: Fault
}

async function readStable(
  locate: () => Promise<readonly Located[]>,
): Promise<FileContent[] | undefined> {
  for (let attempt = 1; attempt <= MOST_ATTEMPTS; attempt++) {
    const before = await locate()
    const contents: FileContent[] = []
    // One at a time: a reload must not hold more descriptors and memory than it needs.
    for (const one of before) contents.push(await readLocated(one))
    const after = await locate()
    if (same(before, after)) return contents
    await delay(attempt * 2)
  }
  return undefined
}

function same(before: readonly Located[], after: readonly Located[]): boolean {
  return (
    before.length === after.length &&
    before.every((one, at) => {
      const other = after[at] as Located
      return one.name === other.name && one.version === other.version
    })
  )
}

async function readLocated({ request, realPath, bytes, fault }: Located): Promise<FileContent> {
  if (fault !== undefined) return trouble(request, fault)
  let handle: Awaited<ReturnType<typeof open>> | undefined
  try {
    handle = await open(realPath, constants.O_RDONLY | constants.O_NONBLOCK)
    // A byte more than expected: a file that has grown is seen by its size afterwards.
    const buffer = Buffer.alloc(bytes + 1)
    let length = 0
    while (length < buffer.length) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length, length)
      if (bytesRead === 0) break
      length += bytesRead
    }
    return { kind: 'bytes', bytes: buffer.subarray(0, length) }
  } catch (error) {
    return trouble(request, faultOf(error))
  } finally {
    await handle?.close()
  }
}

async function locateFiles(requests: readonly FileRequest[]): Promise<Located[]> {
  // `..data` is resolved once for each volume: that is what makes its files one generation.
  const resolved = new Map<string, string>()
  const located: Located[] = []
  for (const request of requests) {
    try {
      const path = resolve(request.path)
      const volume = await volumeOf(path)
      let realPath = path
      if (volume !== undefined) {
        const data = resolved.get(volume) ?? (await realpath(join(volume, '..data')))
        resolved.set(volume, data)
        realPath = join(data, relative(volume, path))
      }
      located.push(await locateFile(request, request.path, realPath))
    } catch (error) {
      located.push(absent(request, request.path, faultOf(error)))
    }
  }
  return located
}

/**
 * The mount point of the volume that the kubelet's atomic writer keeps and that holds `path`: the
 * directory whose `..data` the path's next segment leads through. A `subPath` mount has none.
 */
async function volumeOf(path: string): Promise<string | undefined> {
  for (let entry = path; entry !== dirname(entry); entry = dirname(entry)) {
    const target = await readlink(entry).catch(() => '')
    if (target === join('..data', basename(entry))) return dirname(entry)
  }
  return undefined
}

async function locateFile(request: FileRequest, name: string, realPath: string): Promise<Located> {
  const found = await stat(realPath, { bigint: true })
  const { dev, ino, mtimeNs, ctimeNs, size } = found
  const located = {
    name,
    request,
    realPath,
    version: [realPath, dev, ino, mtimeNs, ctimeNs, size].join(':'),
    bytes: Number(size),
  }
  if (found.isDirectory()) return { ...located, fault: IS_DIRECTORY }
  if (!found.isFile()) return { ...located, fault: NOT_REGULAR }
  if (size > request.maxBytes)
    return { ...located, fault: tooLarge(Number(size), request.maxBytes) }
  return located
}

const absent = (request: FileRequest, name: string, fault: Fault): Located => ({
  name,
  request,
  realPath: name,
  version: fault.what,
  bytes: 0,
  fault,
})

async function locateTree(root: FileRequest, limits: TreeLimits): Promise<Located[]> {
  const located: Located[] = []
  let totalBytes = 0
  let seen = 0

  async function walk(directory: string, top: string, depth: number): Promise<Fault | undefined> {
    if (depth > DEEPEST) return { ...TOO_MUCH, what: `has more than ${DEEPEST} levels` }
    for (const entry of (await readdir(directory)).sort()) {
      // `..data` and its like are how a mounted ConfigMap is built, not what it holds.
      if (entry.startsWith('..')) continue
      if (++seen > limits.fileCount) {
        return { ...TOO_MUCH, what: `holds more than ${limits.fileCount} files` }
      }
      const path = join(directory, entry)
      const name = relative(top, path)
      if ((await lstat(path)).isSymbolicLink()) {
        const target = await realpath(path)
        if (!target.startsWith(top + sep)) return { ...ESCAPES, what: `${ESCAPES.what} (${name})` }
      }
      const found = await locateFile({ ...root, path: join(root.path, name) }, name, path)
      if (found.fault === IS_DIRECTORY) {
        const fault = await walk(path, top, depth + 1)
        if (fault !== undefined) return fault
        continue
      }
      located.push(found)
      totalBytes += found.bytes
      if (totalBytes > limits.totalBytes) return tooLarge(totalBytes, limits.totalBytes)
    }
    return undefined
  }

  try {
    const data = await realpath(join(root.path, '..data')).catch(() => undefined)
    const top = data ?? (await realpath(root.path))
    const fault = await walk(top, top, 0)
    return fault === undefined ? located : [absent(root, root.path, fault)]
  } catch (error) {
    return [absent(root, root.path, faultOf(error))]
  }
}

interface Fault {
  /** Follows the path of the file. */
  readonly what: string
  readonly remedy: string
}

function trouble({ path, where }: FileRequest, { what, remedy }: Fault) {
  return { kind: 'problem', problem: { where, what: `${path} ${what}`, remedy } } as const
}

function faultOf(error: unknown): Fault {
  const { code, message } = error as NodeJS.ErrnoException
  switch (code) {
    case 'ENOENT':
      return { what: 'does not exist', remedy: 'create it, or correct the path' }
    case 'ENOTDIR':
      return { what: 'goes through something that is no directory', remedy: 'correct the path' }
    case 'ELOOP':
      return { what: 'is a loop of symbolic links', remedy: 'correct the links' }
    case 'EACCES':
    case 'EPERM':
      return {
        what: `may not be read by user ${process.getuid?.() ?? 'of this process'}`,
        remedy: 'let this user read it; on Kubernetes set securityContext.fsGroup for the pod',
      }
    default:
      return { what: `cannot be read: ${message}`, remedy: 'make it readable' }
  }
}

const tooLarge = (bytes: number, maxBytes: number): Fault => ({
  what: `is too large: ${bytes} bytes, and at most ${maxBytes} are read`,
  remedy: 'check that it is the right one, or make it smaller',
})

const UNSTABLE: Fault = {
  what: 'was replaced again and again while it was read',
  remedy: 'let its writer finish; it is read again then',
}
const EMPTY: Fault = { what: 'is empty', remedy: 'let its writer finish, or write it again' }
const IS_DIRECTORY: Fault = { what: 'is a directory', remedy: 'name a file in it' }
const NOT_REGULAR: Fault = {
  what: 'is no regular file',
  remedy: 'name a regular file; pipes and devices cannot be read again',
}
const TOO_MUCH: Fault = { what: '', remedy: 'check that it is the directory of one bundle' }
const ESCAPES: Fault = {
  what: 'has a symbolic link that leads out of it',
  remedy: 'put a copy of the file into the directory',
}

const ANY_SIZE: TreeLimits = {
  fileBytes: Number.POSITIVE_INFINITY,
  totalBytes: Number.POSITIVE_INFINITY,
  fileCount: 2_000,
}
const MOST_ATTEMPTS = 25
const DEEPEST = 16
