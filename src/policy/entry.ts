// One call for all that an evaluation begins with. Each step across the border to wasm costs about as
// much as a rule does (15 ns and more, Node 26), so a module of our own makes them inside: stack
// pointer, fuel, heap, and then the evaluation.
import { signedLeb } from './metering.ts'
import { FUEL_EXPORT, STACK_POINTER_EXPORT, STACK_TOP } from './rewrite.ts'
import { CONTEXT } from './value-proof.ts'

export interface EntryExports {
  readonly eval: (context: number) => number
  readonly opa_heap_ptr_set: (address: number) => void
  readonly [FUEL_EXPORT]: WebAssembly.Global
  readonly [STACK_POINTER_EXPORT]: WebAssembly.Global
}

/** @returns the address of the result set; 0: the module failed */
export type Entry = (context: number, heap: number, fuel: number) => number

/** @param exports of the instance that is to evaluate in `memory` */
export function entryOf(exports: EntryExports, memory: WebAssembly.Memory): Entry {
  const instance = new WebAssembly.Instance(MODULE, { of: { ...exports, memory } })
  return instance.exports['enter'] as Entry
}

const I32 = 0x7f
const text = (value: string) => [value.length, ...Buffer.from(value, 'latin1')]
const section = (id: number, ...contents: number[]) => [id, contents.length, ...contents]
const imported = (name: string, ...type: number[]) => [...text('of'), ...text(name), ...type]

// WebAssembly Core Specification 2.0, chapter 5 "Binary Format".
const MODULE = new WebAssembly.Module(
  Uint8Array.of(
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(
      1, // types
      3,
      ...[0x60, 1, I32, 0],
      ...[0x60, 1, I32, 1, I32],
      ...[0x60, 3, I32, I32, I32, 1, I32],
    ),
    ...section(
      2, // imports
      5,
      ...imported('opa_heap_ptr_set', 0x00, 0),
      ...imported('eval', 0x00, 1),
      ...imported('memory', 0x02, 0, 1),
      ...imported(STACK_POINTER_EXPORT, 0x03, I32, 1),
      ...imported(FUEL_EXPORT, 0x03, I32, 1),
    ),
    ...section(3, 1, 2), // functions
    ...section(7, 1, ...text('enter'), 0x00, 2), // exports
    ...section(
      10, // code
      1,
      ...body(
        ...[0x41, ...signedLeb(STACK_TOP), 0x24, 0], // i32.const, global.set
        ...[0x20, 2, 0x24, 1], // local.get fuel, global.set
        ...[0x20, 1, 0x10, 0], // local.get heap, call opa_heap_ptr_set
        ...[0x20, 0, 0x10, 1], // local.get context, call eval
        ...[0x04, I32, 0x41, 0], // if, i32.const 0
        ...[0x05, 0x20, 0, 0x28, 2, CONTEXT.result, 0x0b], // else, local.get context, i32.load, end
        0x0b,
      ),
    ),
  ),
)

function body(...instructions: number[]): number[] {
  return [instructions.length + 1, 0, ...instructions]
}
