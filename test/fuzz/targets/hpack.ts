// Header blocks. nghttp2, in a session of node:http2, has to call the same ones broken, and to read the
// same fields in the others; what is read is written as the same fields.
import assert from 'node:assert/strict'
import http2 from 'node:http2'
import { duplexPair } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import {
  H2_ERROR,
  headersFrames,
  PREFACE,
  readFrameHeader,
  settingsFrame,
} from '../../../src/http/h2/frames.ts'
import { encodeHeaderBlock, HpackDecoder } from '../../../src/http/h2/hpack.ts'
import { readRequestList } from '../../../src/http/h2/request.ts'
import { LIMITS as HEAD_LIMITS } from '../../http/support.ts'
import { countedMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

const LIMITS = { listBytes: 1 << 20, count: 10_000 }
const REQUEST = [':method', 'GET', ':scheme', 'https', ':authority', 'a', ':path', '/']
const literal = (first: number, ...texts: string[]) =>
  Buffer.concat([
    Buffer.from([first]),
    ...texts.map((one) => Buffer.from(`${String.fromCharCode(one.length)}${one}`, 'latin1')),
  ])
const start = encodeHeaderBlock(REQUEST)

/** Input: blocks of one connection, each behind its length in two bytes. */
const blocks = (...list: Buffer[]) =>
  Buffer.concat(list.flatMap((one) => [Buffer.from([one.length >> 8, one.length]), one]))
const blocksOf = (input: Buffer): Buffer[] => {
  const list: Buffer[] = []
  for (let at = 0; at + 2 <= input.length; ) {
    const end = at + 2 + input.readUInt16BE(at)
    list.push(input.subarray(at + 2, end))
    at = end
  }
  return list
}

export const target: Target = {
  name: 'hpack',
  runs: 500,
  seeds: () => [
    blocks(start),
    blocks(
      Buffer.concat([start, literal(0x40, 'x-a', 'b')]),
      Buffer.concat([start, Buffer.from([0xbe])]),
    ),
    // Huffman: www.example.com, no-cache, of RFC 7541 appendix C.4.
    blocks(
      Buffer.from('828684418cf1e3c2e5f23a6ba0ab90f4ff', 'hex'),
      Buffer.from('828684be5886a8eb10649cbf', 'hex'),
    ),
    blocks(
      Buffer.concat([Buffer.from('20', 'hex'), start]),
      Buffer.concat([Buffer.from('3fe11f', 'hex'), start]),
    ),
    blocks(
      Buffer.concat([
        start,
        literal(0x10, 'cookie', 'a=b'),
        literal(0x40, 'x-long', 'y'.repeat(100)),
      ]),
    ),
    blocks(
      encodeHeaderBlock([
        ...REQUEST.slice(0, 2),
        ':protocol',
        'websocket',
        ...REQUEST.slice(2),
        'content-length',
        '0',
      ]),
    ),
  ],
  dictionary: [
    '\x20',
    '\x3f\xe1\x1f',
    '\x3f\xe1\x20',
    '\x00',
    '\x40',
    '\x10',
    '\xbe',
    '\xff\xff\xff\xff\x0f',
    '\x7f\xff',
    '\x83\xff\xff\xff',
  ],
  mutators: [
    countedMutator((input) => {
      const list = blocksOf(input).map((one) => blocks(one))
      return list.length > 0 ? list : undefined
    }),
  ],
  check: async (input) => {
    const decoder = new HpackDecoder()
    const ours: (readonly string[] | 'broken')[] = []
    const sent: Buffer[] = []
    for (const block of blocksOf(input).slice(0, 8)) {
      sent.push(block)
      const outcome = decoder.decode(block, LIMITS)
      ours.push(outcome.kind === 'block' ? outcome.fields : 'broken')
      if (outcome.kind === 'bad_block') break
      assert.equal(outcome.tooLarge, false)
      const again = new HpackDecoder().decode(encodeHeaderBlock(outcome.fields), LIMITS)
      assert.ok(again.kind === 'block')
      assert.deepEqual(again.fields, outcome.fields)
      const head = readRequestList(outcome.fields, true, HEAD_LIMITS)
      if (head.kind === 'request') assert.match(head.path, /^(\*|\/[!-~]*)$/)
      checkBounded(block)
    }
    const theirs = await byNghttp2(sent)
    const broken = ours.at(-1) === 'broken'
    if (theirs.closed === undefined) assert.equal(broken, false, 'only we call it broken')
    if (theirs.closed === H2_ERROR.compression)
      assert.equal(broken, true, 'only nghttp2 calls it broken')
    for (const [stream, fields] of theirs.requests) {
      const same = ours[(stream - 1) / 2]
      assert.ok(same !== undefined && same !== 'broken')
      // It leaves out fields that RFC 9113 forbids, without a word.
      const pairs = (list: readonly string[]) =>
        list.flatMap((name, i) => (i % 2 === 0 ? `${name}: ${list[i + 1]}` : []))
      const there = pairs(same)
      for (const pair of pairs(fields)) assert.ok(there.includes(pair), pair)
    }
  },
}

function checkBounded(block: Buffer): void {
  const small = new HpackDecoder().decode(block, { listBytes: 200, count: 3 })
  if (small.kind === 'bad_block') return
  assert.ok(small.fields.length <= 6 && small.fields.join('').length <= 200)
}

/** The requests that a server of node:http2 sees, and the code of its GOAWAY where it sends one. */
async function byNghttp2(list: readonly Buffer[]) {
  const requests = new Map<number, readonly string[]>()
  let closed: number | undefined
  const [client, connection] = duplexPair()
  const session = http2.performServerHandshake(connection, {
    settings: { enableConnectProtocol: true },
    maxHeaderListPairs: 10_000,
  })
  session.on('error', () => {})
  session.on('stream', (stream, _headers, _flags, raw) => {
    stream.on('error', () => {})
    requests.set(stream.id!, raw as unknown as string[])
  })
  client.on('error', () => {})
  let rest: Buffer = Buffer.alloc(0)
  client.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 9) {
      const { length, type } = readFrameHeader(rest, 0)
      if (rest.length < 9 + length) break
      if (type === 7) closed ??= rest.readUInt32BE(13)
      rest = rest.subarray(9 + length)
    }
  })
  client.write(PREFACE, 'latin1')
  client.write(settingsFrame([]))
  for (const [i, block] of list.entries())
    client.write(headersFrames(block, 2 * i + 1, true, 16_384))
  for (let turn = 0; turn < 3; turn++) await setImmediate()
  session.destroy()
  client.destroy()
  return { requests, closed }
}
