// `npm run fuzz` checks new inputs until it is stopped, each target in turn; `npm run fuzz -- TARGET`
// one target, and `npm run fuzz -- TARGET FILE` one input. FUZZ_SECONDS bounds the time of a target and
// ends after one round, FUZZ_SEED repeats one. What fails is made smaller and kept in the corpus. What
// reaches code that nothing else reached is mutated further, and kept as well with FUZZ_KEEP=1.
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { CoverageWatch } from './coverage.ts'
import { MOST_BYTES } from './mutate.ts'
import { checkInput, corpusOf, type Finding, inputsOf, keep, shrunk } from './target.ts'
import { TARGETS } from './targets.ts'

interface Campaign {
  readonly target: string
  readonly seed: number
  readonly seconds: number
  /** Number of inputs begun, and the length of the one that is being checked. */
  readonly progress: SharedArrayBuffer
  readonly input: SharedArrayBuffer
}

/** Those of test files of their own, which make their inputs anew instead of changing known ones. */
const GENERATED = readdirSync(new URL('.', import.meta.url))
  .filter((name) => name.endsWith('.test.ts') && name !== 'corpus.test.ts')
  .map((name) => name.slice(0, -'.test.ts'.length))
const STALL_MS = 20_000
const ROUND_SECONDS = 60
const BATCH = 32

async function main([name, file]: readonly string[]): Promise<void> {
  const all = [...TARGETS.map((one) => one.name), ...GENERATED]
  const chosen = all.filter((one) => name === undefined || one === name)
  if (chosen.length === 0) {
    console.error(`the targets are ${all.join(', ')}`)
    process.exitCode = 2
  } else if (file !== undefined) {
    await checkInput(targetOf(chosen[0]!), readFileSync(file))
    console.log('every promise is kept')
  } else {
    const { FUZZ_SECONDS: seconds, FUZZ_SEED: seed } = process.env
    do {
      for (const one of chosen) {
        const start = Number(seed ?? Math.floor(Math.random() * 2 ** 31))
        await campaign(one, start, Number(seconds ?? ROUND_SECONDS))
      }
    } while (seconds === undefined)
  }
}

/** In a thread of its own, so that an endless loop can be ended and its input kept. */
async function campaign(target: string, seed: number, seconds: number): Promise<void> {
  if (GENERATED.includes(target)) return generated(target, seconds)
  console.log(`${target}: FUZZ_SEED=${seed}`)
  const progress = new SharedArrayBuffer(8)
  const input = new SharedArrayBuffer(MOST_BYTES)
  const workerData: Campaign = { target, seed, seconds, progress, input }
  const worker = new Worker(new URL(import.meta.url), { workerData })
  const cells = new Int32Array(progress)
  let before = -1
  const watch = setInterval(() => {
    if (cells[0] === before) {
      const stalled = Buffer.from(Buffer.from(input).subarray(0, cells[1]))
      console.error(`${target}: no end, kept: ${fileURLToPath(keep(target, stalled, 'found'))}`)
      process.exitCode = 1
      void worker.terminate()
    }
    before = cells[0]!
  }, STALL_MS)
  worker.on('error', (error) => {
    console.error(error)
    process.exitCode = 1
  })
  worker.on('message', (finding: string) => {
    console.error(finding)
    process.exitCode = 1
  })
  await new Promise((resolve) => worker.once('exit', resolve))
  clearInterval(watch)
}

function generated(target: string, seconds: number): void {
  const file = fileURLToPath(new URL(`${target}.test.ts`, import.meta.url))
  const env = { ...process.env, FUZZ_SECONDS: `${seconds}` }
  const { status } = spawnSync(process.execPath, ['--test', file], { env, stdio: 'inherit' })
  if (status !== 0) process.exitCode = 1
}

async function work({ target: name, seed, seconds, progress, input: shown }: Campaign) {
  const target = targetOf(name)
  const corpus = corpusOf(target)
  const known = corpus.length
  const cells = new Int32Array(progress)
  const bytes = Buffer.from(shown)
  const told = new Set<string>()
  const coverage = new CoverageWatch()
  const end = Date.now() + seconds * 1_000

  const check = async (input: Buffer): Promise<void> => {
    cells[1] = input.copy(bytes)
    Atomics.add(cells, 0, 1)
    await checkInput(target, input).catch(found)
  }
  const found = async (finding: Finding): Promise<void> => {
    const reason = finding.reason.replaceAll(/\d+/g, '')
    // One mistake has many inputs.
    if (told.has(reason) || told.size > 20) return
    told.add(reason)
    const smallest = await shrunk(target, finding)
    const file = fileURLToPath(keep(name, smallest.input, 'found'))
    parentPort?.postMessage(`${smallest.message}\nkept: ${file}\n`)
  }

  for (const one of corpus) await check(one)
  coverage.grew()
  const inputs = inputsOf(target, corpus, seed)
  while (Date.now() < end) {
    const batch = Array.from({ length: BATCH }, () => inputs.next().value as Buffer)
    for (const input of batch) await check(input)
    if (!coverage.grew()) continue
    // Once more, one by one: V8 tells of a block again after it was asked.
    coverage.forget()
    for (const input of batch) {
      await check(input)
      if (coverage.grew()) corpus.push(input)
    }
  }
  const reached = corpus.slice(known)
  if (process.env['FUZZ_KEEP'] !== undefined) for (const one of reached) keep(name, one, 'new')
  console.log(`${name}: ${cells[0]} inputs, of which ${reached.length} reached new code`)
}

function targetOf(name: string) {
  const target = TARGETS.find((one) => one.name === name)
  if (target === undefined) throw new Error(`${name} takes no file`)
  return target
}

if (isMainThread) await main(process.argv.slice(2))
else await work(workerData as Campaign)
