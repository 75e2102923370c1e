// Requests with bodies as policy is shown them: JSON that holds what came and nothing that did not, or
// a refusal; and the lines that the logs write about them, each one line of plain JSON.
import assert from 'node:assert/strict'
import { removeUntrustedFields } from '../../../src/http/fields.ts'
import { parseRequestHead } from '../../../src/http/head.ts'
import { decisionEvent } from '../../../src/observe/decision-event.ts'
import { harmlessJson } from '../../../src/observe/harmless.ts'
import { createRedactor, REDACTED } from '../../../src/observe/redaction.ts'
import { buildInput, InputError, PARTIAL_BODY } from '../../../src/policy/input.ts'
import { LIMITS } from '../../http/support.ts'
import { decisionRecord } from '../../observe/support.ts'
import { connection, NOW_MS } from '../../policy/support.ts'
import { linesMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

const CONNECTION = connection()
const post = (type: string, body: string) =>
  `POST /a/b?c=d&c=e HTTP/1.1\r\nHost: a\r\nContent-Type: ${type}\r\nContent-Length: ${body.length}\r\n\r\n${body}`

export const target: Target = {
  name: 'policy-input',
  runs: 5_000,
  seeds: () => [
    'GET /a%20b/%c3%a4?q=%41&q=+&token=s HTTP/1.1\r\nHost: a\r\nCookie: a\r\nCookie: b\r\nX-A: 1\r\nx-a: 2\r\n\r\n',
    post('application/json', '{"a":[1,2.5e3,"\\ud83d\\ude00",null,true,{"b":{}}]}'),
    post('application/x-www-form-urlencoded', 'a=b&a=c&d=%7e+x'),
    post(
      'multipart/form-data; boundary=b',
      '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--\r\n',
    ),
    'GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n__proto__: y\r\nconstructor: z\r\nX-Envoy-Auth-Partial-Body: true\r\n\r\n',
  ],
  dictionary: [
    ...[
      '%00',
      '%0a',
      '%ff',
      '%c3%a4',
      '%25',
      '&',
      ';',
      '=',
      '+',
      '{',
      '}',
      '[',
      ']',
      '"',
      '\\u0000',
      '1e999',
    ],
    ...[
      '--b\r\n',
      '--b--',
      'name="',
      'Content-Type: application/json\r\n',
      '__proto__',
      '\x1b[2J',
      '\xe2\x80\xa8',
    ],
    ...[
      'Content-Encoding: gzip\r\n',
      'token=',
      'eyJhbGciOiJub25lIn0.e30.',
      '[[[[[[[[',
      '{"a":',
      '0.1e-400',
    ],
  ],
  mutators: [linesMutator],
  check: (input) => {
    const head = parseRequestHead(input, 0, input.length, LIMITS)
    if (head?.kind !== 'request') return
    const { method, target, path, query, host, headBytes } = head
    const bytes = input.subarray(headBytes)
    const request = {
      ...{
        requestId: '1',
        timeMs: NOW_MS,
        method,
        target,
        path,
        query,
        host,
        scheme: 'https' as const,
      },
      ...{ protocol: head.protocol, connection: CONNECTION, bodySize: bytes.length },
      fields: removeUntrustedFields(head.fields, { forwardedClientCert: false }),
      body: { bytes, complete: true },
    }
    let text: string
    try {
      text = buildInput(request)
    } catch (error) {
      assert.ok(error instanceof InputError, `${error}`)
      return assert.doesNotMatch(error.message, /[\0-\x1f\x7f]/)
    }
    const said = JSON.parse(text)
    const { http } = said.attributes.request
    assert.deepEqual(
      [http.method, http.path, http.host, said.attributes.source.principal],
      [method, target, host, CONNECTION.peer.principal],
    )
    const decoded = decodeURIComponent(path)
    assert.deepEqual(said.parsed_path, decoded.replace(/^\/+/, '').split('/'))
    assert.equal(http.headers[':authority'], host)
    for (let i = 0; i < request.fields.length; i += 2) {
      const name = request.fields[i]!
      if (name === 'host' || name === PARTIAL_BODY) continue
      assert.ok(
        Object.hasOwn(http.headers, name) && http.headers[name].includes(request.fields[i + 1]!),
      )
    }
    const type = http.headers['content-type'] ?? ''
    if (/^application\/json$/.test(type) && bytes.length > 0) {
      assert.deepEqual(said.parsed_body, wellFormed(JSON.parse(bytes.toString())))
    }
    checkEvent(text)
  },
}

function checkEvent(input: string): void {
  const context = { labels: { id: 'a', version: '1' }, redactor: createRedactor() }
  const event = decisionEvent(decisionRecord({ input }), context)
  assert.ok(event.kind === 'event', event.kind)
  assert.match(harmlessJson(event.json), /^\P{Cc}+$/u)
  const { headers } = JSON.parse(event.json).input.attributes.request.http
  for (const name of ['authorization', 'cookie', 'x-token']) {
    if (Object.hasOwn(headers, name)) assert.equal(headers[name], REDACTED)
  }
}

/** Half of a surrogate pair is U+FFFD to OPA. */
function wellFormed(value: unknown): unknown {
  if (typeof value === 'string') return value.toWellFormed()
  if (Array.isArray(value)) return value.map(wellFormed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key.toWellFormed(), wellFormed(one)]),
  )
}
