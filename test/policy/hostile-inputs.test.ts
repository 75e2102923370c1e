// Whatever requests a policy is asked about: each has an outcome, and the next is decided as if they
// had not been, with the same fuel and in the same memory. `FUZZ_INPUTS=1000000` asks about so many.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type EvaluationOutcome, PolicyHost } from '../../src/policy/host.ts'
import { buildInput, InputError, type PolicyRequest } from '../../src/policy/input.ts'
import { wholeDocument } from '../../src/policy/projection.ts'
import { anyRequest } from './hostile-requests.ts'
import { loadMaterial, NOW_MS, request, SAMPLE_BUNDLE } from './support.ts'

const inputs = Number(process.env['FUZZ_INPUTS'] ?? 5_000)

test('hostile inputs leave later decisions as they are', { timeout: 3_600_000 }, async () => {
  const host = new PolicyHost(await loadMaterial(SAMPLE_BUNDLE))
  const { templateOf } = wholeDocument()
  const ask = (asked: PolicyRequest): EvaluationOutcome | undefined => {
    try {
      if (host.write(templateOf(asked.connection), asked)) return host.evaluateWritten(NOW_MS)
      return host.evaluate(buildInput(asked), NOW_MS)
    } catch (error) {
      if (error instanceof InputError) return undefined
      throw error
    }
  }
  const sample = request('/api/orders', { fields: ['accept', '*/*'] })
  const text = buildInput(sample)
  const state = () => ({
    values: [ask(sample), host.fuelUsed],
    text: [host.evaluate(text, NOW_MS), host.fuelUsed],
    memoryBytes: host.memoryBytes,
  })
  // Memory is once as large as the largest input makes it.
  ask(request('/', { fields: Array.from({ length: 512 }, (_, i) => `x-${i}`.repeat(80)) }))
  const before = state()
  let asked = 0
  fc.assert(
    fc.property(anyRequest, (hostile) => {
      const outcome = ask(hostile)
      asked++
      assert.notEqual(outcome?.kind, 'timeout')
      if (asked % 1_000 === 0) assert.deepEqual(state(), before)
    }),
    {
      numRuns: inputs,
      ...(process.env['FUZZ_SEED'] && { seed: Number(process.env['FUZZ_SEED']) }),
    },
  )
  assert.equal(asked, inputs)
  assert.deepEqual(state(), before)
})
