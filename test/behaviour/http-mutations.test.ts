import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { suiteCleanup } from '../support/cleanup.ts'
import { get, type Message, ok, openClient, post, startScriptedWorkload } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import type { RawWorkload } from '../support/workload.ts'

const bundle = (name: string): string =>
  fileURLToPath(new URL(`../policy/bundles/${name}.tar.gz`, import.meta.url))

describe('what a policy changes', () => {
  let sidecar: TestSidecar
  let workload: RawWorkload
  let web: IssuedCertificate
  let seen: Message | undefined
  const t = suiteCleanup()
  before(async () => {
    workload = await startScriptedWorkload(t, (socket, request) => {
      seen = request
      socket.write(ok('answer', 'x-own: 1\r\n'))
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { policy: { bundle: bundle('result') } },
    })
    web = await sidecar.authority.svid('web')
  })

  it('in the request arrives at the workload, in the answer at the client', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(
      get(
        '/allow?a=1&token=secret&%74oken=again&tenant=forged&b=%zz',
        'Authorization: Bearer x\r\nX-Role: admin\r\nX-ROLE: root\r\nX-Other: kept\r\n',
      ).replace('&b=%zz', ''),
    )
    const answer = await client.answer()
    assert.equal(String(answer.body), 'answer')
    assert.equal(seen?.line, 'GET /allow?a=1&tenant=one&tag=x&tag=y HTTP/1.1')
    assert.deepEqual(seen?.values('x-role'), ['reader'])
    assert.deepEqual(seen?.values('x-many'), ['a', 'b'])
    assert.deepEqual(seen?.values('authorization'), [])
    assert.deepEqual(seen?.values('x-other'), ['kept'])
    assert.deepEqual(answer.values('x-policy'), ['sample'])
    assert.deepEqual(answer.values('set-cookie'), ['a=1', 'b=2'])
    assert.deepEqual(answer.values('x-own'), ['1'])
  })

  it('is not said otherwise in trailers', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(
      'POST /allow HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n' +
        '1\r\nx\r\n0\r\nX-Role: admin\r\nX-Sum: 1\r\n\r\n',
    )
    assert.equal((await client.answer()).status, 200)
    assert.deepEqual(seen?.values('x-role'), ['reader'])
    assert.deepEqual(seen?.trailers, [['x-sum', '1']])
  })

  it('in a denial is status, headers and body, and the connection goes on', async () => {
    const client = await openClient(t, sidecar, web)
    client.send(post('/deny', 'a small body that nobody reads'))
    const answer = await client.answer()
    assert.equal(answer.status, 401)
    assert.deepEqual(answer.values('www-authenticate'), ['Bearer'])
    assert.equal(String(answer.body), 'not you')
    assert.equal(answer.values('x-postern-decision-id').length, 1)
    client.send('HEAD /deny HTTP/1.1\r\nhost: localhost\r\n\r\n')
    const head = await client.answer('HEAD')
    assert.deepEqual([head.status, head.values('content-length')], [401, ['7']])
    client.send(get('/allow'))
    assert.equal((await client.answer()).status, 200)
  })

  it('cannot be host, identity, framing or two lines: that is an error of the policy', async () => {
    const heard = workload.received.join().length
    const client = await openClient(t, sidecar, web)
    for (const path of [
      '/host',
      '/identity',
      '/split',
      '/interim',
      '/number',
      '/missing',
      '/list',
    ]) {
      client.send(get(path))
      const answer = await client.answer()
      assert.equal(answer.status, 500, path)
      assert.equal(JSON.parse(String(answer.body)).error, 'policy_error')
    }
    assert.equal(workload.received.join().length, heard)
    const outcome = 'postern_requests_total{protocol="http/1.1",outcome="error",status_class="5xx"}'
    assert.equal(await sidecar.metric(outcome), 7)
  })
})
