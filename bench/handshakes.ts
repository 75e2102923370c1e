// Handshakes by second of processor time, full and resumed, for each kind of key that server and
// client may have. Each is a connection with one small request; all proxies get the same.
import type { BenchOptions } from './bench.ts'
import { measured } from './contest.ts'
import type { Load } from './load.ts'
import { median } from './process.ts'
import { NGINX, type RunningProxy } from './proxies.ts'
import { type BarResult, type Row, tell, tellBars } from './report.ts'
import { requestHead, type Stage, setStage } from './stage.ts'

const KEY_TYPES = ['ec-p256', 'rsa-2048', 'ed25519'] as const
const KINDS = ['full', 'resumed'] as const
const NAMES = ['postern-allow', NGINX, 'haproxy', 'envoy-rbac']
/** Envoy's BoringSSL accepts no Ed25519 unless it is told to. */
const WITHOUT_ED25519 = ['envoy-rbac']
const LIMIT = 0.9
/** Handshakes of one turn, as a share of the requests that others have. */
const SHARE = 0.04

interface Measured {
  readonly name: string
  readonly proxy: RunningProxy
  readonly micros: Readonly<Record<(typeof KINDS)[number], number[]>>
}

export async function handshakeRates(
  { rounds, requests, telling, variants, note }: BenchOptions,
  _stage: Stage,
  load: Load,
): Promise<void> {
  const rows: Row[] = []
  const bars: BarResult[] = []
  for (const keyType of KEY_TYPES) {
    const stage = await setStage(keyType)
    const all: Measured[] = []
    try {
      const names = NAMES.filter((name) => keyType !== 'ed25519' || !WITHOUT_ED25519.includes(name))
      for (const variant of variants(names, NGINX)) {
        const proxy = await variant.start(stage, 'plain')
        all.push({ name: variant.name, proxy, micros: { full: [], resumed: [] } })
      }
      for (let round = rounds === 1 ? 1 : 0; round <= rounds; round++) {
        note(
          `handshakes, ${keyType}: ${round === 0 ? 'warming up' : `round ${round} of ${rounds}`}`,
        )
        for (const { name, proxy, micros } of all) {
          for (const kind of KINDS) {
            const count = Math.round(requests * SHARE)
            const asked = {
              port: proxy.port,
              count,
              resumed: kind === 'resumed',
              head: requestHead('100B'),
              ...stage.client,
            }
            const turn = await measured(proxy.pids, [load.pid], count, () =>
              load.handshakes(asked),
            ).catch((error: Error) => {
              throw new Error(`${name}, ${keyType}, ${kind}: ${error.message}`)
            })
            if (round > 0) micros[kind].push(turn.cpuMicrosPerRequest)
          }
        }
      }
      const measure = all.find(({ name }) => name === NGINX)
      for (const kind of KINDS) {
        for (const { name, micros } of all) {
          // Of rates: the other way round than of times.
          const toMeasure =
            measure && median(micros[kind].map((own, i) => measure.micros[kind][i]! / own))
          rows.push({
            variant: `${name}/${keyType}/${kind}`,
            'CPU us': Math.round(median(micros[kind])),
            'per CPU s': Math.round(1e6 / median(micros[kind])),
            'x nginx': toMeasure === undefined ? null : Number(toMeasure.toFixed(2)),
          })
          if (!name.startsWith('postern')) continue
          const what = `${name}/${keyType}/${kind}: handshakes by CPU second to ${NGINX}`
          bars.push({ what, value: toMeasure, limit: LIMIT, kind: 'at least' })
        }
      }
    } finally {
      for (const { proxy } of all) await proxy.end()
      await stage.end()
    }
  }
  tell('Handshakes, one after the other, each with one request', rows, telling)
  tellBars(bars, telling)
}
