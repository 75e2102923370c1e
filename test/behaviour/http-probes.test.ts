import assert from 'node:assert/strict'
import http from 'node:http'
import net from 'node:net'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
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
        probes: { listen: '127.0.0.1:0', paths: ['/healthz', '/sick', '/broken', '/long'] },
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
    assert.deepEqual(Object.keys(headers).sort(), ['connection', 'host', 'user-agent'])
    assert.equal(headers.host, 'localhost')
    assert.equal((await probe('/sick')).status, 503)
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
