// The decoder against blocks that nghttp2 made, with its dynamic table and Huffman code.
import assert from 'node:assert/strict'
import http2 from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  FLAG,
  FRAME,
  PREFACE,
  readFrameHeader,
  SETTING,
  settingsAckFrame,
  settingsFrame,
} from '../../../src/http/h2/frames.ts'
import { HpackDecoder } from '../../../src/http/h2/hpack.ts'
import { eventually } from '../../support/eventually.ts'

const LIMITS = { listBytes: 1 << 20, count: 1_000 }

/** What a client of node:http2 sends as header blocks, decoded by ours. */
async function decodedLists(
  lists: readonly (readonly string[])[],
  headerTableSize: number,
): Promise<(readonly string[])[]> {
  const decoder = new HpackDecoder()
  const decoded: (readonly string[])[] = []
  let failure: unknown
  const server = net.createServer((socket) => {
    let rest: Buffer = Buffer.alloc(0)
    let preface = PREFACE.length
    let parts: Buffer[] = []
    socket.on('error', () => {})
    socket.write(settingsFrame([[SETTING.headerTableSize, headerTableSize]]))
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk])
      if (rest.length < preface) return
      rest = rest.subarray(preface)
      preface = 0
      for (;;) {
        if (rest.length < 9) return
        const { length, type, flags } = readFrameHeader(rest, 0)
        if (rest.length < 9 + length) return
        const payload = rest.subarray(9, 9 + length)
        rest = rest.subarray(9 + length)
        if (type === FRAME.settings && (flags & FLAG.ack) === 0) socket.write(settingsAckFrame())
        if (type !== FRAME.headers && type !== FRAME.continuation) continue
        parts.push(Buffer.from(payload))
        if ((flags & FLAG.endHeaders) === 0) continue
        const block = decoder.decode(Buffer.concat(parts), LIMITS)
        parts = []
        if (block.kind === 'block') decoded.push(block.fields)
        else failure = block.what
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const session = http2.connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  session.on('error', () => {})
  try {
    await new Promise((resolve) => session.once('remoteSettings', resolve))
    for (const list of lists) {
      const stream = session.request([...START, ...list], { endStream: true })
      stream.on('error', () => {})
    }
    await eventually(
      'all are decoded',
      () => decoded.length === lists.length || failure !== undefined,
    )
  } finally {
    session.destroy()
    server.close()
  }
  assert.equal(failure, undefined)
  return decoded
}

const START = [':method', 'GET', ':scheme', 'http', ':authority', 'a', ':path', '/']

/** Few names and values, so that the table is used, and some that are large, so that it overflows. */
const name = fc.constantFrom('x-a', 'x-b', 'via', 'accept', 'cookie', 'x-long-name-of-a-field')
const value = fc.oneof(
  fc.constantFrom('', 'a', 'text/html', 'gzip, deflate', 'y'.repeat(900), '~'.repeat(3_000)),
  fc.string({ unit: fc.constantFrom(...'abcXYZ0189!#$%&*;=<>{}|^~"\\'), maxLength: 60 }),
  fc.string({
    unit: fc.constantFrom('\u00fc', '\u00ff', '\u0080', 'a'),
    minLength: 1,
    maxLength: 30,
  }),
)
const list = fc.array(fc.tuple(name, value), { maxLength: 12 }).map((fields) => fields.flat())

describe('the HPACK decoder', () => {
  it('reads whatever nghttp2 writes, with tables of any size', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(list, { minLength: 1, maxLength: 25 }),
        fc.constantFrom(0, 64, 200, 4_096),
        async (lists, headerTableSize) => {
          const decoded = await decodedLists(lists, headerTableSize)
          for (const [i, one] of lists.entries()) {
            assert.deepEqual(decoded[i], [...START, ...one])
          }
        },
      ),
      { numRuns: 60, interruptAfterTimeLimit: 6_000 },
    )
  })

  it('never throws, and keeps to its limits, on bytes of any kind', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }), (blocks) => {
        const decoder = new HpackDecoder()
        for (const bytes of blocks) {
          const block = decoder.decode(Buffer.from(bytes), { listBytes: 500, count: 5 })
          if (block.kind === 'bad_block') return
          assert.ok(block.fields.length <= 10)
          assert.ok(block.fields.join('').length <= 500)
        }
      }),
      { numRuns: 3_000 },
    )
  })
})
