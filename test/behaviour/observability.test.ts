// What an operator sees of the real process: decisions, access, metrics, admin. And what nobody sees:
// secrets.
import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { parse } from 'yaml'
import { METRICS, type MetricName } from '../../src/metrics.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  type IssuedCertificate,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
  WEB,
} from '../support/pki.ts'
import {
  call,
  connectRaw,
  type LogLine,
  SAMPLE_POLICY,
  startSidecar,
  type TestSidecar,
} from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const SECRETS = ['Bearer s3cret-token', 'session=s3cret-cookie', 's3cret-query', 's3cret-own']

describe('what an operator sees', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let authority: TestAuthority
  let own: IssuedCertificate
  let web: IssuedCertificate
  let stranger: IssuedCertificate
  let crlFile: string

  before(async () => {
    const directory = await temporaryDirectory(t)
    crlFile = join(directory, 'ca.crl')
    authority = await testAuthority()
    own = await authority.intermediate.issue({ dns: ['localhost'] })
    web = await authority.svid('web')
    stranger = await authority.svid('stranger')
    const trustFile = join(directory, 'all.crt')
    await writeFile(
      trustFile,
      authority.root.certificatePem + authority.intermediate.certificatePem,
    )
    await writeFile(
      crlFile,
      (await authority.root.crl({ revoked: [] })) +
        (await authority.intermediate.crl({ revoked: [] })),
    )
    const { url } = await startWorkload(t, ({ url: path }, response) => {
      if (path === '/api/orders/reset') response.destroy()
      else response.end('ok')
    })
    sidecar = await startSidecar(t, {
      authority,
      certificate: own,
      forward: url,
      config: {
        inbound: { unsafeAmbiguousPaths: true },
        trust: { bundles: [{ file: trustFile }], crls: [crlFile] },
        policy: { bundle: SAMPLE_POLICY },
        log: { redact: ['x-own-secret'] },
      },
    })
  })

  const decisions = (): LogLine[] =>
    sidecar.lines.filter(({ type }) => type === 'openpolicyagent.org/decision_logs')

  async function json(path: string): Promise<Record<string, unknown>> {
    const { status, body } = await sidecar.admin('GET', path)
    assert.equal(status, 200, path)
    return JSON.parse(body) as Record<string, unknown>
  }

  it("is every decision, in the shape of OPA's events, with what it was made from", async () => {
    const { headers } = await call(sidecar, stranger, {
      headers: { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' },
    })
    const id = headers['x-postern-decision-id']
    const event = await eventually('the event', () =>
      decisions().find(({ decision_id }) => decision_id === id),
    )
    const { active } = (await json('/snapshot'))['policy'] as { active: Record<string, string> }
    assert.equal(active['digest'], hash('sha256', await readFile(SAMPLE_POLICY)))
    const custom = event['custom'] as Record<string, unknown>
    assert.equal(custom['bundle_digest'], active['digest'])
    assert.deepEqual(event['bundles'], {
      policy: active['revision'] === '' ? {} : { revision: active['revision'] },
    })
    assert.match(String(custom['input_digest']), /^[0-9a-f]{64}$/)
    assert.equal(event['path'], active['entrypoint'])
    assert.equal(custom['outcome'], 'deny')
    assert.equal(event['trace_id'], '0af7651916cd43dd8448eb211c80319c')
    assert.match(String(event['timestamp']), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
    assert.ok((event['metrics'] as Record<string, number>)['timer_rego_query_eval_ns'])
    const { source } = (event['input'] as { attributes: { source: { principal: string } } })
      .attributes
    assert.match(source.principal, /\/sa\/stranger$/)
  })

  it('is a denied request, with the reason, and no allowed one by default', async () => {
    const requestId = crypto.randomUUID()
    await call(sidecar, stranger, { headers: { 'x-request-id': requestId } })
    const line = await sidecar.logged('access', { request_id: requestId })
    assert.deepEqual(
      [line['status'], line['outcome'], line['code'], line['method'], line['path']],
      [403, 'deny', 'denied', 'GET', '/api/orders'],
    )
    const allowed = crypto.randomUUID()
    assert.equal((await call(sidecar, web, { headers: { 'x-request-id': allowed } })).status, 200)
    await eventually('its decision', () => decisions().find(({ req_id }) => req_id === allowed))
    assert.equal(
      sidecar.lines.some(({ event, request_id }) => event === 'access' && request_id === allowed),
      false,
    )
  })

  it('is never a secret, in no log and on no page', async () => {
    const requestId = crypto.randomUUID()
    const headers = {
      authorization: SECRETS[0] as string,
      cookie: SECRETS[1] as string,
      'x-own-secret': SECRETS[3] as string,
      'x-request-id': requestId,
    }
    const path = `/api/orders?access_token=${SECRETS[2]}`
    assert.equal((await call(sidecar, stranger, { path, headers })).status, 403)
    const event = await eventually('the event', () =>
      decisions().find(({ req_id }) => req_id === requestId),
    )
    assert.ok((event['masked'] as string[]).some((one) => one.endsWith('/authorization')))
    await sidecar.logged('access', { request_id: requestId })
    const pages = ['/decisions', `/decisions/${event['decision_id']}`, '/config', '/snapshot']
    const shown = await Promise.all(pages.map((page) => sidecar.admin('GET', page)))
    const everything = [
      JSON.stringify(sidecar.lines),
      sidecar.errors(),
      await sidecar.metrics(),
      ...shown.map(({ body }) => body),
    ].join('\n')
    for (const secret of [...SECRETS, 'PRIVATE KEY']) {
      assert.equal(everything.includes(secret), false, secret)
    }
  })

  it('is the last decisions, newest first, by outcome and by principal, and each by its ID', async () => {
    await call(sidecar, web)
    const { headers } = await call(sidecar, stranger)
    const id = String(headers['x-postern-decision-id'])
    const list = async (query: string): Promise<LogLine[]> =>
      (await json(`/decisions${query}`))['decisions'] as LogLine[]
    await eventually('it is there', async () => (await list('?limit=1'))[0]?.['decision_id'] === id)
    for (const one of await list('?outcome=deny'))
      assert.equal((one['custom'] as { outcome: string }).outcome, 'deny')
    const ofWeb = await list(`?principal=${encodeURIComponent(WEB)}&outcome=allow`)
    assert.ok(ofWeb.length > 0)
    for (const one of ofWeb) assert.match(JSON.stringify(one['input']), /sa\/web/)
    assert.deepEqual(await list('?principal=nobody'), [])
    const { decision, why, active } = await json(`/decisions/${id}`)
    assert.equal((decision as LogLine)['decision_id'], id)
    assert.equal(why, 'The policy said no.')
    assert.deepEqual(
      [(active as LogLine)['outcome'], (active as LogLine)['differs']],
      ['deny', false],
    )
    assert.equal((await sidecar.admin('GET', '/decisions/none')).status, 404)
    assert.equal((await sidecar.admin('GET', '/decisions?limit=0')).status, 400)
  })

  it('is the configuration in force with its defaults, and everything of the snapshot', async () => {
    const config = parse((await sidecar.admin('GET', '/config')).body)
    assert.equal(config.identity.certificate, sidecar.files.certificate)
    assert.equal(config.drain.timeout, '30s')
    const snapshot = await json('/snapshot')
    const { identity, trust } = snapshot as Record<'identity' | 'trust', Record<string, unknown>>
    assert.equal(identity['file'], sidecar.files.certificate)
    assert.equal(identity['serial'], own.serial)
    assert.match(String(identity['fingerprint_sha256']), /^[0-9a-f]{64}$/)
    const [bundle] = trust['bundles'] as { certificates: unknown[] }[]
    assert.equal(bundle?.certificates.length, 2)
    const [crl] = trust['crls'] as { file: string; next_update: string }[]
    assert.equal(crl?.file, crlFile)
    assert.ok(Date.parse(crl?.next_update ?? '') > Date.now())
  })

  it('is a failed handshake with its reason, and the times where time is the reason', async () => {
    const expired = await authority.svid('late', {
      notBefore: new Date(Date.now() - 120_000),
      notAfter: new Date(Date.now() - 60_000),
    })
    await call(sidecar, expired).catch(() => {})
    const line = await sidecar.logged('handshake_failed', { reason: 'expired' })
    const times = String(line['detail']).match(/\d{4}-\d\d-\d\dT[\d:.]+Z/g) ?? []
    assert.ok(times.length >= 2, String(line['detail']))
    assert.ok(times.some((one) => Math.abs(Date.parse(one) - Date.now()) < 30_000))
  })

  it('is an unsafe option, as a warning and as a metric', async () => {
    const option = 'inbound.unsafeAmbiguousPaths'
    assert.equal((await sidecar.logged('unsafe_option', { option })).level, 'warn')
    assert.equal(await sidecar.metric(`postern_unsafe_options{option="${option}"}`), 1)
  })

  it('is every metric of the table, and each moves with what it counts', async () => {
    const text = await sidecar.metrics()
    for (const name of Object.keys(METRICS) as MetricName[]) {
      assert.match(text, new RegExp(`^# TYPE postern_${name} ${METRICS[name].type}$`, 'm'))
    }
    for (const name of ['process_cpu_seconds_total', 'process_resident_memory_bytes']) {
      assert.match(text, new RegExp(`^${name} `, 'm'))
    }
    assert.match(text, /^nodejs_version_info/m)

    const http = 'protocol="http/1.1"'
    const moves: Record<string, () => Promise<unknown>> = {
      postern_connections_total: () => call(sidecar, web),
      'postern_connections_closed_total{reason="client"}': () => call(sidecar, web),
      'postern_handshakes_total{result="success",reason="none"}': () => call(sidecar, web),
      postern_handshake_duration_seconds_count: () => call(sidecar, web),
      'postern_handshakes_total{result="failure",reason="no_certificate"}': () =>
        call(sidecar, undefined).catch(() => {}),
      postern_tls_resumed_total: () => resume(sidecar, web),
      [`postern_requests_total{${http},outcome="allow",status_class="2xx"}`]: () =>
        call(sidecar, web),
      [`postern_requests_total{${http},outcome="deny",status_class="4xx"}`]: () =>
        call(sidecar, stranger),
      [`postern_request_duration_seconds_count{${http}}`]: () => call(sidecar, web),
      'postern_requests_rejected_total{code="bad_request_line"}': async () => {
        const client = await connectRaw(t, sidecar, web)
        client.write('nonsense\r\n\r\n')
        await client.closed
      },
      'postern_decisions_total{outcome="allow",rule="policy"}': () => call(sidecar, web),
      'postern_decisions_total{outcome="deny",rule="policy"}': () => call(sidecar, stranger),
      postern_decision_duration_seconds_count: () => call(sidecar, web),
      'postern_upstream_errors_total{code="upstream_reset"}': () =>
        call(sidecar, web, { path: '/api/orders/reset' }),
      postern_snapshot_generation: rotate,
      'postern_reload_total{source="identity",result="success"}': rotate,
      'postern_reload_last_success_timestamp_seconds{source="identity"}': rotate,
    }
    for (const [series, move] of Object.entries(moves)) {
      const before = await sidecar.metric(series)
      await move()
      await eventually(series, async () => (await sidecar.metric(series)) > before)
    }

    const open = await connectRaw(t, sidecar, web)
    open.write('GET /api/orders HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await open.until(/ok/)
    await eventually('gauges', async () => {
      const now = await sidecar.metrics()
      return ['connections_open', 'upstream_connections_open', 'policy_wasm_memory_bytes'].every(
        (name) => new RegExp(`^postern_${name} [1-9]`, 'm').test(now),
      )
    })
    const now = await sidecar.metrics()
    assert.match(now, /^postern_build_info\{version="[^"]+",node="[^"]+",openssl="[^"]+"\} 1$/m)
    assert.match(now, /^postern_policy_info\{slot="active",revision="[^"]*"\} 1$/m)
    assert.match(now, /^postern_event_loop_lag_seconds\{thread="data-0"\} /m)
    const expires =
      /^postern_certificate_expiration_timestamp_seconds\{kind="identity",name="[^"]*"\} (\d+)$/m.exec(
        now,
      )
    assert.ok(Number(expires?.[1]) * 1000 > Date.now())
    assert.match(now, /^postern_certificate_expiration_timestamp_seconds\{kind="trust"/m)
    assert.match(now, /^postern_crl_next_update_timestamp_seconds\{name="[^"]*ca\.crl/m)
  })

  it('has no more series after a client has sent whatever it likes', async () => {
    await call(sidecar, web)
    const series = async (): Promise<string[]> =>
      (await sidecar.metrics()).split('\n').map((line) => line.replace(/ [^ ]+$/, ''))
    const before = new Set(await series())
    for (const [method, path] of [
      ['BREW', '/x'],
      ['GET', '/client-chosen-path'],
      ['DELETE', '/api/orders/client-chosen'],
    ] as const) {
      await call(sidecar, stranger, { method, path, headers: { 'x-chosen': 'client-chosen' } })
    }
    const added = (await series()).filter((line) => !before.has(line))
    assert.deepEqual(added, [])
  })

  async function rotate(): Promise<void> {
    const fresh = await authority.intermediate.issue({ dns: ['localhost'] })
    await writeFile(sidecar.files.privateKey, fresh.privateKeyPem)
    await writeFile(sidecar.files.certificate, fresh.chainPem)
  }
})

/** Two connections, the second with the session of the first. */
async function resume(sidecar: TestSidecar, client: IssuedCertificate): Promise<void> {
  const options = sidecar.clientOptions(client)
  const session = await new Promise<Buffer>((resolve, reject) => {
    const socket = tls.connect(options).on('error', reject)
    socket.once('session', (ticket) => {
      resolve(ticket)
      socket.end()
    })
    socket.resume()
  })
  await new Promise((resolve, reject) => {
    const socket = tls.connect({ ...options, session }).on('error', reject)
    socket.on('secureConnect', () => socket.end()).on('close', resolve)
    socket.resume()
  })
}
