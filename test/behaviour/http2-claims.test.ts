// What a client says about itself over HTTP/2, in fields and behind the body, reaches nobody.
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { type Message, ok, startScriptedWorkload } from '../support/http1.ts'
import { WEB } from '../support/pki.ts'
import { data, head, openRawHttp2, type RawHttp2, requestFields } from '../support/raw-http2.ts'
import { startSidecar } from '../support/sidecar.ts'

const CLAIMS = [
  ...['x-forwarded-client-cert', 'By=forged;URI=spiffe://example.org/forged'],
  ...['x_forwarded_client_cert', 'forged', 'x-forwarded-client.cert', 'forged'],
  ...['client-cert', ':Zm9yZ2Vk:', 'client_cert', 'forged', 'client-cert-chain', 'forged'],
  ...['x-postern-principal', 'forged', 'x-postern-decision-id', 'forged'],
]

describe('an identity that a client claims over HTTP/2', () => {
  let raw: RawHttp2
  const seen: Message[] = []
  const t = suiteCleanup()
  before(async () => {
    const workload = await startScriptedWorkload(t, (socket, request) => {
      seen.push(request)
      socket.write(ok(''))
    })
    const sidecar = await startSidecar(t, { forward: workload.url })
    raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
  })

  const assertOurs = (request: Message | undefined): void => {
    assert.ok(request !== undefined)
    assert.doesNotMatch(JSON.stringify([request.fields, request.trailers]), /forged|Zm9yZ2Vk/)
    const told = request.values('x-forwarded-client-cert')
    assert.equal(told.length, 1)
    assert.match(told[0] ?? '', new RegExp(`;URI=${WEB}$`))
  }

  it('in its fields is replaced by what its certificate says', async () => {
    raw.send(head(1, [...requestFields(), ...CLAIMS]))
    assert.equal((await raw.answered(1)).status, 200)
    assertOurs(seen.at(-1))
  })

  it('in its trailers is left out, and the other trailers are not', async () => {
    raw.send(
      head(3, requestFields({ ':method': 'POST' }), false),
      data(3, 'body'),
      head(3, [...CLAIMS, 'x-checksum', '7']),
    )
    assert.equal((await raw.answered(3)).status, 200)
    const request = seen.at(-1)
    assertOurs(request)
    assert.equal(String(request?.body), 'body')
    assert.deepEqual(
      request?.trailers.map(([name, value]) => [name.toLowerCase(), value]),
      [['x-checksum', '7']],
    )
  })

  it('with upper-case letters is no field at all, and nothing is forwarded', async () => {
    const before = seen.length
    raw.send(head(5, [...requestFields(), 'X-Forwarded-Client-Cert', 'forged']))
    const { status, reset } = await raw.answered(5)
    assert.ok(status === 400 || reset === 1, `${status} ${reset}`)
    assert.equal(seen.length, before)
  })
})
