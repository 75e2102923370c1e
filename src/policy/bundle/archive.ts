// Unpacks a bundle: a gzipped tar, as `opa build` writes it. Nothing in it is trusted: sizes are
// capped before anything is kept, and what no bundle needs (links, climbing or repeated names) is
// refused instead of interpreted.
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import type { Problem } from '../../errors.ts'
import { readTar } from './tar.ts'

export interface ArchiveLimits {
  readonly fileBytes: number
  /** After decompression. */
  readonly totalBytes: number
  readonly fileCount: number
}

export const ARCHIVE_LIMITS: ArchiveLimits = {
  fileBytes: 64 * 1024 * 1024,
  totalBytes: 128 * 1024 * 1024,
  fileCount: 2_000,
}

/** Names without a leading slash. */
export type BundleEntries = ReadonlyMap<string, Buffer>

export type Unpacked =
  | { readonly kind: 'entries'; readonly entries: BundleEntries }
  | { readonly kind: 'problems'; readonly problems: readonly Problem[] }

/** @param file where the bytes came from, for messages only. */
export async function unpackArchive(
  bytes: Buffer,
  file: string,
  limits: ArchiveLimits = ARCHIVE_LIMITS,
): Promise<Unpacked> {
  try {
    const tar = await promisify(gunzip)(bytes, { maxOutputLength: limits.totalBytes })
    return { kind: 'entries', entries: readEntries(tar, limits) }
  } catch (error) {
    const what =
      error instanceof BundleError
        ? error.message
        : `not a readable gzipped tar: ${(error as Error).message}`
    const remedy =
      error instanceof BundleError ? error.remedy : 'give the file that `opa build -t wasm` wrote'
    return { kind: 'problems', problems: [{ where: file, what, remedy }] }
  }
}

/** Something in a bundle that keeps it from being used; becomes a problem of its file. */
export class BundleError extends Error {
  readonly remedy: string

  constructor(what: string, remedy: string) {
    super(what)
    this.remedy = remedy
  }
}

function readEntries(tar: Buffer, limits: ArchiveLimits): BundleEntries {
  const entries = new Map<string, Buffer>()
  let count = 0
  for (const { name, type, content } of readTar(tar)) {
    if (++count > limits.fileCount) throw tooMuch('more files than', limits.fileCount)
    if (type !== 'file' && type !== 'directory') {
      throw new BundleError(`${quote(name)} is ${type}`, 'put regular files into the bundle only')
    }
    if (content.length > limits.fileBytes) {
      throw tooMuch(`${quote(name)} is larger than`, limits.fileBytes)
    }
    if (type === 'file') addEntry(entries, name, content)
  }
  return entries
}

function addEntry(entries: Map<string, Buffer>, name: string, bytes: Buffer): void {
  const clean = name.replace(/^(?:\.?\/)+/, '')
  if (!isPlain(clean)) {
    throw new BundleError(`${quote(name)} is not a plain path`, 'build the bundle anew')
  }
  if (entries.has(clean)) {
    throw new BundleError(`${quote(clean)} occurs twice`, 'build the bundle anew')
  }
  entries.set(clean, bytes)
}

const isPlain = (path: string): boolean =>
  path.length <= LONGEST_NAME &&
  // Not UTF-8, or made to look like another name in a message.
  !/[\p{Cc}\ufffd]/u.test(path) &&
  path.split('/').every((part) => part !== '..' && part !== '.' && part !== '')

function tooMuch(what: string, limit: number): BundleError {
  return new BundleError(`${what} ${limit}`, 'make the bundle smaller')
}

/** Plain names stay as they are; a name that could garble a message is written out. */
function quote(name: string): string {
  const short = name.slice(0, 100)
  const text = /^[\w./@+-]+$/.test(short) ? short : JSON.stringify(short)
  // JSON escapes control characters below U+0020 only.
  return text.replace(/[\x7f-\x9f]/g, (one) => `\\u00${one.charCodeAt(0).toString(16)}`)
}

const LONGEST_NAME = 1024
