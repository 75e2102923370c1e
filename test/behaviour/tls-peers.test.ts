// Every kind of certificate that must not get in, at the real process: refused, counted and logged
// for the right reason, and unheard of at the workload.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { before, describe, it, type TestContext } from 'node:test'
import type tls from 'node:tls'
import { altNames, der, forge, octets, sequence, text, uriName } from '../identity/forge.ts'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  type Authority,
  type AuthorityOptions,
  type IssuedCertificate,
  type IssueOptions,
  spiffeId,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
  WEB,
  writeFiles,
} from '../support/pki.ts'
import {
  call,
  connectRaw,
  type LogLine,
  startSidecar,
  type TestSidecar,
} from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const HOUR_MS = 3_600_000
const PARTNER = 'partner.example'
const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const

interface Stand {
  readonly sidecar: TestSidecar
  readonly workload: Workload
  /** Vouches for example.org. */
  readonly authority: TestAuthority
  /** Vouches for the partner's domain alone. */
  readonly partner: TestAuthority
  /** A second issuer of example.org: no CRL. */
  readonly silent: Authority
  /** A third one: its CRL is old. */
  readonly stale: Authority
  readonly revoked: IssuedCertificate
}

interface Case {
  readonly name: string
  readonly make: (stand: Stand) => Promise<IssuedCertificate>
  readonly reason: string
  readonly detail: RegExp
}

const issued =
  (options: IssueOptions) =>
  ({ authority }: Stand): Promise<IssuedCertificate> =>
    authority.intermediate.issue({ uris: [WEB], ...options })

const CASES: readonly Case[] = [
  {
    name: 'an expired certificate, with both times',
    make: issued({
      notBefore: new Date('2025-01-02T03:04:05Z'),
      notAfter: new Date('2025-01-03T03:04:05Z'),
    }),
    reason: 'expired',
    detail: /2025-01-02T03:04:05.*2025-01-03T03:04:05.*now 20\d\d-/,
  },
  {
    name: 'a certificate that is not yet valid, with both times',
    make: issued({
      notBefore: new Date('2048-01-02T03:04:05Z'),
      notAfter: new Date('2048-01-03T03:04:05Z'),
    }),
    reason: 'not_yet_valid',
    detail: /2048-01-02T03:04:05.*2048-01-03T03:04:05.*now 20\d\d-/,
  },
  {
    name: 'a certificate for servers only',
    make: issued({ usages: ['serverAuth'] }),
    reason: 'purpose',
    detail: /lacks clientAuth/,
  },
  {
    name: 'a certificate for code only',
    make: issued({ usages: ['codeSigning'] }),
    reason: 'purpose',
    detail: /lacks clientAuth/,
  },
  {
    name: 'a key that may not sign',
    make: issued({ keyUsage: ['keyAgreement'] }),
    reason: 'purpose',
    detail: /lacks digitalSignature/,
  },
  {
    name: 'a CA certificate',
    make: issued({ ca: true }),
    reason: 'purpose',
    detail: /CA certificate/,
  },
  {
    name: 'a self-signed certificate',
    make: async () => selfSigned(),
    reason: 'untrusted',
    detail: /no path/,
  },
  {
    name: 'an authority that nobody knows, under the name of one that is known',
    make: async () => (await testAuthority()).svid('web'),
    reason: 'untrusted',
    detail: /no path/,
  },
  {
    name: 'a revoked certificate',
    make: async ({ revoked }) => revoked,
    reason: 'revoked',
    detail: /ca\.crl .* lists serial/,
  },
  {
    name: 'an issuer without a CRL',
    make: ({ silent }) => silent.issue({ uris: [WEB] }),
    reason: 'revocation_unknown',
    detail: /there is no CRL of CN=silent/,
  },
  {
    name: 'an issuer whose CRL is stale, with both times',
    make: ({ stale }) => stale.issue({ uris: [WEB] }),
    reason: 'revocation_unknown',
    detail: /holds from .* to 20\d\d-.*, now 20\d\d-/,
  },
  {
    name: 'two SPIFFE IDs',
    make: issued({ uris: [WEB, spiffeId('orders')] }),
    reason: 'bad_identity',
    detail: /beside 1 other URI/,
  },
  {
    name: 'a SPIFFE ID beside another URI',
    make: issued({ uris: ['https://example.org/', WEB] }),
    reason: 'bad_identity',
    detail: /beside 1 other URI/,
  },
  ...[
    'spiffe://example.org',
    'spiffe://example.org/',
    'spiffe://example.org/ns//sa/web',
    'spiffe://example.org/ns/../sa/web',
    'spiffe://example.org/ns/default/sa/web?x=1',
    'spiffe://example.org/ns/default/sa/%77eb',
    'spiffe://EXAMPLE.org/ns/default/sa/web',
    'spiffe://example.org:8443/ns/default/sa/web',
    'SPIFFE://example.org/ns/default/sa/web',
  ].map((uri) => ({
    name: `the malformed SPIFFE ID ${uri}`,
    make: issued({ uris: [uri] }),
    reason: 'bad_identity',
    detail: /not a SPIFFE ID/,
  })),
  {
    name: 'an identity of a trust domain whose bundle is another one',
    make: ({ partner }) => partner.intermediate.issue({ uris: [WEB] }),
    reason: 'untrusted',
    detail: /no path/,
  },
  {
    name: 'an identity of a trust domain without a bundle',
    make: issued({ uris: ['spiffe://elsewhere.example/ns/default/sa/web'] }),
    reason: 'untrusted',
    detail: /no trust bundle for the trust domain elsewhere\.example/,
  },
  {
    name: 'a name without a trust domain',
    make: issued({ uris: [], dns: ['web.example.org'] }),
    reason: 'untrusted',
    detail: /no trust bundle for peers without SPIFFE ID/,
  },
  {
    name: 'an unknown critical extension',
    make: issued({
      extraExtensions: [{ oid: '1.3.6.1.4.1.55555.1', critical: true, der: octets() }],
    }),
    reason: 'untrusted',
    detail: /critical extension that is not understood/,
  },
  ...(['uri', 'dns', 'email'] as const).map((kind) => ({
    name: `a name that spells another one (${kind})`,
    make: issued({
      uris: [],
      commonName: 'injection',
      extraExtensions: [{ oid: '2.5.29.17', der: injectedNames(kind) }],
    }),
    // A mail address is no name that we know, which leaves the subject.
    reason: kind === 'email' ? 'untrusted' : 'bad_identity',
    detail: kind === 'email' ? /no trust bundle for peers without SPIFFE ID/ : /./,
  })),
  {
    name: 'an RSA key of 1024 bits',
    make: issued({ keyType: 'rsa-1024' }),
    reason: 'untrusted',
    detail: /RSA key of 1024 bits/,
  },
  {
    name: 'a certificate signed with SHA-1',
    make: issued({ signatureHash: 'SHA-1' }),
    reason: 'untrusted',
    detail: /algorithm that is not believed/,
  },
  {
    name: 'an issuer that was signed with SHA-1',
    make: below({ signatureHash: 'SHA-1' }),
    reason: 'untrusted',
    detail: /no path/,
  },
  {
    name: 'an issuer with an RSA key of 1024 bits',
    make: below({ keyType: 'rsa-1024' }),
    reason: 'untrusted',
    detail: /CN=below: it has an RSA key of 1024 bits/,
  },
  {
    name: 'an issuer with an unknown critical extension',
    make: below({
      extraExtensions: [{ oid: '1.3.6.1.4.1.55555.1', critical: true, der: octets() }],
    }),
    reason: 'untrusted',
    detail: /CN=below: it has a critical extension/,
  },
  {
    name: 'a name that its issuer may not vouch for',
    make: below({
      extraExtensions: [
        {
          oid: '2.5.29.30',
          critical: true,
          der: sequence(der(0xa0, sequence(text(0x86, 'elsewhere.example')))),
        },
      ],
    }),
    reason: 'purpose',
    detail: /CN=below: its name constraints do not allow spiffe:/,
  },
  {
    name: 'an expired issuer',
    make: below({
      notBefore: new Date(Date.now() - 2 * HOUR_MS),
      notAfter: new Date(Date.now() - HOUR_MS),
    }),
    reason: 'expired',
    detail: /CN=below: valid from/,
  },
  {
    name: 'six issuers',
    make: async ({ authority }) => {
      let issuer: Authority = authority.root
      for (let depth = 1; depth <= 5; depth++) issuer = await issuer.intermediate()
      return issuer.issue({ uris: [WEB] })
    },
    reason: 'untrusted',
    detail: /no path/,
  },
  {
    name: 'more names than anybody has',
    make: issued({ uris: namesOf(101) }),
    reason: 'bad_identity',
    detail: /more than 100 subject alternative names/,
  },
  {
    name: 'an identity on the deny list',
    make: issued({ uris: [spiffeId('denied')] }),
    reason: 'deny_listed',
    detail: /revoked\.yaml:1: left the company/,
  },
]

function namesOf(count: number): string[] {
  return Array.from({ length: count }, (_, at) => spiffeId(`web${at}`))
}

/** A leaf whose issuer is one more, under the root. */
function below(options: AuthorityOptions): Case['make'] {
  return async ({ authority }) => {
    const issuer = await authority.root.intermediate({ commonName: 'below', ...options })
    return issuer.issue({ uris: [WEB] })
  }
}

/** As text in OpenSSL's manner, each of these would be a second name of its own. */
function injectedNames(kind: 'uri' | 'dns' | 'email'): Buffer {
  const tag = { uri: 0x86, dns: 0x82, email: 0x81 }[kind]
  const prefix = kind === 'uri' ? 'spiffe://example.org/a' : 'a'
  return sequence(text(tag, `${prefix}, URI:${WEB}`))
}

describe('a client is refused that presents', () => {
  let stand: Stand
  const t = suiteCleanup()
  before(async () => {
    stand = await startStand(t)
  })
  for (const one of CASES) {
    it(one.name, async (test) => {
      const certificate = await one.make(stand)
      for (const version of VERSIONS) await refused(test, stand, certificate, one, version)
    })
  }
  for (const version of VERSIONS) {
    it(`nothing (${version})`, (test) =>
      refused(
        test,
        stand,
        undefined,
        { reason: 'no_certificate', detail: /no certificate/ },
        version,
      ))
  }

  it('thousands of names, which stalls nobody else', async (test) => {
    // The second is more than OpenSSL reads of a client at all.
    for (const count of [1_000, 5_000]) {
      const many = await issued({ uris: namesOf(count) })(stand)
      const client = await connectRaw(test, stand.sidecar, many, {
        // Dear handshakes that fail have a price, which is for this address to pay.
        localAddress: `127.0.0.${count / 1_000 + 1}`,
      } as tls.ConnectionOptions).catch(() => undefined)
      client?.write('GET /must/not/arrive HTTP/1.1\r\nhost: localhost\r\n\r\n')
      await client?.closed
      assert.doesNotMatch(client?.received() ?? '', /^HTTP\/1.1 200/)
      assert.equal((await call(stand.sidecar, await stand.authority.svid('web'))).status, 200)
    }
    assert.ok(stand.workload.seen.every(({ url }) => url !== '/must/not/arrive'))
  })
})

describe('a client is let in that presents', () => {
  let stand: Stand
  const t = suiteCleanup()
  before(async () => {
    stand = await startStand(t)
  })
  const welcome: Readonly<Record<string, (one: Stand) => Promise<IssuedCertificate>>> = {
    'a certificate without extended key usage': issued({ usages: 'none' }),
    'a certificate without key usage': issued({ keyUsage: 'none' }),
    'a certificate for clients only': issued({ usages: ['clientAuth'] }),
    'a P-384 key': issued({ keyType: 'ec-p384' }),
    'a P-521 key': issued({ keyType: 'ec-p521' }),
    'an Ed25519 key': issued({ keyType: 'ed25519' }),
    'an RSA key of 2048 bits': issued({ keyType: 'rsa-2048' }),
    "an identity of the partner's domain": ({ partner }) => partner.svid('web'),
  }
  for (const [name, make] of Object.entries(welcome)) {
    it(name, async () => {
      assert.equal((await call(stand.sidecar, await make(stand))).status, 200)
    })
  }
})

describe('a trust bundle that ends at an intermediate', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let authority: TestAuthority
  before(async () => {
    authority = await testAuthority()
    const { 'bundle.pem': file } = await writeFiles(await temporaryDirectory(t), {
      'bundle.pem': authority.intermediate.certificatePem,
    })
    sidecar = await startSidecar(t, {
      authority,
      forward: (await startWorkload(t)).url,
      config: { trust: { bundles: [{ file, trustDomain: 'example.org' }] } },
    })
  })
  const lets = async (client: IssuedCertificate): Promise<boolean> =>
    (await call(sidecar, client)).status === 200

  it('vouches for what that has issued, with or without it sent along', async () => {
    const web = await authority.svid('web')
    assert.ok(await lets(web))
    const alone = await authority.svid('web')
    assert.ok(await lets({ ...alone, chainPem: alone.certificatePem }))
  })

  it('vouches for nothing else of its root, and for nobody who sends the root along', async () => {
    const beside = await authority.root.intermediate({ trustDomain: 'example.org' })
    const other = await beside.issue({ uris: [WEB] })
    const chainPem = other.chainPem + authority.root.certificatePem
    assert.equal(await lets({ ...other, chainPem }), false)
    assert.equal(await lets(await authority.root.issue({ uris: [WEB] })), false)
    assert.equal(await lets(await (await testAuthority()).svid('web')), false)
    const expired = { notBefore: new Date(Date.now() - 2 * HOUR_MS), notAfter: new Date() }
    assert.equal(await lets(await authority.svid('web', expired)), false)
  })

  it('does so after a reload as well', async () => {
    const generation = await sidecar.metric('postern_snapshot_generation')
    const next = await sidecar.authority.intermediate.issue({
      uris: [spiffeId('orders')],
      dns: ['localhost'],
    })
    await writeFile(sidecar.files.privateKey, next.privateKeyPem)
    await writeFile(sidecar.files.certificate, next.chainPem)
    await eventually('the rotation', async () => {
      return (await sidecar.metric('postern_snapshot_generation')) > generation
    })
    assert.ok(await lets(await authority.svid('web')))
  })
})

async function refused(
  t: TestContext,
  { sidecar, workload }: Stand,
  certificate: IssuedCertificate | undefined,
  { reason, detail }: Pick<Case, 'reason' | 'detail'>,
  version: tls.SecureVersion,
): Promise<void> {
  // Ten lines a second for each reason, then the log only counts: wait for the next second.
  const aboutReason = (line: LogLine): boolean => line['reason'] === reason
  await eventually('the log has room', () => {
    const second = new Date(Date.now() - 1_500).toISOString()
    const recent = sidecar.lines.filter(
      (line) => aboutReason(line) && String(line['time']) > second,
    )
    return recent.length < 9
  })
  const series = `postern_handshakes_total{result="failure",reason="${reason}"}`
  const before = await sidecar.metric(series)
  const linesBefore = sidecar.lines.length
  const path = '/must/not/arrive'
  const client = await connectRaw(t, sidecar, certificate, {
    minVersion: version,
    maxVersion: version,
    // For the certificates that OpenSSL would not even send.
    ciphers: 'DEFAULT:@SECLEVEL=0',
  })
  client.write(`GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`)
  await client.closed
  await eventually('it is counted', async () => (await sidecar.metric(series)) === before + 1)
  const line = await eventually('it is logged', () =>
    sidecar.lines.slice(linesBefore).find(({ event }) => event === 'handshake_failed'),
  )
  assert.equal(line['reason'], reason)
  assert.match(String(line['detail']), detail)
  assert.match(client.received(), /^HTTP\/1.1 403 [\s\S]*"error":"peer_/)
  assert.ok(workload.seen.every(({ url }) => url !== path))
}

async function startStand(t: Cleanup): Promise<Stand> {
  const authority = await testAuthority()
  const partner = await testAuthority(PARTNER)
  const silent = await authority.root.intermediate({ commonName: 'silent' })
  const stale = await authority.root.intermediate({ commonName: 'stale' })
  const revoked = await authority.svid('web')
  const paths = await writeFiles(await temporaryDirectory(t), {
    'ca.crt':
      authority.root.certificatePem +
      authority.intermediate.certificatePem +
      silent.certificatePem +
      stale.certificatePem,
    'revoked.yaml': `- { spiffeId: "${spiffeId('denied')}", reason: left the company }`,
    'partner.crt': partner.root.certificatePem + partner.intermediate.certificatePem,
    'ca.crl':
      (await authority.intermediate.crl({ revoked: [{ serial: revoked.serial }] })) +
      (await partner.intermediate.crl({ revoked: [] })) +
      (await stale.crl({
        revoked: [],
        thisUpdate: new Date(Date.now() - 2 * HOUR_MS),
        nextUpdate: new Date(Date.now() - HOUR_MS),
      })),
  })
  const workload = await startWorkload(t)
  const sidecar = await startSidecar(t, {
    forward: workload.url,
    authority,
    config: {
      trust: {
        bundles: [
          { trustDomain: 'example.org', file: paths['ca.crt'] },
          { trustDomain: PARTNER, file: paths['partner.crt'] },
        ],
        crls: [paths['ca.crl']],
        revoked: paths['revoked.yaml'],
      },
      inbound: { limits: { handshakeFailuresPerAddress: 100_000 } },
    },
  })
  return { sidecar, workload, authority, partner, silent, stale, revoked }
}

function selfSigned(): IssuedCertificate {
  const { certificate, key } = forge({ extensions: [altNames(uriName(WEB))] })
  const pem = certificate.toString()
  return {
    certificatePem: pem,
    chainPem: pem,
    privateKeyPem: key.export({ type: 'pkcs8', format: 'pem' }).toString(),
    serial: certificate.serialNumber,
  }
}
