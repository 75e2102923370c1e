// What others feel of one client that takes what it can: the times of requests at a steady rate, calm and
// beside each kind of abuse, in interleaved rounds of the same run. The abuser has a certificate that
// policy permits, so that nothing but fairness holds it.
// node bench/abuse.ts [--rounds N] [--only ABUSE]... [--proxy nginx|haproxy|envoy-rbac] [--compare BUILT_CHECKOUT]
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import tls from 'node:tls'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import {
  headersFrames,
  PREFACE,
  pingFrame,
  resetStreamFrame,
  settingsFrame,
} from '../src/http/h2/frames.ts'
import { encodeHeaderBlock } from '../src/http/h2/hpack.ts'
import { Load } from './load.ts'
import { end, LOAD_CPU, median, pin, runWhenIdle } from './process.ts'
import { comparedMain, PEERS, type ProxyVariant, posternVariant, SAMPLE } from './proxies.ts'
import {
  type ClientCredentials,
  REPOSITORY,
  requestFields,
  requestHead,
  type Stage,
  setStage,
} from './stage.ts'

const CONNECTIONS = 64
const RATE = 400
const SECONDS = 4
/** Beside the abuse, before anything is measured: V8 compiles what the abuse makes hot. */
const WARM_UP_SECONDS = 10
const LIMIT = 2
const AGAIN_MS = 10

interface Attack {
  readonly port: number
  readonly credentials: ClientCredentials
  readonly name: string
}

interface Driven {
  readonly p50Ms: number
  readonly p99Ms: number
}

interface Abuse {
  readonly connections: number
  readonly protocol?: 'h2'
  /** Written again and again; the first time behind `opening`. */
  readonly bytes: (round: number) => Buffer
  readonly opening?: Buffer
  /** The connection is closed after the first answer. */
  readonly once?: boolean
}

const HEAD = requestHead('100B')
const PIPELINED = Buffer.from(HEAD.repeat(100))
const DENIED = Buffer.from(HEAD.replace('GET ', 'DELETE ').repeat(100))
const LARGE = Buffer.from(HEAD.replace('\r\n\r\n', `\r\nx-large: ${'x'.repeat(30_000)}\r\n\r\n`))
const H2_OPENING = Buffer.concat([Buffer.from(PREFACE, 'latin1'), settingsFrame([])])
const PINGS = Buffer.concat(Array.from({ length: 500 }, () => pingFrame()))
const BLOCK = encodeHeaderBlock(requestFields('100B'))
const STREAMS = 50

const streams =
  (reset: boolean) =>
  (round: number): Buffer =>
    Buffer.concat(
      Array.from({ length: STREAMS }, (_, i) => {
        const id = 2 * (round * STREAMS + i) + 1
        const head = headersFrames(BLOCK, id, true, 16_384)
        return reset ? Buffer.concat([head, resetStreamFrame(id, 8)]) : head
      }),
    )

const ABUSES: Readonly<Record<string, Abuse | undefined>> = {
  'nobody else': undefined,
  'requests in line': { connections: 64, bytes: () => PIPELINED },
  'requests in line, all denied': { connections: 64, bytes: () => DENIED },
  'requests of 30 KB': { connections: 64, bytes: () => LARGE },
  'streams of HTTP/2': {
    connections: 16,
    protocol: 'h2',
    bytes: streams(false),
    opening: H2_OPENING,
  },
  'streams that are reset': {
    connections: 16,
    protocol: 'h2',
    bytes: streams(true),
    opening: H2_OPENING,
  },
  'PING frames': { connections: 16, protocol: 'h2', bytes: () => PINGS, opening: H2_OPENING },
  'a connection for each request': { connections: 64, bytes: () => Buffer.from(HEAD), once: true },
}

if (process.send !== undefined) {
  process.once('message', (attack: Attack) => void attackForever(attack))
} else await main()

async function main(): Promise<void> {
  const { values: asked } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      proxy: { type: 'string', default: 'postern' },
      only: { type: 'string', multiple: true },
      compare: { type: 'string' },
    },
  })
  const rounds = Number(asked.rounds)
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new Error(`--rounds ${asked.rounds}: not a number`)
  for (const name of asked.only ?? []) {
    if (!(name in ABUSES))
      throw new Error(`--only ${name}: none of ${Object.keys(ABUSES).join('; ')}`)
  }
  const variants = [variantOf(asked.proxy)]
  if (asked.compare !== undefined) {
    variants.push(posternVariant('compared', comparedMain(asked.compare), SAMPLE))
  }
  const names = Object.keys(ABUSES).filter(
    (name) => ABUSES[name] === undefined || asked.only?.includes(name) !== false,
  )
  const stage = await setStage()
  const load = new Load()
  const all = new Map<string, Driven[]>()
  try {
    for (let round = 1; round <= rounds; round++) {
      for (const name of names) {
        for (const variant of variants) {
          const driven = await measure(name, variant, stage, load)
          const what = `${variant.name}, ${name}`
          console.error(`round ${round}, ${what}: p99 ${driven.p99Ms.toFixed(2)} ms`)
          all.set(what, [...(all.get(what) ?? []), driven])
        }
      }
    }
    for (const { name } of variants) print(name, names, all)
  } finally {
    await load.end()
    await stage.end()
  }
}

function print(
  variant: string,
  names: readonly string[],
  all: ReadonlyMap<string, readonly Driven[]>,
): void {
  console.log(variant)
  const calm = all.get(`${variant}, ${names[0]}`) ?? []
  for (const name of names) {
    const driven = all.get(`${variant}, ${name}`) ?? []
    const p50Ms = median(driven.map((one) => one.p50Ms))
    const p99Ms = median(driven.map((one) => one.p99Ms))
    const ratio = median(driven.map((one, i) => one.p99Ms / calm[i]!.p99Ms))
    console.log(
      `  ${name.padEnd(30)} p50 ${p50Ms.toFixed(2)} ms, p99 ${p99Ms.toFixed(2)} ms, ${ratio.toFixed(2)} of calm${ratio > LIMIT ? `: more than ${LIMIT}` : ''}`,
    )
  }
}

async function measure(
  name: string,
  variant: ProxyVariant,
  stage: Stage,
  load: Load,
): Promise<Driven> {
  const proxy = await variant.start(stage, 'plain')
  let attacker: ChildProcess | undefined
  try {
    const work = { kind: 'http1', head: HEAD, bodyBytes: 0 } as const
    await load.open({ port: proxy.port, connections: CONNECTIONS, work, ...stage.admin })
    await load.drive(10_000)
    if (ABUSES[name] !== undefined) {
      attacker = fork(fileURLToPath(import.meta.url))
      // Whoever is measured is not to wait for a processor that the abuser has.
      pin(attacker.pid ?? 0, [LOAD_CPU])
      runWhenIdle(attacker.pid ?? 0)
      attacker.send({ port: proxy.port, credentials: stage.client, name } satisfies Attack)
      await once(attacker, 'message')
    }
    await load.drive(RATE * WARM_UP_SECONDS, RATE)
    const driven = await load.drive(RATE * SECONDS, RATE)
    await load.close()
    return driven
  } finally {
    if (attacker !== undefined) await end(attacker)
    await proxy.end()
  }
}

function variantOf(name: string): ProxyVariant {
  if (name === 'postern') return posternVariant(name, join(REPOSITORY, 'dist/main.js'), SAMPLE)
  const peer = PEERS.find((variant) => variant.name === name)
  if (peer === undefined) {
    throw new Error(`--proxy ${name}: none of postern; ${PEERS.map((one) => one.name).join('; ')}`)
  }
  return peer
}

async function attackForever({ port, credentials, name }: Attack): Promise<void> {
  const abuse = ABUSES[name]
  if (abuse === undefined) throw new Error(`${name} is no abuse`)
  const { certificateChain: cert, privateKey: key } = credentials
  const secureContext = tls.createSecureContext({ cert, key })
  const attack = async (): Promise<never> => {
    for (;;) {
      const socket = tls.connect({
        ...{ host: '127.0.0.1', port, secureContext, rejectUnauthorized: false },
        ...(abuse.protocol && { ALPNProtocols: [abuse.protocol] }),
      })
      const closed = new Promise((resolve) => socket.once('close', resolve))
      socket.on('error', () => {})
      socket.on('data', () => abuse.once && socket.destroy())
      let round = 0
      const write = (): void => {
        while (!socket.destroyed && socket.write(abuse.bytes(round++)) && abuse.once !== true);
      }
      if (abuse.opening !== undefined) socket.write(abuse.opening)
      write()
      if (abuse.once !== true) socket.on('drain', write)
      await closed
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS))
    }
  }
  process.send?.('begun')
  await Promise.all(Array.from({ length: abuse.connections }, attack))
}
