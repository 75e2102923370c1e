// The formats of JSON schemas that OPA's validator knows; any other always fits.
import { parseAddress } from './ip-address.ts'
import { compileRegex, RegexSyntaxError } from './regex.ts'
import { readUri } from './uri.ts'

const DAYS = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
const TIME = /^([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,][0-9]+)?(?:Z|[+-]([0-9]{2}):([0-9]{2}))?$/
const LABEL = '[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?'
const HOSTNAME = new RegExp(`^${LABEL}(?:\\.${LABEL})*$`)
const POINTER = /^(?:\/(?:[^~/]|~0|~1)*)*$/
const RELATIVE_POINTER = /^(?:0|[1-9][0-9]*)(?:#|(?:\/(?:[^~/]|~0|~1)*)*)$/
/** An address as such; with a name beside it, as Go allows it too, it is none here. */
const EMAIL =
  /^[^\s<>@"(),:;\\[\].]+(?:\.[^\s<>@"(),:;\\[\].]+)*@[^\s<>@"(),:;\\[\].]+(?:\.[^\s<>@"(),:;\\[\].]+)*$/

const FORMATS: ReadonlyMap<string, (text: string) => boolean> = new Map([
  ['date', isDate],
  ['time', isTime],
  ['date-time', isDateTime],
  ['hostname', (text) => text.length < 256 && HOSTNAME.test(text)],
  ['email', isEmail],
  ['idn-email', isEmail],
  ['ipv4', (text) => text.includes('.') && parseAddress(text) !== undefined],
  ['ipv6', (text) => text.includes(':') && parseAddress(text) !== undefined],
  ['uri', isAbsolute],
  ['uri-reference', isReference],
  ['iri', isAbsolute],
  ['iri-reference', isReference],
  ['uri-template', isTemplate],
  ['uuid', (text) => /^[a-f0-9]{8}(?:-[a-f0-9]{4}){3}-[a-f0-9]{12}$/i.test(text)],
  ['regex', isRegex],
  ['json-pointer', (text) => POINTER.test(text)],
  ['relative-json-pointer', (text) => RELATIVE_POINTER.test(text)],
])

export function fitsFormat(format: string, text: string): boolean {
  return FORMATS.get(format)?.(text) ?? true
}

function isDate(text: string): boolean {
  const [, year, month, day] = /^([0-9]{4})-([0-9]{2})-([0-9]{2})$/.exec(text) ?? []
  const days = DAYS[Number(month) - 1]
  if (days === undefined || Number(day) < 1 || Number(day) > days) return false
  const leap = new Date(`${year}-02-29T00:00:00Z`).getUTCMonth() === 1
  return leap || month !== '02' || Number(day) < 29
}

function isTime(text: string): boolean {
  const [, hour, minute, second, zoneHour = '0', zoneMinute = '0'] = TIME.exec(text) ?? []
  if (hour === undefined) return false
  return (
    Number(hour) < 24 &&
    Number(minute) < 60 &&
    Number(second) < 60 &&
    Number(zoneHour) <= 24 &&
    Number(zoneMinute) <= 60
  )
}

function isDateTime(text: string): boolean {
  if (isDate(text) || isTime(text)) return true
  // Together they need a zone.
  return (
    text[10] === 'T' &&
    isDate(text.slice(0, 10)) &&
    /[Z+-]/.test(text.slice(11)) &&
    isTime(text.slice(11))
  )
}

function isEmail(text: string): boolean {
  return EMAIL.test(text)
}

function isReference(text: string): boolean {
  return !text.includes('\\') && readUri(text) !== undefined
}

function isAbsolute(text: string): boolean {
  return isReference(text) && readUri(text)?.scheme !== ''
}

/** In the path, braces come in pairs. */
function isTemplate(text: string): boolean {
  if (!isReference(text)) return false
  const open = (readUri(text)?.path ?? '').replace(/[^{}]/g, '').replaceAll('{}', '')
  return !open.includes('{')
}

function isRegex(text: string): boolean {
  try {
    compileRegex(text)
    return true
  } catch (error) {
    if (error instanceof RegexSyntaxError) return false
    throw error
  }
}
