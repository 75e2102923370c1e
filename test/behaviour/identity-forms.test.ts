// The forms in which identities are mounted, with the real process: served, and rotated in place.
import assert from 'node:assert/strict'
import { createPrivateKey } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { AtomicWriter } from '../support/atomic-writer.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  type IssuedCertificate,
  ORDERS,
  temporaryDirectory,
  testAuthority,
  writeFiles,
} from '../support/pki.ts'
import { call, serverCertificate, startSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const NONE = { certificate: undefined, privateKey: undefined }

describe('an identity', () => {
  const t = suiteCleanup()

  async function serves(
    sections: Record<string, unknown>,
    authority: Awaited<ReturnType<typeof testAuthority>>,
    rotate: (next: IssuedCertificate) => Promise<unknown>,
  ): Promise<void> {
    const { url } = await startWorkload(t)
    const sidecar = await startSidecar(t, { authority, forward: url, config: sections })
    const web = await authority.svid('web')
    assert.equal((await call(sidecar, web)).status, 200)
    const next = await own(authority)
    await rotate(next)
    await eventually('the next one is served', async () => {
      const { serialNumber } = await serverCertificate(sidecar, web)
      return serialNumber.toLowerCase() === next.serial
    })
    assert.equal((await call(sidecar, web)).status, 200)
  }

  const own = (authority: Awaited<ReturnType<typeof testAuthority>>) =>
    authority.intermediate.issue({ uris: [ORDERS], dns: ['localhost'] })
  const encrypted = ({ privateKeyPem }: IssuedCertificate, passphrase: string): string =>
    createPrivateKey(privateKeyPem).export({
      type: 'pkcs8',
      format: 'pem',
      cipher: 'aes-256-cbc',
      passphrase,
    }) as string

  it('of a Kubernetes pod certificate, beside a ClusterTrustBundle in one projected volume', async () => {
    const authority = await testAuthority()
    const volume = new AtomicWriter(join(await temporaryDirectory(t), 'volume'))
    const write = ({ privateKeyPem, chainPem }: IssuedCertificate) =>
      volume.write({
        'identity/credentials.pem': privateKeyPem + chainPem,
        'trust/ca.pem': authority.root.certificatePem,
      })
    await write(await own(authority))
    await serves(
      {
        identity: { ...NONE, credentialBundle: volume.path('identity/credentials.pem') },
        trust: { bundles: [{ trustDomain: 'example.org', file: volume.path('trust/ca.pem') }] },
      },
      authority,
      write,
    )
  })

  it('with an encrypted key, whose passphrase may change with it', async () => {
    const authority = await testAuthority()
    const directory = await temporaryDirectory(t)
    const first = await own(authority)
    const files = await writeFiles(directory, {
      'tls.crt': first.chainPem,
      'tls.key': encrypted(first, 'one'),
      passphrase: 'one\n',
    })
    await serves(
      {
        identity: {
          certificate: files['tls.crt'],
          privateKey: files['tls.key'],
          passphraseFile: files.passphrase,
        },
      },
      authority,
      async (next) => {
        await writeFile(files['tls.crt'], next.chainPem)
        await writeFile(files['tls.key'], encrypted(next, 'two'))
        await writeFile(files.passphrase, 'two')
      },
    )
  })

  it('that spiffe-helper writes, one file after the other', async () => {
    const authority = await testAuthority()
    const directory = await temporaryDirectory(t)
    const write = async ({ privateKeyPem, chainPem }: IssuedCertificate) => {
      await writeFile(join(directory, 'svid.pem'), chainPem)
      await writeFile(join(directory, 'svid_key.pem'), privateKeyPem)
      await writeFile(join(directory, 'svid_bundle.pem'), authority.root.certificatePem)
    }
    await write(await own(authority))
    await serves({ identity: { ...NONE, directory }, trust: undefined }, authority, write)
  })
})
