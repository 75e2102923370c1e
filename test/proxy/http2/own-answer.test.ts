import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { fieldValue } from '../../../src/http/fields.ts'
import { sendOwnAnswer } from '../../../src/proxy/http2/own-answer.ts'
import { inMemory } from '../../support/http2-session.ts'
import { head, requestFields } from '../../support/raw-http2.ts'

describe('an answer of our own over HTTP/2', () => {
  for (const [status, method, length, body] of [
    [302, 'GET', '4', 'text'],
    [302, 'HEAD', '4', ''],
    [204, 'GET', undefined, ''],
    [205, 'GET', undefined, ''],
    [304, 'GET', undefined, ''],
  ] as const) {
    it(`has content and a length where status and method allow them: ${status} to ${method}`, async () => {
      const { raw } = await inMemory(({ stream }) =>
        sendOwnAnswer(
          stream,
          { method, fields: [] },
          { code: 'denied', id: 'x', status, body: 'text' },
        ),
      )
      raw.send(head(1, requestFields({ ':method': method })))
      const answer = await raw.answered(1)
      assert.deepEqual([answer.status, answer.ended], [status, true])
      assert.equal(fieldValue(answer.fields, 'content-length'), length)
      assert.equal(String(answer.body), body)
    })
  }
})
