// Times as Go's time package formats and parses them: a layout is an example, the reference time
// Mon Jan 2 15:04:05 MST 2006. Instants are nanoseconds since 1970.

/** An instant with the clock of a zone on it. */
export interface ClockTime {
  readonly year: number
  /** 1 to 12 */
  readonly month: number
  readonly day: number
  /** 1 to 366 */
  readonly yearDay: number
  /** 0 is Sunday */
  readonly weekday: number
  readonly hour: number
  readonly minute: number
  readonly second: number
  readonly nanosecond: number
  readonly offsetSeconds: number
  readonly abbreviation: string
}

export const LAYOUTS: ReadonlyMap<string, string> = new Map([
  ['ANSIC', 'Mon Jan _2 15:04:05 2006'],
  ['UnixDate', 'Mon Jan _2 15:04:05 MST 2006'],
  ['RubyDate', 'Mon Jan 02 15:04:05 -0700 2006'],
  ['RFC822', '02 Jan 06 15:04 MST'],
  ['RFC822Z', '02 Jan 06 15:04 -0700'],
  ['RFC850', 'Monday, 02-Jan-06 15:04:05 MST'],
  ['RFC1123', 'Mon, 02 Jan 2006 15:04:05 MST'],
  ['RFC1123Z', 'Mon, 02 Jan 2006 15:04:05 -0700'],
  ['RFC3339', '2006-01-02T15:04:05Z07:00'],
  ['RFC3339Nano', '2006-01-02T15:04:05.999999999Z07:00'],
])

export const WEEKDAYS = [
  'Sunday',
  'Monday',
  'Tuesday',
  'Wednesday',
  'Thursday',
  'Friday',
  'Saturday',
] as const
const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
] as const

/** Each element that a layout may have; everything between them is text. */
const ELEMENT =
  /January|Jan(?![a-z])|Monday|Mon(?![a-z])|MST|0[1-6]|002|15|1|2006|2|_2(?!006)|__2|[345]|PM|pm|[-Z]07(?:0000|:00:00|00|:00)?|[.,](?:0+|9+)(?![0-9])/g

interface Chunk {
  /** Text before the element. */
  readonly text: string
  /** '' at the end of the layout. */
  readonly element: string
}

function chunksOf(layout: string): Chunk[] {
  const chunks: Chunk[] = []
  let from = 0
  for (const found of layout.matchAll(ELEMENT)) {
    chunks.push({ text: layout.slice(from, found.index), element: found[0] })
    from = found.index + found[0].length
  }
  chunks.push({ text: layout.slice(from), element: '' })
  return chunks
}

export function formatTime(time: ClockTime, layout: string): string {
  return chunksOf(layout)
    .map(({ text, element }) => text + formatElement(time, element))
    .join('')
}

function formatElement(time: ClockTime, element: string): string {
  const { year, month, day, yearDay, hour } = time
  const hour12 = hour % 12 === 0 ? 12 : hour % 12
  switch (element) {
    case '':
      return ''
    case '2006':
      return pad(year, 4)
    case '06':
      return pad(year % 100, 2)
    case 'January':
      return MONTHS[month - 1] as string
    case 'Jan':
      return (MONTHS[month - 1] as string).slice(0, 3)
    case '1':
      return String(month)
    case '01':
      return pad(month, 2)
    case 'Monday':
      return WEEKDAYS[time.weekday] as string
    case 'Mon':
      return (WEEKDAYS[time.weekday] as string).slice(0, 3)
    case '2':
      return String(day)
    case '_2':
      return String(day).padStart(2, ' ')
    case '02':
      return pad(day, 2)
    case '__2':
      return String(yearDay).padStart(3, ' ')
    case '002':
      return pad(yearDay, 3)
    case '15':
      return pad(hour, 2)
    case '3':
      return String(hour12)
    case '03':
      return pad(hour12, 2)
    case '4':
      return String(time.minute)
    case '04':
      return pad(time.minute, 2)
    case '5':
      return String(time.second)
    case '05':
      return pad(time.second, 2)
    case 'PM':
      return hour >= 12 ? 'PM' : 'AM'
    case 'pm':
      return hour >= 12 ? 'pm' : 'am'
    case 'MST':
      return time.abbreviation
    default:
      return /^[.,]/.test(element)
        ? formatFraction(time.nanosecond, element)
        : formatOffset(time.offsetSeconds, element)
  }
}

function formatFraction(nanosecond: number, element: string): string {
  const digits = element.length - 1
  const text = pad(nanosecond, 9).slice(0, digits)
  if (element[1] === '0') return (element[0] as string) + text
  const trimmed = text.replace(/0+$/, '')
  return trimmed === '' ? '' : (element[0] as string) + trimmed
}

function formatOffset(offsetSeconds: number, element: string): string {
  if (element.startsWith('Z') && offsetSeconds === 0) return 'Z'
  // The sign is that of the whole minutes, as in Go.
  const minutes = Math.trunc(offsetSeconds / 60)
  const parts = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60]
  const digits = element.slice(1).replaceAll(':', '').length
  if (digits === 6) parts.push(Math.abs(offsetSeconds) % 60)
  const separator = element.includes(':') ? ':' : ''
  const shown = parts.slice(0, digits / 2).map((part) => pad(part, 2))
  return (minutes < 0 ? '-' : '+') + shown.join(separator)
}

function pad(value: number, digits: number): string {
  return String(value).padStart(digits, '0')
}

/** Undefined where the value is not of the layout. Without a zone it is UTC. */
export function parseTime(layout: string, value: string): bigint | undefined {
  return new TimeParser(layout, value).parse()
}

class TimeParser {
  readonly #chunks: readonly Chunk[]
  readonly #value: string
  #at = 0
  #year = 0
  #month = -1
  #day = -1
  #yearDay = -1
  #hour = 0
  #minute = 0
  #second = 0
  #nanosecond = 0
  #half: 'AM' | 'PM' | undefined
  #isUtc = false
  /** As in Go, -1 stands for none, so that one second west of Greenwich is nowhere. */
  #offsetSeconds = -1

  constructor(layout: string, value: string) {
    this.#chunks = chunksOf(layout)
    this.#value = value
  }

  parse(): bigint | undefined {
    for (const [i, { text, element }] of this.#chunks.entries()) {
      if (!this.#skip(text)) return undefined
      if (element === '') break
      if (!this.#element(element, this.#chunks[i + 1]?.element ?? '')) return undefined
    }
    return this.#at === this.#value.length && this.#settleDay() ? this.#instant() : undefined
  }

  #instant(): bigint | undefined {
    let hour = this.#hour
    if (this.#half === 'PM' && hour < 12) hour += 12
    else if (this.#half === 'AM' && hour === 12) hour = 0
    const seconds = secondsOf(this.#year, this.#month, this.#day) + hour * 3600
    const clock = seconds + this.#minute * 60 + this.#second
    return BigInt(clock - this.#offset()) * 1_000_000_000n + BigInt(this.#nanosecond)
  }

  #offset(): number {
    // A name says nothing, not even GMT+3: Go makes a zone of it, but does not move the clock.
    return this.#isUtc || this.#offsetSeconds === -1 ? 0 : this.#offsetSeconds
  }

  /** Day of the year or day of the month, which have to agree. */
  #settleDay(): boolean {
    if (this.#yearDay >= 0) {
      const length = daysIn(2, this.#year) + 337
      if (this.#yearDay < 1 || this.#yearDay > length) return false
      let [month, day] = [1, this.#yearDay]
      while (day > daysIn(month, this.#year)) day -= daysIn(month++, this.#year)
      if (this.#month >= 0 && this.#month !== month) return false
      if (this.#day >= 0 && this.#day !== day) return false
      ;[this.#month, this.#day] = [month, day]
    }
    if (this.#month < 0) this.#month = 1
    if (this.#day < 0) this.#day = 1
    return this.#day >= 1 && this.#day <= daysIn(this.#month, this.#year)
  }

  /** A space in the layout stands for any number of them. */
  #skip(text: string): boolean {
    for (let i = 0; i < text.length; ) {
      if (text[i] === ' ') {
        if (this.#at < this.#value.length && this.#value[this.#at] !== ' ') return false
        while (text[i] === ' ') i++
        while (this.#value[this.#at] === ' ') this.#at++
        continue
      }
      if (this.#value[this.#at] !== text[i]) return false
      this.#at++
      i++
    }
    return true
  }

  #element(element: string, next: string): boolean {
    switch (element) {
      case '2006':
        return this.#set('year', /[0-9]{4}/y, 0, 9999)
      case '06':
        if (!this.#set('year', /[0-9]{2}|[+-][0-9]/y, -9, 99)) return false
        this.#year += this.#year >= 69 ? 1900 : 2000
        return true
      case 'January':
        return (this.#month = this.#name(MONTHS) + 1) > 0
      case 'Jan':
        return (this.#month = this.#name(MONTHS, 3) + 1) > 0
      case '1':
        return this.#set('month', ONE_OR_TWO, 1, 12)
      case '01':
        return this.#set('month', TWO, 1, 12)
      case 'Monday':
        return this.#name(WEEKDAYS) >= 0
      case 'Mon':
        return this.#name(WEEKDAYS, 3) >= 0
      case '_2':
        this.#spaces(1)
        return this.#set('day', ONE_OR_TWO, 0, 99)
      case '2':
        return this.#set('day', ONE_OR_TWO, 0, 99)
      case '02':
        return this.#set('day', TWO, 0, 99)
      case '__2':
        this.#spaces(2)
        return this.#set('yearDay', /[0-9]{1,3}/y, 0, 999)
      case '002':
        return this.#set('yearDay', /[0-9]{3}/y, 0, 999)
      case '15':
        return this.#set('hour', ONE_OR_TWO, 0, 23)
      case '3':
        return this.#set('hour', ONE_OR_TWO, 0, 12)
      case '03':
        return this.#set('hour', TWO, 0, 12)
      case '4':
        return this.#set('minute', ONE_OR_TWO, 0, 59)
      case '04':
        return this.#set('minute', TWO, 0, 59)
      case '5':
        return this.#set('second', ONE_OR_TWO, 0, 59) && this.#unaskedFraction(next)
      case '05':
        return this.#set('second', TWO, 0, 59) && this.#unaskedFraction(next)
      case 'PM':
      case 'pm':
        return this.#halfOfDay(element)
      case 'MST':
        return this.#abbreviation()
      default:
        return /^[.,]/.test(element) ? this.#fraction(element) : this.#numericZone(element)
    }
  }

  #set(
    field: 'year' | 'month' | 'day' | 'yearDay' | 'hour' | 'minute' | 'second',
    pattern: RegExp,
    low: number,
    high: number,
  ): boolean {
    const value = Number(this.#take(pattern) ?? Number.NaN)
    if (!(value >= low && value <= high)) return false
    switch (field) {
      case 'year':
        this.#year = value
        break
      case 'month':
        this.#month = value
        break
      case 'day':
        this.#day = value
        break
      case 'yearDay':
        this.#yearDay = value
        break
      case 'hour':
        this.#hour = value
        break
      case 'minute':
        this.#minute = value
        break
      case 'second':
        this.#second = value
    }
    return true
  }

  /** Seconds may have a fraction even where the layout has none. */
  #unaskedFraction(next: string): boolean {
    if (!/^[.,]/.test(next)) this.#setFraction(this.#take(/[.,][0-9]+/y))
    return true
  }

  #fraction(element: string): boolean {
    if (element[1] === '9') {
      this.#setFraction(this.#take(/[.,][0-9]+/y))
      return true
    }
    const text = this.#value.slice(this.#at, this.#at + element.length)
    if (text.length < element.length || !/^[.,][0-9]+$/.test(text)) return false
    this.#at += element.length
    this.#setFraction(text)
    return true
  }

  #setFraction(text: string | undefined): void {
    if (text !== undefined) this.#nanosecond = Number(text.slice(1, 10).padEnd(9, '0'))
  }

  #halfOfDay(element: 'PM' | 'pm'): boolean {
    const text = this.#take(element === 'PM' ? /[AP]M/y : /[ap]m/y)
    if (text === undefined) return false
    this.#half = text === 'PM' || text === 'pm' ? 'PM' : (this.#half ?? 'AM')
    return true
  }

  #numericZone(element: string): boolean {
    if (element.startsWith('Z') && this.#take(/Z/y) !== undefined) {
      this.#isUtc = true
      return true
    }
    const text = this.#take(OFFSETS.get(element.slice(1)) as RegExp)
    if (text === undefined) return false
    const [hours = 0, minutes = 0, seconds = 0] = (
      text.slice(1).replaceAll(':', '').match(/../g) ?? []
    ).map(Number)
    if (hours > 24 || minutes > 60 || seconds > 60) return false
    const size = (hours * 60 + minutes) * 60 + seconds
    this.#offsetSeconds = text.startsWith('-') ? -size : size
    return true
  }

  #abbreviation(): boolean {
    if (this.#take(/UTC/y) !== undefined) {
      this.#isUtc = true
      return true
    }
    return this.#take(ABBREVIATION) !== undefined
  }

  #name(names: readonly string[], length?: number): number {
    for (const [i, name] of names.entries()) {
      const wanted = name.slice(0, length)
      const text = this.#value.slice(this.#at, this.#at + wanted.length)
      if (text.toLowerCase() !== wanted.toLowerCase()) continue
      this.#at += wanted.length
      return i
    }
    return -1
  }

  #spaces(most: number): void {
    for (let i = 0; i < most && this.#value[this.#at] === ' '; i++) this.#at++
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#value)?.[0]
    this.#at += found?.length ?? 0
    return found
  }
}

const ONE_OR_TWO = /[0-9]{1,2}/y
const TWO = /[0-9]{2}/y
const OFFSETS: ReadonlyMap<string, RegExp> = new Map([
  ['07', /[+-][0-9]{2}/y],
  ['0700', /[+-][0-9]{4}/y],
  ['07:00', /[+-][0-9]{2}:[0-9]{2}/y],
  ['070000', /[+-][0-9]{6}/y],
  ['07:00:00', /[+-][0-9]{2}:[0-9]{2}:[0-9]{2}/y],
])
/** What Go takes for the name of a zone: few letters that mostly end in T, or a number of hours. */
const ABBREVIATION =
  /ChST|MeST|GMT(?:[+-]0*(?:2[0-3]|1[0-9]|[0-9])(?![0-9]))?|[+-]0*(?:2[0-3]|1[0-9]|[0-9])(?![0-9])|[A-Z]{4}T(?![A-Z])|(?:[A-Z]{3}T|WITA)(?![A-Z])|[A-Z]{3}(?![A-Z])/y

export function daysIn(month: number, year: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31
}

/** Seconds from 1970 to midnight of a day; months and days may be too many or negative. */
export function secondsOf(year: number, month: number, day: number): number {
  return new Date(0).setUTCFullYear(year, month - 1, day) / 1_000
}
