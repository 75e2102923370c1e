// Certificate, trust bundle and policy change again and again while requests come without a pause:
// none of them fails, and no connection is closed for it. ROTATIONS=1000 is the full proof.
import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { Authority, type IssuedCertificate, temporaryDirectory } from '../support/pki.ts'
import { SAMPLE_POLICY, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { SteadyClient } from '../support/steady-client.ts'
import { startWorkload } from '../support/workload.ts'

const ROTATIONS = Number(process.env['ROTATIONS'] ?? 25)
const KEPT_ALIVE = 32
const NEW_EACH_TIME = 8
const ALLOW_ALL = fileURLToPath(new URL('../policy/bundles/allow-all.tar.gz', import.meta.url))

const digestOf = (bytes: Buffer): string => hash('sha256', bytes)

describe(`${ROTATIONS} rotations under load`, () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let directory: string
  let own: readonly IssuedCertificate[]
  let trust: readonly string[]
  let policies: readonly Buffer[]

  before(async () => {
    directory = await temporaryDirectory(t)
    policies = [await readFile(SAMPLE_POLICY), await readFile(ALLOW_ALL)]
    await writeFile(join(directory, 'bundle.tar.gz'), policies[0] as Buffer)
    const workload = await startWorkload(t, (_, response) => void response.end('ok'))
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        policy: { bundle: join(directory, 'bundle.tar.gz') },
        log: { access: 'off', decisions: 'off' },
      },
    })
    const { authority } = sidecar
    const issue = () => authority.intermediate.issue({ dns: ['localhost'] })
    own = await Promise.all(Array.from({ length: 8 }, issue))
    const unused = await Authority.create({ commonName: 'nobody is issued by this' })
    trust = [authority.root.certificatePem + unused.certificatePem, authority.root.certificatePem]
  })

  async function replace(path: string, content: string | Buffer): Promise<void> {
    await writeFile(`${path}.new`, content)
    await rename(`${path}.new`, path)
  }

  async function rotate(round: number): Promise<void> {
    const { chainPem, privateKeyPem, serial } = own[round % own.length] as IssuedCertificate
    await replace(sidecar.files.trustBundle, trust[round % 2] as string)
    await replace(join(directory, 'bundle.tar.gz'), policies[(round + 1) % 2] as Buffer)
    await replace(sidecar.files.certificate, chainPem)
    await replace(sidecar.files.privateKey, privateKeyPem)
    await eventually(`rotation ${round} is in force`, async () => {
      const { identity, trust, policy } = JSON.parse((await sidecar.admin('GET', '/snapshot')).body)
      return (
        identity.serial === serial &&
        trust.bundles[0].certificates.length === 2 - (round % 2) &&
        policy.active.digest === digestOf(policies[(round + 1) % 2] as Buffer)
      )
    })
  }

  it('fail no request and close no connection', {
    timeout: 60_000 + ROTATIONS * 2_000,
  }, async () => {
    const web = await sidecar.authority.svid('web')
    const kept = Array.from({ length: KEPT_ALIVE }, () => new SteadyClient(t, sidecar, web))
    const fresh = Array.from(
      { length: NEW_EACH_TIME },
      () => new SteadyClient(t, sidecar, web, { keepAlive: false }),
    )
    const all = [...kept, ...fresh]
    const everybody = (count: number): Promise<unknown> => {
      const from = all.map(({ requests }) => requests)
      return eventually('everybody is served', () =>
        all.every(({ requests }, at) => requests >= (from[at] as number) + count),
      )
    }
    await everybody(2)
    for (let round = 0; round < ROTATIONS; round++) await rotate(round)
    await everybody(2)
    await Promise.all(all.map((client) => client.stop()))

    assert.deepEqual(
      all.flatMap(({ failures }) => failures),
      [],
    )
    for (const client of kept) assert.equal(client.sockets.size, 1)
    const closed = (await sidecar.metrics())
      .split('\n')
      .filter((line) => /^postern_connections_closed_total\{reason="(?!client)/.test(line))
    assert.ok(closed.length > 0)
    for (const line of closed) assert.match(line, / 0$/)
    const generation = await sidecar.metric('postern_snapshot_generation')
    assert.ok(generation > ROTATIONS, `only ${generation} generations`)
    const count = (clients: readonly SteadyClient[]): number =>
      clients.reduce((sum, { requests }) => sum + requests, 0)
    console.log(
      `${ROTATIONS} rotations, ${generation} generations, ${count(kept)} requests on ${KEPT_ALIVE} connections, ${count(fresh)} on as many`,
    )
  })
})
