// `npm run bench:policy`: what a decision costs, beside the npm package of OPA and `opa bench` in the
// same run, on the same policies and inputs; and what a swap of policies costs. The contenders take
// turns in every round, so that a busy machine is busy for all of them.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { unpackArchive } from '../../src/policy/bundle.ts'
import { PolicyEngine } from '../../src/policy/engine.ts'
import { PolicyHost } from '../../src/policy/host.ts'
import { buildInput, type PolicyRequest } from '../../src/policy/input.ts'
import { loadPolicy } from '../../src/policy/load.ts'
import type { PolicyMaterial } from '../../src/policy/material.ts'
import { projectionOf, wholeDocument } from '../../src/policy/projection.ts'
import { findOpa, run } from '../../tools/opa.ts'
import { type BenchPolicy, CONNECTIONS, LARGE_DATA, POLICIES, RBAC_POLICY } from './policies.ts'
import type { Swap, SwapTask } from './swap.ts'

const HELP = `Usage: npm run bench:policy -- [options]

  --rounds N   how often each contender has its turn (default 12; one more comes first, uncounted)
  --calls N    decisions of one turn (default 500)
  --only NAMES policies, separated by commas
  --no-opa     leave out \`opa bench\`, which takes most of the time
  --quick      two short rounds: shows that everything runs, measures nothing`

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '12' },
    calls: { type: 'string', default: '500' },
    only: { type: 'string' },
    'no-opa': { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

interface NpmPolicy {
  setData(data: unknown): void
  evaluate(input: unknown, entrypoint: number): unknown
}
const { loadPolicySync } = createRequire(import.meta.url)('@open-policy-agent/opa-wasm') as {
  loadPolicySync(wasm: Buffer): NpmPolicy
}

const QUERY = 'data.envoy.authz.allow'
const NPM = 'npm evaluate'
const ENTRYPOINT = 'envoy/authz/allow'
const MEMORY_BYTES = 1024 * 1024 * 1024

interface Built {
  readonly directory: string
  readonly wasm: Buffer
  readonly material: PolicyMaterial
}

if (options.help) console.log(HELP)
else await bench()

async function bench(): Promise<void> {
  const rounds = options.quick ? 1 : Number(options.rounds)
  const calls = options.quick ? 50 : Number(options.calls)
  const names = options.only?.split(',')
  const chosen = POLICIES.filter(({ name }) => names === undefined || names.includes(name))
  const opa = findOpa()
  const directory = mkdtempSync(join(tmpdir(), 'postern-bench-'))
  try {
    console.log(row(['policy', 'contender', 'p50 us', 'p99 us', 'p50 x npm', 'p99 x npm']))
    console.log(row(['---', '---', '---:', '---:', '---:', '---:']))
    for (const [at, policy] of chosen.entries()) {
      const built = await build(opa, join(directory, String(at)), policy)
      report(policy, measure(policy, built, rounds, calls))
      if (!options['no-opa'] && !options.quick) reportOpa(policy, opa, built)
    }
    await reportSwaps(opa, directory)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

async function build(
  opa: string,
  directory: string,
  { rego, data }: Pick<BenchPolicy, 'rego' | 'data'>,
): Promise<Built> {
  mkdirSync(directory)
  writeFileSync(join(directory, 'policy.rego'), rego)
  writeFileSync(join(directory, 'data.json'), JSON.stringify(data))
  const bundle = `${directory}.tar.gz`
  run(opa, ['build', '-t', 'wasm', '-e', ENTRYPOINT, '--bundle', directory, '-o', bundle])
  const unpacked = await unpackArchive(readFileSync(bundle), bundle)
  if (unpacked.kind === 'problems') throw new Error(JSON.stringify(unpacked.problems))
  const { entries } = unpacked
  const loaded = await loadPolicy(
    { file: bundle, entries, digest: '' },
    { entrypoint: ENTRYPOINT, fuel: undefined, memoryBytes: MEMORY_BYTES },
  )
  if (loaded.kind === 'problems') throw new Error(JSON.stringify(loaded.problems))
  const wasm = entries.get('policy.wasm') as Buffer
  return { directory, wasm, material: loaded.material }
}

type Times = ReadonlyMap<string, number[]>

function measure(
  { request, data }: BenchPolicy,
  { wasm, material }: Built,
  rounds: number,
  calls: number,
): Times {
  const npm = loadPolicySync(wasm)
  npm.setData(data)
  const text = buildInput(request)
  const document = JSON.parse(text)
  const host = new PolicyHost(material)
  const engine = new PolicyEngine({
    allow: [],
    policy: material,
    clock: { nowMs: () => request.timeMs },
  })
  const projection = projectionOf(material.reads)
  const whole = wholeDocument()
  const asked = requestsLike(request)
  const decide = ({ templateOf }: typeof whole, one: PolicyRequest) => {
    if (!host.write(templateOf(one.connection), one)) throw new Error('not as values')
    return host.evaluateWritten(one.timeMs)
  }
  const contenders = new Map<string, () => unknown>([
    [NPM, () => npm.evaluate(document, material.entrypointId)],
    ['full input', () => decide(whole, asked())],
    ['full input as text', () => host.evaluate(buildInput(asked()), request.timeMs)],
    ['  of which evaluation', () => host.evaluate(text, request.timeMs)],
    ['projected', () => decide(projection ?? whole, asked())],
    ['memoised', () => engine.decide(request)],
  ])
  const times = new Map([...contenders.keys()].map((name) => [name, [] as number[]]))
  for (let round = 0; round <= rounds; round++) {
    for (const [name, decide] of contenders) {
      const own = times.get(name) as number[]
      for (let i = 0; i < calls; i++) {
        const start = performance.now()
        decide()
        const took = performance.now() - start
        if (round > 0) own.push(took * 1000)
      }
    }
  }
  return times
}

/** They come by turns on connections of which each has another port. */
function requestsLike(request: PolicyRequest): () => PolicyRequest {
  const all = CONNECTIONS.map((connection) => ({ ...request, connection }))
  let next = 0
  return () => all[next++ % all.length] as PolicyRequest
}

function report({ name }: BenchPolicy, times: Times): void {
  const sorted = [...times].map(([who, own]) => [who, own.toSorted((a, b) => a - b)] as const)
  const [, npm = []] = sorted[0] ?? []
  for (const [who, own] of sorted) {
    const [p50, p99] = [at(own, 0.5), at(own, 0.99)]
    const ratios = [p50 / at(npm, 0.5), p99 / at(npm, 0.99)].map((ratio) => ratio.toFixed(3))
    console.log(row([name, who, p50.toFixed(2), p99.toFixed(2), ...ratios]))
  }
}

function reportOpa({ name, request }: BenchPolicy, opa: string, { directory }: Built): void {
  const input = `${directory}.json`
  writeFileSync(input, buildInput(request))
  const { stdout } = spawnSync(
    opa,
    ['bench', '--bundle', directory, '-i', input, '--format', 'json', QUERY],
    { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
  )
  const { N, T } = JSON.parse(stdout) as { N: number; T: number }
  console.log(row([name, 'opa bench (mean)', (T / N / 1000).toFixed(2), '', '', '']))
}

async function reportSwaps(opa: string, directory: string): Promise<void> {
  const rules = POLICIES.find(({ name }) => name === '1,001 rules') as BenchPolicy
  const large = { ...rules, name: '20 MB data', rego: RBAC_POLICY, data: LARGE_DATA }
  console.log(
    `\n${row(['swap', 'data MB', 'load ms', 'memory MB', 'slices', 'longest ms', 'last ms', 'first us', 'warm us', 'first x warm'])}`,
  )
  console.log(row(['---', ...Array(9).fill('---:')]))
  for (const policy of options.quick ? [rules] : [rules, large]) {
    const start = performance.now()
    const { material } = await build(opa, join(directory, `swap ${policy.name}`), policy)
    const loadMs = performance.now() - start
    const swap = await swapped({ material, input: buildInput(policy.request) })
    const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1)
    console.log(
      row([
        policy.name,
        megabytes(JSON.stringify(policy.data).length),
        loadMs.toFixed(0),
        megabytes(material.data.bytes.byteLength),
        String(swap.slices),
        swap.longestSliceMs.toFixed(2),
        swap.lastSliceMs.toFixed(2),
        (swap.firstMs * 1000).toFixed(0),
        (swap.warmMs * 1000).toFixed(0),
        (swap.firstMs / swap.warmMs).toFixed(1),
      ]),
    )
  }
}

function swapped(task: SwapTask): Promise<Swap> {
  const worker = new Worker(new URL('swap.ts', import.meta.url))
  const { promise, resolve, reject } = Promise.withResolvers<Swap>()
  worker.once('message', resolve).once('error', reject)
  worker.postMessage(task)
  return promise.finally(() => worker.terminate())
}

function at(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`
}
