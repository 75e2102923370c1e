// Reads the result document of the OPA-Envoy contract: a boolean, or an object with `allowed`. All
// of it is checked before any of it counts; what is wrong is an error, never a silent deny or allow.
import {
  isFieldValue,
  isProtectedRequestField,
  isProtectedResponseField,
  isToken,
} from '../field-names.ts'
import { type Mutations, NO_MUTATIONS } from './permit.ts'

type Pair = readonly [string, string]

export type PolicyResult =
  | { readonly kind: 'allow'; readonly mutations: Mutations }
  | {
      readonly kind: 'deny'
      readonly status: number
      readonly headers: readonly Pair[]
      readonly body: string | undefined
    }
  | { readonly kind: 'invalid'; readonly reason: string }

const DENIED_STATUS = 403
const MAX_CHANGES = 100
const ALLOW: PolicyResult = { kind: 'allow', mutations: NO_MUTATIONS }
const DENY: PolicyResult = { kind: 'deny', status: DENIED_STATUS, headers: [], body: undefined }

/** Final statuses of the IANA registry, 2026; interim ones would not end the request. */
const KNOWN_STATUSES: ReadonlySet<number> = new Set([
  ...[200, 201, 202, 203, 204, 205, 206, 207, 208, 226],
  ...[300, 301, 302, 303, 304, 305, 307, 308],
  ...[400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417],
  ...[418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451],
  ...[500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511],
])

/** @param text the value of the entrypoint as JSON text. */
export function readResult(text: string): PolicyResult {
  if (text === 'true') return ALLOW
  if (text === 'false') return DENY
  try {
    const value: unknown = JSON.parse(text, integerStatus)
    if (!isObject(value)) return { kind: 'invalid', reason: 'result is neither boolean nor object' }
    const allowed = value['allowed']
    if (typeof allowed !== 'boolean') throw new ResultError('allowed', 'is not a boolean')
    optional(value, 'dynamic_metadata', objectOf)
    return allowed ? readAllow(value) : readDeny(value)
  } catch (error) {
    if (error instanceof ResultError) return { kind: 'invalid', reason: error.message }
    if (error instanceof SyntaxError) return { kind: 'invalid', reason: 'more than one result' }
    // A policy can give back what a client nested; JSON.parse with a reviver goes down by itself.
    if (error instanceof RangeError)
      return { kind: 'invalid', reason: 'result is nested too deeply' }
    throw error
  }
}

/** `403.0` and `4.03e2` are wrong types for the plugin, which JavaScript's numbers do not show. */
function integerStatus(key: string, value: unknown, context?: { readonly source: string }) {
  return key === 'http_status' && !/^\d{1,3}$/.test(context?.source ?? '') ? null : value
}

class ResultError extends Error {
  constructor(field: string, what: string) {
    super(`result: ${field} ${what}`)
  }
}

type JsonObject = Readonly<Record<string, unknown>>

function readAllow(value: JsonObject): PolicyResult {
  const mutations: Mutations = {
    setRequestHeaders: optional(value, 'headers', requestHeaders) ?? [],
    removeRequestHeaders: optional(value, 'request_headers_to_remove', removedHeaders) ?? [],
    responseHeaders: optional(value, 'response_headers_to_add', responseHeaders) ?? [],
    removeQueryParameters: optional(value, 'query_parameters_to_remove', stringsOf) ?? [],
    setQueryParameters: optional(value, 'query_parameters_to_set', pairsOf) ?? [],
  }
  return { kind: 'allow', mutations }
}

function readDeny(value: JsonObject): PolicyResult {
  return {
    kind: 'deny',
    status: optional(value, 'http_status', statusOf) ?? DENIED_STATUS,
    headers: optional(value, 'headers', responseHeaders) ?? [],
    body: optional(value, 'body', stringOf),
  }
}

/** An absent field is fine, null is not: the plugin takes it for a wrong type. */
function optional<T>(
  object: JsonObject,
  field: string,
  read: (value: unknown, field: string) => T,
): T | undefined {
  return Object.hasOwn(object, field) ? read(object[field], field) : undefined
}

const requestHeaders = (value: unknown, field: string): Pair[] =>
  headersOf(value, field, isProtectedRequestField)

const responseHeaders = (value: unknown, field: string): Pair[] =>
  headersOf(value, field, isProtectedResponseField)

function headersOf(value: unknown, field: string, isProtected: (name: string) => boolean): Pair[] {
  const objects = Array.isArray(value) ? value : [value]
  const headers = objects
    .flatMap((one) => pairsOf(one, field))
    .map(([name, text]): Pair => {
      if (!isFieldValue(text)) {
        throw new ResultError(field, `has a value that is not a field value, for ${quoted(name)}`)
      }
      return [headerName(name, field, isProtected), text.trim()]
    })
  return bounded(headers, field)
}

function removedHeaders(value: unknown, field: string): string[] {
  return stringsOf(value, field).map((name) => headerName(name, field, isProtectedRequestField))
}

function headerName(name: string, field: string, isProtected: (name: string) => boolean): string {
  const lower = name.toLowerCase()
  if (isProtected(lower)) throw new ResultError(field, `may not touch ${quoted(name)}`)
  if (!isToken(lower))
    throw new ResultError(field, `has ${quoted(name)}, which is not a field name`)
  return lower
}

/** `{name: string or [string]}` */
function pairsOf(value: unknown, field: string): Pair[] {
  const pairs = Object.entries(objectOf(value, field)).flatMap(([name, one]): Pair[] =>
    typeof one === 'string' ? [[name, one]] : stringsOf(one, field).map((text) => [name, text]),
  )
  return bounded(pairs, field)
}

function stringsOf(value: unknown, field: string): string[] {
  if (!Array.isArray(value)) throw new ResultError(field, 'is not an array of strings')
  return bounded(value, field).map((one) => stringOf(one, field))
}

function stringOf(value: unknown, field: string): string {
  if (typeof value !== 'string') throw new ResultError(field, 'is not a string')
  return value
}

function objectOf(value: unknown, field: string): JsonObject {
  if (!isObject(value)) throw new ResultError(field, 'is not an object')
  return value
}

function statusOf(value: unknown, field: string): number {
  if (typeof value !== 'number' || !KNOWN_STATUSES.has(value)) {
    throw new ResultError(field, 'is not a final HTTP status')
  }
  return value
}

function bounded<T>(list: T[], field: string): T[] {
  if (list.length > MAX_CHANGES) throw new ResultError(field, `has more than ${MAX_CHANGES} items`)
  return list
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function quoted(name: string): string {
  return JSON.stringify(name.slice(0, 64))
}
