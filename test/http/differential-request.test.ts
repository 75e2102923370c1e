// Requests, whole connections of them, read by this codec and by llhttp. Where both accept they must
// agree about every byte; where only we refuse, the reason must be in STRICTER and must be visible in
// the bytes; where only llhttp refuses, it must be in MORE_LENIENT.
import assert from 'node:assert/strict'
import { METHODS as METHODS_OF_LLHTTP } from 'node:http'
import { it } from 'node:test'
import fc from 'fast-check'
import { ChunkedDecoder } from '../../src/http/chunked.ts'
import { fieldValue } from '../../src/http/fields.ts'
import { parseRequestHead } from '../../src/http/head.ts'
import { keptTrailers } from '../../src/http/trailers.ts'
import {
  DIFFERENTIAL_CASES,
  isLooseChunkLine,
  type OracleMessage,
  requestsByLlhttp,
} from './llhttp.ts'
import { bytes, LIMITS } from './support.ts'

interface Disagreement {
  readonly reason: string
  /** Whether that reason is there to see: in the head, or in what follows it for a bad body. */
  readonly evidence: (text: string) => boolean
}

/** What we refuse and llhttp accepts, by our code. */
const STRICTER: Readonly<Record<string, readonly Disagreement[]>> = {
  bad_request_line: [
    {
      reason: 'an empty line before a request can be the end of a body that was framed wrongly',
      evidence: (head) => /^[\r\n]/.test(head),
    },
    {
      reason: 'recipients differ in what several spaces separate',
      evidence: (head) => /^\S+ {2}|^\S+ \S+ {2}/.test(head),
    },
    {
      reason: 'a line without version is HTTP/0.9, which has no fields and no framing',
      evidence: (head) => /^\S+ +\S+ *(\r\n|$)/.test(head),
    },
  ],
  unsupported_version: [
    {
      reason: 'only HTTP/1.0 and 1.1 have this syntax with a known meaning',
      evidence: (head) => /^\S+ \S+ HTTP\/(0\.9|2\.0)/.test(head),
    },
  ],
  unsupported_method: [
    {
      reason: 'TRACE would show the client the identity fields made for the workload',
      evidence: (head) => head.startsWith('TRACE '),
    },
  ],
  bad_target: [
    {
      reason: 'fragment, backslash and malformed escapes are read differently by workloads',
      evidence: (head) => /^\S+ \S*(#|\\|%(?![0-9a-f]{2}))/i.test(head),
    },
    {
      reason: 'forms that the method does not have (RFC 9112 section 3.2)',
      evidence: (head) => /^(?!OPTIONS )\S+ \*|^\S+ (?!\/|https?:\/\/[^/?\s])/i.test(head),
    },
  ],
  ambiguous_path: [
    {
      reason: 'policy and workload could read different paths',
      evidence: (head) =>
        /^\S+ (https?:\/\/[^/?]*)?[^?\s]*(\/\/|\/\.{1,2}[/? ]|%(2[def]|3[0-9b]|[46][1-9a-f]|[57][0-9a]|5[cf])|;|%00)/i.test(
          head,
        ),
    },
  ],
  bad_header: [
    {
      reason: 'obs-text has no agreed alphabet',
      evidence: (head) => /[\x80-\xff]/.test(head),
    },
    {
      reason: 'llhttp takes "chunked" with a space after it for chunked, but not with a tab',
      evidence: (head) => /^transfer-encoding:.*[ \t]\r?$/im.test(head),
    },
  ],
  duplicate_header: [
    {
      reason: 'recipients differ in which one counts',
      evidence: (head) =>
        ['authorization', 'content-type', 'expect', 'upgrade'].some(
          (name) => values(head, name).length > 1,
        ),
    },
  ],
  bad_host: [
    {
      reason: 'exactly one plain host, and the same as in an absolute target',
      evidence: (head) => {
        const [host, ...more] = values(head, 'host')
        const authority = /^\S+ https?:\/\/([^/? ]*)/i.exec(head)?.[1] ?? host
        return (
          more.length > 0 ||
          authority?.toLowerCase() !== host?.toLowerCase() ||
          !/^([\w.~-]+|\[[0-9a-f.]*:[0-9a-f.]*:[0-9a-f:.]*\])(:\d{1,5})?$/i.test(host ?? '')
        )
      },
    },
  ],
  bad_framing: [
    {
      reason: 'a leading zero is octal to some; and no length beyond 2^53 is meant seriously',
      evidence: (head) => /^(0\d|\d{16})/.test(values(head, 'content-length')[0] ?? ''),
    },
    {
      reason: 'HTTP/1.0 has no transfer codings: a recipient of that age sees the next request',
      evidence: (head) =>
        values(head, 'transfer-encoding').length > 0 && /^\S+ \S+ HTTP\/1\.0/.test(head),
    },
    {
      reason: 'a transfer coding that is said twice is applied twice, or once',
      evidence: (head) => values(head, 'transfer-encoding').length > 1,
    },
  ],
  unsupported_encoding: [
    {
      reason: 'codings other than chunked are applied by some recipients and ignored by others',
      evidence: (head) => !/^chunked$/i.test(values(head, 'transfer-encoding')[0] ?? 'chunked'),
    },
  ],
  bad_connection_header: [
    {
      reason: 'a list of tokens, none of which an intermediary must not drop',
      evidence: (head) =>
        /[^\w!#$%&'*+\-.^`|~, \t]|[^,\s][ \t]+[^,\s]|content-|host|cookie|auth|cert|expect|transfer/i.test(
          values(head, 'connection').join(),
        ),
    },
  ],
  unsupported_expectation: [
    {
      reason: 'answered 417, as node:http does by default',
      evidence: (head) => values(head, 'expect')[0]?.toLowerCase() !== '100-continue',
    },
  ],
  bad_upgrade: [
    {
      reason: 'half a WebSocket handshake; node:http leaves this to its user',
      evidence: (head) => values(head, 'upgrade')[0]?.toLowerCase() === 'websocket',
    },
  ],
  bad_chunk: [
    {
      reason:
        'an extension is a token, or two with = between (RFC 9112 section 7.1.1); quotes hide line ends',
      evidence: (body) => body.split('\n').some(isLooseChunkLine),
    },
    {
      reason: 'an extension of this length has no use',
      evidence: (body) => /;[^\r\n]{256}/.test(body),
    },
    {
      reason: 'sizes of more than 13 digits are beyond any body',
      evidence: (body) => /(^|\n)[0-9a-f]{14}/i.test(body),
    },
  ],
  bad_trailer: [
    {
      reason: 'a trailer must not say what frames, routes or authenticates',
      evidence: (body) => /\n(host|authorization|cookie|te|upgrade|expect):/i.test(body),
    },
    {
      reason: 'obs-text has no agreed alphabet',
      evidence: (body) => /[\x80-\xff]/.test(body),
    },
  ],
}

/** What we accept and llhttp refuses, by the code of llhttp. */
const MORE_LENIENT: Readonly<Record<string, Disagreement>> = {
  HPE_INVALID_METHOD: {
    reason: 'methods are an open set (RFC 9110 section 9.1): policy decides, the workload knows',
    evidence: (head) => !KNOWN_METHODS.has(head.slice(0, head.indexOf(' '))),
  },
}

const KNOWN_METHODS: ReadonlySet<string> = new Set(METHODS_OF_LLHTTP)

/** The values of a field, read from the text of a head as plainly as can be. */
function values(head: string, name: string): string[] {
  return head
    .split('\r\n')
    .filter((line) => line.toLowerCase().startsWith(`${name}:`))
    .map((line) => line.slice(name.length + 1).replaceAll(/^[ \t]+|[ \t]+$/g, ''))
}

const METHODS = [
  'GET',
  'GET',
  'POST',
  'POST',
  'PUT',
  'DELETE',
  'OPTIONS',
  'HEAD',
  'PATCH',
  'M-SEARCH',
  'TRACE',
]
const TARGETS = [
  '/',
  '/',
  '/a/b?c=d',
  '/a',
  '/a/../b',
  '//a',
  '/a%2fb',
  '*',
  'http://a/b',
  '/a#b',
  'a',
]
const LINES = [
  'Accept: */*',
  'X-Empty:',
  'x-spaces:  a b \t',
  'Connection: close',
  'Connection: keep-alive',
  'Connection: x-a, Upgrade',
  'Upgrade: websocket',
  'Upgrade: h2c',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  'Sec-WebSocket-Version: 13',
  'Expect: 100-continue',
  'Authorization: Basic eDp5',
  'Content-Type: text/plain',
  '__proto__: x',
  'X_Y: z',
]
const HOSTS = [
  'Host: a',
  'Host: a',
  'Host: a',
  'Host: a:80',
  'Host: [::1]:80',
  'Host: a, b',
  'Host:',
]
/** The body follows the fields that announce it. */
const BODIES = [
  ['', ''],
  ['', ''],
  ['Content-Length: 0\r\n', ''],
  ['Content-Length: 3\r\n', 'abc'],
  ['Transfer-Encoding: chunked\r\n', '0\r\n\r\n'],
  ['Transfer-Encoding: chunked\r\n', '3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\n\r\n'],
  ['transfer-encoding: Chunked\r\n', '1\r\na\r\n0\r\nX-T: u\r\nContent-Md5: v\r\n\r\n'],
  ['Content-Length: 3\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'],
  ['Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'],
  ['Content-Length: 3\r\nContent-Length: 3\r\n', 'abc'],
  ['Content-Length: 03\r\n', 'abc'],
] as const

const message = fc
  .record({
    method: fc.constantFrom(...METHODS),
    target: fc.constantFrom(...TARGETS, '/', '/', '/', '/', '/'),
    version: fc.constantFrom('1.1', '1.1', '1.1', '1.1', '1.0'),
    host: fc.constantFrom(...HOSTS),
    lines: fc.array(fc.constantFrom(...LINES), { maxLength: 4 }),
    body: fc.constantFrom(...BODIES),
  })
  .map(({ method, target, version, host, lines, body }) => {
    const fields = [host, ...lines].map((line) => `${line}\r\n`).join('')
    return `${method} ${target} HTTP/${version}\r\n${fields}${body[0]}\r\n${body[1]}`
  })

const damage = fc.record({
  place: fc.nat(),
  insert: fc.constantFrom(
    ...['\r', '\n', '\r\n', '\0', ' ', '\t', ':', ',', ';', '\x0b', '\x7f', '\x80', '\xff'],
    ...['0', '5', '-', '_', '"', '(', 'a', 'X', 'chunked', 'Content-Length: 5\r\n', ''],
  ),
  overwrite: fc.nat(2),
})

it('agrees with llhttp about every connection, or has a listed reason to be stricter', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(message, { minLength: 1, maxLength: 3 }),
      fc.array(damage, { maxLength: 2 }),
      async (messages, damages) => {
        let text = messages.join('')
        for (const { place, insert, overwrite } of damages) {
          const at = place % (text.length + 1)
          text = text.slice(0, at) + insert + text.slice(at + overwrite)
        }
        await compare(text)
      },
    ),
    DIFFERENTIAL_CASES,
  )
})

const post = (fields: string, body: string) =>
  `POST / HTTP/1.1\r\nHost: a\r\n${fields}\r\n\r\n${body}GET /next HTTP/1.1\r\nHost: a\r\n\r\n`
const chunked = (body: string) => post('Transfer-Encoding: chunked', body)
const PINNED = [
  post('Content-Length: +3', 'abc'),
  post('Content-Length: 3, 3', 'abc'),
  post('Content-Length: 0x3', 'abc'),
  post('Content-Length: 3\r\nTransfer-Encoding: chunked', '0\r\n\r\n'),
  post('Transfer-Encoding: chunked\r\nContent-Length: 3', '0\r\n\r\n'),
  post('Transfer-Encoding: xchunked', '0\r\n\r\n'),
  post('Transfer-Encoding: chunked, identity', '0\r\n\r\n'),
  post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked', '0\r\n\r\n'),
  post('Transfer-Encoding: \x0bchunked', '0\r\n\r\n'),
  post('Transfer-Encoding: chunked\t', '0\r\n\r\n'),
  post('Transfer-Encoding: chunked ', '0\r\n\r\n'),
  post('Transfer-Encoding : chunked', '0\r\n\r\n'),
  post('X: y\r\n Transfer-Encoding: chunked', '0\r\n\r\n'),
  post('X: y\nContent-Length: 3', 'abc'),
  post('X: y\rContent-Length: 3', 'abc'),
  post('Content-Length: 9007199254740993', 'abc'),
  chunked('3\r\nabc\r\n0\r\n\r\n'),
  chunked('3;a="b;c"\r\nabc\r\n0;d\r\n\r\n'),
  chunked('3;a\nb\r\nabc\r\n0\r\n\r\n'),
  chunked('3 \r\nabc\r\n0\r\n\r\n'),
  chunked('3\rXabc\r\n0\r\n\r\n'),
  chunked('3\r\nabc\rX0\r\n\r\n'),
  chunked('3\r\nabc\r\n0\rX\r\n'),
  chunked('3\r\nabc\r\n0\r\n\rX'),
  chunked('3\nabc\r\n0\r\n\r\n'),
  chunked('3\r\nabcd\r\n0\r\n\r\n'),
  chunked('0x3\r\nabc\r\n0\r\n\r\n'),
  chunked('-3\r\nabc\r\n0\r\n\r\n'),
  chunked('10000000000000003\r\nabc\r\n0\r\n\r\n'),
  chunked('00000000000003\r\nabc\r\n0\r\n\r\n'),
  chunked(`3;${'a'.repeat(300)}\r\nabc\r\n0\r\n\r\n`),
  chunked('0\r\nHost: b\r\n\r\n'),
  chunked('0\r\nContent-Length: 3\r\n\r\n'),
  chunked('0\r\nX: \xe9\r\n\r\n'),
  'GET /\r\n\r\n',
  'GET / HTTP/2.0\r\nHost: a\r\n\r\n',
  'GET  / HTTP/1.1\r\nHost: a\r\n\r\n',
  'GET /  HTTP/1.1\r\nHost: a\r\n\r\n',
  '\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
  'GET http://evil/ HTTP/1.1\r\nHost: a\r\n\r\n',
  'GET /..%2f HTTP/1.1\r\nHost: a\r\n\r\n',
]

it('agrees with llhttp about the known vectors, or has a listed reason to be stricter', async () => {
  for (const text of PINNED) await compare(text)
})

async function compare(text: string): Promise<void> {
  const ours = requestsByUs(text)
  const theirs = await requestsByLlhttp(bytes(text))
  const shown = () => JSON.stringify({ text, ours, theirs }, undefined, 1)

  for (const [i, message] of ours.messages.entries()) {
    const other = theirs.messages[i]
    if (other === undefined) {
      const allowed = MORE_LENIENT[theirs.refused ?? '']
      assert.ok(allowed?.evidence(headAt(text, message.at)), shown())
      return
    }
    assert.equal(originForm(other.start), message.start, shown())
    assert.deepEqual(other.fields, message.fields, shown())
    // Of `close` and `keep-alive` in HTTP/1.0, llhttp heeds the latter.
    if (message.keepAlive) assert.equal(other.keepAlive, true, shown())
    if (message.complete || ours.refused === undefined) {
      assert.equal(other.body, message.body, shown())
      assert.equal(other.complete, message.complete, shown())
      assert.deepEqual(keptTrailers([...other.trailers]), message.trailers, shown())
      // A trailer section is judged when it is complete, and nothing of it passed on before.
      const inTrailers = /\n0+(;[^\r\n]*)?\r\n/.test(text.slice(message.at))
      if (!message.complete && !inTrailers) assert.equal(theirs.refused, undefined, shown())
    } else {
      assert.ok(other.body.startsWith(message.body), shown())
    }
  }
  if (ours.refused === undefined) {
    // Where we wait for the rest of a head, llhttp must not have seen the end of one.
    if (!ours.closed) assert.equal(theirs.messages.length, ours.messages.length, shown())
    return
  }
  const { code, at, inBody } = ours.refused
  const accepted = theirs.messages[ours.messages.length - (inBody ? 1 : 0)]
  if (accepted === undefined || (inBody && !accepted.complete)) return
  const seen = inBody ? text.slice(at) : headAt(text, at)
  assert.ok(
    STRICTER[code]?.some(({ evidence }) => evidence(seen)),
    `${code} without a listed reason: ${shown()}`,
  )
}

/** What llhttp could take for the head: up to the first empty line, and over empty lines before it. */
function headAt(text: string, at: number): string {
  return /^[\r\n]*.*?(?=\r\n\r\n|$)/s.exec(text.slice(at))![0]
}

interface OurMessage extends OracleMessage {
  readonly at: number
}

function requestsByUs(text: string) {
  const buffer = bytes(text)
  const messages: OurMessage[] = []
  const open = { messages, refused: undefined, closed: false }
  let at = 0
  while (at < buffer.length) {
    const head = parseRequestHead(buffer, at, buffer.length, LIMITS)
    if (head === undefined) return open
    if (head.kind === 'rejection') {
      return { messages, refused: { code: head.code, at, inBody: false }, closed: true }
    }
    const message: OurMessage = {
      at,
      start: `${head.method} ${head.target}`,
      fields: head.fields,
      keepAlive: head.keepAlive,
      body: '',
      trailers: [],
      complete: false,
    }
    messages.push(message)
    let next = at + head.headBytes
    if (head.body.kind === 'chunked') {
      const decoder = new ChunkedDecoder({ maxTrailerBytes: 1024, maxTrailerCount: 8 })
      const end = decoder.decode(buffer, next, buffer.length, (from, to) => {
        message.body += buffer.toString('latin1', from, to)
      })
      if (typeof end !== 'number') {
        return { messages, refused: { code: end.code, at: next, inBody: true }, closed: true }
      }
      message.complete = decoder.done
      message.trailers = decoder.trailers
      next = end
    } else {
      const length = head.body.kind === 'length' ? head.body.length : 0
      message.body = buffer.toString('latin1', next, Math.min(next + length, buffer.length))
      message.complete = next + length <= buffer.length
      next += length
    }
    if (!message.complete) return open
    // After an upgrade that it was asked for and did not make, node:http reads no further.
    const upgrade = fieldValue(head.fields, 'upgrade') !== undefined
    if (!head.keepAlive || upgrade) return { ...open, closed: true }
    at = next
  }
  return open
}

function originForm(start: string): string {
  return start.replace(/ https?:\/\/[^/?]*/i, ' ')
}
