import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, ok, openClient } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { type RawWorkload, startRawWorkload } from '../support/workload.ts'

const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'
const asking = (path: string): string =>
  `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n`

describe('interim answers', () => {
  let sidecar: TestSidecar
  let workload: RawWorkload
  let web: IssuedCertificate
  const t = suiteCleanup()
  before(async () => {
    // Says what the path asks for as soon as the head is there, and 200 once the body is.
    workload = await startRawWorkload(t, (socket) => {
      let text = ''
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString('latin1')
        const path = /^\w+ (\S+) HTTP/.exec(text)?.[1]
        const [head = '', body] = text.split('\r\n\r\n')
        if (body === undefined) return
        if (path === '/refuse') {
          text = ''
          socket.write('HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n')
        } else if (body === '' && head.includes('expect') && !head.includes('x-asked')) {
          text = text.replace('\r\n\r\n', '\r\nx-asked: 1\r\n\r\n')
          socket.write(CONTINUE)
        } else if (path === '/hints') {
          text = ''
          const hint = 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\nX: y\r\n\r\n'
          socket.write(hint + hint + ok('hinted'))
        } else if (path === '/flood') {
          text = ''
          socket.write(CONTINUE.repeat(17) + ok('flooded'))
        } else if (path === '/switch') {
          text = ''
          socket.write(
            'HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n',
          )
        } else if (body.length === 4) {
          text = ''
          socket.write(ok(body))
        } else if (head.startsWith('GET')) {
          text = ''
          socket.write(ok('plain'))
        }
      })
    })
    sidecar = await startSidecar(t, { forward: workload.url })
    web = await sidecar.authority.svid('web')
  })

  it('relay a 100 (Continue) before the body is sent, and only then the answer', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(asking('/upload'))
    assert.equal((await client.answer()).status, 100)
    assert.match(workload.received.join(), /expect: 100-continue\r\n/)
    client.send('body')
    assert.equal(String((await client.answer()).body), 'body')
    client.send(get('/'))
    assert.equal(String((await client.answer()).body), 'plain')
  })

  it('do not hold up a client that does not wait for them', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(`${asking('/upload')}body`)
    const first = await client.answer()
    const answer = first.status === 100 ? await client.answer() : first
    assert.equal(String(answer.body), 'body')
  })

  it('may be left out by a final answer; then the body has no reader and the connection ends', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(asking('/refuse'))
    const answer = await client.answer()
    assert.equal(answer.status, 401)
    assert.deepEqual(answer.values('connection'), ['close'])
    assert.equal(await client.ended, '')
  })

  it('of other kinds are relayed without what was for one hop', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(get('/hints'))
    for (let i = 0; i < 2; i++) {
      const hint = await client.answer()
      assert.deepEqual(
        [hint.status, hint.values('link'), hint.values('x')],
        [103, ['</a.css>'], []],
      )
    }
    assert.equal(String((await client.answer()).body), 'hinted')
  })

  it('are not for HTTP/1.0', async () => {
    const client = await openClient(t, sidecar, web)
    client.send('GET /hints HTTP/1.0\r\nhost: localhost\r\n\r\n')
    assert.equal(String((await client.answer()).body), 'hinted')
  })

  it('without end, or to a protocol nobody asked for, are a bad answer', async () => {
    for (const path of ['/flood', '/switch']) {
      const client = await openClient(t, sidecar, web)
      client.send(get(path))
      let answer = await client.answer()
      while (answer.status === 100) answer = await client.answer()
      assert.equal(answer.status, 502)
      assert.equal(JSON.parse(String(answer.body)).error, 'upstream_bad_response')
    }
    await eventually(
      'counted',
      async () =>
        (await sidecar.metric('postern_upstream_errors_total{code="upstream_bad_response"}')) === 2,
    )
  })
})
