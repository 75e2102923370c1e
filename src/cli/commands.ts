// Every command with its sentence; the list of `postern --help` and of the reference. Loaded only
// when it is asked for: `run` must not pay for the development CA.
import type { Command } from 'commander'
import type { Environment } from './options.ts'

export const COMMANDS: readonly Entry[] = [
  { name: 'run', sentence: 'run the sidecar', load: () => import('./run.ts') },
  {
    name: 'check',
    sentence: 'load and check everything that `run` would, and open no port',
    load: () => import('./check.ts'),
  },
  {
    name: 'demo',
    sentence: 'see one request allowed and one denied, on nothing but this package',
    load: () => import('./demo.ts'),
  },
  {
    name: 'eval',
    sentence: 'one decision of a policy about an input document',
    load: () => import('./eval.ts'),
  },
  {
    name: 'explain',
    sentence: 'why a decision came out as it did',
    load: () => import('./explain.ts'),
  },
  {
    name: 'replay',
    sentence: 'what another policy would change about recorded decisions',
    load: () => import('./replay.ts'),
  },
  {
    name: 'pki',
    sentence: 'a development CA: init, issue, revoke, crl',
    load: () => import('./pki.ts'),
  },
  {
    name: 'call',
    sentence: 'one request with an identity of the development CA',
    load: () => import('./call.ts'),
  },
  {
    name: 'inject',
    sentence: 'add the sidecar to Kubernetes workloads',
    load: () => import('./inject.ts'),
  },
]

export interface Entry {
  readonly name: string
  readonly sentence: string
  readonly load: () => Promise<{ command(env: Environment): Command }>
}
