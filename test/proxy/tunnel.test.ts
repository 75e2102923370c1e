import assert from 'node:assert/strict'
import type { Writable } from 'node:stream'
import { describe, it } from 'node:test'
import { Cells, cellOf } from '../../src/metrics.ts'
import { Copies } from '../../src/proxy/copies.ts'
import { Tunnel, type TunnelClient, type TunnelKind } from '../../src/proxy/tunnel.ts'
import { Turn } from '../../src/proxy/turn.ts'
import type { UpstreamConnection } from '../../src/proxy/upstream.ts'
import { ConnectionEnd } from '../../src/proxy/workload-end.ts'
import { eventually } from '../support/eventually.ts'

const CLOSE_1001 = '880203e9'
const CLOSE_1008 = '880203f0'

/** One side of a tunnel: what was written to it, and how it was ended. */
class Side {
  written = ''
  ended = false
  paused = false
  wasReset = false
  writtenAtReset = ''
  destroyed = false
  writable = true
  writableNeedDrain = false
  room = true
  timeoutMs = 0
  onTimeout: () => void = () => {}
  writableCorked = 0
  held = ''
  write(bytes: Buffer): boolean {
    this.held += bytes.toString('hex')
    if (this.writableCorked === 0) this.#flush()
    return this.room
  }
  cork(): void {
    this.writableCorked++
  }
  uncork(): void {
    if (--this.writableCorked === 0) this.#flush()
  }
  #flush(): void {
    this.written += this.held
    this.held = ''
  }
  end(): void {
    this.ended = true
  }
  pause(): void {
    this.paused = true
  }
  resume(): void {
    this.paused = false
  }
  setTimeout(timeoutMs: number, onTimeout: () => void): void {
    this.timeoutMs = timeoutMs
    this.onTimeout = onTimeout
  }
}

function setUp(kind: TunnelKind = 'websocket', turn?: Turn) {
  const [here, there] = [new Side(), new Side()]
  const clock = { nowMs: 0 }
  const cells = Cells.allocate()
  const done: boolean[] = []
  const client = {
    socket: here,
    pass: (buffer: Buffer, start: number, end: number) => {
      turn?.hold(here as unknown as Writable)
      return here.write(buffer.subarray(start, end))
    },
    nowMs: () => clock.nowMs,
    tunnelDone: (broken: boolean) => void done.push(broken),
  }
  const upstream = {
    socket: there,
    copies: new Copies(),
    reset: () => {
      there.wasReset = true
      there.writtenAtReset = there.written
    },
    destroy: () => {
      there.destroyed = true
    },
  }
  const tunnel = new Tunnel(
    kind,
    client as unknown as TunnelClient,
    new ConnectionEnd(upstream as unknown as UpstreamConnection, turn ?? new Turn()),
    cells,
  )
  tunnel.begin()
  const say = (hex: string): void => {
    const bytes = Buffer.from(hex, 'hex')
    tunnel.upstreamData(bytes, 0, bytes.length)
  }
  const ended = (reason: 'complete' | 'broken' | 'drain' | 'idle' | 'peer_invalid'): number =>
    cells.read(cellOf('tunnels_ended_total', { kind, reason }))
  const open = (): number => cells.read(cellOf('tunnels_open', { kind }))
  return { tunnel, here, there, clock, done, say, ended, open }
}

describe('a tunnel', () => {
  it('writes what comes in one turn of the event loop together, in both directions', async () => {
    const { tunnel, here, there, say } = setUp('tcp', new Turn())
    for (const hex of ['aa', 'bb']) {
      tunnel.clientData(Buffer.from(hex, 'hex'))
      say(hex)
    }
    assert.deepEqual([here.written, there.written], ['', ''])
    await eventually('it has left', () => here.written === 'aabb' && there.written === 'aabb')
  })

  it('gives the workload what came before the client was gone', () => {
    const { tunnel, there } = setUp('tcp', new Turn())
    tunnel.clientData(Buffer.from('aa', 'hex'))
    tunnel.abandon()
    assert.equal(there.writtenAtReset, 'aa')
  })

  it('does not reset a workload that still reads what came before the end of both sides', () => {
    const { tunnel, there, ended, open } = setUp()
    assert.equal(open(), 1)
    tunnel.clientEnd()
    tunnel.upstreamEnd()
    tunnel.abandon()
    assert.equal(there.wasReset, false)
    assert.deepEqual([ended('complete'), ended('broken'), open()], [1, 0, 0])
    assert.ok(there.timeoutMs > 0)
    there.onTimeout()
    assert.equal(there.wasReset, true)
  })

  it('resets a workload whose client is gone before its end, and counts it once', () => {
    const { tunnel, there, ended, open, done } = setUp('tcp')
    tunnel.abandon()
    tunnel.abandon()
    tunnel.upstreamFailed()
    assert.equal(there.wasReset, true)
    assert.deepEqual([ended('broken'), open(), done], [1, 0, []])
  })

  it('tells its client to go behind the frame that is under way, and nothing after that', () => {
    const { tunnel, here, clock, say } = setUp()
    say('8103aa')
    tunnel.leave('drain')
    assert.equal(here.written, '8103aa')
    say('bbcc8101dd')
    assert.equal(here.written, `8103aabbcc${CLOSE_1001}`)
    say('8101ee')
    assert.equal(here.written, `8103aabbcc${CLOSE_1001}`)
    tunnel.leave('idle')
    assert.equal(tunnel.leaving, 'drain')
    assert.equal(tunnel.overdue(clock.nowMs + 4_999), false)
    assert.equal(tunnel.overdue(clock.nowMs + 5_000), true)
  })

  it('goes on reading a workload that was stopped for a slow client once that client has to go', () => {
    const { tunnel, here, there, say } = setUp()
    here.room = false
    say('8101aa')
    assert.equal(there.paused, true)
    tunnel.leave('drain')
    assert.equal(there.paused, false)
  })

  it('does not wait for the rest of a frame that has not come for as long as it may be idle', () => {
    const { tunnel, here, clock, say } = setUp()
    say('8103aa')
    tunnel.leave('idle')
    assert.equal(tunnel.overdue(clock.nowMs), true)
    assert.equal(here.written, '8103aa')
  })

  it('says nothing to a client that the workload has told to go', () => {
    const { tunnel, here, say, ended } = setUp()
    say('880203e8')
    tunnel.leave('drain')
    assert.equal(tunnel.cut(), false)
    assert.equal(here.written, '880203e8')
    assert.equal(ended('drain'), 1)
  })

  it('gives no more time to a workload that goes on after its own close frame', () => {
    const { tunnel, clock, say } = setUp()
    say('880203e8')
    tunnel.leave('lifetime')
    clock.nowMs = 4_000
    say('8101aa')
    assert.equal(tunnel.overdue(5_000), true)
  })

  it('says why to a peer that is cut between frames, where that can be read', () => {
    const between = setUp()
    between.say('8101aa')
    assert.equal(between.tunnel.cut(), true)
    assert.equal(between.here.written, `8101aa${CLOSE_1008}`)
    assert.equal(between.there.wasReset, true)
    between.say('8101bb')
    assert.equal(between.here.written, `8101aa${CLOSE_1008}`)
    const amid = setUp()
    amid.say('8102aa')
    assert.equal(amid.tunnel.cut(), false)
    const slow = setUp()
    slow.here.writableNeedDrain = true
    assert.equal(slow.tunnel.cut(), false)
    for (const { there, ended } of [between, amid, slow]) {
      assert.equal(there.wasReset, true)
      assert.equal(ended('peer_invalid'), 1)
    }
  })

  it('writes no frame of its own into bytes that nobody looks at', () => {
    const { tunnel, here, say } = setUp('tcp')
    say('8101aa')
    tunnel.leave('drain')
    assert.equal(tunnel.leaving, undefined)
    assert.equal(tunnel.cut(), false)
    assert.equal(here.written, '8101aa')
  })
})
