// Requests and policies for the tests of this room.
import { readFileSync } from 'node:fs'
import { type Unpacked, unpackArchive } from '../../src/policy/bundle.ts'
import { PolicyEngine } from '../../src/policy/engine.ts'
import { connectionInput, type PeerFacts, type PolicyRequest } from '../../src/policy/input.ts'
import type { InputSettings } from '../../src/policy/input-settings.ts'
import { type LoadedPolicy, type LoadOptions, loadPolicy } from '../../src/policy/load.ts'
import type { PolicyMaterial } from '../../src/policy/material.ts'

export const SAMPLE_BUNDLE = new URL('../../policies/bundle.tar.gz', import.meta.url)
export const bundleUrl = (name: string) => new URL(`bundles/${name}.tar.gz`, import.meta.url)

export const FUEL = 2_000_000
export const MEMORY_BYTES = 64 * 1024 * 1024

export async function unpackFile(url: URL): Promise<ReadonlyMap<string, Buffer>> {
  return entriesOf(await unpackArchive(readFileSync(url), url.pathname))
}

export function entriesOf(unpacked: Unpacked): ReadonlyMap<string, Buffer> {
  if (unpacked.kind === 'entries') return unpacked.entries
  throw new Error(JSON.stringify(unpacked.problems))
}

export async function load(url: URL, options: Partial<LoadOptions> = {}): Promise<LoadedPolicy> {
  const source = { file: 'bundle', entries: await unpackFile(url), digest: 'd' }
  return loadPolicy(source, {
    entrypoint: undefined,
    fuel: FUEL,
    memoryBytes: MEMORY_BYTES,
    ...options,
  })
}

export async function loadMaterial(
  url: URL,
  options: Partial<LoadOptions> = {},
): Promise<PolicyMaterial> {
  const loaded = await load(url, options)
  if (loaded.kind === 'policy') return loaded.material
  throw new Error(JSON.stringify(loaded.problems))
}

export async function engineOf(
  url: URL,
  options: Partial<LoadOptions> = {},
): Promise<PolicyEngine> {
  const policy = await loadMaterial(url, options)
  return new PolicyEngine({ allow: [], policy, clock: { nowMs: () => NOW_MS } })
}

export const NOW_MS = 1_700_000_000_123

export function peer(name: string): PeerFacts {
  const uri = `spiffe://example.org/ns/default/sa/${name}`
  return { principal: uri, uris: [uri], dnsNames: [`${name}.example.org`], commonName: name }
}

export function connection(facts: PeerFacts = peer('web'), settings?: InputSettings) {
  const ends = {
    peer: facts,
    remoteAddress: '10.0.0.1',
    remotePort: 4242,
    localAddress: '10.0.0.2',
    localPort: 8443,
    serverName: 'svc.local',
    destinationPrincipal: 'spiffe://example.org/ns/default/sa/orders',
  }
  return connectionInput(ends, settings)
}

export function request(target: string, more: Partial<PolicyRequest> = {}): PolicyRequest {
  const question = target.indexOf('?')
  return {
    requestId: '135',
    timeMs: NOW_MS,
    method: 'GET',
    target,
    path: question < 0 ? target : target.slice(0, question),
    query: question < 0 ? undefined : target.slice(question + 1),
    host: 'svc:8443',
    scheme: 'https',
    protocol: 'HTTP/1.1',
    fields: [],
    bodySize: 0,
    connection: connection(),
    ...more,
  }
}
