// time.*: instants in nanoseconds since 1970, on the clock of a zone (UTC unless one is named).
import { type Builtin, BuiltinError, integerArgument, stringArgument } from './builtin.ts'
import { parseDuration } from './go-duration.ts'
import {
  type ClockTime,
  daysIn,
  formatTime,
  LAYOUTS,
  parseTime,
  secondsOf,
  WEEKDAYS,
} from './go-time.ts'
import { timeZone, type Zone } from './time-zones.ts'
import { RegoNumber, type RegoValue } from './value.ts'

/** In loop iterations of wasm: asking ICU for an offset takes some 3 us. */
const ZONE_COST = 1_000
const MAX_INT64 = (1n << 63n) - 1n
const MIN_INT64 = -(1n << 63n)
const NS_PER_SECOND = 1_000_000_000n

/** time.parse_ns(layout, value) */
export const parseNs: Builtin = (args, context) => {
  const layout = stringArgument(args[0], 1)
  const value = stringArgument(args[1], 2)
  context.spend(10 * (layout.length + value.length))
  return parsed(LAYOUTS.get(layout) ?? layout, value)
}

/** time.parse_rfc3339_ns(value) */
export const parseRfc3339Ns: Builtin = (args, context) => {
  const value = stringArgument(args[0], 1)
  context.spend(100 + value.length)
  return parsed(LAYOUTS.get('RFC3339') as string, value)
}

/** time.parse_duration_ns(duration) */
export const parseDurationNs: Builtin = (args, context) => {
  const text = stringArgument(args[0], 1)
  context.spend(10 * text.length)
  const ns = parseDuration(text)
  if (ns === undefined) throw new BuiltinError('invalid duration')
  return new RegoNumber(String(ns))
}

/** time.format(ns | [ns, zone] | [ns, zone, layout]) */
export const format: Builtin = (args, context) => {
  const { ns, zone, layout } = momentArgument(args[0])
  context.spend(ZONE_COST + 10 * layout.length)
  return formatTime(
    clockAt(ns, zone),
    LAYOUTS.get(layout === '' ? 'RFC3339Nano' : layout) ?? layout,
  )
}

/** time.date(ns | [ns, zone]) = [year, month, day] */
export const date: Builtin = (args, context) => {
  context.spend(ZONE_COST)
  const { ns, zone } = momentArgument(args[0])
  const { year, month, day } = clockAt(ns, zone)
  return numbers([year, month, day])
}

/** time.clock(ns | [ns, zone]) = [hour, minute, second] */
export const clock: Builtin = (args, context) => {
  context.spend(ZONE_COST)
  const { ns, zone } = momentArgument(args[0])
  const { hour, minute, second } = clockAt(ns, zone)
  return numbers([hour, minute, second])
}

export const weekday: Builtin = (args, context) => {
  context.spend(ZONE_COST)
  const { ns, zone } = momentArgument(args[0])
  return WEEKDAYS[clockAt(ns, zone).weekday] as string
}

/** time.add_date(ns, years, months, days): 31 January and a month is 2 or 3 March, as in Go. */
export const addDate: Builtin = (args, context) => {
  context.spend(3 * ZONE_COST)
  const { ns, zone } = momentArgument(args[0])
  const [years, months, days] = [1, 2, 3].map((at) => integerArgument(args[at], at + 1)) as [
    number,
    number,
    number,
  ]
  const start = clockAt(ns, zone)
  const midnight = secondsOf(start.year + years, start.month + months, start.day + days)
  const local = midnight + start.hour * 3600 + start.minute * 60 + start.second
  if (!Number.isFinite(local)) throw outOfRange()
  // Of a clock time that is there twice or not at all Go takes the offset found in this way.
  const guess = zone(local).offsetSeconds
  const seconds = guess === 0 ? local : local - zone(local - guess).offsetSeconds
  return instant(BigInt(seconds) * NS_PER_SECOND + BigInt(start.nanosecond))
}

/** time.diff(a, b) = [years, months, days, hours, minutes, seconds], on the clock of a's zone */
export const diff: Builtin = (args, context) => {
  context.spend(2 * ZONE_COST)
  const a = momentArgument(args[0])
  const b = momentArgument(args[1])
  const [first, second] = a.ns > b.ns ? [b.ns, a.ns] : [a.ns, b.ns]
  const [from, to] = [clockAt(first, a.zone), clockAt(second, a.zone)]
  const parts = [
    to.year - from.year,
    to.month - from.month,
    to.day - from.day,
    to.hour - from.hour,
    to.minute - from.minute,
    to.second - from.second,
  ]
  const carry = [0, 12, daysIn(from.month, from.year), 24, 60, 60]
  for (let i = 5; i > 0; i--) {
    if ((parts[i] as number) >= 0) continue
    parts[i] = (parts[i] as number) + (carry[i] as number)
    parts[i - 1] = (parts[i - 1] as number) - 1
  }
  return numbers(parts)
}

interface Moment {
  readonly ns: bigint
  readonly zone: Zone
  readonly layout: string
}

function momentArgument(value: RegoValue | undefined): Moment {
  const [number, zoneName, layout] = Array.isArray(value) ? (value as RegoValue[]) : [value]
  if (!(number instanceof RegoNumber)) {
    throw new BuiltinError('operand 1 must be either number (ns) or [number (ns), string (tz)]')
  }
  const zone = timeZone(zoneName === undefined ? 'UTC' : stringArgument(zoneName, 1))
  if (zone === undefined) throw new BuiltinError('unknown time zone')
  return {
    ns: integerNs(number),
    zone,
    layout: layout === undefined ? '' : stringArgument(layout, 1),
  }
}

function integerNs({ literal }: RegoNumber): bigint {
  const found = /^(-?[0-9]{1,40})(?:\.([0-9]{1,40}))?(?:[eE]([+-]?[0-9]{1,4}))?$/.exec(literal)
  const [, whole = '', fraction = '', exponent = '0'] = found ?? []
  const zeros = Number(exponent) - fraction.length
  if (found === null || zeros > 40) throw new BuiltinError('timestamp too big')
  const digits = BigInt(whole + fraction)
  const divisor = zeros < 0 ? 10n ** BigInt(-zeros) : 1n
  const ns = zeros < 0 ? digits / divisor : digits * 10n ** BigInt(zeros)
  if (digits % divisor !== 0n || ns > MAX_INT64 || ns < MIN_INT64) {
    throw new BuiltinError('timestamp too big')
  }
  return ns
}

function clockAt(ns: bigint, zone: Zone): ClockTime {
  const nanosecond = ((ns % NS_PER_SECOND) + NS_PER_SECOND) % NS_PER_SECOND
  const unixSeconds = Number((ns - nanosecond) / NS_PER_SECOND)
  const { offsetSeconds, abbreviation } = zone(unixSeconds)
  const local = new Date((unixSeconds + offsetSeconds) * 1_000)
  const year = local.getUTCFullYear()
  const newYear = secondsOf(year, 1, 1) * 1_000
  return {
    year,
    month: local.getUTCMonth() + 1,
    day: local.getUTCDate(),
    yearDay: Math.floor((local.getTime() - newYear) / 86_400_000) + 1,
    weekday: local.getUTCDay(),
    hour: local.getUTCHours(),
    minute: local.getUTCMinutes(),
    second: local.getUTCSeconds(),
    nanosecond: Number(nanosecond),
    offsetSeconds,
    abbreviation,
  }
}

function parsed(layout: string, value: string): RegoValue {
  const ns = parseTime(layout, value)
  if (ns === undefined) throw new BuiltinError('the time is not of the layout')
  return instant(ns)
}

function instant(ns: bigint): RegoNumber {
  if (ns > MAX_INT64 || ns < MIN_INT64) throw outOfRange()
  return new RegoNumber(String(ns))
}

function outOfRange(): BuiltinError {
  return new BuiltinError('time outside of valid range')
}

function numbers(values: readonly number[]): RegoNumber[] {
  return values.map((value) => new RegoNumber(String(value)))
}
