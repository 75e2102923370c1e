// What a test of faults holds on to: a client that is served rightly all along, over HTTP/1.1 and
// HTTP/2, and a sidecar that afterwards is as it was before.
import assert from 'node:assert/strict'
import type { Cleanup } from './cleanup.ts'
import { eventually } from './eventually.ts'
import { get, openClient } from './http1.ts'
import { ask, openSession } from './http2.ts'
import type { IssuedCertificate } from './pki.ts'
import type { TestSidecar } from './sidecar.ts'

/** Paths that a workload answers with `calmAnswer`, whatever else it does. */
const CALM = '/calm/'

export const isCalm = (path: string): boolean => path.startsWith(CALM)
export const calmAnswer = (path: string): string => `nothing but ${path}`

export interface Bystander {
  /** Waits until it has had two more right answers over each protocol; fails when it got a wrong one. */
  served(): Promise<void>
  stop(): Promise<void>
}

/** A pause between two of its requests: it is to be served, not to be a load. */
const PAUSE_MS = 5

export async function startBystander(
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
): Promise<Bystander> {
  const client = await openClient(t, sidecar, certificate)
  const session = await openSession(t, sidecar, certificate)
  const right = { http1: 0, http2: 0 }
  let stopped = false
  let wrong: unknown
  const loop = async (protocol: keyof typeof right, ask: (path: string) => Promise<string>) => {
    try {
      while (!stopped) {
        const path = `${CALM}${protocol}/${right[protocol]}`
        assert.equal(await ask(path), `200 ${calmAnswer(path)}`)
        right[protocol]++
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
      }
    } catch (error) {
      wrong ??= error
    }
  }
  const loops = [
    loop('http1', async (path) => {
      client.send(get(path))
      const { status, body } = await client.answer()
      return `${status} ${body}`
    }),
    loop('http2', async (path) => {
      const { status, body } = await ask(session, { ':path': path })
      return `${status} ${body}`
    }),
  ]
  const check = (): void => {
    if (wrong !== undefined) throw wrong
  }
  return {
    served: async () => {
      const before = { ...right }
      await eventually('the bystander is served', () => {
        check()
        return right.http1 >= before.http1 + 2 && right.http2 >= before.http2 + 2
      })
    },
    stop: async () => {
      stopped = true
      await Promise.all(loops)
      client.socket.destroy()
      session.destroy()
      check()
    },
  }
}

/**
 * Once every client has gone: the process lives, no connection is left, to clients none and to the
 * workload at most `upstream`, and nothing that happened was a fault of ours.
 */
export async function assertUnharmed(
  sidecar: TestSidecar,
  { upstream }: { readonly upstream: number },
): Promise<void> {
  await eventually('no client connection is left', async () => {
    return (await sidecar.metric('postern_connections_open')) === 0
  })
  await eventually(`at most ${upstream} connections to the workload are left`, async () => {
    return (await sidecar.metric('postern_upstream_connections_open')) <= upstream
  })
  for (const kind of ['websocket', 'tcp']) {
    assert.equal(await sidecar.metric(`postern_tunnels_open{kind="${kind}"}`), 0)
  }
  assert.deepEqual(
    sidecar.lines.filter(({ event, code }) => event === 'fault' || code === 'internal'),
    [],
  )
  assert.equal(sidecar.errors(), '')
}

/** How often it ended in each code, since it was asked last. */
export async function codeCounter(sidecar: TestSidecar): Promise<() => Promise<Codes>> {
  const counts = async (): Promise<Codes> =>
    Object.fromEntries(
      Array.from((await sidecar.metrics()).matchAll(CODES), ([, code = '', count]) => [
        code,
        Number(count),
      ]),
    )
  let before = await counts()
  return async () => {
    const now = await counts()
    const grown = Object.entries(now)
      .map(([code, count]) => [code, count - (before[code] ?? 0)] as const)
      .filter(([, count]) => count !== 0)
    before = now
    return Object.fromEntries(grown)
  }
}

const CODES = /^postern_(?:requests_rejected|upstream_errors)_total\{code="(\w+)"\} (\d+)$/gm

export type Codes = Readonly<Record<string, number>>
