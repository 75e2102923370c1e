// Floating-point numbers as strconv.FormatFloat of Go writes them.

/** From this exponent on the shortest form has one. */
const SHORTEST_LIMIT = 6

/** `precision` undefined: as many digits as are needed to read the same number back. */
export function formatFloat(
  value: number,
  style: 'e' | 'E' | 'f' | 'g' | 'G',
  precision: number | undefined,
  keepZeros = false,
): string {
  switch (style) {
    case 'f':
      return fixed(value, precision ?? 6)
    case 'e':
    case 'E': {
      const digits = Math.min(precision ?? 6, 100)
      return exponent(value.toExponential(digits), style)
    }
    default: {
      const wanted = precision === undefined ? undefined : Math.min(Math.max(precision, 1), 100)
      const scientific =
        wanted === undefined ? value.toExponential() : value.toExponential(wanted - 1)
      const power = Number(scientific.slice(scientific.indexOf('e') + 1))
      // For %e is used if the exponent is less than -4 or not less than the precision.
      const limit = wanted ?? SHORTEST_LIMIT
      if (power < -4 || power >= limit) {
        const [mantissa, rest] = scientific.split('e') as [string, string]
        const kept = keepZeros ? withZeros(mantissa, wanted) : withoutZeros(mantissa)
        return exponent(`${kept}e${rest}`, style === 'G' ? 'E' : 'e')
      }
      if (wanted === undefined) {
        return keepZeros ? withZeros(decimal(scientific), wanted) : decimal(scientific)
      }
      const text = fixed(value, Math.max(wanted - 1 - power, 0))
      return keepZeros ? withZeros(text, wanted) : withoutZeros(text)
    }
  }
}

/** All digits of a number in scientific notation, without an exponent. */
function decimal(scientific: string): string {
  const [mantissa, rest] = scientific.split('e') as [string, string]
  const digits = mantissa.replace('.', '')
  const point = 1 + Number(rest)
  if (point <= 0) return `0.${'0'.repeat(-point)}${digits}`
  if (point >= digits.length) return digits.padEnd(point, '0')
  return `${digits.slice(0, point)}.${digits.slice(point)}`
}

function fixed(value: number, digits: number): string {
  // toFixed falls back to an exponent from 1e21 on; an integer of that size is exact as a bigint.
  if (value >= 1e21) {
    return BigInt(value).toString() + (digits > 0 ? `.${'0'.repeat(Math.min(digits, 100))}` : '')
  }
  return value.toFixed(Math.min(digits, 100))
}

function withoutZeros(text: string): string {
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text
}

/** With a point, and zeros up to so many significant digits. */
function withZeros(text: string, digits = SHORTEST_LIMIT): string {
  const pointed = text.includes('.') ? text : `${text}.`
  const significant = pointed.replace('.', '').replace(/^0+/, '').length
  return pointed + '0'.repeat(Math.max(digits - Math.max(significant, 1), 0))
}

/** Go writes an exponent with at least two digits. */
function exponent(scientific: string, letter: 'e' | 'E'): string {
  return scientific.replace(
    /e([+-])([0-9]+)$/,
    (_all, sign: string, digits: string) => `${letter}${sign}${digits.padStart(2, '0')}`,
  )
}
