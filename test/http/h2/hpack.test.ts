import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { encodeHeaderBlock, HpackDecoder } from '../../../src/http/h2/hpack.ts'
import { decodeHuffman } from '../../../src/http/h2/huffman.ts'

const LIMITS = { listBytes: 65_536, count: 200 }
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex')

function fieldsOf(decoder: HpackDecoder, block: Buffer): readonly string[] {
  const decoded = decoder.decode(block, LIMITS)
  assert.equal(decoded.kind, 'block')
  return decoded.kind === 'block' ? decoded.fields : []
}

describe('the Huffman code', () => {
  it('reads the strings of RFC 7541 appendix C', () => {
    for (const [bytes, text] of [
      ['f1e3 c2e5 f23a 6ba0 ab90 f4ff', 'www.example.com'],
      ['a8eb 1064 9cbf', 'no-cache'],
      ['25a8 49e9 5ba9 7d7f', 'custom-key'],
      ['d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff', 'Mon, 21 Oct 2013 20:13:21 GMT'],
    ] as const) {
      const buffer = hex(bytes)
      assert.equal(decodeHuffman(buffer, 0, buffer.length), text)
    }
  })

  it('reads every octet, the ones with thirty bits in a row too', () => {
    // 0x0a (LF) has the code 3ffffffc of thirty bits: eight of them are thirty octets.
    const bits = 0x3ffffffcn.toString(2).repeat(8)
    const bytes = Buffer.from(
      bits.match(/.{8}/g)?.map((octet) => Number.parseInt(octet, 2)) as number[],
    )
    assert.equal(decodeHuffman(bytes, 0, bytes.length), '\n'.repeat(8))
  })

  it('refuses padding that is too long or not all ones, and EOS', () => {
    for (const bytes of ['1fff', '18', 'ff', 'ffffffff', 'fffffffc', '3fffffffff']) {
      const buffer = hex(bytes)
      assert.equal(decodeHuffman(buffer, 0, buffer.length), undefined, bytes)
    }
  })
})

describe('the decoder', () => {
  it('follows RFC 7541 appendix C.6 over three answers and evictions', () => {
    // The appendix uses a table of 256 bytes; a size update says so.
    const decoder = new HpackDecoder()
    assert.deepEqual(
      fieldsOf(
        decoder,
        hex(
          '3fe1 01 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
        ),
      ),
      [
        ':status',
        '302',
        'cache-control',
        'private',
        'date',
        'Mon, 21 Oct 2013 20:13:21 GMT',
        'location',
        'https://www.example.com',
      ],
    )
    assert.deepEqual(fieldsOf(decoder, hex('4883 640e ffc1 c0bf')), [
      ':status',
      '307',
      'cache-control',
      'private',
      'date',
      'Mon, 21 Oct 2013 20:13:21 GMT',
      'location',
      'https://www.example.com',
    ])
    const third = fieldsOf(
      decoder,
      hex(
        '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07',
      ),
    )
    assert.equal(third[1], '200')
    assert.deepEqual(third.slice(-2), [
      'set-cookie',
      'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1',
    ])
  })

  it('refuses what is cut off, out of range or out of place', () => {
    for (const block of [
      '80',
      'ff',
      'ffffffffff7f',
      'be',
      '0003',
      '40 0a 6162',
      '8820',
      '3fe23f',
    ]) {
      assert.equal(new HpackDecoder().decode(hex(block), LIMITS).kind, 'bad_block', block)
    }
  })

  it('cuts a list off that is too large and keeps its table right', () => {
    const decoder = new HpackDecoder()
    const block = hex('4003 6161 6101 31 4003 6262 6201 32 be')
    const cut = decoder.decode(block, { listBytes: 40, count: 200 })
    assert.deepEqual(cut, { kind: 'block', fields: ['aaa', '1'], listBytes: 108, tooLarge: true })
    assert.deepEqual(fieldsOf(decoder, hex('bebf')), ['bbb', '2', 'aaa', '1'])
    const few = new HpackDecoder().decode(block, { listBytes: 4000, count: 1 })
    assert.equal(few.kind === 'block' && few.tooLarge, true)
  })

  it('never throws, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 5 }), (blocks) => {
        const decoder = new HpackDecoder()
        for (const block of blocks) {
          if (decoder.decode(Buffer.from(block), LIMITS).kind === 'bad_block') return
        }
      }),
      { numRuns: 3000 },
    )
  })
})

it('reads back what the encoder writes', () => {
  const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,40}$/)
  const value = fc.string({
    unit: fc.integer({ min: 0x20, max: 0xff }).map((c) => String.fromCharCode(c)),
    maxLength: 300,
  })
  const known = fc.constantFrom(':method', 'GET', ':path', '/', ':scheme', 'http', ':status', '200')
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.oneof(name, known), fc.oneof(value, known))), (pairs) => {
      const fields = pairs.flat()
      assert.deepEqual(fieldsOf(new HpackDecoder(), encodeHeaderBlock(fields)), fields)
    }),
  )
})
