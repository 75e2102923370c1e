import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type DerElement, decodeDer, TAG } from '../../src/identity/der.ts'
import { bits, der, integer, octets, oid, sequence, text } from './forge.ts'

describe('the DER reader', () => {
  it('reads what it is given in order', () => {
    const value = decodeDer(
      sequence(integer('05'), oid('2.5.29.17'), bits(octets())),
      (element) => {
        const items = element.items('x')
        const read = [items.next(TAG.integer, 'a').small('a'), items.next(TAG.oid, 'b').oid('b')]
        const inner = items.next(TAG.bitString, 'c').wrapped('c').tag
        items.end('x')
        return [...read, inner]
      },
    )
    assert.deepEqual(value, [5, '2.5.29.17', TAG.octetString])
  })

  const refused: readonly (readonly [string, string, RegExp])[] = [
    ['nothing', '', /cut short/],
    ['a lone tag', '30', /cut short/],
    ['an indefinite length', '30800000', /indefinite/],
    ['a length of five bytes', '308500000000010500', /indefinite or too long/],
    ['a length that is cut short', '3082', /cut short/],
    ['a short length in long form', '30810205 00'.replace(' ', ''), /not minimal/],
    ['a long length with a leading zero', `30820080${'0500'.repeat(64)}`, /not minimal/],
    ['content beyond the end', '30030500', /longer than/],
    ['bytes after the end', '05000500', /unexpected bytes/],
    ['a tag of several bytes', '1f2a00', /tag of several bytes/],
    ['an inner element that leaves its holder', '3003020500', /longer than|cut short/],
  ]
  for (const [what, hex, why] of refused) {
    it(`refuses ${what}`, () => {
      const result = decodeDer(Buffer.from(hex, 'hex'), (element) => drain(element))
      assert.match(whatOf(result), why)
    })
  }

  it('refuses elements nested without end', () => {
    let nested = sequence()
    for (let depth = 0; depth < 64; depth += 1) nested = sequence(nested)
    assert.match(whatOf(decodeDer(nested, drain)), /nested too deeply/)
  })

  it('never throws, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        decodeDer(bytes, drain)
      }),
      { numRuns: 2000 },
    )
  })

  it('never throws on damaged DER either', () => {
    const good = sequence(
      integer('7f'),
      sequence(oid('1.2.840.113549'), text(0x17, '260101000000Z')),
    )
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), (at, byte) => {
        const bad = Buffer.from(good)
        bad[at] = byte
        decodeDer(bad, drain)
      }),
      { numRuns: 2000 },
    )
  })

  it('gives back every element that was written', () => {
    const element = fc.letrec((tie) => ({
      leaf: fc.uint8Array({ maxLength: 300 }).map((bytes) => octets(bytes)),
      node: fc
        .array(tie('any') as fc.Arbitrary<Buffer>, { maxLength: 4 })
        .map((all) => sequence(...all)),
      any: fc.oneof({ maxDepth: 5 }, tie('leaf'), tie('node')),
    })).any as fc.Arbitrary<Buffer>
    fc.assert(
      fc.property(element, (bytes) => {
        assert.deepEqual(decodeDer(bytes, rewrite), bytes)
      }),
    )
  })

  it('leaves faults of the caller alone', () => {
    assert.throws(
      () =>
        decodeDer(sequence(), () => {
          throw new RangeError('ours')
        }),
      RangeError,
    )
  })
})

describe('a DER integer', () => {
  it('reads as hex without leading zeros', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 1n << 200n }), (value) => {
        const hex = value.toString(16)
        assert.equal(
          decodeDer(integer(hex), (element) => element.unsignedHex('n')),
          hex,
        )
      }),
    )
  })

  for (const [what, hex] of [
    ['negative', '0201ff'],
    ['empty', '0200'],
    ['not minimal', '02020001'],
  ] as const) {
    it(`is refused when it is ${what}`, () => {
      assert.match(
        whatOf(decodeDer(Buffer.from(hex, 'hex'), (element) => element.unsignedHex('n'))),
        new RegExp(what),
      )
    })
  }
})

describe('a DER object identifier', () => {
  it('reads as dotted text', () => {
    const arcs = fc.tuple(fc.nat(2), fc.nat(39), fc.array(fc.nat(), { maxLength: 8 }))
    fc.assert(
      fc.property(arcs, ([root, second, rest]) => {
        const dotted = [root, second, ...rest].join('.')
        assert.equal(
          decodeDer(oid(dotted), (element) => element.oid('o')),
          dotted,
        )
      }),
    )
  })

  for (const hex of ['0600', '060180', '06022a80', '0603558001', '060a2affffffffffffffff7f']) {
    it(`refuses ${hex}`, () => {
      whatOf(decodeDer(Buffer.from(hex, 'hex'), (element) => element.oid('o')))
    })
  }
})

describe('a DER time', () => {
  const read = (tag: number, value: string) =>
    decodeDer(text(tag, value), (element) => element.timeMs('t'))

  it('reads both forms of RFC 5280', () => {
    assert.equal(read(0x17, '260102030405Z'), Date.UTC(2026, 0, 2, 3, 4, 5))
    assert.equal(read(0x17, '500101000000Z'), Date.UTC(1950, 0, 1))
    assert.equal(read(0x17, '491231235959Z'), Date.UTC(2049, 11, 31, 23, 59, 59))
    assert.equal(read(0x18, '99991231235959Z'), Date.UTC(9999, 11, 31, 23, 59, 59))
  })

  for (const [tag, value] of [
    [0x17, '2601020304Z'],
    [0x17, '260102030405+0000'],
    [0x17, '20260102030405Z'],
    [0x17, '260231000000Z'],
    [0x17, '261301000000Z'],
    [0x17, '260101240000Z'],
    [0x17, '260101006000Z'],
    [0x18, '20260101000000.5Z'],
    [0x18, '260101000000Z'],
    [0x0c, '260102030405Z'],
  ] as const) {
    it(`refuses ${value} with tag ${tag}`, () => {
      whatOf(read(tag, value))
    })
  }
})

describe('a DER boolean and a BIT STRING', () => {
  it('has two values only', () => {
    const read = (hex: string) =>
      decodeDer(Buffer.from(hex, 'hex'), (element) => element.boolean('b'))
    assert.equal(read('0101ff'), true)
    assert.equal(read('010100'), false)
    for (const bad of ['010101', '0100', '0102ffff']) whatOf(read(bad))
  })

  it('numbers bits from the left', () => {
    const read = (hex: string) =>
      decodeDer(Buffer.from(hex, 'hex'), (element) => element.namedBits('b'))
    assert.equal(read('03020780'), 1)
    assert.equal(read('03020106'), (1 << 5) | (1 << 6))
    assert.equal(read('0303070080'), 1 << 8)
    for (const bad of ['0300', '030107', '03020880']) whatOf(read(bad))
  })
})

const whatOf = (result: unknown): string => {
  assert.equal((result as { kind?: unknown } | undefined)?.kind, 'malformed')
  return (result as { what: string }).what
}

/** Looks at everything in every way: what the reader offers must not fail on what it let through. */
const drain = (element: DerElement): number => {
  const looks: readonly (() => unknown)[] = [
    () => element.oid('o'),
    () => element.unsignedHex('i'),
    () => element.boolean('b'),
    () => element.namedBits('n'),
    () => element.timeMs('t'),
    () => drain(element.wrapped('w')),
  ]
  for (const look of looks) {
    // Violations end the whole decoding; here each is asked for by itself.
    const result = decodeDer(element.raw, look)
    assert.ok(result !== undefined)
  }
  if ((element.tag & 0x20) === 0) return 1
  let count = 1
  for (const items = element.items('x'); items.more; ) count += drain(items.any('y'))
  return count
}

const rewrite = (element: DerElement): Buffer => {
  if ((element.tag & 0x20) === 0) return der(element.tag, element.content)
  const parts: Buffer[] = []
  for (const items = element.items('x'); items.more; ) parts.push(rewrite(items.any('y')))
  return der(element.tag, ...parts)
}
