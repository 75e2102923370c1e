// The kernel has no watch left to give. That is said once, and every change of a file is noticed all the
// same, by looking.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { inNamespaces } from '../support/privileges.ts'
import { startSidecar } from '../support/sidecar.ts'
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
        const own = await sidecar.authority.intermediate.issue({ dns: ['localhost'] })
        await writeFile(sidecar.files.privateKey, own.privateKeyPem)
        await writeFile(sidecar.files.certificate, own.chainPem)
        await eventually('it is in force', async () => {
          const { body } = await sidecar.admin('GET', '/snapshot')
          return JSON.parse(body).identity.serial === own.serial
        })
        await client.served(2)
      }
      assert.equal(sidecar.lines.filter(({ event }) => event === 'watch_degraded').length, 1)
      await client.unharmed()
    })
  }
})
