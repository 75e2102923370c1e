// gRPC through a real sidecar with mutual TLS, with the library that people use on both sides.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import type net from 'node:net'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import grpc from '@grpc/grpc-js'
import {
  FLAG,
  FRAME,
  goAwayFrame,
  PREFACE,
  readFrameHeader,
  settingsFrame,
} from '../../src/http/h2/frames.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  type GrpcClient,
  type GrpcWorkload,
  openGrpc,
  startGrpcWorkload,
  streamed,
  unary,
} from '../support/grpc.ts'
import { type IssuedCertificate, spiffeId, temporaryDirectory } from '../support/pki.ts'
import { data, head } from '../support/raw-http2.ts'
import { SAMPLE_POLICY, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startRawWorkload } from '../support/workload.ts'

const { status } = grpc
const metadataOf = (fields: Readonly<Record<string, string | Buffer>>): grpc.Metadata => {
  const metadata = new grpc.Metadata()
  for (const [name, value] of Object.entries(fields)) metadata.add(name, value)
  return metadata
}

describe('gRPC', () => {
  const t = suiteCleanup()
  let workload: GrpcWorkload
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let client: GrpcClient
  before(async () => {
    workload = await startGrpcWorkload(t)
    sidecar = await startSidecar(t, { forward: workload.url, config: { log: { access: 'all' } } })
    web = await sidecar.authority.svid('web')
    client = openGrpc(t, sidecar, web)
  })

  it('calls with one message and one answer, and with identity fields that are ours', async () => {
    const end = await unary(
      client,
      Buffer.from('hello'),
      metadataOf({ 'x-forwarded-client-cert': 'By=x' }),
    )
    assert.equal(end.code, status.OK)
    assert.equal(end.message?.toString(), 'hello')
    const [xfcc] = workload.calls.at(-1)?.metadata.get('x-forwarded-client-cert') ?? []
    assert.match(String(xfcc), /^By=spiffe:.*;URI=spiffe:\/\/example.org\/ns\/default\/sa\/web$/)
  })

  it('streams from the client', async () => {
    const parts = Array.from({ length: 50 }, (_, i) => randomBytes(1 + ((i * 997) % 7_919)))
    const answer = await new Promise<Buffer | undefined>((resolve, reject) => {
      const call = client.gather(new grpc.Metadata(), (error, value) =>
        error === null ? resolve(value) : reject(error),
      )
      for (const part of parts) call.write(part)
      call.end()
    })
    assert.deepEqual(answer, Buffer.concat(parts))
  })

  it('streams from the server', async () => {
    const message = randomBytes(500)
    const { received, end } = streamed(client.spread(message, new grpc.Metadata()))
    assert.equal((await end).code, status.OK)
    assert.equal(received.length, 500)
    assert.deepEqual(Buffer.concat(received), message)
  })

  it('streams both ways, message by message', async () => {
    const call = client.chat(new grpc.Metadata())
    const { received, end } = streamed(call)
    for (let i = 0; i < 20; i++) {
      call.write(Buffer.from(`message ${i}`))
      await eventually('the echo', () => received.length === i + 1)
      assert.equal(received[i]?.toString(), `message ${i}`)
    }
    call.end()
    assert.equal((await end).code, status.OK)
  })

  it('carries binary and large metadata, in head and trailers', async () => {
    const binary = randomBytes(300)
    const large = 'y'.repeat(9_000)
    const end = await unary(
      client,
      Buffer.from('x'),
      metadataOf({ 'x-echo': large, 'x-echo-bin': binary }),
    )
    assert.equal(end.code, status.OK)
    for (const metadata of [end.head, end.trailers]) {
      assert.deepEqual(metadata?.get('x-echo'), [large])
      assert.deepEqual(metadata?.get('x-echo-bin'), [binary])
    }
  })

  it('carries large messages, and compressed ones as they are', async () => {
    const message = randomBytes(5_000_011)
    assert.deepEqual((await unary(client, message)).message, message)
    const gzip = openGrpc(t, sidecar, web, { 'grpc.default_compression_algorithm': 2 })
    const text = Buffer.alloc(1_000_003, 'compressible ')
    assert.deepEqual((await unary(gzip, text)).message, text)
    const logged = await sidecar.logged('access', {
      path: '/test.Echo/One',
      response_bytes: 1_000_008,
    })
    assert.ok(Number(logged['request_bytes']) < 100_000, 'it was compressed on its way')
  })

  it('has hundreds of calls at once, though a connection has a hundred streams', async () => {
    const ends = await Promise.all(
      Array.from({ length: 400 }, (_, i) => unary(client, Buffer.from(`call ${i}`))),
    )
    for (const [i, end] of ends.entries()) assert.equal(end.message?.toString(), `call ${i}`)
  })

  it('keeps a quiet connection alive by pings', async () => {
    const pinging = openGrpc(t, sidecar, web, {
      'grpc.keepalive_time_ms': 100,
      'grpc.keepalive_timeout_ms': 5_000,
      'grpc.keepalive_permit_without_calls': 1,
    })
    const call = pinging.chat(new grpc.Metadata())
    const { received, end } = streamed(call)
    call.write(Buffer.from('a'))
    await eventually('the echo', () => received.length === 1)
    const since = performance.now()
    await eventually('several pings have gone', () => performance.now() > since + 500)
    call.write(Buffer.from('b'))
    call.end()
    assert.equal((await end).code, status.OK)
  })

  it('brings the status and message of the workload', async () => {
    workload.failure = { code: status.NOT_FOUND, details: 'no such ördér, 100%' }
    const end = await unary(client, Buffer.from('x'))
    assert.equal(end.code, status.NOT_FOUND)
    assert.equal(end.details, 'no such ördér, 100%')
    // While the client is still about to send.
    const chat = client.chat(new grpc.Metadata())
    chat.write(Buffer.from('a'))
    assert.equal((await streamed(chat).end).code, status.NOT_FOUND)
    workload.failure = undefined
  })

  it('passes a deadline on, and ends the call on both sides when it has passed', async () => {
    workload.hold = true
    const begun = workload.calls.length
    const deadline = Date.now() + 400
    const end = await unary(client, Buffer.from('x'), undefined, { deadline })
    assert.equal(end.code, status.DEADLINE_EXCEEDED)
    const one = workload.calls[begun]
    assert.ok(Math.abs(Number(one?.deadline) - deadline) < 5_000, 'the server knows the deadline')
    await eventually('the server sees it cancelled', () => one?.cancelled === true)
    workload.hold = false
  })

  it('cancels on the server what the client cancels', async () => {
    workload.hold = true
    const begun = workload.calls.length
    const calls: grpc.ClientUnaryCall[] = []
    const ended = unary(client, Buffer.from('x'), undefined, {
      started: (call) => calls.push(call),
    })
    const streaming = client.chat(new grpc.Metadata())
    const chat = streamed(streaming)
    streaming.write(Buffer.from('a'))
    await eventually('both are with the server', () => workload.calls.length === begun + 2)
    for (const call of [...calls, streaming]) call.cancel()
    assert.equal((await ended).code, status.CANCELLED)
    assert.equal((await chat.end).code, status.CANCELLED)
    await eventually('the server sees both', () =>
      workload.calls.slice(begun).every(({ cancelled }) => cancelled),
    )
    workload.hold = false
  })
})

describe('gRPC that does not get through', () => {
  const t = suiteCleanup()

  it('is denied by policy with status 7 and a message, and the connection goes on', async () => {
    const workload = await startGrpcWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { policy: { bundle: SAMPLE_POLICY } },
    })
    const client = openGrpc(t, sidecar, await sidecar.authority.svid('web'))
    for (let i = 0; i < 3; i++) {
      const end = await unary(client, Buffer.from('x'))
      assert.equal(end.code, status.PERMISSION_DENIED)
      assert.equal(JSON.parse(end.details).error, 'denied')
    }
    const chat = client.chat(new grpc.Metadata())
    chat.write(Buffer.from('x'))
    assert.equal((await streamed(chat).end).code, status.PERMISSION_DENIED)
    assert.equal(workload.calls.length, 0)
    assert.equal(await sidecar.metric('postern_connections_total'), 1)
  })

  it('is unavailable when nobody listens', async () => {
    const workload = await startGrpcWorkload(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    workload.server.forceShutdown()
    const client = openGrpc(t, sidecar, await sidecar.authority.svid('web'))
    const end = await unary(client, Buffer.from('x'))
    assert.equal(end.code, status.UNAVAILABLE)
    assert.equal(JSON.parse(end.details).error, 'upstream_refused')
  })

  it('is unavailable, and not an internal error, when the workload goes away in the middle', async () => {
    const workload = await startGrpcWorkload(t)
    const sidecar = await startSidecar(t, { forward: workload.url })
    const client = openGrpc(t, sidecar, await sidecar.authority.svid('web'))
    workload.hold = true
    const { received, end } = streamed(client.spread(Buffer.from('abc'), new grpc.Metadata()))
    await eventually('its messages', () => received.length === 3)
    workload.server.forceShutdown()
    const { code, details } = await end
    assert.equal(code, status.UNAVAILABLE)
    assert.equal(JSON.parse(details).error, 'upstream_reset')
  })

  it('is an error of the workload when it does not speak HTTP/2', async () => {
    const workload = await startRawWorkload(t, (socket) => {
      socket.on('data', () => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'))
    })
    const sidecar = await startSidecar(t, { forward: workload.url.replace('http:', 'h2c:') })
    const client = openGrpc(t, sidecar, await sidecar.authority.svid('web'))
    const end = await unary(client, Buffer.from('x'))
    assert.equal(end.code, status.UNAVAILABLE)
    assert.equal(JSON.parse(end.details).error, 'upstream_bad_response')
  })

  it('is unauthenticated once its client is on the deny list, in the middle of a stream too', async () => {
    const workload = await startGrpcWorkload(t)
    const denyList = join(await temporaryDirectory(t), 'revoked.yaml')
    await writeFile(denyList, '[]')
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { trust: { revoked: denyList } },
    })
    const web = await sidecar.authority.svid('web')
    const client = openGrpc(t, sidecar, web)
    workload.hold = true
    const { received, end } = streamed(client.spread(Buffer.from('abc'), new grpc.Metadata()))
    const waiting = unary(client, Buffer.from('x'))
    await eventually('both have begun', () => received.length === 3 && workload.calls.length === 2)
    await writeFile(denyList, `- spiffeId: ${spiffeId('web')}\n`)
    assert.equal((await end).code, status.UNAUTHENTICATED)
    assert.equal((await waiting).code, status.UNAUTHENTICATED)
  })
})

describe('gRPC while the sidecar drains', () => {
  const t = suiteCleanup()

  it('loses no call: those that have begun end well, later ones go to another connection', async () => {
    const workload = await startGrpcWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { timeouts: { connectionLifetime: '1s' } } },
    })
    const client = openGrpc(t, sidecar, await sidecar.authority.svid('web'))
    const long = client.chat(new grpc.Metadata())
    const { received, end } = streamed(long)
    long.write(Buffer.from('first'))
    let calls = 0
    // Until the third connection, a call at a time.
    await eventually('connections come and go', async () => {
      const one = await unary(client, Buffer.from('x'))
      assert.equal(one.code, status.OK, one.details)
      calls++
      return (await sidecar.metric('postern_connections_total')) >= 3
    })
    assert.ok(calls > 2)
    long.write(Buffer.from('last'))
    long.end()
    assert.equal((await end).code, status.OK)
    assert.equal(Buffer.concat(received).toString(), 'firstlast')
    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
  })
})

describe('gRPC to a workload that leaves', () => {
  const t = suiteCleanup()

  /** Takes one call on its first connection, and says GOAWAY to the second; later ones take all. */
  const leave = (socket: net.Socket, connection: number): void => {
    let bytes: Buffer = Buffer.alloc(0)
    let skip = PREFACE.length
    let message: Buffer[] = []
    socket.write(settingsFrame([]))
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk])
      if (bytes.length < skip) return
      bytes = bytes.subarray(skip)
      skip = 0
      for (;;) {
        if (bytes.length < 9) return
        const { length, type, flags, stream } = readFrameHeader(bytes, 0)
        if (bytes.length < 9 + length) return
        if (type === FRAME.data) message.push(Buffer.from(bytes.subarray(9, 9 + length)))
        bytes = bytes.subarray(9 + length)
        if (type !== FRAME.data || (flags & FLAG.endStream) === 0) continue
        if (connection === 0 && stream > 1) socket.write(goAwayFrame(1, 0))
        else {
          const type = ['content-type', 'application/grpc']
          socket.write(head(stream, [':status', '200', ...type], false))
          socket.write(data(stream, Buffer.concat(message)))
          socket.write(head(stream, ['grpc-status', '0']))
        }
        message = []
      }
    })
  }

  it('has its message sent once more to the next connection, where it was not looked at', async () => {
    const workload = await startRawWorkload(t, leave)
    const sidecar = await startSidecar(t, { forward: workload.url.replace('http:', 'h2c:') })
    const client = openGrpc(t, sidecar, await sidecar.authority.svid('web'))
    for (let i = 0; i < 5; i++) {
      const end = await unary(client, Buffer.from(`message ${i}`))
      assert.equal(end.code, status.OK, end.details)
      assert.equal(end.message?.toString(), `message ${i}`)
    }
    assert.equal(workload.sockets.length, 2)
  })
})
