// What a development CA has issued and revoked: two files that only ever grow, one JSON object a
// line, so that two commands at the same time cannot undo each other's work.
import { join } from 'node:path'
import { z } from 'zod'
import { CommandFailure } from '../failure.ts'
import { appendLine, PUBLIC, readTextIfThere } from './files.ts'

export type Issued = z.infer<typeof ISSUED>
export type Revoked = z.infer<typeof REVOKED>

export class Ledger {
  readonly #directory: string

  constructor(directory: string) {
    this.#directory = directory
  }

  issued(): Promise<Issued[]> {
    return readLines(join(this.#directory, 'issued.ndjson'), ISSUED)
  }

  revoked(): Promise<Revoked[]> {
    return readLines(join(this.#directory, 'revoked.ndjson'), REVOKED)
  }

  addIssued(entry: Issued): Promise<void> {
    return appendLine(join(this.#directory, 'issued.ndjson'), JSON.stringify(entry), PUBLIC)
  }

  addRevoked(entry: Revoked): Promise<void> {
    return appendLine(join(this.#directory, 'revoked.ndjson'), JSON.stringify(entry), PUBLIC)
  }
}

/** `0A:1b` and `a1b` are the same number: lower case, no separators, no leading zeros. */
export function normalSerial(text: string): string | undefined {
  const hex = text.replaceAll(':', '').toLowerCase()
  return /^[0-9a-f]{1,40}$/.test(hex) ? hex.replace(/^0+(?=.)/, '') : undefined
}

async function readLines<T>(path: string, entry: z.ZodType<T>): Promise<T[]> {
  const lines = ((await readTextIfThere(path)) ?? '').split('\n')
  return lines
    .map((line, index) => ({ line, where: `${path} line ${index + 1}` }))
    .filter(({ line }) => line !== '')
    .map(({ line, where }) => {
      const parsed = entry.safeParse(parseJson(line))
      if (parsed.success) return parsed.data
      throw new CommandFailure(1, {
        where,
        what: 'is not a record that this command wrote',
        remedy: 'repair or remove the line; what it revoked has to be revoked again',
      })
    })
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

const ISSUED = z.object({
  serial: z.string(),
  name: z.string(),
  uri: z.string().optional(),
  notAfter: z.iso.datetime(),
})

const REVOKED = z.object({ serial: z.string(), at: z.iso.datetime() })
