// Rules without Rego, in ghostunnel's vocabulary: who may call at all. A rule admits when each of
// its keys matches; the rules admit when one of them does. Names come from peers, so patterns are
// matched by comparison (time at most pattern times text), never by a regular expression.
import type { AllowRule } from '../config/config.ts'
import type { PeerFacts } from './input.ts'

export type PeerTest = (peer: PeerFacts) => boolean
export type PatternTest = (text: string) => boolean

/** Without any rule nobody is admitted. */
export function compileAllowRules(rules: readonly AllowRule[]): PeerTest {
  const tests = rules.map(compileRule)
  return (peer) => tests.some((test) => test(peer))
}

function compileRule({ uri, dns, cn, all }: AllowRule): PeerTest {
  const tests: PeerTest[] = []
  if (uri !== undefined) {
    const fits = compilePattern(uri, '/')
    tests.push((peer) => peer.uris.some(fits))
  }
  if (dns !== undefined) {
    // DNS names have no case (RFC 4343).
    const fits = compilePattern(dns.toLowerCase(), '.')
    tests.push((peer) => peer.dnsNames.some((name) => fits(name.toLowerCase())))
  }
  if (cn !== undefined) {
    const fits = compilePattern(cn, '.')
    tests.push((peer) => peer.commonName !== undefined && fits(peer.commonName))
  }
  // A rule that says nothing is a mistake, not an invitation.
  if (tests.length === 0) return () => all === true
  return (peer) => tests.every((test) => test(peer))
}

/**
 * `*` stands for any characters within one segment, and alone for exactly one segment that is not
 * empty; `**` as a whole segment stands for any number of segments, also none.
 */
export function compilePattern(pattern: string, separator: '/' | '.'): PatternTest {
  if (!pattern.includes('*')) return (text) => text === pattern
  const segments = pattern.split(separator)
  return (text) => {
    const parts = text.split(separator)
    return matchesSequence(
      segments.length,
      parts.length,
      (p) => segments[p] === '**',
      (p, t) => matchesSegment(segments[p] as string, parts[t] as string),
    )
  }
}

function matchesSegment(pattern: string, text: string): boolean {
  if (pattern === '*') return text !== ''
  return matchesSequence(
    pattern.length,
    text.length,
    (p) => pattern[p] === '*',
    (p, t) => pattern[p] === text[t],
  )
}

/** Glob matching: only the last "any" ever has to be extended, so nothing is tried twice over. */
function matchesSequence(
  patternLength: number,
  textLength: number,
  isAny: (p: number) => boolean,
  fits: (p: number, t: number) => boolean,
): boolean {
  let p = 0
  let t = 0
  let lastAny = -1
  let coveredTo = 0
  while (t < textLength) {
    if (p < patternLength && isAny(p)) {
      lastAny = p++
      coveredTo = t
    } else if (p < patternLength && fits(p, t)) {
      p++
      t++
    } else if (lastAny >= 0) {
      p = lastAny + 1
      t = ++coveredTo
    } else {
      return false
    }
  }
  while (p < patternLength && isAny(p)) p++
  return p === patternLength
}
