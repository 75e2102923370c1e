// Identity, trust and CRLs from a SPIFFE Workload API, with the real process: before the agent is
// there, while it rotates, and when it goes or answers nonsense.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { stringify } from 'yaml'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  type IssuedCertificate,
  ORDERS,
  spiffeId,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
  writeFiles,
} from '../support/pki.ts'
import { call, serverCertificate, spawnPostern, startSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'
import { type Answer, WorkloadApiServer } from '../support/workload-api.ts'

const FROM_API = { certificate: undefined, privateKey: undefined }

interface Scene {
  readonly server: WorkloadApiServer
  readonly authority: TestAuthority
  answer(more?: Partial<Answer> & { readonly hint?: string }): Promise<Answer>
}

async function scene(t: Cleanup): Promise<Scene> {
  const authority = await testAuthority()
  const answer: Scene['answer'] = async ({ hint, ...more } = {}) => ({
    svids: [
      {
        spiffeId: ORDERS,
        issued: await authority.intermediate.issue({ uris: [ORDERS], dns: ['localhost'] }),
        bundlePem: authority.root.certificatePem + authority.intermediate.certificatePem,
        ...(hint === undefined ? {} : { hint }),
      },
    ],
    ...more,
  })
  const socket = join(await temporaryDirectory(t), 'agent.sock')
  const server = new WorkloadApiServer(t, `unix://${socket}`, await answer())
  return { server, authority, answer }
}

const pem = (crl: string): Buffer =>
  Buffer.from(crl.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64')

describe('a sidecar whose identity comes from a Workload API', () => {
  const t = suiteCleanup()
  let s: Scene
  let sidecar: Awaited<ReturnType<typeof startSidecar>>
  let web: IssuedCertificate
  const status = (client: IssuedCertificate) =>
    call(sidecar, client).then(
      (reply) => reply.status,
      () => 0,
    )
  const serial = () => serverCertificate(sidecar, web).then((one) => one.serialNumber.toLowerCase())

  before(async () => {
    s = await scene(t)
    await s.server.start()
    web = await s.authority.svid('web')
    sidecar = await startSidecar(t, {
      authority: s.authority,
      forward: (await startWorkload(t)).url,
      config: {
        identity: { ...FROM_API, workloadApi: s.server.address },
        trust: undefined,
      },
    })
  })

  it('serves with it and believes the bundle of its trust domain, and no other one', async () => {
    assert.equal(await status(web), 200)
    const line = await sidecar.logged('workload_api', { spiffe_id: ORDERS })
    assert.equal(line['identities'], 1)
    const stranger = await (await testAuthority()).svid('web')
    assert.notEqual(await status(stranger), 200)
    const { body } = await sidecar.admin('GET', '/snapshot')
    assert.equal(JSON.parse(body).trust.bundles[0].trust_domain, 'example.org')
  })

  it('rotates as soon as the agent does, and says how long that took', async () => {
    const next = await s.answer()
    s.server.send(next)
    await eventually(
      'a handshake shows it',
      async () => (await serial()) === next.svids[0]?.issued.serial,
    )
    const lag = await eventually('the lag', () =>
      sidecar.metric('postern_reload_lag_seconds{source="identity"}'),
    )
    assert.ok(lag > 0 && lag < 5, String(lag))
  })

  it('believes a federated trust domain for its own names, for as long as it is delivered', async () => {
    const partner = await testAuthority('partner.example')
    const guest = await partner.svid('web')
    const impostor = await partner.intermediate.issue({ uris: [spiffeId('web')] })
    assert.notEqual(await status(guest), 200)
    const federated = { 'spiffe://partner.example': partner.root.certificatePem }
    s.server.send(await s.answer({ federated }))
    await eventually('it is believed', async () => (await status(guest)) === 200)
    assert.notEqual(await status(impostor), 200)
    s.server.send(await s.answer())
    await eventually('it is believed no longer', async () => (await status(guest)) !== 200)
    assert.equal(await status(web), 200)
  })

  it('enforces the CRLs that are delivered', async () => {
    const revoked = await s.authority.svid('bad')
    assert.equal(await status(revoked), 200)
    const crl = await s.authority.intermediate.crl({ revoked: [{ serial: revoked.serial }] })
    s.server.send(await s.answer({ crls: [pem(crl)] }))
    await eventually('it is refused', async () => (await status(revoked)) !== 200)
    assert.equal(await status(web), 200)
    s.server.send(await s.answer())
    await eventually('the CRL has gone', async () => (await status(revoked)) === 200)
  })

  it('keeps what is good when an answer is not: unreadable, without bundle, with another key', async () => {
    const good = await serial()
    const failures = 'postern_reload_total{source="identity",result="failure"}'
    const other = await s.authority.svid('orders')
    const answer = await s.answer()
    const [svid] = answer.svids
    assert.ok(svid)
    const asked = s.server.metadata.length
    s.server.send(Uint8Array.from([0x0a, 0x7f]))
    await sidecar.logged('workload_api_trouble')
    await eventually('it asks again', () => s.server.metadata.length > asked)
    // Only now: a stream that begins with nonsense does not last.
    s.server.answer = answer
    await eventually('it has come back', () => s.server.streams === 1)
    for (const bad of [
      { ...svid, issued: { ...svid.issued, privateKeyPem: other.privateKeyPem } },
      { ...svid, spiffeId: 'spiffe://example.org' },
    ]) {
      const before = await sidecar.metric(failures)
      s.server.send({ svids: [bad] })
      await eventually('it is counted', async () => (await sidecar.metric(failures)) > before)
    }
    s.server.send({ svids: [{ ...svid, bundlePem: '' }] })
    await sidecar.logged('reload', { trust: 'failed' })
    assert.equal(await status(web), 200)
    assert.ok([good, svid.issued.serial].includes(await serial()))
    s.server.send(await s.answer())
    await eventually('all is good again', async () => {
      const ready = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
      const { details } = (await ready.json()) as { details: Record<string, unknown> }
      return !details['failed_sources']
    })
  })

  it('goes on without the agent, says so, and follows the next one', async () => {
    await s.server.stop()
    const details = () =>
      fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`).then(async (answer) => {
        assert.equal(answer.status, 200)
        return ((await answer.json()) as { details: Record<string, unknown> }).details
      })
    await eventually('it is told', async () => (await details())['workload_api'])
    assert.equal(await status(web), 200)
    const next = await s.answer()
    s.server.answer = next
    await s.server.start()
    await eventually(
      'the identity of the new agent',
      async () => (await serial()) === next.svids[0]?.issued.serial,
    )
    await eventually('it is no longer told', async () => !(await details())['workload_api'])
  })
})

describe('a start without an agent', () => {
  const t = suiteCleanup()

  async function start(s: Scene, more: Record<string, unknown> = {}) {
    const directory = await temporaryDirectory(t)
    const { 'postern.yaml': file } = await writeFiles(directory, {
      'postern.yaml': stringify({
        inbound: { listen: '127.0.0.1:0', forward: 'http://127.0.0.1:1' },
        identity: { workloadApi: s.server.address, ...(more['identity'] as object) },
        allow: [{ all: true }],
        admin: { listen: 'off' },
        metrics: { listen: `unix:${join(directory, 'm.sock')}` },
        ...(more['trust'] === undefined ? {} : { trust: more['trust'] }),
      }),
    })
    const child = spawnPostern(t, ['run', '--config', file])
    const probe = async (path: string) => {
      const { request } = await import('node:http')
      return new Promise<{ status: number; text: string }>((resolve, reject) => {
        request({ socketPath: join(directory, 'm.sock'), path }, (response) => {
          let text = ''
          response.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk
          })
          response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
        })
          .on('error', reject)
          .end()
      })
    }
    const logged = (event: string) =>
      eventually(`event ${event}`, () => child.lines.find((line) => line.event === event))
    return { ...child, probe, logged, file }
  }

  it('waits, says so on /readyz and /startupz, and serves when the identity is there', async () => {
    const s = await scene(t)
    const child = await start(s)
    await child.logged('waiting')
    for (const path of ['/readyz', '/startupz']) {
      const { status, text } = await child.probe(path)
      assert.equal(status, 503)
      assert.match(text, /agent\.sock (cannot be reached|has delivered no identity)/)
    }
    assert.equal((await child.probe('/livez')).status, 200)
    const trouble = await child.logged('workload_api_trouble')
    assert.match(String(trouble['remedy']), /start the agent/)
    // Registered only after it has asked for the first time.
    s.server.answer = { code: 7, details: 'no identity issued' }
    await s.server.start()
    await eventually('the remedy is told', () =>
      child.lines.find((line) => /register this workload/.test(String(line['remedy']))),
    )
    s.server.answer = await s.answer()
    await child.logged('ready')
    assert.equal((await child.probe('/readyz')).status, 200)
    assert.equal((await child.probe('/startupz')).status, 200)
    child.signal('SIGTERM')
    assert.equal(await child.exited, 0)
  })

  it('ends on SIGTERM while it waits', async () => {
    const child = await start(await scene(t))
    await child.logged('waiting')
    child.signal('SIGTERM')
    assert.equal(await child.exited, 0)
    assert.equal(child.errors(), '')
  })

  it('does not wait with what is wrong for another reason', async () => {
    const child = await start(await scene(t), { trust: { crls: ['/nowhere.crl'] } })
    assert.equal(await child.exited, 2)
    assert.match(child.errors(), /nowhere\.crl does not exist/)
  })

  it('takes the identity with the hint, and waits while there is none with it', async () => {
    const s = await scene(t)
    s.server.answer = await s.answer({ hint: 'external' })
    await s.server.start()
    const child = await start(s, { identity: { hint: 'internal' } })
    await eventually('it is told', () =>
      child.lines.find((line) => /theirs are: \\?"external/.test(String(line['what']))),
    )
    const [external] = (await s.answer({ hint: 'external' })).svids
    const [internal] = (await s.answer({ hint: 'internal' })).svids
    assert.ok(external && internal)
    s.server.send({ svids: [external, internal] })
    await child.logged('ready')
    const last = child.lines.filter((line) => line.event === 'workload_api').at(-1)
    assert.deepEqual([last?.['hint'], last?.['identities']], ['internal', 2])
  })

  it('a domain that is configured and delivered is a problem, and stays with what is configured', async () => {
    const s = await scene(t)
    await s.server.start()
    const other = await testAuthority()
    const file = join(await temporaryDirectory(t), 'ca.crt')
    await writeFile(file, other.root.certificatePem)
    const child = await start(s, { trust: { bundles: [{ trustDomain: 'example.org', file }] } })
    await child.logged('ready')
    const problem = await child.logged('reload_problem')
    assert.match(String(problem['what']), /bundle for example\.org, which already has .*ca\.crt/)
  })

  it('is found by `postern check`, which tries once', async () => {
    const s = await scene(t)
    const check = async () => {
      const child = spawnPostern(t, [
        ...['check', '--workload-api', s.server.address, '--allow-all'],
        ...['--forward', 'http://127.0.0.1:1', '--metrics', 'off', '--admin', 'off'],
      ])
      return { code: await child.exited, text: child.errors() + JSON.stringify(child.lines) }
    }
    const absent = await check()
    assert.equal(absent.code, 2)
    assert.match(absent.text, /agent\.sock cannot be reached/)
    await s.server.start()
    const there = await check()
    assert.equal(there.code, 0, there.text)
    s.server.answer = { code: 7, details: 'no identity issued' }
    const denied = await check()
    assert.equal(denied.code, 2)
    assert.match(denied.text, /register this workload/)
  })
})
