// strings.render_template: the parts of Go's text/template that text and tables are made with (see
// template-parser.ts). Numbers of the variables are text to it, as they are in OPA, where they keep
// every digit; those that the template counts with are numbers.
import { type BuiltinContext, BuiltinError, objectArgument, stringArgument } from './builtin.ts'
import { jsonEntries } from './json-marshal.ts'
import { type Node, type Operand, type Pipe, parseTemplate } from './template-parser.ts'
import { RegoNumber, RegoObject, RegoSet, type RegoValue } from './value.ts'

/** `number`: counted here; `undefined`: nothing at all, unlike null. */
type Value = RegoValue | number | undefined

const CHARACTER_COST = 10
const STEP_COST = 50
/** Of one member of an object, where all of them are put in order. */
const MEMBER_COST = 100
const MAX_RESULT_LENGTH = 1024 * 1024

export function renderTemplate(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const template = stringArgument(args[0], 1)
  const variables = objectArgument(args[1], 2)
  context.spend(CHARACTER_COST * template.length)
  const nodes = parseTemplate(template, FUNCTION_NAMES)
  const renderer = new Renderer(variables, context)
  renderer.render(nodes, variables)
  return renderer.text.replaceAll('<no value>', '<undefined>')
}

class Renderer {
  text = ''
  readonly #context: BuiltinContext
  /** The latest of a name counts; a block forgets its own at its end. */
  readonly #variables: { readonly name: string; value: Value }[]

  constructor(root: RegoObject, context: BuiltinContext) {
    this.#context = context
    this.#variables = [{ name: '$', value: root }]
  }

  render(nodes: readonly Node[], dot: Value): void {
    for (const node of nodes) {
      this.#context.spend(STEP_COST)
      if (node.kind === 'text') this.#write(node.text)
      else if (node.kind === 'action') {
        const value = this.#pipe(node.pipe, dot)
        if (node.pipe.names.length > 0) continue
        this.#payToPrint(value)
        this.#write(printed(value, '<no value>'))
      } else this.#block(node, dot)
    }
  }

  #block(node: Node & { kind: 'if' | 'with' | 'range' }, dot: Value): void {
    const mark = this.#variables.length
    if (node.kind === 'range') {
      const value = this.#evaluate(node.pipe, dot)
      const members = this.#membersOf(value)
      for (const [key, one] of members) {
        const [first, second] = node.pipe.names
        if (second !== undefined) {
          this.#assign(first as string, key, node.pipe.declares)
          this.#assign(second, one, node.pipe.declares)
        } else if (first !== undefined) {
          this.#assign(first, one, node.pipe.declares)
        }
        this.render(node.body, one)
        this.#variables.length = mark
      }
      if (members.length === 0) this.render(node.otherwise, dot)
    } else {
      const value = this.#pipe(node.pipe, dot)
      if (!isTrue(value)) this.render(node.otherwise, dot)
      else this.render(node.body, node.kind === 'with' ? value : dot)
    }
    this.#variables.length = mark
  }

  #pipe(pipe: Pipe, dot: Value): Value {
    const value = this.#evaluate(pipe, dot)
    for (const name of pipe.names) this.#assign(name, value, pipe.declares)
    return value
  }

  #evaluate({ commands }: Pipe, dot: Value): Value {
    let value: { readonly value: Value } | undefined
    for (const command of commands) {
      this.#context.spend(STEP_COST * command.length)
      const [first, ...rest] = command as [Operand, ...Operand[]]
      if (first.kind !== 'function') {
        if (rest.length > 0 || value !== undefined) fail('arguments for what is no function')
        value = { value: this.#operand(first, dot) }
        continue
      }
      const args = rest.map((one) => this.#operand(one, dot))
      if (value !== undefined) args.push(value.value)
      value = { value: this.#call(first.name, args) }
    }
    return value?.value
  }

  #operand(operand: Operand, dot: Value): Value {
    switch (operand.kind) {
      case 'dot':
        return this.#field(dot, operand.fields)
      case 'variable':
        return this.#field(this.#variable(operand.name).value, operand.fields)
      case 'constant':
        return operand.value
      case 'pipe':
        return this.#field(this.#pipe(operand.pipe, dot), operand.fields)
      case 'function':
        return this.#call(operand.name, [])
    }
  }

  #call(name: string, args: readonly Value[]): Value {
    for (const one of args) if (typeof one === 'string') this.#context.spend(one.length >> 2)
    if (name === INDEX) return args.slice(1).reduce((value, key) => this.#at(value, key), args[0])
    if (name.startsWith('print')) for (const one of args) this.#payToPrint(one)
    return (FUNCTIONS.get(name) as Function)(args)
  }

  #field(value: Value, names: readonly string[]): Value {
    return names.reduce((parent: Value, name): Value => {
      if (parent instanceof RegoObject) return this.#textMember(parent, name)
      // Nothing has nothing in it, while a null, as any other value, has no fields at all.
      return parent === undefined ? undefined : fail(`no field ${name}`)
    }, value)
  }

  #at(value: Value, key: Value): Value {
    if (value instanceof RegoObject && typeof key === 'string') return this.#textMember(value, key)
    const list = listOf(value)
    if (list === undefined || typeof key !== 'number') return fail('cannot index')
    return key >= 0 && key < list.length ? list[key] : fail('index out of range')
  }

  #textMember(object: RegoObject, name: string): Value {
    const known = object.get(name)
    if (known !== undefined) return known
    this.#context.spend(MEMBER_COST * object.size)
    return jsonEntries(object).find(([key]) => key === name)?.[1]
  }

  #membersOf(value: Value): readonly (readonly [Value, Value])[] {
    if (value === undefined || value === null) return []
    if (value instanceof RegoObject) {
      this.#context.spend(MEMBER_COST * value.size)
      return jsonEntries(value)
    }
    const list = listOf(value)
    if (list === undefined) return fail('cannot range over it')
    this.#context.spend(STEP_COST * list.length)
    return list.map((one, i) => [i, one] as const)
  }

  #payToPrint(value: Value): void {
    if (typeof value === 'string') return this.#context.spend(value.length)
    if (value instanceof RegoObject) {
      this.#context.spend(MEMBER_COST * value.size)
      for (const [, one] of value.entries()) this.#payToPrint(one)
    } else {
      const list = listOf(value)
      this.#context.spend(MEMBER_COST * (list?.length ?? 1))
      for (const one of list ?? []) this.#payToPrint(one)
    }
  }

  #assign(name: string, value: Value, declares: boolean): void {
    if (declares) this.#variables.push({ name, value })
    else this.#variable(name).value = value
  }

  #variable(name: string): { value: Value } {
    return this.#variables.findLast((one) => one.name === name) ?? fail(`no variable ${name}`)
  }

  #write(text: string): void {
    this.#context.spend(text.length)
    this.text += text
    if (this.text.length > MAX_RESULT_LENGTH) fail('result is too long')
  }
}

const INDEX = 'index'

type Function = (args: readonly Value[]) => Value

const FUNCTIONS: ReadonlyMap<string, Function> = new Map<string, Function>([
  ['and', (args) => args.find((one) => !isTrue(one)) ?? args.at(-1)],
  ['or', (args) => args.find(isTrue) ?? args.at(-1)],
  ['not', ([value]) => !isTrue(value)],
  ['len', ([value]) => lengthOf(value)],
  ['print', (args) => printedTogether(args)],
  ['println', (args) => `${args.map((one) => printed(one, '<nil>')).join(' ')}\n`],
  ['eq', ([first, ...rest]) => rest.some((one) => compared(first, one) === 0)],
  ['ne', ([a, b]) => compared(a, b) !== 0],
  ['lt', ([a, b]) => compared(a, b) < 0],
  ['le', ([a, b]) => compared(a, b) <= 0],
  ['gt', ([a, b]) => compared(a, b) > 0],
  ['ge', ([a, b]) => compared(a, b) >= 0],
])

const FUNCTION_NAMES: ReadonlySet<string> = new Set([...FUNCTIONS.keys(), INDEX])

function listOf(value: Value): readonly RegoValue[] | undefined {
  if (value instanceof RegoSet) return value.members
  return Array.isArray(value) ? value : undefined
}

function isTrue(value: Value): boolean {
  if (value === undefined || value === null || value === false) return false
  if (typeof value === 'number') return value !== 0
  if (typeof value === 'string') return value !== ''
  if (value instanceof RegoObject) return value.size > 0
  return (listOf(value)?.length ?? 1) > 0
}

function lengthOf(value: Value): number {
  if (typeof value === 'string') return Buffer.byteLength(value)
  if (value instanceof RegoNumber) return value.literal.length
  if (value instanceof RegoObject) return value.size
  return listOf(value)?.length ?? fail('it has no length')
}

/** Less than 0, 0 or more; text, numbers that were counted, and booleans each among themselves. */
function compared(a: Value, b: Value): number {
  if (a === null && b === null) return 0
  const [x, y] = [scalarOf(a), scalarOf(b)]
  if (x === undefined || typeof x !== typeof y) return fail('incompatible types for comparison')
  if (typeof x === 'string') return Buffer.compare(Buffer.from(x), Buffer.from(y as string))
  return Number(x) - Number(y)
}

function scalarOf(value: Value): string | number | boolean | undefined {
  if (value instanceof RegoNumber) return value.literal
  const simple =
    typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
  return simple ? value : undefined
}

/** As fmt.Print does: with a space between two that are no text. */
function printedTogether(args: readonly Value[]): string {
  let text = ''
  for (const [i, one] of args.entries()) {
    const spaced = i > 0 && !isText(one) && !isText(args[i - 1])
    text += (spaced ? ' ' : '') + printed(one, '<nil>')
  }
  return text
}

function isText(value: Value): boolean {
  return typeof value === 'string' || value instanceof RegoNumber
}

function printed(value: Value, nothing: string): string {
  if (value === undefined || value === null) return nothing
  if (value instanceof RegoNumber) return value.literal
  if (value instanceof RegoObject) {
    return `map[${jsonEntries(value)
      .map(([key, one]) => `${key}:${printed(one, '<nil>')}`)
      .join(' ')}]`
  }
  const list = listOf(value)
  if (list !== undefined) return `[${list.map((one) => printed(one, '<nil>')).join(' ')}]`
  return String(value)
}

function fail(reason: string): never {
  throw new BuiltinError(`template: ${reason}`)
}
