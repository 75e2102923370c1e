// The PROXY protocol, version 2 (haproxy.org/download/3.2/doc/proxy-protocol.txt): who is at the other
// end of a connection that somebody passed on. Read from balancers that the configuration names,
// written to workloads whose bytes are not looked at. Pure functions over bytes.
import { isIPv4, isIPv6, SocketAddress } from 'node:net'

export interface ProxyEnd {
  readonly address: string
  readonly port: number
}

export interface ProxyHeader {
  readonly kind: 'header'
  /** Bytes up to the end of the header; what follows is the connection. */
  readonly length: number
  /** Absent: the balancer speaks for itself (a health check), or of something else than TCP. */
  readonly source?: ProxyEnd
  readonly destination?: ProxyEnd
}

/** `malformed` at the first byte that is wrong; `incomplete` while it can still become right. */
export type ProxyReading =
  | ProxyHeader
  | { readonly kind: 'malformed' }
  | { readonly kind: 'incomplete' }

const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
const FIXED_BYTES = 16
/** Addresses and TLVs of a header; a TLS certificate in it would fit, and nothing much larger. */
const MOST_BYTES = 4_096
const MALFORMED = { kind: 'malformed' } as const
const INCOMPLETE = { kind: 'incomplete' } as const

const COMMAND = { local: 0x20, proxy: 0x21 } as const
const FAMILY = { unspecified: 0x00, tcp4: 0x11, tcp6: 0x21 } as const
const TLV = {
  authority: 0x02,
  ssl: 0x20,
  sslVersion: 0x21,
  sslCommonName: 0x22,
  sslCipher: 0x23,
  /** The first of those that are free for private use: the principal of the peer. */
  principal: 0xe0,
} as const
/** Over TLS, with a certificate on this connection and in this session. */
const CLIENT_VERIFIED = 0x07

export function readProxyHeader(bytes: Buffer): ProxyReading {
  const seen = Math.min(bytes.length, SIGNATURE.length)
  if (!bytes.subarray(0, seen).equals(SIGNATURE.subarray(0, seen))) return MALFORMED
  if (bytes.length < FIXED_BYTES) return INCOMPLETE
  const command = bytes[12]
  const family = bytes[13]!
  const size = bytes.readUInt16BE(14)
  if ((command !== COMMAND.local && command !== COMMAND.proxy) || size > MOST_BYTES) {
    return MALFORMED
  }
  const length = FIXED_BYTES + size
  if (bytes.length < length) return INCOMPLETE
  // Section 2.2: a receiver must take LOCAL whatever its addresses are.
  if (command === COMMAND.local || family === FAMILY.unspecified) return { kind: 'header', length }
  const addressBytes = family === FAMILY.tcp4 ? 4 : family === FAMILY.tcp6 ? 16 : 0
  if (addressBytes === 0 || size < 2 * addressBytes + 4) return MALFORMED
  const source = FIXED_BYTES
  const destination = source + addressBytes
  const ports = destination + addressBytes
  const text = (from: number): string => addressText(bytes.subarray(from, from + addressBytes))
  return {
    kind: 'header',
    length,
    source: { address: text(source), port: bytes.readUInt16BE(ports) },
    destination: { address: text(destination), port: bytes.readUInt16BE(ports + 2) },
  }
}

export interface ProxyFacts {
  readonly source: ProxyEnd
  readonly destination: ProxyEnd
  readonly principal: string
  readonly commonName: string | undefined
  /** SNI; '' when the client sent none. */
  readonly serverName: string
  /** As OpenSSL names them: `TLSv1.3`, `TLS_AES_128_GCM_SHA256`. */
  readonly tlsVersion: string
  readonly cipher: string
}

/** @throws never: ends that are not both IP addresses of one family are left out */
export function writeProxyHeader(facts: ProxyFacts): Buffer {
  const { source, destination } = facts
  const addresses = addressBlock(source, destination)
  const ssl = Buffer.concat([
    Buffer.from([CLIENT_VERIFIED, 0, 0, 0, 0]),
    tlv(TLV.sslVersion, facts.tlsVersion),
    tlv(TLV.sslCommonName, facts.commonName ?? ''),
    tlv(TLV.sslCipher, facts.cipher),
  ])
  const rest = Buffer.concat([
    addresses.bytes,
    tlv(TLV.authority, facts.serverName),
    tlvOf(TLV.ssl, ssl),
    tlv(TLV.principal, facts.principal),
  ])
  const fixed = Buffer.alloc(FIXED_BYTES)
  SIGNATURE.copy(fixed)
  fixed[12] = COMMAND.proxy
  fixed[13] = addresses.family
  fixed.writeUInt16BE(rest.length, 14)
  return Buffer.concat([fixed, rest])
}

function addressBlock(
  source: ProxyEnd,
  destination: ProxyEnd,
): { readonly family: number; readonly bytes: Buffer } {
  const four = isIPv4(source.address) && isIPv4(destination.address)
  if (!four && !(isIP(source.address) && isIP(destination.address))) {
    return { family: FAMILY.unspecified, bytes: Buffer.alloc(0) }
  }
  const ports = Buffer.alloc(4)
  ports.writeUInt16BE(source.port, 0)
  ports.writeUInt16BE(destination.port, 2)
  const bytesOf = (address: string): Buffer => (four ? ipv4Bytes(address) : ipv6Bytes(address))
  return {
    family: four ? FAMILY.tcp4 : FAMILY.tcp6,
    bytes: Buffer.concat([bytesOf(source.address), bytesOf(destination.address), ports]),
  }
}

const isIP = (address: string): boolean => isIPv4(address) || isIPv6(address)

/** Text that is empty says nothing, and is left out. */
function tlv(type: number, text: string): Buffer {
  return text === '' ? Buffer.alloc(0) : tlvOf(type, Buffer.from(text, 'utf8').subarray(0, 1_024))
}

function tlvOf(type: number, value: Buffer): Buffer {
  const head = Buffer.from([type, value.length >>> 8, value.length & 0xff])
  return Buffer.concat([head, value])
}

const ipv4Bytes = (address: string): Buffer => Buffer.from(address.split('.').map(Number))

/** IPv4 among IPv6 is written as ::ffff:a.b.c.d. */
function ipv6Bytes(address: string): Buffer {
  const bytes = Buffer.alloc(16)
  if (isIPv4(address)) {
    bytes[10] = 0xff
    bytes[11] = 0xff
    ipv4Bytes(address).copy(bytes, 12)
    return bytes
  }
  const [plain = ''] = address.split('%')
  const dotted = /:(\d+\.\d+\.\d+\.\d+)$/.exec(plain)
  const groups = dotted === null ? plain : plain.replace(dotted[1]!, hexGroups(dotted[1]!))
  const [left = '', right] = groups.split('::')
  const before = left === '' ? [] : left.split(':')
  const after = right === undefined || right === '' ? [] : right.split(':')
  const all = [...before, ...Array(8 - before.length - after.length).fill('0'), ...after]
  for (const [i, group] of all.entries()) bytes.writeUInt16BE(Number.parseInt(group, 16), 2 * i)
  return bytes
}

function hexGroups(dotted: string): string {
  const bytes = ipv4Bytes(dotted)
  return `${bytes.readUInt16BE(0).toString(16)}:${bytes.readUInt16BE(2).toString(16)}`
}

function addressText(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.')
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16))
  const { address } = new SocketAddress({ family: 'ipv6', address: groups.join(':') })
  // As elsewhere: what is IPv4 is written so.
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(address)
  return mapped?.[1] ?? address
}
