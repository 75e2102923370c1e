// The first line of a request: "METHOD SP target SP HTTP/1.x CRLF" and nothing else.
import { TOKEN_CHARACTERS } from '../field-names.ts'
import { parseTarget, type Target } from './path.ts'
import { type Rejection, rejection } from './rejection.ts'

export interface RequestLine {
  readonly kind: 'line'
  readonly method: string
  readonly target: Target
  readonly minorVersion: 0 | 1
  /** Of the line with its CRLF. */
  readonly length: number
}

export interface LineLimits {
  readonly targetBytes: number
  readonly allowAmbiguousPaths: boolean
}

/**
 * Parses the line that `text` begins with; it must be complete. No empty line before it, although
 * RFC 9112 section 2.2 suggests to skip one: it was for clients of the 1990s, and a surplus CRLF after
 * a body is better seen than skipped. No second space anywhere.
 */
export function parseRequestLine(text: string, limits: LineLimits): RequestLine | Rejection {
  const methodEnd = endOfMethod(text)
  if (methodEnd === -1) return rejection('bad_request_line')
  const targetEnd = text.indexOf(' ', methodEnd + 1)
  let minorVersion: 0 | 1 = 1
  if (targetEnd === -1 || !text.startsWith('HTTP/1.1\r\n', targetEnd + 1)) {
    const lineEnd = text.indexOf('\r\n')
    if (targetEnd === -1 || targetEnd > lineEnd) return rejection('bad_request_line')
    const version = text.slice(targetEnd + 1, lineEnd)
    if (version !== 'HTTP/1.0') {
      return rejection(VERSION.test(version) ? 'unsupported_version' : 'bad_request_line')
    }
    minorVersion = 0
  }
  if (targetEnd === methodEnd + 1) return rejection('bad_request_line')
  if (targetEnd - methodEnd - 1 > limits.targetBytes) return rejection('target_too_long')

  const method = text.slice(0, methodEnd)
  if (isUnsupported(method)) return rejection('unsupported_method')
  const target = parseTarget(method, text.slice(methodEnd + 1, targetEnd), {
    allowAmbiguous: limits.allowAmbiguousPaths,
  })
  if (target.kind === 'rejection') return target
  return { kind: 'line', method, target, minorVersion, length: targetEnd + 11 }
}

/** What is already wrong with a line of which only `text` has arrived. */
export function judgePartialLine(text: string, limits: LineLimits): Rejection | undefined {
  const methodEnd = endOfMethod(`${text} `)
  if (methodEnd === -1) return rejection('bad_request_line')
  if (methodEnd >= text.length) return undefined
  const targetEnd = text.indexOf(' ', methodEnd + 1)
  const targetBytes = (targetEnd === -1 ? text.length : targetEnd) - methodEnd - 1
  if (targetBytes > limits.targetBytes) return rejection('target_too_long')
  if (targetEnd !== -1 && text.length - targetEnd > ' HTTP/1.1\r'.length) {
    return rejection('bad_request_line')
  }
  return undefined
}

/** Where the space after a token of at most MAX_METHOD_LENGTH characters is, or -1. */
function endOfMethod(text: string): number {
  let i = 0
  while (TOKEN_CHARACTERS[text.charCodeAt(i)] === 1 && i <= MAX_METHOD_LENGTH) i++
  return i > 0 && i <= MAX_METHOD_LENGTH && text.charCodeAt(i) === 0x20 ? i : -1
}

/**
 * TRACE echoes a request to the client, with the identity fields that we add for the workload.
 * CONNECT asks for a forward proxy. A method with lower-case letters: methods are case-sensitive
 * (RFC 9110 section 9.1), but not in every workload, and a policy that names DELETE would not see
 * `delete`. Other methods are for the workload to know.
 */
function isUnsupported(method: string): boolean {
  switch (method) {
    case 'GET':
    case 'POST':
      return false
    case 'CONNECT':
    case 'TRACE':
      return true
    default:
      return method !== method.toUpperCase()
  }
}

/** The longest registered method has 17 characters (UPDATEREDIRECTREF). */
const MAX_METHOD_LENGTH = 32
const VERSION = /^HTTP\/\d\.\d$/
