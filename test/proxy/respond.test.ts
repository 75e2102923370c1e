import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ERRORS, type ErrorCode } from '../../src/errors.ts'
import { encodeOwnResponse } from '../../src/proxy/respond.ts'
import { MessageReader } from '../support/http1.ts'

const parse = (bytes: Buffer, method = 'GET') => {
  const reader = new MessageReader()
  reader.push(bytes)
  const message = reader.next(method)
  assert.ok(message)
  assert.equal(reader.rest.length, 0, 'nothing follows the answer')
  return message
}
const base = { id: 'an-id', close: false, withBody: true } as const

describe('an answer of our own', () => {
  it('says a code and an id, whatever went wrong', () => {
    for (const code of Object.keys(ERRORS) as ErrorCode[]) {
      const answer = parse(encodeOwnResponse({ ...base, code, close: true }))
      assert.equal(answer.status, ERRORS[code].http)
      assert.deepEqual(JSON.parse(String(answer.body)), { error: code, id: 'an-id' })
      assert.deepEqual(answer.values('x-postern-decision-id'), ['an-id'])
      assert.deepEqual(answer.values('content-type'), ['application/json'])
      assert.deepEqual(answer.values('connection'), ['close'])
    }
  })

  it('to HEAD has the length of the body and none of it', () => {
    const answer = parse(encodeOwnResponse({ ...base, code: 'denied', withBody: false }), 'HEAD')
    assert.deepEqual(answer.values('content-length'), [
      String(JSON.stringify({ error: 'denied', id: 'an-id' }).length),
    ])
  })

  it('takes status, fields and body of a denial, but not its framing', () => {
    const answer = parse(
      encodeOwnResponse({
        ...base,
        code: 'denied',
        status: 302,
        headers: [
          ['location', '/login'],
          ['set-cookie', 'a=1'],
          ['set-cookie', 'b=2'],
          ['content-length', '999'],
          ['connection', 'close'],
          ['content-type', 'text/html'],
        ],
        body: 'naïve',
      }),
    )
    assert.equal(answer.status, 302)
    assert.equal(answer.body.toString('utf8'), 'naïve')
    assert.deepEqual(answer.values('set-cookie'), ['a=1', 'b=2'])
    assert.deepEqual(answer.values('content-length'), ['6'])
    assert.deepEqual(answer.values('content-type'), ['text/html'])
    assert.deepEqual(answer.values('connection'), [])
  })

  it('has no body where the status allows none', () => {
    for (const [status, lengths] of [
      [204, []],
      [205, ['0']],
      [304, []],
    ] as const) {
      const answer = parse(encodeOwnResponse({ ...base, code: 'denied', status, body: 'text' }))
      assert.equal(answer.status, status)
      assert.deepEqual(answer.values('content-length'), lengths)
    }
  })
})
