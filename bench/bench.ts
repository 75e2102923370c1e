// `npm run bench`: what Postern costs, next to nginx, haproxy, Envoy, http-proxy and bare pipes in the
// same run, scenario by scenario, and whether it reaches the bars that are set.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { contest } from './contest.ts'
import { handshakeRates } from './handshakes.ts'
import { latencyAtHalfLoad } from './latency.ts'
import { Load } from './load.ts'
import { overload } from './overload.ts'
import {
  comparedMain,
  L4_PEERS,
  missingPrograms,
  PEERS,
  type ProxyVariant,
  posternVariants,
} from './proxies.ts'
import { machine, type Telling, tellContest } from './report.ts'
import { SCENARIOS, type Scenario } from './scenarios.ts'
import { REPOSITORY, type Stage, setStage } from './stage.ts'
import { threadScaling } from './threads.ts'

export interface BenchOptions {
  readonly rounds: number
  /** Of one turn. */
  readonly requests: number
  readonly telling: Telling
  /** Variants by name, those that are missing left out with a note. */
  readonly variants: (names: readonly string[], measure: string) => ProxyVariant[]
  readonly note: (text: string) => void
}

/** Scenarios of another shape than processor time by request. */
const OTHERS = {
  latency: latencyAtHalfLoad,
  threads: threadScaling,
  handshakes: handshakeRates,
  overload,
} as const satisfies Record<
  string,
  (options: BenchOptions, stage: Stage, load: Load) => Promise<void>
>

const NAMES = [...Object.keys(SCENARIOS), ...Object.keys(OTHERS)]

const HELP = `Usage: npm run bench -- [options] [SCENARIO...]

Scenarios: ${NAMES.join(' ')}; all of them without any

  --rounds N       how often each variant has its turn (default 3; one more comes first, uncounted)
  --requests N     requests of one turn (default 10000; fewer where they are large)
  --only NAMES     variants, separated by commas; the one that is the measure stays
  --compare DIR    a second tree with a dist/, whose Postern takes part as NAME@compare
  --quick          one round of 500 requests: shows that everything runs, measures nothing
  --json           one line of JSON for each row
  --skip-build     use dist/ as it is

Peers take part when they are on PATH: nginx, haproxy (apt-get install nginx haproxy), envoy, opa.`

const CAUTION = `
The load generator is bench/generator/ (wrk and h2load cannot present a client certificate), on a
processor of its own with the workload. A proxy that was not busy all the time was waiting, for the
generator or for a turn on a shared machine: its requests per second and latency are not its own, and
a request costs it more than at saturation, because it reads smaller batches and sleeps in between.
Where that is the measure, the ratios to it flatter the others.`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '3' },
    requests: { type: 'string', default: '10000' },
    only: { type: 'string' },
    compare: { type: 'string' },
    quick: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    'skip-build': { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

if (values.help) console.log(HELP)
else await bench()

async function bench(): Promise<void> {
  const unknown = positionals.find((name) => !NAMES.includes(name))
  if (unknown !== undefined) throw new Error(`${unknown} is none of ${NAMES.join(', ')}`)
  const options: BenchOptions = {
    rounds: values.quick ? 1 : wholeNumber('rounds', values.rounds),
    requests: values.quick ? 500 : wholeNumber('requests', values.requests),
    telling: { json: values.json, quick: values.quick },
    variants: chooser(),
    note: (text) => void process.stderr.write(`bench: ${text}\n`),
  }
  if (!values['skip-build']) build(options)
  const stage = await setStage()
  const load = new Load()
  if (!options.telling.json) console.log(preamble(options))
  try {
    for (const name of positionals.length === 0 ? NAMES : positionals) {
      const beganMs = performance.now()
      const perRequest: Scenario | undefined = SCENARIOS[name as keyof typeof SCENARIOS]
      if (perRequest === undefined) {
        await OTHERS[name as keyof typeof OTHERS](options, stage, load)
      } else await runContest(name, perRequest, options, stage, load)
      options.note(`${name} took ${((performance.now() - beganMs) / 1000).toFixed(0)} s`)
    }
    if (!options.telling.json) console.log(CAUTION)
  } finally {
    await load.end()
    await stage.end()
  }
}

async function runContest(
  name: string,
  scenario: Scenario,
  options: BenchOptions,
  stage: Stage,
  load: Load,
): Promise<void> {
  const { rounds, requests, telling } = options
  const variants = options.variants(scenario.variants, scenario.measure)
  const note = (text: string): void => options.note(`${name}: ${text}`)
  await contest({ scenario, variants, rounds, requests, note }, stage, load, (contenders) =>
    tellContest(scenario, contenders, telling),
  )
}

function chooser(): BenchOptions['variants'] {
  const all = [
    ...posternVariants(join(REPOSITORY, 'dist/main.js')),
    ...(values.compare === undefined
      ? []
      : posternVariants(comparedMain(values.compare), '@compare')),
    ...PEERS,
    ...L4_PEERS,
  ]
  const only = values.only?.split(',')
  const unknown = only?.find((name) => !all.some((variant) => variant.name === name))
  if (unknown !== undefined) {
    throw new Error(`${unknown} is none of ${all.map(({ name }) => name).join(', ')}`)
  }
  const missed = new Set<string>()
  return (names, measure) =>
    all.filter((variant) => {
      const { name } = variant
      const isCompared = name.endsWith('@compare')
      if (!names.includes(isCompared ? name.slice(0, -'@compare'.length) : name)) return false
      if (only !== undefined && name !== measure && !only.includes(name)) return false
      const missing = missingPrograms(variant)
      if (missing.length > 0 && !missed.has(name)) {
        missed.add(name)
        process.stderr.write(`bench: ${name} takes no part: ${missing.join(', ')} not on PATH\n`)
      }
      return missing.length === 0
    })
}

function build({ note }: BenchOptions): void {
  note('npm run build')
  const { status } = spawnSync('npm', ['run', '-s', 'build'], {
    cwd: REPOSITORY,
    stdio: ['ignore', 2, 2],
  })
  if (status !== 0) throw new Error('the build failed')
}

function preamble({ rounds, requests }: BenchOptions): string {
  return `${machine()}
TLS 1.3 with client certificates (ECDSA P-256), keep-alive; every proxy on one processor, with one
thread. ${rounds} rounds of ${requests} requests, medians. CPU is user and system time of the whole proxy process,
from /proc, and of OPA where it decides. x: median of the rounds' ratios.`
}

function wholeNumber(name: string, text: string): number {
  const number = Number(text)
  if (!Number.isInteger(number) || number < 1) throw new Error(`--${name} wants a whole number`)
  return number
}
