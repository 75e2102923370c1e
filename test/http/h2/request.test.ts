import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { readRequestList } from '../../../src/http/h2/request.ts'
import { parseRequestHead } from '../../../src/http/head.ts'
import { LIMITS } from '../support.ts'

const LIST = [':method', 'GET', ':scheme', 'https', ':authority', 'svc.test', ':path', '/a?b=c']

const read = (list: readonly string[], endStream = true, limits = {}) =>
  readRequestList(list, endStream, { ...LIMITS, ...limits })

const codeOf = (list: readonly string[], endStream = true, limits = {}): string => {
  const head = read(list, endStream, limits)
  return head.kind === 'rejection' ? head.code : 'accepted'
}

const changed = (name: string, value: string): string[] =>
  LIST.map((text, i) => (LIST[i - 1] === name ? value : text))

const without = (name: string): string[] =>
  LIST.filter((text, i) => text !== name && LIST[i - 1] !== name)

describe('the head of an HTTP/2 request', () => {
  it('is read like one of HTTP/1.1', () => {
    const head = read([...LIST, 'x-a', '1', 'cookie', 'a=b', 'cookie', 'c=d'])
    assert.ok(head.kind === 'request')
    assert.equal(head.protocol, 'HTTP/2')
    assert.equal(head.path, '/a')
    assert.equal(head.query, 'b=c')
    assert.deepEqual(head.fields, ['host', 'svc.test', 'x-a', '1', 'cookie', 'a=b; c=d'])
    assert.deepEqual(head.body, { kind: 'none' })
    assert.equal(head.upgrade, undefined)
  })

  it('says how long the body is, or that nobody knows', () => {
    const body = (list: readonly string[], endStream: boolean) => {
      const head = read(list, endStream)
      return head.kind === 'request' ? head.body : head.code
    }
    assert.deepEqual(body(LIST, false), { kind: 'chunked' })
    assert.deepEqual(body([...LIST, 'content-length', '5'], false), { kind: 'length', length: 5 })
    assert.deepEqual(body([...LIST, 'content-length', '0'], true), { kind: 'length', length: 0 })
    assert.equal(body([...LIST, 'content-length', '5'], true), 'bad_framing')
    assert.equal(body([...LIST, 'content-length', '05'], false), 'bad_framing')
    assert.equal(
      body([...LIST, 'content-length', '5', 'content-length', '5'], false),
      'bad_framing',
    )
  })

  it('is a GET for policy and workload where it asks for a WebSocket', () => {
    const asked = [...changed(':method', 'CONNECT'), ':protocol', 'websocket']
    const head = read(asked, false)
    assert.ok(head.kind === 'request')
    assert.equal(head.method, 'GET')
    assert.equal(head.upgrade, 'websocket')
    assert.deepEqual(head.body, { kind: 'none' })
    assert.equal(codeOf(asked, true), 'bad_upgrade')
    assert.equal(
      codeOf([...changed(':method', 'CONNECT'), ':protocol', 'bytestream'], false),
      'bad_upgrade',
    )
    assert.equal(codeOf([...LIST, ':protocol', 'websocket']), 'bad_request_line')
    assert.equal(codeOf(changed(':method', 'CONNECT')), 'unsupported_method')
  })

  for (const [what, list, code] of [
    ['no method', without(':method'), 'bad_request_line'],
    ['no path', without(':path'), 'bad_request_line'],
    ['no scheme', without(':scheme'), 'bad_request_line'],
    ['no authority and no host', without(':authority'), 'bad_host'],
    ['another scheme', changed(':scheme', 'ftp'), 'bad_request_line'],
    ['a status', [...LIST, ':status', '200'], 'bad_request_line'],
    ['a method twice', [...LIST, ':method', 'GET'], 'bad_header'],
    ['a pseudo-field behind a field', [...LIST, 'a', 'b', ':x', 'y'], 'bad_header'],
    ['TRACE', changed(':method', 'TRACE'), 'unsupported_method'],
    ['a method in lower case', changed(':method', 'get'), 'unsupported_method'],
    ['a method with a space', changed(':method', 'GET /x'), 'bad_request_line'],
    ['user information in the authority', changed(':authority', 'a@b'), 'bad_host'],
    ['a slash in the authority', changed(':authority', 'a/b'), 'bad_host'],
    ['another host', [...LIST, 'host', 'other.test'], 'bad_host'],
    ['two hosts', [...LIST, 'host', 'svc.test', 'host', 'svc.test'], 'bad_host'],
    ['an absolute path', changed(':path', 'https://svc.test/a'), 'bad_target'],
    ['an empty path', changed(':path', ''), 'bad_target'],
    ['a path with a space', changed(':path', '/a b'), 'bad_target'],
    ['a fragment', changed(':path', '/a#b'), 'bad_target'],
    ['dot segments', changed(':path', '/a/../b'), 'ambiguous_path'],
    ['an encoded slash', changed(':path', '/a%2fb'), 'ambiguous_path'],
    ['an empty segment', changed(':path', '//a'), 'ambiguous_path'],
    ['* for GET', changed(':path', '*'), 'bad_target'],
    ['connection', [...LIST, 'connection', 'close'], 'bad_header'],
    ['transfer-encoding', [...LIST, 'transfer-encoding', 'chunked'], 'bad_header'],
    ['upgrade', [...LIST, 'upgrade', 'h2c'], 'bad_header'],
    ['a name in upper case', [...LIST, 'X-A', '1'], 'bad_header'],
    ['a name with a space', [...LIST, 'x a', '1'], 'bad_header'],
    ['an empty name', [...LIST, '', '1'], 'bad_header'],
    ['a line feed in a value', [...LIST, 'x-a', '1\n2'], 'bad_header'],
    ['a value that is not ASCII', [...LIST, 'x-a', 'ü'], 'bad_header'],
    ['space around a value', [...LIST, 'x-a', ' 1'], 'bad_header'],
    [
      'two authorizations',
      [...LIST, 'authorization', 'a', 'authorization', 'b'],
      'duplicate_header',
    ],
    ['another expectation', [...LIST, 'expect', 'x'], 'unsupported_expectation'],
  ] as const) {
    it(`is refused: ${what}`, () => assert.equal(codeOf(list), code))
  }

  it('is refused beyond the limits', () => {
    assert.equal(codeOf([...LIST, 'x', 'y'.repeat(16_400)]), 'head_too_large')
    assert.equal(codeOf([...LIST, 'x', 'y'], true, { headerCount: 1 }), 'too_many_headers')
    assert.equal(
      codeOf(changed(':path', `/${'a'.repeat(9_000)}`), true, { targetBytes: 8_000 }),
      'target_too_long',
    )
  })

  it('has as many fields as the HTTP/1.1 request would have lines', () => {
    const of = (...fields: string[]) => codeOf([...LIST, ...fields], true, { headerCount: 3 })
    const crumbs = Array.from({ length: 50 }, (_, i) => ['cookie', `c${i}=v`]).flat()
    assert.equal(of('x', '1', 'y', '2'), 'accepted')
    assert.equal(of('x', '1', ...crumbs), 'accepted')
    assert.equal(of('host', 'svc.test', 'x', '1', 'y', '2'), 'accepted')
    assert.equal(of('x', '1', 'y', '2', 'z', '3'), 'too_many_headers')
    assert.equal(of('x', '1', 'y', '2', ...crumbs), 'too_many_headers')
  })

  it('means the same as the HTTP/1.1 request with the same parts', () => {
    const segment = fc.string({
      unit: fc.constantFrom(
        'a',
        'B',
        '7',
        '.',
        '-',
        '%',
        '2',
        'f',
        '5',
        'c',
        '/',
        ';',
        '?',
        '=',
        '&',
        '\\',
        ' ',
        '#',
        'ü',
        '\x00',
      ),
      maxLength: 12,
    })
    const name = fc.constantFrom('x-a', 'accept', 'authorization', 'content-type', 'X-B', 'x b', '')
    const value = fc.string({
      unit: fc.constantFrom('a', ' ', ',', '"', '\t', '\x7f', 'é'),
      maxLength: 5,
    })
    fc.assert(
      fc.property(
        fc.constantFrom('GET', 'PUT', 'OPTIONS', 'TRACE', 'get', 'G T', 'PROPFIND'),
        fc.oneof(
          segment.map((text) => `/${text}`),
          fc.constant('*'),
          segment,
        ),
        fc.constantFrom('svc.test', 'svc.test:8443', '[::1]', 'a b', 'a/b', '', 'a,b'),
        fc.array(
          fc.tuple(
            name,
            value.map((text) => text.trim()),
          ),
          { maxLength: 4 },
        ),
        (method, target, host, pairs) => {
          // What HTTP/1.1 alone knows: an absolute form, names in any case, a line without a name.
          fc.pre(!target.startsWith('http') && !target.includes(':'))
          fc.pre(pairs.every(([key]) => key !== 'X-B'))
          const lines = pairs.map(([key, text]) => `${key}: ${text}\r\n`).join('')
          const text = `${method} ${target} HTTP/1.1\r\nhost: ${host}\r\n${lines}\r\n`
          const bytes = Buffer.from(text, 'latin1')
          const first = parseRequestHead(bytes, 0, bytes.length, LIMITS)
          assert.notEqual(first, undefined)
          const second = read([
            ':method',
            method,
            ':scheme',
            'https',
            ':authority',
            host,
            ':path',
            target,
            ...pairs.flat(),
          ])
          assert.equal(second.kind, first?.kind, JSON.stringify([first, second]))
          if (first?.kind !== 'request' || second.kind !== 'request') return
          for (const key of ['method', 'target', 'path', 'query', 'host'] as const) {
            assert.equal(second[key], first[key])
          }
          assert.deepEqual(second.fields, first.fields)
        },
      ),
      { numRuns: 3000 },
    )
  })
})
