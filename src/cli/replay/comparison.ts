// Whether another policy would decide a recorded request in another way. Answers only where it is
// certain: an event that lacks something the policy reads is not replayable.
import { isDeepStrictEqual } from 'node:util'
import { INPUT_BYTES, type PolicyHost } from '../../policy/host.ts'
import { judge } from '../../policy/judge.ts'
import type { InputReads } from '../../policy/reads.ts'
import type { RecordedDecision } from './recorded.ts'

/** Why an event cannot be decided again. */
export const OBSTACLES = {
  masked: 'something that the policy reads was erased or masked',
  no_input: 'the input is not there, or could not be read when it was decided',
  altered: 'the input is not the one that was logged',
  not_policy: 'the allow rules decided, or nothing was in force',
  too_large: 'the input is larger than this policy may be asked about',
} as const
export type Obstacle = keyof typeof OBSTACLES

export interface Difference {
  /** Pointer into the result; '' is the whole of it. */
  readonly path: string
  /** Absent where there is nothing. */
  readonly before?: unknown
  readonly after?: unknown
}

export type Comparison =
  | { readonly kind: 'not_replayable'; readonly obstacle: Obstacle }
  | {
      readonly kind: 'replayed'
      /** `same`, or from which outcome to which, or `OUTCOME_changed` where only the result differs. */
      readonly change: string
      readonly differences: readonly Difference[]
      readonly error?: string
      /** Parts of the result were masked, and left out of the comparison. */
      readonly partly: boolean
    }

export function compare(
  decision: RecordedDecision,
  host: PolicyHost,
  reads: InputReads,
): Comparison {
  const obstacle = obstacleOf(decision, reads)
  if (obstacle !== undefined) return { kind: 'not_replayable', obstacle }
  const now = judge(host, decision.input as string, decision.timeMs)
  const hidden = pointersBelow('result', decision.hidden)
  const [before, after] = [decision.result, now.result].map((text) =>
    text === undefined ? undefined : without(hidden, JSON.parse(text)),
  )
  const differences: Difference[] = []
  // A result that was hidden as a whole can be compared with nothing.
  if (!hidden.some((path) => path.length === 0)) collect(before, after, '', differences)
  const { outcome } = decision
  const change =
    outcome !== now.outcome
      ? `${outcome}_to_${now.outcome}`
      : differences.length > 0
        ? `${outcome}_changed`
        : 'same'
  const error = now.error === undefined ? {} : { error: now.error }
  return { kind: 'replayed', change, differences, partly: hidden.length > 0, ...error }
}

function obstacleOf(decision: RecordedDecision, reads: InputReads): Obstacle | undefined {
  const { rule = 'policy', input, outcome, result, hasError, hidden, altered } = decision
  if (rule !== 'policy') return 'not_policy'
  const wasUnreadable = outcome === 'deny' && result === undefined && hasError
  const places = pointersBelow('input', hidden)
  if (places.some((path) => isRead(reads, path))) return 'masked'
  if (input === undefined || wasUnreadable) return 'no_input'
  if (altered) return 'altered'
  return Buffer.byteLength(input) > INPUT_BYTES ? 'too_large' : undefined
}

/** The parts of each pointer after `/document`; what cannot be decoded counts as the whole. */
function pointersBelow(document: string, pointers: readonly string[]): readonly string[][] {
  return pointers.flatMap((pointer) => {
    const [, first, ...rest] = pointer.split('/')
    if (first !== document) return []
    try {
      return [rest.map(decodeURIComponent)]
    } catch {
      return [[]]
    }
  })
}

/** Whether the place, something inside it, or something around it as a whole is read. */
function isRead(reads: InputReads, [part, ...rest]: readonly string[]): boolean {
  if (reads === 'all' || part === undefined) return true
  const below = reads.get(part)
  return below !== undefined && isRead(below, rest)
}

function without(hidden: readonly string[][], document: unknown): unknown {
  for (const path of hidden) {
    let node = document
    for (const part of path.slice(0, -1)) node = memberOf(node, part)
    const last = path.at(-1)
    if (last !== undefined && typeof node === 'object' && node !== null)
      Reflect.deleteProperty(node, last)
  }
  return document
}

const memberOf = (node: unknown, name: string): unknown =>
  typeof node === 'object' && node !== null && Object.hasOwn(node, name)
    ? (node as Record<string, unknown>)[name]
    : undefined

function collect(before: unknown, after: unknown, path: string, into: Difference[]): void {
  if (isDeepStrictEqual(before, after)) return
  if (!isObject(before) || !isObject(after)) {
    into.push({
      path,
      ...(before === undefined ? {} : { before }),
      ...(after === undefined ? {} : { after }),
    })
    return
  }
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    collect(memberOf(before, key), memberOf(after, key), `${path}/${encodeURIComponent(key)}`, into)
  }
}

const isObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
