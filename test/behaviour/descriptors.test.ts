// Descriptors run out, again and again: clients beyond the limit are let go at once, whoever is
// connected is served, nothing spins, and as soon as there is room everybody is served as before.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import net from 'node:net'
import { before, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { cpuSecondsOf, descriptorsOf } from '../support/process-state.ts'
import { call, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { SteadyClient } from '../support/steady-client.ts'
import { startWorkload } from '../support/workload.ts'

const DESCRIPTORS = 128
const CLIENTS = 400
const OTHERS = '127.0.0.2'
const SPIN_WINDOW_MS = 1_000

describe('a process that has no descriptor left', { skip: process.platform !== 'linux' }, () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let bystander: SteadyClient
  let baseline = 0

  before(async () => {
    sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      launcher: ['prlimit', `--nofile=${DESCRIPTORS}:${DESCRIPTORS}`],
      config: { log: { decisions: 'off' } },
    })
    web = await sidecar.authority.svid('web')
    bystander = new SteadyClient(t, sidecar, web, { pauseMs: 1 })
    await bystander.served()
    // A connection for admin and metrics, as a scraper keeps it.
    await sidecar.metrics()
    await sidecar.admin('GET', '/snapshot')
    baseline = await descriptorsOf(sidecar.pid)
  })

  /** Clients that say nothing; some are let go at once. */
  async function exhaust(): Promise<{ sockets: net.Socket[]; closed: () => number }> {
    let closed = 0
    const sockets = Array.from({ length: CLIENTS }, () => {
      const socket = net.connect({ host: '127.0.0.1', port: sidecar.port, localAddress: OTHERS })
      t.after(() => socket.destroy())
      socket.on('error', () => {}).resume()
      socket.once('close', () => closed++)
      return socket
    })
    await Promise.all(sockets.map((socket) => once(socket, 'connect').catch(() => {})))
    await eventually('there is none left', async () => {
      return (await descriptorsOf(sidecar.pid)) >= DESCRIPTORS
    })
    return { sockets, closed: () => closed }
  }

  for (const time of ['first', 'second', 'third']) {
    it(`serves whoever is connected, and all others when there is room again: the ${time} time`, async () => {
      const { sockets, closed } = await exhaust()
      await eventually('those beyond the limit are let go', () => closed() >= CLIENTS - DESCRIPTORS)
      await bystander.served(50)
      assert.match(await sidecar.metrics(), /^process_open_fds /m)
      assert.equal((await sidecar.admin('GET', '/snapshot')).status, 200)
      for (const socket of sockets) socket.destroy()
      await eventually('a new client is served', async () => {
        return (await call(sidecar, web).catch(() => undefined))?.status === 200
      })
      await eventually('no descriptor is left behind', async () => {
        return (await descriptorsOf(sidecar.pid)) <= baseline + 2
      })
    })
  }

  it('does not spin while it lasts', async () => {
    await bystander.unharmed()
    const { sockets } = await exhaust()
    const spentBefore = await cpuSecondsOf(sidecar.pid)
    // A window to look at; a thread that spins would fill it.
    await delay(SPIN_WINDOW_MS)
    const share = ((await cpuSecondsOf(sidecar.pid)) - spentBefore) / (SPIN_WINDOW_MS / 1_000)
    assert.ok(share < 0.5, `${share} of a processor`)
    for (const socket of sockets) socket.destroy()
  })

  it('cannot read what has changed, says so, and reads it when there is room', async () => {
    const { sockets } = await exhaust()
    const own = await sidecar.authority.intermediate.issue({ dns: ['localhost'] })
    await writeFile(sidecar.files.privateKey, own.privateKeyPem)
    await writeFile(sidecar.files.certificate, own.chainPem)
    await sidecar.logged('reload', { result: 'failed', identity: 'failed' })
    for (const socket of sockets) socket.destroy()
    await eventually('it is in force', async () => {
      const { body } = await sidecar.admin('GET', '/snapshot')
      return JSON.parse(body).identity.serial === own.serial
    })
    assert.equal((await call(sidecar, web)).status, 200)
  })
})
