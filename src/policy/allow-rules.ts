// Rules without Rego, in ghostunnel's vocabulary: who may call at all. A rule admits when each of
// its keys matches; the rules admit when one of them does.
import type { AllowRule } from '../config/config.ts'
import { compilePattern } from '../pattern.ts'
import type { PeerFacts } from './input.ts'

export type PeerTest = (peer: PeerFacts) => boolean

/** Without any rule nobody is admitted. */
export function compileAllowRules(rules: readonly AllowRule[]): PeerTest {
  const tests = rules.map(compileRule)
  // A client without a certificate has no principal, and every accepted certificate gives one.
  return (peer) => peer.principal !== '' && tests.some((test) => test(peer))
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
