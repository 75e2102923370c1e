// What leaves in one turn: one write, in order, with END_STREAM on the last frame where that can be.
import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { describe, it } from 'node:test'
import { FLAG, FRAME, pingAckFrame, readFrameHeader } from '../../../src/http/h2/frames.ts'
import { HpackDecoder } from '../../../src/http/h2/hpack.ts'
import { Outbox } from '../../../src/proxy/h2/outbox.ts'
import { Turn } from '../../../src/proxy/turn.ts'
import { eventually } from '../../support/eventually.ts'

function open(options: { readonly reads?: boolean } = {}) {
  const writes: Buffer[] = []
  const socket = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      writes.push(chunk)
      if (options.reads !== false) done()
    },
  })
  const outbox = new Outbox(socket, new Turn())
  const left = async (): Promise<Buffer[]> => {
    await eventually('it has left', () => writes.length > 0)
    return writes
  }
  return { socket, outbox, writes, left }
}

function framesOf(bytes: Buffer) {
  const frames: { type: number; flags: number; stream: number; payload: Buffer }[] = []
  for (let at = 0; at < bytes.length; ) {
    const { length, ...header } = readFrameHeader(bytes, at)
    frames.push({ ...header, payload: bytes.subarray(at + 9, at + 9 + length) })
    at += 9 + length
  }
  return frames
}

const fieldsOf = (block: Buffer): readonly string[] => {
  const decoded = new HpackDecoder().decode(block, { listBytes: 1 << 20, count: 1_000 })
  assert.equal(decoded.kind, 'block')
  return decoded.kind === 'block' ? decoded.fields : []
}

describe('the frames of one turn', () => {
  it('leave in one write, in order, and bytes that were lent are copied', async () => {
    const { outbox, left } = open()
    const lent = Buffer.from('xabcx')
    outbox.headers(1, [':status', '200', 'x-a', 'b'], false, 16_384)
    outbox.data(1, lent, 1, 4, false)
    outbox.push(pingAckFrame(Buffer.from('12345678')))
    lent.fill('!')
    const writes = await left()
    assert.equal(writes.length, 1)
    const frames = framesOf(writes[0]!)
    assert.deepEqual(
      frames.map(({ type }) => type),
      [FRAME.headers, FRAME.data, FRAME.ping],
    )
    assert.deepEqual(fieldsOf(frames[0]!.payload), [':status', '200', 'x-a', 'b'])
    assert.equal(frames[1]!.payload.toString(), 'abc')
  })

  it('are ended by a flag on the last one, of that stream alone and before it has left', async () => {
    const { outbox, left } = open()
    outbox.data(1, Buffer.from('a'), 0, 1, false)
    outbox.data(3, Buffer.from('b'), 0, 1, false)
    assert.equal(outbox.endLast(1), false)
    assert.equal(outbox.endLast(3), true)
    outbox.push(pingAckFrame(Buffer.alloc(8)))
    assert.equal(outbox.endLast(3), false)
    outbox.headers(5, [':status', '204'], false, 16_384)
    assert.equal(outbox.endLast(5), true)
    const frames = framesOf(Buffer.concat(await left()))
    assert.deepEqual(
      frames.map(({ flags }) => flags & FLAG.endStream),
      [0, 1, 1, 1],
    )
    assert.equal(outbox.endLast(5), false)
  })

  it('have a header block in as many frames as the peer takes', async () => {
    const { outbox, left } = open()
    const fields = Array.from({ length: 30 }, (_, i) => [`x-${i}`, `${i}`.repeat(700)]).flat()
    outbox.tableChanged = true
    outbox.headers(1, fields, false, 16_384)
    assert.equal(outbox.endLast(1), true)
    outbox.headers(3, ['x-a', 'b'], true, 16_384)
    const frames = framesOf(Buffer.concat(await left()))
    assert.deepEqual(
      frames.map(({ type, flags, stream }) => [type, flags, stream]),
      [
        [FRAME.headers, FLAG.endStream, 1],
        [FRAME.continuation, 0, 1],
        [FRAME.continuation, FLAG.endHeaders, 1],
        [FRAME.headers, FLAG.endStream | FLAG.endHeaders, 3],
      ],
    )
    const block = Buffer.concat(frames.slice(0, 3).map(({ payload }) => payload))
    assert.equal(block[0], 0x20, 'that our table is empty')
    assert.deepEqual(fieldsOf(block), fields)
    assert.deepEqual(fieldsOf(frames[3]!.payload), ['x-a', 'b'])
  })

  it('are as many as there are, in order', async () => {
    const { outbox, writes } = open()
    const body = Buffer.alloc(10_000)
    for (let i = 0; i < 50; i++) {
      body.fill(i)
      outbox.data(1, body, 0, body.length, false)
    }
    await eventually('all have left', () => Buffer.concat(writes).length === 50 * 10_009)
    const frames = framesOf(Buffer.concat(writes))
    for (const [i, { payload }] of frames.entries()) assert.ok(payload.every((byte) => byte === i))
  })

  it('wait where the socket takes no more, and none comes behind the end', async () => {
    const { outbox, socket, writes } = open({ reads: false })
    for (let i = 0; i < 6; i++) outbox.data(1, Buffer.alloc(16_384), 0, 16_384, false)
    outbox.flush()
    assert.equal(outbox.full, true)
    assert.ok(outbox.waitingBytes > 6 * 16_384)
    outbox.end()
    outbox.push(pingAckFrame(Buffer.alloc(8)))
    outbox.flush()
    assert.equal(socket.writableEnded, true)
    assert.equal(writes.length, 1)
  })
})
