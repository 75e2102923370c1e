// `npm run bench:footprint`: how long Postern takes to be ready, next to the shortest life that a Node
// process can have, and what it occupies while nothing happens, next to a bare node:tls server.
import { type ChildProcess, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { stringify } from 'yaml'
import { Load } from './load.ts'
import {
  accepting,
  end,
  freePort,
  IMAGE_ENVIRONMENT,
  IMAGE_OPTIONS,
  median,
  rssBytesOf,
  spawnOn,
} from './process.ts'
import { posternConfig, posternReady } from './proxies.ts'
import { REPOSITORY, requestHead, type Stage, setStage } from './stage.ts'

const HELP = `Usage: npm run bench:footprint -- [options]

  --rounds N       starts of each kind (default 7)
  --connections N  idle connections (default 1000); the proxy needs as many open files and 500 more
  --soak N         after that, N requests on 64 connections, and what they leave behind
  --json           one line of JSON
  --skip-build     use dist/ as it is`

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    connections: { type: 'string', default: '1000' },
    soak: { type: 'string', default: '0' },
    json: { type: 'boolean', default: false },
    'skip-build': { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

/** How Postern is started; `cache`: with V8's compiled code kept from the start before. */
const STARTS = [
  { name: 'dist', main: join(REPOSITORY, 'dist/main.js'), cache: true },
  { name: 'dist, read-only file system', main: join(REPOSITORY, 'dist/main.js'), cache: false },
  { name: 'src', main: join(REPOSITORY, 'src/main.ts'), cache: true },
] as const

const WORK = { kind: 'http1', head: requestHead('100B'), bodyBytes: 0 } as const
const SOAK_CONNECTIONS = 64
const SOAK_PARTS = 10
const SOAK_WARM = 20_000
const SETTLE_MS = 3_000
const FIRST_CONNECTIONS = 200
const REQUESTS_TO_WARM = 20
/** Of one load generator, which would run out of open files with all of them. */
const CONNECTIONS_OF_LOAD = 2_500
/** All at once, the last would wait for the workload until they are answered 503. */
const FIRST_REQUESTS_PER_SECOND = 500

if (options.help) console.log(HELP)
else await measure()

async function measure(): Promise<void> {
  const rounds = Number(options.rounds)
  const connections = Number(options.connections)
  if (!(connections > FIRST_CONNECTIONS)) {
    throw new Error(`--connections must be more than ${FIRST_CONNECTIONS}`)
  }
  const soak = Number(options.soak)
  if (!options['skip-build']) {
    const { status } = spawnSync('npm', ['run', '-s', 'build'], {
      cwd: REPOSITORY,
      stdio: 'inherit',
    })
    if (status !== 0) throw new Error('the build failed')
  }
  const stage = await setStage()
  try {
    const configFile = join(stage.directory, 'postern.yaml')
    const [port, metricsPort] = [await freePort(), await freePort()]
    // What a pod usually has: policy, metrics, admin.
    const own = {
      policy: { bundle: join(REPOSITORY, 'policies/bundle.tar.gz') },
      log: { decisions: 'denied' },
    }
    const config = posternConfig(stage, port, metricsPort, own)
    // All connections come from one address here.
    Object.assign(config['inbound'] as object, {
      limits: {
        connections,
        connectionsPerAddress: connections,
        connectionsPerPeer: connections,
      },
      // They come as fast as they can, which is overload.
      overload: { eventLoopLag: '0' },
    })
    fs.writeFileSync(configFile, stringify(config))
    const starts = await startTimes(rounds, configFile, stage)
    const postern = await memory(connections, stage, port, () =>
      startPostern(STARTS[0].main, configFile, environment(true, stage)),
    )
    const barePort = await freePort()
    const bare = await memory(connections, stage, barePort, () => startBare(stage, barePort))
    const soaked =
      soak === 0
        ? undefined
        : await growth(soak, stage, port, () =>
            startPostern(STARTS[0].main, configFile, environment(true, stage)),
          )
    if (options.json) {
      const startRatios = Object.fromEntries(starts.map(({ name, ratio }) => [name, ratio]))
      console.log(JSON.stringify({ startRatios, postern, bareTls: bare, soaked }))
    } else print(starts, postern, bare, rounds, connections)
    if (soaked !== undefined && !options.json) printGrowth(soaked)
  } finally {
    await stage.end()
  }
}

interface StartTime {
  readonly name: string
  readonly ms: number
  /** To `node -e 0`; median of the rounds' ratios. */
  readonly ratio: number
}

async function startTimes(
  rounds: number,
  configFile: string,
  stage: Stage,
): Promise<readonly StartTime[]> {
  const times = new Map<string, number[]>(STARTS.map(({ name }) => [name, []]))
  const nothing: number[] = []
  for (let round = 0; round <= rounds; round++) {
    const began = performance.now()
    spawnSync(process.execPath, ['-e', '0'], { stdio: 'ignore' })
    const nothingMs = performance.now() - began
    if (round > 0) nothing.push(nothingMs)
    for (const { name, main, cache } of STARTS) {
      const started = performance.now()
      const child = await startPostern(main, configFile, environment(cache, stage))
      const ms = performance.now() - started
      if (round > 0) times.get(name)?.push(ms)
      // The first start of each kind fills caches, which Node writes when a process ends by itself.
      await (round > 0 ? end(child) : drained(child))
    }
  }
  if (rounds === 0) return []
  const all = [...times].map(([name, of]) => ({
    name,
    ms: median(of),
    ratio: median(of.map((ms, i) => ms / (nothing[i] ?? Number.NaN))),
  }))
  return [{ name: 'node -e 0', ms: median(nothing), ratio: 1 }, ...all]
}

function environment(cache: boolean, stage: Stage): NodeJS.ProcessEnv {
  return cache
    ? { ...process.env, NODE_COMPILE_CACHE: join(stage.directory, 'compile-cache') }
    : { ...process.env, NODE_DISABLE_COMPILE_CACHE: '1' }
}

async function startPostern(
  main: string,
  configFile: string,
  env: NodeJS.ProcessEnv,
): Promise<ChildProcess> {
  const args = [...IMAGE_OPTIONS, main, 'run', '--config', configFile]
  const child = spawnOn(undefined, process.execPath, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...env, ...IMAGE_ENVIRONMENT },
  })
  await posternReady(child)
  return child
}

async function drained(child: ChildProcess): Promise<void> {
  const gone = once(child, 'close')
  child.kill('SIGTERM')
  await gone
}

async function startBare(stage: Stage, port: number): Promise<ChildProcess> {
  const program = fileURLToPath(new URL('peers/bare-tls.ts', import.meta.url))
  const { certificate, privateKey, trustBundle } = stage.files
  const args = [program, String(port), certificate, privateKey, trustBundle]
  const child = spawnOn(undefined, process.execPath, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  await accepting(port, child, 'the bare TLS server')
  return child
}

interface Memory {
  readonly idleMiB: number
  readonly kibPerConnection: number
  /** With all connections open. */
  readonly occupiedMiB: number
}

/**
 * Each connection makes one request, then all of them rest. The first ones bring what the process
 * needs once (code, buffers, a larger heap); what one connection costs is of the others.
 */
async function memory(
  connections: number,
  stage: Stage,
  port: number,
  start: () => Promise<ChildProcess>,
): Promise<Memory> {
  const child = await start()
  const first = new Load()
  const rest: Load[] = []
  try {
    const pid = child.pid ?? 0
    const idle = await restingRss(pid)
    await first.open({ port, connections: FIRST_CONNECTIONS, work: WORK, ...stage.client })
    await first.drive(FIRST_CONNECTIONS * REQUESTS_TO_WARM)
    const warm = await restingRss(pid)
    const others = connections - FIRST_CONNECTIONS
    for (let open = 0; open < others; open += CONNECTIONS_OF_LOAD) {
      const part = Math.min(CONNECTIONS_OF_LOAD, others - open)
      const load = new Load()
      rest.push(load)
      await load.open({ port, connections: part, work: WORK, ...stage.client })
      await load.drive(part, FIRST_REQUESTS_PER_SECOND)
    }
    const occupied = await restingRss(pid)
    return {
      idleMiB: Number((idle / 1024 / 1024).toFixed(1)),
      kibPerConnection: Number(((occupied - warm) / 1024 / others).toFixed(1)),
      occupiedMiB: Number((occupied / 1024 / 1024).toFixed(1)),
    }
  } finally {
    await Promise.all([first, ...rest].map((load) => load.end()))
    await end(child)
  }
}

/** Resident MiB before, and after each tenth of the requests. */
async function growth(
  requests: number,
  stage: Stage,
  port: number,
  start: () => Promise<ChildProcess>,
): Promise<readonly number[]> {
  const child = await start()
  const load = new Load()
  try {
    const mib: number[] = []
    await load.open({ port, connections: SOAK_CONNECTIONS, work: WORK, ...stage.client })
    for (let part = 0; part <= SOAK_PARTS; part++) {
      // The first ones bring what the process needs once.
      await load.drive(part === 0 ? SOAK_WARM : Math.ceil(requests / SOAK_PARTS))
      mib.push(Number(((await restingRss(child.pid ?? 0)) / 1024 / 1024).toFixed(1)))
    }
    return mib
  } finally {
    await load.end()
    await end(child)
  }
}

function printGrowth(mib: readonly number[]): void {
  console.log(`\nResident MiB before ${options.soak} requests and after each tenth of them`)
  console.log(`  ${mib.join(' ')}`)
}

/** Garbage that an idle process collects late or never is part of what it occupies. */
async function restingRss(pid: number): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  return rssBytesOf(pid)
}

function print(
  starts: readonly StartTime[],
  postern: Memory,
  bare: Memory,
  rounds: number,
  connections: number,
): void {
  if (rounds > 0)
    console.log(`\nFrom spawning to ready, with the sample policy; median of ${rounds}`)
  for (const { name, ms, ratio } of starts) {
    console.log(
      `  ${name.padEnd(30)}${ms.toFixed(0).padStart(6)} ms${ratio.toFixed(1).padStart(7)}x`,
    )
  }
  console.log(`\nResident memory, ${SETTLE_MS / 1000} s after the last event; one data thread`)
  for (const [name, one] of [
    ['postern', postern],
    ['bare node:tls server', bare],
  ] as const) {
    console.log(
      `  ${name.padEnd(30)}${one.idleMiB.toFixed(1).padStart(6)} MiB idle,${one.kibPerConnection.toFixed(1).padStart(6)} KiB for each of ${connections} idle connections, ${one.occupiedMiB.toFixed(0)} MiB with all`,
    )
  }
}
