// IP addresses and networks as Go's net package reads and writes them (RFC 4291, RFC 5952): no
// leading zeros, no zones; an IPv4 address in IPv6 notation is the IPv4 address.

/** 128 bits; IPv4 is ::ffff:a.b.c.d. */
export type IpAddress = bigint

export interface IpNetwork {
  readonly address: IpAddress
  /** Bits out of `bits`: 32 where it is written as IPv4. */
  readonly prefix: number
  readonly bits: 32 | 128
}

const ALL = (1n << 128n) - 1n
const IPV4_PREFIX = 0xffffn

export function parseAddress(text: string): { address: IpAddress; bits: 32 | 128 } | undefined {
  const dot = text.indexOf('.')
  const colon = text.indexOf(':')
  if (dot >= 0 && (colon < 0 || dot < colon)) {
    const address = parseIpv4(text)
    return address === undefined ? undefined : { address: mapped(address), bits: 32 }
  }
  const address = parseIpv6(text)
  return address === undefined ? undefined : { address, bits: 128 }
}

/** net.ParseCIDR: what is behind the prefix is cleared. */
export function parseNetwork(text: string): IpNetwork | undefined {
  const slash = text.indexOf('/')
  const parsed = slash < 0 ? undefined : parseAddress(text.slice(0, slash))
  const digits = text.slice(slash + 1)
  if (parsed === undefined || !/^[0-9]+$/.test(digits)) return undefined
  const prefix = Number(digits)
  if (prefix > parsed.bits) return undefined
  const { bits } = parsed
  return { address: firstOf({ address: parsed.address, prefix, bits }), prefix, bits }
}

export function firstOf(network: IpNetwork): IpAddress {
  return network.address & (ALL ^ hostBits(network))
}

export function lastOf(network: IpNetwork): IpAddress {
  return network.address | hostBits(network)
}

export function isIpv4(address: IpAddress): boolean {
  return address >> 32n === IPV4_PREFIX
}

export function formatAddress(address: IpAddress): string {
  if (isIpv4(address)) {
    return [24n, 16n, 8n, 0n].map((shift) => String((address >> shift) & 255n)).join('.')
  }
  const groups = Array.from({ length: 8 }, (_, i) =>
    Number((address >> BigInt(112 - 16 * i)) & 0xffffn),
  )
  const [start, length] = longestZeros(groups)
  const write = (from: number, to: number) =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':')
  return length < 2 ? write(0, 8) : `${write(0, start)}::${write(start + length, 8)}`
}

/** IPNet.String */
export function formatNetwork({ address, prefix, bits }: IpNetwork): string {
  const shown = bits === 128 && isIpv4(address) ? prefix - 96 : prefix
  return `${formatAddress(address)}/${shown}`
}

function hostBits({ prefix, bits }: IpNetwork): bigint {
  return (1n << BigInt(bits - prefix)) - 1n
}

function mapped(ipv4: number): IpAddress {
  return (IPV4_PREFIX << 32n) | BigInt(ipv4)
}

function parseIpv4(text: string): number | undefined {
  const parts = text.split('.', 5)
  if (parts.length !== 4) return undefined
  let address = 0
  for (const part of parts) {
    if (!/^(?:0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined
    address = address * 256 + Number(part)
  }
  return address
}

function parseIpv6(text: string): IpAddress | undefined {
  if (text.length > 45) return undefined
  const halves = text.split('::', 3)
  if (halves.length > 2) return undefined
  const head = parseGroups(halves[0] as string, halves.length === 1)
  const tail = halves[1] === undefined ? [] : parseGroups(halves[1], true)
  if (head === undefined || tail === undefined) return undefined
  const missing = 8 - head.length - tail.length
  // `::` stands for one group at least.
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined
  let address = 0n
  for (const group of [...head, ...new Array<number>(missing).fill(0), ...tail]) {
    address = (address << 16n) | BigInt(group)
  }
  return address
}

/** The last two may be written as an IPv4 address. */
function parseGroups(text: string, isEnd: boolean): number[] | undefined {
  if (text === '') return []
  const parts = text.split(':')
  const groups: number[] = []
  for (const [i, part] of parts.entries()) {
    if (/^[0-9A-Fa-f]{1,4}$/.test(part)) {
      groups.push(Number.parseInt(part, 16))
      continue
    }
    const ipv4 = isEnd && i === parts.length - 1 ? parseIpv4(part) : undefined
    if (ipv4 === undefined) return undefined
    groups.push(Math.floor(ipv4 / 65_536), ipv4 % 65_536)
  }
  return groups
}

function longestZeros(groups: readonly number[]): [start: number, length: number] {
  let best: [number, number] = [0, 0]
  for (let start = 0; start < groups.length; start++) {
    let end = start
    while (groups[end] === 0) end++
    if (end - start > best[1]) best = [start, end - start]
    start = Math.max(start, end - 1)
  }
  return best
}
