// What several tests of this room need: a sink that can be full, records, a request over a socket.
import http from 'node:http'
import type { Address } from '../../src/config/config.ts'
import type { LineSink, LineTally } from '../../src/observe/line-writer.ts'
import type { AccessRecord, DecisionRecord, HandshakeRecord } from '../../src/threads.ts'

/** Keeps lines; `full` refuses them as a blocked pipe would. */
export class MemorySink implements LineSink {
  readonly lines: string[] = []
  full = false

  write(line: string, _reserve?: number, tally?: LineTally): boolean {
    if (tally !== undefined) tally[this.full ? 'refused' : 'written']++
    if (this.full) return false
    this.lines.push(line)
    return true
  }

  async flush(): Promise<boolean> {
    return true
  }

  flushSync(): void {}

  get events(): Record<string, unknown>[] {
    return this.lines.map((line) => JSON.parse(line) as Record<string, unknown>)
  }
}

export const decisionRecord = (changes: Partial<DecisionRecord> = {}): DecisionRecord => ({
  kind: 'decision',
  decisionId: '5f0f2c9e-6a33-4c2c-8a36-0f7f0a0f3d11',
  requestId: 'req-1',
  timeMs: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
  outcome: 'allow',
  rule: 'policy',
  input: inputText({ accept: 'text/html' }),
  result: '{"allowed":true}',
  entrypoint: 'envoy/authz/allow',
  revision: 'r1',
  bundleDigest: 'ab'.repeat(32),
  evalNs: 42_000,
  principal: 'spiffe://example.org/web',
  ...changes,
})

export const inputText = (
  headers: Record<string, unknown>,
  path = '/a',
  parsedQuery: Record<string, string[]> = {},
): string =>
  JSON.stringify({
    attributes: { request: { http: { method: 'GET', headers, path } } },
    parsed_path: ['a'],
    parsed_query: parsedQuery,
  })

export const accessRecord = (changes: Partial<AccessRecord> = {}): AccessRecord => ({
  kind: 'access',
  timeMs: Date.UTC(2026, 0, 2, 3, 4, 5),
  requestId: 'req-1',
  decisionId: 'd-1',
  principal: 'spiffe://example.org/web',
  remoteAddress: '10.0.0.1',
  remotePort: 4242,
  method: 'GET',
  path: '/a',
  protocol: 'http/1.1',
  status: 200,
  outcome: 'allow',
  durationMs: 1.5,
  requestBytes: 10,
  responseBytes: 20,
  ...changes,
})

export const handshakeRecord = (changes: Partial<HandshakeRecord> = {}): HandshakeRecord => ({
  kind: 'handshake',
  timeMs: Date.UTC(2026, 0, 2),
  remoteAddress: '2001:db8::1',
  remotePort: 4242,
  reason: 'expired',
  detail: 'notAfter 2026-01-01T00:00:00Z, now 2026-01-02T00:00:00Z',
  ...changes,
})

export interface Reply {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
  readonly text: string
}

export function ask(
  address: Address,
  path: string,
  options: { method?: string; headers?: http.OutgoingHttpHeaders; body?: string } = {},
): Promise<Reply> {
  const where =
    address.kind === 'unix'
      ? { socketPath: address.path }
      : { host: address.host, port: address.port }
  return new Promise((resolve, reject) => {
    const request = http.request(
      { ...where, path, method: options.method ?? 'GET', headers: options.headers, agent: false },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text: Buffer.concat(chunks).toString(),
          }),
        )
      },
    )
    request.on('error', reject)
    request.end(options.body)
  })
}

/** Resolves once `condition` holds; the test's own timeout is the deadline. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}
