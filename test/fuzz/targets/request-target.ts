// Request targets. What is accepted has one reading: the URL parser of Node finds the same path in it,
// and decoding it once or twice moves no segment.
import assert from 'node:assert/strict'
import { parseTarget } from '../../../src/http/path.ts'
import { InputError, parsedPath, parsedQuery } from '../../../src/policy/input.ts'
import type { Target } from '../target.ts'

export const target: Target = {
  name: 'request-target',
  runs: 12_000,
  seeds: () => [
    ...[
      '/',
      '/a/b?c=d',
      '/a/../b',
      '/%61',
      '/a%20b',
      '/a%2fb',
      '//a',
      '*',
      'http://a/b',
      'https://a?x',
    ],
    ...[
      '/a;b=c',
      '/.',
      '/...',
      '/a?b=c&d=%zz',
      '/%c3%a4?q=%c3%a4&q=+',
      '/a/b/',
      '/~a%7e',
      '/a?x;y',
    ],
  ],
  dictionary: [
    ...[
      '/',
      '..',
      '.',
      '%2e',
      '%2E',
      '%2f',
      '%5c',
      '%00',
      '%0a',
      ';',
      '?',
      '#',
      '\\',
      '%25',
      '//',
      ':',
    ],
    ...['@', '%', 'http://', 'HTTPS://', '[::1]', '%c0%af', '%e0%80%af', '\xff', '&', '=', '+'],
  ],
  check: (input) => {
    const raw = input.toString('latin1')
    for (const method of ['GET', 'OPTIONS']) {
      const strict = parseTarget(method, raw, { allowAmbiguous: false })
      const loose = parseTarget(method, raw, { allowAmbiguous: true })
      if (strict.kind === 'rejection') continue
      assert.deepEqual(loose, strict)
      const { target: written, path, query } = strict
      assert.equal(query === undefined ? path : `${path}?${query}`, written)
      assert.deepEqual(
        { ...parseTarget(method, written, { allowAmbiguous: false }), authority: undefined },
        { ...strict, authority: undefined },
      )
      if (written === '*') continue
      checkReadings(path, query)
    }
  },
}

function checkReadings(path: string, query: string | undefined): void {
  const url = new URL(`http://a${path}`)
  const plain = (text: string) => text.replaceAll(/%[0-9a-f]{2}/gi, (one) => one.toLowerCase())
  const unescaped = (text: string) =>
    text.replaceAll(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
  // Node escapes some characters that we take as they are; unescaped it is the same text.
  assert.equal(unescaped(plain(url.pathname)), unescaped(plain(path)))
  const segments = path.split('/').length
  assert.equal(unescaped(path).split(/[/\\]/).length, segments)
  assert.doesNotMatch(unescaped(path), /(^|\/)\.{1,2}(\/|$)|\0/)
  for (const read of [() => parsedPath(path), () => parsedQuery(query)]) {
    try {
      JSON.parse(read())
    } catch (error) {
      assert.ok(error instanceof InputError, `${error}`)
    }
  }
}
