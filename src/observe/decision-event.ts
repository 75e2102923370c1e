// Turns a decision record into OPA's EventV1 as JSON, the fields in OPA's order and ours under
// `custom`. What the policy's own rules want dropped or masked goes first, then what is a secret by
// its name or look; where drop or mask cannot be asked the event has neither input nor result: a
// client that makes them fail may neither show what is secret nor keep out of the log.
import { hash } from 'node:crypto'
import type { DecisionRecord } from '../threads.ts'
import {
  type DocumentObject as Document,
  isObject,
  readDocument,
  setProperty,
} from './decision-document.ts'
import {
  applyMaskRules,
  type MaskedDocuments,
  type MaskRule,
  readMaskRules,
} from './decision-mask.ts'
import { REDACTED, type Redactor } from './redaction.ts'

/** The `labels` object of every event. */
export interface DecisionLabels {
  /** The instance: pod name, or a UUID made at start. */
  readonly id: string
  readonly version: string
  /** `log.labels`. */
  readonly [name: string]: string
}

/** What a rule of the policy says about an event; any other kind is a failure. */
export type RuleAnswer =
  | { readonly kind: 'result'; readonly text: string }
  | { readonly kind: 'undefined' }
  | { readonly kind: 'too_large' | 'timeout' | 'error' }

/** The rules of the policy in force about its log: given JSON text of the event, epoch milliseconds. */
export interface DecisionRules {
  readonly drop?: (event: string, timeMs: number) => RuleAnswer
  readonly mask?: (event: string, timeMs: number) => RuleAnswer
}

export interface EventContext {
  readonly labels: DecisionLabels
  readonly redactor: Redactor
  /** Absent: the policy has no opinion about its log. */
  readonly rules?: DecisionRules | undefined
}

export type EventOutcome =
  /** EventV1 as JSON text on one line. */
  | { readonly kind: 'event'; readonly json: string }
  | { readonly kind: 'dropped_by_policy' }
  /** Drop or mask failed: of what may have to stay secret nothing is in `json`. */
  | { readonly kind: 'policy_failed'; readonly reason: string; readonly json: string }
  /** Input or result is not JSON, so that nothing in it can be masked. */
  | { readonly kind: 'unreadable' }

/** Name that our one bundle has in the event's `bundles`. */
const BUNDLE_NAME = 'policy'

/** Never throws: what cannot be read or printed, however deep it is nested, is `unreadable`. */
export function decisionEvent(record: DecisionRecord, context: EventContext): EventOutcome {
  try {
    return maskedEvent(record, context)
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) return { kind: 'unreadable' }
    throw error
  }
}

function maskedEvent(record: DecisionRecord, context: EventContext): EventOutcome {
  const documents: MaskedDocuments = {
    input: readDocument(record.input),
    ...(record.result === undefined ? {} : { result: readDocument(record.result) }),
  }
  const asked = askRules(record, context)
  if ('reason' in asked) {
    const json = bareText(record, context.labels)
    return { kind: 'policy_failed', reason: asked.reason, json }
  }
  if ('kind' in asked) return asked

  const { erased, masked } = applyMaskRules(asked.rules, documents)
  maskInput(documents.input, context.redactor, masked)
  maskResult(documents.result, context.redactor, masked)
  const places = [...erased, ...masked].map((place) => place.split('/')[1])
  const text = (name: 'input' | 'result'): string | undefined => {
    if (!(name in documents)) return undefined
    const before = record[name]
    // Printed anew it would lose the order of its keys; but nothing may break the line.
    const asItIs = before !== undefined && !places.includes(name) && !before.includes('\n')
    return asItIs ? before : JSON.stringify(documents[name])
  }
  const [input, result] = [text('input'), text('result')]
  const error = record.error === undefined ? undefined : context.redactor.text(record.error)
  const json = eventText(record, context.labels, { input, result, erased, masked, error })
  return { kind: 'event', json }
}

type Asked =
  | { readonly rules: readonly MaskRule[] }
  | { readonly kind: 'dropped_by_policy' }
  | { readonly reason: string }

/** The rules see the event before anything is changed; what they read is never what is logged. */
function askRules(record: DecisionRecord, { labels, rules }: EventContext): Asked {
  if (rules?.drop === undefined && rules?.mask === undefined) return { rules: [] }
  const event = eventText(record, labels, { ...record, erased: [], masked: [] })
  const drop = rules.drop?.(event, record.timeMs) ?? UNDEFINED
  if (drop.kind === 'result' && drop.text === 'true') return { kind: 'dropped_by_policy' }
  // OPA lets only `true` drop. What is neither true nor false is a mistake, and nobody's consent.
  if (!isUndefined(drop) && !(drop.kind === 'result' && drop.text === 'false')) {
    return failedRule('drop', drop)
  }
  const mask = rules.mask?.(event, record.timeMs) ?? UNDEFINED
  if (isUndefined(mask)) return { rules: [] }
  const read = mask.kind === 'result' ? readMaskRules(readDocument(mask.text)) : undefined
  return read === undefined ? failedRule('mask', mask) : { rules: read }
}

const UNDEFINED: RuleAnswer = { kind: 'undefined' }
const isUndefined = ({ kind }: RuleAnswer): boolean => kind === 'undefined'

function failedRule(name: 'drop' | 'mask', { kind }: RuleAnswer): { readonly reason: string } {
  const what = kind === 'result' ? 'gave something else than it should' : `failed: ${kind}`
  return { reason: `system/log/${name} ${what}` }
}

function bareText(record: DecisionRecord, labels: DecisionLabels): string {
  const erased = record.result === undefined ? ['/input'] : ['/input', '/result']
  return eventText(record, labels, { input: undefined, erased, masked: [] })
}

interface EventParts {
  readonly input: string | undefined
  readonly result?: string | undefined
  readonly erased: readonly string[]
  readonly masked: readonly string[]
  readonly error?: string | undefined
}

function eventText(record: DecisionRecord, labels: DecisionLabels, parts: EventParts): string {
  const trace = TRACEPARENT.exec(record.traceparent ?? '')
  const iso = new Date(record.timeMs).toISOString()
  const revision = record.revision ? `{"revision":${quote(record.revision)}}` : '{}'
  let event = `{"labels":${JSON.stringify(labels)},"decision_id":${quote(record.decisionId)}`
  if (trace) event += `,"trace_id":"${trace[1]}","span_id":"${trace[2]}"`
  if (record.bundleDigest !== undefined) event += `,"bundles":{"${BUNDLE_NAME}":${revision}}`
  if (record.entrypoint !== undefined) event += `,"path":${quote(record.entrypoint)}`
  if (parts.input !== undefined) event += `,"input":${parts.input}`
  if (parts.result !== undefined) event += `,"result":${parts.result}`
  if (parts.erased.length > 0) event += `,"erased":${JSON.stringify(parts.erased)}`
  if (parts.masked.length > 0) event += `,"masked":${JSON.stringify(parts.masked)}`
  if (parts.error !== undefined) event += `,"error":${JSON.stringify({ message: parts.error })}`
  event += `,"timestamp":"${iso.slice(0, -1)}000000Z"`
  if (record.evalNs > 0) {
    event += `,"metrics":{"timer_rego_query_eval_ns":${Math.round(record.evalNs)}}`
  }
  event += `,"req_id":${quote(record.requestId)}`
  event += `,"custom":{"outcome":${quote(record.outcome)},"rule":${quote(record.rule)}`
  if (record.bundleDigest !== undefined) event += `,"bundle_digest":${quote(record.bundleDigest)}`
  // Of what stands here and not of what the policy read: a digest of a secret lets it be guessed.
  if (parts.input !== undefined) event += `,"input_digest":"${hash('sha256', parts.input)}"`
  return `${event}}}`
}

const quote = (text: string): string => JSON.stringify(text)

/** traceparent of W3C Trace Context, section 3.2; all zeroes is no identifier. */
const TRACEPARENT =
  /^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:$|-)/

function maskInput(document: unknown, redactor: Redactor, masked: string[]): void {
  if (!isObject(document)) return
  const http = child(child(child(document, 'attributes'), 'request'), 'http')
  const at = '/input/attributes/request/http'
  maskHeaders(http['headers'], `${at}/headers`, redactor, masked)
  maskStrings(http, ['path', 'query'], at, redactor, masked)
  maskNamed(document['parsed_query'], '/input/parsed_query', redactor, masked)
  const before = masked.length
  maskBody(document['parsed_body'], '/input/parsed_body', redactor, masked, DEEPEST)
  // The same secret stands in the text that was parsed.
  for (const name of ['body', 'rawBody']) {
    const body = http[name]
    if (typeof body !== 'string') continue
    const clean = masked.length > before ? REDACTED : redactor.text(body)
    if (clean !== body) put(http, name, clean, at, masked)
  }
}

/** Far deeper than an input document may be. */
const DEEPEST = 500

function maskBody(
  node: unknown,
  at: string,
  redactor: Redactor,
  masked: string[],
  depth: number,
): void {
  if (typeof node !== 'object' || node === null) return
  for (const [name, value] of Object.entries(node)) {
    const isSecret = !Array.isArray(node) && redactor.isSecretName(name) && !isEmpty(value)
    const isTooDeep = depth === 0 && typeof value === 'object' && value !== null
    const clean = isSecret || isTooDeep ? REDACTED : mapStrings(value, redactor.text)
    if (clean !== value) put(node as Document, name, clean, at, masked)
    else maskBody(value, `${at}/${encodeURIComponent(name)}`, redactor, masked, depth - 1)
  }
}

const isEmpty = (value: unknown): boolean => value === null || value === '' || value === false

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
  setProperty(object, name, value)
  // OPA writes each part percent-encoded, not with JSON pointer's ~1.
  masked.push(`${at}/${encodeURIComponent(name)}`)
}

const child = (parent: Document, name: string): Document => {
  const value = parent[name]
  return isObject(value) ? value : {}
}
