// The Huffman code of HPACK (RFC 7541 appendix B). It is canonical: the lengths alone give the codes,
// shorter ones first and equal ones in the order of their symbols.

/** Code length in bits of each octet, then of EOS. */
// biome-ignore format: sixteen symbols a line, as in the RFC
const LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
]
const EOS = 256
const SHORTEST = 5
const LONGEST = 30
/** Every code of a character that headers are made of is at most so long: one look finds it. */
const QUICK_BITS = 8

/**
 * @returns the text, one character for each octet (latin1); undefined where the padding is longer
 *   than seven bits or not all ones, or where EOS occurs (section 5.2).
 */
export function decodeHuffman(bytes: Buffer, start: number, end: number): string | undefined {
  const out = roomFor(Math.floor(((end - start) * 8) / SHORTEST))
  let length = 0
  let bits = 0
  let count = 0
  let at = start
  for (;;) {
    while (count <= 24 && at < end) {
      // At most 32 bits are held; `>>>` keeps them a positive number.
      bits = ((bits << 8) | bytes[at++]!) >>> 0
      count += 8
    }
    if (count < SHORTEST) break
    const top = count >= QUICK_BITS ? (bits >>> (count - QUICK_BITS)) & 0xff : -1
    const quick = top === -1 ? -1 : QUICK[top]!
    if (quick > 0) {
      out[length++] = quick & 0xff
      count -= quick >> 8
    } else {
      let symbol = decodeLong(bits, count)
      if (symbol === undefined && at < end) {
        // A code of thirty bits may not be all there yet; more than 32 bits want arithmetic.
        bits = bits * 256 + bytes[at++]!
        count += 8
        symbol = decodeLong(bits, count)
      }
      if (symbol === undefined || symbol === EOS) break
      out[length++] = symbol
      count -= LENGTHS[symbol]!
    }
    bits %= 2 ** count
  }
  // What is left has to be a prefix of EOS, which is all ones.
  if (at !== end || count > 7 || bits !== 2 ** count - 1) return undefined
  return out.toString('latin1', 0, length)
}

/** A text that is put together of characters takes thirty times its bytes, for as long as it is kept. */
let scratch = Buffer.allocUnsafeSlow(1024)

function roomFor(bytes: number): Buffer {
  if (scratch.length < bytes) scratch = Buffer.allocUnsafeSlow(bytes)
  return scratch
}

function decodeLong(bits: number, count: number): number | undefined {
  for (let length = SHORTEST; length <= LONGEST && length <= count; length++) {
    const code = Math.floor(bits / 2 ** (count - length))
    const row = ROWS[length]!
    if (code >= row.first && code < row.first + row.symbols.length) {
      return row.symbols[code - row.first]
    }
  }
  return undefined
}

interface Row {
  /** Code of the first symbol of this length. */
  readonly first: number
  readonly symbols: readonly number[]
}

function canonicalRows(): readonly Row[] {
  const rows: Row[] = []
  let next = 0
  for (let length = 0; length <= LONGEST; length++) {
    next *= 2
    const symbols = LENGTHS.flatMap((bits, symbol) => (bits === length ? symbol : []))
    rows.push({ first: next, symbols })
    next += symbols.length
  }
  return rows
}

const ROWS = canonicalRows()

/** By the next eight bits: length << 8 | symbol, or 0 where the code is longer. */
const QUICK: Uint16Array = Uint16Array.from({ length: 1 << QUICK_BITS }, (_, top) => {
  const symbol = decodeLong(top, QUICK_BITS)
  return symbol === undefined ? 0 : (LENGTHS[symbol]! << 8) | symbol
})
