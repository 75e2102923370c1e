import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { CLOSE_CODE, closeFrame, WebSocketFrames } from '../../src/http/websocket-frames.ts'

/** A frame as RFC 6455 section 5.2 draws it, with a length of the least or of a longer form. */
function frame(opcode: number, payload: number, masked: boolean, form: 0 | 2 | 8 = 0): Buffer {
  const extended = form === 8 || payload > 0xffff ? 8 : form === 2 || payload > 125 ? 2 : 0
  const head = Buffer.alloc(2 + extended + (masked ? 4 : 0), 0xff)
  head[0] = 0x80 | opcode
  head[1] = (masked ? 0x80 : 0) | (extended === 8 ? 127 : extended === 2 ? 126 : payload)
  if (extended === 2) head.writeUInt16BE(payload, 2)
  if (extended === 8) head.writeBigUInt64BE(BigInt(payload), 2)
  return Buffer.concat([head, Buffer.alloc(payload, 0x88)])
}

const frames = fc.array(
  fc.record({
    opcode: fc.constantFrom(0, 1, 2, 9, 10),
    payload: fc.oneof(
      fc.constantFrom(0, 1, 124, 125, 126, 127, 128, 65_535, 65_536, 65_537),
      fc.nat(400),
    ),
    masked: fc.boolean(),
    form: fc.constantFrom(0, 2, 8) as fc.Arbitrary<0 | 2 | 8>,
  }),
  { minLength: 1, maxLength: 6 },
)

describe('the frames of a WebSocket', () => {
  it('end where they end, however their bytes are cut', () => {
    fc.assert(
      fc.property(frames, fc.array(fc.integer({ min: 1, max: 70_000 })), (all, cuts) => {
        const bytes = Buffer.concat(
          all.map((one) => frame(one.opcode, one.payload, one.masked, one.form)),
        )
        const ends = new Set([0])
        let end = 0
        for (const one of all) {
          end += frame(one.opcode, one.payload, one.masked, one.form).length
          ends.add(end)
        }
        const tracker = new WebSocketFrames()
        let at = 0
        for (const cut of [...cuts, bytes.length]) {
          const stop = Math.min(bytes.length, at + cut)
          assert.equal(tracker.take(bytes, at, stop), stop)
          at = stop
          assert.equal(tracker.atBoundary, ends.has(at))
        }
        assert.equal(tracker.closing, false)
      }),
      { numRuns: 150 },
    )
  })

  it('are told one after the other when asked to stop at each end', () => {
    fc.assert(
      fc.property(frames, (all) => {
        const bytes = Buffer.concat(all.map((one) => frame(one.opcode, one.payload, one.masked)))
        const tracker = new WebSocketFrames()
        let at = 0
        for (const one of all) {
          const length = frame(one.opcode, one.payload, one.masked).length
          assert.equal(tracker.take(bytes, at, bytes.length, true), at + length)
          at += length
        }
      }),
      { numRuns: 50 },
    )
  })

  it('end with a close frame, from its first byte on', () => {
    const tracker = new WebSocketFrames()
    tracker.take(frame(1, 5, false), 0, 7)
    assert.equal(tracker.closing, false)
    tracker.take(closeFrame(CLOSE_CODE.goingAway), 0, 1)
    assert.equal(tracker.closing, true)
    assert.equal(tracker.atBoundary, false)
    tracker.take(closeFrame(CLOSE_CODE.goingAway), 1, 4)
    assert.equal(tracker.atBoundary, true)
  })

  it('are lost for good at a length that nobody can count', () => {
    const tracker = new WebSocketFrames()
    const bytes = Buffer.concat([Buffer.from([0x82, 127]), Buffer.alloc(8, 0xff), Buffer.alloc(99)])
    assert.equal(tracker.take(bytes, 0, bytes.length, true), bytes.length)
    assert.equal(tracker.atBoundary, false)
    tracker.take(frame(1, 1, false), 0, 3)
    assert.equal(tracker.atBoundary, false)
  })

  it('can be closed by a frame with a code', () => {
    assert.deepEqual([...closeFrame(1008)], [0x88, 2, 3, 0xf0])
    assert.deepEqual([...closeFrame(1001)], [0x88, 2, 3, 0xe9])
  })
})
