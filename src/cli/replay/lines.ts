// The lines of a log of any size: from a file or standard input, gzipped or not, with a bounded part
// of it in memory.
import { createReadStream } from 'node:fs'
import { pipeline, Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'

export interface Line {
  /** From 1. */
  readonly number: number
  /** Absent where the line is longer than any of ours. */
  readonly text?: string
}

/** Far above any decision: input and result are at most some hundred KiB each. */
export const LONGEST_LINE = 8 * 1024 * 1024
const READ_AHEAD = 256 * 1024
const LINE_FEED = 0x0a

/** In batches, as they were read. Rejects where the file cannot be read or is cut off. */
export async function* linesOf(path: string): AsyncGenerator<readonly Line[]> {
  let number = 0
  let parts: Buffer[] = []
  let length = 0
  const take = (end: Buffer): Line => {
    number++
    const line =
      length + end.length > LONGEST_LINE
        ? { number }
        : { number, text: Buffer.concat([...parts, end]).toString('utf8') }
    parts = []
    length = 0
    return line
  }
  for await (const chunk of bytesOf(path)) {
    const lines: Line[] = []
    let start = 0
    for (let end = chunk.indexOf(LINE_FEED); end >= 0; end = chunk.indexOf(LINE_FEED, start)) {
      lines.push(take(chunk.subarray(start, end)))
      start = end + 1
    }
    const rest = chunk.subarray(start)
    length += rest.length
    if (length <= LONGEST_LINE) parts.push(rest)
    else parts = []
    if (lines.length > 0) yield lines
  }
  if (length > 0) yield [take(Buffer.alloc(0))]
}

async function* bytesOf(path: string): AsyncGenerator<Buffer> {
  const source: Readable =
    path === '-' ? process.stdin : createReadStream(path, { highWaterMark: READ_AHEAD })
  const chunks = source[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  let head = Buffer.alloc(0)
  while (head.length < 2) {
    const next = await chunks.next()
    if (next.done) break
    head = Buffer.concat([head, next.value])
  }
  const all = (async function* () {
    yield head
    for (let next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value
  })()
  if (head[0] !== 0x1f || head[1] !== 0x8b) return yield* all
  const gunzip = createGunzip({ chunkSize: READ_AHEAD })
  // Its failure is told by `gunzip`, too.
  pipeline(Readable.from(all), gunzip, () => {})
  yield* gunzip as AsyncIterable<Buffer>
}
