// What is left of a proxy's capacity when it is asked for three times as much: answers that were wanted
// by second of processor time, refusals included, and how long they took. Capacity is what connections
// that ask one at a time can get out of it; then thousands press at once, as fast as they are answered,
// and at three times that rate.
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { BenchOptions } from './bench.ts'
import { measured, type Turn } from './contest.ts'
import type { Load, Pressed } from './load.ts'
import { cpuMicrosOf, median } from './process.ts'
import { posternVariant, SAMPLE } from './proxies.ts'
import { type Row, tell, tellBars } from './report.ts'
import { SCENARIOS } from './scenarios.ts'
import { REPOSITORY, requestHead, type Stage } from './stage.ts'

const SECONDS = 5
/** Until it is noticed that too much is asked for, and what came first is done. */
const SETTLING_SECONDS = 2
const TIMES = 3
const LIMIT = 0.9

interface Subject {
  readonly name: string
  readonly own: object
  readonly head: string
  /** That press. */
  readonly connections: number
}

/** A policy that takes long can be asked for three times its capacity by a generator on one processor. */
const DEAR = {
  policy: { bundle: join(REPOSITORY, 'test/policy/bundles/slow.tar.gz'), fuel: 100_000_000 },
  log: { decisions: 'denied' },
}
const OFF = { inbound: { overload: { eventLoopLag: '0' } } }
const DEAR_HEAD = requestHead('100B').replace('/api/orders/', '/slow/1000/')

const SUBJECTS: readonly Subject[] = [
  {
    name: 'postern-policy',
    own: SAMPLE,
    head: requestHead('100B'),
    connections: 1_000,
  },
  { name: 'postern-dear', own: DEAR, head: DEAR_HEAD, connections: 1_000 },
  { name: 'postern-dear-off', own: { ...DEAR, ...OFF }, head: DEAR_HEAD, connections: 1_000 },
]

const MODES = ['closed', 'open'] as const

interface Round {
  readonly capacity: Turn
  readonly pressed: Readonly<Record<(typeof MODES)[number], PressedTurn>>
}

/** With what the proxy used meanwhile. */
interface PressedTurn extends Pressed {
  readonly cpuMicros: number
}

export async function overload(
  { rounds, requests, telling, note }: BenchOptions,
  stage: Stage,
  load: Load,
): Promise<void> {
  const rows: Row[] = []
  const bars: Parameters<typeof tellBars>[0][number][] = []
  for (const subject of SUBJECTS) {
    const all: Round[] = []
    for (let round = 1; round <= rounds; round++) {
      note(`overload, ${subject.name}: round ${round} of ${rounds}`)
      all.push(await roundOf(subject, telling.quick ? 200 : requests, stage, load))
    }
    const middle = (of: (round: Round) => number): number => median(all.map(of))
    rows.push({
      variant: `${subject.name}, capacity`,
      'offered/s': null,
      'refused/s': null,
      'req/s': Math.round(middle(({ capacity }) => capacity.requestsPerSecond)),
      'CPU us/req': Math.round(middle(({ capacity }) => capacity.cpuMicrosPerRequest)),
      'of capacity': null,
      'p50 ms': Math.round(middle(({ capacity }) => capacity.p50Ms)),
      'p99 ms': Math.round(middle(({ capacity }) => capacity.p99Ms)),
      '503 p50 ms': null,
      'busy %': Math.round(middle(({ capacity }) => capacity.busy * 100)),
    })
    for (const mode of MODES) {
      const of = (what: (pressed: PressedTurn) => number): number =>
        middle(({ pressed }) => what(pressed[mode]))
      const rate = (count: (pressed: PressedTurn) => number): number =>
        Math.round(of((pressed) => (count(pressed) / pressed.elapsedMs) * 1_000))
      const goodput = middle(
        ({ pressed, capacity }) => capacity.cpuMicrosPerRequest / microsOf(pressed[mode]),
      )
      rows.push({
        variant: `${subject.name}, ${mode} loop`,
        'offered/s': rate(({ offered }) => offered),
        'refused/s': rate(({ refused }) => refused),
        'req/s': rate(({ answered }) => answered),
        'CPU us/req': Math.round(of(microsOf)),
        'of capacity': Number(goodput.toFixed(2)),
        'p50 ms': Math.round(of(({ p50Ms }) => p50Ms)),
        'p99 ms': Math.round(of(({ p99Ms }) => p99Ms)),
        '503 p50 ms': Math.round(of(({ refusedP50Ms }) => refusedP50Ms)),
        'busy %': Math.round(of(({ cpuMicros, elapsedMs }) => cpuMicros / elapsedMs / 10)),
      })
      if ('inbound' in subject.own) continue
      const what = `${subject.name}, ${mode} loop: answers under overload to capacity`
      bars.push({ what, value: goodput, limit: LIMIT, kind: 'at least' })
    }
  }
  tell(
    `Overload: ${TIMES} times what it can do, on thousands of connections; a GET, 100 bytes`,
    rows,
    telling,
  )
  tellBars(bars, telling)
}

/** What an answer that was wanted cost, with what the others did. */
const microsOf = ({ cpuMicros, answered }: PressedTurn): number => cpuMicros / answered

async function roundOf(
  { name, own, head, connections }: Subject,
  requests: number,
  stage: Stage,
  load: Load,
): Promise<Round> {
  const main = join(REPOSITORY, 'dist/main.js')
  const proxy = await posternVariant(name, main, own).start(stage, 'plain')
  const work = { kind: 'http1', head, bodyBytes: 0 } as const
  const open = (count: number): Promise<void> =>
    load.open({ port: proxy.port, connections: count, work, ...stage.client })
  try {
    const [pid = 0] = proxy.pids
    const press = async (rate?: number): Promise<PressedTurn> => {
      await open(connections)
      const before = setTimeout(SETTLING_SECONDS * 1_000).then(() => cpuMicrosOf(pid))
      const pressed = await load.press(SETTLING_SECONDS, SECONDS, rate)
      return { ...pressed, cpuMicros: cpuMicrosOf(pid) - (await before) }
    }
    await open(SCENARIOS.http1.connections)
    await load.drive(requests / 2)
    const measure = (): Promise<Turn> =>
      measured(proxy.pids, [load.pid], 2 * requests, () => load.drive(2 * requests))
    const before = await measure()
    await load.close()
    const closed = await press()
    const opened = await press(before.requestsPerSecond * TIMES)
    // Again, as the machine may be another by now; not before the overload is over.
    await setTimeout(SETTLING_SECONDS * 1_000)
    await open(SCENARIOS.http1.connections)
    const after = await measure()
    await load.close()
    const cpuMicrosPerRequest = (before.cpuMicrosPerRequest + after.cpuMicrosPerRequest) / 2
    return { capacity: { ...before, cpuMicrosPerRequest }, pressed: { closed, open: opened } }
  } finally {
    await proxy.end()
  }
}
