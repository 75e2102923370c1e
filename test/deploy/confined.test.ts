// What the image and the manifest promise, without a container engine: the sidecar runs as nobody, with
// every file system read-only, no capability and no way to get one, and still reloads and drains.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { call, serverCertificate, startSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const USER = '65532'
const UNPRIVILEGED = [
  ...['setpriv', `--reuid=${USER}`, `--regid=${USER}`, '--clear-groups', '--no-new-privs'],
  ...['--bounding-set=-all', '--inh-caps=-all', '--ambient-caps=-all'],
]
/** Its files are given to the user first; the mounts are those of this process only. */
const CONFINE = `
set -eu
eval "config=\\\${$#}"
chown -R ${USER}:${USER} "$(dirname "$config")"
while read -r _ _ _ _ target _; do
  mount -o remount,bind,ro "$target" 2>/dev/null || true
done < /proc/self/mountinfo
exec ${UNPRIVILEGED.join(' ')} "$@"
`
const LAUNCHER = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', CONFINE, 'confine']

/** Why it cannot be tried here. */
function obstacle(): string | undefined {
  if (process.platform !== 'linux') return 'needs Linux'
  if (process.getuid?.() !== 0) return 'needs root, to give up what root has'
  const [program = '', ...args] = [
    'unshare',
    '--mount',
    ...UNPRIVILEGED,
    process.execPath,
    '-e',
    '',
  ]
  const { status, error } = spawnSync(program, args, { encoding: 'utf8' })
  return status === 0
    ? undefined
    : `needs unshare and setpriv of util-linux, and a checkout that user ${USER} can read (${error?.message ?? status})`
}

const skip = obstacle() ?? false
if (skip) console.log(`not run: the confined sidecar ${skip}`)

describe('the sidecar with a read-only root, as nobody and without capabilities', { skip }, () => {
  const t = suiteCleanup()

  it('serves, reloads what is mounted, and drains', async () => {
    const workload = await startWorkload(t)
    const sidecar = await startSidecar(t, {
      forward: `http://127.0.0.1:${workload.port}`,
      launcher: LAUNCHER,
    })

    const status = readFileSync(`/proc/${sidecar.pid}/status`, 'utf8')
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
      assert.match(status, new RegExp(`^${set}:\\t0+$`, 'm'))
    }
    assert.match(status, /^NoNewPrivs:\t1$/m)
    assert.match(status, new RegExp(`^Uid:(\\t${USER}){4}$`, 'm'))
    const mounts = readFileSync(`/proc/${sidecar.pid}/mountinfo`, 'utf8').split('\n')
    const root = mounts.find((line) => line.split(' ')[4] === '/')
    assert.match(root?.split(' ')[5] ?? '', /^ro\b/)

    const client = await sidecar.authority.svid('web')
    assert.equal((await call(sidecar, client)).status, 200)

    const next = await sidecar.authority.svid('orders', { dns: ['localhost'] })
    await writeFile(sidecar.files.privateKey, next.privateKeyPem)
    await writeFile(sidecar.files.certificate, next.chainPem)
    await eventually('the new certificate is shown', async () => {
      const shown = await serverCertificate(sidecar, client)
      return next.chainPem.includes(shown.toString().trim()) || undefined
    })

    sidecar.signal('SIGTERM')
    assert.equal(await sidecar.exited, 0)
    assert.equal(sidecar.errors(), '')
  })
})
