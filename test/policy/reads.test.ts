// Modules that no `opa build` wrote, by hand: where what they do is not followed for certain, they
// are given the whole input.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type InputReads, readsOf } from '../../src/policy/reads.ts'

type Bytes = readonly number[]

const sized = (...parts: Bytes[]): Bytes => {
  const bytes = parts.flat()
  assert.ok(bytes.length < 128)
  return [bytes.length, ...bytes]
}
const text = (one: string): Bytes => sized([...Buffer.from(one)])
const vector = (items: readonly Bytes[]): Bytes => [items.length, ...items.flat()]

const [MEMBER, HELPER, EVAL] = [0, 1, 2]
const GET = 0x20
const CALL = 0x10
const KEY = 0
const OTHER_KEY = 16

interface Bodies {
  readonly names: readonly (string | undefined)[]
  readonly helper?: Bytes
  readonly evaluate: Bytes
}

/** With `opa_value_get` (empty), a helper of one parameter, `eval`, and the strings "a" and "b". */
function moduleOf({ names, helper = [0x41, 0], evaluate }: Bodies): Uint8Array {
  const i32 = 0x7f
  const one = [0x60, 1, i32, 1, i32]
  const two = [0x60, 2, i32, i32, 1, i32]
  const code = (body: Bytes, locals: Bytes = [0]) => sized(locals, body, [0x0b])
  const string = (address: number, letter: string): Bytes => {
    const bytes = [8, 0, 0, 0, 1, 0, 0, 0, address + 12, 0, 0, 0, letter.charCodeAt(0)]
    return [0, 0x41, address, 0x0b, ...sized(bytes)]
  }
  const named = names.flatMap((name, i) => (name === undefined ? [] : [[i, ...text(name)]]))
  const section = (id: number, ...parts: Bytes[]): Bytes => [id, ...sized(...parts)]
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, vector([one, two])),
    ...section(3, vector([[1], [0], [0]])),
    ...section(5, vector([[0, 1]])),
    ...section(7, vector([[...text('eval'), 0, EVAL]])),
    ...section(10, vector([code([0x41, 0]), code(helper), code(evaluate, [1, 1, i32])])),
    ...section(11, vector([string(KEY, 'a'), string(OTHER_KEY, 'b')])),
    ...section(0, text('name'), [1], sized(vector(named))),
  ])
}

function reads(bodies: Bodies): InputReads {
  const bytes = moduleOf(bodies)
  assert.ok(WebAssembly.validate(bytes))
  return readsOf(bytes, 0)
}

const INPUT: Bytes = [GET, 0, 0x28, 2, 0]
const member = (key: number): Bytes => [...INPUT, 0x41, key, CALL, MEMBER]
const NAMES = ['opa_value_get', 'g0.data.helper', 'eval']

test('members by constant keys are followed', () => {
  assert.deepEqual(
    reads({ names: NAMES, evaluate: [...member(KEY), 0x1a, ...member(OTHER_KEY)] }),
    new Map([
      ['a', 'all'],
      ['b', 'all'],
    ]),
  )
})

test('what is behind an else is read as well', () => {
  const block = [0x02, 0x40]
  const leave = [0x0c, 1]
  const condition = [0x41, 1, 0x04, 0x40]
  const evaluate = [
    ...block,
    ...condition,
    ...leave,
    0x05,
    ...member(OTHER_KEY),
    0x1a,
    0x0b,
    0x0b,
    ...member(KEY),
  ]
  assert.equal(reads({ names: NAMES, evaluate }), 'all')
})

test('a function without a name may do anything', () => {
  const evaluate = [...member(KEY), CALL, HELPER]
  const helper = [GET, 0]
  assert.notEqual(reads({ names: NAMES, helper, evaluate }), 'all')
  assert.equal(reads({ names: [NAMES[0], undefined, NAMES[2]], helper, evaluate }), 'all')
})
