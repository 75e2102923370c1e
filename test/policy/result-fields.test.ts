import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { readResult } from '../../src/policy/result.ts'

/** A value of every type that JSON has, as it is written. */
const VALUES = {
  null: 'null',
  boolean: 'true',
  number: '403',
  fraction: '403.5',
  point: '403.0',
  exponent: '4.03e2',
  string: '"text"',
  emptyArray: '[]',
  strings: '["a","b"]',
  numbers: '[1]',
  nested: '[["a"]]',
  nulls: '[null]',
  mixed: '["a",1]',
  emptyObject: '{}',
  object: '{"a":"b"}',
  lists: '{"a":["b","c"]}',
  numberIn: '{"a":1}',
  nullIn: '{"a":null}',
  booleanIn: '{"a":true}',
  objectIn: '{"a":{"b":"c"}}',
  numberInList: '{"a":["b",1]}',
  objects: '[{"a":"b"},{"c":["d"]}]',
  numberInObjects: '[{"a":"b"},{"c":1}]',
  textInObjects: '[{"a":"b"},"c"]',
} as const
type Value = keyof typeof VALUES

const HEADERS: readonly Value[] = ['emptyArray', 'emptyObject', 'object', 'lists', 'objects']
const PAIRS: readonly Value[] = ['emptyObject', 'object', 'lists']
const LIST: readonly Value[] = ['emptyArray', 'strings']
const OBJECT: readonly Value[] = [
  ...PAIRS,
  ...(['numberIn', 'nullIn', 'booleanIn', 'objectIn', 'numberInList'] as const),
]

/** Where a field counts, and what it may be there. Elsewhere it is ignored, whatever it is. */
const FIELDS: Readonly<Record<string, { readonly in: string; readonly takes: readonly Value[] }>> =
  {
    headers: { in: 'both', takes: HEADERS },
    response_headers_to_add: { in: 'allow', takes: HEADERS },
    request_headers_to_remove: { in: 'allow', takes: LIST },
    query_parameters_to_remove: { in: 'allow', takes: LIST },
    query_parameters_to_set: { in: 'allow', takes: PAIRS },
    body: { in: 'deny', takes: ['string'] },
    http_status: { in: 'deny', takes: ['number'] },
    dynamic_metadata: { in: 'both', takes: OBJECT },
    unknown_field: { in: 'neither', takes: [] },
  }

describe('a result', () => {
  for (const [field, { in: where, takes }] of Object.entries(FIELDS)) {
    it(`takes ${field} of its types only, and nothing of the rest where it is another`, () => {
      for (const allowed of [true, false]) {
        const outcome = allowed ? 'allow' : 'deny'
        const counts = where === 'both' || where === outcome
        for (const [name, value] of Object.entries(VALUES)) {
          // Sound beside it, before and behind: it must not be applied.
          const text = `{"headers":{"x-before":"1"},"allowed":${allowed},"body":"b","${field}":${value}}`
          const { kind } = readResult(text)
          const expected = !counts || takes.includes(name as Value) ? outcome : 'invalid'
          assert.equal(kind, expected, `${name}: ${text}`)
        }
      }
    })
  }

  it('is a boolean or an object with one, and nothing else', () => {
    for (const [name, value] of Object.entries(VALUES)) {
      const { kind } = readResult(value)
      assert.equal(kind, name === 'boolean' ? 'allow' : 'invalid', name)
      const allowed = readResult(`{"allowed":${value}}`).kind
      assert.equal(allowed, name === 'boolean' ? 'allow' : 'invalid', name)
    }
    assert.equal(readResult('{}').kind, 'invalid')
    assert.equal(readResult('true,true').kind, 'invalid')
    assert.equal(readResult('').kind, 'invalid')
  })

  it('has a status that ends a request', () => {
    const status = (text: string) => readResult(`{"allowed":false,"http_status":${text}}`)
    for (const known of [200, 302, 401, 418, 429, 503]) {
      assert.deepEqual(
        { ...status(String(known)), headers: [] },
        {
          kind: 'deny',
          status: known,
          headers: [],
          body: undefined,
        },
      )
    }
    for (const wrong of [
      '0',
      '100',
      '101',
      '199',
      '299',
      '600',
      '999',
      '-403',
      '4030',
      '1e2',
      '403.0',
      '"403"',
    ]) {
      assert.equal(status(wrong).kind, 'invalid', wrong)
    }
  })

  it('keeps every value of a header, from objects and lists', () => {
    const result = readResult(
      '{"allowed":true,"headers":[{"x-a":["1","2"]},{"X-A":"3","x-b":"4"}],"response_headers_to_add":{"x-c":["5"]},"query_parameters_to_set":{"q":["6","7"]},"query_parameters_to_remove":["r"],"request_headers_to_remove":["X-D"]}',
    )
    assert.ok(result.kind === 'allow')
    assert.deepEqual(result.mutations, {
      setRequestHeaders: [
        ['x-a', '1'],
        ['x-a', '2'],
        ['x-a', '3'],
        ['x-b', '4'],
      ],
      removeRequestHeaders: ['x-d'],
      responseHeaders: [['x-c', '5']],
      removeQueryParameters: ['r'],
      setQueryParameters: [
        ['q', '6'],
        ['q', '7'],
      ],
    })
  })
})
