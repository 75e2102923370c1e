// What a policy wants left out of its decision log, in the terms of OPA: `system/log/drop` says
// whether an event is logged, `system/log/mask` which parts of it are removed or replaced. An answer
// that cannot be understood is a failure, and then the event must not be logged at all.
import { isObject, setProperty } from './decision-document.ts'

/** The documents of an event that rules may change; each is absent where the event has none. */
export interface MaskedDocuments {
  input?: unknown
  result?: unknown
}

/** What the rules did, as pointers whose parts are percent-encoded. */
export interface MaskedPlaces {
  readonly erased: string[]
  readonly masked: string[]
}

export interface MaskRule {
  readonly op: 'remove' | 'upsert'
  readonly document: 'input' | 'result' | 'nd_builtin_cache'
  /** Below the document; empty: the whole document. */
  readonly path: readonly PathPart[]
  readonly value: unknown
}

interface PathPart {
  /** Percent-encoded, as OPA compares it and as it is reported. */
  readonly encoded: string
  /** The same place as a user may have meant it: as written, and decoded. */
  readonly others: readonly string[]
}

const OPERATIONS = ['remove', 'upsert'] as const
const DOCUMENTS = ['input', 'result', 'nd_builtin_cache'] as const

/** The rules that the value of `system/log/mask` is, or `undefined` when it is not a list of rules. */
export function readMaskRules(value: unknown): readonly MaskRule[] | undefined {
  if (!Array.isArray(value)) return undefined
  const rules = value.map(readRule)
  return rules.every((rule) => rule !== undefined) ? rules : undefined
}

/** Changes `documents` in place; the rules are applied in their order. */
export function applyMaskRules(
  rules: readonly MaskRule[],
  documents: MaskedDocuments,
): MaskedPlaces {
  const places: MaskedPlaces = { erased: [], masked: [] }
  for (const rule of rules) {
    // We log no such cache: there is nothing to mask.
    if (rule.document === 'nd_builtin_cache' || !(rule.document in documents)) continue
    const pointer = ['', rule.document, ...rule.path.map(({ encoded }) => encoded)].join('/')
    // A cell around the document, so that the whole of it is a place like any other.
    const root = { [rule.document]: documents[rule.document] }
    const path = [{ encoded: rule.document, others: [] }, ...rule.path]
    if (rule.op === 'remove') {
      if (!remove(root, path)) continue
      if (rule.path.length === 0) delete documents[rule.document]
      places.erased.push(pointer)
    } else {
      if (!upsert(root, path, rule.value)) continue
      documents[rule.document] = root[rule.document]
      places.masked.push(pointer)
    }
  }
  return places
}

function readRule(rule: unknown): MaskRule | undefined {
  if (typeof rule === 'string') return ruleAt(rule, 'remove', undefined)
  if (!isObject(rule)) return undefined
  const { op, path, value = null } = rule
  const known = OPERATIONS.find((one) => one === op)
  return known === undefined || typeof path !== 'string' ? undefined : ruleAt(path, known, value)
}

function ruleAt(path: string, op: MaskRule['op'], value: unknown): MaskRule | undefined {
  const [before, first, ...rest] = path.split('/')
  const document = DOCUMENTS.find((one) => one === first)
  if (before !== '' || document === undefined) return undefined
  const parts = rest.map(partOf)
  return parts.every((part) => part !== undefined)
    ? { op, document, path: parts, value }
    : undefined
}

function partOf(text: string): PathPart | undefined {
  try {
    // Not every string has an encoding, and not every `%` is the begin of one.
    return { encoded: pathEscape(text), others: [text, decodeURIComponent(text)] }
  } catch {
    return undefined
  }
}

/** As Go's url.PathEscape: leaves more as it is than encodeURIComponent, and less. */
const pathEscape = (text: string): string =>
  encodeURIComponent(text)
    .replace(/%(24|26|2B|3A|3D|40)/g, (encoded) => decodeURIComponent(encoded))
    .replace(/[!'()*]/g, (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`)

/**
 * The key that OPA would take. Where there is none, the one that the rule reads like: OPA finds no
 * key that needs encoding, and a secret that was named must not stay for that.
 */
function keyIn(object: object, { encoded, others }: PathPart): string | undefined {
  return [encoded, ...others].find((name) => Object.hasOwn(object, name))
}

function indexIn(array: readonly unknown[], { encoded }: PathPart): number | undefined {
  const index = /^\+?\d{1,9}$/.test(encoded) ? Number(encoded) : -1
  return index >= 0 && index < array.length ? index : undefined
}

function childOf(node: unknown, part: PathPart): unknown {
  if (Array.isArray(node)) {
    const index = indexIn(node, part)
    return index === undefined ? undefined : node[index]
  }
  if (!isObject(node)) return undefined
  const key = keyIn(node, part)
  return key === undefined ? undefined : node[key]
}

function remove(root: object, path: readonly PathPart[]): boolean {
  let node: unknown = root
  for (const part of path.slice(0, -1)) node = childOf(node, part)
  const last = path.at(-1) as PathPart
  if (Array.isArray(node)) {
    const index = indexIn(node, last)
    if (index === undefined) return false
    node.splice(index, 1)
    return true
  }
  const key = isObject(node) ? keyIn(node, last) : undefined
  if (key === undefined) return false
  delete (node as Record<string, unknown>)[key]
  return true
}

/** Makes the objects that lead to the place, as OPA does; never lengthens an array. */
function upsert(root: object, path: readonly PathPart[], value: unknown): boolean {
  let node: unknown = root
  for (const part of path.slice(0, -1)) {
    if (isObject(node) && keyIn(node, part) === undefined) setProperty(node, part.encoded, {})
    node = childOf(node, part)
  }
  const last = path.at(-1) as PathPart
  if (Array.isArray(node)) {
    const index = indexIn(node, last)
    if (index === undefined) return false
    node[index] = value
    return true
  }
  if (!isObject(node)) return false
  setProperty(node, keyIn(node, last) ?? last.encoded, value)
  return true
}
