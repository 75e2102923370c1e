import assert from 'node:assert/strict'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { describe, it, type TestContext } from 'node:test'
import { Worker } from 'node:worker_threads'
import {
  type UpstreamConnection,
  UpstreamPool,
  type UpstreamUser,
} from '../../src/proxy/upstream.ts'
import { eventually } from '../support/eventually.ts'

/** Remembers what it was told. */
class User implements UpstreamUser {
  readonly events: string[] = []
  connection: UpstreamConnection | undefined
  throwAt: string | undefined

  #note(event: string): void {
    this.events.push(event)
    if (event === this.throwAt) throw new Error(`thrown at ${event}`)
  }
  upstreamReady(connection: UpstreamConnection): void {
    this.connection = connection
    this.#note('ready')
  }
  upstreamData(buffer: Buffer, start: number, end: number): void {
    this.#note(buffer.toString('latin1', start, end))
  }
  upstreamEnd(): void {
    this.#note('end')
  }
  upstreamDrain(): void {
    this.#note('drain')
  }
  upstreamFailed(_error: unknown, connected: boolean): void {
    this.#note(connected ? 'reset' : 'refused')
  }
  upstreamConnectTimeout(): void {
    this.#note('connect timeout')
  }
  upstreamFault(): void {
    this.#note('fault')
  }
  upstreamBusy(): void {
    this.#note('busy')
  }
}

async function poolAt(t: TestContext, port: number, maxConnections = 2) {
  const clock = { nowMs: 0 }
  const faults: unknown[] = []
  let open = 0
  const pool = new UpstreamPool({
    address: { kind: 'tcp', host: '127.0.0.1', port },
    maxConnections,
    connectTimeoutMs: 1_000,
    nowMs: () => clock.nowMs,
    opened: (change) => {
      open += change
    },
    fault: (error) => faults.push(error),
  })
  t.after(() => pool.close())
  return { pool, clock, faults, open: () => open }
}

async function setUp(t: TestContext, maxConnections = 2) {
  const sockets: net.Socket[] = []
  const server = net.createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
    socket.resume()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const pool = await poolAt(t, (server.address() as AddressInfo).port, maxConnections)
  const connected = (count: number): Promise<boolean> =>
    eventually(`${count} connections`, () => sockets.length === count)
  /** A user with an established connection. */
  const owner = async (): Promise<User> => {
    const user = new User()
    pool.pool.acquire(user)
    await eventually('connected', () => user.connection?.connecting === false)
    return user
  }
  return { ...pool, sockets, connected, owner }
}

describe('the pool of connections to the workload', () => {
  it('gives a released connection to who waits longest, else keeps it for the next', async (t) => {
    const { pool, owner } = await setUp(t, 1)
    const first = await owner()
    const [second, third] = [new User(), new User()]
    pool.acquire(second)
    pool.acquire(third)
    assert.deepEqual(second.events, [])
    first.connection?.release()
    assert.equal(second.connection, first.connection)
    assert.deepEqual(third.events, [])
    pool.forget(third)
    second.connection?.release()
    assert.deepEqual(third.events, [])
    const fourth = new User()
    pool.acquire(fourth)
    assert.equal(fourth.connection, first.connection)
    assert.equal(fourth.connection?.reused, true)
  })

  it('makes room for a fresh connection by closing an idle one, never a used one', async (t) => {
    const { pool, owner, open } = await setUp(t, 2)
    const [used, idle] = [await owner(), await owner()]
    idle.connection?.release()
    const fresh = new User()
    pool.acquire(fresh, true)
    assert.notEqual(fresh.connection, idle.connection)
    assert.equal(idle.connection?.usable, false)
    assert.equal(used.connection?.usable, true)
    assert.equal(open(), 2)
    const waiting = new User()
    pool.acquire(waiting, true)
    assert.deepEqual(waiting.events, [])
  })

  it('keeps the last eighth for clients that hold few', async (t) => {
    const { pool } = await setUp(t, 16)
    const take = (client: string): User => {
      const user = new User()
      pool.acquire(user, false, client)
      return user
    }
    const of = (users: readonly User[]): number => users.filter((one) => one.connection).length
    const hog = Array.from({ length: 30 }, () => take('hog'))
    assert.equal(of(hog), 14)
    const others = ['a', 'b', 'c'].map(take)
    assert.equal(of(others), 2)
    others[0]?.connection?.release()
    assert.equal(of(others), 3)
    assert.equal(of(hog), 14)
  })

  it('serves clients that wait in turn, whoever has more to wait for', async (t) => {
    const { pool } = await setUp(t, 1)
    const served: string[] = []
    const take = (client: string): void => {
      const user = new User()
      user.upstreamReady = (connection) => {
        served.push(client)
        setImmediate(() => connection.release())
      }
      pool.acquire(user, false, client)
    }
    for (const client of ['hog', 'hog', 'hog', 'hog', 'a', 'b', 'b']) take(client)
    await eventually('all are served', () => served.length === 7)
    assert.deepEqual(served, ['hog', 'hog', 'a', 'b', 'hog', 'b', 'hog'])
  })

  it('gives one that comes free to who waits, and another to who may have one since', async (t) => {
    const { pool } = await setUp(t, 16)
    const take = (client: string): User => {
      const user = new User()
      pool.acquire(user, false, client)
      return user
    }
    const few = [take('few'), take('few')]
    for (let i = 0; i < 12; i++) take('hog')
    const [first, second] = [take('hog'), take('few')]
    assert.deepEqual([first.events, second.events], [[], []])
    // Three are free now, and the last two of them for who holds no more than one.
    few[0]?.connection?.release()
    assert.deepEqual([first.events, second.events], [['ready'], ['ready']])
  })

  it('opens a connection for who waits when a used one breaks', async (t) => {
    const { pool, owner, sockets, connected, open } = await setUp(t, 1)
    const user = await owner()
    await connected(1)
    const waiting = new User()
    pool.acquire(waiting)
    sockets[0]?.resetAndDestroy()
    await eventually('told', () => user.events.includes('reset'))
    assert.deepEqual(waiting.events, ['ready'])
    assert.equal(open(), 1)
  })

  it('destroys a connection that says something or ends while nobody uses it', async (t) => {
    const { owner, sockets, connected, open } = await setUp(t)
    const [one, two] = [await owner(), await owner()]
    await connected(2)
    one.connection?.release()
    two.connection?.release()
    sockets[0]?.write('surplus')
    sockets[1]?.end()
    await eventually('both gone', () => open() === 0)
    assert.deepEqual([...one.events, ...two.events], ['ready', 'ready'])
  })

  it('does not keep a connection on which part of a request still waits to be read', async (t) => {
    const { owner, sockets, connected, open } = await setUp(t)
    const user = await owner()
    await connected(1)
    sockets[0]?.pause()
    while (user.connection?.socket.write(Buffer.alloc(1024 * 1024))) {}
    user.connection?.release()
    assert.equal(open(), 0)
  })

  it('closes what was idle for too long', async (t) => {
    const { pool, owner, clock, open } = await setUp(t)
    const [idle, used] = [await owner(), await owner()]
    idle.connection?.release()
    clock.nowMs = 3_999
    pool.tick()
    assert.equal(open(), 2)
    clock.nowMs = 4_000
    pool.tick()
    assert.equal(open(), 1)
    assert.deepEqual(used.events, ['ready'])
  })

  it('tells who has waited for too long that all are busy', async (t) => {
    const { pool, owner, clock } = await setUp(t, 1)
    await owner()
    const [early, late] = [new User(), new User()]
    pool.acquire(early)
    clock.nowMs = 500
    pool.acquire(late)
    clock.nowMs = 1_000
    pool.tick()
    assert.deepEqual([early.events, late.events], [['busy'], []])
  })

  it('tells many that have waited for too long a few at a time', async (t) => {
    const { pool, clock, owner } = await setUp(t, 1)
    await owner()
    const waiting = Array.from({ length: 1_000 }, () => new User())
    for (const user of waiting) pool.acquire(user)
    const told = (): number => waiting.filter(({ events }) => events.includes('busy')).length
    clock.nowMs = 1_000
    pool.tick()
    pool.tick()
    assert.ok(told() < 100, `${told()} in one turn`)
    // One that has gone meanwhile is not told.
    const last = waiting.at(-1)!
    pool.forget(last)
    await eventually('all others are told', () => told() === 999)
    assert.equal(pool.queue.waiting, 0)
    assert.deepEqual([last.events, waiting[0]?.events], [[], ['busy']])
  })

  it('tells a refused connection from one that breaks later', async (t) => {
    const server = net.createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    await new Promise((resolve) => server.close(resolve))
    const { pool, open } = await poolAt(t, port)
    const user = new User()
    pool.acquire(user)
    await eventually('told', () => user.events.length === 2)
    assert.deepEqual([user.events, open()], [['ready', 'refused'], 0])
  })

  it('gives up on a workload that does not accept in time', async (t) => {
    // A listener whose thread sleeps and whose queue is full: the kernel drops what comes then.
    const worker = new Worker(
      `const server = require('node:net').createServer()
       server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
         require('node:worker_threads').parentPort.postMessage(server.address().port)
         Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
       })`,
      { eval: true },
    )
    t.after(() => worker.terminate())
    const [port] = (await once(worker, 'message')) as [number]
    const { pool, clock, open } = await poolAt(t, port, 10)
    const users = Array.from({ length: 5 }, () => new User())
    for (const user of users) pool.acquire(user)
    await eventually('the queue takes some', () =>
      users.some((user) => user.connection?.connecting === false),
    )
    clock.nowMs = 1_000
    pool.tick()
    const late = users.filter((user) => user.events.includes('connect timeout'))
    assert.ok(late.length > 0)
    assert.equal(open(), users.length - late.length)
  })

  for (const event of ['ready', 'text', 'busy', 'end']) {
    it(`ends only the user whose own fault it was (at ${event})`, async (t) => {
      const { pool, owner, sockets, connected, faults, clock } = await setUp(t, 1)
      const other = await owner()
      await connected(1)
      const faulty = new User()
      faulty.throwAt = event
      pool.acquire(faulty)
      if (event === 'busy') {
        clock.nowMs = 1_000
        pool.tick()
      } else {
        // Called from inside the other's release: that one must not notice.
        other.connection?.release()
        if (event === 'text') sockets[0]?.write('text')
        if (event === 'end') sockets[0]?.end()
      }
      await eventually('told', () => faulty.events.includes('fault'))
      assert.equal(faults.length, 1)
      assert.deepEqual(other.events, ['ready'])
      const next = new User()
      if (event === 'busy') other.connection?.release()
      pool.acquire(next)
      assert.deepEqual(next.events, ['ready'])
    })
  }
})
