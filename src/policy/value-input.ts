// The input of a module as values: where it stands in memory, and what of it is there already. Belongs
// to one module; instances come and go.

import type { MemoryImage } from './image.ts'
import { VALUE_BYTES } from './image.ts'
import { checkRequest, type RequestFacts } from './input.ts'
import type { Template } from './projection.ts'
import { CONTEXT } from './value-proof.ts'
import { fill, type ValueTemplate } from './value-template.ts'
import { SHARED_BYTES, ValueWriter } from './value-writer.ts'

/** Of which a request may take what is left: see `VALUE_BYTES`. */
const TEMPLATE_BYTES = 20 * 1024

interface Layout {
  readonly template: ValueTemplate
  readonly bytes: Uint8Array
}

export class ValueInput {
  /** Address of the evaluation context. */
  readonly context: number
  readonly #writer: ValueWriter
  readonly #templates: number
  readonly #requests: number
  readonly #end: number
  readonly #data: number
  /** Undefined of what has no place. */
  readonly #layouts = new WeakMap<Template, Layout | undefined>()
  /** The last one, which is in its place. */
  #laid: Template | undefined
  #laidLayout: Layout | undefined
  #bytes = new Uint8Array(0)
  #words = new Int32Array(0)

  constructor({ values, constants, data }: MemoryImage) {
    this.#writer = new ValueWriter(values, constants)
    this.context = values + SHARED_BYTES
    this.#templates = (this.context + CONTEXT.size + 7) & ~7
    this.#requests = this.#templates + TEMPLATE_BYTES
    this.#end = values + VALUE_BYTES
    this.#data = data
  }

  /** Of an instance in which nothing has been written yet. */
  begin(memory: ArrayBuffer): void {
    this.use(memory)
    this.#writer.writeShared()
    this.#laid = undefined
  }

  /** Memory that has grown is another one, with the same in it. */
  use(memory: ArrayBuffer): void {
    this.#writer.use(memory)
    this.#bytes = new Uint8Array(memory)
    this.#words = new Int32Array(memory)
  }

  /**
   * @returns false where it cannot be written as values
   * @throws InputError
   */
  write(template: Template, request: RequestFacts, entrypoint: number): boolean {
    checkRequest(request)
    const layout = this.#layOut(template)
    if (layout === undefined) return false
    this.#writer.start(this.#requests, this.#end)
    const root = fill(layout.template, this.#writer, request)
    if (this.#writer.full) return false
    const context = this.context >> 2
    this.#words[context] = root
    this.#words[context + 1] = this.#data
    this.#words[context + 2] = 0
    this.#words[context + 3] = entrypoint
    return true
  }

  #layOut(template: Template): Layout | undefined {
    if (this.#laid === template) return this.#laidLayout
    const known = this.#layouts.get(template)
    if (known !== undefined) this.#bytes.set(known.bytes, this.#templates)
    const isNew = known === undefined && !this.#layouts.has(template)
    this.#laid = template
    this.#laidLayout = isNew ? this.#layOutAnew(template) : known
    return this.#laidLayout
  }

  #layOutAnew(template: Template): Layout | undefined {
    const writer = this.#writer
    writer.start(this.#templates, this.#requests)
    const laid = template.layOut(writer)
    const bytes = this.#bytes.slice(this.#templates, writer.at)
    const layout = writer.full ? undefined : { template: laid, bytes }
    this.#layouts.set(template, layout)
    return layout
  }
}
