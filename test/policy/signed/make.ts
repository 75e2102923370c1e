// Makes the signed bundles that the tests verify, with the real `opa` on the PATH:
// `node test/policy/signed/make.ts`. Every run makes new keys. The private ones vanish with the
// temporary directory, so that nobody can sign anything with what is committed; only the secret of
// the HMAC bundles has to stay (it is what verifies them), and is good for nothing else.
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

process.chdir(fileURLToPath(new URL('.', import.meta.url)))

const directory = mkdtempSync(join(tmpdir(), 'postern-signed-'))
const PEM = {
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
} as const

try {
  const rsa = keep('rsa', generateKeyPairSync('rsa', { modulusLength: 2048, ...PEM }))
  const curve = (name: string, namedCurve: string) =>
    keep(name, generateKeyPairSync('ec', { namedCurve, ...PEM }))
  const keys = {
    RS: () => rsa,
    PS: () => rsa,
    ES256: curve('p256', 'P-256'),
    ES384: curve('p384', 'P-384'),
    ES512: curve('p521', 'P-521'),
  }
  const secret = 'bundles/secret'
  writeFileSync(secret, randomBytes(64).toString('hex'))
  for (const size of ['256', '384', '512'] as const) {
    build(`RS${size}`, keys.RS(), `RS${size}`)
    build(`PS${size}`, keys.PS(), `PS${size}`)
    build(`ES${size}`, keys[`ES${size}`], `ES${size}`)
    build(`HS${size}`, secret, `HS${size}`)
  }
  // With a module, and a name of its own for the key: what a sidecar can run.
  build('policy', rsa, 'RS256', ['-t', 'wasm', '-e', 'envoy/authz/allow', ...named('release')])
  build('scoped', rsa, 'RS256', claims({ scope: 'prod', iat: 1_700_000_000, keyid: 'release' }))
  build('nameless', rsa, 'RS256', claims({ iss: 'nobody' }))
} finally {
  rmSync(directory, { recursive: true })
}

function keep(name: string, keys: { publicKey: string; privateKey: string }): string {
  writeFileSync(`bundles/${name}.pem`, keys.publicKey)
  const path = join(directory, `${name}.key`)
  writeFileSync(path, keys.privateKey)
  return path
}

function build(name: string, key: string, algorithm: string, more: readonly string[] = []): void {
  const output = `bundles/${name}.tar.gz`
  const signing = ['--signing-key', key, '--signing-alg', algorithm]
  execFileSync('opa', ['build', '-b', 'source', ...signing, ...more, '-o', output])
}

function named(id: string): readonly string[] {
  return ['--verification-key-id', id]
}

function claims(content: object): readonly string[] {
  const path = join(directory, 'claims.json')
  writeFileSync(path, JSON.stringify(content))
  return ['--claims-file', path]
}
