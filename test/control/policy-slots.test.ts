import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { Config } from '../../src/config/config.ts'
import { loadMaterials } from '../../src/control/loader.ts'
import type { PolicyPiece } from '../../src/control/policy-bundles.ts'
import { PolicySlots } from '../../src/control/policy-slots.ts'
import { Reloader } from '../../src/control/reloader.ts'
import type { Snapshot } from '../../src/threads.ts'
import { materials } from './materials.ts'

/** `data`: of a further bundle. */
const piece = (bundle: string, data = ''): PolicyPiece =>
  ({
    digest: `${bundle}${data}`,
    parts: [{ digest: bundle }, { digest: data }],
    material: { revision: `${bundle}${data}` },
    descriptor: '',
  }) as unknown as PolicyPiece

const CONFIG = { policy: { memoryBytes: 1 } } as unknown as Config
const ORDER = { by: 'operator', atMs: 5 } as const
const load = (policy: PolicyPiece, candidate?: PolicyPiece) => ({
  policy,
  ...(candidate && { candidate }),
})

/** Names of the pieces in the slots, in the order active, previous, candidate, held back. */
const names = ({ pieces }: PolicySlots) =>
  (['active', 'previous', 'candidate', 'heldBack'] as const).map((slot) => pieces[slot]?.digest)

describe('the slots of policies', () => {
  it('keep what decided before, and go back to it until the file has something else', () => {
    const slots = new PolicySlots()
    slots.settle(CONFIG, load(piece('a')))
    assert.equal(slots.rollback(ORDER).kind, 'refused')
    slots.settle(CONFIG, load(piece('b')))
    assert.deepEqual(names(slots), ['b', 'a', undefined, undefined])
    const outcome = slots.rollback(ORDER)
    assert.ok(outcome.kind === 'changed')
    assert.deepEqual([outcome.change.from.digest, outcome.change.to.digest], ['b', 'a'])
    assert.deepEqual(names(slots), ['a', undefined, undefined, 'b'])
    assert.equal(slots.rollback(ORDER).kind, 'refused')
    slots.settle(CONFIG, load(piece('b')))
    assert.deepEqual(names(slots), ['a', undefined, undefined, 'b'])
    assert.equal(slots.lastChange?.action, 'rollback')
    slots.settle(CONFIG, load(piece('c')))
    assert.deepEqual(names(slots), ['c', 'a', undefined, undefined])
    assert.equal(slots.lastChange, undefined)
  })

  it('need no rollback any more when the file has what was rolled back to', () => {
    const slots = new PolicySlots()
    for (const name of ['a', 'b']) slots.settle(CONFIG, load(piece(name)))
    slots.rollback(ORDER)
    slots.settle(CONFIG, load(piece('a')))
    assert.deepEqual(names(slots), ['a', undefined, undefined, undefined])
    slots.settle(CONFIG, load(piece('b')))
    assert.deepEqual(names(slots), ['b', 'a', undefined, undefined])
  })

  it('promote a candidate, which then decides instead of the file and follows its data', () => {
    const slots = new PolicySlots()
    slots.settle(CONFIG, load(piece('a', '1'), piece('b', '1')))
    assert.equal(slots.promote(ORDER, 'held_back').kind, 'refused')
    assert.equal(slots.promote(ORDER).kind, 'changed')
    assert.deepEqual(names(slots), ['b1', 'a1', undefined, 'a1'])
    slots.settle(CONFIG, load(piece('a', '2'), piece('b', '2')))
    assert.deepEqual(names(slots), ['b2', 'a1', undefined, 'a2'])
    slots.settle(CONFIG, load(piece('b', '2'), piece('b', '2')))
    assert.deepEqual(names(slots), ['b2', 'a1', undefined, undefined])
  })

  it('promote by themselves no candidate that was rolled back', () => {
    const slots = new PolicySlots()
    slots.settle(CONFIG, load(piece('a'), piece('b')))
    assert.ok(slots.isCandidateTrusted)
    slots.promote({ ...ORDER, by: 'automatic' })
    slots.rollback(ORDER)
    assert.deepEqual(names(slots), ['a', undefined, 'b', undefined])
    assert.equal(slots.isCandidateTrusted, false)
    slots.settle(CONFIG, load(piece('a'), piece('c')))
    assert.ok(slots.isCandidateTrusted)
    slots.settle(CONFIG, load(piece('a'), piece('b')))
    assert.equal(slots.isCandidateTrusted, false)
    slots.promote(ORDER)
    assert.deepEqual(names(slots), ['b', 'a', undefined, 'a'])
  })

  it('do not let new data take the place of the previous policy, nor end a rollback', () => {
    const slots = new PolicySlots()
    for (const [name, data] of ['a1', 'b1', 'b2', 'b3'] as const) {
      slots.settle(CONFIG, load(piece(name as string, data as string)))
    }
    assert.deepEqual(names(slots), ['b3', 'a1', undefined, undefined])
    slots.rollback(ORDER)
    slots.settle(CONFIG, load(piece('b', '4')))
    assert.deepEqual(names(slots), ['a1', undefined, undefined, 'b4'])
  })

  it('keep nothing that was made under other settings', () => {
    const slots = new PolicySlots()
    for (const name of ['a', 'b']) slots.settle(CONFIG, load(piece(name)))
    slots.rollback(ORDER)
    const other = { policy: { memoryBytes: 2 } } as unknown as Config
    slots.settle(other, load(piece('b')))
    assert.deepEqual(names(slots), ['b', undefined, undefined, undefined])
    assert.equal(slots.rollback(ORDER).kind, 'refused')
    slots.settle({} as Config, {})
    assert.deepEqual(names(slots), [undefined, undefined, undefined, undefined])
  })

  it('hold whatever is asked of them in whatever order', () => {
    const bundle = fc.constantFrom('a', 'b', 'c')
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('load' as const),
        policy: bundle,
        candidate: fc.option(bundle),
      }),
      fc.record({ kind: fc.constantFrom('rollback' as const, 'promote' as const) }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const slots = new PolicySlots()
        let offered: string | undefined
        for (const one of steps) {
          const [active, previous] = names(slots)
          if (one.kind === 'load') {
            const same = one.policy === offered
            offered = one.policy
            slots.settle(
              CONFIG,
              load(piece(one.policy), one.candidate ? piece(one.candidate) : undefined),
            )
            // What is in the file counts when it is new, and only then.
            assert.equal(names(slots)[0], same ? active : one.policy)
          } else {
            const { kind } = slots[one.kind](ORDER)
            if (one.kind === 'rollback') assert.equal(kind === 'changed', previous !== undefined)
            if (kind === 'refused') assert.deepEqual(names(slots)[0], active)
            else assert.notEqual(names(slots)[0], active)
          }
          const [now, before, candidate, heldBack] = names(slots)
          if (now !== undefined) {
            assert.notEqual(before, now)
            assert.notEqual(candidate, now)
          }
          assert.equal(heldBack, now === offered ? undefined : offered)
        }
      }),
    )
  })
})

describe('a rollback while something is being loaded', () => {
  it('is in force at once, and stays when the load has come to its end', async (t) => {
    const made = await materials(t, { policy: true })
    const slots = new PolicySlots()
    const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const pieces = [piece('a'), piece('b'), piece('b')]
    let loads = 0
    const published: Snapshot[] = []
    const reloader = new Reloader({
      config: made.config,
      clock: Date.now,
      slots,
      publish: (snapshot) => published.push(snapshot),
      onReload: () => {},
      load: async (...given) => {
        const policy = pieces[loads++] as PolicyPiece
        const outcome = await loadMaterials(...given)
        if (loads === 3) {
          gates[0]?.resolve()
          await gates[1]?.promise
        }
        return { ...outcome, ...(outcome.loaded && { loaded: { ...outcome.loaded, policy } }) }
      },
    })
    t.after(() => reloader.stop())
    await reloader.reload('start')
    await reloader.reload('watch')
    await made.rotate()
    const running = reloader.reload('watch')
    await gates[0]?.promise
    slots.rollback(ORDER)
    assert.equal(reloader.republish()?.snapshot, published.at(-1))
    assert.equal(reloader.current?.slots.active?.digest, 'a')
    gates[1]?.resolve()
    assert.equal((await running).result, 'published')
    assert.equal(reloader.current?.slots.active?.digest, 'a')
    assert.deepEqual(
      published.map(({ generation, policy }) => [generation, policy?.revision]),
      [
        [1, 'a'],
        [2, 'b'],
        [3, 'a'],
        [4, 'a'],
      ],
    )
  })
})
