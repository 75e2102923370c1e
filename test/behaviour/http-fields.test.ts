import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import {
  chunked,
  get,
  type Message,
  ok,
  openClient,
  startScriptedWorkload,
} from '../support/http1.ts'
import { type IssuedCertificate, WEB } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'

describe('header fields', () => {
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let seen: Message | undefined
  const t = suiteCleanup()
  before(async () => {
    const workload = await startScriptedWorkload(t, (socket, request) => {
      seen = request
      socket.write(
        ok(
          '',
          'Connection: x-private, Keep-Alive\r\nKeep-Alive: timeout=5\r\nX-Private: 1\r\nProxy-Authenticate: Basic\r\nX-Postern-Decision-Id: forged\r\nX-Public: yes\r\nTrailer: x\r\n',
        ),
      )
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { inbound: { clientCert: true } },
    })
    web = await sidecar.authority.svid('web')
  })

  const ask = async (
    bytes: string,
  ): Promise<{ readonly seen: Message; readonly answer: Message }> => {
    const client = await openClient(t, sidecar, web)
    client.send(bytes)
    const answer = await client.answer()
    client.socket.destroy()
    assert.ok(seen)
    return { seen, answer }
  }
  const folded = (message: Message): string[] =>
    [...message.fields, ...message.trailers].map(([name]) =>
      name.toLowerCase().replaceAll('_', '-'),
    )

  it('say who the peer is, once, and only in our words', async () => {
    const forged = [
      'x-forwarded-client-cert: By=forged',
      'X-Forwarded-Client-Cert: By=forged',
      'X_FORWARDED_CLIENT_CERT: By=forged',
      'x-Forwarded_Client-Cert: By=forged',
      'CLIENT-CERT: :Zm9yZ2Vk:',
      'Client_Cert: :Zm9yZ2Vk:',
      'client-cert-chain: :Zm9yZ2Vk:',
      'x-postern-principal: forged',
      'X-Postern-Anything: forged',
      'X_Postern_Anything: forged',
    ]
    const { seen } = await ask(get('/', `${forged.join('\r\n')}\r\n`))
    const text = JSON.stringify(seen.fields)
    assert.doesNotMatch(text, /forged|Zm9yZ2Vk/)
    assert.equal(folded(seen).filter((name) => name === 'x-forwarded-client-cert').length, 1)
    assert.match(seen.values('x-forwarded-client-cert')[0] ?? '', new RegExp(`URI=${WEB}$`))
    assert.equal(folded(seen).filter((name) => name === 'client-cert').length, 1)
    assert.ok(!folded(seen).some((name) => name.startsWith('x-postern-')))
  })

  it('are not said in trailers either', async () => {
    const trailers =
      'X-Forwarded-Client-Cert: By=forged\r\nx_forwarded_client_cert: By=forged\r\nX-Postern-A: forged\r\nclient-cert: forged\r\nX-Checksum: 7\r\n'
    const { seen } = await ask(chunked('/', ['body'], trailers))
    assert.equal(String(seen.body), 'body')
    assert.deepEqual(
      seen.trailers.map(([name, value]) => [name.toLowerCase(), value]),
      [['x-checksum', '7']],
    )
  })

  it('of one hop stay on that hop, those that Connection lists too', async () => {
    const { seen, answer } = await ask(
      get(
        '/',
        'Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nTE: trailers\r\nProxy-Authorization: Basic x\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nTrailer: x\r\nX-End: 1\r\n',
      ),
    )
    for (const name of [
      'connection',
      'x-hop',
      'keep-alive',
      'te',
      'proxy-authorization',
      'proxy-connection',
      'upgrade',
      'http2-settings',
      'trailer',
    ]) {
      assert.deepEqual(seen.values(name), [], name)
    }
    assert.deepEqual(seen.values('x-end'), ['1'])
    for (const name of [
      'connection',
      'keep-alive',
      'x-private',
      'proxy-authenticate',
      'x-postern-decision-id',
      'trailer',
    ]) {
      assert.deepEqual(answer.values(name), [], name)
    }
    assert.deepEqual(answer.values('x-public'), ['yes'])
  })

  it('keep a request id that is well formed, and get one otherwise', async () => {
    const kept = await ask(get('/', 'X-Request-ID: call-1.a_b\r\n'))
    assert.deepEqual(kept.seen.values('x-request-id'), ['call-1.a_b'])
    for (const bad of [
      '',
      'x-request-id: with space\r\n',
      `x-request-id: ${'a'.repeat(129)}\r\n`,
    ]) {
      const made = await ask(get('/', bad))
      assert.match(made.seen.values('x-request-id').join(), /^[0-9a-f]{8}-[0-9a-f-]{27}$/)
    }
    const two = await ask(get('/', 'x-request-id: one\r\nX-Request-Id: two\r\n'))
    assert.deepEqual(two.seen.values('x-request-id'), ['one'])
  })

  it('pass the trace context on as it came', async () => {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    const { seen } = await ask(get('/', `traceparent: ${traceparent}\r\ntracestate: a=1,b=2\r\n`))
    assert.deepEqual(seen.values('traceparent'), [traceparent])
    assert.deepEqual(seen.values('tracestate'), ['a=1,b=2'])
  })

  it('keep order, repetition and values of everything else', async () => {
    const { seen } = await ask(
      get(
        '/',
        'Accept: a\r\nX-M: 1\r\naccept: b\r\nX-M:  2\t\r\n__proto__: x\r\nconstructor: y\r\n',
      ),
    )
    assert.deepEqual(seen.values('accept'), ['a', 'b'])
    assert.deepEqual(seen.values('x-m'), ['1', '2'])
    assert.deepEqual(seen.values('constructor'), ['y'])
    assert.deepEqual(seen.values('host'), ['localhost'])
  })
})
