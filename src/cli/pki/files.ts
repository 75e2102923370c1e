// Files that appear whole or not at all: a reader, or a watching sidecar, never sees half of one.
import { randomBytes } from 'node:crypto'
import { open, readFile, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { CommandFailure, fileProblem } from '../failure.ts'

/** For keys: nobody but the owner. */
export const PRIVATE = 0o600
export const PUBLIC = 0o644

/** Replaces `path` by a file with this text and mode. */
export async function writeWhole(path: string, text: string, mode: number): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}`)
  try {
    await writeNew(temporary, text, mode)
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {})
    throw new CommandFailure(1, fileProblem(error, path, 'written'))
  }
}

/** Creates `path`; throws the system error `EEXIST` when it is there already. */
export async function writeNew(path: string, text: string, mode: number): Promise<void> {
  const file = await open(path, 'wx', mode)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Adds a line; one write to a file opened for appending is not torn by another one. */
export async function appendLine(path: string, line: string, mode: number): Promise<void> {
  try {
    const file = await open(path, 'a', mode)
    try {
      await file.write(`${line}\n`)
      await file.sync()
    } finally {
      await file.close()
    }
  } catch (error) {
    throw new CommandFailure(1, fileProblem(error, path, 'written'))
  }
}

export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new CommandFailure(1, fileProblem(error, path, 'read'))
  }
}

/** Undefined where there is no such file. */
export async function readTextIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new CommandFailure(1, fileProblem(error, path, 'read'))
  }
}
