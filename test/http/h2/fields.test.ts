// Malformed requests are told apart from those that we refuse, and are always refused.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { areFields, areRequestTrailers, isMalformedRequest } from '../../../src/http/h2/fields.ts'
import { readRequestList } from '../../../src/http/h2/request.ts'
import { requestFields } from '../../support/raw-http2.ts'

const LIMITS = {
  headBytes: 65_536,
  headerCount: 100,
  targetBytes: 8_192,
  allowAmbiguousPaths: false,
}

const HOST_BEFORE_AUTHORITY = [
  ...[':method', 'GET', ':scheme', 'https', ':path', '/'],
  ...['host', 'a', ':authority', 'a'],
]

describe('a malformed request', () => {
  it('is never taken for one that can go on', () => {
    const name = fc.constantFrom(
      ...[':method', ':scheme', ':authority', ':path', ':protocol', ':status', 'host', 'te'],
      ...['content-length', 'connection', 'x-a', 'X-A', 'x a', '', 'cookie', 'upgrade'],
    )
    const value = fc.constantFrom(
      ...[
        'GET',
        'POST',
        'CONNECT',
        'https',
        'http',
        'a',
        'a@b',
        '/',
        '/x',
        '',
        '*',
        '0',
        '3',
        '+3',
      ],
      ...['trailers', 'gzip', 'websocket', ' a', 'a\t', 'a\nb', 'a\0', '\xfc', '\xa0a'],
    )
    const list = fc
      .tuple(
        fc.constantFrom<readonly string[]>([], requestFields()),
        fc.array(fc.tuple(name, value), { maxLength: 6 }),
        fc.option(fc.nat(8), { nil: undefined }),
      )
      .map(([start, more, dropped]) => {
        const all = [...start, ...more.flat()]
        if (dropped !== undefined) all.splice(2 * dropped, 2)
        return all
      })
    fc.assert(
      fc.property(list, fc.boolean(), (fields, endStream) => {
        if (!isMalformedRequest(fields, endStream)) return
        assert.equal(readRequestList(fields, endStream, LIMITS).kind, 'rejection')
      }),
      { numRuns: 20_000, examples: [[HOST_BEFORE_AUTHORITY, false]] },
    )
  })

  it('is not one that could be answered', () => {
    for (const fields of [
      requestFields(),
      requestFields({ ':path': '/a#b' }),
      requestFields({ ':scheme': 'ftp' }),
      [...requestFields(), 'host', 'other'],
      [...requestFields(), 'x-a', '\xfc'],
      [...requestFields(), 'te', 'trailers'],
      [':method', 'CONNECT', ':authority', 'a:1'],
    ]) {
      assert.equal(isMalformedRequest(fields, true), false, fields.join(' '))
    }
  })
})

describe('fields behind a head', () => {
  it('have names in lower case, values without control characters, and are of no connection', () => {
    for (const [name, value] of [
      ['X-A', 'b'],
      [':status', '200'],
      ['x a', 'b'],
      ['', 'b'],
      ['connection', 'close'],
      ['transfer-encoding', 'chunked'],
      ['x-a', 'b\r'],
      ['x-a', 'b\0'],
      ['x-a', ' b'],
      ['x-a', 'b\t'],
    ] as const) {
      assert.equal(areFields(['x-b', 'c', name, value]), false, `${name}: ${value}`)
      assert.equal(areRequestTrailers([name, value]), false, `${name}: ${value}`)
    }
    assert.equal(areFields(['x-a', 'b c\td', 'x-b', '']), true)
    assert.equal(areRequestTrailers(['x-a', 'b c\td', 'x-b', '']), true)
  })

  it('may have octets beyond ASCII where the workload sends them, and not where a client does', () => {
    assert.equal(areFields(['x-a', '\xfc\xa0']), true)
    assert.equal(areRequestTrailers(['x-a', '\xfc']), false)
  })
})
