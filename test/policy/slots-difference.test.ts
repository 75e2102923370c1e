import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Judgement } from '../../src/policy/judge.ts'
import { differenceOf } from '../../src/policy/slots-difference.ts'

const of = (
  [outcome, result]: readonly [string, string?],
  [other, otherResult]: readonly [Judgement['outcome'], string?],
) =>
  differenceOf(
    { outcome, ...(result === undefined ? {} : { result }) },
    { outcome: other, evalNs: 1, ...(otherResult === undefined ? {} : { result: otherResult }) },
  )

test('who gets in is one thing, and what a client is told another', () => {
  const cases = [
    [['allow', 'true'], ['allow', 'true'], 'same', []],
    [['allow', 'true'], ['deny', 'false'], 'allow_to_deny', ['outcome']],
    [['deny', 'false'], ['allow', 'true'], 'deny_to_allow', ['outcome']],
    [['error'], ['allow', 'true'], 'deny_to_allow', ['outcome']],
    [['timeout'], ['deny', 'false'], 'same', ['outcome']],
    [['allow', 'true'], ['error'], 'error', ['outcome']],
    [['allow', 'true'], ['timeout'], 'error', ['outcome']],
    [['timeout'], ['timeout'], 'error', []],
  ] as const
  for (const [before, after, change, differs] of cases) {
    assert.deepEqual(of(before, after), { change, differs }, `${before} ${after}`)
  }
})

test('results of the same effect are the same, however they are written', () => {
  for (const [one, other] of [
    ['true', '{"allowed":true}'],
    ['{"allowed":true,"headers":{"a":"1"}}', '{"headers":{"a":"1"},"allowed":true,"note":"x"}'],
  ] as const) {
    assert.deepEqual(of(['allow', one], ['allow', other]), { change: 'same', differs: [] })
  }
  assert.deepEqual(of(['deny', 'false'], ['deny', '{"allowed":false,"http_status":403}']), {
    change: 'same',
    differs: [],
  })
})

test('each effect that differs has its name', () => {
  const allowed = (more: object) => JSON.stringify({ allowed: true, ...more })
  const denied = (more: object) => JSON.stringify({ allowed: false, ...more })
  const mutations = [
    [{ headers: { a: '1' } }, 'request_headers'],
    [{ request_headers_to_remove: ['a'] }, 'request_headers'],
    [{ response_headers_to_add: { a: '1' } }, 'response_headers'],
    [{ query_parameters_to_remove: ['q'] }, 'query'],
  ] as const
  for (const [more, name] of mutations) {
    assert.deepEqual(of(['allow', 'true'], ['allow', allowed(more)]).differs, [name])
  }
  const answers = [
    [{ http_status: 404 }, 'status'],
    [{ headers: { a: '1' } }, 'headers'],
    [{ body: 'no' }, 'body'],
  ] as const
  for (const [more, name] of answers) {
    assert.deepEqual(of(['deny', 'false'], ['deny', denied(more)]), {
      change: 'same',
      differs: [name],
    })
  }
})
