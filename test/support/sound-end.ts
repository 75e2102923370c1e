// What every sidecar of a test leaves behind, whatever the test did to it: no crash, no fault of its own,
// no connection that it still counts and nobody has, and nothing at the workload without a permit.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { eventually } from './eventually.ts'
import type { SidecarSetup, TestSidecar } from './sidecar.ts'
import { requestsSeenAt } from './workload.ts'

/** Called at the end of the test, before the process is killed; it may have ended already. */
export async function assertSoundEnd(sidecar: TestSidecar, setup: SidecarSetup): Promise<void> {
  const faults = sidecar.lines.filter(
    ({ event, code, reason }) =>
      event === 'fault' ||
      event === 'fatal' ||
      code === 'internal' ||
      (event === 'data_thread_restart' && reason === 'exited' && !setup.threadsDie),
  )
  assert.deepEqual(faults, [], 'a fault of Postern')
  assert.doesNotMatch(sidecar.errors(), /\n\s+at /, 'a stack trace on standard error')
  const exit = await Promise.race([sidecar.exited.then((code) => ({ code })), undefined])
  if (exit !== undefined && !sidecar.wasSignalled()) {
    assert.fail(`it ended by itself with ${exit.code}: ${sidecar.errors()}`)
  }
  if (exit !== undefined || sidecar.wasSignalled() || sidecar.metricsPort === 0) return
  if (process.platform === 'linux' && sidecar.port !== 0) {
    await eventually('every connection that is counted is one', async () => {
      const counted = await sidecar.metric('postern_connections_open')
      return counted <= (await connectionsAt(sidecar.port))
    })
  }
  const metrics = await sidecar.metrics()
  const permits = sumOf(metrics, /^postern_decisions_total\{outcome="allow".*\} (\d+)$/gm)
  const admitted = sumOf(metrics, /^postern_requests_total\{.*outcome="allow".*\} (\d+)$/gm)
  assert.ok(admitted <= permits, `${admitted} requests were admitted by ${permits} permits`)
  const seen = SIDECARS_OF.get(setup.forward) === 1 ? requestsSeenAt(setup.forward) : undefined
  // A probe of the kubelet has no permit, and no test of permits has a probe.
  if (seen === undefined || setup.config?.['probes'] !== undefined) return
  assert.ok(seen <= permits, `${seen} requests came to the workload by ${permits} permits`)
}

/** To be told of each sidecar: where several share a workload, nobody knows whose a request was. */
export function startedFor(forward: string): void {
  SIDECARS_OF.set(forward, (SIDECARS_OF.get(forward) ?? 0) + 1)
}

const SIDECARS_OF = new Map<string, number>()

/** Connections at a port, as the kernel knows them; a client that has ended its side may still read. */
async function connectionsAt(port: number): Promise<number> {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const lines = (await readFile('/proc/net/tcp', 'utf8')).split('\n').slice(1)
  return lines.filter((line) => {
    const [, address = '', , state] = line.trim().split(/\s+/)
    return address.endsWith(local) && !OVER.has(state ?? '')
  }).length
}

/** TIME_WAIT, CLOSE and LISTEN. */
const OVER: ReadonlySet<string> = new Set(['06', '07', '0A'])

const sumOf = (metrics: string, series: RegExp): number =>
  [...metrics.matchAll(series)].reduce((total, [, value]) => total + Number(value), 0)
