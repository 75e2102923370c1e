// A decision as a log has it, ours or that of OPA: read from one line, checked for being what was
// decided, or told apart from the other lines that stand in the same file.
import { hash } from 'node:crypto'
import { EVENT_TYPE } from '../../observe/decision-log.ts'
import { readResult } from '../../policy/result.ts'
import { jsonParts } from './json-parts.ts'

export interface RecordedDecision {
  readonly id: string
  readonly timeMs: number
  readonly outcome: string
  /** Which rule decided; absent in events of OPA, where it is always the policy. */
  readonly rule?: string
  /** JSON text, as it stands in the log; absent where there is none. */
  readonly input?: string
  /** JSON text. */
  readonly result?: string
  readonly hasError: boolean
  /** Pointers to what was removed or replaced, parts percent-encoded. */
  readonly hidden: readonly string[]
  /** The input is not the one that was logged: its digest is another. */
  readonly altered: boolean
  /** For a person: who asked for what. */
  readonly request: string
}

export type RecordedLine =
  | { readonly kind: 'decisions'; readonly decisions: readonly RecordedDecision[] }
  /** A line of the log that is about something else. */
  | { readonly kind: 'other' }
  | { readonly kind: 'broken'; readonly what: string }

export function readLine(text: string): RecordedLine {
  if (text.trim() === '') return { kind: 'other' }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { kind: 'broken', what: 'not JSON' }
  }
  // What was uploaded as one chunk.
  if (Array.isArray(value)) return together(jsonParts(text).map(([, element]) => readLine(element)))
  if (!isObject(value)) return { kind: 'broken', what: 'neither an event nor a log line' }
  if (isEvent(value)) return readEvent(value, text)
  return typeof value['msg'] === 'string'
    ? { kind: 'other' }
    : { kind: 'broken', what: 'neither an event nor a log line' }
}

function together(lines: readonly RecordedLine[]): RecordedLine {
  const broken = lines.find(({ kind }) => kind === 'broken')
  if (broken !== undefined) return broken
  const decisions = lines.flatMap((line) => (line.kind === 'decisions' ? line.decisions : []))
  return { kind: 'decisions', decisions }
}

type Fields = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Uploaded events have no type. */
const isEvent = (value: Fields): boolean =>
  value['type'] === EVENT_TYPE ||
  (value['msg'] === undefined && typeof value['decision_id'] === 'string')

function readEvent(event: Fields, text: string): RecordedLine {
  const { decision_id: id, timestamp, custom } = event
  if (typeof id !== 'string') return { kind: 'broken', what: 'an event without decision_id' }
  const timeMs = typeof timestamp === 'string' ? Date.parse(timestamp) : Number.NaN
  if (Number.isNaN(timeMs)) return { kind: 'broken', what: 'an event without a timestamp' }
  const texts = new Map(jsonParts(text))
  const result = texts.get('result')
  const ours = isObject(custom) ? custom : {}
  const { outcome = outcomeOf(result), rule, input_digest: digest } = ours
  const input = inputOf(texts.get('input'), event['input'], digest)
  const decision: RecordedDecision = {
    id,
    timeMs,
    outcome: String(outcome),
    ...(typeof rule === 'string' ? { rule } : {}),
    ...(input.text === undefined ? {} : { input: input.text }),
    ...(result === undefined ? {} : { result }),
    hasError: event['error'] !== undefined,
    hidden: [...strings(event['erased']), ...strings(event['masked'])],
    altered: input.altered,
    request: requestOf(event['input']),
  }
  return { kind: 'decisions', decisions: [decision] }
}

/** A collector may have written the line anew: then it must be the same once spaces are gone. */
function inputOf(
  text: string | undefined,
  value: unknown,
  digest: unknown,
): { readonly text?: string; readonly altered: boolean } {
  if (text === undefined) return { altered: false }
  if (typeof digest !== 'string') return { text, altered: false }
  const found = [text, JSON.stringify(value)].find((one) => hash('sha256', one) === digest)
  return found === undefined ? { text, altered: true } : { text: found, altered: false }
}

function outcomeOf(result: string | undefined): string {
  if (result === undefined) return 'error'
  const { kind } = readResult(result)
  return kind === 'invalid' ? 'error' : kind
}

const strings = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((one) => typeof one === 'string') : []

function requestOf(input: unknown): string {
  const attributes = member(input, 'attributes')
  const http = member(member(attributes, 'request'), 'http')
  const parts = [
    member(http, 'method'),
    member(http, 'path'),
    member(member(attributes, 'source'), 'principal'),
  ]
  return parts.filter((one) => typeof one === 'string').join(' ')
}

const member = (value: unknown, name: string): unknown =>
  isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined
