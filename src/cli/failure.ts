// How a command says that it could not do its work: problems on standard error, each with what is
// wrong and what would be right, and exit code 2 where the usage was wrong, 1 where the work failed.
import type { Command } from 'commander'
import type { Problem } from '../errors.ts'
import { harmlessSentence } from '../observe/harmless.ts'

/** Thrown inside a command; `reporting` turns it into text and an exit code. */
export class CommandFailure extends Error {
  readonly exitCode: 1 | 2
  readonly problems: readonly Problem[]

  constructor(exitCode: 1 | 2, ...problems: readonly Problem[]) {
    super(problems.map(formatProblem).join('\n'))
    this.exitCode = exitCode
    this.problems = problems
  }
}

export const formatProblem = ({ severity, where, what, remedy }: Problem): string =>
  `${severity ?? 'error'}: ${harmlessSentence(`${where}: ${what}`)}\n  ${harmlessSentence(remedy)}`

/** Wraps the action of a command: a `CommandFailure` ends it as a sentence, not as a stack trace. */
export function reporting<A extends unknown[]>(
  action: (...args: A) => Promise<void>,
): (...args: A) => Promise<void> {
  return async (...args) => {
    try {
      await action(...args)
    } catch (error) {
      if (!(error instanceof CommandFailure)) throw error
      process.stderr.write(`${error.message}\n`)
      process.exitCode = error.exitCode
    }
  }
}

/** Wrong usage ends this command and those below it with 2; commander's own choice is 1. */
export function exitTwoOnWrongUsage(command: Command): Command {
  command.exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  for (const one of command.commands) exitTwoOnWrongUsage(one)
  return command
}

/** The problem that a failed file operation is, in words. */
export function fileProblem(error: unknown, path: string, verb: 'read' | 'written'): Problem {
  const code = (error as NodeJS.ErrnoException).code ?? ''
  const [what, remedy] = FILE_ERRORS.get(code) ?? [
    (error as Error).message,
    'see what the operating system says about this file',
  ]
  return { where: path, what: `cannot be ${verb}: ${what}`, remedy }
}

const FILE_ERRORS: ReadonlyMap<string, readonly [what: string, remedy: string]> = new Map([
  ['ENOENT', ['there is no such file or directory', 'check the path']],
  ['EACCES', ['permission denied', 'run as a user that may, or choose another directory']],
  ['EPERM', ['permission denied', 'run as a user that may, or choose another directory']],
  ['EROFS', ['the file system is read-only', 'choose another directory']],
  ['ENOSPC', ['no space is left', 'make room, or choose another directory']],
  ['ENOTDIR', ['a part of the path is a file, not a directory', 'choose another directory']],
  ['EISDIR', ['it is a directory', 'name a file']],
])
