import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Generation } from '../../src/proxy/generation.ts'
import { SLICE_BYTES, Succession } from '../../src/proxy/succession.ts'
import type { Snapshot } from '../../src/threads.ts'

interface Like {
  readonly generation: number
  readonly trust?: number
  /** Number of the trust bundles. */
  readonly bundles?: number
  /** Name of the policy, and how many slices its data has. */
  readonly policy?: { readonly digest: string; readonly slices: number }
}

/** Generations of which only what a succession looks at is there. */
function world(first: Like) {
  const asked: number[] = []
  const published: string[] = []
  const steps: (() => void)[] = []
  const faults: unknown[] = []
  const snapshotOf = ({ trust = 1, bundles = 1, ...like }: Like) => {
    const material = { generation: trust, bundleGeneration: bundles }
    return { allow: [], ...like, trust: material } as unknown as Snapshot
  }
  const create = (snapshot: Snapshot, before: readonly Generation[]): Generation => {
    const { policy } = snapshot as unknown as Like
    const trust = snapshot.trust.generation
    if (trust === 13) throw new Error('no such trust')
    const like = before.find((one) => one.snapshot.policy?.digest === policy?.digest)
    const engine = like?.engine ?? { left: policy?.slices ?? 0 }
    return {
      snapshot,
      verifier: trust,
      engine,
      prepare: (bytes: number) => {
        asked.push(bytes)
        const still = engine as unknown as { left: number }
        return --still.left <= 0
      },
    } as unknown as Generation
  }
  const succession = new Succession(create(snapshotOf(first), []), {
    create,
    publish: ({ snapshot, verifier }, whole) => {
      const { generation, policy } = snapshot
      published.push(
        `${generation} trust ${verifier} ${policy?.digest}${whole ? '' : ' meanwhile'}`,
      )
    },
    fault: (error) => faults.push(error),
    later: (step) => steps.push(step),
  })
  const turn = () => {
    for (const step of steps.splice(0)) step()
  }
  const follow = (like: Like) => succession.follow(snapshotOf(like))
  return { follow, turn, steps, published, asked, faults }
}

const SMALL = { digest: 'small', slices: 1 }
const LARGE = { digest: 'large', slices: 4 }

test('what is ready at once is in force at once', () => {
  const { follow, published, steps } = world({ generation: 1 })
  follow({ generation: 2, policy: SMALL })
  assert.deepEqual(published, ['2 trust 1 small'])
  assert.equal(steps.length, 0)
})

test('much data is copied a slice each turn, and then in force', () => {
  const { follow, turn, published, asked } = world({ generation: 1, policy: SMALL })
  follow({ generation: 2, policy: LARGE })
  turn()
  turn()
  assert.deepEqual(published, [])
  turn()
  assert.deepEqual(published, ['2 trust 1 large'])
  assert.deepEqual(asked, [SLICE_BYTES, SLICE_BYTES, SLICE_BYTES, SLICE_BYTES])
})

test('a revocation does not wait for the data of a policy', () => {
  const { follow, turn, published } = world({ generation: 1, policy: SMALL })
  follow({ generation: 2, trust: 2, policy: LARGE })
  assert.deepEqual(published, ['1 trust 2 small meanwhile'])
  for (let i = 0; i < 4; i++) turn()
  assert.deepEqual(published.slice(1), ['2 trust 2 large'])
})

test('whom new bundles let in, the policy that came with them decides about, and none before it', () => {
  const { follow, turn, published } = world({ generation: 1, policy: SMALL })
  follow({ generation: 2, trust: 2, bundles: 2, policy: LARGE })
  turn()
  assert.deepEqual(published, [])
  // Nor does what comes next bring them in by the back door.
  follow({ generation: 3, trust: 3, bundles: 2, policy: LARGE })
  for (let i = 0; i < 4; i++) turn()
  assert.deepEqual(published, ['3 trust 3 large'])
  follow({ generation: 4, trust: 4, bundles: 3, policy: LARGE })
  assert.deepEqual(published.slice(1), ['4 trust 4 large'])
})

test('the newest wins, and keeps what was copied for the same policy', () => {
  const { follow, turn, published, asked } = world({ generation: 1, policy: SMALL })
  follow({ generation: 2, policy: LARGE })
  turn()
  follow({ generation: 3, trust: 2, policy: LARGE })
  turn()
  assert.deepEqual(published, ['1 trust 2 small meanwhile', '3 trust 2 large'])
  assert.equal(asked.length, 4)
  for (let i = 0; i < 4; i++) turn()
  assert.equal(published.length, 2)
})

test('back to the policy in force while another is made ready', () => {
  const { follow, turn, published } = world({ generation: 1, policy: SMALL })
  follow({ generation: 2, policy: LARGE })
  follow({ generation: 3, policy: SMALL })
  for (let i = 0; i < 4; i++) turn()
  assert.deepEqual(published, ['3 trust 1 small'])
})

test('a generation that cannot be made leaves the old one in force', () => {
  const { follow, published, faults } = world({ generation: 1 })
  follow({ generation: 2, trust: 13 })
  assert.equal(faults.length, 1)
  assert.deepEqual(published, [])
  follow({ generation: 3, policy: SMALL })
  assert.deepEqual(published, ['3 trust 1 small'])
})
