// What every benchmark needs around the proxy: certificates in a directory that goes away, the
// workload, and the bytes of one request as a service behind a gateway would send it.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Authority } from '../src/cli/pki/authority.ts'
import { end, spawnOn, WORKLOAD_CPU } from './process.ts'

export const REPOSITORY = fileURLToPath(new URL('..', import.meta.url))
export const ANSWER_SIZES = ['100B', '10KB'] as const
export type AnswerSize = (typeof ANSWER_SIZES)[number]

export interface Stage {
  readonly directory: string
  readonly files: {
    readonly certificate: string
    readonly privateKey: string
    /** Certificate and key in one, as haproxy wants it. */
    readonly credentials: string
    readonly trustBundle: string
  }
  readonly client: {
    readonly certificateChain: string
    readonly privateKey: string
    readonly trustBundle: string
  }
  readonly workload: { readonly pid: number; readonly port: number }
  end(): Promise<void>
}

/** ECDSA P-256 throughout, one intermediate. */
export async function setStage(): Promise<Stage> {
  const directory = fs.mkdtempSync(join(tmpdir(), 'postern-bench-'))
  process.once('exit', () => fs.rmSync(directory, { recursive: true, force: true }))
  const root = await Authority.create({ trustDomain: 'example.org' })
  const issuer = await root.intermediate({ commonName: 'bench', trustDomain: 'example.org' })
  const server = await issuer.issue({
    uris: ['spiffe://example.org/ns/default/sa/orders'],
    dns: ['localhost'],
  })
  // The sample policy lets it read below /api.
  const client = await issuer.issue({ uris: ['spiffe://example.org/ns/default/sa/web'] })
  const write = (name: string, content: string): string => {
    const path = join(directory, name)
    fs.writeFileSync(path, content)
    return path
  }
  const child = startWorkload()
  const [{ port }] = (await once(child, 'message')) as [{ port: number }]
  return {
    directory,
    files: {
      certificate: write('tls.crt', server.chainPem),
      privateKey: write('tls.key', server.privateKeyPem),
      credentials: write('credentials.pem', `${server.chainPem}${server.privateKeyPem}`),
      trustBundle: write('ca.crt', root.certificatePem),
    },
    client: {
      certificateChain: client.chainPem,
      privateKey: client.privateKeyPem,
      trustBundle: root.certificatePem,
    },
    workload: { pid: child.pid ?? 0, port },
    end: async () => {
      await end(child)
      fs.rmSync(directory, { recursive: true, force: true })
    },
  }
}

function startWorkload(): ChildProcess {
  const program = fileURLToPath(new URL('workload.ts', import.meta.url))
  return spawnOn(WORKLOAD_CPU, process.execPath, [program], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
}

/** A GET with the headers of a real call: 1.4 KB of input document for the policy. */
export function requestHead(size: AnswerSize): string {
  return `GET /api/orders/${size} HTTP/1.1\r\n${CALL.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
}

const CALL = [
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
] as const
