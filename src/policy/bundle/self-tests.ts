// Cases that travel with a bundle, in its manifest under `metadata.postern.tests`: a policy that does
// not decide them as its author said does not go into force. The manifest is part of what is signed,
// and unlike data it is no input of the policy.
import { isDeepStrictEqual } from 'node:util'
import type { Problem } from '../../errors.ts'
import { RegoObject, type RegoValue, writeValue } from '../builtins/value.ts'
import { type EvaluationOutcome, PolicyHost } from '../host.ts'
import type { PolicyMaterial } from '../material.ts'
import { readResult } from '../result.ts'
import { BundleError } from './archive.ts'

export interface SelfTest {
  readonly name: string
  /** The input document as JSON text. */
  readonly input: string
  /** Whether the request is allowed, or the whole result as JSON text. */
  readonly expect: boolean | string
}

/**
 * @param metadata of the manifest
 * @throws BundleError
 */
export function readSelfTests(metadata: RegoValue | undefined): readonly SelfTest[] {
  const own = metadata instanceof RegoObject ? metadata.get('postern') : undefined
  const tests = own instanceof RegoObject ? own.get('tests') : undefined
  if (tests === undefined) return []
  if (!Array.isArray(tests)) throw wrongTest('is not a list')
  if (tests.length > MOST_TESTS) throw wrongTest(`has more than ${MOST_TESTS} cases`)
  return tests.map((test, at) => readSelfTest(test, `[${at}]`))
}

function readSelfTest(test: RegoValue, at: string): SelfTest {
  if (!(test instanceof RegoObject)) throw wrongTest(`${at} is not an object`)
  const keys = [...test.entries()].map(([key]) => String(key))
  const unknown = keys.find((key) => !KEYS.includes(key))
  if (unknown !== undefined) throw wrongTest(`${at} has ${JSON.stringify(unknown)}`)
  const [name, input, expect] = KEYS.map((key) => test.get(key))
  if (typeof name !== 'string' || name === '') throw wrongTest(`${at} has no name`)
  if (!(input instanceof RegoObject)) throw wrongTest(`${at} has no object as its input`)
  if (typeof expect === 'boolean') return { name, input: writeValue(input), expect }
  if (!(expect instanceof RegoObject))
    throw wrongTest(`${at} expects neither a boolean nor a result`)
  return { name, input: writeValue(input), expect: writeValue(expect) }
}

const KEYS: readonly string[] = ['name', 'input', 'expect']
const MOST_TESTS = 1_000

const wrongTest = (what: string): BundleError =>
  new BundleError(
    `.manifest: metadata.postern.tests ${what}`,
    'write each case as {"name": …, "input": {…}, "expect": true, false or {the result}}',
  )

/** @param timeMs what the policy takes for now; the same for every case. */
export function runSelfTests(
  tests: readonly SelfTest[],
  material: PolicyMaterial,
  timeMs: number,
): Problem[] {
  if (tests.length === 0) return []
  const host = new PolicyHost(material)
  return tests.flatMap((test) => {
    const outcome = host.evaluate(test.input, timeMs)
    if (fits(test.expect, outcome)) return []
    return {
      where: material.file,
      what: `its own test ${show(test.name)} fails: expected ${expected(test.expect)}, got ${got(outcome)}`,
      remedy: 'correct the policy, or the case in metadata.postern.tests of .manifest',
    }
  })
}

function fits(expect: SelfTest['expect'], outcome: EvaluationOutcome): boolean {
  if (outcome.kind !== 'result') return false
  if (typeof expect === 'boolean') {
    return readResult(outcome.text).kind === (expect ? 'allow' : 'deny')
  }
  return isDeepStrictEqual(JSON.parse(outcome.text), JSON.parse(expect))
}

const expected = (expect: SelfTest['expect']): string =>
  typeof expect === 'string' ? short(expect) : expect ? 'allowed' : 'denied'

function got(outcome: EvaluationOutcome): string {
  switch (outcome.kind) {
    case 'result':
      return short(outcome.text)
    case 'timeout':
      return `a timeout: it used up its ${outcome.what}`
    case 'error':
      return `an error: ${outcome.reason}`
    case 'too_large':
      return 'nothing: the input is too large'
    case 'undefined':
      return 'undefined'
  }
}

const short = (text: string): string => (text.length <= 300 ? text : `${text.slice(0, 300)}…`)
const show = (name: string): string => JSON.stringify(short(name))
