// Turns a decision record into OPA's EventV1 as one JSON line, the fields in OPA's order, secrets
// replaced and their places listed in `masked`, ours (`outcome`, `rule`, digests) after OPA's.
import { hash } from 'node:crypto'
import type { DecisionRecord } from '../threads.ts'
import type { Redactor } from './redaction.ts'

/** The `labels` object of every event. */
export interface DecisionLabels {
  /** The instance: pod name, or a UUID made at start. */
  readonly id: string
  readonly version: string
}

/** Name that our one bundle has in the event's `bundles`. */
const BUNDLE_NAME = 'policy'

/**
 * The event as JSON text without newline, or `undefined` when input or result is not JSON: what
 * cannot be redacted is not logged (OPA's rule for a failed mask).
 */
export function decisionEvent(
  record: DecisionRecord,
  labels: DecisionLabels,
  redactor: Redactor,
): string | undefined {
  const masked: string[] = []
  const input = redactedText(record.input, (document) => maskInput(document, redactor, masked))
  if (input === undefined) return undefined
  let result: string | undefined
  if (record.result !== undefined) {
    result = redactedText(record.result, (document) => maskResult(document, redactor, masked))
    if (result === undefined) return undefined
  }
  const trace = TRACEPARENT.exec(record.traceparent ?? '')
  const iso = new Date(record.timeMs).toISOString()
  const revision = record.revision ? `{"revision":${quote(record.revision)}}` : '{}'

  let event = `{"level":"info","time":"${iso}","msg":"Decision Log","type":"openpolicyagent.org/decision_logs"`
  event += `,"labels":${JSON.stringify(labels)},"decision_id":${quote(record.decisionId)}`
  if (trace) event += `,"trace_id":"${trace[1]}","span_id":"${trace[2]}"`
  if (record.bundleDigest !== undefined) event += `,"bundles":{"${BUNDLE_NAME}":${revision}}`
  if (record.entrypoint !== undefined) event += `,"path":${quote(record.entrypoint)}`
  event += `,"input":${input}`
  if (result !== undefined) event += `,"result":${result}`
  if (masked.length > 0) event += `,"masked":${JSON.stringify(masked)}`
  if (record.error !== undefined) {
    event += `,"error":${JSON.stringify({ message: redactor.text(record.error) })}`
  }
  event += `,"timestamp":"${iso.slice(0, -1)}000000Z"`
  if (record.evalNs > 0) {
    event += `,"metrics":{"timer_rego_query_eval_ns":${Math.round(record.evalNs)}}`
  }
  event += `,"req_id":${quote(record.requestId)}`
  event += `,"outcome":${quote(record.outcome)},"rule":${quote(record.rule)}`
  if (record.bundleDigest !== undefined) event += `,"bundle_digest":${quote(record.bundleDigest)}`
  return `${event},"input_digest":"${hash('sha256', record.input)}"}`
}

const quote = (text: string): string => JSON.stringify(text)

/** traceparent of W3C Trace Context, section 3.2; all zeroes is no identifier. */
const TRACEPARENT =
  /^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:$|-)/

type Document = Record<string, unknown>

/**
 * Parsed and printed anew: that is also what keeps it one line and valid. Searching the text for
 * secrets first, to let most of it through as it is, costs more than half of that (6 of 10 us for
 * 1.2 KB, Node 26.10).
 */
function redactedText(text: string, mask: (document: unknown) => void): string | undefined {
  try {
    const document: unknown = JSON.parse(text)
    mask(document)
    return JSON.stringify(document)
  } catch {
    return undefined
  }
}

function maskInput(document: unknown, redactor: Redactor, masked: string[]): void {
  if (!isObject(document)) return
  const http = child(child(child(document, 'attributes'), 'request'), 'http')
  const at = '/input/attributes/request/http'
  maskHeaders(http['headers'], `${at}/headers`, redactor, masked)
  maskStrings(http, ['path', 'query'], at, redactor, masked)
  maskNamed(document['parsed_query'], '/input/parsed_query', redactor, masked)
}

function maskResult(document: unknown, redactor: Redactor, masked: string[]): void {
  if (!isObject(document)) return
  for (const name of ['headers', 'response_headers_to_add']) {
    maskHeaders(document[name], `/result/${name}`, redactor, masked)
  }
  maskNamed(
    document['query_parameters_to_set'],
    '/result/query_parameters_to_set',
    redactor,
    masked,
  )
}

/** An object of strings or string arrays, or an array of such objects (both are OPA-Envoy shapes). */
function maskHeaders(headers: unknown, at: string, redactor: Redactor, masked: string[]): void {
  if (Array.isArray(headers)) {
    headers.forEach((one, index) => {
      maskHeaders(one, `${at}/${index}`, redactor, masked)
    })
  } else if (isObject(headers)) {
    for (const [name, value] of Object.entries(headers)) {
      const clean = mapStrings(value, (text) =>
        name === ':path' ? redactor.target(text) : redactor.header(name, text),
      )
      if (clean !== value) put(headers, name, clean, at, masked)
    }
  }
}

function maskStrings(
  object: Document,
  names: readonly string[],
  at: string,
  redactor: Redactor,
  masked: string[],
): void {
  for (const name of names) {
    const value = object[name]
    if (typeof value !== 'string') continue
    const clean = name === 'query' ? redactor.target(`?${value}`).slice(1) : redactor.target(value)
    if (clean !== value) put(object, name, clean, at, masked)
  }
}

function maskNamed(object: unknown, at: string, redactor: Redactor, masked: string[]): void {
  if (!isObject(object)) return
  for (const [name, value] of Object.entries(object)) {
    const clean = mapStrings(value, (text) => redactor.header(name, text))
    if (clean !== value) put(object, name, clean, at, masked)
  }
}

/** The same value when nothing changed; anything but strings under a header's name is left alone. */
function mapStrings(value: unknown, map: (text: string) => string): unknown {
  if (typeof value === 'string') return map(value)
  if (!Array.isArray(value)) return value
  const mapped = value.map((one) => (typeof one === 'string' ? map(one) : one))
  return mapped.some((one, index) => one !== value[index]) ? mapped : value
}

function put(object: Document, name: string, value: unknown, at: string, masked: string[]): void {
  object[name] = value
  // OPA writes each part percent-encoded, not with JSON pointer's ~1.
  masked.push(`${at}/${encodeURIComponent(name)}`)
}

const isObject = (value: unknown): value is Document =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const child = (parent: Document, name: string): Document => {
  const value = parent[name]
  return isObject(value) ? value : {}
}
