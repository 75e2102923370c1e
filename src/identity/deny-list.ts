// The deny list of `trust.revoked`, made ready for looking up: exact names, serials and keys through
// maps, so that ten thousand entries cost a handshake no more than one does.
import type { DenyEntry } from '../config/config.ts'
import { compilePattern, type PatternTest } from '../pattern.ts'
import { sha256 } from './certificate.ts'
import type { Link } from './link.ts'

export interface Denial {
  /** Of the certificate that is denied; 0 is the leaf. */
  readonly depth: number
  /** Names the entry. */
  readonly detail: string
}

export class DenyList {
  readonly #spiffeIds = new Map<string, DenyEntry[]>()
  readonly #patterns: { readonly prefix: string; readonly fits: PatternTest; entry: DenyEntry }[] =
    []
  readonly #serials = new Map<string, { readonly issuer: string; readonly entry: DenyEntry }[]>()
  readonly #keys = new Map<string, DenyEntry[]>()

  constructor(entries: readonly DenyEntry[]) {
    for (const entry of entries) {
      const { what } = entry
      if (what.kind === 'key') into(this.#keys, what.spkiSha256, entry)
      else if (what.kind === 'certificate')
        into(this.#serials, what.serial, { issuer: sameNameText(what.issuer), entry })
      else if (!what.pattern.includes('*')) into(this.#spiffeIds, what.pattern, entry)
      else {
        // The text before the first star settles most comparisons at once.
        const prefix = what.pattern.slice(0, what.pattern.indexOf('*'))
        this.#patterns.push({ prefix, fits: compilePattern(what.pattern, '/'), entry })
      }
    }
  }

  /**
   * Why a chain (leaf first) is denied, or undefined. A SPIFFE ID is that of the leaf; a serial or a
   * key may be that of an authority, too, and then denies all that it issued.
   */
  find(links: readonly Link[], nowMs: number): Denial | undefined {
    for (const uri of links[0]?.reading.uris ?? []) {
      const entry =
        this.#spiffeIds.get(uri)?.find((one) => counts(one, nowMs)) ??
        this.#patterns.find(
          (one) => uri.startsWith(one.prefix) && one.fits(uri) && counts(one.entry, nowMs),
        )?.entry
      if (entry !== undefined) return denial(0, entry, `SPIFFE ID ${uri}`)
    }
    for (const [depth, { reading }] of links.entries()) {
      const listed = this.#serials.get(reading.serial)
      const name = listed && sameNameText(reading.issuer)
      const found = listed?.find(({ issuer, entry }) => issuer === name && counts(entry, nowMs))
      if (found !== undefined) {
        return denial(depth, found.entry, `serial ${reading.serial} of ${reading.issuer}`)
      }
    }
    if (this.#keys.size === 0) return undefined
    for (const [depth, { reading }] of links.entries()) {
      const key = sha256(reading.spkiDer)
      const entry = this.#keys.get(key)?.find((one) => counts(one, nowMs))
      if (entry !== undefined) return denial(depth, entry, `key sha256:${key}`)
    }
    return undefined
  }
}

/** What `newer` denies that `older` did not: all that can end a connection which stood before. */
export const entriesAdded = (
  older: readonly DenyEntry[],
  newer: readonly DenyEntry[],
): readonly DenyEntry[] => {
  const known = new Set(older.map(contentOf))
  return newer.filter((entry) => !known.has(contentOf(entry)))
}

/**
 * For comparing: names are written by hand, in either order (RFC 4514, or OpenSSL's own) and with or
 * without blanks. That more is taken for equal than should be does no harm beside a serial number.
 */
export const sameNameText = (name: string): string =>
  name
    .split(/(?<!\\)[,+]/)
    .map((part) => part.replaceAll(/\s/g, '').toLowerCase())
    .sort()
    .join(',')

const counts = ({ untilMs }: DenyEntry, nowMs: number): boolean =>
  untilMs === undefined || nowMs < untilMs

const denial = (depth: number, { where, reason }: DenyEntry, what: string): Denial => ({
  depth,
  detail: `the deny list has its ${what} (${where}${reason === undefined ? '' : `: ${reason}`})`,
})

const contentOf = ({ what, untilMs }: DenyEntry): string => JSON.stringify([what, untilMs])

const into = <T>(map: Map<string, T[]>, key: string, value: T): void => {
  const there = map.get(key)
  if (there === undefined) map.set(key, [value])
  else there.push(value)
}
