// Certificates and files for tests: an authority in memory, and directories that vanish with the
// test that asked for them.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Authority, type IssuedCertificate } from '../../src/cli/pki/authority.ts'
import type { Cleanup } from './cleanup.ts'

export type {
  AuthorityOptions,
  CrlOptions,
  IssuedCertificate,
  IssueOptions,
  KeyType,
  RawExtension,
} from '../../src/cli/pki/authority.ts'
export { Authority } from '../../src/cli/pki/authority.ts'

export const TRUST_DOMAIN = 'example.org'
/** The client that the sample policy lets read. */
export const WEB = spiffeId('web')
/** The workload behind the proxy. */
export const ORDERS = spiffeId('orders')

export function spiffeId(serviceAccount: string, trustDomain = TRUST_DOMAIN): string {
  return `spiffe://${trustDomain}/ns/default/sa/${serviceAccount}`
}

export interface TestAuthority {
  readonly root: Authority
  readonly intermediate: Authority
  /** A leaf below the intermediate for one service account of the trust domain. */
  svid(
    serviceAccount: string,
    options?: Parameters<Authority['issue']>[0],
  ): Promise<IssuedCertificate>
}

/** Root and intermediate of one trust domain. */
export async function testAuthority(trustDomain = TRUST_DOMAIN): Promise<TestAuthority> {
  const root = await Authority.create({ commonName: `${trustDomain} root`, trustDomain })
  const intermediate = await root.intermediate({
    commonName: `${trustDomain} intermediate`,
    trustDomain,
  })
  return {
    root,
    intermediate,
    svid: (serviceAccount, options = {}) =>
      intermediate.issue({ uris: [spiffeId(serviceAccount, trustDomain)], ...options }),
  }
}

/** A directory of its own for the test, removed when the test ends. */
export async function temporaryDirectory(t: Cleanup): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'postern-test-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  return directory
}

/** Writes each text or byte array under its name; gives the full paths by name. */
export async function writeFiles<Name extends string>(
  directory: string,
  files: Readonly<Record<Name, string | Uint8Array>>,
): Promise<Record<Name, string>> {
  const paths = {} as Record<Name, string>
  for (const [name, content] of Object.entries(files) as [Name, string | Uint8Array][]) {
    paths[name] = join(directory, name)
    await writeFile(paths[name], content)
  }
  return paths
}
