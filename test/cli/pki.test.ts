import assert from 'node:assert/strict'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { PkiDirectory } from '../../src/cli/pki/directory.ts'
import type { TrustBundleMaterial } from '../../src/identity/material.ts'
import { parseTrustBundle } from '../../src/identity/trust.ts'
import { PeerVerifier } from '../../src/identity/verifier.ts'
import { accepted, trustOf } from '../identity/trust-material.ts'
import { postern } from '../support/command.ts'
import { handshake } from '../support/handshake.ts'
import { Authority, type IssuedCertificate, temporaryDirectory, WEB } from '../support/pki.ts'

const read = (directory: string, name: string): Promise<string> =>
  readFile(join(directory, name), 'utf8')

async function ca(t: Pick<TestContext, 'after'>): Promise<string> {
  const directory = join(await temporaryDirectory(t), 'pki')
  const result = await postern(['pki', 'init', '--dir', directory])
  assert.deepEqual([result.exitCode, result.stderr], [0, ''])
  return directory
}

const HOUR_MS = 3_600_000
const PROFILE = { keyType: 'ec-p256', lifetimeMs: HOUR_MS } as const

test('issues identities that two ends of a mutual TLS connection accept', async (t) => {
  const directory = await ca(t)
  const issue = ['pki', 'issue', '--dir', directory, '--uri']
  const client = await postern([...issue, WEB, '--name', 'client', '--ttl', '1h'])
  const server = await postern([
    ...[...issue, 'spiffe://example.org/ns/default/sa/orders'],
    ...['--dns', 'localhost', '--ip', '127.0.0.1', '--cn', 'orders', '--key-type', 'rsa-2048'],
  ])
  assert.deepEqual([client.exitCode, server.exitCode], [0, 0], client.stderr + server.stderr)

  const trust = { ca: await read(directory, 'ca.crt'), crl: await read(directory, 'ca.crl') }
  const met = await handshake(
    {
      ...trust,
      cert: await read(directory, 'orders.crt'),
      key: await read(directory, 'orders.key'),
    },
    {
      ...trust,
      cert: await read(directory, 'client.pem'),
      key: await read(directory, 'client.pem'),
    },
  )
  assert.equal(met.client, `URI:${WEB}`)
  assert.equal(
    met.server,
    'URI:spiffe://example.org/ns/default/sa/orders, DNS:localhost, IP Address:127.0.0.1',
  )
})

test('refuses a revoked identity by the CRL, and still accepts the others', async (t) => {
  const directory = await ca(t)
  const pki = await PkiDirectory.open(directory)
  await pki.issue('web', { ...PROFILE, uri: WEB })
  await pki.issue('server', { ...PROFILE, uri: 'spiffe://example.org/server' })
  const server = async () => ({
    ca: await read(directory, 'ca.crt'),
    crl: await read(directory, 'ca.crl'),
    cert: await read(directory, 'server.crt'),
    key: await read(directory, 'server.key'),
  })
  const client = async () => ({
    ca: await read(directory, 'ca.crt'),
    cert: await read(directory, 'web.crt'),
    key: await read(directory, 'web.key'),
  })
  await handshake(await server(), await client())

  const revoked = await postern(['pki', 'revoke', '--dir', directory, '--name', 'web'])
  assert.equal(revoked.exitCode, 0, revoked.stderr)
  await assert.rejects(handshake(await server(), await client()), /revoked/i)

  await pki.issue('web', { ...PROFILE, uri: WEB })
  await handshake(await server(), await client())
})

test('revokes every certificate of a name that is still valid, and one serial number alone', async (t) => {
  const directory = await ca(t)
  const pki = await PkiDirectory.open(directory)
  const serials = [] as string[]
  for (let i = 0; i < 3; i++) {
    serials.push((await pki.issue('web', { ...PROFILE, uri: WEB })).serial)
  }
  const first = serials[0] as string
  const withColons = first.toUpperCase().replace(/(..)(?=.)/g, '$1:')
  assert.deepEqual(
    (await pki.revoke({ serial: withColons })).map(({ serial }) => serial),
    [first],
  )
  assert.deepEqual(
    (await pki.revoke({ name: 'web' })).map(({ serial }) => serial),
    serials.slice(1),
  )
  assert.deepEqual(await pki.revoke({ name: 'web' }), [])
  assert.equal((await pki.writeCrl(HOUR_MS)).length, 3)
})

test('keeps everything when commands issue and revoke at the same time', async (t) => {
  const directory = await ca(t)
  const pki = await PkiDirectory.open(directory)
  const names = Array.from({ length: 10 }, (_, i) => `workload-${i}`)
  await Promise.all(names.map((name) => pki.issue(name, { ...PROFILE, uri: WEB })))
  await Promise.all(names.map((name) => pki.revoke({ name })))
  assert.equal((await pki.writeCrl(HOUR_MS)).length, names.length)
})

test('makes keys readable for the owner only, and leaves no temporary file behind', async (t) => {
  const directory = await ca(t)
  await (await PkiDirectory.open(directory)).issue('web', { ...PROFILE, uri: WEB })
  const modes = new Map<string, string>()
  for (const name of await readdir(directory)) {
    modes.set(name, ((await stat(join(directory, name))).mode & 0o777).toString(8))
  }
  assert.deepEqual(
    [...modes]
      .filter(([, mode]) => mode === '600')
      .map(([name]) => name)
      .sort(),
    ['intermediate.key', 'root.key', 'web.key', 'web.pem'],
  )
  assert.deepEqual(
    [...modes.keys()].filter((name) => name.startsWith('.')),
    [],
  )
})

test('revokes and signs CRLs after the key of the root was taken away', async (t) => {
  const directory = await ca(t)
  await rm(join(directory, 'root.key'))
  const pki = await PkiDirectory.open(directory)
  const { serial } = await pki.issue('web', { ...PROFILE, uri: WEB })
  assert.equal((await pki.revoke({ serial })).length, 1)
  const again = await postern(['pki', 'init', '--dir', directory])
  assert.equal(again.exitCode, 1)
  assert.match(again.stderr, /a CA is there already/)
})

test('takes the directory from the environment', async (t) => {
  const directory = await ca(t)
  const result = await postern(['pki', 'issue', '--uri', WEB], { env: { POSTERN_PKI: directory } })
  assert.equal(result.exitCode, 0, result.stderr)
  assert.match(await read(directory, 'web.crt'), /BEGIN CERTIFICATE/)
})

test('says what is wrong and what would be right, and changes nothing', async (t) => {
  const directory = await ca(t)
  const cases: readonly (readonly [
    what: string,
    args: string[],
    exitCode: number,
    text: RegExp,
  ])[] = [
    ['a CA that exists', ['init'], 1, /ca\.crt: a CA is there already\n {2}choose another --dir/],
    [
      'a trust domain in upper case',
      ['init', '--trust-domain', 'A.org'],
      2,
      /such as example\.org/,
    ],
    ['nobody to issue for', ['issue'], 2, /nothing says whom to issue for\n {2}give --uri spiffe:/],
    [
      'a malformed SPIFFE ID',
      ['issue', '--uri', 'spiffe://A.org/x'],
      2,
      /Write a SPIFFE ID such as/,
    ],
    ['a SPIFFE ID without path', ['issue', '--uri', 'spiffe://example.org'], 2, /a path/],
    [
      'another trust domain',
      ['issue', '--uri', 'spiffe://a.org/x'],
      2,
      /write spiffe:\/\/example\.org/,
    ],
    [
      'a name that leaves the directory',
      ['issue', '--cn', 'x', '--name', '../x'],
      2,
      /give a --name/,
    ],
    ['a name of the CA itself', ['issue', '--cn', 'ca'], 2, /--name: "ca" cannot name the files/],
    ['an address that is none', ['issue', '--cn', 'x', '--ip', '1.2.3'], 2, /IPv4 or IPv6/],
    ['a lifetime without unit', ['issue', '--cn', 'x', '--ttl', '12'], 2, /90s, 15m, 24h or 30d/],
    ['a lifetime beyond the CA', ['issue', '--cn', 'x', '--ttl', '400d'], 2, /ends before 20/],
    ['an unknown key type', ['issue', '--cn', 'x', '--key-type', 'dsa'], 2, /ec-p256/],
    ['an unknown name', ['revoke', '--name', 'nobody'], 1, /named nobody was issued here/],
    ['an unknown serial number', ['revoke', '--serial', 'abc'], 1, /serial number abc/],
    ['a serial number that is none', ['revoke', '--serial', 'xyz'], 2, /hexadecimal/],
    [
      'name and serial number',
      ['revoke', '--name', 'a', '--serial', 'a'],
      2,
      /cannot be used with/,
    ],
    ['nothing to revoke', ['revoke'], 2, /give --name web, --serial .* or --intermediate/],
    ['an unknown option', ['crl', '--foo'], 2, /unknown option '--foo'/],
  ]
  for (const [what, [name = '', ...args], exitCode, text] of cases) {
    await t.test(what, async () => {
      const files = await snapshot(directory)
      const result = await postern(['pki', name, '--dir', directory, ...args])
      assert.equal(result.exitCode, exitCode, result.stderr)
      assert.match(result.stderr, text)
      assert.doesNotMatch(result.stderr, /\n\s+at /)
      assert.deepEqual(await snapshot(directory), files)
    })
  }
})

describe('says which file is in the way', () => {
  const cases: readonly (readonly [string, (inside: string) => Promise<string[]>, RegExp])[] = [
    [
      'no CA',
      async (d) => ['issue', '--dir', d, '--cn', 'x'],
      /holds no development CA\n.*pki init/,
    ],
    [
      'a parent that is not there',
      async (d) => ['init', '--dir', join(d, 'a', 'b')],
      /cannot be written: there is no such file or directory/,
    ],
    [
      'a file where a directory should be',
      async (d) => {
        await writeFile(join(d, 'file'), '')
        return ['init', '--dir', join(d, 'file')]
      },
      /is a file, not a directory/,
    ],
    ['a directory that nobody can write', async () => ['init', '--dir', '/proc/pki'], /be written/],
    [
      'a key of another CA',
      async (d) => {
        const { intermediate, other } = {
          intermediate: await Authority.create(),
          other: await Authority.create(),
        }
        await writeFile(join(d, 'intermediate.crt'), intermediate.certificatePem)
        await writeFile(join(d, 'intermediate.key'), other.privateKeyPem)
        return ['crl', '--dir', d]
      },
      /does not belong to the certificate/,
    ],
    [
      'a damaged record of what was revoked',
      async (d) => {
        await PkiDirectory.create(join(d, 'pki'), {
          ...PROFILE,
          trustDomain: 'example.org',
        })
        await writeFile(join(d, 'pki', 'revoked.ndjson'), '{"serial":1}\n')
        return ['crl', '--dir', join(d, 'pki')]
      },
      /revoked\.ndjson line 1: is not a record/,
    ],
  ]
  for (const [what, prepare, text] of cases) {
    test(what, async (t) => {
      const result = await postern(['pki', ...(await prepare(await temporaryDirectory(t)))])
      assert.equal(result.exitCode, 1, result.stderr)
      assert.match(result.stderr, text)
      assert.doesNotMatch(result.stderr, /\n\s+at /)
    })
  }
})

test('shows an example for each command', async () => {
  for (const name of ['init', 'issue', 'revoke', 'crl']) {
    const { exitCode, stdout } = await postern(['pki', name, '--help'])
    assert.equal(exitCode, 0)
    assert.match(stdout, new RegExp(`Example:\n  postern pki ${name} `))
  }
})

describe('the authority in memory', () => {
  for (const keyType of ['ec-p256', 'ec-p384', 'ec-p521', 'rsa-2048', 'ed25519'] as const) {
    test(`signs leaves and CRLs with ${keyType}, also after it was stored and loaded`, async () => {
      const created = await Authority.create({ keyType })
      const root = await Authority.load(created)
      const leaf = await root.issue({ keyType, uris: [WEB] })
      const certificate = new X509Certificate(leaf.certificatePem)
      assert.ok(certificate.verify(new X509Certificate(created.certificatePem).publicKey))
      assert.ok(certificate.checkPrivateKey(createPrivateKey(leaf.privateKeyPem)))
      const end = (issued: IssuedCertificate) => ({
        ca: root.certificatePem,
        cert: issued.chainPem,
        key: issued.privateKeyPem,
      })
      const none = await root.crl({ revoked: [] })
      await handshake({ ...end(leaf), crl: none }, end(leaf))
      const crl = await root.crl({ revoked: [{ serial: leaf.serial }] })
      await assert.rejects(handshake({ ...end(leaf), crl }, end(leaf)), /revoked/i)
    })
  }

  test('takes a name for what it is, not for an attribute or hexadecimal', async () => {
    const root = await Authority.create()
    for (const commonName of ['a, O=b', '#04', 'CN=x+OU=y', 'é']) {
      const { certificatePem } = await root.issue({ commonName })
      const subject = new X509Certificate(certificatePem).toLegacyObject().subject
      assert.deepEqual({ ...subject }, { CN: commonName })
    }
  })
})

async function snapshot(directory: string): Promise<Record<string, string>> {
  const names = (await readdir(directory)).sort()
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await read(directory, name)] as const)),
  )
}

test('issues below several intermediates, with CRLs of all of them', async (t) => {
  const directory = join(await temporaryDirectory(t), 'pki')
  const made = await postern(['pki', 'init', '--dir', directory, '--intermediates', '3'])
  assert.equal(made.exitCode, 0, made.stderr)
  const issued = await postern(['pki', 'issue', '--dir', directory, '--uri', WEB])
  assert.equal(issued.exitCode, 0, issued.stderr)
  const certificates = (text: string): number => text.split('BEGIN CERTIFICATE').length - 1
  const leaf = await read(directory, 'web.crt')
  assert.deepEqual([certificates(leaf), certificates(await read(directory, 'ca.crt'))], [4, 4])
  assert.equal((await read(directory, 'ca.crl')).split('BEGIN X509 CRL').length - 1, 4)
  const { bundles, crls } = await materialsOf([[directory, undefined]])
  const verifier = new PeerVerifier(
    trustOf(bundles, { crls, revocation: { required: true, scope: 'chain' } }),
  )
  const chain = leaf.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g) ?? []
  const peer = accepted(
    verifier.verify(
      chain.map((pem) => new X509Certificate(pem)),
      Date.now(),
    ),
  )
  assert.equal(peer.chain.length, 5)
})

for (const intermediates of ['1', '2']) {
  test(`revokes the CA below the root, of ${intermediates}, and with it all that it issued`, async (t) => {
    const directory = join(await temporaryDirectory(t), 'pki')
    await postern(['pki', 'init', '--dir', directory, '--intermediates', intermediates])
    await postern(['pki', 'issue', '--dir', directory, '--uri', WEB])
    const chain = (await read(directory, 'web.crt')).match(
      /-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g,
    )
    const verdict = async () => {
      const { bundles, crls } = await materialsOf([[directory, undefined]])
      const certificates = (chain ?? []).map((pem) => new X509Certificate(pem))
      return new PeerVerifier(trustOf(bundles, { crls })).verify(certificates, Date.now())
    }
    accepted(await verdict())
    const revoke = ['pki', 'revoke', '--dir', directory, '--intermediate']
    const { exitCode, stdout, stderr } = await postern(revoke)
    assert.deepEqual([exitCode, stderr], [0, ''])
    assert.match(stdout, /revoked the CA below the root, serial [0-9a-f]+/)
    const refused = await verdict()
    assert.ok(refused.kind === 'rejection')
    assert.equal(refused.reason, 'revoked')
    // A CRL that is signed later still says so.
    assert.equal((await postern(['pki', 'crl', '--dir', directory])).exitCode, 0)
    assert.equal((await verdict()).kind, 'rejection')
    await rm(join(directory, 'root.key'))
    const without = await postern(revoke)
    assert.equal(without.exitCode, 1)
    assert.match(without.stderr, /root\.key.*only the root can revoke/)
  })
}

test('keeps trust domains apart, each with a CA of its own', async (t) => {
  const directory = join(await temporaryDirectory(t), 'pki')
  const domains = ['--trust-domain', 'example.org', '--trust-domain', 'partner.example']
  const made = await postern(['pki', 'init', '--dir', directory, ...domains])
  assert.equal(made.exitCode, 0, made.stderr)
  const theirs = join(directory, 'partner.example')
  assert.match(made.stdout, /spiffe:\/\/partner\.example in .*partner\.example/)
  for (const id of [WEB, 'spiffe://partner.example/web']) {
    const issued = await postern(['pki', 'issue', '--dir', directory, '--uri', id])
    assert.equal(issued.exitCode, 0, issued.stderr)
  }
  const { bundles } = await materialsOf([
    [directory, 'example.org'],
    [theirs, 'partner.example'],
  ])
  const verifier = new PeerVerifier(trustOf(bundles))
  const verify = async (from: string) => {
    const pems = (await read(from, 'web.crt')).match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g)
    return verifier.verify(
      (pems ?? []).map((pem) => new X509Certificate(pem)),
      Date.now(),
    )
  }
  assert.equal(accepted(await verify(directory)).trustDomain, 'example.org')
  assert.equal(accepted(await verify(theirs)).trustDomain, 'partner.example')
  const stranger = await postern(['pki', 'issue', '--dir', directory, '--uri', 'spiffe://x/web'])
  assert.equal(stranger.exitCode, 2)
  assert.match(stranger.stderr, /is not in the trust domain of the CA, example\.org/)
})

test('issues what has expired, what is not yet valid, and a serial number of choice', async (t) => {
  const directory = await ca(t)
  const issue = (name: string, ...more: readonly string[]) =>
    postern(['pki', 'issue', '--dir', directory, '--uri', WEB, '--name', name, ...more])
  const expired = await issue('old', '--not-before', '-2h', '--ttl', '1h', '--serial', '0A:bc')
  assert.match(expired.stdout, /serial 0?abc, valid from .* until /)
  const early = await issue('young', '--not-before', '+1h')
  assert.equal(early.exitCode, 0, early.stderr)
  const at = await issue('dated', '--not-before', '2026-01-31T12:00:00Z', '--ttl', '30d')
  assert.match(at.stdout, /from 2026-01-31T12:00:00.000Z until 2026-03-02T12:00:00.000Z/)
  const of = async (name: string) => new X509Certificate(await read(directory, `${name}.crt`))
  assert.ok((await of('old')).validToDate < new Date())
  assert.ok((await of('young')).validFromDate > new Date())
  assert.match((await of('old')).serialNumber, /^0?ABC$/)
})

test('encrypts the key with the passphrase in a file', async (t) => {
  const directory = await ca(t)
  const file = join(directory, 'passphrase')
  await writeFile(file, 'open sesame\n')
  const issue = ['pki', 'issue', '--dir', directory, '--uri', WEB, '--passphrase-file', file]
  const { exitCode, stderr } = await postern(issue)
  assert.deepEqual([exitCode, stderr], [0, ''])
  for (const name of ['web.key', 'web.pem']) {
    const key = await read(directory, name)
    assert.match(key, /BEGIN ENCRYPTED PRIVATE KEY/)
    assert.throws(() => createPrivateKey(key))
    const opened = createPrivateKey({ key, passphrase: 'open sesame' })
    assert.ok(new X509Certificate(await read(directory, 'web.crt')).checkPrivateKey(opened))
  }
  await writeFile(file, '\n')
  const empty = await postern(issue)
  assert.equal(empty.exitCode, 2)
  assert.match(empty.stderr, /passphrase is empty/)
})

test('issues with every kind of key, as PKCS#8', async (t) => {
  const directory = await ca(t)
  const kinds = {
    'ec-p521': 'secp521r1',
    'rsa-3072': 3072,
    ed25519: 'ed25519',
  } as const
  for (const [kind, expected] of Object.entries(kinds)) {
    const issued = await postern([
      ...['pki', 'issue', '--dir', directory, '--uri', WEB, '--name', kind, '--key-type', kind],
    ])
    assert.equal(issued.exitCode, 0, issued.stderr)
    const pem = await read(directory, `${kind}.key`)
    assert.match(pem, /^-----BEGIN PRIVATE KEY-----/)
    const { asymmetricKeyType, asymmetricKeyDetails } = createPrivateKey(pem)
    const details = asymmetricKeyDetails?.namedCurve ?? asymmetricKeyDetails?.modulusLength
    assert.equal(details ?? asymmetricKeyType, expected)
  }
})

/** What a sidecar would read of these directories. */
async function materialsOf(from: readonly (readonly [string, string | undefined])[]) {
  const bundles: TrustBundleMaterial[] = []
  const crls: Buffer[] = []
  for (const [directory, trustDomain] of from) {
    const { material, problems } = parseTrustBundle(
      await read(directory, 'ca.crt'),
      'ca.crt',
      trustDomain,
      Date.now(),
    )
    assert.ok(material, JSON.stringify(problems))
    bundles.push(material)
    crls.push(await readFile(join(directory, 'ca.crl')))
  }
  return { bundles, crls }
}
