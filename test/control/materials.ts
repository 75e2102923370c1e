// A directory with everything that one generation is made of, and the configuration that names it.
import { copyFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { Config } from '../../src/config/config.ts'
import { type TestAuthority, temporaryDirectory, testAuthority } from '../support/pki.ts'

const SAMPLE_POLICY = new URL('../../policies/bundle.tar.gz', import.meta.url)

export interface Materials {
  readonly config: Config
  readonly authority: TestAuthority
  readonly path: (name: string) => string
  /** Replaces certificate and key; gives the serial number. */
  rotate(options?: Parameters<TestAuthority['svid']>[1]): Promise<string>
  revoke(...serials: string[]): Promise<void>
  trust(...authorities: TestAuthority[]): Promise<void>
}

export async function materials(
  t: TestContext,
  { policy = false }: { readonly policy?: boolean } = {},
): Promise<Materials> {
  const directory = await temporaryDirectory(t)
  const authority = await testAuthority()
  const path = (name: string) => join(directory, name)
  const made: Materials = {
    config: {
      inbound: { listen: { kind: 'tcp', host: '127.0.0.1', port: 0 } },
      identity: { kind: 'files', certificate: path('tls.crt'), privateKey: path('tls.key') },
      trust: {
        bundles: [{ file: path('ca.crt') }],
        crls: [path('ca.crl')],
        revocation: { mode: 'hard-fail', graceMs: 0, scope: 'leaf' },
        clockSkewMs: 0,
      },
      allow: [{ all: true }],
      ...(policy && {
        policy: {
          bundle: path('bundle.tar.gz'),
          data: [],
          memoryBytes: 64 << 20,
          input: {
            body: { totalBytes: 32 << 20 },
            certificate: false,
            contextExtensions: [],
            v2: false,
          },
          fuel: 10_000_000,
        },
      }),
      log: { access: 'denied', decisions: 'all' },
    } as unknown as Config,
    authority,
    path,
    rotate: async (options) => {
      const leaf = await authority.svid('orders', options)
      await writeFile(path('tls.key'), leaf.privateKeyPem)
      await writeFile(path('tls.crt'), leaf.chainPem)
      return leaf.serial
    },
    revoke: async (...serials) => {
      const none = await authority.root.crl({ revoked: [] })
      const some = await authority.intermediate.crl({
        revoked: serials.map((serial) => ({ serial })),
      })
      await writeFile(path('ca.crl'), none + some)
    },
    trust: (...authorities) =>
      writeFile(
        path('ca.crt'),
        authorities
          .map((one) => one.root.certificatePem + one.intermediate.certificatePem)
          .join(''),
      ),
  }
  await made.rotate()
  await made.revoke()
  await made.trust(authority)
  if (policy) await copyFile(SAMPLE_POLICY, path('bundle.tar.gz'))
  return made
}
