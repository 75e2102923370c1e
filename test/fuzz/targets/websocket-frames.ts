// The frames of a WebSocket, of which only the ends are found: the same however the bytes are cut, and
// where RFC 6455, told plainly, has them. A close frame is put there and nowhere else.
import assert from 'node:assert/strict'
import { closeFrame, WebSocketFrames } from '../../../src/http/websocket-frames.ts'
import { encodeFrame, OPCODE } from '../../support/websocket.ts'
import { countedMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

export const target: Target = {
  name: 'websocket-frames',
  runs: 4_000,
  seeds: () => [
    encodeFrame(OPCODE.text, Buffer.from('hello'), true),
    Buffer.concat([
      encodeFrame(OPCODE.binary, Buffer.alloc(126, 1), false),
      encodeFrame(OPCODE.ping, Buffer.alloc(0), true),
      closeFrame(1001),
    ]),
    encodeFrame(OPCODE.binary, Buffer.alloc(70_000 % 9_000, 2), true),
    Buffer.from('827f0000000000010000', 'hex'),
    Buffer.from('82ffffffffffffffffff', 'hex'),
  ],
  dictionary: ['\x82\x7e\x00\x01', '\x82\xff', '\x88\x02\x03\xe9', '\x00\x80', '\x89\x00'],
  mutators: [
    countedMutator((input) =>
      ends(input).map((end, i, all) => input.subarray(all[i - 1] ?? 0, end)),
    ),
  ],
  check: (input) => {
    const frames = ends(input)
    for (const step of [1, 2, 5, input.length + 1]) {
      const reader = new WebSocketFrames()
      const found: number[] = []
      for (let at = 0; at < input.length; ) {
        const end = Math.min(input.length, at + step)
        const next = reader.take(input, at, end, true)
        assert.ok(next > at && next <= end)
        at = next
        if (reader.atBoundary) found.push(at)
      }
      assert.deepEqual(found, frames, `in pieces of ${step}`)
    }
  },
}

/** Where each whole frame ends, up to one that is longer than can be counted. */
function ends(input: Buffer): number[] {
  const found: number[] = []
  for (let at = 0; at + 2 <= input.length; ) {
    const short = input[at + 1]! & 0x7f
    const size = short === 127 ? 8 : short === 126 ? 2 : 0
    const start = at + 2 + size + (input[at + 1]! >= 0x80 ? 4 : 0)
    if (start > input.length) break
    const length =
      size === 8
        ? input.readBigUInt64BE(at + 2)
        : BigInt(size === 2 ? input.readUInt16BE(at + 2) : short)
    if (length > BigInt(input.length - start)) break
    at = start + Number(length)
    found.push(at)
  }
  return found
}
