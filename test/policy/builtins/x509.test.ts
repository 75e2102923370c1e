// Private keys in certificates' builtins are made here, so that the repository carries none, and
// what an evaluation spends on them is bounded.
import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { test } from 'node:test'
import { BoundedCache } from '../../../src/policy/builtins/bounded-cache.ts'
import {
  type BuiltinContext,
  BuiltinError,
  FuelSpent,
} from '../../../src/policy/builtins/builtin.ts'
import { BUILTINS } from '../../../src/policy/builtins/table.ts'
import { type RegoValue, readJson, writeValue } from '../../../src/policy/builtins/value.ts'

function call(name: string, args: readonly RegoValue[], fuel = 2_000_000): RegoValue {
  let left = fuel
  const context: BuiltinContext = {
    timeNs: 1_700_000_000_000_000_000n,
    regexes: new BoundedCache(10),
    jwtKeys: new BoundedCache(10),
    drawn: new Map(),
    spend: (iterations) => {
      left -= iterations
      if (left < 0) throw new FuelSpent('no fuel')
    },
  }
  const builtin = BUILTINS.get(name)
  assert.ok(builtin, name)
  return builtin(args, context)
}

const pem = (key: KeyObject, type: 'pkcs8' | 'pkcs1' | 'sec1' = 'pkcs8') =>
  key.export({ format: 'pem', type }) as string
const json = (value: RegoValue) => JSON.parse(writeValue(value))

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const ed = generateKeyPairSync('ed25519').privateKey

test('a private key of any kind and form becomes its JWK', () => {
  for (const [key, text] of [
    [rsa, pem(rsa)],
    [rsa, pem(rsa, 'pkcs1')],
    [ec, pem(ec)],
    [ec, pem(ec, 'sec1')],
    [ed, pem(ed)],
    [ed, Buffer.from(pem(ed)).toString('base64')],
  ] as const) {
    const jwk = json(call('crypto.x509.parse_rsa_private_key', [text]))
    assert.deepEqual({ ...jwk }, { ...key.export({ format: 'jwk' }) })
  }
})

test('private keys have the shape of the types of Go', () => {
  const text = writeValue(call('crypto.parse_private_keys', [pem(rsa) + pem(ec) + pem(ed)]))
  const modulus = Buffer.from(rsa.export({ format: 'jwk' }).n ?? '', 'base64url').toString('hex')
  // The digits, which JSON.parse would not keep.
  assert.ok(text.includes(`"N":${BigInt(`0x${modulus}`)},"E":65537,"D":`))
  const [first, second, third] = JSON.parse(text)
  assert.deepEqual(Object.keys(first.Precomputed), ['Dp', 'Dq', 'Qinv', 'CRTValues'])
  assert.deepEqual(Object.keys(second), ['Curve', 'X', 'Y', 'D'])
  assert.equal(Buffer.from(third, 'base64').length, 64)
})

test('many certificates cost the budget, not the time of the thread', () => {
  const blob = Buffer.alloc(150_000, Buffer.from('3000', 'hex')).toString('base64')
  assert.throws(() => call('crypto.x509.parse_certificates', [blob]), BuiltinError)
  const keys = pem(ed).repeat(1_000)
  assert.throws(() => call('crypto.parse_private_keys', [keys]), FuelSpent)
})

test('a chain with name constraints is not valid: they are not checked here', () => {
  const time = readJson('{"CurrentTime":1795335650014000000}')
  const name = 'crypto.x509.parse_and_verify_certificates_with_options'
  assert.deepEqual(call(name, [CONSTRAINED, time]), [false, []])
})

/** Root, an intermediate that may issue below .example, and a leaf for a.example. */
const CONSTRAINED = `-----BEGIN CERTIFICATE-----
MIIBgzCCASmgAwIBAgIUAj26ULJWbxN+3SlrJne/CrnR/D8wCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEcm9vdDAeFw0yNjExMjIwODE5MzVaFw0zNjExMTkwODE5MzVa
MA8xDTALBgNVBAMMBHJvb3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATkusff
UjKvNI6UTPWVNaVZw/LhB7kG07HKhJtWiM55Pl8g6RCNYRsKpWiPIVMnmIHxcsmJ
qUgbu5batVbqE/Mbo2MwYTAdBgNVHQ4EFgQUKAwGZvRhkV7t4WNV5S7fZSvf1Vcw
HwYDVR0jBBgwFoAUKAwGZvRhkV7t4WNV5S7fZSvf1VcwDwYDVR0TAQH/BAUwAwEB
/zAOBgNVHQ8BAf8EBAMCAgQwCgYIKoZIzj0EAwIDSAAwRQIgKbQRD2kyjW1zQqow
t3EBDbrvvxH/qf1ajoL3Si3XlywCIQCiRAEt1xg9XJAl6kw3aXz6X4ttF9uE98qt
SkExzMi/8g==
-----END CERTIFICATE-----
-----BEGIN CERTIFICATE-----
MIIBiDCCAS2gAwIBAgIUHYDWAVMcIFXEYntcdoOrTgyHWVwwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEcm9vdDAeFw0yNjExMjIwODE5MzZaFw0zNjExMTkwODE5MzZa
MA0xCzAJBgNVBAMMAm5jMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAExNXq7V06
Vsu96XR9gg8py3ae3jKdrhX3mF5kbfp9Xp6zlTtTOrM+btQC7POagJBGKcXEEyS3
khJgi9myf+ujwKNpMGcwDAYDVR0TBAUwAwEB/zAXBgNVHR4EEDAOoAwwCoIILmV4
YW1wbGUwHQYDVR0OBBYEFJxseVrOyrkyw1xtf3QZnLZaKkeaMB8GA1UdIwQYMBaA
FCgMBmb0YZFe7eFjVeUu32Ur39VXMAoGCCqGSM49BAMCA0kAMEYCIQDGIST8TOrD
8270fsbmdvPdmEns5pdQhZx9qJyHPcevjwIhAOz3hnFYusaap6pT/YXHKn+p/Xjj
yb1nfJrKyOdkY5jR
-----END CERTIFICATE-----
-----BEGIN CERTIFICATE-----
MIIBejCCAR+gAwIBAgIUD+mg7ORQ8tnQV2vtizQO1qsV5xIwCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCbmMwHhcNMjYxMTIyMDgxOTM2WhcNMzYxMTE5MDgxOTM2WjAS
MRAwDgYDVQQDDAd1bmRlcm5jMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8Pzw
i+R5QmK6sZ/vAdjMNGfoPNFSIX0xOsZh5++CikGo0NJjwlyHiwgy2GtewtYTyIDp
kFMcEEE28po2SajwzqNYMFYwFAYDVR0RBA0wC4IJYS5leGFtcGxlMB0GA1UdDgQW
BBSPHD08dhLt+0vk0tD6q8NFnf/NuDAfBgNVHSMEGDAWgBScbHlazsq5MsNcbX90
GZy2WipHmjAKBggqhkjOPQQDAgNJADBGAiEAgS5qjwJt48wLhlxnMlAD46XPIdeH
O8iy/0Tp65UGNPkCIQClwVt5MjtgiFWjfQlSIm7Ap5gdR6M1l/v3AsZwJenukw==
-----END CERTIFICATE-----
`
