// `npm run bench`: what a request costs, next to nginx, haproxy and http-proxy in the same run. The
// variants take turns in every round, so that a busy machine is busy for all of them, and the figure
// that counts is the median of the rounds' ratios to nginx.
import { spawnSync } from 'node:child_process'
import os from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Load } from './load.ts'
import { cpuMicrosOf, median, rssBytesOf } from './process.ts'
import {
  isThere,
  NGINX,
  PEERS,
  type ProxyVariant,
  posternVariants,
  type RunningProxy,
} from './proxies.ts'
import {
  ANSWER_SIZES,
  type AnswerSize,
  REPOSITORY,
  requestHead,
  type Stage,
  setStage,
} from './stage.ts'

const HELP = `Usage: npm run bench -- [options]

  --rounds N      how often each variant has its turn (default 5; one more comes first, uncounted)
  --requests N    requests of one turn (default 20000)
  --only NAMES    variants, separated by commas; ${NGINX} is the measure and stays if it is installed
  --compare DIR   a second tree with a dist/, whose Postern takes part as NAME@compare
  --quick         one round of 2000 requests: shows that everything runs, measures nothing
  --json          one line of JSON for each variant and answer size
  --skip-build    use dist/ as it is

nginx and haproxy take part when they are installed: apt-get install nginx haproxy`

const CONNECTIONS = 64
const MEBIBYTE = 1024 * 1024

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    requests: { type: 'string', default: '20000' },
    only: { type: 'string' },
    compare: { type: 'string' },
    quick: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    'skip-build': { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

interface Turn {
  readonly cpuMicrosPerRequest: number
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly rssMiB: number
  /** Processor time of the proxy by time that passed: near 1, it was saturated. */
  readonly busy: number
  /** What generator and workload used, by request. */
  readonly loadMicrosPerRequest: number
}

interface Contender {
  readonly variant: ProxyVariant
  readonly proxy: RunningProxy
  readonly turns: ReadonlyMap<AnswerSize, Turn[]>
}

if (options.help) console.log(HELP)
else await bench()

async function bench(): Promise<void> {
  const rounds = options.quick ? 1 : wholeNumber('rounds', options.rounds)
  const requests = options.quick ? 2000 : wholeNumber('requests', options.requests)
  const variants = chosenVariants()
  if (!options['skip-build']) build()
  const stage = await setStage()
  const load = new Load()
  const contenders: Contender[] = []
  try {
    for (const variant of variants) {
      const turns = new Map(ANSWER_SIZES.map((size) => [size, []]))
      contenders.push({ variant, proxy: await variant.start(stage), turns })
    }
    for (let round = options.quick ? 1 : 0; round <= rounds; round++) {
      note(round === 0 ? 'warming up' : `round ${round} of ${rounds}`)
      for (const contender of contenders) await takeTurns(contender, round, requests, load, stage)
    }
    if (options.json) printLines(contenders)
    else await printTable(contenders, rounds, requests)
  } finally {
    for (const { proxy } of contenders) await proxy.end()
    await load.end()
    await stage.end()
  }
}

function chosenVariants(): ProxyVariant[] {
  const all = [
    ...posternVariants(join(REPOSITORY, 'dist/main.js')),
    ...(options.compare === undefined
      ? []
      : posternVariants(join(options.compare, 'dist/main.js'), '@compare')),
    ...PEERS,
  ]
  const only = options.only?.split(',')
  const unknown = only?.find((name) => !all.some((variant) => variant.name === name))
  if (unknown !== undefined) {
    throw new Error(`${unknown} is none of ${all.map(({ name }) => name).join(', ')}`)
  }
  const wanted = all.filter(({ name }) => only?.includes(name) ?? true)
  const measure = all.filter(({ name }) => name === NGINX)
  return [...new Set([...wanted, ...measure])].filter((variant) => {
    if (isThere(variant)) return true
    note(
      `${variant.program} is not installed and takes no part: apt-get install ${variant.program}`,
    )
    return false
  })
}

function build(): void {
  note('npm run build')
  const { status } = spawnSync('npm', ['run', '-s', 'build'], {
    cwd: REPOSITORY,
    stdio: ['ignore', 2, 2],
  })
  if (status !== 0) throw new Error('the build failed')
}

async function takeTurns(
  { variant, proxy, turns }: Contender,
  round: number,
  requests: number,
  load: Load,
  stage: Stage,
): Promise<void> {
  try {
    await load.open({ port: proxy.port, connections: CONNECTIONS, ...stage.client })
    for (const size of ANSWER_SIZES) {
      const head = requestHead(size)
      // The first answers of a connection set up what the rest use.
      await load.drive(head, CONNECTIONS * 4)
      const turn = await measured(proxy.pid, [load.pid, stage.workload.pid], requests, () =>
        load.drive(head, requests),
      )
      if (round > 0) turns.get(size)?.push(turn)
    }
    await load.close()
  } catch (error) {
    throw new Error(`${variant.name}: ${(error as Error).message}`)
  }
}

async function measured(
  proxy: number,
  loaders: readonly number[],
  requests: number,
  drive: () => ReturnType<Load['drive']>,
): Promise<Turn> {
  const loadMicros = (): number => loaders.reduce((sum, pid) => sum + cpuMicrosOf(pid), 0)
  const before = { proxy: cpuMicrosOf(proxy), load: loadMicros() }
  const { elapsedMs, p50Ms, p99Ms } = await drive()
  const usedMicros = cpuMicrosOf(proxy) - before.proxy
  return {
    cpuMicrosPerRequest: usedMicros / requests,
    requestsPerSecond: (requests / elapsedMs) * 1000,
    p50Ms,
    p99Ms,
    rssMiB: rssBytesOf(proxy) / MEBIBYTE,
    busy: usedMicros / 1000 / elapsedMs,
    loadMicrosPerRequest: (loadMicros() - before.load) / requests,
  }
}

interface Summary {
  readonly variant: string
  readonly cpuMicrosPerRequest: number
  readonly ratioToNginx: number | null
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly rssMiB: number
}

function summaries(contenders: readonly Contender[]): Summary[] {
  const measure = contenders.find(({ variant }) => variant.name === NGINX)
  return ANSWER_SIZES.flatMap((size) =>
    contenders.map(({ variant, turns }) => {
      const own = turns.get(size) ?? []
      const ratios = measure?.turns
        .get(size)
        ?.map((nginx, i) => (own[i]?.cpuMicrosPerRequest ?? 0) / nginx.cpuMicrosPerRequest)
      const middle = (of: (turn: Turn) => number, digits: number): number =>
        Number(median(own.map(of)).toFixed(digits))
      return {
        variant: `${variant.name}/${size}`,
        cpuMicrosPerRequest: middle((turn) => turn.cpuMicrosPerRequest, 1),
        ratioToNginx: ratios === undefined ? null : Number(median(ratios).toFixed(2)),
        requestsPerSecond: middle((turn) => turn.requestsPerSecond, 0),
        p50Ms: middle((turn) => turn.p50Ms, 2),
        p99Ms: middle((turn) => turn.p99Ms, 2),
        rssMiB: middle((turn) => turn.rssMiB, 1),
      }
    }),
  )
}

function printLines(contenders: readonly Contender[]): void {
  for (const summary of summaries(contenders)) console.log(JSON.stringify(summary))
}

async function printTable(
  contenders: readonly Contender[],
  rounds: number,
  requests: number,
): Promise<void> {
  const [processor] = os.cpus()
  console.log(`
${processor?.model ?? 'unknown processor'}, ${os.availableParallelism()} processors, Node ${process.versions.node}
TLS 1.3 with client certificates (ECDSA P-256), keep-alive, ${CONNECTIONS} connections, one request at a time
on each; a GET of ${requestHead('100B').length} bytes. ${rounds} rounds of ${requests} requests, medians.
CPU is user and system time of the whole proxy process, from /proc. x nginx: median of the rounds.
`)
  console.log(row(['variant', 'CPU us/req', 'x nginx', 'req/s', 'p50 ms', 'p99 ms', 'RSS MiB']))
  for (const one of summaries(contenders)) {
    console.log(
      row([
        one.variant,
        one.cpuMicrosPerRequest.toFixed(1),
        one.ratioToNginx?.toFixed(2) ?? '-',
        one.requestsPerSecond.toFixed(0),
        one.p50Ms.toFixed(2),
        one.p99Ms.toFixed(2),
        one.rssMiB.toFixed(1),
      ]),
    )
  }
  console.log('')
  for (const { variant, turns, proxy } of contenders) {
    const all = [...turns.values()].flat()
    const busy = Math.round(median(all.map((turn) => turn.busy)) * 100)
    const ceiling = Math.round(1e6 / median(all.map((turn) => turn.loadMicrosPerRequest)))
    const lost = await proxy.lostRecords()
    console.log(
      `${variant.name}: its processor was ${busy} % busy; generator and workload on one processor could do ${ceiling} req/s${lost === 0 ? '' : `; ${lost} log records dropped`}`,
    )
  }
  console.log(`
The load generator is bench/generator.ts (wrk and h2load cannot present a client certificate), on a
processor of its own with the workload. It offers a fixed number of requests. A proxy whose processor
was not busy all the time was waiting, for the generator or for a turn on a shared machine: its
requests per second and latency are not its own, and a request costs it more than at saturation,
because it reads smaller batches and sleeps in between. Where that is nginx, the ratios to it flatter
the others.`)
}

function row(cells: readonly string[]): string {
  const [first = '', ...rest] = cells
  return first.padEnd(36) + rest.map((cell) => cell.padStart(11)).join('')
}

function wholeNumber(name: string, text: string): number {
  const number = Number(text)
  if (!Number.isInteger(number) || number < 1) throw new Error(`--${name} wants a whole number`)
  return number
}

function note(text: string): void {
  process.stderr.write(`bench: ${text}\n`)
}
