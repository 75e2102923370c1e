// What a module says of its own memory is followed only as far as a value can go.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { shareKeys } from '../../src/policy/constants.ts'
import { DataError, memoryImage } from '../../src/policy/image.ts'
import { FUEL_EXPORT } from '../../src/policy/rewrite.ts'
import { simpleResult, TYPE } from '../../src/policy/value-layout.ts'
import { ValueWriter } from '../../src/policy/value-writer.ts'

const CONSTANTS = new Map([['name', 4_096]])
const SIZE = 65_536

/** Memory with words at addresses. */
function memoryOf(words: Readonly<Record<number, readonly number[]>>): ArrayBuffer {
  const memory = new ArrayBuffer(SIZE)
  const all = new Uint32Array(memory)
  for (const [address, values] of Object.entries(words)) all.set(values, Number(address) / 4)
  return memory
}

const shared = (words: Readonly<Record<number, readonly number[]>>): boolean =>
  shareKeys(memoryOf(words), 16, SIZE, CONSTANTS)

test('keys are shared in a value that ends', () => {
  const memory = memoryOf({
    16: [TYPE.array, 64, 1],
    64: [0, 128],
    128: [TYPE.object, 192, 2, 2],
    192: [256, 0],
    256: [512, 1_024, 268], // the chain: a key, a value, the next member
    268: [528, 1_024, 0],
    512: [TYPE.string, 4, 600],
    528: [TYPE.string, 4, 700],
    1024: [TYPE.null],
  })
  Buffer.from(memory).write('name', 600)
  Buffer.from(memory).write('nama', 700)
  assert.equal(shareKeys(memory, 16, SIZE, CONSTANTS), true)
  assert.deepEqual([...new Uint32Array(memory, 256, 6)], [4_096, 1_024, 268, 528, 1_024, 0])
})

test('a value that goes round in a circle, or out of memory, is none', () => {
  const element = [0, 16]
  assert.equal(shared({ 16: [TYPE.array, 64, 1], 64: element }), false)
  assert.equal(shared({ 16: [TYPE.array, 64, 2], 64: [...element, ...element] }), false)
  const object = { 16: [TYPE.object, 64, 1, 1], 64: [128] }
  assert.equal(shared({ ...object, 128: [512, 1_024, 128] }), false)
  assert.equal(shared({ ...object, 128: [512, 16, 0] }), false)
  assert.equal(shared({ 16: [TYPE.array, 64, 0xffff_ffff] }), false)
  assert.equal(shared({ 16: [TYPE.array, 64, 1], 64: [0, 0xffff_fff0] }), false)
})

test('a result is looked for in the buckets of its table only', () => {
  const words = (buckets: readonly number[], count = 8) => {
    const memory = memoryOf({
      16: [TYPE.set, 64, count, 1],
      64: buckets,
      256: [512],
      512: [TYPE.object, 768, 8, 1],
      768: [800],
      800: [0, 1_024, 0],
      1024: [TYPE.boolean | (1 << 8)],
    })
    return simpleResult(new Uint8Array(memory), new Uint32Array(memory), 16)
  }
  assert.equal(words([0, 0, 0, 0, 0, 0, 0, 256]), true)
  assert.equal(words([0, 0, 0, 0, 0, 0, 0, 0, 256]), undefined)
  assert.equal(words([256], 0x7fff_ffff), undefined)
})

test('values are written into a memory of 2 GiB and of 4 GiB', () => {
  for (const pages of [32_768, 65_536]) {
    const writer = new ValueWriter(SIZE)
    const memory = new WebAssembly.Memory({ initial: pages })
    writer.use(memory.buffer)
    writer.writeShared()
    assert.equal(new Uint8Array(memory.buffer, SIZE, 1)[0], TYPE.number)
  }
})

const section = (id: number, contents: readonly number[]) => [id, contents.length, ...contents]
const name = (text: string) => [text.length, ...Buffer.from(text)]

/** Whatever it is asked for is at one address. */
const moduleSaying = (address: readonly number[]) =>
  new WebAssembly.Module(
    Uint8Array.from([
      ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      ...section(1, [1, 0x60, 0, 1, 0x7f]),
      ...section(2, [1, ...name('env'), ...name('memory'), 2, 0, 1]),
      ...section(3, [1, 0]),
      ...section(6, [1, 0x7f, 1, 0x41, 0, 0x0b]),
      ...section(7, [
        ...[4, ...name('opa_malloc'), 0, 0],
        ...[...name('opa_heap_ptr_get'), 0, 0],
        ...[...name('opa_json_parse'), 0, 0],
        ...[...name(FUEL_EXPORT), 3, 0],
      ]),
      ...section(10, [1, address.length + 3, 0, 0x41, ...address, 0x0b]),
    ]),
  )

test('a module whose addresses are in no memory cannot have data', () => {
  const load = (address: readonly number[]) => () =>
    memoryImage(moduleSaying(address), '{}', 64 * 1024 * 1024)
  assert.throws(load([0x70]), DataError) // -16
  assert.throws(load([0x80, 0x80, 0x80, 0x80, 0x01]), DataError) // 256 MiB
  assert.equal(load([0x80, 0x80, 0x04])().values, 0)
})
