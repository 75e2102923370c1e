// What a single configuration value may look like, and how it is written again. Each parser takes the
// text of one value and returns the value or says what is wrong with it and what would be right.
// `parseX(formatX(value))` gives the same value back.
import type { Address, Forward } from './config.ts'

export type Parsed<T> =
  | { readonly kind: 'value'; readonly value: T }
  | { readonly kind: 'wrong'; readonly what: string; readonly remedy: string }

const value = <T>(parsed: T): Parsed<T> => ({ kind: 'value', value: parsed })
const wrong = (what: string, remedy: string): Parsed<never> => ({ kind: 'wrong', what, remedy })

/** Timers of Node take a signed 32-bit number of milliseconds; a longer one would fire at once. */
export const LONGEST_DURATION_MS = 2 ** 31 - 1

const DURATION_UNITS = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 } as const

/** `250ms`, `30s`, `5m`, `1h`, or `0`; in milliseconds. */
export function parseDuration(text: string): Parsed<number> {
  const match = /^(\d{1,10})(ms|s|m|h)$/.exec(text === '0' ? '0s' : text)
  if (match === null) {
    return wrong(
      `${quote(text)} is not a duration`,
      'write one whole number and its unit: 250ms, 30s, 5m or 1h',
    )
  }
  const ms = Number(match[1]) * DURATION_UNITS[match[2] as keyof typeof DURATION_UNITS]
  if (ms > LONGEST_DURATION_MS) {
    return wrong(`${quote(text)} is too long`, 'the longest duration is 596h')
  }
  return value(ms)
}

export const formatDuration = (ms: number): string => inLargestUnit(ms, DURATION_UNITS) ?? `${ms}ms`

const SIZE_UNITS = { GiB: 2 ** 30, MiB: 2 ** 20, KiB: 2 ** 10 } as const

/** `64KiB`, `1MiB`, `2GiB`, or a plain number of bytes. */
export function parseSize(text: string): Parsed<number> {
  const match = /^(\d{1,16})(KiB|MiB|GiB|)$/.exec(text)
  if (match === null) {
    return wrong(
      `${quote(text)} is not a size`,
      'write a whole number of bytes, or one with KiB, MiB or GiB: 64KiB, 1MiB',
    )
  }
  const unit = match[2] as keyof typeof SIZE_UNITS | ''
  const bytes = Number(match[1]) * (unit === '' ? 1 : SIZE_UNITS[unit])
  if (!Number.isSafeInteger(bytes)) {
    return wrong(`${quote(text)} is too large`, 'write a size that exists')
  }
  return value(bytes)
}

export const formatSize = (bytes: number): string => inLargestUnit(bytes, SIZE_UNITS) ?? `${bytes}`

export function parseCount(text: string): Parsed<number> {
  return /^\d{1,15}$/.test(text)
    ? value(Number(text))
    : wrong(`${quote(text)} is not a whole number`, 'write a whole number such as 100')
}

/** From 0 to 1. */
export function parseShare(text: string): Parsed<number> {
  return /^(?:0(?:\.\d{1,6})?|1(?:\.0{1,6})?)$/.test(text)
    ? value(Number(text))
    : wrong(`${quote(text)} is not a share`, 'write a number from 0 to 1, such as 0.05')
}

export function parseBoolean(text: string): Parsed<boolean> {
  if (text === 'true') return value(true)
  if (text === 'false') return value(false)
  return wrong(`${quote(text)} is neither true nor false`, 'write true or false')
}

/** For keys that exist only to be set: writing `false` would read as if it forbade something. */
export function parseTrue(text: string): Parsed<true> {
  return text === 'true'
    ? value(true)
    : wrong(`${quote(text)} has no meaning here`, 'write true, or leave the rule out')
}

export function parseWorkers(text: string): Parsed<number | 'auto'> {
  if (text === 'auto') return value('auto')
  const count = parseCount(text)
  return count.kind === 'value' && count.value >= 1 && count.value <= 64
    ? count
    : wrong(`${quote(text)} is not a number of threads`, 'write a number from 1 to 64, or auto')
}

/**
 * `host:port`, `[::]:8443`, `:8443` (every IPv4 address) or `unix:/path`. A port of 0 lets the
 * kernel choose one.
 */
export function parseAddress(text: string): Parsed<Address> {
  if (text.startsWith('unix:')) return parseSocketPath(text.slice('unix:'.length), text)
  const match = /^(?:\[([^\]]+)\]|([^[\]:]*)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65535) {
    return wrong(
      `${quote(text)} is not an address`,
      'write host:port (127.0.0.1:8080, [::1]:8080, :8080) or unix:/path',
    )
  }
  const host = match[1] === undefined ? plainHost(match[2] || '0.0.0.0') : ipv6(match[1])
  if (host === undefined) {
    return wrong(
      `${quote(match[1] ?? match[2] ?? '')} is neither an IP address nor a host name`,
      'write an IPv4 address, a host name, or an IPv6 address in brackets',
    )
  }
  return value({ kind: 'tcp', host, port })
}

export const formatAddress = (address: Address): string =>
  address.kind === 'unix'
    ? `unix:${address.path}`
    : `${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`

export function parseListener(text: string): Parsed<Address | 'off'> {
  return text === 'off' ? value('off') : parseAddress(text)
}

/** `http://host:port`, `unix:/path` or `http+unix:/path`; h2c and tcp likewise. */
export function parseForward(text: string): Parsed<Forward> {
  const remedy = 'write http://127.0.0.1:8080, h2c:// or tcp:// likewise, or unix:/path'
  if (/^https:/.test(text)) {
    return wrong('the workload is reached in plain text, on loopback or a UNIX socket', remedy)
  }
  const unix = /^(?:(http|h2c|tcp)\+)?unix:(.*)$/s.exec(text)
  if (unix !== null) {
    const address = parseSocketPath(unix[2] ?? '', text)
    const scheme = (unix[1] ?? 'http') as Forward['scheme']
    return address.kind === 'wrong' ? address : value({ scheme, address: address.value })
  }
  const http = /^(http|h2c|tcp):\/\/([^/?#]*)(.*)$/s.exec(text)
  if (http === null) return wrong(`${quote(text)} names no scheme that is known`, remedy)
  const [, scheme, authority = '', path] = http
  if (path !== '' && path !== '/') {
    return wrong(
      `${quote(text)} has a path; the path of each request is forwarded as it came`,
      'end the value after the port',
    )
  }
  // Only HTTP has a port of its own.
  const port = scheme === 'tcp' ? '0' : '80'
  const address = parseAddress(/:\d+$/.test(authority) ? authority : `${authority}:${port}`)
  if (address.kind === 'wrong') return address
  if (authority.startsWith(':') || authority === '' || isTcp(address.value, 0)) {
    return wrong(`${quote(text)} names no place to connect to`, remedy)
  }
  return value({ scheme: scheme as Forward['scheme'], address: address.value })
}

export const formatForward = (forward: Forward): string =>
  forward.address.kind === 'unix'
    ? `${forward.scheme === 'http' ? '' : `${forward.scheme}+`}${formatAddress(forward.address)}`
    : `${forward.scheme}://${formatAddress(forward.address)}`

const isTcp = (address: Address, port: number): boolean =>
  address.kind === 'tcp' && address.port === port

/** True where only processes of the same host (in a pod: of the same pod) can be at the other end. */
export const isLocal = (address: Address): boolean =>
  address.kind === 'unix' ||
  address.host === 'localhost' ||
  address.host === '::1' ||
  (address.host.startsWith('127.') && isIpv4(address.host))

/**
 * The address of a SPIFFE Workload API, as in SPIFFE_ENDPOINT_SOCKET (SPIFFE Workload Endpoint
 * section 4): `unix:///path` or `tcp://IP:port`. The private key comes over it in plain text, so
 * that only loopback will do.
 */
export function parseWorkloadApi(text: string): Parsed<Address> {
  const remedy = 'write unix:///path/of/the/agent.sock or tcp://127.0.0.1:PORT'
  if (text.startsWith('unix:')) {
    return /[?#]/.test(text)
      ? wrong(`${quote(text)} has a query or a fragment`, remedy)
      : parseSocketPath(text.slice('unix:'.length), text)
  }
  const address = text.startsWith('tcp://') ? parseAddress(text.slice('tcp://'.length)) : undefined
  if (address?.kind !== 'value' || address.value.kind !== 'tcp' || address.value.port === 0) {
    return wrong(`${quote(text)} is not the address of a Workload API`, remedy)
  }
  const { host } = address.value
  if (host === 'localhost') return wrong('localhost is a name, and an IP address is needed', remedy)
  return isLocal(address.value)
    ? address
    : wrong(
        `${host} is another host: the private key would cross the network in plain text`,
        remedy,
      )
}

export const formatWorkloadApi = (address: Address): string =>
  `${address.kind}://${address.kind === 'unix' ? address.path : formatAddress(address)}`

export function parseText(text: string): Parsed<string> {
  return text === '' ? wrong('is empty', 'write a text, or leave the key out') : value(text)
}

/** A file or directory; relative ones start at the working directory. */
export function parsePath(text: string): Parsed<string> {
  if (text === '') return wrong('is empty', 'write the path of a file')
  if (text.includes('\0')) return wrong('has a NUL character', 'write the path of a file')
  return value(text)
}

/** A path, or the address of a bundle on a server. */
export function parseBundle(text: string): Parsed<string> {
  if (!isRemote(text)) {
    return /^[a-z0-9+.-]+:\/\//i.test(text)
      ? wrong(`${quote(text)} has a scheme that is not known`, 'write a path or an https:// URL')
      : parsePath(text)
  }
  const url = URL.parse(text)
  if (url === null) return wrong(`${quote(text)} is not a URL`, 'write https://host/path')
  if (url.username !== '' || url.password !== '') {
    return wrong(
      'has a name or password in it',
      'put a token into a file: policy.service.tokenFile',
    )
  }
  return url.hash === ''
    ? value(text)
    : wrong(`${quote(text)} has a fragment, which no server sees`, 'end the value before the #')
}

export const isRemote = (bundle: string): boolean => /^https?:\/\//i.test(bundle)

/** True where an http:// address of a bundle leads out of this host. */
export function isPlainTextFromAfar(bundle: string): boolean {
  const url = isRemote(bundle) ? URL.parse(bundle) : null
  const host = url?.hostname.replace(/^\[|\]$/g, '') ?? ''
  return url?.protocol === 'http:' && !isLocal({ kind: 'tcp', host, port: 0 })
}

/** The name of a key in a signature: any text, here what can be told apart by eye. */
export function parseKeyId(text: string): Parsed<string> {
  return /^[\x21-\x7e]{1,200}$/.test(text)
    ? value(text)
    : wrong(`${quote(text)} is not the name of a key`, 'write up to 200 characters without spaces')
}

/** RFC 3339, in epoch milliseconds. */
export function parseTimestamp(text: string): Parsed<number> {
  const ms = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/.test(text)
    ? Date.parse(text.toUpperCase())
    : Number.NaN
  return Number.isNaN(ms)
    ? wrong(`${quote(text)} is not a time`, 'write it as 2026-01-31T12:00:00Z')
    : value(ms)
}

/** A rule inside the bundle as `opa build -e` names it. */
export function parseEntrypoint(text: string): Parsed<string> {
  return /^[\w-]+(\/[\w-]+)*$/.test(text)
    ? value(text)
    : wrong(
        `${quote(text)} is not an entrypoint`,
        'write it as for `opa build -e`, with slashes and without "data": envoy/authz/allow',
      )
}

/** SPIFFE ID specification, section 2.1. */
export function parseTrustDomain(text: string): Parsed<string> {
  return /^[a-z0-9._-]{1,255}$/.test(text)
    ? value(text)
    : wrong(
        `${quote(text)} is not a trust domain`,
        'write only its name, in lower case, without spiffe:// and path: example.org',
      )
}

/** `*` stands for one path segment, `**` for any number of them; both only as a whole segment. */
export function parseUriPattern(text: string): Parsed<string> {
  const remedy =
    'write a URI; * stands for one whole segment, ** for any number: spiffe://example.org/ns/*/sa/web'
  if (!/^[a-zA-Z][a-zA-Z0-9+.-]*:[\x21-\x7e]+$/.test(text)) {
    return wrong(`${quote(text)} is not a URI`, remedy)
  }
  return wildcardsAreWhole(text.split('/'))
    ? value(text)
    : wrong(`${quote(text)} has a * that is only a part of a segment`, remedy)
}

/** `*` stands for one label, `**` for any number of them; both only as a whole label. */
export function parseDnsPattern(text: string): Parsed<string> {
  const remedy = 'write a DNS name; * stands for one whole label, ** for any number: *.example.org'
  const labels = text.split('.')
  if (!labels.every((label) => /^[\w*-]{1,63}$/.test(label))) {
    return wrong(`${quote(text)} is not a DNS name`, remedy)
  }
  return wildcardsAreWhole(labels)
    ? value(text)
    : wrong(`${quote(text)} has a * that is only a part of a label`, remedy)
}

const wildcardsAreWhole = (parts: readonly string[]): boolean =>
  parts.every((part) => !part.includes('*') || part === '*' || part === '**')

/** A name in dots is matched as a DNS pattern is; any other one is a single label. */
export function parseCommonName(text: string): Parsed<string> {
  const remedy =
    'write the common name; * stands for one whole label between dots, ** for any number'
  if (text === '') return wrong('is empty', remedy)
  return wildcardsAreWhole(text.split('.'))
    ? value(text)
    : wrong(`${quote(text)} has a * that is only a part of a label`, remedy)
}

/** Path and query of a request: what the workload serves to probes. */
export function parseRequestPath(text: string): Parsed<string> {
  return /^\/[\x21-\x7e]*$/.test(text) && !text.includes('#')
    ? value(text)
    : wrong(`${quote(text)} is not a path of a request`, 'write a path such as /healthz')
}

/** A gRPC service by its full name, or `*`. */
export function parseGrpcService(text: string): Parsed<string> {
  return text === '*' || (text.length < 128 && text.split('.').every((part) => /^\w+$/.test(part)))
    ? value(text)
    : wrong(`${quote(text)} is not the name of a gRPC service`, 'write one such as shop.v1.Orders')
}

/** RFC 9110 section 5.1; kept in lower case, as it is compared. */
export function parseHeaderName(text: string): Parsed<string> {
  return /^[!#$%&'*+.^`|~\w-]+$/.test(text)
    ? value(text.toLowerCase())
    : wrong(`${quote(text)} is not the name of a header`, 'write a name such as x-api-key')
}

/** An address with a prefix length; without one, the address alone. */
export function parseNetwork(text: string): Parsed<string> {
  const [address = '', bits, ...more] = text.split('/')
  const most = isIpv4(address) ? 32 : isIpv6(address) ? 128 : -1
  const length = bits === undefined ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : -1
  return most !== -1 && more.length === 0 && length >= 0 && length <= most
    ? value(`${address}/${length}`)
    : wrong(`${quote(text)} is not a network`, 'write one such as 10.0.0.0/8 or 192.0.2.7')
}

/** Names that OPA gives every event itself. */
const OWN_LABELS: readonly string[] = ['id', 'version']

export interface Label {
  readonly name: string
  readonly value: string
}

export function parseLabel(text: string): Parsed<Label> {
  const [, name = '', label = ''] = /^([\w./-]{1,100})=(.*)$/s.exec(text) ?? []
  if (name === '') return wrong(`${quote(text)} is not a label`, 'write NAME=VALUE: app=orders')
  return OWN_LABELS.includes(name)
    ? wrong(`the label ${name} is set by Postern`, 'choose another name')
    : value({ name, value: label })
}

export const formatLabel = (label: Label): string => `${label.name}=${label.value}`

/** Decisions tell who asked for what: in plain text they may go to a collector on this host only. */
export function parseLogServer(text: string): Parsed<string> {
  const remedy = 'write https://host/path, or http:// with a loopback address'
  const url = URL.parse(text)
  if (url === null || !/^https?:$/.test(url.protocol) || !/^https?:\/\//.test(text)) {
    return wrong(`${quote(text)} is not an https:// URL`, remedy)
  }
  if (url.username !== '' || url.password !== '') {
    return wrong('has a name or password in it', 'put a token into a file: log.upload.tokenFile')
  }
  if (url.hash !== '') return wrong(`${quote(text)} has a fragment`, remedy)
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (url.protocol === 'http:' && !isLocal({ kind: 'tcp', host, port: 0 })) {
    return wrong(`${quote(text)} would send decisions over the network in plain text`, remedy)
  }
  if (url.pathname === '/') url.pathname = '/logs'
  return value(url.href)
}

/** Linux takes 107 bytes in `sun_path`; a longer path would fail at bind with no hint why. */
const LONGEST_SOCKET_PATH = 107

function parseSocketPath(after: string, text: string): Parsed<Address> {
  const path = after.startsWith('//') ? after.slice(2) : after
  if (!path.startsWith('/') || path.includes('\0')) {
    return wrong(`${quote(text)} names no absolute path`, 'write unix:/path/of/the/socket')
  }
  if (Buffer.byteLength(path) > LONGEST_SOCKET_PATH) {
    return wrong(
      `the path of the socket is longer than ${LONGEST_SOCKET_PATH} bytes`,
      'use a directory with a shorter name',
    )
  }
  return value({ kind: 'unix', path })
}

const isIpv6 = (host: string): boolean => host.includes(':') && URL.canParse(`http://[${host}]/`)

const isIpv4 = (host: string): boolean =>
  /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.|$)){4}$/.test(host) && !host.endsWith('.')

/** A last label of digits is a mistyped IPv4 address, which resolvers read in surprising ways. */
const isHostName = (host: string): boolean =>
  host.length <= 253 &&
  /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/.test(host) &&
  !/(^|\.)(\d+|0x[0-9a-f]*)$/.test(host)

const plainHost = (host: string): string | undefined => {
  const lower = host.toLowerCase()
  return isIpv4(lower) || isHostName(lower) ? lower : undefined
}

/** In its shortest form, so that equal addresses compare equal. */
function ipv6(host: string): string | undefined {
  if (!/^[0-9a-fA-F:.]+$/.test(host)) return undefined
  return URL.parse(`http://[${host}]`)?.hostname.slice(1, -1)
}

function inLargestUnit(amount: number, units: Readonly<Record<string, number>>) {
  for (const [unit, factor] of Object.entries(units)) {
    if (amount !== 0 && amount % factor === 0) return `${amount / factor}${unit}`
  }
  return amount === 0 ? '0' : undefined
}

/** Text of the operator, shortened and on one line, for a message. */
function quote(text: string): string {
  const shown = JSON.stringify(text)
  return shown.length <= 82 ? shown : `${shown.slice(0, 80)}…"`
}
