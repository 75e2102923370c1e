// A directory into which a program delivers an identity: which of the known names are there, and what
// each file is. Only names are looked at here; the files are read with all others, as of one moment.
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { IdentityFiles } from '../config/config.ts'
import { parseTrustDomain } from '../config/values.ts'
import type { Problem } from '../errors.ts'
import { OWN_TRUST_DOMAIN, type TrustFile } from './sources.ts'

export type IdentityDirectory =
  | {
      readonly kind: 'found'
      readonly identity: IdentityFiles
      readonly bundles: readonly TrustFile[]
    }
  | { readonly kind: 'problem'; readonly problem: Problem }

export async function readIdentityDirectory(
  directory: string,
  passphraseFile?: string,
): Promise<IdentityDirectory> {
  const problem = (what: string, remedy: string): IdentityDirectory => ({
    kind: 'problem',
    problem: { where: WHERE, what: `${directory} ${what}`, remedy },
  })
  let names: readonly string[]
  try {
    names = (await readdir(directory)).sort()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return problem(
      code === 'ENOENT' ? 'does not exist' : `cannot be listed (${code})`,
      'name the directory that identities are delivered into, and let this user read it',
    )
  }
  const [layout, other] = LAYOUTS.filter((one) => one.files.every((name) => names.includes(name)))
  if (layout === undefined) {
    const known = LAYOUTS.map(({ files }) => files.join(' with ')).join('; ')
    return problem('holds no identity under a known name', `known are: ${known}`)
  }
  if (other !== undefined) {
    return problem(
      `holds two identities: ${layout.files.join(' with ')}, and ${other.files.join(' with ')}`,
      'remove one of them, or name the files one by one',
    )
  }
  const [first, key] = layout.files.map((name) => join(directory, name)) as [string, string?]
  const passphrase = passphraseFile === undefined ? {} : { passphraseFile }
  return {
    kind: 'found',
    identity:
      key === undefined
        ? { kind: 'bundle', credentialBundle: first, ...passphrase }
        : { kind: 'files', certificate: first, privateKey: key, ...passphrase },
    bundles: names.flatMap((name) => {
      const file = join(directory, name)
      if (OWN_BUNDLES.includes(name)) return { file, where: WHERE, trustDomain: OWN_TRUST_DOMAIN }
      const suffix = DOMAIN_BUNDLES.find((one) => name.endsWith(one))
      const domain = suffix === undefined ? '' : name.slice(0, -suffix.length)
      const isDomain = parseTrustDomain(domain).kind === 'value'
      return isDomain ? { file, where: WHERE, trustDomain: domain } : []
    }),
  }
}

const WHERE = 'identity.directory'

/** SPIFFE filesystem delivery (drafts of 2025 and 2026), spiffe-helper, cert-manager's CSI driver. */
const LAYOUTS: readonly { readonly files: readonly string[] }[] = [
  { files: ['credential-bundle.private-key.x509.pem'] },
  { files: ['credential-bundle.pem'] },
  { files: ['svid.pem', 'svid_key.pem'] },
  { files: ['tls.crt', 'tls.key'] },
]
const OWN_BUNDLES: readonly string[] = ['svid_bundle.pem', 'bundle.pem', 'ca.crt']
const DOMAIN_BUNDLES = ['.spiffe-trust-bundle.x509.pem', '.spiffe-trust-bundle.pem'] as const
