// Windows and whose turn it is: no more than the peer allows, a frame of each stream in turn, and
// every byte in order, however it was written and however the windows open.
import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { FLAG, FRAME, H2_ERROR, readFrameHeader, SETTING } from '../../../src/http/h2/frames.ts'
import { Outbox } from '../../../src/proxy/h2/outbox.ts'
import { Flow, Sending } from '../../../src/proxy/h2/sending.ts'
import { Turn } from '../../../src/proxy/turn.ts'

class Peer {
  readonly bodies = new Map<number, Buffer[]>()
  readonly order: number[] = []
  readonly ended = new Set<number>()
  drains = 0
  readonly outbox: Outbox
  readonly sending: Sending

  constructor() {
    const socket = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        this.#read(chunk)
        done()
      },
    })
    this.outbox = new Outbox(socket, new Turn())
    this.sending = new Sending(this.outbox)
  }

  flow(id: number): Flow {
    this.bodies.set(id, [])
    return new Flow(id, this.sending, {
      flowDrained: () => this.drains++,
      flowEnded: () => this.ended.add(id),
    })
  }

  body(id: number): Buffer {
    this.outbox.flush()
    return Buffer.concat(this.bodies.get(id) ?? [])
  }

  #read(chunk: Buffer): void {
    for (let at = 0; at < chunk.length; ) {
      const { length, type, flags, stream } = readFrameHeader(chunk, at)
      const payload = chunk.subarray(at + 9, at + 9 + length)
      assert.equal(type, FRAME.data)
      this.bodies.get(stream)?.push(Buffer.from(payload))
      this.order.push(stream)
      if ((flags & FLAG.endStream) !== 0) assert.ok(!this.order.includes(-stream))
      if ((flags & FLAG.endStream) !== 0) this.order.push(-stream)
      at += 9 + length
    }
  }
}

describe('what a peer is sent', () => {
  it('has every byte in order, and never more than its windows', () => {
    const step = fc.oneof(
      fc.record({ write: fc.constantFrom(1, 2, 700, 1_023, 1_024, 5_000, 70_000) }),
      fc.record({ grow: fc.constantFrom(1, 10, 5_000, 100_000) }),
      fc.record({ connection: fc.constantFrom(1, 10, 5_000, 100_000) }),
      fc.record({ initial: fc.constantFrom(0, 100, 65_535, 200_000) }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const peer = new Peer()
        const flow = peer.flow(1)
        let written = 0
        let window = 65_535
        let initial = 65_535
        let connection = 65_535
        const sent = (): number => peer.body(1).length
        for (const one of steps) {
          if ('write' in one) {
            const bytes = Buffer.from(
              Uint8Array.from({ length: one.write }, (_, i) => (written + i) % 251),
            )
            flow.write(bytes, 0, bytes.length)
            // They were lent.
            bytes.fill(255)
            written += one.write
          } else if ('grow' in one) {
            window += one.grow
            flow.grow(one.grow)
          } else if ('connection' in one) {
            connection += one.connection
            peer.sending.grow(one.connection)
          } else {
            window += one.initial - initial
            initial = one.initial
            const code = peer.sending.setting(SETTING.initialWindowSize, initial, [flow])
            assert.equal(code, H2_ERROR.none)
          }
          const before = sent()
          peer.sending.pump()
          const allowed = Math.max(before, Math.min(written, window, connection))
          assert.equal(sent(), allowed)
        }
        flow.end([])
        flow.grow(10_000_000)
        peer.sending.grow(10_000_000)
        peer.sending.pump()
        const body = peer.body(1)
        assert.deepEqual(body, Buffer.from(Uint8Array.from({ length: written }, (_, i) => i % 251)))
        assert.ok(peer.ended.has(1))
        assert.equal(peer.order.at(-1), -1)
      }),
      { numRuns: 500 },
    )
  })

  it('comes a frame at a time from each stream that waits', () => {
    const peer = new Peer()
    peer.sending.window = 0
    const flows = [1, 3, 5].map((id) => peer.flow(id))
    for (const flow of flows) flow.write(Buffer.alloc(40_000), 0, 40_000)
    peer.sending.grow(70_000)
    peer.sending.pump()
    peer.outbox.flush()
    assert.deepEqual(peer.order, [1, 3, 5, 1, 3])
  })

  it('does not wait for a stream whose own window is closed', () => {
    const peer = new Peer()
    const [closed, open] = [peer.flow(1), peer.flow(3)]
    closed.grow(-65_535)
    closed.write(Buffer.alloc(10), 0, 10)
    open.write(Buffer.alloc(10), 0, 10)
    peer.sending.pump()
    assert.deepEqual([peer.body(1).length, peer.body(3).length], [0, 10])
  })

  it('is asked for again once most of what waited has left', () => {
    const peer = new Peer()
    const flow = peer.flow(1)
    flow.grow(-65_535)
    assert.equal(flow.write(Buffer.alloc(64 * 1024), 0, 64 * 1024), false)
    flow.grow(1_000)
    peer.sending.pump()
    assert.equal(peer.drains, 0)
    flow.grow(60_000)
    peer.sending.pump()
    assert.equal(peer.drains, 1)
    assert.equal(flow.full, false)
  })

  it('is asked for again though more was written while it was too much', () => {
    const peer = new Peer()
    const flow = peer.flow(1)
    flow.grow(-65_535)
    assert.equal(flow.write(Buffer.alloc(64 * 1024), 0, 64 * 1024), false)
    flow.grow(20_000)
    peer.sending.pump()
    assert.equal(flow.write(Buffer.alloc(100), 0, 100), false)
    flow.grow(60_000)
    peer.sending.pump()
    assert.equal(peer.drains, 1)
    assert.equal(flow.write(Buffer.alloc(1), 0, 1), true)
  })

  it('costs no more than its bytes where it waits in small pieces', () => {
    const peer = new Peer()
    const flow = peer.flow(1)
    flow.grow(-65_535)
    for (let i = 0; i < 5_000; i++) flow.write(Buffer.from([i % 251]), 0, 1)
    flow.grow(5_000)
    peer.sending.pump()
    peer.outbox.flush()
    assert.ok(peer.order.length <= 3, `${peer.order.length} frames`)
    assert.deepEqual(
      peer.body(1),
      Buffer.from(Uint8Array.from({ length: 5_000 }, (_, i) => i % 251)),
    )
  })

  it('may have windows above what there is for neither stream nor connection', () => {
    const peer = new Peer()
    const flow = peer.flow(1)
    assert.equal(flow.grow(2 ** 31 - 1 - 65_535), true)
    assert.equal(flow.grow(1), false)
    assert.equal(peer.sending.grow(2 ** 31), false)
    assert.equal(
      peer.sending.setting(SETTING.initialWindowSize, 2 ** 31, [flow]),
      H2_ERROR.flowControl,
    )
    assert.equal(peer.sending.setting(SETTING.maxFrameSize, 16_383, []), H2_ERROR.protocol)
  })
})
