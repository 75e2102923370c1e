// Name constraints (RFC 5280 section 4.2.1.10): which names an authority may vouch for. OpenSSL holds
// them against the path that it finds in the handshake, over every bundle at once. That need not be
// the path that we find in one trust domain's bundle, so each is held against its own constraints.
import type { Extension } from './certificate.ts'
import { contextTag, type DerItems, malformed, TAG } from './der.ts'
import { isSelfIssued, type Link } from './link.ts'
import { readName } from './name.ts'

/** Only names of the kinds that are believed here; addresses and the like constrain nothing. */
export interface Subtrees {
  /** Lower-case hosts; one that begins with a dot stands for the hosts below it. */
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
  /** Comparable forms of relative names, as `Name.comparable`. */
  readonly directories: readonly (readonly string[])[]
}

export interface NameConstraints {
  readonly permitted: Subtrees
  readonly excluded: Subtrees
}

export const readNameConstraints = (
  extension: Extension | undefined,
): NameConstraints | undefined => {
  const items = extension?.value.wrapped(WHAT).as(TAG.sequence, WHAT).items(WHAT)
  if (items === undefined) return undefined
  const permitted = readSubtrees(items.optional(contextTag(0, 'constructed'), WHAT)?.items(WHAT))
  const excluded = readSubtrees(items.optional(contextTag(1, 'constructed'), WHAT)?.items(WHAT))
  items.end(WHAT)
  return { permitted, excluded }
}

/** Which name of the chain below (leaf first) an authority may not vouch for, or undefined. */
export const constraintObjection = (
  { reading: { nameConstraints } }: Link,
  below: readonly Link[],
): string | undefined => {
  if (nameConstraints === undefined) return undefined
  for (const [index, link] of below.entries()) {
    // A key rollover is not held against an authority; the leaf always counts.
    if (index > 0 && isSelfIssued(link)) continue
    const name = outside(nameConstraints, link)
    if (name !== undefined) return `its name constraints do not allow ${name}`
  }
  return undefined
}

const outside = (
  { permitted, excluded }: NameConstraints,
  { reading }: Link,
): string | undefined => {
  const { uris, dnsNames, commonName, subject, subjectComparable } = reading
  // As in OpenSSL: without DNS names, a common name that looks like one is one.
  const hosts =
    dnsNames.length === 0 && commonName !== undefined && DNS_LIKE.test(commonName)
      ? [commonName]
      : dnsNames
  return (
    uris.find((uri) => {
      const host = hostOf(uri)
      const constrained = permitted.uris.length + excluded.uris.length > 0
      // Where hosts are constrained, a URI without one cannot be judged.
      if (host === undefined) return constrained
      return !allows(permitted.uris, excluded.uris, (base) => isWithinUriHost(host, base))
    }) ??
    hosts.find((host) => {
      const lower = host.toLowerCase()
      return !allows(permitted.dnsNames, excluded.dnsNames, (base) => isWithinDns(lower, base))
    }) ??
    (subjectComparable.length === 0 ||
    allows(permitted.directories, excluded.directories, (base) =>
      base.every((part, index) => part === subjectComparable[index]),
    )
      ? undefined
      : subject)
  )
}

const allows = <T>(
  permitted: readonly T[],
  excluded: readonly T[],
  isWithin: (base: T) => boolean,
): boolean => (permitted.length === 0 || permitted.some(isWithin)) && !excluded.some(isWithin)

/** A host stands for itself alone, in URIs. */
const isWithinUriHost = (host: string, base: string): boolean =>
  base === '' || host === base || (base.startsWith('.') && host.endsWith(base))

/** A name stands for itself and all below it, in DNS. */
const isWithinDns = (name: string, base: string): boolean =>
  base === '' || name === base || name.endsWith(base.startsWith('.') ? base : `.${base}`)

/** Lower-case host of a URI, without user and port; undefined where it has none. */
const hostOf = (uri: string): string | undefined => {
  const host = URI_HOST.exec(uri)?.[1]?.toLowerCase()
  return host === '' ? undefined : host
}

const readSubtrees = (items: DerItems | undefined): Subtrees => {
  const uris: string[] = []
  const dnsNames: string[] = []
  const directories: (readonly string[])[] = []
  for (let count = 0; items?.more; count += 1) {
    if (count === MAX_SUBTREES) malformed(`more than ${MAX_SUBTREES} name constraints`)
    const subtree = items.next(TAG.sequence, WHAT).items(WHAT)
    const base = subtree.any(WHAT)
    // RFC 5280 allows no other minimum than its default, and no maximum.
    const minimum = subtree.optional(contextTag(0, 'primitive'), WHAT)?.small(WHAT) ?? 0
    if (minimum !== 0) malformed(`${WHAT} has a minimum`)
    subtree.end(WHAT)
    if (base.tag === URI) uris.push(hostText(base.content))
    else if (base.tag === DNS) dnsNames.push(hostText(base.content))
    else if (base.tag === DIRECTORY) {
      const inner = base.items(WHAT)
      directories.push(readName(inner.next(TAG.sequence, WHAT), WHAT).comparable)
      inner.end(WHAT)
    }
  }
  return { uris, dnsNames, directories }
}

/** A base in another form would match nothing: an exclusion that nobody notices is missing. */
const hostText = (content: Buffer): string => {
  const text = content.toString('latin1').toLowerCase()
  return HOST_FORM.test(text) ? text : malformed(`${WHAT} has something that is no host`)
}

const WHAT = 'nameConstraints'
const URI = contextTag(6, 'primitive')
const DNS = contextTag(2, 'primitive')
const DIRECTORY = contextTag(4, 'constructed')
const URI_HOST = /^[^:]+:\/\/(?:[^/?#]*@)?([^/?#:@]*)/
const HOST_FORM = /^[a-z0-9._-]*$/
const DNS_LIKE = /^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+$/
const MAX_SUBTREES = 256
