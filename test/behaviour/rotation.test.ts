// Every file that can be rotated, in every way files are replaced: in force within two seconds, and
// no open connection notices.
import assert from 'node:assert/strict'
import { readFile, rename, writeFile } from 'node:fs/promises'
import https from 'node:https'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { fileURLToPath } from 'node:url'
import { AtomicWriter } from '../support/atomic-writer.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  Authority,
  type IssuedCertificate,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
} from '../support/pki.ts'
import { call, SAMPLE_POLICY, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const NOTICED_WITHIN_MS = 2_000
const bundle = (name: string): string =>
  fileURLToPath(new URL(`../policy/bundles/${name}.tar.gz`, import.meta.url))
const ALLOW_ALL = bundle('allow-all')
const DENY_ALL = bundle('deny-all')

type Files = Record<string, string | Uint8Array>
/** Replaces some files of a directory; the others stay. */
type Write = (directory: string, all: Files, changed: readonly string[]) => Promise<void>

const WAYS: Readonly<Record<string, Write>> = {
  'rewritten in place': async (directory, all, changed) => {
    for (const name of changed) await writeFile(join(directory, name), all[name] ?? '')
  },
  'renamed over': async (directory, all, changed) => {
    for (const name of changed) {
      await writeFile(join(directory, `.${name}.new`), all[name] ?? '')
      await rename(join(directory, `.${name}.new`), join(directory, name))
    }
  },
  'swapped as a Kubernetes volume': async (directory, all) => {
    await new AtomicWriter(directory).write(all)
  },
}

for (const [way, write] of Object.entries(WAYS)) {
  describe(`files that are ${way}`, () => {
    const t = suiteCleanup()
    let sidecar: TestSidecar
    let workload: Workload
    let authority: TestAuthority
    let web: IssuedCertificate
    let agent: https.Agent
    let files: Files
    let directory: string
    const seen = new Set<unknown>()

    before(async () => {
      directory = join(await temporaryDirectory(t), 'volume')
      authority = await testAuthority()
      workload = await startWorkload(t)
      web = await authority.svid('web')
      const own = await authority.intermediate.issue({ dns: ['localhost'] })
      files = {
        'credentials.pem': own.privateKeyPem + own.chainPem,
        // A CRL counts only for an authority that is trusted itself.
        'ca.crt': authority.root.certificatePem + authority.intermediate.certificatePem,
        'ca.crl':
          (await authority.root.crl({ revoked: [] })) +
          (await authority.intermediate.crl({ revoked: [] })),
        'bundle.tar.gz': await readFile(ALLOW_ALL),
      }
      await new AtomicWriter(directory).write(files)
      if (way !== 'swapped as a Kubernetes volume') {
        directory = await temporaryDirectory(t)
        for (const [name, content] of Object.entries(files))
          await writeFile(join(directory, name), content)
      }
      const path = (name: string): string => join(directory, name)
      sidecar = await startSidecar(t, {
        authority,
        forward: workload.url,
        config: {
          identity: {
            certificate: undefined,
            privateKey: undefined,
            credentialBundle: path('credentials.pem'),
          },
          trust: { bundles: [{ file: path('ca.crt') }], crls: [path('ca.crl')] },
          policy: { bundle: path('bundle.tar.gz') },
        },
      })
      agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
      agent.on('free', () => {
        for (const socket of Object.values(agent.freeSockets).flat()) if (socket) seen.add(socket)
      })
      t.after(() => agent.destroy())
      assert.equal((await call(sidecar, web, { agent })).status, 200)
    })

    async function rotate(changes: Files, source: string): Promise<void> {
      const series = `postern_reload_total{source="${source}",result="success"}`
      const before = await sidecar.metric(series)
      Object.assign(files, changes)
      await write(directory, files, Object.keys(changes))
      await eventually(
        `the new ${source} is in force`,
        async () => (await sidecar.metric(series)) > before,
        NOTICED_WITHIN_MS,
      )
      assert.equal((await call(sidecar, web, { agent })).status, 200)
    }

    it('bring a new certificate to new handshakes', async () => {
      const own = await authority.intermediate.issue({ dns: ['localhost'] })
      await rotate({ 'credentials.pem': own.privateKeyPem + own.chainPem }, 'identity')
      await eventually(
        'a handshake shows it',
        async () => (await serverSerial(sidecar, web)) === own.serial,
        NOTICED_WITHIN_MS,
      )
    })

    it('bring another authority into trust', async () => {
      const other = await Authority.create()
      const stranger = await other.issue({ uris: ['spiffe://example.org/ns/default/sa/new'] })
      const none = await other.crl({ revoked: [] })
      await assert.rejects(accepted(sidecar, stranger))
      await rotate({ 'ca.crt': `${files['ca.crt']}${other.certificatePem}` }, 'trust')
      await rotate({ 'ca.crl': `${files['ca.crl']}${none}` }, 'revocation')
      await eventually('the new authority counts', () =>
        accepted(sidecar, stranger).catch(() => false),
      )
    })

    it('bring a revocation into force', async () => {
      const bad = await authority.svid('bad')
      assert.equal(await accepted(sidecar, bad), true)
      const crl =
        (await authority.root.crl({ revoked: [], number: 2 })) +
        (await authority.intermediate.crl({ revoked: [{ serial: bad.serial }], number: 2 }))
      await rotate({ 'ca.crl': crl }, 'revocation')
      await eventually('it is refused', () =>
        accepted(sidecar, bad).then(
          () => false,
          () => true,
        ),
      )
    })

    it('bring a new policy into force', async () => {
      const series = 'postern_reload_total{source="policy",result="success"}'
      const before = await sidecar.metric(series)
      files['bundle.tar.gz'] = await readFile(DENY_ALL)
      await write(directory, files, ['bundle.tar.gz'])
      await eventually(
        'it denies on the open connection',
        async () => (await call(sidecar, web, { agent })).status === 403,
        NOTICED_WITHIN_MS,
      )
      assert.equal(await sidecar.metric(series), before + 1)
      files['bundle.tar.gz'] = await readFile(ALLOW_ALL)
      await write(directory, files, ['bundle.tar.gz'])
      await eventually(
        'it allows again',
        async () => (await call(sidecar, web, { agent })).status === 200,
        NOTICED_WITHIN_MS,
      )
    })

    it('are not noticed by an open connection', async () => {
      // One connection has carried a request before, between and after all of them.
      assert.equal((await call(sidecar, web, { agent })).status, 200)
      assert.equal(seen.size, 1)
      for (const reason of ['error', 'peer_invalid', 'upstream', 'drain']) {
        const series = `postern_connections_closed_total{reason="${reason}"}`
        assert.equal(await sidecar.metric(series), 0, reason)
      }
    })
  })
}

describe('what cannot be used', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let authority: TestAuthority
  let web: IssuedCertificate
  let trustFile: string
  let crlFile: string
  let policyFile: string

  before(async () => {
    const directory = await temporaryDirectory(t)
    trustFile = join(directory, 'ca.crt')
    crlFile = join(directory, 'ca.crl')
    policyFile = join(directory, 'bundle.tar.gz')
    authority = await testAuthority()
    web = await authority.svid('web')
    await writeFile(
      crlFile,
      (await authority.root.crl({ revoked: [] })) +
        (await authority.intermediate.crl({ revoked: [] })),
    )
    await writeFile(
      trustFile,
      authority.root.certificatePem + authority.intermediate.certificatePem,
    )
    await writeFile(policyFile, await readFile(SAMPLE_POLICY))
    sidecar = await startSidecar(t, {
      authority,
      forward: (await startWorkload(t)).url,
      config: {
        trust: { bundles: [{ file: trustFile }], crls: [crlFile] },
        policy: { bundle: policyFile },
      },
    })
  })

  const failures = (source: string): Promise<number> =>
    sidecar.metric(`postern_reload_total{source="${source}",result="failure"}`)

  async function details(): Promise<Record<string, unknown>> {
    const ready = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
    assert.equal(ready.status, 200)
    return ((await ready.json()) as { details: Record<string, unknown> }).details
  }

  async function rotateCertificate(): Promise<string> {
    const own = await authority.intermediate.issue({ dns: ['localhost'] })
    await writeFile(sidecar.files.privateKey, own.privateKeyPem)
    await writeFile(sidecar.files.certificate, own.chainPem)
    return own.serial
  }

  it('is a certificate without its key: the old pair stays until the new one is whole', async () => {
    const before = await serverSerial(sidecar, web)
    const failed = await failures('identity')
    const own = await authority.intermediate.issue({ dns: ['localhost'] })
    await writeFile(sidecar.files.certificate, own.chainPem)
    await eventually('it is told', async () => (await failures('identity')) > failed)
    const line = await sidecar.logged('reload', { identity: 'failed' })
    assert.equal(line.level, 'error')
    assert.equal(await serverSerial(sidecar, web), before)
    assert.deepEqual((await details())['failed_sources'], ['identity'])
    await writeFile(sidecar.files.privateKey, own.privateKeyPem)
    await eventually(
      'it is in force',
      async () => (await serverSerial(sidecar, web)) === own.serial,
      NOTICED_WITHIN_MS,
    )
    await eventually('it is no longer told', async () => !(await details())['failed_sources'])
  })

  for (const [source, where] of [
    ['trust', () => trustFile],
    ['revocation', () => crlFile],
    ['policy', () => policyFile],
  ] as const) {
    it(`is a broken file of ${source}: the old one stays, everybody is told, and certificates rotate`, async () => {
      const good = await readFile(where())
      const failed = await failures(source)
      await writeFile(where(), good.subarray(0, good.length - 60))
      await eventually('it is counted', async () => (await failures(source)) > failed)
      const problem = await eventually('it is logged', () =>
        sidecar.lines.find(({ event, level }) => event === 'reload_problem' && level === 'error'),
      )
      assert.ok(problem['where'] && problem['remedy'])
      assert.equal((await sidecar.logged('reload', { [source]: 'failed' })).level, 'error')
      const { failed_sources, problems } = await details()
      assert.deepEqual(failed_sources, [source])
      assert.ok((problems as unknown[]).length > 0)
      assert.equal((await call(sidecar, web)).status, 200)

      const serial = await rotateCertificate()
      await eventually(
        'the certificate rotates all the same',
        async () => (await serverSerial(sidecar, web)) === serial,
        NOTICED_WITHIN_MS,
      )
      const report = await sidecar.admin('POST', '/reload')
      assert.equal(report.status, 500)
      assert.ok(JSON.parse(report.body).problems.length > 0)
      await writeFile(where(), good)
      await eventually('it is good again', async () => !(await details())['failed_sources'])
      assert.equal((await sidecar.admin('POST', '/reload')).status, 200)
    })
  }

  it('is looked for again on SIGHUP', async () => {
    sidecar.signal('SIGHUP')
    await sidecar.logged('reload', { reason: 'signal', result: 'unchanged' })
  })
})

/** Serial number of the certificate that a new handshake shows. */
async function serverSerial(sidecar: TestSidecar, client: IssuedCertificate): Promise<string> {
  const socket = tls.connect(sidecar.clientOptions(client))
  try {
    await new Promise((resolve, reject) => socket.on('secureConnect', resolve).on('error', reject))
    return socket.getPeerX509Certificate()?.serialNumber.toLowerCase() ?? ''
  } finally {
    // Not destroy: that would take the client's last message of the handshake with it.
    socket.end()
  }
}

/** Rejects unless a request of this client gets past the handshake. */
async function accepted(sidecar: TestSidecar, client: IssuedCertificate): Promise<true> {
  const { status, body } = await call(sidecar, client)
  assert.equal(status, 200, body)
  return true
}
