import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { parseTarget } from '../../src/http/path.ts'

const STRICT = { allowAmbiguous: false }
const LAX = { allowAmbiguous: true }

/** The code, or path and query. */
const read = (raw: string, options = STRICT, method = 'GET') => {
  const target = parseTarget(method, raw, options)
  return target.kind === 'rejection' ? target.code : [target.path, target.query]
}

describe('a path that can be read in two ways is refused, unless that is allowed', () => {
  const paths = [
    '//',
    '//admin/people',
    '/a//b',
    '/a//',
    '/.',
    '/..',
    '/a/.',
    '/a/..',
    '/a/../b',
    '/./a',
    '/%2e',
    '/%2E%2e/a',
    '/x/%2e%2e/admin',
    '/x/.%2e/admin',
    '/x/%2e./admin',
    '/x/..;a=b/admin',
    '/x/..;/admin',
    '/x;a=b',
    '/;/x',
    '/a%2fb',
    '/a%2Fb',
    '/a%5cb',
    '/a%5C..',
    '/a%3bb',
    '/%61dmin',
    '/%41dmin',
    '/v%31',
    '/a%2djson',
    '/a%2ejson',
    '/a%5fb',
  ]
  for (const path of paths) {
    it(path, () => {
      assert.equal(read(path), 'ambiguous_path')
      assert.equal(read(`${path}?q`), 'ambiguous_path')
      assert.deepEqual(read(`${path}?q`, LAX), [path, 'q'])
    })
  }
})

describe('a path that is not a path is refused, whatever is allowed', () => {
  const paths = [
    ['/a\\b', 'bad_target'],
    ['/..\\a', 'bad_target'],
    ['/a#b', 'bad_target'],
    ['/a b', 'bad_target'],
    ['/a\tb', 'bad_target'],
    ['/a\0b', 'bad_target'],
    ['/a\x7fb', 'bad_target'],
    ['/a\xe9', 'bad_target'],
    ['/\u0141', 'bad_target'],
    ['/a%', 'bad_target'],
    ['/a%2', 'bad_target'],
    ['/a%2g', 'bad_target'],
    ['/a%g2', 'bad_target'],
    ['/a%%41', 'bad_target'],
    ['/a%2?2', 'bad_target'],
    ['/a%u0041', 'bad_target'],
    ['/a%00b', 'ambiguous_path'],
    ['/..%00', 'ambiguous_path'],
  ] as const
  for (const [path, code] of paths) {
    it(JSON.stringify(path), () => {
      assert.equal(read(path), code)
      assert.equal(read(path, LAX), code)
    })
  }
})

it('takes a trailing slash, long runs of dots, and dots inside a segment', () => {
  for (const path of ['/', '/a/', '/...', '/a/.../b', '/.well-known/x', '/a..', '/..a', '/a.b/']) {
    assert.deepEqual(read(path), [path, undefined])
  }
})

it('takes escapes of what is not unreserved, and of a tilde, which older encoders write', () => {
  for (const path of ['/a%20b', '/caf%C3%A9', '/a%40b', '/%3Cx%3E', '/%7Eweb', '/a%2Cb']) {
    assert.deepEqual(read(path), [path, undefined])
  }
})

it('decodes nothing twice: an escaped percent sign is a character', () => {
  assert.deepEqual(read('/%252e%252e/a'), ['/%252e%252e/a', undefined])
})

it('refuses a query with control characters, space, "#" or a malformed escape', () => {
  for (const query of ['a b', 'a#b', 'a\tb', 'a\x7f', 'a\xe9', '%', '%4', '%zz', 'a=%2']) {
    assert.equal(read(`/?${query}`), 'bad_target', query)
  }
})

it('lets a query have dots, slashes, semicolons and the characters that browsers leave raw', () => {
  for (const query of ['', '?', '../..', '//', 'a;b', '%2f%00', 'a[]={}|^"<>`\\']) {
    assert.deepEqual(read(`/a?${query}`), ['/a', query])
  }
})

it('takes "*" for OPTIONS only, also from an absolute-form without a path', () => {
  assert.deepEqual(read('*', STRICT, 'OPTIONS'), ['*', undefined])
  assert.equal(read('*'), 'bad_target')
  assert.equal(read('*a', STRICT, 'OPTIONS'), 'bad_target')
  const target = parseTarget('OPTIONS', 'http://a', STRICT)
  assert.equal(target.kind === 'target' && target.target, '*')
})

it('turns absolute-form into origin-form, with "/" for an empty path', () => {
  assert.deepEqual(parseTarget('GET', 'https://a:8/b?c', STRICT), {
    kind: 'target',
    target: '/b?c',
    path: '/b',
    query: 'c',
    authority: 'a:8',
  })
  assert.deepEqual(read('http://a'), ['/', undefined])
  assert.deepEqual(read('http://a?b'), ['/', 'b'])
  assert.equal(read('http://a//b'), 'ambiguous_path')
  assert.equal(read('http://a/../b'), 'ambiguous_path')
})

it('refuses CONNECT, other schemes, and no target at all', () => {
  assert.equal(read('a:443', STRICT, 'CONNECT'), 'unsupported_method')
  for (const raw of ['', 'a', 'a/b', 'file:///a', 'http:/a', 'http:', '?a']) {
    assert.equal(read(raw), 'bad_target', raw)
  }
})

const alphabet = ['/', '.', '%2e', '%2F', '%5c', '%00', '%', ';', '?', '#', '\\', 'a', ' ', '%41']

it('agrees with a plain reading of the rules: decode once, split, look at the segments', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...alphabet), { maxLength: 12 }), (parts) => {
      const raw = `/${parts.join('')}`
      assert.equal(parseTarget('GET', raw, STRICT).kind === 'target', isClear(raw), raw)
    }),
    { numRuns: 3000 },
  )
})

it('forwards the bytes that it was given', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...alphabet), { maxLength: 12 }), (parts) => {
      const raw = `/${parts.join('')}`
      const target = parseTarget('GET', raw, LAX)
      if (target.kind === 'rejection') return
      assert.equal(target.target, raw)
      assert.equal(target.path + (target.query === undefined ? '' : `?${target.query}`), raw)
    }),
    { numRuns: 2000 },
  )
})

function isClear(raw: string): boolean {
  const [path, ...query] = raw.split('?') as [string, ...string[]]
  if (/[ #]|%(?![0-9a-f]{2})/i.test(query.join('?'))) return false
  if (/[\\# ;]|%(?![0-9a-f]{2})|%(00|2f|5c|3b)/i.test(path)) return false
  if (/%(2[de]|3\d|[46][1-9a-f]|[57][0-9a]|5f)/i.test(path)) return false
  const decoded = path.replaceAll(/%(..)/g, (_, hex) => String.fromCharCode(Number(`0x${hex}`)))
  const segments = decoded.split('/').slice(1)
  return segments.every(
    (segment, i) =>
      segment !== '.' && segment !== '..' && (segment !== '' || i === segments.length - 1),
  )
}
