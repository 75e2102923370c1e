// One kind of hostile input: where its known inputs come from, how they are changed, and what must
// hold for every one. The corpus, test/fuzz/corpus/NAME/, has every input that ever showed a mistake
// and those that reached something new; whoever finds another adds it there.
import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { bytesMutator, MOST_BYTES, type Mutator } from './mutate.ts'
import { type Random, randomOf } from './random.ts'

export interface Target {
  readonly name: string
  /** Inputs in the test suite; about two seconds' worth. */
  readonly runs: number
  /** Good and nearly good inputs, beside the corpus. */
  readonly seeds: () => readonly (Buffer | string)[]
  /** Words that this format's readers look for. */
  readonly dictionary?: readonly string[]
  readonly mutators?: readonly Mutator[]
  /** Throws where a promise is not kept. */
  readonly check: (input: Buffer) => void | Promise<void>
}

export function corpusOf({ name, seeds }: Target): Buffer[] {
  const directory = directoryOf(name)
  const names = existsSync(directory) ? readdirSync(directory).sort() : []
  const kept = names.map((one) => readFileSync(new URL(one, directory)))
  return [...kept, ...seeds().map((seed) => Buffer.from(seed as string, 'latin1'))]
}

/** Writes an input into the corpus and says where. */
export function keep(name: string, input: Buffer, kind: 'found' | 'new'): URL {
  const directory = directoryOf(name)
  mkdirSync(directory, { recursive: true })
  const file = new URL(`${kind}-${hash('sha1', input).slice(0, 12)}`, directory)
  writeFileSync(file, input)
  return file
}

const directoryOf = (name: string): URL => new URL(`corpus/${name}/`, import.meta.url)

/** Inputs without end: known ones first, each changed in one place and up to eight. */
export function* inputsOf(target: Target, corpus: readonly Buffer[], seed: number) {
  const bytes = bytesMutator(target.dictionary ?? [])
  const own = target.mutators ?? []
  for (let number = 0; ; number++) {
    const random = randomOf(seed + number)
    let input = random.pick(corpus)
    for (let left = 1 + random.below(random.oneIn(3) ? 8 : 2); left > 0; left--) {
      const mutator = own.length > 0 && random.oneIn(2) ? random.pick(own) : bytes
      input = mutated(mutator, input, random, random.pick(corpus)).subarray(0, MOST_BYTES)
    }
    yield input
  }
}

/** What is nested deeper than a mutator can go down stays as it is. */
function mutated(mutator: Mutator, input: Buffer, random: Random, other: Buffer): Buffer {
  try {
    return mutator(input, random, other)
  } catch (error) {
    if (error instanceof RangeError) return input
    throw error
  }
}

export class Finding extends Error {
  readonly input: Buffer
  constructor(target: string, input: Buffer, cause: unknown) {
    const text = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)
    super(
      `${target}: ${text}\n\nthe input, for node test/fuzz/fuzz.ts ${target} FILE:\n` +
        `base64 -d > FILE <<< ${input.toString('base64')}\n${JSON.stringify(input.toString('latin1'))}`,
      { cause },
    )
    this.input = input
  }

  /** Its first line, by which two findings are taken for one. */
  get reason(): string {
    return String((this.cause as Error)?.message).split('\n')[0]!
  }
}

/**
 * Checks one input, and that the processor time it takes is bounded by its length.
 * @throws Finding
 */
export async function checkInput(target: Target, input: Buffer): Promise<void> {
  try {
    for (let attempt = 1; ; attempt++) {
      const before = process.threadCpuUsage()
      await target.check(Buffer.from(input))
      const { user, system } = process.threadCpuUsage(before)
      if (user + system < MOST_CPU_US) return
      // Once may be a compiler at work; not four times.
      assert.ok(attempt < 4, `${user + system} µs of processor time for ${input.length} bytes`)
    }
  } catch (error) {
    throw new Finding(target.name, input, error)
  }
}

/** For up to `MOST_BYTES`: hundreds of times what any reader takes that looks at each byte once. */
const MOST_CPU_US = 250_000

/** A smaller input that fails with the same first line, by leaving out ever smaller pieces. */
export async function shrunk(target: Target, finding: Finding): Promise<Finding> {
  let best = finding
  for (let size = best.input.length >> 1; size >= 1; size >>= 1) {
    for (let at = 0; at + size <= best.input.length; ) {
      const { input } = best
      const without = Buffer.concat([input.subarray(0, at), input.subarray(at + size)])
      const smaller = await checkInput(target, without).then(
        () => undefined,
        (error: Finding) => (error.reason === finding.reason ? error : undefined),
      )
      if (smaller === undefined) at += size
      else best = smaller
    }
  }
  return best
}
