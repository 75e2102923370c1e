// JSON documents inside an event while they are changed: as JSON.parse gives them, except that a
// number which JavaScript would write differently keeps its digits.

export type DocumentObject = Record<string, unknown>

/** Throws a SyntaxError for what is not JSON. */
export function readDocument(text: string): unknown {
  return UNUSUAL_NUMBER.test(text) ? JSON.parse(text, keepLiteral as never) : JSON.parse(text)
}

/** A number with a fraction or an exponent, or of more digits than a double holds exactly. */
const UNUSUAL_NUMBER = /[:[,]\s?-?(?:\d{16}|\d{1,15}[.eE])/

// Of ECMAScript's "JSON.parse source text access"; TypeScript does not know it yet.
const { rawJSON, isRawJSON } = JSON as unknown as {
  rawJSON(text: string): object
  isRawJSON(value: unknown): boolean
}

const keepLiteral = (_key: string, value: unknown, { source }: { source?: string }): unknown =>
  typeof value === 'number' && source !== undefined && source !== String(value)
    ? rawJSON(source)
    : value

export const isObject = (value: unknown): value is DocumentObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !isRawJSON(value)

/** Also under the name `__proto__`, which an assignment would take for something else. */
export function setProperty(object: DocumentObject, name: string, value: unknown): void {
  // Defining costs 10 us, assigning nothing that shows (Node 26.10).
  if (name !== '__proto__') object[name] = value
  else
    Object.defineProperty(object, name, {
      value,
      enumerable: true,
      configurable: true,
      writable: true,
    })
}
