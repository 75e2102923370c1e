// Header fields as a flat array, and which of them leave this proxy. Decides what of a client's
// request policy and workload may believe, and what of the workload's answer is for the client.
import { isFoldable, isFramingField, isHopByHop, isIdentityField } from '../field-names.ts'

export { HOP_BY_HOP, isFieldValue, isToken } from '../field-names.ts'

/** `[name, value, name, value, ...]`: names in lower case, values without surrounding white space. */
export type Fields = string[]

/** The value of the first field of that name. */
export function fieldValue(fields: readonly string[], name: string): string | undefined {
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === name) return fields[i + 1]
  }
  return undefined
}

/** The values of every field of that name, in the order received. */
export function fieldValues(fields: readonly string[], name: string): string[] {
  const values: string[] = []
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === name) values.push(fields[i + 1]!)
  }
  return values
}

/** The options of all Connection fields, in lower case. */
export function connectionTokens(fields: readonly string[]): string[] {
  return fieldValues(fields, 'connection').flatMap(listElements)
}

/** The elements of a list of tokens, in lower case; empty ones are skipped (RFC 9110 section 5.6.1.2). */
export function listElements(value: string): string[] {
  return value
    .split(',')
    .map((element) => element.trim().toLowerCase())
    .filter((element) => element !== '')
}

/**
 * A client's fields without those that it has no say in: identity, hop-by-hop and what Connection
 * lists, framing (the forwarder writes its own), names that some workloads take for others (which
 * would bring an identity field back), and `x-envoy-auth-partial-body` (by which a client would switch
 * off `parsed_body` in policies written for Envoy). Host stays.
 */
export function removeUntrustedFields(
  fields: readonly string[],
  keep: { readonly forwardedClientCert: boolean },
): Fields {
  return keepFields(
    fields,
    (name) =>
      !isHopByHop(name) &&
      !isFramingField(name) &&
      !(isIdentityField(name) && !(keep.forwardedClientCert && name === XFCC)) &&
      !isFoldable(name) &&
      name !== 'x-envoy-auth-partial-body',
  )
}

/**
 * The workload's fields without hop-by-hop ones, those that Connection lists, and `x-postern-*`,
 * which only Postern may say. Content-Length stays: the answer to HEAD needs it.
 */
export function removeHopByHop(fields: readonly string[]): Fields {
  return keepFields(fields, (name) => !isHopByHop(name) && !name.startsWith('x-postern-'))
}

function keepFields(fields: readonly string[], wanted: (name: string) => boolean): Fields {
  const kept: Fields = []
  let listed = false
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    if (wanted(name)) kept.push(name, fields[i + 1]!)
    else if (name === 'connection' && !LISTS_NOTHING.has(fields[i + 1]!)) listed = true
  }
  return listed ? withoutListed(kept, connectionTokens(fields)) : kept
}

function withoutListed(fields: Fields, listed: readonly string[]): Fields {
  const names = new Set(listed)
  return fields.filter((_, i) => !names.has(fields[i - (i % 2)]!))
}

const XFCC = 'x-forwarded-client-cert'
const LISTS_NOTHING: ReadonlySet<string> = new Set(['keep-alive', 'Keep-Alive', 'close', 'Upgrade'])
