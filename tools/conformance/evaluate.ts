// Runs one compiled case on the host of Postern, metered as any policy, and compares.
import { compareValues } from '../../src/policy/builtins/compare.ts'
import { BUILTINS, REFUSED_BUILTINS } from '../../src/policy/builtins/table.ts'
import { RegoObject, type RegoValue, readJson } from '../../src/policy/builtins/value.ts'
import { type EvaluationOutcome, PolicyHost } from '../../src/policy/host.ts'
import { memoryImage } from '../../src/policy/image.ts'
import { PLAIN_INPUT } from '../../src/policy/input-settings.ts'
import { inspectModule } from '../../src/policy/inspect.ts'
import { meterModule } from '../../src/policy/rewrite.ts'
import type { Case, Want } from './cases.ts'
import type { Asked, Compiled } from './compile.ts'

export type Verdict =
  | { readonly kind: 'pass' }
  | { readonly kind: 'fail'; readonly reason: string }
  /** The policy would not be activated. */
  | { readonly kind: 'refused'; readonly builtin: string }

const PASS: Verdict = { kind: 'pass' }
/** The defaults of `policy.fuel` and `policy.memoryBytes`. */
const FUEL = 2_000_000
const MEMORY_BYTES = 64 * 1024 * 1024

export async function evaluateCase(one: Case, compiled: Compiled): Promise<Verdict> {
  if (compiled.kind === 'refused') return fail(`opa: ${compiled.reason.trim()}`)
  const { wasm, entrypoint, asked } = compiled
  // No text at all is no input, as where OPA is asked without one.
  const outcome = await evaluateModule(wasm, entrypoint, one.dataJson, one.inputJson ?? '')
  if (outcome.kind === 'refused') return outcome
  if (outcome.kind === 'unusable') return fail(outcome.reason)
  return judge(outcome, asked, one.want)
}

export type ModuleOutcome =
  | EvaluationOutcome
  | { readonly kind: 'refused'; readonly builtin: string }
  /** The policy would not be activated for another reason. */
  | { readonly kind: 'unusable'; readonly reason: string }

export async function evaluateModule(
  wasm: Buffer,
  entrypoint: string,
  dataJson: string,
  input: string,
): Promise<ModuleOutcome> {
  const metered = meterModule(wasm)
  if (metered.kind === 'refused') return unusable(`not metered: ${metered.reason}`)
  const module = await WebAssembly.compile(metered.bytes)
  const inspected = inspectModule(module)
  if (inspected.kind === 'refused') return unusable(inspected.reason)
  const { entrypoints, builtins } = inspected.facts
  const names = [...builtins.values()]
  const refused = names.find((name) => REFUSED_BUILTINS.has(name))
  if (refused !== undefined) return { kind: 'refused', builtin: refused }
  const missing = names.find((name) => !BUILTINS.has(name))
  if (missing !== undefined) return unusable(`builtin ${missing} is not supplied`)
  const host = new PolicyHost({
    module,
    entrypoint,
    entrypointId: entrypoints.get(entrypoint) as number,
    builtins: Object.fromEntries(builtins),
    reads: 'all',
    input: PLAIN_INPUT,
    data: memoryImage(module, dataJson, MEMORY_BYTES),
    revision: '',
    digest: '',
    file: entrypoint,
    fuel: FUEL,
    memoryBytes: MEMORY_BYTES,
  })
  return host.evaluate(input, Date.now())
}

function unusable(reason: string): ModuleOutcome {
  return { kind: 'unusable', reason }
}

function judge(outcome: EvaluationOutcome, asked: Asked, want: Want): Verdict {
  if (outcome.kind !== 'result' && outcome.kind !== 'undefined') {
    const said = outcome.kind === 'error' ? outcome.reason : JSON.stringify(outcome)
    const conflict = said.includes('var assignment conflict') || said.includes('insert conflict')
    return want.kind === 'conflict' && conflict ? PASS : fail(said)
  }
  const bindings = bindingsOf(outcome, asked)
  const shown = () => (outcome.kind === 'result' ? outcome.text : 'undefined')
  switch (want.kind) {
    case 'conflict':
      return fail(`no conflict, but ${shown()}`)
    case 'defined':
      return bindings.length > 0 === want.defined ? PASS : fail(`got ${shown()}`)
    case 'bindings': {
      const expected = readJson(want.json) as readonly RegoValue[]
      return sameBindings(expected, bindings) ? PASS : fail(`got ${shown()}, not ${want.json}`)
    }
  }
}

function bindingsOf(outcome: EvaluationOutcome, asked: Asked): readonly RegoValue[] {
  if (outcome.kind !== 'result') return []
  const value = readJson(outcome.text)
  if (asked.kind === 'bindings') return value as readonly RegoValue[]
  const binding = new RegoObject()
  binding.set(asked.variable, value)
  return [binding]
}

/**
 * Bindings are a set. The host asks for JSON, where a set is an array in the order of a hash table:
 * so arrays in it are compared without their order when nothing else differs.
 */
function sameBindings(expected: readonly RegoValue[], actual: readonly RegoValue[]): boolean {
  return (
    compareValues(asSet(expected), asSet(actual)) === 0 ||
    compareValues(asSet(expected.map(anyOrder)), asSet(actual.map(anyOrder))) === 0
  )
}

function asSet(values: readonly RegoValue[]): readonly RegoValue[] {
  return values
    .toSorted(compareValues)
    .filter((one, i, list) => i === 0 || compareValues(one, list[i - 1] as RegoValue) !== 0)
}

function anyOrder(value: RegoValue): RegoValue {
  if (Array.isArray(value)) return value.map(anyOrder).sort(compareValues)
  if (!(value instanceof RegoObject)) return value
  const result = new RegoObject()
  for (const [key, one] of value.entries()) result.set(key, anyOrder(one))
  return result
}

function fail(reason: string): Verdict {
  return { kind: 'fail', reason }
}
