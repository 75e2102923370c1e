// Queries and urlencoded forms as JSON text: an array of strings for each key, as `url.ParseQuery` of
// Go reads them, for which a raw semicolon is an error.
import { InputError } from '../input-error.ts'
import { quote } from '../json-text.ts'

/** OPA's objects are chained hash tables without a seed: their size is bounded, not only the text. */
export const MOST_FORM_KEYS = 256
const MAX_VALUES = 1_024

/**
 * @param where for messages: `query` or `form`
 * @throws InputError
 */
export function formForInput(text: string, where: string): string {
  const lists = new ValueLists(where)
  for (const [key, values] of formValues(text, where)) {
    for (const value of values) lists.add(key, quote(value))
  }
  return lists.text
}

/** The same as what it stands for. */
export function formValues(text: string, where: string): ReadonlyMap<string, readonly string[]> {
  if (text.includes(';')) throw new InputError(`a raw semicolon in the ${where}`)
  const parts = text.split('&', MAX_VALUES + 1)
  if (parts.length > MAX_VALUES) {
    throw new InputError(`more than ${MAX_VALUES} ${where} parameters`)
  }
  const lists = new Map<string, string[]>()
  for (const part of parts) {
    if (part === '') continue
    const equals = part.indexOf('=')
    const key = unescaped(equals < 0 ? part : part.slice(0, equals), where)
    const value = equals < 0 ? '' : unescaped(part.slice(equals + 1), where)
    const known = lists.get(key)
    if (known !== undefined) known.push(value)
    else if (lists.size === MOST_FORM_KEYS) {
      throw new InputError(`more than ${MOST_FORM_KEYS} ${where} keys`)
    } else lists.set(key, [value])
  }
  return lists
}

/** `{"key":[value, value]}` from values that are JSON text already. */
export class ValueLists {
  readonly #where: string
  readonly #lists = new Map<string, string>()

  constructor(where: string) {
    this.#where = where
  }

  /** @throws InputError */
  add(key: string, value: string): void {
    const known = this.#lists.get(key)
    this.#lists.set(key, known === undefined ? value : `${known},${value}`)
    if (this.#lists.size > MOST_FORM_KEYS) {
      throw new InputError(`more than ${MOST_FORM_KEYS} ${this.#where} keys`)
    }
  }

  get text(): string {
    let text = ''
    for (const [key, list] of this.#lists)
      text += `${text === '' ? '' : ','}${quote(key)}:[${list}]`
    return `{${text}}`
  }
}

function unescaped(text: string, where: string): string {
  return percentDecoded(text.includes('+') ? text.replaceAll('+', ' ') : text, where)
}

/**
 * Refuses bad escapes as Go does, and besides what is not UTF-8.
 * @throws InputError
 */
export function percentDecoded(text: string, where: string): string {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    throw new InputError(`a percent escape in the ${where} that is malformed or not UTF-8`)
  }
}
