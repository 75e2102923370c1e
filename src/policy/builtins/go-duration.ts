// Durations as Go's time.ParseDuration reads them (1h30m, -1.5s), and with OPA's days, weeks and
// years of 24 hours, 7 days and 365 days.

const LIMIT = 1n << 63n
const UNITS: ReadonlyMap<string, bigint> = new Map([
  ['ns', 1n],
  ['us', 1_000n],
  ['\u00b5s', 1_000n],
  ['\u03bcs', 1_000n],
  ['ms', 1_000_000n],
  ['s', 1_000_000_000n],
  ['m', 60_000_000_000n],
  ['h', 3_600_000_000_000n],
])
const HOURS: ReadonlyMap<string, number> = new Map([
  ['d', 24],
  ['w', 7 * 24],
  ['y', 365 * 24],
])

/** Nanoseconds, or undefined where the text is no duration or too long a one. */
export function parseDuration(text: string): bigint | undefined {
  const plain = /[dwy]/.test(text) ? withHours(text) : text
  if (plain === undefined) return undefined
  const sign = /^[+-]/.test(plain) ? (plain[0] as string) : ''
  const rest = plain.slice(sign.length)
  if (rest === '0') return 0n
  let sum = 0n
  let at = 0
  const segment = /([0-9]*)(?:\.([0-9]*))?([^.0-9]+)/y
  do {
    segment.lastIndex = at
    const found = segment.exec(rest)
    if (found === null) return undefined
    const [whole, digits = '', fraction = '', unit = ''] = found
    const ns = segmentNs(digits, fraction, unit)
    if (ns === undefined || (sum += ns) > LIMIT) return undefined
    at += whole.length
  } while (at < rest.length)
  if (sign === '-') return -sum
  return sum < LIMIT ? sum : undefined
}

function segmentNs(digits: string, fraction: string, unit: string): bigint | undefined {
  const size = UNITS.get(unit)
  if (size === undefined || digits + fraction === '') return undefined
  const significant = digits.replace(/^0+/, '')
  if (significant.length > 19) return undefined
  const whole = BigInt(significant || '0')
  if (whole > LIMIT / size) return undefined
  return whole * size + fractionNs(fraction, size)
}

/** In floating point, and of at most as many digits as fit into 63 bits, as in Go. */
function fractionNs(fraction: string, size: bigint): bigint {
  let value = 0n
  let scale = 1
  for (const digit of fraction) {
    if (value > (LIMIT - 1n) / 10n) break
    const next = value * 10n + BigInt(digit)
    if (next > LIMIT) break
    value = next
    scale *= 10
  }
  return BigInt(Math.trunc(Number(value) * (Number(size) / scale)))
}

/** Days, weeks and years written as hours. */
function withHours(text: string): string | undefined {
  const sign = /^[+-]/.test(text) ? (text[0] as string) : ''
  const segment = /([0-9.]+)(ms|us|\u00b5s|ns|[a-z])/y
  let plain = sign
  for (let at = sign.length; at < text.length; ) {
    segment.lastIndex = at
    const found = segment.exec(text)
    if (found === null) return undefined
    const [whole, digits = '', unit = ''] = found
    const hours = HOURS.get(unit)
    if (hours === undefined) plain += whole
    else {
      if (!/^(?:[0-9]+\.?[0-9]*|\.[0-9]+)$/.test(digits)) return undefined
      const value = Number(digits) * hours
      if (value >= 1e21) return undefined
      plain += `${decimal(value)}h`
    }
    at += whole.length
  }
  return plain
}

function decimal(value: number): string {
  const text = String(value)
  const [mantissa = '', exponent] = text.split('e-')
  if (exponent === undefined) return text
  return `0.${'0'.repeat(Number(exponent) - 1)}${mantissa.replace('.', '')}`
}
