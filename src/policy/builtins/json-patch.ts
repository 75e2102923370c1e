// json.patch (RFC 6902), as OPA applies it: paths may also be arrays of keys, and lead into sets.
// Each operation makes new values on its path; what it does not touch is shared.
import { arrayArgument, type BuiltinContext, BuiltinError } from './builtin.ts'
import { compareValues } from './compare.ts'
import { RegoNumber, RegoObject, RegoSet, type RegoValue } from './value.ts'

type Path = readonly RegoValue[]

/** Of one member of an object, array or set that is made anew, in loop iterations of wasm. */
const MEMBER_COST = 10

export function patchJson(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const patcher = new Patcher(args[0] as RegoValue, context)
  for (const operation of arrayArgument(args[1], 2)) patcher.apply(operation)
  return patcher.result()
}

class Patcher {
  readonly #context: BuiltinContext
  /** Undefined after the whole of it was removed. */
  #document: RegoValue | undefined

  constructor(document: RegoValue, context: BuiltinContext) {
    this.#document = document
    this.#context = context
  }

  result(): RegoValue {
    return defined(this.#document, 'nothing is left')
  }

  apply(operation: RegoValue): void {
    if (!(operation instanceof RegoObject)) fail('an operation is not an object')
    const path = this.#path(operation, 'path')
    switch (needed(operation, 'op')) {
      case 'add':
        return this.#add(path, needed(operation, 'value'))
      case 'remove':
        return this.#remove(path)
      case 'replace':
        this.#remove(path)
        return this.#add(path, needed(operation, 'value'))
      case 'move': {
        const from = this.#path(operation, 'from')
        const moved = this.#at(from)
        this.#remove(from)
        return this.#add(path, moved)
      }
      case 'copy':
        return this.#add(path, this.#at(this.#path(operation, 'from')))
      case 'test':
        if (!this.#equal(this.#at(path), needed(operation, 'value'))) fail('test failed')
        return
      default:
        fail('unrecognized op')
    }
  }

  #path(operation: RegoObject, name: string): Path {
    const path = parsePath(needed(operation, name))
    this.#context.spend(MEMBER_COST * path.length)
    return path
  }

  #at(path: Path): RegoValue {
    return path.reduce((value: RegoValue, key) => this.#child(value, key), this.result())
  }

  #add(path: Path, value: RegoValue): void {
    this.#document =
      path.length === 0
        ? value
        : this.#rebuilt(this.result(), path, 0, (parent, key) => this.#inserted(parent, key, value))
  }

  #remove(path: Path): void {
    const document = this.result()
    this.#document =
      path.length === 0
        ? undefined
        : this.#rebuilt(document, path, 0, (parent, key) => this.#without(parent, key))
  }

  /** The value with another parent of what the path, from one of its keys on, leads to. */
  #rebuilt(
    value: RegoValue,
    path: Path,
    from: number,
    change: (parent: RegoValue, key: RegoValue) => RegoValue,
  ): RegoValue {
    const key = path[from]
    if (key === undefined) return value
    if (from === path.length - 1) return change(value, key)
    const child = this.#rebuilt(this.#child(value, key), path, from + 1, change)
    this.#context.spend(MEMBER_COST * sizeOf(value))
    if (value instanceof RegoObject) {
      const result = copyOf(value)
      result.set(key, child)
      return result
    }
    if (value instanceof RegoSet) return this.#inserted(this.#without(value, key), child, child)
    return (value as readonly RegoValue[]).with(indexOf(key, sizeOf(value)), child)
  }

  #child(value: RegoValue, key: RegoValue): RegoValue {
    this.#context.spend(MEMBER_COST)
    let child: RegoValue | undefined
    if (value instanceof RegoObject) child = value.get(key)
    else if (value instanceof RegoSet) child = value.members[this.#place(value, key)]
    else if (Array.isArray(value)) child = value[indexOf(key, value.length)]
    return defined(child, 'path does not exist')
  }

  #inserted(parent: RegoValue, key: RegoValue, value: RegoValue): RegoValue {
    this.#context.spend(MEMBER_COST * sizeOf(parent))
    if (parent instanceof RegoObject) {
      const result = copyOf(parent)
      result.set(key, value)
      return result
    }
    if (parent instanceof RegoSet) {
      if (!this.#equal(key, value)) fail('the key of a set is its member')
      return this.#place(parent, key) >= 0 ? parent : new RegoSet([...parent.members, value])
    }
    if (!Array.isArray(parent)) fail('path does not exist')
    const index = indexOf(key, parent.length)
    if (index < 0 || index > parent.length) fail('index out of bounds')
    return parent.toSpliced(index, 0, value)
  }

  #without(parent: RegoValue, key: RegoValue): RegoValue {
    this.#context.spend(MEMBER_COST * sizeOf(parent))
    if (parent instanceof RegoObject) {
      if (parent.get(key) === undefined) fail('path does not exist')
      const result = new RegoObject()
      for (const [one, value] of parent.entries()) {
        if (!this.#equal(one, key)) result.set(one, value)
      }
      return result
    }
    if (parent instanceof RegoSet) {
      const place = this.#place(parent, key)
      if (place < 0) fail('path does not exist')
      return new RegoSet(parent.members.toSpliced(place, 1))
    }
    if (!Array.isArray(parent)) fail('path does not exist')
    const index = indexOf(key, parent.length)
    if (index < 0 || index >= parent.length) fail('index out of bounds')
    return parent.toSpliced(index, 1)
  }

  #place(set: RegoSet, member: RegoValue): number {
    this.#context.spend(MEMBER_COST * set.members.length)
    return set.members.findIndex((one) => this.#equal(one, member))
  }

  #equal(a: RegoValue, b: RegoValue): boolean {
    return compareValues(a, b, (steps) => this.#context.spend(steps)) === 0
  }
}

function copyOf(object: RegoObject): RegoObject {
  const copy = new RegoObject()
  for (const [key, value] of object.entries()) copy.set(key, value)
  return copy
}

function sizeOf(value: RegoValue): number {
  if (value instanceof RegoSet) return value.members.length
  if (value instanceof RegoObject) return value.size
  return Array.isArray(value) ? value.length : 0
}

/** An array of keys, or text in the manner of a JSON pointer: the slash in front may be missing. */
function parsePath(path: RegoValue): Path {
  if (Array.isArray(path)) return path
  if (typeof path !== 'string') fail('a path must be text or an array of keys')
  if (path === '') return []
  const parts = path.replace(/^\/+/, '').split('/')
  return parts.map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
}

function indexOf(key: RegoValue, length: number): number {
  if (key === '-') return length
  const text = key instanceof RegoNumber ? key.literal : key
  if (typeof text !== 'string' || !/^-?[0-9]{1,15}$/.test(text)) fail('no index')
  if (typeof key === 'string' && key !== '0' && key.startsWith('0')) fail('no index')
  return Number(text)
}

function needed(operation: RegoObject, name: string): RegoValue {
  return defined(operation.get(name), `no ${name}`)
}

/** Null is a value. */
function defined(value: RegoValue | undefined, reason: string): RegoValue {
  return value === undefined ? fail(reason) : value
}

function fail(reason: string): never {
  throw new BuiltinError(`json.patch: ${reason}`)
}
