// Distinguished names as text, in the form that Envoy writes into XFCC: RFC 2253 as OpenSSL prints it
// (XN_FLAG_RFC2253), most specific attribute first, everything outside printable ASCII escaped.

import { isUtf8 } from 'node:buffer'
import { type DerElement, malformed, TAG } from './der.ts'

export interface Name {
  readonly text: string
  /** Undefined without a common name, and with several: then there is no one answer. */
  readonly commonName: string | undefined
  /**
   * One text for each relative name, in the order written: equal where RFC 5280 section 7.1 takes the
   * names for equal, whatever string types, letter case and spaces they are written with.
   */
  readonly comparable: readonly string[]
}

export const readName = (name: DerElement, what: string): Name => {
  if (name.raw.length > MAX_NAME_BYTES) malformed(`${what} is longer than ${MAX_NAME_BYTES} bytes`)
  const commonNames: (string | undefined)[] = []
  const parts: string[] = []
  const comparable: string[] = []
  for (const sets = name.items(what); sets.more; ) {
    const attributes: string[] = []
    const comparableAttributes: string[] = []
    for (const set = sets.next(TAG.set, what).items(what); set.more; ) {
      const attribute = set.next(TAG.sequence, what).items(what)
      const type = attribute.next(TAG.oid, what).oid(what)
      const value = attribute.any(what)
      attribute.end(what)
      const text = stringOf(value, what)
      if (type === COMMON_NAME) commonNames.push(text)
      attributes.unshift(attributeText(type, value, text))
      comparableAttributes.push(type, comparableText(value, text))
    }
    parts.unshift(attributes.join('+'))
    comparable.push(JSON.stringify(comparableAttributes))
  }
  const commonName = commonNames.length === 1 ? commonNames[0] : undefined
  return {
    text: parts.join(','),
    commonName: commonName === undefined || CONTROL.test(commonName) ? undefined : commonName,
    comparable,
  }
}

/** Letters beyond ASCII are compared as they are, as in OpenSSL. */
const comparableText = (value: DerElement, text: string | undefined): string =>
  text === undefined
    ? `#${value.raw.toString('hex')}`
    : `=${text
        .trim()
        .replaceAll(/\s+/g, ' ')
        .replaceAll(/[A-Z]+/g, (upper) => upper.toLowerCase())}`

const attributeText = (type: string, value: DerElement, text: string | undefined): string => {
  const shortName = SHORT_NAMES.get(type)
  return shortName === undefined || text === undefined
    ? `${shortName ?? type}=#${value.raw.toString('hex').toUpperCase()}`
    : `${shortName}=${escaped(text)}`
}

const stringOf = (value: DerElement, what: string): string | undefined => {
  const content = value.content
  switch (value.tag) {
    case TAG.utf8String:
      return isUtf8(content) ? content.toString('utf8') : malformed(`${what} has broken UTF-8`)
    case TAG.numericString:
    case TAG.printableString:
    case TAG.ia5String:
    case TAG.teletexString:
      return content.toString('latin1')
    case TAG.bmpString:
      if (content.length % 2 !== 0) malformed(`${what} has a broken BMPString`)
      return Buffer.from(content).swap16().toString('utf16le')
    default:
      return undefined
  }
}

const escaped = (text: string): string => {
  const bytes = Buffer.from(text, 'utf8')
  let result = ''
  for (const [index, byte] of bytes.entries()) {
    const char = String.fromCharCode(byte)
    const first = index === 0
    const last = index === bytes.length - 1
    if (byte < 0x20 || byte > 0x7e)
      result += `\\${byte.toString(16).toUpperCase().padStart(2, '0')}`
    else if (SPECIAL.has(char) || (first && char === '#') || ((first || last) && char === ' ')) {
      result += `\\${char}`
    } else result += char
  }
  return result
}

const SPECIAL: ReadonlySet<string> = new Set(',+"\\<>;')
const CONTROL = /[\u0000-\u001f\u007f]/
const COMMON_NAME = '2.5.4.3'
const MAX_NAME_BYTES = 4096

/** OpenSSL's short names; any other type is written as its OID with the DER of the value. */
const SHORT_NAMES: ReadonlyMap<string, string> = new Map([
  [COMMON_NAME, 'CN'],
  ['2.5.4.4', 'SN'],
  ['2.5.4.5', 'serialNumber'],
  ['2.5.4.6', 'C'],
  ['2.5.4.7', 'L'],
  ['2.5.4.8', 'ST'],
  ['2.5.4.9', 'street'],
  ['2.5.4.10', 'O'],
  ['2.5.4.11', 'OU'],
  ['2.5.4.12', 'title'],
  ['2.5.4.13', 'description'],
  ['2.5.4.17', 'postalCode'],
  ['2.5.4.42', 'GN'],
  ['2.5.4.43', 'initials'],
  ['2.5.4.44', 'generationQualifier'],
  ['2.5.4.45', 'x500UniqueIdentifier'],
  ['2.5.4.46', 'dnQualifier'],
  ['2.5.4.65', 'pseudonym'],
  ['2.5.4.97', 'organizationIdentifier'],
  ['0.9.2342.19200300.100.1.1', 'UID'],
  ['0.9.2342.19200300.100.1.25', 'DC'],
  ['1.2.840.113549.1.9.1', 'emailAddress'],
])
