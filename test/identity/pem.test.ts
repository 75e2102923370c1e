import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { readPem, writePem } from '../../src/identity/pem.ts'

const one = writePem('CERTIFICATE', Buffer.from('first'))
const two = writePem('X509 CRL', Buffer.alloc(100, 7))

describe('readPem', () => {
  it('reads every block and takes the text between them for comments', () => {
    const { blocks, problems } = readPem(`# mine\n\n${one}\nAnother\n=======\n${two}# end`, 'f')
    assert.deepEqual(problems, [])
    assert.deepEqual(
      blocks.map(({ number, label, bytes }) => [number, label, bytes?.length]),
      [
        [1, 'CERTIFICATE', 5],
        [2, 'X509 CRL', 100],
      ],
    )
  })

  it('takes CRLF, trailing blanks, a byte order mark and no line break at the end', () => {
    const text = `\ufeff${one.replaceAll('\n', ' \r\n').trimEnd()}`
    const { blocks, problems } = readPem(text, 'f')
    assert.deepEqual(problems, [])
    assert.deepEqual(blocks[0]?.bytes, Buffer.from('first'))
  })

  it('gives back what was written', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { minLength: 1 }),
        (all) => {
          const text = all.map((bytes) => writePem('CERTIFICATE', bytes)).join('')
          const { blocks, problems } = readPem(text, 'f')
          assert.deepEqual(problems, [])
          assert.deepEqual(
            blocks.map(({ bytes }) => bytes),
            all.map((bytes) => Buffer.from(bytes)),
          )
        },
      ),
    )
  })

  const broken: readonly (readonly [string, string, RegExp])[] = [
    ['an empty file', '', /no PEM block/],
    ['a file with comments only', '# nothing here\n', /no PEM block/],
    ['DER', '\u0030\u0082\u0001', /no PEM block/],
    ['garbage between BEGIN and END', one.replace('Zmlyc3Q=', 'not base64!'), /block 1 .*base64/],
    ['base64 without its padding', one.replace('Zmlyc3Q=', 'Zmlyc3Q'), /block 1 .*base64/],
    ['base64 with stray bits', one.replace('Zmlyc3Q=', 'Zmlyc3R='), /block 1 .*base64/],
    ['a block without content', '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----', /base64/],
    ['a block without END', one.replace(/-----END.*/, ''), /block 1 .*no END line/],
    ['a block inside another', `${one.replace(/-----END.*/, '')}${one}`, /block 1 .*no END line/],
    [
      'an END of another label',
      one.replace('END CERTIFICATE', 'END X509 CRL'),
      /broken BEGIN or END/,
    ],
    ['an END without BEGIN', '-----END CERTIFICATE-----\n', /broken BEGIN or END/],
    ['a BEGIN with a dash too few', one.replace('-----BEGIN', '----BEGIN'), /broken BEGIN or END/],
    ['a BEGIN in lower case', one.replace('BEGIN', 'begin'), /broken BEGIN or END/],
    [
      'text after END',
      one.replace('END CERTIFICATE-----', 'END CERTIFICATE----- x'),
      /broken BEGIN/,
    ],
  ]
  for (const [what, text, why] of broken) {
    it(`reports ${what}`, () => {
      const { problems } = readPem(text, 'the-file')
      assert.match(problems[0]?.what ?? '', why)
      assert.equal(problems[0]?.where, 'the-file')
    })
  }

  it('tells two files that were joined without a line break', () => {
    const { problems } = readPem(one.trimEnd() + one, 'f')
    assert.match(problems[0]?.remedy ?? '', /line break between the two blocks/)
  })

  it('goes on after a broken block and names each by its number', () => {
    const bad = one.replace('Zmlyc3Q=', '????')
    const { blocks, problems } = readPem(`${one}${bad}${one}${bad}${two}`, 'f')
    assert.deepEqual(
      blocks.map(({ number }) => number),
      [1, 3, 5],
    )
    assert.deepEqual(
      problems.map(({ what }) => /block (\d)/.exec(what)?.[1]),
      ['2', '4'],
    )
  })

  it('never throws, and never loses a block without a problem', () => {
    const piece = fc.oneof(
      fc.string(),
      fc.constantFrom(
        one,
        two,
        '-----BEGIN CERTIFICATE-----\n',
        '-----END CERTIFICATE-----\n',
        '\n',
      ),
    )
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const text = pieces.join('')
        const { blocks, problems } = readPem(text, 'f')
        const begun = text.split('-----BEGIN CERTIFICATE-----').length - 1
        if (problems.length === 0) assert.ok(blocks.length >= begun)
      }),
    )
  })
})
