import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Loaded } from '../../src/control/loader.ts'
import { type ValidityNotice, ValidityWatch } from '../../src/control/validity.ts'

const facts = (file: string, notAfterMs: number) => ({
  file,
  subject: 'CN=one',
  notBeforeMs: 0,
  notAfterMs,
})

function watched(loaded: () => unknown) {
  const seen: ValidityNotice[] = []
  let nowMs = 0
  const watch = new ValidityWatch({
    loaded: () => loaded() as Loaded | undefined,
    clock: () => nowMs,
    onNotice: (notice) => seen.push(notice),
  })
  return (atMs: number) => {
    nowMs = atMs
    watch.look()
    return seen.splice(0).map(({ kind, name, stage }) => `${kind} ${name} ${stage}`)
  }
}

test('tells each stage of a certificate once, the last when it has expired', () => {
  const at = watched(() => ({
    identity: { material: { facts: facts('tls.crt', 1000) } },
    trust: [],
    crls: [],
  }))
  assert.deepEqual(at(600), [])
  assert.deepEqual(at(700), ['identity tls.crt third'])
  assert.deepEqual(at(800), [])
  assert.deepEqual(at(901), ['identity tls.crt tenth'])
  assert.deepEqual(at(960), ['identity tls.crt twentieth'])
  assert.deepEqual(at(1000), ['identity tls.crt expired'])
  assert.deepEqual(at(5000), [])
})

test('says again and again that our own certificate has expired, and of no other', () => {
  const at = watched(() => ({
    identity: { material: { facts: facts('tls.crt', 1000) } },
    trust: [{ material: { facts: [facts('ca.crt', 1000)] } }],
    crls: [],
  }))
  assert.deepEqual(at(1000), ['identity tls.crt expired', 'trust ca.crt (CN=one) expired'])
  assert.deepEqual(at(1000 + 599_999), [])
  assert.deepEqual(at(1000 + 600_000), ['identity tls.crt expired'])
  assert.deepEqual(at(1000 + 700_000), [])
  assert.deepEqual(at(1000 + 1_200_000), ['identity tls.crt expired'])
})

test('begins anew when the certificate was replaced', () => {
  let endsAtMs = 1000
  const at = watched(() => ({
    identity: { material: { facts: facts('tls.crt', endsAtMs) } },
    trust: [],
    crls: [],
  }))
  assert.deepEqual(at(950), ['identity tls.crt twentieth'])
  endsAtMs = 10_000
  assert.deepEqual(at(960), [])
  assert.deepEqual(at(9_990), ['identity tls.crt twentieth'])
})

test('tells of authorities and CRLs near their end, and of nothing before the first load', () => {
  let loaded: unknown
  const at = watched(() => loaded)
  assert.deepEqual(at(0), [])
  loaded = {
    identity: { material: { facts: facts('tls.crt', 1_000_000) } },
    trust: [{ material: { facts: [facts('ca.crt', 1000)] } }],
    crls: [
      {
        material: [
          { file: 'ca.crl', issuer: 'CN=ca', thisUpdateMs: 0, nextUpdateMs: 2000 },
          { file: 'eternal.crl', issuer: 'CN=ca', thisUpdateMs: 0 },
        ],
      },
    ],
  }
  assert.deepEqual(at(700), [])
  assert.deepEqual(at(950), ['trust ca.crt (CN=one) twentieth'])
  assert.deepEqual(at(2000), ['trust ca.crt (CN=one) expired', 'crl ca.crl (CN=ca) expired'])
})
