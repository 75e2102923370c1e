import assert from 'node:assert/strict'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import grpc from '@grpc/grpc-js'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { replyOf } from '../support/http2.ts'
import { temporaryDirectory } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

describe('probes', () => {
  let sidecar: TestSidecar
  let workload: Workload
  let port = 0
  const t = suiteCleanup()
  before(async () => {
    workload = await startWorkload(t, ({ url }, response) => {
      if (url === '/broken') {
        response.writeHead(200, { 'content-length': 100 })
        response.write('part')
        setImmediate(() => response.destroy())
      } else if (url === '/long') {
        response.end('x'.repeat(1024 * 1024))
      } else {
        response.writeHead(url === '/sick' ? 503 : 200, { 'set-cookie': 'secret' }).end('as asked')
      }
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        probes: {
          listen: '127.0.0.1:0',
          paths: ['/healthz', '/sick', '/broken', '/long', '/ready?full=1'],
          tcpPaths: ['/tcp'],
        },
        log: { access: 'all' },
      },
    })
    const ready = await sidecar.logged('ready')
    port = (ready['probes'] as { port: number }).port
  })

  const probe = (
    path: string,
    options: http.RequestOptions = {},
  ): Promise<{ status: number; headers: http.IncomingHttpHeaders; body: string }> =>
    new Promise((resolve, reject) => {
      const request = http.request(
        { host: '127.0.0.1', port, path, agent: false, ...options },
        (answer) => {
          let body = ''
          answer.setEncoding('utf8').on('data', (text: string) => {
            body += text
          })
          answer.on('close', () =>
            resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body }),
          )
          answer.on('error', () => {})
        },
      )
      request.on('error', reject)
      request.end()
    })

  it('reach the workload on a declared path, without what the client said', async () => {
    const answer = await probe('/healthz', {
      headers: { 'x-forwarded-client-cert': 'By=forged', cookie: 'a=b', host: 'elsewhere' },
    })
    assert.deepEqual([answer.status, answer.body], [200, 'as asked'])
    assert.equal(answer.headers['set-cookie'], undefined)
    const headers = workload.seen.at(-1)?.headers ?? {}
    assert.deepEqual(Object.keys(headers).sort(), ['host', 'user-agent'])
    assert.equal(headers.host, 'localhost')
    assert.equal((await probe('/sick')).status, 503)
  })

  it('reach the workload with the query that is declared, and with no other', async () => {
    assert.equal((await probe('/ready?full=1')).status, 200)
    assert.equal(workload.seen.at(-1)?.url, '/ready?full=1')
    const seen = workload.seen.length
    for (const path of ['/ready', '/ready?full=2', '/ready?full=1&more', '/ready?']) {
      assert.equal((await probe(path)).status, 404, path)
    }
    assert.equal(workload.seen.length, seen)
  })

  it('of connections tell whether the workload accepts one, and send it nothing', async () => {
    const seen = workload.seen.length
    assert.equal((await probe('/tcp')).status, 200)
    assert.equal((await probe('/tcp', { method: 'POST' })).status, 405)
    assert.equal(workload.seen.length, seen)
  })

  it('reach nothing else', async () => {
    const seen = workload.seen.length
    for (const path of [
      '/',
      '/healthz/../admin',
      '/healthz/',
      '//healthz',
      '/healthz?debug=1',
      '/%68ealthz',
      'http://localhost/healthz',
      '/__proto__',
    ]) {
      assert.equal((await probe(path)).status, 404, path)
    }
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
      assert.equal((await probe('/healthz', { method })).status, 405, method)
    }
    assert.equal(workload.seen.length, seen)
  })

  it('survive a workload that breaks off or says too much', async () => {
    assert.equal((await probe('/broken')).status, 200)
    assert.ok((await probe('/long')).body.length <= 64 * 1024)
    assert.equal((await probe('/healthz')).status, 200)
  })

  it('are refused when they are more than any kubelet sends', async () => {
    const statuses = await Promise.all(
      Array.from({ length: 60 }, () => probe('/healthz').catch(() => ({ status: 0 }))),
    )
    assert.ok(statuses.some(({ status }) => status === 429))
    await eventually('served again', async () => (await probe('/healthz')).status === 200)
  })

  it('do not count as traffic and are not logged', async () => {
    assert.equal(await sidecar.metric('postern_connections_total'), 0)
    assert.doesNotMatch(await sidecar.metrics(), /postern_requests_total\{[^}]*\} [1-9]/)
    assert.ok(!sidecar.lines.some(({ event }) => event === 'access'))
  })

  it('that are garbage are answered 400 and forgotten', async () => {
    const socket = net.connect(port, '127.0.0.1')
    t.after(() => socket.destroy())
    let text = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk
    })
    socket.write('GARBAGE\r\n\r\n')
    await eventually('refused', () => text.startsWith('HTTP/1.1 400'))
  })
})

interface Health {
  check(service: string): Promise<{ code: number; status: number }>
}

/** A client of grpc.health.v1.Health, as a kubelet has one. */
function healthClient(t: Cleanup, port: number): Health {
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure())
  t.after(() => client.close())
  return {
    check: (service) =>
      new Promise((resolve) =>
        client.makeUnaryRequest(
          '/grpc.health.v1.Health/Check',
          (name: string) => {
            const bytes = Buffer.from(name)
            return bytes.length === 0 ? bytes : Buffer.from([0x0a, bytes.length, ...bytes])
          },
          (bytes: Buffer) => bytes[1] ?? 0,
          service,
          { deadline: Date.now() + 10_000 },
          (error, status) => resolve({ code: error?.code ?? 0, status: status ?? 0 }),
        ),
      ),
  }
}

const SERVING = 1
const NOT_SERVING = 2

/** Serves the health of `shop.Orders` and of itself, and nothing else. */
async function startGrpcWorkload(t: Cleanup): Promise<{ port: number; asked: string[] }> {
  const asked: string[] = []
  const server = new grpc.Server()
  server.addService(
    {
      check: {
        path: '/grpc.health.v1.Health/Check',
        requestStream: false,
        responseStream: false,
        requestDeserialize: (bytes: Buffer) => ({ service: bytes.toString('utf8', 2) }),
        requestSerialize: (bytes: Buffer) => bytes,
        responseDeserialize: (bytes: Buffer) => bytes,
        responseSerialize: (status: number) => Buffer.from([0x08, status]),
      },
    },
    {
      check: (
        call: grpc.ServerUnaryCall<{ service: string }, number>,
        done: grpc.sendUnaryData<number>,
      ): void => {
        asked.push(call.request.service)
        done(null, call.request.service === '' ? SERVING : NOT_SERVING)
      },
    },
  )
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  )
  t.after(() => server.forceShutdown())
  return { port, asked }
}

for (const scheme of ['h2c', 'tcp'] as const) {
  describe(`probes of a gRPC workload behind ${scheme}://`, () => {
    const t = suiteCleanup()
    let port = 0
    let workload: { port: number; asked: string[] }
    let sidecar: TestSidecar
    before(async () => {
      workload = await startGrpcWorkload(t)
      sidecar = await startSidecar(t, {
        forward: `${scheme}://127.0.0.1:${workload.port}`,
        config: {
          probes: {
            listen: '127.0.0.1:0',
            tcpPaths: ['/tcp'],
            grpcServices: ['*', 'shop.Orders'],
            paths: ['/healthz'],
          },
        },
      })
      port = ((await sidecar.logged('ready'))['probes'] as { port: number }).port
    })

    it('are told the health of what is declared, and of nothing else', async () => {
      const health = healthClient(t, port)
      assert.deepEqual(await health.check(''), { code: 0, status: SERVING })
      assert.deepEqual(await health.check('shop.Orders'), { code: 0, status: NOT_SERVING })
      assert.equal((await health.check('shop.Secret')).code, grpc.status.NOT_FOUND)
      assert.deepEqual(workload.asked, ['', 'shop.Orders'])
      assert.equal(await sidecar.metric('postern_connections_total'), 0)
    })

    it('cannot call another method, or anything that is not gRPC, over HTTP/2', async () => {
      const session = http2.connect(`http://127.0.0.1:${port}`)
      t.after(() => session.destroy())
      session.on('error', () => {})
      const before = workload.asked.length
      const grpcCall = { ':method': 'POST', 'content-type': 'application/grpc' }
      for (const path of ['/grpc.health.v1.Health/Watch', '/shop.Orders/List', '/healthz']) {
        const reply = await replyOf(session.request({ ...grpcCall, ':path': path }))
        assert.equal(reply.headers['grpc-status'], '12', path)
      }
      assert.equal((await replyOf(session.request({ ':path': '/healthz' }))).status, 404)
      const long = session.request({ ...grpcCall, ':path': '/grpc.health.v1.Health/Check' })
      const refused = replyOf(long)
      long.end(Buffer.alloc(4_000))
      assert.equal((await refused).headers['grpc-status'], '13')
      assert.equal(workload.asked.length, before)
    })

    it('are refused when they are too many', async () => {
      const health = healthClient(t, port)
      const codes = await Promise.all(Array.from({ length: 40 }, () => health.check('')))
      assert.ok(codes.some(({ code }) => code === grpc.status.RESOURCE_EXHAUSTED))
      await eventually('served again', async () => (await health.check('')).code === 0)
    })

    it('tell HTTP/1.1 by its first bytes, also when they come one by one', async () => {
      const socket = net.connect(port, '127.0.0.1')
      t.after(() => socket.destroy())
      let text = ''
      socket.setEncoding('latin1').on('data', (chunk: string) => {
        text += chunk
      })
      socket.setNoDelay(true)
      for (const byte of 'GET /tcp HTTP/1.1\r\nhost: a\r\n\r\n') socket.write(byte)
      await eventually('answered', () => /^HTTP\/1.1 (200|429) /.test(text))
    })
  })
}

describe('probes of a workload that is not there', () => {
  const t = suiteCleanup()

  it('are answered 503, 502 and UNAVAILABLE, and again as usual once it is', async () => {
    const path = join(await temporaryDirectory(t), 'workload.sock')
    const sidecar = await startSidecar(t, {
      forward: `h2c+unix:${path}`,
      config: {
        probes: {
          listen: '127.0.0.1:0',
          paths: ['/healthz'],
          tcpPaths: ['/tcp'],
          grpcServices: ['*'],
        },
      },
    })
    const { port } = (await sidecar.logged('ready'))['probes'] as { port: number }
    const status = async (target: string): Promise<number> =>
      (await fetch(`http://127.0.0.1:${port}${target}`)).status
    assert.equal(await status('/tcp'), 503)
    assert.equal(await status('/healthz'), 502)
    assert.equal((await healthClient(t, port).check('')).code, grpc.status.UNAVAILABLE)
    const server = http2.createServer((_, response) => response.end('well'))
    await new Promise<void>((resolve) => server.listen(path, resolve))
    t.after(() => server.close())
    await eventually('it is there', async () => (await status('/tcp')) === 200)
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/healthz`)).text(), 'well')
    // The probes of it do not hold it: node:http2 waits for its sessions.
    t.after(() => sidecar.signal('SIGKILL'))
  })
})
