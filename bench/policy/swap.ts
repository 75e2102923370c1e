// A thread that is given a policy as data threads are: how long its slices, its first evaluation and
// a warm one take.
import { parentPort } from 'node:worker_threads'
import { PolicyHost } from '../../src/policy/host.ts'
import type { PolicyMaterial } from '../../src/policy/material.ts'
import { SLICE_BYTES } from '../../src/proxy/succession.ts'

export interface SwapTask {
  readonly material: PolicyMaterial
  readonly input: string
}

export interface Swap {
  readonly slices: number
  readonly longestSliceMs: number
  /** The last one, which makes the instance. */
  readonly lastSliceMs: number
  readonly firstMs: number
  readonly warmMs: number
}

const WARM_EVALUATIONS = 300

parentPort?.on('message', ({ material, input }: SwapTask) => {
  const host = new PolicyHost(material)
  const slices: number[] = []
  const evaluation = () => timed(() => host.evaluate(input, 0))
  const step = () => {
    let done = false
    slices.push(timed(() => (done = host.prepare(SLICE_BYTES))))
    if (!done) return void setImmediate(step)
    const firstMs = evaluation()
    const warm = Array.from({ length: WARM_EVALUATIONS }, evaluation).sort((a, b) => a - b)
    const swap: Swap = {
      slices: slices.length,
      longestSliceMs: Math.max(...slices),
      lastSliceMs: slices.at(-1) ?? 0,
      firstMs,
      warmMs: warm[WARM_EVALUATIONS / 2] as number,
    }
    parentPort?.postMessage(swap)
  }
  step()
})

function timed(work: () => unknown): number {
  const start = performance.now()
  work()
  return performance.now() - start
}
