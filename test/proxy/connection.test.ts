import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { TLSSocket } from 'node:tls'
import v8 from 'node:v8'
import vm from 'node:vm'
import type { PeerRejection, VerifiedPeer } from '../../src/identity/peer.ts'
import { Cells, cellOf } from '../../src/metrics.ts'
import type { ConnectionInputs } from '../../src/policy/input.ts'
import { SharedPieces } from '../../src/proxy/bytes-aside.ts'
import { ClientConnection } from '../../src/proxy/connection.ts'
import { Copies } from '../../src/proxy/copies.ts'
import type { Exchange } from '../../src/proxy/exchange.ts'
import { type Arrival, Intake } from '../../src/proxy/intake.ts'
import type { Owed } from '../../src/proxy/overload.ts'
import { Tally } from '../../src/proxy/tally.ts'
import type { ThreadContext } from '../../src/proxy/thread-context.ts'
import { Turn } from '../../src/proxy/turn.ts'
import type { WorkloadEnd } from '../../src/proxy/workload-end.ts'
import { eventually } from '../support/eventually.ts'

/** What a connection does to its socket, with the flushing in the hands of the test. */
class FakeSocket {
  written = ''
  ended = false
  destroyed = false
  writableFinished = false
  writableNeedDrain = false
  write(bytes: Buffer | string): boolean {
    this.written += bytes.toString('latin1')
    return true
  }
  end(): void {
    this.ended = true
  }
  destroy(): void {
    this.destroyed = true
  }
  pause(): void {}
  resume(): void {}
  isPaused(): boolean {
    return false
  }
}

const PEER = { kind: 'peer', principal: 'p', trustGeneration: 1, acceptableUntilMs: 1e9 }

function setUp(recheck: () => VerifiedPeer | PeerRejection = () => PEER as never) {
  const cells = Cells.allocate()
  const context = {
    generation: {
      verifier: { trustGeneration: 1, recheck },
      headLimits: {
        headBytes: 1024,
        headerCount: 10,
        targetBytes: 100,
        allowAmbiguousPaths: false,
      },
      snapshot: {
        settings: {
          inbound: {
            limits: { requestsPerConnection: 0 },
            timeouts: { requestHeadMs: 15_000, idleMs: 300_000, connectionLifetimeMs: 0 },
          },
          log: { access: 'off' },
        },
      },
    },
    cells,
    pool: { copies: new Copies() },
    records: { push: () => {} },
    clock: { nowMs: () => 0, monotonicMs: () => 0 },
    tickMs: 0,
    intake: new Intake(
      new Turn(),
      { shared: false, requestsBegun: 0 },
      () => 0,
      (error) => assert.fail(String(error)),
    ),
    overload: { sheds: () => false, keepsOut: () => false },
    draining: false,
  }
  const socket = new FakeSocket()
  const connection = new ClientConnection(
    {
      socket: socket as unknown as TLSSocket,
      peer: PEER as unknown as VerifiedPeer,
      inputs: { under: () => ({}) } as unknown as ConnectionInputs,
      remoteAddress: '127.0.0.1',
      remotePort: 1,
    },
    context as unknown as ThreadContext,
    new Tally(context as unknown as ThreadContext),
  )
  const at = (nowMs: number): void => {
    context.tickMs = nowMs
    connection.tick(nowMs)
  }
  return { connection, socket, context, cells, at }
}

describe('a client connection', () => {
  it('lets a slow client read the last answer, however its own end comes', () => {
    const { connection, socket, at } = setUp()
    connection.onData(Buffer.from('nonsense\r\n\r\n'))
    assert.match(socket.written, /^HTTP\/1.1 400 /)
    assert.ok(socket.ended)
    connection.onEnd()
    at(10_000)
    assert.ok(!socket.destroyed, 'bytes of the answer are still on their way')
    socket.writableFinished = true
    at(10_100)
    at(12_000)
    assert.ok(!socket.destroyed, 'the client has two seconds to close')
    at(12_200)
    assert.ok(socket.destroyed)
  })

  it('does not wait for ever for a client that does not read', () => {
    const { connection, socket, at } = setUp()
    connection.onData(Buffer.from('nonsense\r\n\r\n'))
    at(299_000)
    assert.ok(!socket.destroyed)
    at(300_000)
    assert.ok(socket.destroyed)
  })

  it('that is idle has a second to send a request when a drain begins', () => {
    const { socket, context, at } = setUp()
    at(60_000)
    context.draining = true
    at(60_100)
    at(61_000)
    assert.ok(!socket.ended)
    at(61_100)
    assert.ok(socket.ended)
  })

  it('is cut once when its peer stops being acceptable', () => {
    const { connection, socket, cells } = setUp(
      () => ({ kind: 'rejection', reason: 'revoked', detail: '' }) as never,
    )
    connection.verifyAgain(1e9)
    connection.verifyAgain(1e9 + 100)
    connection.onClose()
    assert.ok(socket.destroyed)
    assert.equal(cells.read(cellOf('revocations_enforced_total', { what: 'revoked' })), 1)
    assert.equal(cells.read(cellOf('connections_closed_total', { reason: 'peer_invalid' })), 1)
  })

  it('answers a request whose peer is no longer acceptable, and lets it be read', () => {
    const { connection, socket, context, cells, at } = setUp(
      () => ({ kind: 'rejection', reason: 'revoked', detail: '' }) as never,
    )
    context.clock.nowMs = () => 1e9
    context.tickMs = 1e9
    connection.onData(Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n'))
    assert.match(socket.written, /^HTTP\/1.1 403 Forbidden[\s\S]*peer_revoked/)
    at(1e9)
    assert.ok(!socket.destroyed)
    assert.equal(cells.read(cellOf('revocations_enforced_total', { what: 'revoked' })), 1)
  })

  it('lets others have the thread between pipelined requests that it denies', async () => {
    const { connection, socket, context } = setUp()
    let decisions = 0
    const evaluation = { outcome: 'timeout', rule: 'policy', input: '{}', evalNs: 1 }
    Object.assign(context.generation, {
      identity: { uris: [] },
      xfccByPeer: new Map([[PEER, 'Hash=0']]),
      engine: {
        bodyNeed: () => undefined,
        decide: () => {
          decisions++
          return { kind: 'denial', code: 'policy_timeout', status: 504, headers: [], evaluation }
        },
      },
    })
    Object.assign(context.generation.snapshot.settings.log, { decisions: 'off' })
    Object.assign(context.generation.snapshot.settings.inbound, {
      forwardedClientCert: 'sanitize_set',
    })
    connection.onData(Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(3)))
    assert.equal(decisions, 1)
    await eventually('all three are answered', () => decisions === 3)
    assert.equal(socket.written.match(/HTTP\/1.1 504/g)?.length, 3)
  })
})

describe('a connection on which something has thrown', () => {
  it('sends nothing of what comes then, which was only lent', () => {
    const { connection, context, socket } = setUp(() => {
      throw new Error('a fault')
    })
    Object.assign(context.generation.verifier, { trustGeneration: 2 })
    Object.assign(context, { turn: new Turn() })
    connection.guarded((one) => one.onData(Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n')))
    assert.ok(socket.destroyed)
    const lent = Buffer.from('of another')
    connection.guarded((one) => one.onData(lent))
    lent.fill('!')
    const written: string[] = []
    const write = (bytes: Buffer): boolean => written.push(String(bytes)) > 0
    connection.exchangeUpgraded(
      { requestBytes: 0 } as Exchange,
      { begin: () => {}, write, end: () => {} } as unknown as WorkloadEnd,
    )
    assert.deepEqual(written, [])
  })
})

describe('a head that comes in pieces', () => {
  it('is kept in memory of its own: what it was read into is used again', () => {
    const { connection, socket, context } = setUp(
      () => ({ kind: 'rejection', reason: 'revoked', detail: '' }) as never,
    )
    context.clock.nowMs = () => 1e9
    const memory = Buffer.alloc(14)
    for (const part of ['GET / HTTP/1.1', '\r\nhost: a', '\r\n\r\n']) {
      connection.onData(memory.subarray(0, memory.write(part, 'latin1')))
      memory.fill('!')
    }
    assert.match(socket.written, /^HTTP\/1.1 403 Forbidden[\s\S]*peer_revoked/)
  })

  it('does not keep the memory of what was read with its beginning', async () => {
    v8.setFlagsFromString('--expose-gc')
    const collectGarbage = vm.runInNewContext('gc') as () => void
    const { connection, socket } = setUp()
    // As node:tls reads: one piece of memory for what comes, of this connection and of others.
    const give = (): WeakRef<ArrayBufferLike> => {
      const memory = Buffer.allocUnsafeSlow(64 * 1024).fill('GET / HTTP/1.1', 0, 14, 'latin1')
      connection.onData(memory.subarray(0, 14))
      return new WeakRef(memory.buffer)
    }
    const memory = give()
    await eventually('it is free', () => {
      collectGarbage()
      return memory.deref() === undefined
    })
    connection.onData(Buffer.from('\n\r\n'))
    assert.match(socket.written, /^HTTP\/1.1 400 /, 'its bytes were kept')
  })
})

describe('a request that an overloaded thread refuses', () => {
  const shedding = () => {
    const one = setUp()
    const owed = new Set<Owed>()
    one.context.generation.headLimits.headBytes = 65_536
    Object.assign(one.context, {
      overload: {
        sheds: () => true,
        logs: () => false,
        tell: (answer: () => void): Owed => {
          const is = { answer }
          owed.add(is)
          return is
        },
        withdraw: (is: Owed) => void owed.delete(is),
      },
    })
    return { ...one, owed }
  }
  const head = (filling = ''): Buffer =>
    Buffer.from(
      `GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: ${'i'.repeat(40)}\r\nX: ${filling}\r\n\r\n`,
    )

  it('is owed no answer once its connection is closed', () => {
    const { connection, owed } = shedding()
    connection.onData(head())
    assert.equal(owed.size, 1)
    connection.onClose()
    assert.equal(owed.size, 0)
  })

  it('takes no more memory than its answer needs, and keeps its id', () => {
    v8.setFlagsFromString('--expose-gc')
    const collectGarbage = vm.runInNewContext('gc') as () => void
    const heapBytes = (): number => {
      collectGarbage()
      return process.memoryUsage().heapUsed
    }
    const all = Array.from({ length: 100 }, shedding)
    const before = heapBytes()
    for (const { connection } of all) connection.onData(head('x'.repeat(50_000)))
    const each = (heapBytes() - before) / all.length
    assert.ok(each < 25_000, `${Math.round(each)} bytes each`)
    for (const { owed, socket } of all) {
      for (const { answer } of owed) answer()
      assert.match(socket.written, /^HTTP\/1\.1 503 .*x-postern-decision-id: i{40}\r\n/is)
    }
  })
})

describe('a request for which the turn has no room', () => {
  const REQUEST = 'GET /a HTTP/1.1\r\nhost: a\r\n\r\n'

  /** A connection whose requests wait, until the test says that it is their turn. */
  const waiting = () => {
    const one = setUp()
    const line: Arrival[] = []
    const asked: string[] = []
    const { context } = one
    const evaluation = { outcome: 'timeout', rule: 'policy', input: '{}', evalNs: 1 }
    Object.assign(context, {
      intake: {
        hasRoom: false,
        pieces: new SharedPieces(),
        began: () => {},
        wait: (_client: string, arrival: Arrival) => void line.push(arrival),
      },
    })
    Object.assign(context.generation, {
      identity: { uris: [] },
      xfccByPeer: new Map([[PEER, 'Hash=0']]),
      engine: {
        bodyNeed: () => undefined,
        decide: ({ target }: { readonly target: string }) => {
          asked.push(target)
          return { kind: 'denial', code: 'policy_timeout', status: 504, headers: [], evaluation }
        },
      },
    })
    Object.assign(context.generation.snapshot.settings.log, { decisions: 'off' })
    Object.assign(context.generation.snapshot.settings.inbound, {
      forwardedClientCert: 'sanitize_set',
    })
    return { ...one, line, asked, next: () => line.shift()?.begin() }
  }

  it('is not looked at before it is its turn, and waits once', () => {
    const { connection, socket, line, asked, next } = waiting()
    connection.onData(Buffer.from(REQUEST))
    assert.equal(line.length, 1)
    assert.deepEqual(asked, [])
    next()
    assert.deepEqual(asked, ['/a'])
    assert.match(socket.written, /^HTTP\/1.1 504 /)
    assert.equal(line.length, 0)
  })

  it('is followed by what comes meanwhile, in order, each waiting for its own turn', async () => {
    const { connection, socket, line, asked, next } = waiting()
    let paused = 0
    socket.pause = () => void paused++
    connection.onData(Buffer.from(REQUEST + REQUEST.replace('/a', '/b').slice(0, 9)))
    assert.equal(paused, 0)
    connection.onData(Buffer.from(REQUEST.replace('/a', '/b').slice(9)))
    assert.equal(paused, 1, 'no more is read than that')
    assert.equal(line.length, 1)
    next()
    await eventually('the second waits', () => line.length === 1)
    assert.deepEqual(asked, ['/a'])
    next()
    assert.deepEqual(asked, ['/a', '/b'])
    assert.equal(socket.written.match(/HTTP\/1.1 504/g)?.length, 2)
  })

  it('leaves a client that sends without end its window, however many were answered', async () => {
    const { connection, socket, line, asked, next } = waiting()
    let paused = false
    socket.pause = () => {
      paused = true
    }
    socket.resume = () => {
      paused = false
    }
    socket.isPaused = () => paused
    const read = Buffer.from(REQUEST.repeat(2_000)).subarray(0, 64 * 1024)
    let bytesRead = 0
    for (let answered = 0; answered < 200; answered++) {
      if (!paused) {
        connection.onData(Buffer.from(read))
        bytesRead += read.length
      }
      next()
      await eventually('the next waits', () => line.length === 1)
    }
    assert.equal(asked.length, 200)
    assert.ok(bytesRead <= 3 * read.length, `${bytesRead} bytes are kept`)
  })

  it('keeps nothing else of what was read', async () => {
    v8.setFlagsFromString('--expose-gc')
    const collectGarbage = vm.runInNewContext('gc') as () => void
    const { connection, asked, next } = waiting()
    const give = (): WeakRef<ArrayBufferLike> => {
      const memory = Buffer.allocUnsafeSlow(64 * 1024)
      memory.write(REQUEST, 'latin1')
      connection.onData(memory.subarray(0, REQUEST.length))
      return new WeakRef(memory.buffer)
    }
    const memory = give()
    await eventually('it is free', () => {
      collectGarbage()
      return memory.deref() === undefined
    })
    next()
    assert.deepEqual(asked, ['/a'])
  })

  it('gives back what it kept when it closes in line', () => {
    const { connection, context } = setUp()
    const { copies } = context.pool
    const one = copies.take(20_000)
    one.release()
    context.intake.wait('other', { begin: () => {} })
    connection.onData(Buffer.alloc(20_000, REQUEST))
    assert.ok(copies.take(20_000).memory.buffer !== one.memory.buffer)
    connection.onClose()
    assert.ok(copies.take(20_000).memory.buffer === one.memory.buffer)
  })

  it('is answered though the client has ended its side', () => {
    const { connection, socket, asked, next } = waiting()
    connection.onData(Buffer.from(REQUEST))
    connection.onEnd()
    assert.ok(!socket.ended)
    next()
    assert.deepEqual(asked, ['/a'])
    assert.match(socket.written, /^HTTP\/1.1 504 /)
  })

  it('is never begun for a client that has gone', () => {
    const closed = waiting()
    closed.connection.onData(Buffer.from(REQUEST))
    closed.connection.onClose()
    closed.next()
    const destroyed = waiting()
    destroyed.connection.onData(Buffer.from(REQUEST))
    destroyed.socket.destroy()
    destroyed.next()
    assert.deepEqual([...closed.asked, ...destroyed.asked], [])
  })

  it('is held against the trust of the moment that it begins', () => {
    const { connection, context, socket, asked, next } = waiting()
    connection.onData(Buffer.from(REQUEST))
    context.generation.verifier = {
      trustGeneration: 2,
      recheck: () => ({ kind: 'rejection', reason: 'revoked', detail: '' }) as never,
    }
    next()
    assert.deepEqual(asked, [])
    assert.match(socket.written, /^HTTP\/1.1 403 Forbidden[\s\S]*peer_revoked/)
  })

  it('has no more time than another for a head that does not end', () => {
    const { connection, socket, line, next, at } = waiting()
    connection.onData(Buffer.from('GET /a HTTP/1.1\r\n'))
    for (let i = 1; i <= 14; i++) {
      next()
      at(i * 1_000)
      connection.onData(Buffer.from('x: y\r\n'.slice(0, 1)))
    }
    assert.equal(socket.written, '')
    at(14_900)
    next()
    assert.equal(line.length, 0)
    at(15_000)
    assert.match(socket.written, /^HTTP\/1.1 408 /)
  })

  it('is refused at once where the line is full of such', () => {
    const { connection, context, line, asked } = waiting()
    let shed = 0
    Object.assign(context, {
      overload: {
        keepsOut: () => true,
        sheds: () => ++shed > 0,
        logs: () => false,
        tell: (answer: () => void) => ({ answer }),
      },
    })
    connection.onData(Buffer.from(REQUEST))
    assert.equal(shed, 1)
    assert.deepEqual([line.length, asked.length], [0, 0])
  })
})
