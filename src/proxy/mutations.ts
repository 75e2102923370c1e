// Applies what an allowing policy asked for to the request that goes to the workload.
import type { Fields } from '../http/fields.ts'
import type { Mutations } from '../policy/permit.ts'

/** Headers that the policy sets override those of the same name (Envoy's default). */
export function mutateFields(fields: Fields, mutations: Mutations): Fields {
  if (mutations.setRequestHeaders.length === 0 && mutations.removeRequestHeaders.length === 0)
    return fields
  const changed = withoutChanged(fields, mutations)
  for (const [name, value] of mutations.setRequestHeaders) changed.push(name, value)
  return changed
}

/** A header that the policy sets or removes is not the client's to say behind the body either. */
export function mutateTrailers(trailers: Fields, mutations: Mutations): Fields {
  return trailers.length === 0 ? trailers : withoutChanged(trailers, mutations)
}

function withoutChanged(fields: Fields, mutations: Mutations): Fields {
  const gone = [...mutations.removeRequestHeaders]
  for (const [name] of mutations.setRequestHeaders) gone.push(name)
  const isGone = gone.length > MOST_COMPARED ? isIn(new Set(gone)) : isAmong(gone)
  const kept: Fields = []
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    if (!isGone(name)) kept.push(name, fields[i + 1]!)
  }
  return kept
}

/** Fewer are cheaper to compare than to look for in a set. */
const MOST_COMPARED = 8

const isAmong =
  (names: readonly string[]) =>
  (name: string): boolean =>
    names.includes(name)

const isIn =
  (names: ReadonlySet<string>) =>
  (name: string): boolean =>
    names.has(name)

/** Query parameters are removed and set by their decoded name; the others keep their bytes. */
export function mutateTarget(target: string, mutations: Mutations): string {
  if (mutations.removeQueryParameters.length === 0 && mutations.setQueryParameters.length === 0)
    return target
  if (target === '*') return target // OPTIONS of the server as a whole has no query
  const mark = target.indexOf('?')
  const path = mark === -1 ? target : target.slice(0, mark)
  const gone = new Set(mutations.removeQueryParameters)
  for (const [name] of mutations.setQueryParameters) gone.add(name)
  const parts = mark === -1 ? [] : target.slice(mark + 1).split('&')
  const kept = parts.filter((part) => part !== '' && !gone.has(nameOf(part)))
  for (const [name, value] of mutations.setQueryParameters) {
    // A policy can produce lone surrogates, at which encodeURIComponent throws.
    kept.push(
      `${encodeURIComponent(name.toWellFormed())}=${encodeURIComponent(value.toWellFormed())}`,
    )
  }
  return kept.length === 0 ? path : `${path}?${kept.join('&')}`
}

function nameOf(part: string): string {
  const equals = part.indexOf('=')
  const raw = (equals === -1 ? part : part.slice(0, equals)).replaceAll('+', ' ')
  try {
    return decodeURIComponent(raw)
  } catch {
    return raw // percent-encoded bytes that are not UTF-8 cannot be a name the policy wrote
  }
}
