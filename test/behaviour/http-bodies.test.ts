import assert from 'node:assert/strict'
import type net from 'node:net'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  chunked,
  get,
  type Message,
  ok,
  openClient,
  post,
  startScriptedWorkload,
} from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import type { RawWorkload } from '../support/workload.ts'

describe('bodies', () => {
  let sidecar: TestSidecar
  let workload: RawWorkload
  let web: IssuedCertificate
  let respond: (socket: net.Socket, request: Message) => void = () => {}
  let seen: Message | undefined
  const t = suiteCleanup()
  before(async () => {
    workload = await startScriptedWorkload(t, (socket, request) => {
      seen = request
      respond(socket, request)
    })
    sidecar = await startSidecar(t, { forward: workload.url })
    web = await sidecar.authority.svid('web')
  })

  /** Sends the text in single bytes, each in a segment of its own. */
  const sendByteWise = async (socket: net.Socket, text: string): Promise<void> => {
    socket.setNoDelay()
    for (const one of text) {
      await new Promise((resolve) => socket.write(one, 'latin1', resolve))
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  const ask = async (bytes: string, method = 'GET'): Promise<Message> => {
    const client = await openClient(t, sidecar, web)
    client.send(bytes)
    const answer = await client.answer(method)
    client.socket.destroy()
    return answer
  }

  it('with a length go on with that length, written anew', async () => {
    respond = (socket) => socket.write(ok('answer'))
    const answer = await ask(post('/', 'question'))
    assert.equal(String(seen?.body), 'question')
    assert.deepEqual(seen?.values('content-length'), ['8'])
    assert.deepEqual(answer.values('content-length'), ['6'])
    assert.equal(String(answer.body), 'answer')
  })

  it('in chunks go on in chunks without extensions, with trailers both ways', async () => {
    respond = (socket) =>
      socket.write(
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\nX-Postern-Sum: 6\r\n\r\n',
      )
    const client = await openClient(t, sidecar, web)
    client.send(
      'POST / HTTP/1.1\r\nhost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nX-T: 1\r\n\r\n',
    )
    const answer = await client.answer()
    assert.equal(String(seen?.body), 'ab')
    assert.deepEqual(seen?.values('transfer-encoding'), ['chunked'])
    assert.deepEqual(seen?.trailers, [['x-t', '1']])
    assert.doesNotMatch(workload.received.join(), /x=y/)
    assert.equal(String(answer.body), 'abcde')
    assert.deepEqual(answer.values('transfer-encoding'), ['chunked'])
    assert.deepEqual(answer.trailers, [['x-sum', '5']])
  })

  it('in many small chunks go on in few: each costs more than its bytes', async () => {
    const letters = [...'abcdefghijklmnopqrstuvwxyz'.repeat(40)]
    const chunks = `${letters.map((letter) => `1\r\n${letter}\r\n`).join('')}0\r\n\r\n`
    respond = (socket) =>
      socket.write(`HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n${chunks}`)
    const client = await openClient(t, sidecar, web)
    client.send(chunked('/', letters))
    const answer = await client.answer()
    assert.equal(String(seen?.body), letters.join(''))
    assert.equal(String(answer.body), letters.join(''))
    assert.match(workload.received.join(), new RegExp(letters.slice(0, 520).join('')))
    assert.ok(client.bytesRead() < 2 * letters.length, `${client.bytesRead()} bytes`)
  })

  it('arrive the same when the workload sends byte by byte', async () => {
    respond = (socket) =>
      void sendByteWise(
        socket,
        `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nb\r\ndefghijklmn\r\n0\r\nx-t: 1\r\n\r\n`,
      )
    const answer = await ask(get('/'))
    assert.equal(String(answer.body), 'abcdefghijklmn')
    assert.deepEqual(answer.trailers, [['x-t', '1']])
    respond = (socket) => void sendByteWise(socket, ok('0123456789'))
    assert.equal(String((await ask(get('/'))).body), '0123456789')
  })

  it('to HTTP/1.0 are not chunked, and end with the connection', async () => {
    respond = (socket) =>
      socket.write(
        'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n',
      )
    const client = await openClient(t, sidecar, web)
    client.send('GET / HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\n')
    const text = await client.ended
    assert.match(text, /\r\nconnection: close\r\n/)
    assert.match(text, /\r\n\r\nabc$/)
    assert.doesNotMatch(text, /transfer-encoding/i)
  })

  it('that end with the workload’s connection are chunked, and the client’s connection stays', async () => {
    respond = (socket, { line }) => {
      if (line.includes('/next')) socket.write(ok('next'))
      else socket.end('HTTP/1.0 200 OK\r\n\r\nuntil the end')
    }
    const client = await openClient(t, sidecar, web)
    client.send(get('/'))
    const answer = await client.answer()
    assert.equal(String(answer.body), 'until the end')
    assert.deepEqual(answer.values('transfer-encoding'), ['chunked'])
    client.send(get('/next'))
    assert.equal(String((await client.answer()).body), 'next')
  })

  it('that a reset cut off are not made to look whole', async () => {
    for (const framing of ['', 'content-length: 10\r\n', 'transfer-encoding: chunked\r\n']) {
      let reset = (): void => {}
      respond = (socket) => {
        reset = () => socket.resetAndDestroy()
        const part = framing.startsWith('transfer') ? '3\r\nabc\r\n' : 'abc'
        socket.write(`HTTP/1.1 200 OK\r\n${framing}\r\n${part}`)
      }
      const client = await openClient(t, sidecar, web)
      client.send(get('/'))
      await eventually('part of it came', () => client.bytesRead() > 0)
      reset()
      const text = await client.ended
      assert.match(text, /abc/)
      assert.doesNotMatch(text, /0\r\n\r\n$/)
    }
  })

  it('that a HEAD, a 204 or a 304 announces never come', async () => {
    const client = await openClient(t, sidecar, web)
    respond = (socket) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n')
    client.send('HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n')
    assert.deepEqual((await client.answer('HEAD')).values('content-length'), ['10'])
    respond = (socket) => socket.write('HTTP/1.1 204 No Content\r\n\r\n')
    client.send(get('/'))
    assert.equal((await client.answer()).status, 204)
    respond = (socket) =>
      socket.write('HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\netag: "a"\r\n\r\n')
    client.send(get('/'))
    const unchanged = await client.answer()
    assert.deepEqual([unchanged.status, unchanged.values('etag')], [304, ['"a"']])
    respond = (socket) => socket.write(ok('still in step'))
    client.send(get('/'))
    assert.equal(String((await client.answer()).body), 'still in step')
  })

  it('of no length at all make no body', async () => {
    respond = (socket) => socket.write(ok('', ''))
    const answer = await ask(post('/', ''))
    assert.equal(answer.body.length, 0)
    assert.deepEqual(seen?.values('transfer-encoding'), [])
  })
})
