// What mask rules do to an event, case by case as OPA's decision log plugin does it.
import assert from 'node:assert/strict'
import { describe, it, test } from 'node:test'
import fc from 'fast-check'
import { decisionEvent, type RuleAnswer } from '../../src/observe/decision-event.ts'
import { applyMaskRules, readMaskRules } from '../../src/observe/decision-mask.ts'
import { createRedactor } from '../../src/observe/redaction.ts'
import { decisionRecord } from './support.ts'

interface Case {
  readonly what: string
  readonly rules: readonly unknown[]
  readonly input: unknown
  readonly becomes: unknown
  readonly erased?: readonly string[]
  readonly masked?: readonly string[]
}

const upsert = (path: string, value: unknown) => ({ op: 'upsert', path, value })

const CASES: readonly Case[] = [
  {
    what: 'a path removes',
    rules: ['/input/a'],
    input: { a: 1, b: 2 },
    becomes: { b: 2 },
    erased: ['/input/a'],
  },
  {
    what: 'so does a rule that says so',
    rules: [{ op: 'remove', path: '/input/a/b' }],
    input: { a: { b: 1, c: 2 } },
    becomes: { a: { c: 2 } },
    erased: ['/input/a/b'],
  },
  {
    what: 'elements of arrays go by their index, and the others move up',
    rules: ['/input/a/0', '/input/a/0'],
    input: { a: [1, 2, 3] },
    becomes: { a: [3] },
    erased: ['/input/a/0', '/input/a/0'],
  },
  {
    what: 'a path leads through arrays',
    rules: ['/input/a/1/b'],
    input: { a: [{ b: 1 }, { b: 2 }] },
    becomes: { a: [{ b: 1 }, {}] },
    erased: ['/input/a/1/b'],
  },
  {
    what: 'what is not there is left alone, and not reported',
    rules: ['/input/x', '/input/a/b', '/input/c/7', '/input/c/x', '/nd_builtin_cache', '/result/x'],
    input: { a: 'text', c: [1] },
    becomes: { a: 'text', c: [1] },
  },
  {
    what: 'a value is replaced',
    rules: [upsert('/input/a', '**')],
    input: { a: 'secret' },
    becomes: { a: '**' },
    masked: ['/input/a'],
  },
  {
    what: 'a value that was not there is made, with what leads to it',
    rules: [upsert('/input/a/b', { c: 1 })],
    input: {},
    becomes: { a: { b: { c: 1 } } },
    masked: ['/input/a/b'],
  },
  {
    what: 'an element is replaced, and none is added',
    rules: [upsert('/input/a/0', 9), upsert('/input/a/1', 9), upsert('/input/a/-', 9)],
    input: { a: [1] },
    becomes: { a: [9] },
    masked: ['/input/a/0'],
  },
  {
    what: 'the whole of it is replaced',
    rules: [upsert('/input', 'gone')],
    input: { a: 1 },
    becomes: 'gone',
    masked: ['/input'],
  },
  {
    what: 'rules apply in their order',
    rules: [upsert('/input/a', { b: 1, c: 2 }), '/input/a/b'],
    input: {},
    becomes: { a: { c: 2 } },
    erased: ['/input/a/b'],
    masked: ['/input/a'],
  },
  {
    what: 'a value left out of a rule is null',
    rules: [{ op: 'upsert', path: '/input/a' }],
    input: { a: 1 },
    becomes: { a: null },
    masked: ['/input/a'],
  },
  {
    what: 'parts are compared percent-encoded, with what a path may hold left as it is',
    rules: ['/input/a b', '/input/:path', '/input/$&+=@~', '/input/x,y;z?'],
    input: { 'a%20b': 1, ':path': 2, '$&+=@~': 3, 'x%2Cy%3Bz%3F': 4 },
    becomes: {},
    erased: ['/input/a%20b', '/input/:path', '/input/$&+=@~', '/input/x%2Cy%3Bz%3F'],
  },
  {
    what: 'a key that needs encoding is found as written and as decoded, which OPA does not',
    rules: ['/input/a b', '/input/c%2Fd'],
    input: { 'a b': 1, 'c/d': 2 },
    becomes: {},
    erased: ['/input/a%20b', '/input/c%252Fd'],
  },
  {
    what: 'a key of the language is a key like any other',
    rules: [
      upsert('/input/__proto__/polluted', 1),
      '/input/constructor',
      upsert('/input/toString', 2),
    ],
    input: JSON.parse('{"constructor": 1}'),
    becomes: JSON.parse('{"__proto__": {"polluted": 1}, "toString": 2}'),
    erased: ['/input/constructor'],
    masked: ['/input/__proto__/polluted', '/input/toString'],
  },
]

describe('a mask', () => {
  for (const { what, rules, input, becomes, erased = [], masked = [] } of CASES) {
    it(what, () => {
      const read = readMaskRules(rules)
      assert.ok(read !== undefined)
      const documents = { input: structuredClone(input) }
      const places = applyMaskRules(read, documents)
      assert.equal(JSON.stringify(documents.input), JSON.stringify(becomes))
      assert.deepEqual(places, { erased, masked })
      assert.equal(({} as Record<string, unknown>)['polluted'], undefined)
    })
  }

  it('can remove a whole document', () => {
    const documents: { input: unknown; result?: unknown } = { input: {}, result: true }
    const rules = readMaskRules(['/result']) ?? []
    assert.deepEqual(applyMaskRules(rules, documents), { erased: ['/result'], masked: [] })
    assert.deepEqual(documents, { input: {} })
  })

  for (const value of [
    {},
    'a',
    null,
    true,
    [1],
    [null],
    [[]],
    [''],
    ['input/a'],
    ['/'],
    ['/labels/id'],
    ['/inputs'],
    ['/input/%'],
    ['/input/\ud800'],
    [{}],
    [{ path: '/input' }],
    [{ op: 'remove' }],
    [{ op: 'replace', path: '/input', value: 1 }],
    [{ op: 'remove', path: 1 }],
    ['/input/a', 1],
  ]) {
    it(`is none when it is ${JSON.stringify(value)}`, () => {
      assert.equal(readMaskRules(value), undefined)
    })
  }
})

test('after any removal the value is nowhere in the event', () => {
  const key = fc.oneof(fc.constantFrom('a', 'b', '0', '1', '__proto__', 'x y'), fc.string())
  const documents = fc.dictionary(key, fc.jsonValue({ maxDepth: 2 }), { minKeys: 1, maxKeys: 4 })
  fc.assert(
    fc.property(documents, key, (document, name) => {
      fc.pre(name.isWellFormed() && !name.includes('/'))
      const secret = 'the-secret-value'
      const input = JSON.parse(JSON.stringify({ ...document, nested: {} })) as Record<
        string,
        unknown
      >
      Object.defineProperty(input['nested'], name, { value: secret, enumerable: true })
      const text = JSON.stringify(input)
      const answer: RuleAnswer = {
        kind: 'result',
        text: JSON.stringify([`/input/nested/${name.replaceAll('%', '%25')}`]),
      }
      const outcome = decisionEvent(decisionRecord({ input: text, result: 'true' }), {
        labels: { id: 'a', version: '1' },
        redactor: createRedactor(),
        rules: { mask: () => answer },
      })
      assert.equal(outcome.kind, 'event')
      assert.ok(outcome.kind === 'event' && !outcome.json.includes(secret))
      assert.equal(text, JSON.stringify(input))
    }),
    { numRuns: 300 },
  )
})

describe('the rules about the log', () => {
  const context = (drop?: RuleAnswer, mask?: RuleAnswer) => ({
    labels: { id: 'a', version: '1' },
    redactor: createRedactor(),
    rules: { ...(drop && { drop: () => drop }), ...(mask && { mask: () => mask }) },
  })
  const result = (value: unknown): RuleAnswer => ({ kind: 'result', text: JSON.stringify(value) })
  const UNDEFINED: RuleAnswer = { kind: 'undefined' }

  for (const [what, drop, mask, kind] of [
    ['true drops', result(true), undefined, 'dropped_by_policy'],
    ['true drops before a mask can fail', result(true), result(1), 'dropped_by_policy'],
    ['false keeps', result(false), UNDEFINED, 'event'],
    ['undefined keeps', UNDEFINED, result([]), 'event'],
    ['what is not a boolean is a failure', result('yes'), undefined, 'policy_failed'],
    ['a drop that traps is a failure', { kind: 'error' }, undefined, 'policy_failed'],
    ['a drop that never ends is a failure', { kind: 'timeout' }, undefined, 'policy_failed'],
    ['an event that is too large is a failure', undefined, { kind: 'too_large' }, 'policy_failed'],
    ['a mask that traps is a failure', undefined, { kind: 'error' }, 'policy_failed'],
    ['a mask that is no list is a failure', UNDEFINED, result({}), 'policy_failed'],
    [
      'one bad rule makes all of them a failure',
      UNDEFINED,
      result(['/input/a', 'b']),
      'policy_failed',
    ],
  ] as const) {
    it(`${what}`, () => {
      assert.equal(decisionEvent(decisionRecord(), context(drop, mask)).kind, kind)
    })
  }

  it('leave nothing of a decision but the fact of it where they fail', () => {
    const record = decisionRecord({
      input: '{"attributes":{"source":{"principal":"secret"}}}',
      result: '{"allowed":true,"headers":{"x":"secret"}}',
      error: 'secret',
      principal: 'secret',
    })
    const outcome = decisionEvent(record, context(undefined, { kind: 'too_large' }))
    assert.ok(outcome.kind === 'policy_failed')
    assert.ok(!outcome.json.includes('secret'))
    const { decision_id, req_id, custom, erased } = JSON.parse(outcome.json)
    assert.deepEqual([decision_id, req_id], [record.decisionId, record.requestId])
    assert.equal(custom.outcome, record.outcome)
    assert.deepEqual(erased, ['/input', '/result'])
  })

  it('see the event as it was decided, and its time', () => {
    const seen: unknown[] = []
    const record = decisionRecord({ input: '{"authorization": "Bearer abc"}', error: 'a reason' })
    const ask = (event: string, timeMs: number): RuleAnswer => {
      seen.push({ event: JSON.parse(event), timeMs })
      return UNDEFINED
    }
    decisionEvent(record, { ...context(), rules: { drop: ask, mask: ask } })
    const [first, second] = seen as { event: Record<string, unknown>; timeMs: number }[]
    assert.deepEqual(first, second)
    assert.equal(first?.timeMs, record.timeMs)
    assert.deepEqual(first?.event['input'], { authorization: 'Bearer abc' })
    assert.deepEqual(first?.event['result'], { allowed: true })
    assert.equal(first?.event['decision_id'], record.decisionId)
    assert.ok(!('masked' in (first?.event ?? {})) && !('erased' in (first?.event ?? {})))
  })

  it('come before our own replacements, and numbers outlive both', () => {
    const input =
      '{"n":12345678901234567890,"f":1.0,"attributes":{"request":{"http":{"headers":{"cookie":"c","x":"y"}}}}}'
    const mask = result([
      '/input/attributes/request/http/headers/x',
      { op: 'upsert', path: '/result', value: 1 },
    ])
    const outcome = decisionEvent(decisionRecord({ input }), context(undefined, mask))
    assert.ok(outcome.kind === 'event')
    assert.ok(outcome.json.includes('{"n":12345678901234567890,"f":1.0,'))
    const event = JSON.parse(outcome.json) as Record<string, unknown>
    assert.deepEqual(event['erased'], ['/input/attributes/request/http/headers/x'])
    assert.deepEqual(event['masked'], ['/result', '/input/attributes/request/http/headers/cookie'])
    assert.equal(event['result'], 1)
  })
})
