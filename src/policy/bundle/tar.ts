// Reads a tar archive that is in memory as a whole. Our own, because a header can make a streaming
// reader wait for ever (tar-stream 3.2: a directory with a size, a size in base 256), and a load that
// never ends holds up all others. Strict: one reading for each byte, or the archive is refused.

export interface TarEntry {
  readonly name: string
  /** `file`, `directory`, or what else it is, as `a symlink`. */
  readonly type: string
  /** A view of the archive. */
  readonly content: Buffer
}

/** The archive is damaged, or is of a kind that `opa build` and `tar` do not write for files. */
export class TarError extends Error {
  override readonly name = 'TarError'
}

const BLOCK = 512

/**
 * Formats: POSIX (ustar and pax) and GNU with long names.
 * @throws TarError
 */
export function* readTar(bytes: Buffer): Generator<TarEntry> {
  let at = 0
  let override: Override = {}
  for (;;) {
    const header = bytes.subarray(at, at + BLOCK)
    if (header.length < BLOCK) throw new TarError('it ends too early')
    if (isZero(header)) break
    checkSum(header)
    const type = String.fromCharCode(header[TYPE] as number)
    const size = override.size ?? octal(header, SIZE, 12)
    const start = at + BLOCK
    const content = bytes.subarray(start, start + size)
    if (content.length < size) throw new TarError('it ends too early')
    at = start + Math.ceil(size / BLOCK) * BLOCK
    if (HEADERS.has(type)) {
      override = { ...override, ...readOverride(type, content) }
      continue
    }
    const name = override.name ?? nameOf(header)
    override = {}
    yield { name, type: typeOf(type, name, size), content }
  }
  if (override.name !== undefined) throw new TarError('it ends too early')
  if (!isZero(bytes.subarray(at))) throw new TarError('there is something after its end')
}

// Places in a header (POSIX.1-2017, pax, "ustar Interchange Format").
const NAME = 0
const SIZE = 124
const CHECKSUM = 148
const TYPE = 156
const MAGIC = 257
const PREFIX = 345

/** What a header says about the entry that follows it. */
interface Override {
  readonly name?: string
  readonly size?: number
}

const PAX = 'x'
const PAX_GLOBAL = 'g'
const GNU_LONG_NAME = 'L'
const HEADERS: ReadonlySet<string> = new Set([PAX, PAX_GLOBAL, GNU_LONG_NAME])

function readOverride(type: string, content: Buffer): Override {
  if (type === GNU_LONG_NAME) return { name: text(content) }
  const records = paxRecords(content)
  // `git archive` writes a comment for all entries; a name for all of them makes no sense.
  if (type === PAX_GLOBAL && records.size > (records.has('comment') ? 1 : 0)) {
    throw new TarError('it has a global pax header')
  }
  if ([...records.keys()].some((key) => key.startsWith('GNU.sparse'))) {
    throw new TarError('it has a sparse file')
  }
  const [name, size] = [records.get('path'), records.get('size')]
  if (size !== undefined && !/^\d{1,12}$/.test(size)) throw new TarError('a size is no number')
  return {
    ...(name === undefined ? {} : { name }),
    ...(size === undefined ? {} : { size: Number(size) }),
  }
}

/** Each record is `LENGTH KEY=VALUE\n`, and the length counts all of it. */
function paxRecords(content: Buffer): ReadonlyMap<string, string> {
  const records = new Map<string, string>()
  for (let at = 0; at < content.length; ) {
    const space = content.indexOf(0x20, at)
    const digits = content.toString('latin1', at, Math.min(space, at + 10))
    const end = at + (/^[1-9]\d*$/.test(digits) ? Number(digits) : Number.NaN)
    const equals = content.indexOf(0x3d, space)
    if (!(end <= content.length && equals > space && equals < end && content[end - 1] === 0x0a)) {
      throw new TarError('a pax header is damaged')
    }
    records.set(
      utf8(content.subarray(space + 1, equals)),
      utf8(content.subarray(equals + 1, end - 1)),
    )
    at = end
  }
  return records
}

function nameOf(header: Buffer): string {
  const magic = header.toString('latin1', MAGIC, MAGIC + 8)
  const name = text(header.subarray(NAME, NAME + 100))
  // GNU keeps times where POSIX keeps the prefix.
  if (magic === 'ustar  \0') return name
  if (magic !== 'ustar\x0000') throw new TarError('its format is not known')
  const prefix = text(header.subarray(PREFIX, PREFIX + 155))
  return prefix === '' ? name : `${prefix}/${name}`
}

function typeOf(type: string, name: string, size: number): string {
  if (type === '0' || type === '\0') return name.endsWith('/') ? 'directory' : 'file'
  if (type === '5' && size === 0) return 'directory'
  return KINDS.get(type) ?? 'no regular file'
}

const KINDS: ReadonlyMap<string, string> = new Map([
  ['1', 'a link'],
  ['2', 'a symlink'],
  ['3', 'a device'],
  ['4', 'a device'],
  ['5', 'a directory with a size'],
  ['6', 'a pipe'],
])

function checkSum(header: Buffer): void {
  let sum = 8 * 0x20
  for (let at = 0; at < BLOCK; at++) {
    if (at < CHECKSUM || at >= CHECKSUM + 8) sum += header[at] as number
  }
  if (octal(header, CHECKSUM, 8) !== sum) throw new TarError('a header is damaged')
}

/** Digits, then NUL or spaces; sizes in base 256 are those of 8 GiB and more. */
function octal(header: Buffer, at: number, length: number): number {
  const digits = header
    .toString('latin1', at, at + length)
    .replace(/[\0 ]+$/, '')
    .trimStart()
  if (!/^[0-7]{1,11}$/.test(digits)) throw new TarError('a number in a header is damaged')
  return Number.parseInt(digits, 8)
}

/** Up to the first NUL. */
function text(bytes: Buffer): string {
  const end = bytes.indexOf(0)
  return utf8(end < 0 ? bytes : bytes.subarray(0, end))
}

function utf8(bytes: Buffer): string {
  try {
    return UTF8.decode(bytes)
  } catch {
    throw new TarError('a name is not UTF-8')
  }
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function isZero(bytes: Buffer): boolean {
  // Native and quick, for the padding may be megabytes.
  return bytes.length === 0 || (bytes[0] === 0 && bytes.subarray(1).equals(bytes.subarray(0, -1)))
}
