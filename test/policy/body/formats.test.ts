import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { formForInput } from '../../../src/policy/body/form.ts'
import { jsonForInput } from '../../../src/policy/body/json.ts'
import { multipartForInput } from '../../../src/policy/body/multipart.ts'
import { bodyFormat, parseBody } from '../../../src/policy/body/parsed-body.ts'
import { InputError } from '../../../src/policy/input-error.ts'

function parse(contentType: string | undefined, body: string | Buffer, complete = true) {
  const bytes = typeof body === 'string' ? Buffer.from(body) : body
  return parseBody({ bytes, complete }, contentType, ['a'], undefined)
}

describe('the format of a body', () => {
  it('is chosen by a part of the content type, in the order of the plugin', () => {
    for (const [type, format] of [
      ['application/json', 'json'],
      ['application/json; charset=utf-8', 'json'],
      ['text/plain, application/json', 'json'],
      ['application/grpc+proto', 'grpc'],
      ['application/x-www-form-urlencoded', 'form'],
      ['multipart/form-data; boundary=x', 'multipart'],
      ['multipart/form-data; boundary=application/json', 'json'],
      ['APPLICATION/Json', 'json'],
      ['application/problem+json', undefined],
      ['', undefined],
      [undefined, undefined],
    ] as const) {
      assert.equal(bodyFormat(type), format)
    }
  })

  it('does not matter for a body that is empty or not at hand', () => {
    for (const type of ['application/json', 'multipart/form-data', 'text/plain', undefined]) {
      assert.deepEqual(parse(type, ''), { parsed: 'null', truncated: false })
      assert.deepEqual(parse(type, '{', false), { parsed: 'null', truncated: true })
    }
    assert.deepEqual(parse('text/plain', 'anything'), { parsed: 'null', truncated: false })
  })

  it('must be true of the body', () => {
    const notUtf8 = Buffer.from([0x22, 0xff, 0x22])
    for (const type of ['application/json', 'application/x-www-form-urlencoded']) {
      assert.throws(() => parse(type, notUtf8), InputError)
    }
    assert.throws(() => parse('application/json', ' '), InputError)
    assert.throws(() => parse('application/json', '\ufeff{}'), InputError)
    assert.throws(() => parse('application/json', Buffer.from('1f8b08', 'hex')), InputError)
  })
})

it('a body is not read where a coding is around it', () => {
  const coded = (type: string, coding: readonly string[], body: string) =>
    parseBody({ bytes: Buffer.from(body), complete: true }, type, ['a'], undefined, coding)
  for (const coding of [['br'], ['deflate'], ['identity', 'gzip'], ['identity, br'], ['x']]) {
    // ASCII alone can be a stream of some codings, and JSON as well.
    assert.throws(() => coded('application/json', coding, '"x"'), InputError)
    assert.throws(() => coded('application/x-www-form-urlencoded', coding, 'a=1'), InputError)
    assert.throws(() => coded('multipart/form-data; boundary=a', coding, '--a--'), InputError)
    assert.equal(coded('text/plain', coding, 'x').parsed, 'null')
    assert.equal(coded('application/json', coding, '').parsed, 'null')
  }
  assert.equal(coded('application/json', ['Identity'], '"x"').parsed, '"x"')
  assert.equal(coded('application/json', [], '"x"').parsed, '"x"')
})

describe('a JSON body', () => {
  it('goes on as it was written, numbers and order included', () => {
    for (const text of [
      '{"b":12345678901234567890123,"a":[1.0,1e3,-0,0.10]}',
      ' [ true , false , null ]\n',
      '"\\u00e9\\ud83d\\ude00\\n\u2028"',
      '{"__proto__":{"constructor":1}}',
    ]) {
      assert.equal(jsonForInput(text), text)
    }
  })

  it('has the last of equal keys, and U+FFFD for half a pair, like Go', () => {
    assert.equal(jsonForInput('{"a":1,"b":2,"a":3.0}'), '{"a":3.0,"b":2}')
    assert.equal(jsonForInput('{"a":{"x":1},"\\u0061":{"y":2}}'), '{"a":{"y":2}}')
    assert.equal(jsonForInput('["\\ud800","\\udc00\\ud800"]'), '["\ufffd","\ufffd\ufffd"]')
    assert.equal(jsonForInput('{"\\ud800":1,"\\udfff":2}'), '{"\ufffd":2}')
  })

  it('is refused when it is too deep, too wide, or has numbers without end', () => {
    const deep = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
    const wide = (keys: number) =>
      `{${Array.from({ length: keys }, (_, i) => `"${i}":0`).join(',')}}`
    assert.equal(jsonForInput(deep(100)), deep(100))
    assert.equal(jsonForInput(wide(1000)), wide(1000))
    for (const text of [
      deep(102),
      deep(100_000),
      `${'{"a":'.repeat(102)}1${'}'.repeat(102)}`,
      wide(1001),
      '9'.repeat(101),
      '1e401',
      '1e-999999999',
    ]) {
      assert.throws(() => jsonForInput(text), InputError)
    }
  })

  it('is what JSON.parse makes of it, or refused by both', () => {
    const edited = fc
      .tuple(fc.json({ maxDepth: 4 }), fc.nat(), fc.string({ maxLength: 3, unit: 'binary' }))
      .map(([text, at, edit]) => {
        const cut = at % (text.length + 1)
        return text.slice(0, cut) + edit + text.slice(cut + (at % 2))
      })
    fc.assert(
      fc.property(fc.oneof(fc.json({ maxDepth: 4 }), edited, syntaxSoup), (text) => {
        const mine = attempt(() => JSON.parse(jsonForInput(text)))
        const theirs = attempt(() => wellFormed(JSON.parse(text)))
        assert.deepEqual(mine, theirs, text)
      }),
      { numRuns: 3_000 },
    )
  })
})

const syntaxSoup = fc
  .array(
    fc.constantFrom(
      ...['{', '}', '[', ']', ',', ':', '"', '"a"', '"b"', '\\', '\\u0061', '\\ud800', '-', '+'],
      ...['0', '1', '01', '.5', '1.', 'e', 'e+1', 'true', 'false', 'null', 'nul', ' ', '\t', '\n'],
      ...['\u00a0', '\u0000', '/', 'NaN'],
    ),
    { maxLength: 12 },
  )
  .map((parts) => parts.join(''))

function wellFormed(value: unknown): unknown {
  if (typeof value === 'string') return value.toWellFormed()
  if (Array.isArray(value)) return value.map(wellFormed)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).map(([key, one]) => [key.toWellFormed(), wellFormed(one)])
  return Object.fromEntries(entries)
}

/** The value, or that it was refused as input; any other exception goes through. */
function attempt(read: () => unknown): unknown {
  try {
    return { value: read() }
  } catch (error) {
    if (error instanceof InputError || error instanceof SyntaxError) return 'refused'
    throw error
  }
}

describe('a form', () => {
  it('is an array of strings for each key', () => {
    for (const [text, expected] of [
      ['a=1&b=2&a=3', { a: ['1', '3'], b: ['2'] }],
      ['a', { a: [''] }],
      ['=x&&', { '': ['x'] }],
      ['a+b=c+d%2B%20e', { 'a b': ['c d+ e'] }],
      ['a=b=c&%C3%A9=%F0%9F%98%80', { a: ['b=c'], é: ['😀'] }],
      ['__proto__=1&constructor=2', { ['__proto__']: ['1'], constructor: ['2'] }],
    ] as const) {
      assert.deepEqual(
        Object.entries(JSON.parse(formForInput(text, 'form'))),
        Object.entries(expected),
      )
    }
  })

  it('is refused with a semicolon, a bad escape, or too much of everything', () => {
    const many = (count: number, name: (i: number) => string) =>
      Array.from({ length: count }, (_, i) => name(i)).join('&')
    for (const text of [
      'a;b',
      'a=%',
      'a=%4',
      'a=%zz',
      'a=%ff',
      many(1025, () => 'a'),
      many(257, String),
    ]) {
      assert.throws(() => formForInput(text, 'form'), InputError, text)
    }
  })

  it('is what URLSearchParams makes of it', () => {
    const words = fc.string({
      unit: fc.constantFrom('a', 'b', '%41', '%20', '+', '=', '%C3%A4', '-'),
    })
    fc.assert(
      fc.property(fc.array(words, { maxLength: 8 }), (parts) => {
        const text = parts.join('&')
        const expected: Record<string, string[]> = {}
        for (const [key, value] of new URLSearchParams(text)) (expected[key] ??= []).push(value)
        assert.deepEqual(JSON.parse(formForInput(text, 'form')), expected, text)
      }),
    )
  })
})

describe('a multipart body', () => {
  const type = 'multipart/form-data; boundary=xyz'
  const part = (head: string, content: string) => `--xyz\r\n${head}\r\n\r\n${content}\r\n`
  const field = (name: string, content: string, more = '') =>
    part(`Content-Disposition: form-data; name="${name}"${more}`, content)
  const read = (text: string, contentType = type) =>
    JSON.parse(multipartForInput(Buffer.from(text, 'latin1'), contentType))

  it('is an array of values for each name, JSON parts decoded', () => {
    const body = [
      field('a', '1'),
      field('a', 'two\r\nlines'),
      field('empty', ''),
      field('f', 'content', '; filename="C:\\x.txt"\r\nContent-Type: text/plain'),
      field('j', '{"n":1.50}', '\r\ncontent-type: application/json; charset=utf-8'),
      '--xyz--\r\n',
    ].join('')
    assert.deepEqual(read(body), {
      a: ['1', 'two\r\nlines'],
      empty: [''],
      f: ['content'],
      j: [{ n: 1.5 }],
    })
    assert.match(multipartForInput(Buffer.from(body), type), /"j":\[\{"n":1\.50\}\]/)
    assert.deepEqual(read(`${field('a', '1')}--xyz--`, 'multipart/form-data; boundary="xyz"'), {
      a: ['1'],
    })
    assert.deepEqual(read('--xyz--'), {})
  })

  it('of Node’s own FormData is read', async () => {
    const form = new FormData()
    form.append('name', 'wert é 😀 "x"\r\n--')
    form.append('file', new File([new Uint8Array([0, 255, 13, 10])], 'ä".bin'))
    const request = new Request('http://localhost', { method: 'POST', body: form })
    const bytes = Buffer.from(await request.arrayBuffer())
    const text = multipartForInput(bytes, request.headers.get('content-type') ?? '')
    assert.deepEqual(JSON.parse(text), {
      name: ['wert é 😀 "x"\r\n--'],
      file: ['\u0000\ufffd\r\n'],
    })
  })

  it('is refused where readers of it differ', () => {
    const end = '--xyz--'
    const good = field('a', '1')
    for (const [what, body] of [
      ['text before the first part', `preamble\r\n${good}${end}`],
      ['text behind the last', `${good}${end}\r\n${good}`],
      ['no end', good],
      ['a cut end', `${good}--xyz-`],
      ['nothing', ''],
      ['a delimiter with text behind it', `${good}--xyzz\r\n\r\n`],
      ['a delimiter inside a line', `${field('a', 'b --xyz\r\n')}${end}`],
      ['a delimiter after a bare line feed', `${field('a', 'b\n--xyz')}${end}`],
      ['bare line feeds', `${good}${end}`.replaceAll('\r', '')],
      ['no header', `--xyz\r\n\r\n1\r\n${end}`],
      ['no disposition', `${part('x-a: b', '1')}${end}`],
      ['another disposition', `${part('Content-Disposition: attachment; name="a"', '1')}${end}`],
      ['no name', `${part('Content-Disposition: form-data', '1')}${end}`],
      ['an empty name', `${field('', '1')}${end}`],
      ['two names', `${field('a', '1', '; name="b"')}${end}`],
      ['an encoded name', `${field('a', '1', "; name*=utf-8''b")}${end}`],
      ['a continued name', `${field('a', '1', '; name*0=b')}${end}`],
      ['an escaped quote', `${field('a\\"; name="b', '1')}${end}`],
      ['a backslash in the name', `${field('a\\b', '1')}${end}`],
      [
        'two dispositions',
        `${field('a', '1', '\r\ncontent-disposition: form-data; name="b"')}${end}`,
      ],
      ['a folded header', `${part('Content-Disposition: form-data;\r\n name="a"', '1')}${end}`],
      [
        'a space before the colon',
        `${part('Content-Disposition : form-data; name="a"', '1')}${end}`,
      ],
      ['base64', `${field('a', 'MQ==', '\r\nContent-Transfer-Encoding: base64')}${end}`],
      [
        'quoted-printable',
        `${field('a', '=31', '\r\nContent-Transfer-Encoding: quoted-printable')}${end}`,
      ],
      ['a value that is not UTF-8', `${field('a', '\xff')}${end}`],
      [
        'a JSON part that is none',
        `${field('a', '{', '\r\nContent-Type: application/json')}${end}`,
      ],
      ['too many parts', `${good.repeat(257)}${end}`],
    ] as const) {
      assert.throws(() => read(body), InputError, what)
    }
    for (const contentType of [
      'multipart/form-data',
      'multipart/form-data; boundary=',
      'multipart/form-data; boundary=""',
      'multipart/form-data; boundary="a "',
      'multipart/form-data; boundary=xyz; boundary=abc',
      `multipart/form-data; boundary=${'x'.repeat(71)}`,
      'multipart/form-data; boundary=xyz nonsense',
    ]) {
      assert.throws(() => read(`${good}${end}`, contentType), InputError, contentType)
    }
  })

  it('is what was put into it, however it is made', () => {
    const content = fc.string({
      unit: fc.constantFrom('a', '\r', '\n', '-', 'xy', 'é', '"', '\u0000'),
    })
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom('a', 'b', '__proto__'), content)), (parts) => {
        const body = parts.map(([name, value]) => field(name, value)).join('')
        const text = multipartForInput(Buffer.from(`${body}--xyz--`), type)
        const expected = new Map<string, string[]>()
        for (const [name, value] of parts) {
          expected.set(name, [...(expected.get(name) ?? []), value])
        }
        assert.deepEqual(new Map(Object.entries(JSON.parse(text))), expected)
      }),
    )
  })

  it('of hostile bytes is refused or read, never a fault', () => {
    const soup = fc.array(
      fc.constantFrom(
        '--xyz',
        '\r\n',
        '--',
        'Content-Disposition: form-data; name="a"',
        '\r\n\r\n',
        'x',
        '\n',
        ';',
        '"',
      ),
      { maxLength: 14 },
    )
    fc.assert(
      fc.property(soup, (parts) => void attempt(() => read(parts.join('')))),
      { numRuns: 500 },
    )
  })
})
