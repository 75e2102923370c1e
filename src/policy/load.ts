// The activation gate: turns the files of a bundle into a policy that will answer, or says
// everything that keeps it from being one.
import type { Problem } from '../errors.ts'
import type { PolicyMaterial } from './material.ts'

export interface PolicySource {
  /** For messages: where the bundle came from. */
  readonly file: string
  /** Names without a leading slash. */
  readonly entries: ReadonlyMap<string, Buffer>
  /** SHA-256 of what was read, lower-case hex. */
  readonly digest: string
}

export interface LoadOptions {
  /** Absent: the only entrypoint of the manifest, or `envoy/authz/allow`. */
  readonly entrypoint: string | undefined
  /** Loop iterations that one evaluation may use. */
  readonly fuel: number
  readonly memoryBytes: number
}

export type LoadedPolicy =
  | {
      readonly kind: 'policy'
      readonly material: PolicyMaterial
      readonly warnings: readonly Problem[]
    }
  | { readonly kind: 'problems'; readonly problems: readonly Problem[] }

export function loadPolicy(_source: PolicySource, _options: LoadOptions): Promise<LoadedPolicy> {
  throw new Error('not built yet')
}
