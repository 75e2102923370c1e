import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { legibleLine, legibleList } from '../../src/http/legible.ts'
import { bytes } from './support.ts'

describe('of a request that is refused', () => {
  it('method and path are told where they can be', () => {
    const legible = (text: string) => legibleLine(bytes(text))
    assert.deepEqual(legible('GET /a/../b?token=1 HTTP/1.1\r\n'), {
      method: 'GET',
      path: '/a/../b',
    })
    assert.deepEqual(legible('get /a'), { method: 'get', path: '/a' })
    assert.deepEqual(legible('GET /a\r\nhost: b'), { method: 'GET', path: '/a' })
    assert.equal(legible(`GET /${'a'.repeat(9_000)} HTTP/1.1`)?.path.length, 256)
    for (const text of ['', 'GET', 'GET ', 'GET a HTTP/1.1', 'G\0T / HTTP/1.1', '\x16\x03\x01']) {
      assert.equal(legible(text), undefined, text)
    }
    assert.deepEqual(legibleList([':path', '/a?b', ':method', 'PUT']), {
      method: 'PUT',
      path: '/a',
    })
    assert.equal(legibleList([':method', 'PUT']), undefined)
    assert.equal(legibleList([':method', 'PUT', ':path', '/\x1b[2J']), undefined)
  })

  it('nothing is told but a few visible characters', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 600 }), (text) => {
        for (const one of [legibleLine(bytes(`GET /${text}`)), legibleLine(bytes(text))]) {
          if (one !== undefined)
            assert.match(`${one.method} ${one.path}`, /^[!-~]{1,32} \/[!->@-~]{0,255}$/)
        }
      }),
    )
  })
})
