// The wall clock of a sidecar, in the hands of a test. Its process loads this file before anything else,
// in every thread; from then on `Date` is off by the milliseconds that stand in a file.
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const FILE = 'POSTERN_TEST_CLOCK'

export interface MovedClock {
  /** For `startSidecar`. */
  readonly env: Record<string, string>
  /** From now on the clock shows so much more than the real one; negative: less. */
  move(ms: number): Promise<void>
}

export async function movedClock(directory: string): Promise<MovedClock> {
  const file = join(directory, 'clock')
  const move = (ms: number): Promise<void> => writeFile(file, `${ms}`.padEnd(20))
  await move(0)
  return { env: { NODE_OPTIONS: `--import=${import.meta.url}`, [FILE]: file }, move }
}

const file = process.env[FILE]
if (file !== undefined) {
  const RealDate = Date
  // Rewritten in place: a reader may find the file empty for a moment.
  let offsetMs = 0
  const now = (): number => {
    const text = readFileSync(file, 'utf8')
    if (text !== '') offsetMs = Number(text)
    return RealDate.now() + offsetMs
  }
  globalThis.Date = class extends RealDate {
    constructor(...given: ConstructorParameters<typeof RealDate> | []) {
      if (given.length === 0) super(now())
      else super(...given)
    }

    static override now(): number {
      return now()
    }
  } as DateConstructor
}
