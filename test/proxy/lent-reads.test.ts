import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { before, describe, it, type TestContext } from 'node:test'
import tls from 'node:tls'
import { Copies } from '../../src/proxy/copies.ts'
import { LentReads } from '../../src/proxy/lent-reads.ts'
import { ReadShares } from '../../src/proxy/read-shares.ts'
import { Turn } from '../../src/proxy/turn.ts'
import { eventually } from '../support/eventually.ts'
import { testAuthority } from '../support/pki.ts'
import { randomness, SEED } from '../support/randomness.ts'
import { openRawTls } from '../support/raw-tls.ts'
import type { TestSidecar } from '../support/sidecar.ts'

const authority = await testAuthority()
const { chainPem, privateKeyPem } = await authority.svid('orders')
const OPTIONS: tls.SecureContextOptions = {
  cert: chainPem,
  key: privateKeyPem,
  ca: authority.root.certificatePem,
  minVersion: 'TLSv1.2',
  maxVersion: 'TLSv1.3',
}

const RAW_CLIENT: tls.ConnectionOptions = { rejectUnauthorized: false, servername: 'localhost' }
/** Records of a byte: eight reads of what node takes at once. */
const MANY = Math.floor((8 * 64 * 1024) / 23)

const faults: unknown[] = []
const copies = new Copies()
const shares = new ReadShares(
  new Turn(),
  () => performance.now(),
  () => performance.now(),
)

async function proven(): Promise<LentReads> {
  const reads = await LentReads.prove(OPTIONS, shares, copies, (error) => faults.push(error))
  assert.ok(reads instanceof LentReads, `${reads}`)
  return reads
}

function spin(ms: number): void {
  const untilMs = performance.now() + ms
  while (performance.now() < untilMs);
}

/** A TLS server that gives each of its connections to `serve`, and clients of it. */
async function startServer(t: TestContext, serve: (socket: tls.TLSSocket) => void) {
  const server = tls.createServer(OPTIONS, (socket) => {
    socket.on('error', () => {})
    serve(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const { port } = server.address() as AddressInfo
  return async (): Promise<tls.TLSSocket> => {
    const client = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
    client.on('error', () => {})
    t.after(() => client.destroy())
    await once(client, 'secureConnect')
    return client
  }
}

describe('reads of TLS clients', () => {
  let reads: LentReads
  before(async () => {
    reads = await proven()
  })

  it('are lent in the same memory, on every connection', async (t) => {
    const memory = new Set<ArrayBufferLike>()
    let bytes = 0
    const connect = await startServer(t, (socket) => {
      reads.lend(socket, 'one')
      socket.on('data', (chunk: Buffer) => {
        memory.add(chunk.buffer)
        bytes += chunk.length
      })
    })
    for (const client of [await connect(), await connect()]) {
      client.write(Buffer.alloc(100_000))
    }
    await eventually('all has come', () => bytes === 200_000)
    assert.equal(memory.size, 1)
  })

  it('bring every byte in order, whenever their reader pauses', async (t) => {
    t.diagnostic(`seed ${SEED}`)
    const random = randomness(SEED)
    const open: { received: Buffer[]; ended: boolean; lent: number }[] = []
    const connect = await startServer(t, (socket) => {
      const one = { received: [] as Buffer[], ended: false, lent: 0 }
      open.push(one)
      // The first is read later: what has come by then waits in the stream.
      reads.lend(socket, 'one')
      const pieces = randomness(random.below(2 ** 31))
      setImmediate(() => {
        socket.on('data', (chunk: Buffer) => {
          one.received.push(Buffer.from(chunk))
          // What was lent is used again.
          chunk.fill(0)
          if (!pieces.chance(0.3)) return
          socket.pause()
          const goOn = (): void => void socket.resume()
          const when = pieces.below(3)
          if (when === 0) setImmediate(goOn)
          else if (when === 1) setTimeout(goOn, pieces.below(5))
          else goOn()
        })
        socket.on('end', () => {
          one.ended = true
        })
      })
    })
    const bodies: Buffer[] = []
    for (let i = 0; i < 16; i++) {
      const client = await connect()
      const body = Buffer.from(random.text(1 + random.below(600_000)))
      bodies.push(body)
      for (let at = 0; at < body.length; ) {
        const to = Math.min(body.length, at + 1 + random.below(random.chance(0.3) ? 100 : 70_000))
        client.write(body.subarray(at, to))
        at = to
      }
      client.end()
    }
    await eventually('all have ended', () => open.length === 16 && open.every(({ ended }) => ended))
    const received = open.map((one) => Buffer.concat(one.received))
    for (const body of bodies) {
      assert.ok(
        received.some((one) => one.equals(body)),
        `a body of ${body.length} bytes (seed ${SEED})`,
      )
    }
  })

  it('wait with the client where their reader takes a little at a time', async (t) => {
    let [most, taken] = [0, 0]
    const connect = await startServer(t, (socket) => {
      reads.lend(socket, 'one')
      socket.on('data', (chunk: Buffer) => {
        taken += chunk.length
        most = Math.max(most, socket.readableLength)
        socket.pause()
        setImmediate(() => socket.resume())
      })
    })
    const client = await connect()
    client.write(Buffer.alloc(16 * 1024 * 1024))
    await eventually('a quarter was taken', () => taken > 4 * 1024 * 1024)
    // What a stream holds by itself, and one read.
    assert.ok(most <= 128 * 1024, String(most))
  })

  it('leave their turn to others when they take long, however much waits', async (t) => {
    const turns = new Map<number, number>()
    let taken = 0
    const connect = await startServer(t, (socket) => {
      reads.lend(socket, 'one')
      socket.on('data', (chunk: Buffer) => {
        taken += chunk.length
        const turn = performance.nodeTiming.uvMetricsInfo.loopCount
        turns.set(turn, (turns.get(turn) ?? 0) + 1)
        spin(0.1)
      })
    })
    const client = await connect()
    // The smallest records that node makes.
    client.setMaxSendFragment(512)
    client.write(Buffer.alloc(1024 * 1024))
    await eventually('all was taken', () => taken === 1024 * 1024)
    // Node reads 64 KiB at once, and is in the middle of them when it is told.
    assert.ok(Math.max(...turns.values()) <= (2 * 64 * 1024) / 512, `${[...turns.values()]}`)
  })

  it('leave their turn to others where many bring much', async (t) => {
    const CLIENTS = 16
    const BYTES = 1024 * 1024
    const turns = new Map<number, number>()
    let taken = 0
    const sockets: tls.TLSSocket[] = []
    const connect = await startServer(t, (socket) => {
      reads.lend(socket, 'one')
      sockets.push(socket)
    })
    const clients = await Promise.all(Array.from({ length: CLIENTS }, connect))
    await eventually('all are there', () => sockets.length === CLIENTS)
    for (const client of clients) client.write(Buffer.alloc(BYTES))
    for (const socket of sockets) {
      socket.on('data', (chunk: Buffer) => {
        taken += chunk.length
        const turn = performance.nodeTiming.uvMetricsInfo.loopCount
        turns.set(turn, (turns.get(turn) ?? 0) + 1)
        spin(0.2)
      })
    }
    await eventually('all was taken', () => taken === CLIENTS * BYTES)
    // Of each what node had read when it was told, and of the first few some more.
    assert.ok(Math.max(...turns.values()) <= (CLIENTS + 8) * 8, `${[...turns.values()]}`)
  })

  it('of one principal take no more of a turn than a small part while there are others', async (t) => {
    const CLIENTS = 16
    const BYTES = 256 * 1024
    let [taken, calls, done] = [0, 0, 0]
    const turns = new Map<number, number>()
    const other: { socket?: tls.TLSSocket } = {}
    const own = new ReadShares(
      new Turn(),
      () => performance.now(),
      () => performance.now(),
    )
    const lending = await LentReads.prove(OPTIONS, own, copies, (error) => faults.push(error))
    assert.ok(lending instanceof LentReads)
    const connect = await startServer(t, (socket) => {
      const isOther = other.socket === undefined
      if (isOther) other.socket = socket
      lending.lend(socket, isOther ? 'other' : 'one')
      socket.on('data', (chunk: Buffer) => {
        if (isOther) return void socket.write(chunk)
        taken += chunk.length
        spin(0.5)
        const turn = performance.nodeTiming.uvMetricsInfo.loopCount
        turns.set(turn, (turns.get(turn) ?? 0) + 1)
      })
    })
    const caller = await connect()
    caller.on('data', () => {
      calls++
      if (taken < CLIENTS * BYTES) done = calls
      caller.write('again')
    })
    caller.write('once')
    await eventually('the other is served', () => calls > 0)
    const clients = await Promise.all(Array.from({ length: CLIENTS }, connect))
    for (const client of clients) client.write(Buffer.alloc(BYTES))
    await eventually('all was taken', () => taken === CLIENTS * BYTES)
    // Node has 64 KiB of the first when it is told, and reads no other, though it knows that all have sent.
    const most = Math.max(...turns.values())
    assert.ok(most <= 2 * 8, `${[...turns.values()]}`)
    assert.ok(done >= turns.size / 4, `${done} calls in ${turns.size} turns`)
  })

  it('of records of a byte rest while others are read, and go on when nobody is', async (t) => {
    let [taken, echoes] = [0, 0]
    const connect = await startServer(t, (socket) => {
      reads.lend(socket, 'one')
      socket.on('data', (chunk: Buffer) => {
        if (chunk.length > 1) return void socket.write(chunk)
        taken++
        spin(0.01)
      })
    })
    const other = await connect()
    other.on('data', () => {
      if (taken > 0) echoes++
      other.write('again')
    })
    other.write('once')
    const peer = { port: other.remotePort, clientOptions: () => RAW_CLIENT }
    const { socket, records } = await openRawTls(t, peer as unknown as TestSidecar, undefined, [])
    socket.write(Buffer.concat(Array.from({ length: MANY }, () => records.data('x'))))
    await eventually('the other is served many times', () => echoes >= 20)
    assert.ok(taken < MANY, 'all was taken before')
    other.destroy()
    await eventually('all was taken', () => taken === MANY)
  })

  it('keep no more memory than bytes while their reader pauses', async (t) => {
    let paused: tls.TLSSocket | undefined
    const memory: number[] = []
    const connect = await startServer(t, (socket) => {
      reads.lend(socket, 'one')
      socket.on('data', (chunk: Buffer) => memory.push(chunk.buffer.byteLength))
      socket.pause()
      paused = socket
    })
    const client = await connect()
    for (let sent = 1; sent <= 20; sent++) {
      client.write('x')
      await eventually('it waits', () => paused?.readableLength === sent)
    }
    paused?.resume()
    await eventually('all was read', () => memory.length === 20)
    assert.deepEqual(new Set(memory), new Set([1]))
  })

  it('of records of a byte are kept in a bounded number while their reader pauses', async (t) => {
    let paused: tls.TLSSocket | undefined
    let taken = 0
    const connect = await startServer(t, (socket) => {
      reads.lend(socket, 'one')
      socket.on('data', (chunk: Buffer) => {
        taken += chunk.length
      })
      socket.pause()
      paused = socket
    })
    const one = await connect()
    const peer = { port: one.remotePort, clientOptions: () => RAW_CLIENT }
    one.destroy()
    const { socket, records } = await openRawTls(t, peer as unknown as TestSidecar, undefined, [])
    socket.write(Buffer.concat(Array.from({ length: MANY }, () => records.data('x'))))
    await eventually('some wait', () => (paused?.readableLength ?? 0) >= 64)
    let waited = -1
    await eventually('no more of them comes', () => {
      const before = waited
      waited = paused?.readableLength ?? 0
      return waited === before
    })
    // What node had read when it was told to stop, up to 64 KiB in records of 23 bytes.
    assert.ok(waited < 64 + 65_536 / 22, `${waited} wait`)
    paused?.resume()
    await eventually('all was taken', () => taken === MANY)
  })

  it('of a reader that was destroyed are given to nobody', async (t) => {
    let chunks = 0
    const connect = await startServer(t, (socket) => {
      reads.lend(socket, 'one')
      socket.on('data', () => {
        chunks++
        socket.destroy()
      })
      socket.pause()
      void eventually('several wait', () => socket.readableLength >= 40_000).then(() =>
        socket.resume(),
      )
    })
    const client = await connect()
    client.on('error', () => {})
    client.write(Buffer.alloc(200_000))
    await new Promise((resolve) => client.once('close', resolve))
    assert.equal(chunks, 1)
  })

  it('of a reader that pauses are lent later, in memory that is used again', async (t) => {
    const RECORD = 16 * 1024
    let taken = 0
    const wrong: number[] = []
    const memory = new Set<ArrayBufferLike>()
    const connect = await startServer(t, (socket) => {
      reads.lend(socket, 'one')
      socket.on('data', (chunk: Buffer) => {
        for (const byte of chunk) if (byte !== taken++ % 251) wrong.push(taken)
        memory.add(chunk.buffer)
        chunk.fill(255)
        socket.pause()
        setImmediate(() => socket.resume())
      })
    })
    const bytes = Buffer.from(Array.from({ length: 100 * RECORD }, (_, i) => i % 251))
    for (let clients = 1; clients <= 3; clients++) {
      taken = 0
      const client = await connect()
      client.end(bytes)
      await eventually('all was taken', () => taken === bytes.length)
    }
    assert.deepEqual(wrong, [])
    assert.ok(memory.size <= 20, `${memory.size} pieces of memory for 300 records`)
  })

  for (const pauses of [false, true]) {
    it(`end both connections where one begins within another${pauses ? ' that is paused' : ''}`, async (t) => {
      let served: tls.TLSSocket | undefined
      let chunks = 0
      const before = faults.length
      const connect = await startServer(t, (socket) => {
        served = socket
        reads.lend(socket, 'one')
        socket.on('data', () => {
          chunks++
          if (pauses) socket.pause()
          // It makes node:tls go on with the records that it has.
          socket.write('')
        })
      })
      const client = await connect()
      client.write(Buffer.alloc(200_000))
      await eventually('it is closed', () => served?.destroyed === true)
      assert.equal(chunks, 1, 'nothing of what was read within is handed on')
      assert.equal(faults.length, before + 1)
      assert.match(String(faults.at(-1)), /began before the one before it/)
    })
  }
})

describe('where reads cannot be lent', () => {
  it('says so if TLS with ourselves does not work', async () => {
    const verdict = await LentReads.prove({ ...OPTIONS, ciphers: 'none' }, shares, copies, () => {})
    assert.equal(typeof verdict, 'string')
  })

  it('says so if node has no such thing any more', async () => {
    await withUserBuffers(undefined, async () => {
      assert.match(
        String(await LentReads.prove(OPTIONS, shares, copies, () => {})),
        /memory of its own/,
      )
    })
    await proven()
  })

  it('says so if other bytes come than were sent', async () => {
    const elsewhere = function (this: TlsWrap): void {
      useUserBuffer.call(this, Buffer.alloc(64 * 1024))
    }
    await withUserBuffers(elsewhere, async () => {
      assert.match(String(await LentReads.prove(OPTIONS, shares, copies, () => {})), /other bytes/)
    })
  })
})

interface TlsWrap {
  useUserBuffer: ((buffer: Buffer) => void) | undefined
}

const { _handle: handle } = new tls.TLSSocket(undefined as never) as unknown as { _handle: TlsWrap }
const useUserBuffer = handle.useUserBuffer as (buffer: Buffer) => void

/** Runs `run` with another version of what node:tls has inside. */
async function withUserBuffers(
  other: TlsWrap['useUserBuffer'],
  run: () => Promise<void>,
): Promise<void> {
  const wrap = Object.getPrototypeOf(handle) as TlsWrap
  wrap.useUserBuffer = other
  try {
    await run()
  } finally {
    wrap.useUserBuffer = useUserBuffer
  }
}
