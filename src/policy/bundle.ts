// Reads a bundle as `opa build` writes it: a gzipped tar or the same files unpacked. Bytes are
// given by the caller; nothing in it is trusted.
import type { Problem } from '../errors.ts'

export interface ArchiveLimits {
  readonly fileBytes: number
  readonly totalBytes: number
  readonly fileCount: number
}

export const ARCHIVE_LIMITS: ArchiveLimits = {
  fileBytes: 64 * 1024 * 1024,
  totalBytes: 128 * 1024 * 1024,
  fileCount: 2_000,
}

export type Unpacked =
  | { readonly kind: 'entries'; readonly entries: ReadonlyMap<string, Buffer> }
  | { readonly kind: 'problems'; readonly problems: readonly Problem[] }

/** `file` is for messages only. */
export function unpackArchive(
  _bytes: Buffer,
  _file: string,
  _limits: ArchiveLimits = ARCHIVE_LIMITS,
): Promise<Unpacked> {
  throw new Error('not built yet')
}
