// Decides what is a secret in logs and decision records. One home for it: names (headers, query
// parameters, log fields), and values that are secrets wherever they stand.

export const REDACTED = '[redacted]'

/** Replaces secrets by `REDACTED`; anything it is unsure about it replaces. */
export interface Redactor {
  isSecretName(name: string): boolean
  /** A header's value, or `REDACTED`, or the value with the secret query parameters replaced. */
  header(name: string, value: string): string
  /** Free text: `REDACTED` when it looks like a credential. */
  text(text: string): string
  /** Replaces the values of secret query parameters of a request target or URL. */
  target(target: string): string
  /** A copy of a log record's fields; depth and width are bounded, errors become plain. */
  fields(fields: object): Record<string, unknown>
}

const SECRET_NAME =
  /authorization|cookie|token|secret|passw|credential|api[-_]?key|private[-_]?key|signature|jwt|^sig$/i

// Credentials by their look: an Authorization value under another name, a JWT, a private key, and
// Kubernetes' bearer token inside sec-websocket-protocol. Linear in time on any input: clients write
// what these expressions read, so every repetition starts only where its class cannot match before.
const SECRET_VALUE =
  /^(?:bearer|basic|digest|negotiate|dpop) |(?<![\w-])eyJ[\w-]{8,}\.[\w-]+\.|bearer\.authorization|-----BEGIN [A-Z ]*PRIVATE KEY/i

/** `extraNames`: header or parameter names of the configuration, any case. */
export function createRedactor(extraNames: readonly string[] = []): Redactor {
  const extra = new Set(extraNames.map((name) => name.toLowerCase()))
  const isSecretName = (name: string): boolean =>
    SECRET_NAME.test(name) || extra.has(name.toLowerCase())

  const header = (name: string, value: string): string => {
    if (isSecretName(name) || SECRET_VALUE.test(value)) return REDACTED
    return value.includes('=') ? target(value) : value
  }

  const target = (text: string): string => {
    const start = text.indexOf('?')
    if (start < 0) return text
    const query = text.slice(start + 1).replace(/[^&;#]+/g, (pair) => {
      const equals = pair.indexOf('=')
      if (equals < 0) return SECRET_VALUE.test(pair) ? REDACTED : pair
      const secret =
        isSecretName(decoded(pair.slice(0, equals))) ||
        SECRET_VALUE.test(decoded(pair.slice(equals + 1)))
      return secret ? `${pair.slice(0, equals + 1)}${REDACTED}` : pair
    })
    return text.slice(0, start + 1) + query
  }

  const value = (one: unknown, depth: number): unknown => {
    if (typeof one === 'string') return SECRET_VALUE.test(one) ? REDACTED : one
    if (typeof one !== 'object' || one === null) return one
    if (depth === 0) return '[deeper]'
    if (one instanceof Error) {
      const { name, message, stack, cause } = one
      return walk(
        { name, message, code: (one as NodeJS.ErrnoException).code, stack, cause },
        depth - 1,
      )
    }
    if (Array.isArray(one)) return one.slice(0, MAX_WIDTH).map((item) => value(item, depth - 1))
    return walk(one, depth - 1)
  }

  const walk = (fields: object, depth: number): Record<string, unknown> => {
    const copy: Record<string, unknown> = Object.create(null)
    for (const [name, one] of Object.entries(fields).slice(0, MAX_WIDTH)) {
      copy[name] = isSecretName(name) ? REDACTED : value(one, depth)
    }
    return copy
  }

  return {
    isSecretName,
    header,
    text: (text) => (SECRET_VALUE.test(text) ? REDACTED : text),
    target,
    fields: (fields) => walk(fields, MAX_DEPTH),
  }
}

const MAX_DEPTH = 5
const MAX_WIDTH = 200

function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}
