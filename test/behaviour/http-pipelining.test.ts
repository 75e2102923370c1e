import assert from 'node:assert/strict'
import { once } from 'node:events'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { chunked, get, ok, openClient, post, startScriptedWorkload } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import type { RawWorkload } from '../support/workload.ts'

describe('requests on one connection', () => {
  let sidecar: TestSidecar
  let workload: RawWorkload
  let web: IssuedCertificate
  const t = suiteCleanup()
  before(async () => {
    // The later of two requests would be answered first if they went out together.
    let slowFirst = 40
    workload = await startScriptedWorkload(t, (socket, { line, body }) => {
      const text = `${line.split(' ')[1]} ${body}`
      slowFirst = Math.max(0, slowFirst - 10)
      setTimeout(() => socket.write(ok(text)), slowFirst)
    })
    sidecar = await startSidecar(t, { forward: workload.url })
    web = await sidecar.authority.svid('web')
  })

  it('are answered on the same connections, to the client and to the workload', async () => {
    const client = await openClient(t, sidecar, web)
    const before = workload.sockets.length
    for (let i = 0; i < 20; i++) {
      client.send(get(`/${i}`))
      assert.equal(String((await client.answer()).body), `/${i} `)
    }
    assert.ok(workload.sockets.length - before <= 1)
  })

  it('are answered in order when they come together, bodies and all', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(
      get('/1') + post('/2', 'two') + chunked('/3', ['th', 'ree']) + post('/4', '') + get('/5'),
    )
    const answers: string[] = []
    for (let i = 0; i < 5; i++) answers.push(String((await client.answer()).body))
    assert.deepEqual(answers, ['/1 ', '/2 two', '/3 three', '/4 ', '/5 '])
  })

  it('are all answered when the client ends its side right behind them', async () => {
    const client = await openClient(t, sidecar, web)
    client.socket.end(get('/1') + post('/2', 'two') + get('/3'))
    for (const expected of ['/1 ', '/2 two', '/3 ']) {
      assert.equal(String((await client.answer()).body), expected)
    }
    assert.equal(await client.ended, '')
  })

  it('end with the connection when the client ends it inside a head', async () => {
    const client = await openClient(t, sidecar, web)
    client.socket.end(`${get('/1')}GET /2 HTT`)
    assert.equal(String((await client.answer()).body), '/1 ')
    assert.equal(await client.ended, '')
  })

  it('end with the connection when the client ends it inside a body', async () => {
    const client = await openClient(t, sidecar, web)
    client.socket.end(get('/1') + post('/2', 'cut off').slice(0, -3))
    assert.equal(String((await client.answer()).body), '/1 ')
    assert.equal(await client.ended, '')
  })

  it('are not answered any more after one that asked to close', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(get('/1', 'connection: close\r\n') + get('/never'))
    const answer = await client.answer()
    assert.deepEqual(answer.values('connection'), ['close'])
    assert.equal(await client.ended, '')
    assert.doesNotMatch(workload.received.join(''), /never/)
  })

  it('keep an HTTP/1.0 connection only when asked to', async () => {
    const closing = await openClient(t, sidecar, web)
    closing.send('GET /old HTTP/1.0\r\nhost: localhost\r\n\r\n')
    assert.equal((await closing.answer()).status, 200)
    assert.equal(await closing.ended, '')
    const keeping = await openClient(t, sidecar, web)
    for (let i = 0; i < 2; i++) {
      keeping.send('GET /old HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\n')
      assert.deepEqual((await keeping.answer()).values('connection'), ['keep-alive'])
    }
  })

  it('take a head and a body byte by byte', async () => {
    const client = await openClient(t, sidecar, web)
    await client.sendByteWise(post('/slow', 'body') + chunked('/slower', ['a', 'bc'], 'x-t: 1\r\n'))
    assert.equal(String((await client.answer()).body), '/slow body')
    assert.equal(String((await client.answer()).body), '/slower abc')
  })

  it('leave no connection behind', async () => {
    const client = await openClient(t, sidecar, web)
    client.socket.end()
    assert.equal(await client.ended, '')
    await eventually(
      'the ended connection is closed',
      async () => (await sidecar.metric('postern_connections_closed_total{reason="client"}')) > 0,
    )
  })
})

describe('requests on one connection that are denied', () => {
  let sidecar: TestSidecar
  let web: IssuedCertificate
  const t = suiteCleanup()
  before(async () => {
    const { url } = await startScriptedWorkload(t, () => assert.fail('it was forwarded'))
    const allow = [{ uri: 'spiffe://example.org/ns/default/sa/other' }]
    sidecar = await startSidecar(t, { forward: url, config: { allow } })
    web = await sidecar.authority.svid('web')
  })

  it('are all answered, too, when the client ends its side right behind them', async () => {
    const client = await openClient(t, sidecar, web)
    client.socket.end(get('/1') + post('/2', 'two') + get('/3'))
    for (let i = 0; i < 3; i++) assert.equal((await client.answer()).status, 403)
    assert.equal(await client.ended, '')
  })

  it('wait in the window of a client that sends them faster than they are answered', async () => {
    const socket = tls.connect(sidecar.clientOptions(web))
    t.after(() => socket.destroy())
    await once(socket, 'secureConnect')
    let answers = 0
    socket.setEncoding('latin1').on('data', (text: string) => {
      answers += text.split('HTTP/1.1 403').length - 1
    })
    const requests = get('/').repeat(1_000)
    const send = (): void => {
      while (!socket.destroyed && socket.write(requests));
    }
    send()
    socket.on('drain', send)
    await eventually('many are answered', () => answers > 2_000)
    assert.ok(socket.bytesWritten < 32 * 1024 * 1024, `${socket.bytesWritten} bytes were taken`)
  })
})
