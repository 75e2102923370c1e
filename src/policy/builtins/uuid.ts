// uuid.parse: what a UUID says about itself (RFC 4122), as OPA names it.
import { BuiltinError, stringArgument } from './builtin.ts'
import { RegoNumber, RegoObject, type RegoValue } from './value.ts'

/** Plain, behind `urn:uuid:`, or between two characters that are braces as a rule. */
const FORM =
  /^(?:urn:uuid:|[\0-\x7f](?=[\0-\x7f]{37}$))?([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})[\0-\x7f]?$/i
const BARE = /^[0-9a-f]{32}$/i
const LENGTHS = [36, 38, 45]

/** 100 ns from the beginning of the Gregorian calendar to 1970. */
const GREGORIAN_TICKS = 122_192_928_000_000_000n
const TICKS_PER_SECOND = 10_000_000n

export function parseUuid(args: readonly RegoValue[]): RegoValue {
  const bytes = bytesOf(stringArgument(args[0], 1))
  if (bytes === undefined) throw new BuiltinError('invalid UUID')
  const facts = new RegoObject()
  const version = (bytes[6] as number) >> 4
  facts.set('version', new RegoNumber(String(version)))
  facts.set('variant', variantOf(bytes[8] as number))
  if (version === 1 || version === 2) {
    const node = bytes.subarray(10)
    facts.set('time', new RegoNumber(String(unixNanoseconds(bytes))))
    facts.set('nodeid', (node.toString('hex').match(/../g) as string[]).join('-'))
    facts.set('macvariables', macVariables(node[0] as number))
    facts.set('clocksequence', new RegoNumber(String(bytes.readUInt16BE(8) & 0x3fff)))
  }
  if (version === 2) {
    facts.set('id', new RegoNumber(String(bytes.readUInt32BE(0))))
    facts.set('domain', domainOf(bytes[9] as number))
  }
  return facts
}

function bytesOf(text: string): Buffer | undefined {
  if (BARE.test(text)) return Buffer.from(text, 'hex')
  const parts = LENGTHS.includes(text.length) ? FORM.exec(text) : null
  return parts === null ? undefined : Buffer.from(parts.slice(1, 6).join(''), 'hex')
}

function variantOf(byte: number): string {
  if ((byte & 0xc0) === 0x80) return 'RFC4122'
  if ((byte & 0xe0) === 0xc0) return 'Microsoft'
  return (byte & 0xe0) === 0xe0 ? 'Future' : 'Reserved'
}

function unixNanoseconds(bytes: Buffer): bigint {
  const high = BigInt(bytes.readUInt16BE(6) & 0x0fff)
  const middle = BigInt(bytes.readUInt16BE(4))
  const ticks = ((high << 48n) | (middle << 32n) | BigInt(bytes.readUInt32BE(0))) - GREGORIAN_TICKS
  const seconds = ticks / TICKS_PER_SECOND
  // As int64 of Go, which goes around.
  return BigInt.asIntN(64, seconds * 1_000_000_000n + (ticks % TICKS_PER_SECOND) * 100n)
}

function macVariables(byte: number): string {
  return `${(byte & 2) === 0 ? 'global' : 'local'}:${(byte & 1) === 0 ? 'unicast' : 'multicast'}`
}

function domainOf(byte: number): string {
  return ['Person', 'Group', 'Org'][byte] ?? `Domain${byte}`
}
