// A listener in the test's own process, on materials that were loaded as the program loads them.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import tls from 'node:tls'
import { stringify } from 'yaml'
import type { Config } from '../../src/config/config.ts'
import { loadConfig } from '../../src/config/load.ts'
import { loadMaterials } from '../../src/control/loader.ts'
import { nextGeneration } from '../../src/control/snapshot-builder.ts'
import { Cells, cellOf, type HANDSHAKE_FAILURES } from '../../src/metrics.ts'
import { SYSTEM_CLOCK } from '../../src/proxy/clock.ts'
import { Generation } from '../../src/proxy/generation.ts'
import { Intake } from '../../src/proxy/intake.ts'
import { Listener } from '../../src/proxy/listener.ts'
import type { Overload } from '../../src/proxy/overload.ts'
import { ReadShares } from '../../src/proxy/read-shares.ts'
import type { RecordQueue } from '../../src/proxy/records.ts'
import { BodyBudget } from '../../src/proxy/request-body.ts'
import type { ThreadContext } from '../../src/proxy/thread-context.ts'
import { Turn } from '../../src/proxy/turn.ts'
import type { UpstreamPool } from '../../src/proxy/upstream.ts'
import type { LogRecord, SentInput, Snapshot } from '../../src/threads.ts'
import type { Cleanup } from '../support/cleanup.ts'
import {
  type IssuedCertificate,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
  writeFiles,
} from '../support/pki.ts'

export interface Listening {
  readonly authority: TestAuthority
  readonly listener: Listener
  readonly context: ThreadContext
  readonly records: LogRecord<SentInput>[]
  readonly port: number
  /** Time stands still from here on. */
  stopTicking(): void
  failures(reason: (typeof HANDSHAKE_FAILURES)[number]): number
  successes(): number
  open(): number
  /** Puts another snapshot into force, as the data thread does. */
  apply(change: (snapshot: Snapshot) => Partial<Snapshot>): void
  client(certificate?: IssuedCertificate): tls.ConnectionOptions
}

export async function startListener(
  t: Cleanup,
  inbound: Readonly<Record<string, unknown>> = {},
): Promise<Listening> {
  const authority = await testAuthority()
  const server = await authority.svid('orders', { dns: ['localhost'] })
  const files = await writeFiles(await temporaryDirectory(t), {
    'tls.crt': server.chainPem,
    'tls.key': server.privateKeyPem,
    'ca.crt': authority.root.certificatePem,
  })
  const config = configFrom({
    inbound: { listen: '127.0.0.1:0', forward: 'http://127.0.0.1:9', ...inbound },
    identity: { certificate: files['tls.crt'], privateKey: files['tls.key'] },
    trust: { bundles: [{ file: files['ca.crt'] }] },
    allow: [{ all: true }],
  })
  const { loaded, problems } = await loadMaterials(config, Date.now())
  assert.ok(loaded, JSON.stringify(problems))
  const { snapshot } = nextGeneration(config, loaded, Date.now())
  const cells = Cells.allocate()
  const records: LogRecord<SentInput>[] = []
  const turn = new Turn()
  const shares = new ReadShares(turn, SYSTEM_CLOCK.monotonicMs, SYSTEM_CLOCK.monotonicMs)
  const context: ThreadContext = {
    generation: new Generation(snapshot, [], SYSTEM_CLOCK, () => {}),
    pool: {} as UpstreamPool,
    h2c: undefined,
    cells,
    bodies: new BodyBudget(),
    records: {
      push: (record: LogRecord<SentInput>) => records.push(record),
    } as unknown as RecordQueue,
    clock: SYSTEM_CLOCK,
    tickMs: SYSTEM_CLOCK.monotonicMs(),
    turn,
    shares,
    intake: new Intake(
      turn,
      shares,
      () => SYSTEM_CLOCK.monotonicMs(),
      (error) => assert.fail(String(error)),
    ),
    overload: { active: false, sheds: () => false, press: () => {} } as unknown as Overload,
    draining: false,
    drainTimeoutMs: 0,
  }
  const listener = new Listener(context)
  const port = await listener.listen(config.inbound.listen, false)
  const ticking = setInterval(() => {
    context.tickMs = SYSTEM_CLOCK.monotonicMs()
    listener.tick()
  }, 20)
  t.after(() => {
    clearInterval(ticking)
    listener.stopAccepting()
    for (const connection of listener.connections) connection.abort()
  })
  return {
    authority,
    listener,
    context,
    records,
    port,
    stopTicking: () => clearInterval(ticking),
    failures: (reason) => cells.read(cellOf('handshakes_total', { result: 'failure', reason })),
    successes: () => cells.read(cellOf('handshakes_total', { result: 'success', reason: 'none' })),
    open: () => cells.read(cellOf('connections_open', {})),
    apply: (change) => {
      const before = context.generation
      const next = {
        ...before.snapshot,
        generation: before.snapshot.generation + 1,
        ...change(before.snapshot),
      }
      context.generation = new Generation(next, [before], SYSTEM_CLOCK, () => {})
      listener.generationChanged(next.trust.generation !== before.snapshot.trust.generation)
    },
    client: (certificate) => ({
      ...(config.inbound.listen.kind === 'unix'
        ? { path: config.inbound.listen.path }
        : { host: '127.0.0.1', port }),
      servername: 'localhost',
      ca: authority.root.certificatePem,
      ALPNProtocols: ['http/1.1'],
      ...(certificate && { cert: certificate.chainPem, key: certificate.privateKeyPem }),
    }),
  }
}

/** A client after its handshake; whatever happens to it later is no error. */
export async function secureConnect(
  t: Cleanup,
  options: tls.ConnectionOptions,
): Promise<tls.TLSSocket> {
  const socket = tls.connect(options)
  t.after(() => socket.destroy())
  await once(socket, 'secureConnect')
  socket.on('error', () => {})
  return socket
}

function configFrom(document: unknown): Config {
  const { config, problems } = loadConfig({
    file: { path: 'postern.yaml', text: stringify(document) },
    flags: {},
    env: {},
    container: { cpuLimit: () => 1, memoryLimit: () => 2 ** 40 },
  })
  assert.ok(config, JSON.stringify(problems))
  return config
}
