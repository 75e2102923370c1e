// What a policy says about an input document that exists as text: from a file, or from a decision of
// the past. The same host and the same reading of results as for a request; no Permit comes of it.
import { reasonOf } from './engine.ts'
import { PolicyHost } from './host.ts'
import type { PolicyMaterial } from './material.ts'
import { readResult } from './result.ts'

export interface Judgement {
  readonly outcome: 'allow' | 'deny' | 'error' | 'timeout'
  /** JSON text; absent when there was none. */
  readonly result?: string
  /** For the operator. */
  readonly error?: string
  readonly evalNs: number
}

/** @param input JSON text of an object. @param timeMs what the policy takes for now. */
export function judge(host: PolicyHost, input: string, timeMs: number): Judgement {
  const startMs = performance.now()
  const evaluated = host.evaluate(input, timeMs)
  const evalNs = Math.round((performance.now() - startMs) * 1e6)
  switch (evaluated.kind) {
    case 'too_large':
      return { outcome: 'deny', error: 'the input document is too large', evalNs }
    case 'result': {
      const { text: result } = evaluated
      const read = readResult(result)
      return read.kind === 'invalid'
        ? { outcome: 'error', result, error: read.reason, evalNs }
        : { outcome: read.kind, result, evalNs }
    }
    default: {
      const outcome = evaluated.kind === 'timeout' ? 'timeout' : 'error'
      return { outcome, error: reasonOf(evaluated), evalNs }
    }
  }
}

/** One host for each policy, for as long as the policy exists. */
export class HostPool {
  readonly #hosts = new WeakMap<PolicyMaterial, PolicyHost>()

  hostOf(material: PolicyMaterial): PolicyHost {
    const known = this.#hosts.get(material)
    if (known !== undefined) return known
    const host = new PolicyHost(material)
    this.#hosts.set(material, host)
    return host
  }
}
