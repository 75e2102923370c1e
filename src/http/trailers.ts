// Which fields of a trailer section may be passed on. Trailers arrive after policy has decided, and
// some recipients merge them into the header fields, so a trailer must not be able to say what a
// header could not.
import { isFoldable, isFramingField, isHopByHop, isIdentityField } from '../field-names.ts'
import type { Fields } from './fields.ts'

/**
 * Without identity fields and names that a workload may take for others: dropped as from a head.
 *
 * @returns undefined where a field decides framing, routing, authentication or how to read the
 *   content: RFC 9110 section 6.5.1 forbids these, so whoever sends one wants a recipient that errs.
 */
export function keptTrailers(fields: Fields): Fields | undefined {
  const kept: Fields = []
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    if (isFramingField(name) || isHopByHop(name) || FORBIDDEN.has(name)) return undefined
    if (!isIdentityField(name) && !isFoldable(name)) kept.push(name, fields[i + 1]!)
  }
  return kept
}

const FORBIDDEN: ReadonlySet<string> = new Set([
  'host',
  'authorization',
  'cookie',
  'set-cookie',
  'content-type',
  'content-encoding',
  'content-range',
  'max-forwards',
  'cache-control',
  'range',
])
