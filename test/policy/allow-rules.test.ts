import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { compilePattern } from '../../src/pattern.ts'
import { compileAllowRules } from '../../src/policy/allow-rules.ts'
import { peer } from './support.ts'

const web = peer('web')

test('without rules nobody is admitted', () => {
  assert.equal(compileAllowRules([])(web), false)
  assert.equal(compileAllowRules([{}])(web), false)
})

test('rules are OR-ed, the keys of one are AND-ed', () => {
  const uri = 'spiffe://example.org/ns/*/sa/web'
  assert.equal(compileAllowRules([{ cn: 'other' }, { uri }])(web), true)
  assert.equal(compileAllowRules([{ uri, cn: 'other' }])(web), false)
  assert.equal(compileAllowRules([{ uri, cn: 'web', dns: 'WEB.example.org' }])(web), true)
  assert.equal(compileAllowRules([{ all: true }])(web), true)
  assert.equal(compileAllowRules([{ all: true, cn: 'other' }])(web), false)
})

test('a peer without a name of the kind is not admitted by a rule about it', () => {
  const nobody = { principal: '', uris: [], dnsNames: [], commonName: undefined }
  for (const rule of [{ uri: '**' }, { dns: '**' }, { cn: '**' }]) {
    assert.equal(compileAllowRules([rule])(nobody), false)
  }
})

test('one star is one segment, two are any number', () => {
  const uri = (pattern: string, text: string) => compilePattern(pattern, '/')(text)
  assert.equal(uri('spiffe://example.org/ns/*/sa/web', 'spiffe://example.org/ns/a/sa/web'), true)
  assert.equal(uri('spiffe://example.org/ns/*/sa/web', 'spiffe://example.org/ns/a/b/sa/web'), false)
  assert.equal(uri('spiffe://example.org/ns/*/sa/web', 'spiffe://example.org/ns//sa/web'), false)
  assert.equal(uri('spiffe://example.org/**', 'spiffe://example.org/ns/a/sa/web'), true)
  assert.equal(uri('spiffe://example.org/**', 'spiffe://example.org.evil/ns'), false)
  assert.equal(uri('spiffe://example.org/**/web', 'spiffe://example.org/web'), true)
  assert.equal(uri('spiffe://example.org/sa/web-*', 'spiffe://example.org/sa/web-7'), true)
  assert.equal(uri('spiffe://example.org/sa/web-*', 'spiffe://example.org/sa/web-7/x'), false)
  assert.equal(uri('spiffe://example.org', 'spiffe://exampleXorg'), false)
  const dns = compilePattern('*.example.org', '.')
  assert.equal(dns('a.example.org'), true)
  assert.equal(dns('a.b.example.org'), false)
  assert.equal(dns('example.org'), false)
})

test('matches exactly what a naive matcher matches', () => {
  const segment = fc.string({ unit: fc.constantFrom('a', 'b', '*'), maxLength: 3 })
  const pattern = fc.array(fc.oneof(segment, fc.constant('**'), fc.constant('*')), { maxLength: 5 })
  const text = fc.array(fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 3 }), {
    maxLength: 5,
  })
  fc.assert(
    fc.property(pattern, text, (one, other) => {
      assert.equal(
        compilePattern(one.join('/'), '/')(other.join('/')),
        naive(one.join('/').split('/'), other.join('/').split('/')),
      )
    }),
    { numRuns: 3_000 },
  )
})

/** By definition, in exponential time. */
function naive(pattern: string[], text: string[]): boolean {
  const [first, ...rest] = pattern
  if (first === undefined) return text.length === 0
  if (first === '**') return text.some((_, i) => naive(rest, text.slice(i))) || naive(rest, [])
  const [segment, ...others] = text
  return segment !== undefined && naiveSegment(first, segment) && naive(rest, others)
}

function naiveSegment(pattern: string, text: string): boolean {
  if (pattern === '*' && text === '') return false
  if (pattern === '') return text === ''
  if (pattern[0] === '*') {
    return Array.from({ length: text.length + 1 }).some((_, i) =>
      naiveCharacters(pattern.slice(1), text.slice(i)),
    )
  }
  return text[0] === pattern[0] && naiveCharacters(pattern.slice(1), text.slice(1))
}

function naiveCharacters(pattern: string, text: string): boolean {
  if (pattern === '') return text === ''
  if (pattern[0] !== '*')
    return text[0] === pattern[0] && naiveCharacters(pattern.slice(1), text.slice(1))
  return Array.from({ length: text.length + 1 }).some((_, i) =>
    naiveCharacters(pattern.slice(1), text.slice(i)),
  )
}

test('a hostile name costs no more than pattern times text', () => {
  const fits = compilePattern('*a*a*a*a*a*a*a*a*b', '/')
  assert.equal(fits('a'.repeat(20_000)), false)
})
