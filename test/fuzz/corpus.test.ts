// Every input of the corpus, and as many new ones as the suite has time for: the same ones each time,
// so that it does not fail now and then. `npm run fuzz` looks for others.
import { test } from 'node:test'
import { checkInput, corpusOf, type Finding, inputsOf, shrunk } from './target.ts'
import { TARGETS } from './targets.ts'

const SEED = 20_261_129

for (const target of TARGETS) {
  test(`hostile ${target.name}: promises are kept, for the corpus and ${target.runs} mutations (seed ${SEED})`, async () => {
    const corpus = corpusOf(target)
    for (const input of corpus) await checkInput(target, input)
    let left = target.runs
    for (const input of inputsOf(target, corpus, SEED)) {
      if (left-- === 0) break
      await checkInput(target, input).catch(async (finding: Finding) => {
        throw await shrunk(target, finding)
      })
    }
  })
}
