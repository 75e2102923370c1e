// Requests as only an attacker sends them, with all that an input document has to stand.
import fc from 'fast-check'
import type { PolicyRequest } from '../../src/policy/input.ts'
import { PLAIN_INPUT } from '../../src/policy/input-settings.ts'
import { HASH_START, hashed } from '../../src/policy/value-layout.ts'
import { connection, NOW_MS, peer, request } from './support.ts'

/** Names of which all have their place in the same chain, whatever else there is. */
function colliding(count: number, nameOf: (i: number) => string): readonly string[] {
  const names: string[] = []
  for (let i = 0; names.length < count; i++) {
    const name = nameOf(i)
    if ((Buffer.from(name).reduce(hashed, HASH_START) & 511) === 7) names.push(name)
  }
  return names
}
export const COLLIDING = colliding(200, (i) => `x-${i}`)
const LETTERS = ['a', '\0', 'é', '\u007f', 'ÿ', '😀', 'b', '\uffff']
/** Put in order by all their bytes, also the first bit and behind a zero. */
const COLLIDING_KEYS = colliding(40, (i) =>
  i.toString(8).replace(/[0-7]/g, (digit) => LETTERS[Number(digit)] as string),
).map(encodeURIComponent)

const text = fc.oneof(
  fc.constantFrom(
    '',
    'a',
    '"',
    '\\',
    '\u0000',
    '\u001f\u007f',
    'é',
    '\u2028',
    '😀',
    'ÿ'.repeat(40),
  ),
  fc.constantFrom(
    '\ud800',
    'a\udc00b',
    `${'x'.repeat(40)}\ud83d`,
    '__proto__',
    '1e400',
    '</script>',
  ),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.nat({ max: 3 }).map((size) => 'long '.repeat(10 ** size)),
)
const name = fc.oneof(
  fc.constantFrom('accept', 'cookie', 'host', 'x-envoy-auth-partial-body', ':path', '__proto__'),
  fc.constantFrom('content-length', 'constructor', '0', '7', ...COLLIDING.slice(0, 12)),
  fc.stringMatching(/^[a-z0-9-]{1,30}$/),
)
const fields = fc.oneof(
  { weight: 6, arbitrary: fc.array(fc.tuple(name, text), { maxLength: 12 }) },
  {
    weight: 1,
    arbitrary: fc.integer({ min: 1, max: 260 }).map((count) => {
      return Array.from({ length: count }, (_, i) => [`x-${i}`, String(i)] as const)
    }),
  },
  {
    weight: 1,
    arbitrary: fc.integer({ min: 2, max: 200 }).map((count) => {
      return COLLIDING.slice(0, count).map((one) => [one, 'x'] as const)
    }),
  },
)
const path = fc.oneof(
  fc.constantFrom(
    '/',
    '/api/orders',
    '//a%2Fb//',
    '/%C3%A9',
    '/%',
    '/%0a',
    '/%00',
    '/a/%F0%9F%98%80',
  ),
  fc
    .array(fc.stringMatching(/^[a-z0-9._~-]{0,12}$/), { maxLength: 70 })
    .map((all) => `/${all.join('/')}`),
  fc.integer({ min: 60, max: 1_030 }).map((count) => '/a'.repeat(count)),
)
const query = fc.oneof(
  fc.constantFrom(
    '',
    'a=1',
    'a=1&a=2&b',
    'a=%',
    'a;b',
    '%00=%22',
    '=',
    '&&',
    '__proto__=1&é=2',
    'a+b=c+d',
  ),
  fc.integer({ min: 1, max: 260 }).map((count) => {
    return Array.from({ length: count }, (_, i) => `k${i}=${i}`).join('&')
  }),
  fc.integer({ min: 60, max: 1_030 }).map((count) => 'a=1&'.repeat(count)),
  fc.integer({ min: 2, max: 200 }).map((count) => COLLIDING.slice(0, count).join('&')),
  fc.shuffledSubarray([...COLLIDING_KEYS], { maxLength: 8 }).map((keys) => keys.join('&')),
)
const who = fc.constantFrom('web', 'admin', 'orders', 'é', '😀"\\')
const KNOWN_CONNECTIONS = new Map<string, ReturnType<typeof connection>>()
export const anyRequest: fc.Arbitrary<PolicyRequest> = fc
  .record({
    path,
    query,
    who,
    fields,
    method: fc.oneof(fc.constantFrom('GET', 'POST'), text),
    host: text,
    requestId: text,
    bodySize: fc.constantFrom(0, -1, 58, Number.MAX_SAFE_INTEGER),
    timeMs: fc.constantFrom(NOW_MS, 0, 1_700_000_000_000, NOW_MS + 0.25),
    protocol: fc.constantFrom('HTTP/1.1', 'HTTP/2'),
    settings: fc.constantFrom(
      PLAIN_INPUT,
      { ...PLAIN_INPUT, headers: ['accept', 'x-1'] },
      { ...PLAIN_INPUT, v2: true, contextExtensions: [{ name: 'é', value: '"' }] },
    ),
  })
  .map(({ path, query, who, fields, settings, ...more }) => {
    // As connections do, some are there for many requests.
    const known = `${who} ${JSON.stringify(settings)}`
    const from = KNOWN_CONNECTIONS.get(known) ?? connection(peer(who), settings)
    KNOWN_CONNECTIONS.set(known, from)
    return request(query === '' ? path : `${path}?${query}`, {
      ...more,
      fields: fields.flat(),
      connection: from,
    })
  })
