// The real sidecar as a process of its own, with issued certificates and free ports, and clients that
// talk to it over real TLS.
import { spawn } from 'node:child_process'
import type { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import https from 'node:https'
import { resolve } from 'node:path'
import tls from 'node:tls'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import type { Cleanup } from './cleanup.ts'
import { eventually } from './eventually.ts'
import {
  type IssuedCertificate,
  ORDERS,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
  writeFiles,
} from './pki.ts'
import { assertSoundEnd, startedFor } from './sound-end.ts'

/** With `POSTERN_MAIN`: what was built, instead of the sources. */
const MAIN = resolve(
  process.env['POSTERN_MAIN'] ?? fileURLToPath(new URL('../../src/main.ts', import.meta.url)),
)
export const SAMPLE_POLICY = fileURLToPath(new URL('../../policies/bundle.tar.gz', import.meta.url))

export interface LogLine {
  readonly level: string
  readonly msg: string
  readonly event?: string
  readonly [field: string]: unknown
}

export interface Process {
  readonly pid: number
  readonly lines: LogLine[]
  /** Standard error as it came. */
  readonly errors: () => string
  readonly exited: Promise<number | null>
  signal(name: NodeJS.Signals): void
  /** Leaves what it writes to standard output where it is, until `readOn`. */
  stopReading(): void
  readOn(): void
  /** Whether the test has sent a signal that ends it. */
  wasSignalled(): boolean
}

/**
 * Runs `postern ARGS`, collects its log lines, and kills it when the test ends.
 * @param launcher a command that becomes the one behind its own arguments
 */
export function spawnPostern(
  t: Cleanup,
  args: readonly string[],
  env: Record<string, string> = {},
  launcher: readonly string[] = [],
): Process {
  const [program = '', ...programArgs] = [...launcher, process.execPath, MAIN, ...args]
  const child = spawn(program, programArgs, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  })
  const lines: LogLine[] = []
  let rest = ''
  let errors = ''
  let signalled = false
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n')
    rest = parts.pop() ?? ''
    for (const part of parts) {
      lines.push(
        part.startsWith('{') ? (JSON.parse(part) as LogLine) : { level: 'text', msg: part },
      )
    }
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text
  })
  const debugging = process.env['POSTERN_TEST_LOG'] !== undefined
  if (debugging) child.stdout.on('data', (text: string) => process.stderr.write(text))
  const exited = once(child, 'close').then(([code]) => code as number | null)
  t.after(async () => {
    child.kill('SIGKILL')
    await exited
  })
  return {
    pid: child.pid ?? 0,
    lines,
    errors: () => errors,
    exited,
    signal: (name) => {
      signalled ||= name !== 'SIGHUP'
      child.kill(name)
    },
    stopReading: () => void child.stdout.pause(),
    readOn: () => void child.stdout.resume(),
    wasSignalled: () => signalled,
  }
}

export interface SidecarSetup {
  /** Where requests go; see `startWorkload`. */
  readonly forward: string
  /** Merged over the defaults, section by section; see docs/reference.md for the keys. */
  readonly config?: Readonly<Record<string, unknown>>
  readonly authority?: TestAuthority
  /** Of the server; default: an SVID of `orders` with DNS name localhost. */
  readonly certificate?: IssuedCertificate
  readonly env?: Record<string, string>
  /** See `spawnPostern`. */
  readonly launcher?: readonly string[]
  /** The test kills data threads. */
  readonly threadsDie?: true
}

export interface TestSidecar extends Process {
  readonly directory: string
  readonly authority: TestAuthority
  /** Paths of what it was given; tests replace these files. */
  readonly files: {
    readonly certificate: string
    readonly privateKey: string
    readonly trustBundle: string
    readonly config: string
  }
  readonly port: number
  readonly metricsPort: number
  readonly adminPort: number
  /** One series of the metrics, 0 when it is not there. */
  metric(series: string): Promise<number>
  metrics(): Promise<string>
  admin(method: string, path: string): Promise<{ status: number; body: string }>
  /** The first log line with this event (and fields), as soon as it is there. */
  logged(event: string, fields?: Readonly<Record<string, unknown>>): Promise<LogLine>
  /** Trust and credentials for tls.connect and https.request. */
  clientOptions(client?: IssuedCertificate): tls.ConnectionOptions
}

export async function startSidecar(t: Cleanup, setup: SidecarSetup): Promise<TestSidecar> {
  const directory = await temporaryDirectory(t)
  const authority = setup.authority ?? (await testAuthority())
  const certificate =
    setup.certificate ??
    (await authority.intermediate.issue({ uris: [ORDERS], dns: ['localhost'] }))
  const files = await writeFiles(directory, {
    'tls.crt': certificate.chainPem,
    'tls.key': certificate.privateKeyPem,
    'ca.crt': authority.root.certificatePem,
  })
  const config = merged(
    {
      // A machine that runs tests is short of processors: that is not what they are about.
      inbound: {
        listen: '127.0.0.1:0',
        forward: setup.forward,
        overload: { eventLoopLag: '5s' },
      },
      identity: { certificate: files['tls.crt'], privateKey: files['tls.key'] },
      trust: { bundles: [{ file: files['ca.crt'] }] },
      admin: { listen: '127.0.0.1:0' },
      metrics: { listen: '127.0.0.1:0' },
      ...(setup.config?.['policy'] === undefined && setup.config?.['allow'] === undefined
        ? { allow: [{ all: true }] }
        : {}),
    },
    setup.config ?? {},
  )
  const { 'postern.yaml': configFile } = await writeFiles(directory, {
    'postern.yaml': stringify(config),
  })
  let inspect = async (): Promise<void> => {}
  // While the process still lives, whichever way round `t` clears up.
  const inspected: Cleanup = {
    after: (kill) => t.after(() => inspect().finally(kill as () => Promise<void>)),
  }
  const child = spawnPostern(inspected, ['run', '--config', configFile], setup.env, setup.launcher)
  const ready = await eventually(
    'the sidecar is ready',
    async () => {
      const line = child.lines.find(({ event }) => event === 'ready')
      if (line !== undefined) return line
      const ended = await Promise.race([child.exited, undefined])
      if (ended !== undefined) throw new Error(`postern exited with ${ended}: ${child.errors()}`)
      return undefined
    },
    60_000,
  )
  const portOf = (name: string): number => (ready[name] as { port?: number } | undefined)?.port ?? 0
  const metricsPort = portOf('metrics')
  const adminPort = portOf('admin')
  const metrics = async (): Promise<string> =>
    (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text()
  const sidecar: TestSidecar = {
    ...child,
    directory,
    authority,
    files: {
      certificate: files['tls.crt'],
      privateKey: files['tls.key'],
      trustBundle: files['ca.crt'],
      config: configFile,
    },
    port: portOf('listen'),
    metricsPort,
    adminPort,
    metrics,
    metric: async (series) => {
      const line = (await metrics()).split('\n').find((one) => one.startsWith(`${series} `))
      return line === undefined ? 0 : Number(line.slice(series.length + 1))
    },
    admin: async (method, path) => {
      const answer = await fetch(`http://127.0.0.1:${adminPort}${path}`, { method })
      return { status: answer.status, body: await answer.text() }
    },
    logged: (event, fields = {}) =>
      eventually(`a log line with event ${event} ${JSON.stringify(fields)}`, () =>
        child.lines.find(
          (line) =>
            line.event === event &&
            Object.entries(fields).every(([name, value]) => line[name] === value),
        ),
      ),
    clientOptions: (client) => ({
      host: '127.0.0.1',
      port: portOf('listen'),
      servername: 'localhost',
      ca: authority.root.certificatePem,
      ALPNProtocols: ['http/1.1'],
      ...(client === undefined ? {} : { cert: client.chainPem, key: client.privateKeyPem }),
    }),
  }
  startedFor(setup.forward)
  inspect = () => assertSoundEnd(sidecar, setup)
  return sidecar
}

/** What a new handshake shows. */
export async function serverCertificate(
  sidecar: TestSidecar,
  client: IssuedCertificate,
): Promise<X509Certificate> {
  const socket = tls.connect(sidecar.clientOptions(client))
  try {
    await once(socket, 'secureConnect')
    const certificate = socket.getPeerX509Certificate()
    if (certificate === undefined) throw new Error('the server showed no certificate')
    return certificate
  } finally {
    // Not destroy: that would take the client's last message of the handshake with it.
    socket.end()
  }
}

export interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

export interface CallOptions {
  readonly method?: string
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
  /** Default: a connection of its own. */
  readonly agent?: https.Agent
}

/** One request with a client certificate, through Node's own client. */
export function call(
  sidecar: TestSidecar,
  client: IssuedCertificate | undefined,
  options: CallOptions = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const request = https.request(
      {
        ...(sidecar.clientOptions(client) as https.RequestOptions),
        method: options.method ?? 'GET',
        path: options.path ?? '/api/orders',
        headers: { host: 'localhost', ...options.headers },
        agent: options.agent ?? false,
      },
      (response) => {
        let body = ''
        response.setEncoding('utf8').on('data', (text: string) => {
          body += text
        })
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
        )
        response.on('error', reject)
      },
    )
    request.on('error', reject)
    request.end(options.body)
  })
}

export interface RawClient {
  readonly socket: tls.TLSSocket
  /** Everything received so far, latin1. */
  received(): string
  /** Waits until the received text matches. */
  until(pattern: RegExp): Promise<RegExpMatchArray>
  /** The connection has ended, cleanly or not. */
  readonly closed: Promise<void>
  write(text: string): void
}

/** A TLS connection on which a test writes bytes of its own making. */
export async function connectRaw(
  t: Cleanup,
  sidecar: TestSidecar,
  client: IssuedCertificate | undefined,
  options: tls.ConnectionOptions = {},
): Promise<RawClient> {
  const socket = tls.connect({
    ...sidecar.clientOptions(client),
    allowHalfOpen: true,
    ...options,
  } as tls.ConnectionOptions)
  let text = ''
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    text += chunk
  })
  const closed = new Promise<void>((resolve) => {
    socket.once('end', resolve)
    socket.once('close', () => resolve())
  })
  t.after(() => socket.destroy())
  await once(socket, 'secureConnect')
  socket.on('error', () => {})
  return {
    socket,
    received: () => text,
    until: (pattern) =>
      eventually(`${pattern} in ${JSON.stringify(text.slice(-200))}`, () => text.match(pattern)),
    closed,
    write: (bytes) => void socket.write(bytes, 'latin1'),
  }
}

function merged(
  base: Readonly<Record<string, unknown>>,
  over: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const result: Record<string, unknown> = { ...base }
  for (const [name, value] of Object.entries(over)) {
    const before = result[name]
    result[name] = isSection(before) && isSection(value) ? merged(before, value) : value
  }
  return result
}

const isSection = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
