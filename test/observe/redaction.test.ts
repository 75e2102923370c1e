import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decisionEvent } from '../../src/observe/decision-event.ts'
import { createRedactor, REDACTED } from '../../src/observe/redaction.ts'
import { decisionRecord, inputText } from './support.ts'

const redactor = createRedactor(['X-Tenant-Pin'])
const JWT = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln'

for (const name of [
  'authorization',
  'Proxy-Authorization',
  'cookie',
  'set-cookie',
  'x-api-key',
  'x-auth-token',
  'x-amz-security-token',
  'client-secret',
  'x-password',
  'x-tenant-pin',
]) {
  test(`the value of ${name} is a secret`, () => {
    assert.equal(redactor.header(name, 'abc'), REDACTED)
  })
}

for (const value of [
  'Bearer abc',
  'basic dXNlcjpwYXNz',
  JWT,
  'base64url.bearer.authorization.k8s.io.abc, v1',
  '-----BEGIN EC PRIVATE KEY-----',
]) {
  test(`"${value.slice(0, 20)}" is a secret under any name`, () => {
    assert.equal(redactor.header('x-anything', value), REDACTED)
  })
}

test('ordinary headers are left alone', () => {
  for (const [name, value] of [
    ['user-agent', 'curl/8.9'],
    ['x-forwarded-client-cert', 'By=spiffe://a/b;Hash=00;URI=spiffe://a/c'],
    ['traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'],
    ['accept', 'text/html;q=0.8'],
  ] as const) {
    assert.equal(redactor.header(name, value), value)
  }
})

for (const [target, clean] of [
  ['/a?access_token=abc&x=1', `/a?access_token=${REDACTED}&x=1`],
  ['/a?x=1&access%5Ftoken=abc', `/a?x=1&access%5Ftoken=${REDACTED}`],
  ['/a?x=1;token=abc', `/a?x=1;token=${REDACTED}`],
  ['/a?sig=abc', `/a?sig=${REDACTED}`],
  [`/a?x=${JWT}`, `/a?x=${REDACTED}`],
  [`/a?${JWT}`, `/a?${REDACTED}`],
  ['/a?x=%zz&design=1', '/a?x=%zz&design=1'],
  ['/token/abc', '/token/abc'],
] as const) {
  test(`${target} is logged as ${clean}`, () => {
    assert.equal(redactor.target(target), clean)
  })
}

test('log fields are redacted at any depth, and errors keep their message and code', () => {
  const error = Object.assign(new Error('no'), { code: 'EACCES' })
  const clean = JSON.parse(
    JSON.stringify(
      redactor.fields({
        a: { headers: { Cookie: 'x', accept: 'y' } },
        list: [{ token: 1 }],
        error,
      }),
    ),
  )
  assert.deepEqual(clean.a, { headers: { Cookie: REDACTED, accept: 'y' } })
  assert.deepEqual(clean.list, [{ token: REDACTED }])
  assert.equal(clean.error.message, 'no')
  assert.equal(clean.error.code, 'EACCES')
})

test('log fields of any depth and with cycles come out bounded', () => {
  const loop: Record<string, unknown> = { wide: Array.from({ length: 10_000 }, (_, i) => i) }
  loop['self'] = loop
  assert.ok(JSON.stringify(redactor.fields(loop)).length < 10_000)
})

test('hostile text is searched in linear time', () => {
  // 256 KB each; a quadratic expression would take minutes and meet the timeout of the test run.
  for (const piece of ['-eyJ', '&', '?a', 'eyJa.', '-----BEGIN ', ';%', 'bearer']) {
    const text = piece.repeat(Math.ceil(262_144 / piece.length))
    redactor.header('x', text)
    redactor.target(`/?${text}`)
  }
})

const pieces = fc.constantFrom(
  'token',
  'x',
  'authorization',
  'Cookie',
  'sig',
  'design',
  'X-TENANT-PIN',
  'bearer ',
  'Bearer a',
  JWT,
  '%74oken',
  '%',
  '=',
  '&',
  ';',
  '?',
  '/',
  ' ',
  '"',
  '\\',
  'é',
  '\u0000',
  '-',
  '.',
  'pass',
  'word',
  'jwt',
)
const text = fc.array(pieces, { maxLength: 6 }).map((parts) => parts.join(''))

test('no secret of a header or query survives in a decision event', () => {
  const secret = 'S3CR3TVALUE'
  const names = fc.constantFrom(
    'authorization',
    'cookie',
    'x-api-key',
    'X-Auth-Token',
    'x-tenant-pin',
  )
  fc.assert(
    fc.property(names, fc.dictionary(text, text, { maxKeys: 3 }), (name, others) => {
      const input = inputText(
        { ...others, [name]: secret, ':path': `/a?token=${secret}`, referer: `/b?token=${secret}` },
        `/a?token=${secret}`,
        { token: [secret] },
      )
      const result = JSON.stringify({
        allowed: true,
        headers: [{ [name]: [secret] }, { x: 'y' }],
        response_headers_to_add: { 'set-cookie': secret },
        query_parameters_to_set: { token: secret },
      })
      const labels = { id: 'a', version: '1' }
      const event = decisionEvent(decisionRecord({ input, result }), { labels, redactor })
      assert.ok(event.kind === 'event' && !event.json.includes(secret))
    }),
    { numRuns: 300 },
  )
})
