// What every benchmark needs around the proxy: certificates in a directory that goes away, the
// workload, and the bytes of one request as a service behind a gateway would send it.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Authority, type KeyType } from '../src/cli/pki/authority.ts'
import { end, spawnOn, WORKLOAD_CPU } from './process.ts'

export const REPOSITORY = fileURLToPath(new URL('..', import.meta.url))
export const ANSWER_SIZES = ['100B', '10KB'] as const
export type AnswerSize = (typeof ANSWER_SIZES)[number]
export const BODY_BYTES = { '10KB': 10 * 1024, '1MB': 1024 * 1024 } as const
export type BodySize = keyof typeof BODY_BYTES
/** What the workload is, each on a port of its own. */
export type Service = 'plain' | 'bodies' | 'websocket' | 'tcp' | 'grpc'

/** PEM, as the load generator presents it. */
export interface ClientCredentials {
  readonly certificateChain: string
  readonly privateKey: string
  readonly trustBundle: string
}

export interface Stage {
  readonly directory: string
  readonly files: {
    readonly certificate: string
    readonly privateKey: string
    /** Certificate and key in one, as haproxy wants it. */
    readonly credentials: string
    readonly trustBundle: string
  }
  /** The sample policy lets it read below /api. */
  readonly client: ClientCredentials
  /** The sample policy lets it do everything. */
  readonly admin: ClientCredentials
  readonly workload: { readonly pid: number; readonly ports: Readonly<Record<Service, number>> }
  end(): Promise<void>
}

/**
 * An authority on ECDSA P-256 with one intermediate.
 * @param keyType of server and clients
 */
export async function setStage(keyType: KeyType = 'ec-p256'): Promise<Stage> {
  const directory = fs.mkdtempSync(join(tmpdir(), 'postern-bench-'))
  process.once('exit', () => fs.rmSync(directory, { recursive: true, force: true }))
  const root = await Authority.create({ trustDomain: 'example.org' })
  const issuer = await root.intermediate({ commonName: 'bench', trustDomain: 'example.org' })
  const server = await issuer.issue({
    uris: ['spiffe://example.org/ns/default/sa/orders'],
    dns: ['localhost'],
    keyType,
  })
  const clientOf = async (account: string): Promise<ClientCredentials> => {
    const uris = [`spiffe://example.org/ns/default/sa/${account}`]
    const { chainPem, privateKeyPem } = await issuer.issue({ uris, keyType })
    return {
      certificateChain: chainPem,
      privateKey: privateKeyPem,
      trustBundle: root.certificatePem,
    }
  }
  const write = (name: string, content: string): string => {
    const path = join(directory, name)
    fs.writeFileSync(path, content)
    return path
  }
  const child = startWorkload()
  const [{ ports }] = (await once(child, 'message')) as [
    { readonly ports: Stage['workload']['ports'] },
  ]
  return {
    directory,
    files: {
      certificate: write('tls.crt', server.chainPem),
      privateKey: write('tls.key', server.privateKeyPem),
      credentials: write('credentials.pem', `${server.chainPem}${server.privateKeyPem}`),
      trustBundle: write('ca.crt', root.certificatePem),
    },
    client: await clientOf('web'),
    admin: await clientOf('admin'),
    workload: { pid: child.pid ?? 0, ports },
    end: async () => {
      await end(child)
      fs.rmSync(directory, { recursive: true, force: true })
    },
  }
}

function startWorkload(): ChildProcess {
  const program = fileURLToPath(new URL('workloads/main.ts', import.meta.url))
  return spawnOn(WORKLOAD_CPU, process.execPath, [program], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
}

/** A GET with the headers of a real call: 1.4 KB of input document for the policy. */
export function requestHead(size: AnswerSize): string {
  return head('GET', `/api/orders/${size}`, CALL)
}

/** A POST with a body, answered with as many bytes. */
export function bodyRequestHead(size: BodySize): string {
  return head('POST', `/bodies/${size}`, [...CALL, ['Content-Length', String(BODY_BYTES[size])]])
}

export function webSocketHead(): string {
  return head('GET', '/chat', [
    ...CALL,
    ['Upgrade', 'websocket'],
    ['Connection', 'Upgrade'],
    ['Sec-WebSocket-Version', '13'],
    ['Sec-WebSocket-Key', 'dGhlIHNhbXBsZSBub25jZQ=='],
  ])
}

/** The same call as HTTP/2 has it: name, value, name, value. */
export function requestFields(size: AnswerSize): string[] {
  return h2Fields('GET', `/api/orders/${size}`, CALL)
}

/** A unary call whose message the workload returns. */
export function grpcFields(): string[] {
  return h2Fields('POST', '/bench.Echo/Say', [
    ...CALL.filter(([name]) => !OF_BROWSERS.has(name)),
    ['Content-Type', 'application/grpc'],
    ['Te', 'trailers'],
    ['Grpc-Timeout', '10S'],
  ])
}

/** Not compressed, 64 bytes. */
export const GRPC_MESSAGE = `\0\0\0\0\x40${'x'.repeat(64)}`

type Call = readonly (readonly [name: string, value: string])[]

function head(method: string, path: string, fields: Call): string {
  return `${method} ${path} HTTP/1.1\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
}

function h2Fields(method: string, path: string, fields: Call): string[] {
  const list = [':method', method, ':scheme', 'https', ':path', path]
  for (const [name, value] of fields) {
    list.push(name === 'Host' ? ':authority' : name.toLowerCase(), value)
  }
  return list
}

const CALL: Call = [
  ['Host', 'orders.default.svc.cluster.local'],
  ['User-Agent', 'checkout/4.12.0 (linux; go1.26)'],
  ['Accept', 'application/json'],
  ['Accept-Encoding', 'gzip'],
  ['Authorization', `Bearer ${'abcdefgh'.repeat(8)}`],
  ['Cookie', 'session=5f2b8c1e9d3a47f6; locale=en-GB'],
  ['X-Request-Id', '7b0b3f2e-5a0c-4a7e-9f43-0d8a3f6f5b11'],
  ['Traceparent', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'],
  ['Tracestate', 'vendor=t61rcWkgMzE'],
  ['X-Tenant', 'acme-corporation'],
]
const OF_BROWSERS: ReadonlySet<string> = new Set(['Accept', 'Cookie'])
