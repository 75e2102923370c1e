import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { verifyBundle } from '../../src/policy/bundle/signature.ts'
import {
  readVerificationKey,
  SIGNING_ALGORITHMS,
  type SigningAlgorithm,
} from '../../src/policy/bundle/verification-key.ts'
import { readBundle } from '../../src/policy/bundle.ts'
import {
  entriesOf,
  keyOf,
  SIGNED_WITH,
  secretKey,
  signatures,
  signedUrl,
  signing,
  token,
  verdict,
} from './signed/support.ts'

const explicit = (algorithm: SigningAlgorithm) => keyOf(SIGNED_WITH[algorithm], algorithm)

for (const algorithm of SIGNING_ALGORITHMS) {
  test(`a bundle that opa signed with ${algorithm} is verified, and not with another algorithm`, async () => {
    const entries = await entriesOf(algorithm)
    assert.equal(verdict(entries, signing(explicit(algorithm))), 'verified')
    for (const other of SIGNING_ALGORITHMS) {
      if (other === algorithm) continue
      assert.match(
        verdict(entries, signing(explicit(other))),
        /the signature says "..\d+", and the/,
      )
    }
  })
}

test('the algorithm is that of the kind of key where none is configured', async () => {
  for (const algorithm of ['RS256', 'ES256', 'ES384', 'ES512'] as const) {
    const key = keyOf(SIGNED_WITH[algorithm])
    assert.equal(key.algorithm, algorithm)
    assert.equal(verdict(await entriesOf(algorithm), signing(key)), 'verified')
  }
})

test('an unsigned bundle is refused as soon as one key is configured', async () => {
  const entries = new Map(await entriesOf('RS256'))
  entries.delete('.signatures.json')
  assert.match(verdict(entries, signing(keyOf('rsa.pem'))), /not signed/)
})

test('a signed bundle is refused while no key is configured', async () => {
  const read = readBundle(await entriesOf('policy'), 'bundle')
  assert.match(
    read.kind === 'problems' ? (read.problems[0]?.what ?? '') : '',
    /no key to verify it with/,
  )
})

test('what is verified has no signature any more and says which key and when', async () => {
  const key = keyOf('rsa.pem', 'RS256', 'release')
  const verified = verifyBundle(await entriesOf('scoped'), signing(key, { scope: 'prod' }), 'b')
  assert.equal(verified.kind, 'verified')
  if (verified.kind !== 'verified') return
  assert.equal(verified.entries.has('.signatures.json'), false)
  assert.equal(verified.keyId, 'release')
  assert.equal(verified.issuedAt, 1_700_000_000)
})

test('during a rotation the bundles of both keys are verified, and no others', async () => {
  const keys = [keyOf('rsa.pem', 'RS256', 'release'), keyOf('p256.pem', 'ES256', 'default')]
  const by = { keys, scope: '' }
  assert.equal(verdict(await entriesOf('policy'), by), 'verified')
  assert.equal(verdict(await entriesOf('ES256'), by), 'verified')
  assert.match(verdict(await entriesOf('RS256'), by), /"RS256", and the key default is for ES256/)
  const without = { keys: keys.slice(1), scope: '' }
  assert.match(verdict(await entriesOf('policy'), without), /the key "release".* not configured/)
})

test('a signature without a key id is believed only where there is one key to mean', async () => {
  const entries = await entriesOf('nameless')
  assert.equal(verdict(entries, signing(keyOf('rsa.pem'))), 'verified')
  const keys = [keyOf('rsa.pem'), keyOf('p256.pem', 'ES256', 'other')]
  assert.match(verdict(entries, { keys, scope: '' }), /does not say which key/)
})

test('the scope must be the configured one, also where either is empty', async () => {
  const key = keyOf('rsa.pem', 'RS256', 'release')
  const scoped = await entriesOf('scoped')
  assert.equal(verdict(scoped, signing(key, { scope: 'prod' })), 'verified')
  assert.match(verdict(scoped, signing(key)), /for the scope "prod", not ""/)
  assert.match(verdict(scoped, signing(key, { scope: 'test' })), /not "test"/)
  assert.match(verdict(await entriesOf('policy'), signing(key, { scope: 'prod' })), /scope ""/)
})

test('an older issue is refused where the time of issue counts, and so is none', async () => {
  const key = keyOf('rsa.pem', 'RS256', 'release')
  const since = (notBefore: number) => signing(key, { scope: 'prod', notBefore })
  const scoped = await entriesOf('scoped')
  assert.equal(verdict(scoped, since(1_700_000_000)), 'verified')
  assert.match(verdict(scoped, since(1_700_000_001)), /issued at 2023-11-14T22:13:20/)
  const ageless = await entriesOf('policy')
  assert.match(verdict(ageless, signing(key, { notBefore: 1 })), /does not say when/)
})

test('a file that was changed, added or taken away is found', async () => {
  const original = await entriesOf('RS256')
  const by = signing(keyOf('rsa.pem'))
  for (const name of original.keys()) {
    if (name === '.signatures.json') continue
    const taken = new Map(original)
    taken.delete(name)
    assert.match(verdict(taken, by), /is signed, and is not there/, name)
    const changed = new Map(original)
    changed.set(name, Buffer.from('{"a":1}'))
    assert.match(verdict(changed, by), /is not what was signed/, name)
  }
  for (const name of ['more.rego', 'more/data.json', 'x/.manifest', 'patch.json', 'data.yml']) {
    const added = new Map(original).set(name, Buffer.from('{}'))
    assert.match(verdict(added, by), new RegExp(`${name} is not signed`))
  }
})

test('white space and the order of keys are free, everything else of the data is not', async () => {
  const original = await entriesOf('RS256')
  const by = signing(keyOf('rsa.pem'))
  const text = original.get('data.json')?.toString() ?? ''
  const withData = (data: string) =>
    verdict(new Map(original).set('data.json', Buffer.from(data)), by)
  const zebra = text.replace(',"zebra":1e3', '').replace('"acl":{', '"acl": {"zebra":1e3 ,\n ')
  assert.notEqual(zebra, text)
  assert.equal(withData(zebra), 'verified')
  assert.equal(withData(text.replace('\\u003c', '<')), 'verified')
  for (const [from, to] of [
    ['1e3', '1000'],
    ['1.0', '1'],
    ['12345678901234567890', '12345678901234567168'],
    ['-0.0e-7', '0'],
    ['"zebra"', '"zebre"'],
    ['false', 'true'],
    ['\\u2028', '\\u2029'],
    ['[2,', '[3,'],
    ['__proto__', '__proto_'],
  ] as const) {
    assert.notEqual(text.replace(from, to), text, from)
    assert.match(withData(text.replace(from, to)), /is not what was signed/, from)
  }
  assert.match(withData(text.replace('}}', '}}x')), /not JSON/)
  assert.match(
    verdict(new Map(original).set('data.json', Buffer.from('{"a":"\xff"}', 'latin1')), by),
    /not JSON in UTF-8/,
  )
})

const FILE = Buffer.from('content')
const listed = (algorithm = 'SHA-256', hash = 'sha256') => ({
  name: 'a.rego',
  hash: createHash(hash).update(FILE).digest('hex'),
  algorithm,
})
const withSignature = (bytes: Buffer) =>
  new Map([
    ['a.rego', FILE],
    ['.signatures.json', bytes],
  ])
const by = signing(secretKey())

test('file hashes are SHA-256, SHA-384 or SHA-512', () => {
  for (const [name, hash] of [
    ['SHA-256', 'sha256'],
    ['SHA-384', 'sha384'],
    ['SHA-512', 'sha512'],
  ] as const) {
    assert.equal(
      verdict(withSignature(signatures({ files: [listed(name, hash)] })), by),
      'verified',
    )
  }
  for (const [name, hash] of [
    ['MD5', 'md5'],
    ['SHA-1', 'sha1'],
    ['SHA-224', 'sha224'],
    ['SHA-512-256', 'sha512-256'],
    ['sha-256', 'sha256'],
    ['', 'sha256'],
  ] as const) {
    const said = verdict(withSignature(signatures({ files: [listed(name, hash)] })), by)
    assert.match(said, /which is not accepted/, name)
  }
})

test('no header talks the verification into another algorithm or out of one', () => {
  const payload = { files: [listed()] }
  const said = (header: unknown) => verdict(withSignature(signatures(payload, header)), by)
  assert.equal(said({ alg: 'HS256', kid: 'k1', typ: 'JWT' }), 'verified')
  for (const alg of ['none', 'None', '', 'HS384', 'HS1', 'RS256', 'EdDSA', 'hs256', null, 7]) {
    assert.match(said({ alg, kid: 'k1' }), /and the key k1 is for HS256/, String(alg))
  }
  assert.match(said({ kid: 'k1' }), /says nothing, and the key k1/)
  assert.match(said({ alg: 'HS256', kid: 'k1', crit: ['b64'], b64: false }), /critical/)
  assert.match(said({ alg: 'HS256', kid: ['k1'] }), /not configured/)
  assert.match(said({ alg: 'HS256', kid: '__proto__' }), /not configured/)
  assert.match(said('nothing'), /header of the signature is not JSON/)
})

test('a public key cannot be used as the secret of an HMAC', async () => {
  const pem = readFileSync(signedUrl('rsa.pem'))
  const read = readVerificationKey('k1', pem, 'rsa.pem', 'HS256')
  assert.match(read.kind === 'problem' ? read.problem.what : '', /is a PEM file, and no secret/)
})

test('signature files of any other shape are refused', () => {
  const good = token({ files: [listed()] })
  const [header, payload, mac] = good.split('.') as [string, string, string]
  const said = (content: unknown) =>
    verdict(withSignature(Buffer.from(JSON.stringify(content))), by)
  assert.equal(said({ signatures: [good] }), 'verified')
  assert.match(said({ signatures: [] }), /exactly one/)
  assert.match(said({ signatures: [good, good] }), /exactly one/)
  assert.match(said({ signatures: good }), /exactly one/)
  assert.match(said({ signatures: [{}] }), /exactly one/)
  assert.match(said({}), /exactly one/)
  assert.match(said([good]), /no JSON object/)
  assert.match(said({ signatures: [good], plugin: 'other' }), /plugin/)
  for (const text of [
    '',
    '..',
    `${header}.${payload}`,
    `${header}.${payload}.`,
    `${good}.${mac}`,
    `${header}.${payload}.${mac}=`,
    `${header}.${payload}.${mac} `,
    `${header}..${mac}`,
    good.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')),
  ]) {
    assert.match(said({ signatures: [text] }), /no compact JWS|was not made with/, text)
  }
  const twice = { files: [listed(), { ...listed(), name: '/a.rego' }] }
  assert.match(verdict(withSignature(signatures(twice)), by), /lists a.rego twice/)
  for (const files of [undefined, null, {}, [], 'a']) {
    assert.match(verdict(withSignature(signatures({ files })), by), /a.rego is not signed/)
  }
  for (const file of [null, 'a', {}, { name: 'a.rego' }, { name: 1, hash: 2 }]) {
    assert.match(verdict(withSignature(signatures({ files: [file] })), by), /without name or hash/)
  }
  assert.match(
    verdict(
      withSignature(signatures({ files: [listed()], iat: 'now' })),
      signing(secretKey(), { notBefore: 1 }),
    ),
    /does not say when|no time/,
  )
})

test('a signed bundle holds no data.yaml and no second signature', () => {
  for (const name of ['data.yaml', 'a/data.yaml', 'x/.signatures.json', 'x/signatures.json']) {
    const files = [{ ...listed(), name }]
    const entries = new Map([
      [name, FILE],
      ['.signatures.json', signatures({ files })],
    ])
    assert.match(verdict(entries, by), /does not belong into a signed bundle/)
  }
})

test('key files that cannot serve are refused with the reason', () => {
  const pem = (type: 'spki' | 'pkcs8') => ({
    publicKeyEncoding: { type: 'spki', format: 'pem' } as const,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' } as const,
    type,
  })
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024, ...pem('spki') })
  const ed = generateKeyPairSync('ed25519', pem('spki'))
  const k1 = generateKeyPairSync('ec', { namedCurve: 'secp256k1', ...pem('spki') })
  const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256', ...pem('spki') })
  for (const [content, algorithm, expected] of [
    [weak.publicKey, undefined, /rsa 1024 key does not go with RS256/],
    [ed.publicKey, undefined, /ed25519 key cannot be used/],
    [ed.publicKey, 'ES256', /does not go with ES256/],
    [k1.publicKey, undefined, /ec secp256k1 key cannot be used/],
    [p256.publicKey, 'ES384', /prime256v1 key does not go with ES384/],
    [p256.publicKey, 'RS256', /does not go with RS256/],
    [p256.privateKey, undefined, /holds a PRIVATE KEY, and only public keys belong here/],
    ['a secret without an algorithm, long enough', undefined, /holds no PEM block/],
    ['-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----', undefined, /cannot be read/],
    ['short', 'HS256', /has 5 bytes, and 32 are the least/],
    ['x'.repeat(63), 'HS512', /has 63 bytes, and 64 are the least/],
  ] as const) {
    const read = readVerificationKey('k1', Buffer.from(content), 'file', algorithm)
    assert.match(read.kind === 'problem' ? read.problem.what : 'accepted', expected)
  }
})
