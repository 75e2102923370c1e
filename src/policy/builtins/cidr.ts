// net.cidr_*: what OPA does not have native in wasm. Lists may come from clients and networks may
// be large: work is paid for before it is done.
import { type BuiltinContext, BuiltinError, stringArgument } from './builtin.ts'
import {
  firstOf,
  formatAddress,
  formatNetwork,
  type IpAddress,
  type IpNetwork,
  isIpv4,
  lastOf,
  parseAddress,
  parseNetwork,
} from './ip-address.ts'
import { RegoNumber, RegoObject, RegoSet, type RegoValue } from './value.ts'

/** In loop iterations of wasm (5 ns). */
const PARSE_COST = 400
const COMPARE_COST = 40
const ADDRESS_COST = 200

export function isCidr(args: readonly RegoValue[]): RegoValue {
  return typeof args[0] === 'string' && parseNetwork(args[0]) !== undefined
}

/** net.cidr_expand(cidr): all addresses; a network with too many for the budget ends the evaluation. */
export function expandCidr(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const network = networkOf(stringArgument(args[0], 1))
  context.spend(ADDRESS_COST * 2 ** (network.bits - network.prefix))
  const addresses: string[] = []
  const last = lastOf(network)
  for (let address = network.address; address <= last; address++) {
    addresses.push(formatAddress(address))
  }
  return new RegoSet(addresses)
}

/** net.cidr_contains_matches(cidrs, cidrs_or_ips) = {[index, index]} */
export function cidrContainsMatches(
  args: readonly RegoValue[],
  context: BuiltinContext,
): RegoValue {
  const outer = entriesOf(args[0])
  // As OPA, which gets to what is wrong in the second list only from the first one.
  const inner = outer.length === 0 ? [] : entriesOf(args[1])
  const matches: RegoValue[] = []
  if (inner.length === 0) return new RegoSet(matches)
  context.spend(PARSE_COST * (outer.length + inner.length))
  const networks = outer.map(({ index, cidr }) => ({ index, network: networkOf(cidr) }))
  const members = inner.map(({ index, cidr }) => ({ index, member: rangeOf(cidr) }))
  for (const { index, network } of networks) {
    context.spend(COMPARE_COST * members.length)
    for (const other of members) {
      if (contains(network, other.member)) matches.push([index, other.index])
    }
  }
  return new RegoSet(matches)
}

/** net.cidr_merge(cidrs_or_ips) = the fewest networks that are the same addresses */
export function mergeCidrs(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const [list] = args
  const members = list instanceof RegoSet ? list.members : list
  if (!Array.isArray(members)) throw new BuiltinError('operand must be an array')
  context.spend((PARSE_COST + 10 * COMPARE_COST) * members.length)
  const ranges = members
    .map((member: RegoValue): MergedRange => {
      const network = mergeable(stringArgument(member, 1))
      return { first: firstOf(network), last: lastOf(network), network }
    })
    .toSorted((a, b) => order(a.last, b.last) || order(a.first, b.first))
  return new RegoSet(merge(ranges).flatMap((range) => networksOf(range, context)))
}

interface MergedRange {
  readonly first: IpAddress
  readonly last: IpAddress
  /** Where nothing was merged: it stays as it was written. */
  readonly network: IpNetwork | undefined
}

/** From the last range on; sorted by their ends. */
function merge(ranges: readonly MergedRange[]): readonly MergedRange[] {
  const merged: MergedRange[] = []
  let current = ranges.at(-1)
  if (current === undefined) return merged
  for (const range of ranges.slice(0, -1).toReversed()) {
    if (previous(current.first) <= range.last) {
      const first: IpAddress = range.first < current.first ? range.first : current.first
      current = { first, last: current.last, network: undefined }
    } else {
      merged.push(current)
      current = range
    }
  }
  merged.push(current)
  return merged
}

function networksOf(range: MergedRange, context: BuiltinContext): string[] {
  if (range.network !== undefined) return [formatNetwork(range.network)]
  const isMapped = isIpv4(range.first) && isIpv4(range.last)
  const networks: string[] = []
  let first: IpAddress = range.first
  while (first <= range.last) {
    context.spend(ADDRESS_COST)
    // The largest network that begins here and does not end behind the range.
    let hosts = 0n
    const limit = isMapped ? 32n : 128n
    while (hosts < limit) {
      const size: bigint = 1n << (hosts + 1n)
      if ((first & (size - 1n)) !== 0n || first + size - 1n > range.last) break
      hosts++
    }
    const prefix = 128 - Number(hosts)
    networks.push(formatNetwork({ address: first, prefix, bits: 128 }))
    first += 1n << hosts
  }
  return networks
}

/** An address alone stands for the network of its class, as in Go: 10.1.2.3 is 10.1.2.3/8. */
function mergeable(text: string): IpNetwork {
  const parsed = parseAddress(text)
  if (parsed === undefined) return networkOf(text)
  if (!isIpv4(parsed.address)) throw new BuiltinError('IPv6 invalid: needs prefix length')
  const first = (parsed.address >> 24n) & 255n
  return { address: parsed.address, prefix: first < 128n ? 8 : first < 192n ? 16 : 24, bits: 32 }
}

/** The first address of each family has none before it. */
function previous(address: IpAddress): IpAddress {
  return address === 0n || address === 0xffff_0000_0000n ? address : address - 1n
}

function order(a: IpAddress, b: IpAddress): number {
  return a < b ? -1 : a > b ? 1 : 0
}

interface Member {
  readonly first: IpAddress
  readonly last: IpAddress
  /** An IPv6 network compares by prefix, and may hold addresses that look like IPv4. */
  readonly isIpv6Network: boolean
}

function contains(network: IpNetwork, member: Member): boolean {
  const networkIsIpv6 = !isIpv4(network.address)
  if (!(networkIsIpv6 && member.isIpv6Network)) {
    if (isIpv4(member.first) === networkIsIpv6) return false
    if (isIpv4(member.last) === networkIsIpv6) return false
  }
  return network.address <= member.first && member.last <= lastOf(network)
}

function rangeOf(text: string): Member {
  const parsed = parseAddress(text)
  if (parsed !== undefined) {
    return { first: parsed.address, last: parsed.address, isIpv6Network: false }
  }
  const network = networkOf(text)
  return {
    first: network.address,
    last: lastOf(network),
    isIpv6Network: !isIpv4(network.address),
  }
}

function networkOf(text: string): IpNetwork {
  const network = parseNetwork(text)
  if (network === undefined) throw new BuiltinError('invalid CIDR address')
  return network
}

interface Entry {
  readonly index: RegoValue
  readonly cidr: string
}

function entriesOf(value: RegoValue | undefined): readonly Entry[] {
  if (typeof value === 'string') return [{ index: value, cidr: value }]
  if (Array.isArray(value)) {
    return value.map((one: RegoValue, i) => ({
      index: new RegoNumber(String(i)),
      cidr: cidrOf(one),
    }))
  }
  if (value instanceof RegoSet) {
    return value.members.map((one) => ({ index: one, cidr: cidrOf(one) }))
  }
  if (value instanceof RegoObject) {
    return Array.from(value.entries(), ([key, one]) => ({ index: key, cidr: cidrOf(one) }))
  }
  return []
}

/** A string, or an array whose first element is one: the rest belongs to the policy. */
function cidrOf(value: RegoValue): string {
  return stringArgument(Array.isArray(value) ? value[0] : value, 1)
}
