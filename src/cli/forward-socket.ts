// Whether the UNIX socket of the workload can be one. It may be still to come: a sidecar starts first.
import { type Stats, statSync } from 'node:fs'
import type { Forward } from '../config/config.ts'
import type { Problem } from '../errors.ts'

export function forwardSocketProblem({ address }: Forward): Problem | undefined {
  if (address.kind !== 'unix') return undefined
  const { path } = address
  const about = { where: 'inbound.forward', remedy: 'name the socket that the workload listens on' }
  let facts: Stats | undefined
  try {
    facts = statSync(path, { throwIfNoEntry: false })
  } catch (error) {
    return {
      ...about,
      what: `cannot be looked at: ${(error as Error).message}`,
      severity: 'warning',
    }
  }
  if (facts === undefined || facts.isSocket()) return undefined
  if (facts.isDirectory()) return { ...about, what: `${path} is a directory, not a socket` }
  // A workload that starts removes what is in its way.
  return { ...about, what: `${path} is a file, not a socket`, severity: 'warning' }
}
