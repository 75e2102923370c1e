// The builtins that Postern supplies, held against answers of OPA 1.22.2 (`opa eval`, which runs
// the Go implementation): each case file lists arguments and what OPA said; null is an error there.
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { BoundedCache } from '../../../src/policy/builtins/bounded-cache.ts'
import { type BuiltinContext, BuiltinError } from '../../../src/policy/builtins/builtin.ts'
import { compareValues } from '../../../src/policy/builtins/compare.ts'
import { compileRegex } from '../../../src/policy/builtins/regex.ts'
import { BUILTINS } from '../../../src/policy/builtins/table.ts'
import {
  type RegoValue,
  readJson,
  readValue,
  writeValue,
} from '../../../src/policy/builtins/value.ts'

function call(name: string, args: readonly RegoValue[], spend = (_: number) => {}): RegoValue {
  const context: BuiltinContext = {
    timeNs: 1_700_000_000_000_000_000n,
    regexes: new BoundedCache(10),
    jwtKeys: new BoundedCache(10),
    drawn: new Map(),
    spend,
  }
  const builtin = BUILTINS.get(name)
  assert.ok(builtin, name)
  return builtin(args, context)
}

const cases = (file: string) =>
  JSON.parse(readFileSync(new URL(file, import.meta.url), 'utf8')) as (string | null)[][]

test('sprintf gives what Go gives', () => {
  for (const [format, args, expected] of cases('sprintf-cases.json')) {
    const actual = call('sprintf', [format as string, readJson(args as string)])
    assert.equal(actual, expected, `sprintf(${JSON.stringify(format)}, ${args})`)
  }
})

test('regex.replace gives what Go gives', () => {
  for (const [text, pattern, template, expected] of cases('regex-replace-cases.json')) {
    const args = [text as string, pattern as string, template as string]
    if (expected === null)
      assert.throws(() => call('regex.replace', args), BuiltinError, pattern as string)
    else assert.equal(call('regex.replace', args), expected, JSON.stringify(args))
  }
})

test('regex.replace of one match that becomes longer than any string is undefined', () => {
  const args = ['a'.repeat(60_000), '(a*)', '$0'.repeat(9_000)]
  assert.throws(() => call('regex.replace', args), BuiltinError)
})

test('io.jwt.* gives what OPA gives', () => {
  for (const [name, token, argument, expected] of cases('jwt-cases.json')) {
    const args = [token as string, ...(argument == null ? [] : [readJson(argument)])]
    if (expected == null) {
      assert.throws(() => call(name as string, args), BuiltinError, `${name} ${token}`)
    } else {
      const actual = call(name as string, args)
      assert.equal(
        compareValues(actual, readJson(expected)),
        0,
        `${name}(${token}, ${argument}) = ${writeValue(actual)}, not ${expected}`,
      )
    }
  }
})

test('a pattern that makes a backtracking engine explode costs steps in proportion to the text', () => {
  const steps = (length: number) => {
    let sum = 0
    const [match] = compileRegex('^(a+)+$').matches(`${'a'.repeat(length)}!`, (n) => {
      sum += n
    })
    assert.equal(match, undefined)
    return sum
  }
  assert.ok(steps(4_000) < 5 * steps(1_000))
})

test('matches the same places as the engine of JavaScript where both mean the same', () => {
  const atom = fc.constantFrom(
    'a',
    'b',
    '.',
    '[ab]',
    '[^a]',
    '(a)',
    '(ab|b)',
    '(?:a|)',
    '\\b',
    '^',
    '$',
  )
  const piece = fc.tuple(atom, fc.constantFrom('', '?', '+', '{2}', '{1,3}', '??', '+?'))
  const pattern = fc
    .array(
      piece.map(([one, count]) => (/^(?:\\b|\^|\$|\(\?:a\|\))$/.test(one) ? one : one + count)),
      { minLength: 1, maxLength: 5 },
    )
    .map((pieces) => pieces.join(''))
  fc.assert(
    fc.property(
      pattern,
      fc.string({ unit: fc.constantFrom('a', 'b', ' '), maxLength: 12 }),
      (one, text) => {
        const [mine] = compileRegex(one).matches(text, () => {})
        const other = new RegExp(one, 'd').exec(text)
        assert.deepEqual(
          mine?.slice(0, 2),
          other === null ? undefined : [...(other.indices?.[0] ?? [])],
        )
      },
    ),
    { numRuns: 500 },
  )
})

test('every instruction that the engine stands at is paid for', () => {
  let steps = 0
  const spend = (n: number) => {
    steps += n
  }
  // At each letter the machine stands at each of the 500 optional ones.
  assert.deepEqual([...compileRegex('[a-z]{1,500}=').matches('a'.repeat(1_000), spend)], [])
  assert.ok(steps > 4 * 500 * 500)
})

test('counts inside of counts are limited as one', () => {
  for (const pattern of ['(a{100}){100}', '((a{0}){1000}){1000}', '(a{1,}){1001}', 'a{1001}']) {
    assert.throws(() => compileRegex(pattern), /invalid repeat count/, pattern)
  }
  for (const pattern of ['(a{2}){500}', '(?:a{0}){1000}', '(a*){1000}']) compileRegex(pattern)
  assert.throws(() => compileRegex('()'.repeat(1_000)), /too many groups/)
  assert.equal(call('regex.replace', ['a{01}', 'a{01}', '-']), '-')
})

test('text is ordered by code points', () => {
  const unit = fc.constantFrom('a', '\ud7ff', '\ue000', '\uffff', '\u{10000}', '\u{10ffff}')
  const text = fc.string({ unit, maxLength: 4 })
  fc.assert(
    fc.property(text, text, (a, b) => {
      assert.equal(
        Math.sign(compareValues(a, b)),
        Buffer.compare(Buffer.from(a, 'utf8'), Buffer.from(b, 'utf8')),
      )
    }),
  )
})

test('a secret key that is empty or absent is an error, as in OPA', () => {
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${encode({ alg: 'HS256' })}.${encode({ sub: 'anybody' })}`
  const token = `${signed}.${createHmac('sha256', '').update(signed).digest('base64url')}`
  for (const key of ['{"kty":"oct"}', '{"kty":"oct","k":""}', '{"keys":[{"kty":"oct","k":5}]}']) {
    const constraints = readJson(JSON.stringify({ cert: key }))
    assert.throws(() => call('io.jwt.decode_verify', [token, constraints]), BuiltinError, key)
  }
})

test('time.now_ns is the time of the evaluation', () => {
  assert.equal(writeValue(call('time.now_ns', [])), '1700000000000000000')
})

test('a value survives writing and reading', () => {
  for (const text of [
    'null',
    '[true,false,"a\\n\\u0000é😀",-1.50e10,12345678901234567890]',
    'set()',
    '{1,2,{set()}}',
    '{"a":{"b":[]},1:{},[2]:set()}',
    '{}',
    '[]',
  ]) {
    assert.equal(compareValues(readValue(writeValue(readValue(text))), readValue(text)), 0, text)
  }
})

test('a policy may write a number without the zero before its point', () => {
  assert.equal(writeValue(readValue('[.5,-.25,.1e2]')), '[0.5,-0.25,0.1e2]')
})

test('only JSON is JSON', () => {
  for (const text of [
    '',
    '{',
    '[1,]',
    '{1:2}',
    '{1}',
    'set()',
    '01',
    '+1',
    '1.',
    '.5',
    '"\n"',
    '"\\x"',
    '1 2',
    'nul',
    '[1 2]',
  ]) {
    assert.throws(() => readJson(text), /ValueSyntaxError|unexpected|nested/, text)
  }
  assert.throws(() => readJson('['.repeat(100_000)), /nested/)
})
