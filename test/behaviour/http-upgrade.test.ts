import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import type net from 'node:net'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  get,
  type Http1Client,
  type Message,
  ok,
  openClient,
  startScriptedWorkload,
} from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { SAMPLE_POLICY, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import type { RawWorkload } from '../support/workload.ts'

const acceptFor = (key: string): string =>
  createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
const upgrade = (path: string, fields = ''): string =>
  get(
    path,
    `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n${fields}`,
  )
const switching = (request: Message, accept?: string): string =>
  `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept ?? acceptFor(request.values('sec-websocket-key')[0] ?? '')}\r\n\r\n`

describe('an upgrade to WebSocket', () => {
  let sidecar: TestSidecar
  let workload: RawWorkload
  let web: IssuedCertificate
  let seen: Message | undefined
  let tunnel: net.Socket | undefined
  const t = suiteCleanup()
  before(async () => {
    workload = await startScriptedWorkload(t, (socket, request) => {
      seen = request
      tunnel = socket
      const path = request.line.split(' ')[1]
      if (path === '/refuse') socket.write(ok('no'))
      else if (path === '/wrong-key') socket.write(switching(request, acceptFor('other')))
      else if (path === '/no-connection') {
        socket.write(switching(request).replace('Connection: Upgrade\r\n', ''))
      } else if (path === '/early') socket.write(`${switching(request)}early from the workload`)
      else if (path === '/') socket.write(ok('plain'))
      else socket.write(switching(request))
    })
    sidecar = await startSidecar(t, { forward: workload.url })
    web = await sidecar.authority.svid('web')
  })

  /** After the 101 the reader of messages is no help: the bytes are taken as they come. */
  const open = async (
    path: string,
    fields = '',
  ): Promise<{ client: Http1Client; text: () => string }> => {
    const client = await openClient(t, sidecar, web)
    client.send(upgrade(path, fields))
    const answer = await client.answer()
    assert.equal(answer.status, 101)
    assert.deepEqual(answer.values('connection'), ['upgrade'])
    assert.deepEqual(answer.values('upgrade'), ['websocket'])
    let text = ''
    client.socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
    })
    return { client, text: () => text }
  }

  it('becomes a tunnel of bytes, both ways and whatever they are', async () => {
    const { client, text } = await open('/chat')
    assert.deepEqual(seen?.values('connection'), ['upgrade'])
    assert.deepEqual(seen?.values('x-forwarded-client-cert').length, 1)
    client.send(Buffer.from([0x81, 0x85, 1, 2, 3, 4, 0, 255]))
    await eventually('bytes at the workload', () =>
      workload.received.some((all) => all.endsWith('\x81\x85\x01\x02\x03\x04\x00\xff')),
    )
    client.send('GET / HTTP/1.1\r\n') // no request any more
    tunnel?.write('HTTP/1.1 500 x\r\n\r\n\x00') // no answer any more
    await eventually('bytes at the client', () => text() === 'HTTP/1.1 500 x\r\n\r\n\x00')
    await eventually('bytes at the workload', () =>
      workload.received.some((all) => all.endsWith('\xffGET / HTTP/1.1\r\n')),
    )
  })

  it('keeps what either side says before the other has switched', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(`${upgrade('/early')}early from the client`)
    assert.equal((await client.answer()).status, 101)
    await eventually('at the workload', () =>
      workload.received.some((all) => all.endsWith('early from the client')),
    )
    client.socket.end()
    assert.equal(await client.ended.then((rest) => rest), 'early from the workload')
  })

  it('lets each side end on its own, and loses nothing', async () => {
    const { client, text } = await open('/half')
    const long = 'c'.repeat(4 * 1024 * 1024)
    const there = workload.received.length
    client.socket.end(long)
    await eventually('all at the workload', () =>
      workload.received.some((all) => all.length >= long.length && all.endsWith('c')),
    )
    // The scripted workload answers the client's end with its own; the connection is over then.
    await client.ended
    assert.equal(text(), '')
    assert.ok(workload.received.length <= there + 1)
    const other = await open('/half')
    tunnel?.end('last words of the workload')
    await other.client.ended
    assert.match(other.text(), /last words of the workload$/)
    other.client.socket.end('and of the client')
    await eventually('at the workload', () =>
      workload.received.some((all) => all.endsWith('and of the client')),
    )
  })

  it('ends when the other side breaks', async () => {
    const one = await open('/break')
    tunnel?.resetAndDestroy()
    await one.client.ended
    const two = await open('/break')
    const at = tunnel
    two.client.socket.destroy()
    await eventually('ended at the workload', () => at?.destroyed || at?.readableEnded)
  })

  it('that the workload refuses is an answer like any other', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(upgrade('/refuse') + get('/'))
    assert.equal(String((await client.answer()).body), 'no')
    assert.equal(String((await client.answer()).body), 'plain')
  })

  it('with an accept key for another request is a bad answer', async () => {
    for (const path of ['/wrong-key', '/no-connection']) {
      const client = await openClient(t, sidecar, web)
      client.send(upgrade(path))
      const answer = await client.answer()
      assert.equal(answer.status, 502)
      assert.equal(JSON.parse(String(answer.body)).error, 'upstream_bad_response')
    }
  })

  it('to HTTP/2 is not passed on, and the request is answered as it is', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(
      get(
        '/',
        'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n',
      ),
    )
    assert.equal(String((await client.answer()).body), 'plain')
    for (const name of ['connection', 'upgrade', 'http2-settings'])
      assert.deepEqual(seen?.values(name), [])
  })

  it('leaves nothing open when it is over', async () => {
    await eventually('no connection of a tunnel is left', async () => {
      const text = await sidecar.metrics()
      return /postern_requests_total\{[^}]*status_class="1xx"\} [5-9]/.test(text)
    })
  })
})

describe('an upgrade that policy denies', () => {
  const t = suiteCleanup()

  it('never reaches the workload', async () => {
    const workload = await startScriptedWorkload(t, (socket, request) => {
      socket.write(switching(request))
    })
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { policy: { bundle: SAMPLE_POLICY } },
    })
    const client = await openClient(t, sidecar, await sidecar.authority.svid('stranger'))
    client.send(`${upgrade('/api/orders')}early`)
    assert.equal((await client.answer()).status, 403)
    assert.equal(workload.sockets.length, 0)
  })
})
