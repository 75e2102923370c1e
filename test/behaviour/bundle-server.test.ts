// The policy comes from a bundle server: what the sidecar does before it has answered, while it fails,
// and after a restart without it.
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type BundleHost, bundleHost } from '../control/bundle-host.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, temporaryDirectory, testAuthority } from '../support/pki.ts'
import {
  call,
  type Reply,
  spawnPostern,
  startSidecar,
  type TestSidecar,
} from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const SIGNED = new URL('../policy/signed/bundles/', import.meta.url)
const ALLOW_ALL = new URL('../policy/bundles/allow-all.tar.gz', import.meta.url)

describe('a sidecar whose policy comes from a server', () => {
  const t = suiteCleanup()
  let host: BundleHost
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let config: Record<string, unknown>
  let forward: string
  let authority: Awaited<ReturnType<typeof testAuthority>>

  const ready = async () => {
    const answer = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/readyz`)
    return { status: answer.status, body: (await answer.json()) as { not_ready: string[] } }
  }
  const get = (): Promise<Reply> => call(sidecar, web)
  const post = (): Promise<Reply> => call(sidecar, web, { method: 'POST' })
  const failures = () => sidecar.metric('postern_reload_total{source="policy",result="failure"}')

  before(async () => {
    const directory = await temporaryDirectory(t)
    host = await bundleHost(t)
    await writeFile(join(directory, 'ca.pem'), host.ca)
    authority = await testAuthority()
    web = await authority.svid('web')
    forward = (await startWorkload(t)).url
    config = {
      // The rules would let everybody in: while the policy is pending they may not.
      allow: [{ all: true }],
      policy: {
        bundle: host.url,
        signing: { keys: { release: fileURLToPath(new URL('rsa.pem', SIGNED)) } },
        service: {
          ca: join(directory, 'ca.pem'),
          pollMin: '100ms',
          pollMax: '150ms',
          persist: join(directory, 'kept'),
        },
      },
    }
    sidecar = await startSidecar(t, { forward, authority, config })
  })

  it('runs without a policy, is not ready, and lets nobody through', async () => {
    assert.deepEqual((await ready()).body.not_ready, ['policy'])
    const answer = await get()
    assert.equal(answer.status, 503)
    assert.match(answer.body, /"policy_not_ready"/)
    assert.match((await sidecar.admin('GET', '/snapshot')).body, /"policy_pending": ?true/)
    assert.ok((await failures()) > 0)
  })

  it('takes no bundle that nobody vouches for', async () => {
    host.serve(await readFile(ALLOW_ALL), '"unsigned"')
    const what = 'the bundle is not signed, and policy.signing asks for it'
    await sidecar.logged('reload_problem', { what })
    assert.equal((await get()).status, 503)
  })

  it('is ready and decides as soon as the bundle has come', async () => {
    host.serve(await readFile(new URL('policy.tar.gz', SIGNED)), '"v1"')
    await eventually('it is ready', async () => (await ready()).status === 200)
    assert.equal((await get()).status, 200)
    assert.equal((await post()).status, 403)
    const { body } = await sidecar.admin('GET', '/snapshot')
    const view = JSON.parse(body) as {
      policy: { active: { bundles: { signed_by: string; revision: string }[] } }
      bundle_servers: { last_successful_activation?: string; code?: string }[]
    }
    assert.equal(view.policy.active.bundles[0]?.signed_by, 'release')
    assert.equal(view.policy.active.bundles[0]?.revision, 'signed-1')
    assert.ok(view.bundle_servers[0]?.last_successful_activation)
    assert.equal(await sidecar.metric('postern_policy_info{slot="active",revision="signed-1"}'), 1)
  })

  it('keeps what is good while the server fails, and says so', async () => {
    const count = await failures()
    host.answer = (_, response) => response.writeHead(500).end()
    await eventually('a failure is counted', async () => (await failures()) > count)
    const { body } = await sidecar.admin('GET', '/snapshot')
    assert.match(body, /"code": ?"bundle_error"/)
    assert.match(body, /answered 500/)
    assert.equal((await ready()).status, 200)
    assert.equal((await get()).status, 200)
    assert.equal((await post()).status, 403)
  })

  it('starts from what was kept while the server is down', async () => {
    host.answer = () => {}
    const again = await startSidecar(t, { forward, authority, config })
    assert.equal((await call(again, web)).status, 200)
    assert.equal((await call(again, web, { method: 'POST' })).status, 403)
  })

  it('is told by check what the server does not deliver', async () => {
    host.answer = (_, response) => response.writeHead(404).end()
    const check = spawnPostern(t, ['check', '--config', sidecar.files.config])
    assert.equal(await check.exited, 2)
    assert.match(check.errors(), /policy.bundle: https:.* answered 404: it has no such bundle/)
  })
})
