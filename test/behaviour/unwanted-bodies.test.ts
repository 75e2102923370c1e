// What becomes of a body whose request has been answered already: an answer of ours does not need it.
import assert from 'node:assert/strict'
import type net from 'node:net'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import {
  chunked,
  get,
  type Http1Client,
  ok,
  openClient,
  post,
  startScriptedWorkload,
} from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startRawWorkload } from '../support/workload.ts'

const CHUNKED_HEAD = 'POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n'
const WITH_TRAILER = `${CHUNKED_HEAD}3;a=b\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n`
const LARGEST = 64 * 1024

describe('the body of a request that is denied', () => {
  let sidecar: TestSidecar
  let web: IssuedCertificate
  const t = suiteCleanup()
  before(async () => {
    const { url } = await startScriptedWorkload(t, () => assert.fail('it was forwarded'))
    const allow = [{ uri: 'spiffe://example.org/ns/default/sa/other' }]
    const inbound = { timeouts: { requestBody: '1s' } }
    sidecar = await startSidecar(t, { forward: url, config: { allow, inbound } })
    web = await sidecar.authority.svid('web')
  })

  const open = (): Promise<Http1Client> => openClient(t, sidecar, web)
  const denied = async (client: Http1Client, close: boolean): Promise<void> => {
    const answer = await client.answer()
    assert.equal(answer.status, 403)
    assert.deepEqual(answer.values('connection'), close ? ['close'] : [])
  }

  it('is skipped, and the connection stays in step', async () => {
    const client = await open()
    const requests = [
      post('/', 'x'.repeat(LARGEST)),
      chunked('/', ['abc', 'GET /2 HTTP/1.1\r\nhost: a\r\n\r\n']),
      WITH_TRAILER,
      chunked('/', []),
    ]
    for (const request of requests) {
      client.send(request)
      await denied(client, false)
      await client.sendByteWise(request.slice(0, 1_000))
      client.send(request.slice(1_000))
      await denied(client, false)
    }
    client.send(requests.join('') + get('/'))
    for (let i = 0; i <= requests.length; i++) await denied(client, false)
    client.socket.end()
    assert.equal(await client.ended, '')
  })

  it('ends the connection where it is large, or the client waits to be asked for it', async () => {
    const asked = 'POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n'
    for (const request of [post('/', 'x'.repeat(LARGEST + 1)), asked]) {
      const client = await open()
      client.send(request)
      await denied(client, true)
      assert.equal(await client.ended, '')
    }
  })

  it('ends the connection where its chunks are more than a little, or malformed', async () => {
    const large = chunked('/', ['x'.repeat(LARGEST), 'y'])
    for (const request of [large, `${CHUNKED_HEAD}3\r\nabcd\r\n`, `${CHUNKED_HEAD}-1\r\n`]) {
      const client = await open()
      client.send(request + get('/never'))
      await denied(client, false)
      assert.equal(await client.ended, '')
    }
  })

  it('ends the connection where it does not come', async () => {
    for (const request of [post('/', 'xyz').slice(0, -1), WITH_TRAILER.slice(0, -1)]) {
      const client = await open()
      client.send(request)
      await denied(client, false)
      assert.equal(await client.ended, '')
    }
  })
})

describe('the rest of a body that the workload failed to read', () => {
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let onData: (socket: net.Socket) => void
  const t = suiteCleanup()
  before(async () => {
    const { url } = await startRawWorkload(t, (socket) => {
      socket.on('error', () => {}).on('data', () => onData(socket))
    })
    sidecar = await startSidecar(t, { forward: url })
    web = await sidecar.authority.svid('web')
  })

  for (const [kind, request] of [
    ['with a length', post('/', '0123456789')],
    ['in chunks', chunked('/', ['01234', '56789'])],
  ] as const) {
    it(`is skipped, and the connection goes on: a body ${kind}`, async () => {
      onData = (socket) => socket.resetAndDestroy()
      const client = await openClient(t, sidecar, web)
      client.send(request.slice(0, -6))
      const answer = await client.answer()
      assert.equal(answer.status, 502)
      assert.deepEqual(answer.values('connection'), [])
      onData = (socket) => void socket.write(ok('next'))
      client.send(request.slice(-6) + get('/'))
      assert.equal(String((await client.answer()).body), 'next')
    })
  }
})
