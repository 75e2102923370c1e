// Why a sidecar did not start, in words and as an exit code.
import type { Problem } from '../errors.ts'

export interface StartFailure {
  readonly kind: 'failed'
  /** 2: what was configured is wrong; 1: the machine would not let it. */
  readonly exitCode: 1 | 2
  readonly problems: readonly Problem[]
}

export function bindFailure(
  where: string,
  { code, message }: { readonly code?: string | undefined; readonly message: string },
): StartFailure {
  const remedy =
    BIND_REMEDIES.get(code ?? '') ?? 'see what the operating system says about this address'
  return {
    kind: 'failed',
    exitCode: 1,
    problems: [{ where, what: `cannot be listened on: ${message}`, remedy }],
  }
}

/** Not the system's word but our own fault. */
export const threadFault = ({ message }: { readonly message: string }) =>
  ({
    kind: 'failed',
    exitCode: 1,
    problems: [
      {
        where: 'postern',
        what: `a data thread could not start: ${message}`,
        remedy: 'please report it',
      },
    ],
  }) as const

/** The system lets there be no more threads. */
export const threadRefused = ({ message }: { readonly message: string }): StartFailure => ({
  kind: 'failed',
  exitCode: 1,
  problems: [
    {
      where: 'workers',
      what: `a data thread could not be created: ${message}`,
      remedy: 'allow more threads (ulimit -u, the pids limit of the container) or more memory',
    },
  ],
})

const BIND_REMEDIES: ReadonlyMap<string, string> = new Map([
  ['EADDRINUSE', 'stop what listens there, or choose another port'],
  ['EADDRNOTAVAIL', 'choose an address of this host, or 0.0.0.0 for all'],
  ['EACCES', 'choose a port of 1024 or more, or grant CAP_NET_BIND_SERVICE'],
])
