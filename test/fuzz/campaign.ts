// How targets run that make their inputs anew, as bundles are made: a fixed number of cases in the test
// suite, and as long as somebody likes with `npm run fuzz -- TARGET`. A failure prints seed and path;
// `FUZZ_SEED=… FUZZ_PATH=…` repeats it. Those that change known inputs are in targets.ts.
import { test } from 'node:test'
import fc from 'fast-check'

export interface Effort {
  /** Cases in the test suite. */
  readonly runs: number
}

/** One target: `property` must hold for everything that its arbitraries give. */
export function fuzz<T>(
  name: string,
  { runs }: Effort,
  property: fc.IProperty<T> | fc.IAsyncProperty<T>,
): void {
  const { FUZZ_SECONDS: seconds, FUZZ_SEED: seed, FUZZ_PATH: path } = process.env
  test(name, { timeout: (Number(seconds ?? 0) + 60) * 1000 }, async () => {
    await fc.assert(property as fc.IAsyncProperty<T>, {
      numRuns: runs,
      ...(seconds === undefined
        ? {}
        : { numRuns: 2 ** 31 - 1, interruptAfterTimeLimit: Number(seconds) * 1000 }),
      ...(seed === undefined ? {} : { seed: Number(seed) }),
      ...(path === undefined ? {} : { path }),
    })
  })
}
