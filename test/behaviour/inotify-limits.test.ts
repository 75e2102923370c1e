// The kernel has no watch left to give. That is said once, and every change of a file is noticed all the
// same, by looking.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { rename, writeFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { inNamespaces } from '../support/privileges.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { SteadyClient } from '../support/steady-client.ts'
import { startWorkload } from '../support/workload.ts'

describe('a sidecar that cannot watch files', () => {
  const t = suiteCleanup()
  for (const limit of ['max_inotify_instances', 'max_inotify_watches']) {
    const launcher = inNamespaces(`echo 0 >/proc/sys/user/${limit}`)
    const skip = launcher === undefined && 'no namespaces of its own here'
    it(`because of ${limit} says so once, and rotates`, { skip }, async () => {
      const sidecar = await startSidecar(t, {
        forward: (await startWorkload(t)).url,
        config: { log: { decisions: 'off' } },
        ...(launcher && { launcher }),
      })
      const client = new SteadyClient(t, sidecar, await sidecar.authority.svid('web'), {
        pauseMs: 1,
      })
      const line = await sidecar.logged('watch_degraded')
      assert.equal(line.level, 'warn')
      assert.match(String(line['detail']), /EMFILE|ENOSPC/)
      for (let rotation = 0; rotation < 3; rotation++) {
        await rotate(sidecar)
        await client.served(2)
      }
      assert.equal(degradations(sidecar), 1)
      await client.unharmed()
    })
  }

  const launcher = inNamespaces('true')
  const skip = launcher === undefined && 'no namespaces of its own here'
  it('any more says so once, and rotates', { skip }, async () => {
    const sidecar = await startSidecar(t, {
      forward: (await startWorkload(t)).url,
      ...(launcher && { launcher }),
    })
    await rotate(sidecar)
    assert.equal(degradations(sidecar), 0)
    const inside = ['-t', `${sidecar.pid}`, '-U', '-m', '--preserve-credentials', 'sh', '-c']
    const limited = spawnSync('nsenter', [...inside, 'echo 0 >/proc/sys/user/max_inotify_watches'])
    assert.equal(limited.status, 0, String(limited.stderr))
    // The watch that it has dies with the directory, and there is no other.
    await rename(sidecar.directory, `${sidecar.directory}.away`)
    await sidecar.logged('reload', { identity: 'failed' })
    await rename(`${sidecar.directory}.away`, sidecar.directory)
    for (let rotation = 0; rotation < 3; rotation++) await rotate(sidecar)
    await sidecar.logged('watch_degraded')
    assert.equal(degradations(sidecar), 1)
  })
})

async function rotate(sidecar: TestSidecar): Promise<void> {
  const own = await sidecar.authority.intermediate.issue({ dns: ['localhost'] })
  await writeFile(sidecar.files.privateKey, own.privateKeyPem)
  await writeFile(sidecar.files.certificate, own.chainPem)
  await eventually('it is in force', async () => {
    const { body } = await sidecar.admin('GET', '/snapshot')
    return JSON.parse(body).identity.serial === own.serial
  })
}

const degradations = ({ lines }: TestSidecar): number =>
  lines.filter(({ event }) => event === 'watch_degraded').length
