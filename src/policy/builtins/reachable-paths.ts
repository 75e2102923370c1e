// graph.reachable_paths: every way from the given vertices until there is none on, or a cycle.
import { type BuiltinContext, BuiltinError, objectArgument } from './builtin.ts'
import { RegoObject, RegoSet, type RegoValue, writeValue } from './value.ts'

type Path = readonly RegoValue[]

/** Of one vertex in one path, in loop iterations of wasm: it is copied, looked up, written and read. */
const VERTEX_COST = 60
/** Of a character of its name, which is written and read each time. */
const CHARACTER_COST = 1

export function reachablePaths(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const graph = objectArgument(args[0], 1)
  const initial = args[1]
  if (!Array.isArray(initial) && !(initial instanceof RegoSet)) {
    throw new BuiltinError('operand 2 must be one of {array, set}')
  }
  const paths = new RegoObject()
  const lengths = new Map<RegoValue, number>()
  const lengthOf = (vertex: RegoValue): number => {
    if (typeof vertex === 'string') return vertex.length
    const known = lengths.get(vertex) ?? writeValue(vertex).length
    lengths.set(vertex, known)
    return known
  }
  const spend = (path: Path) => {
    let cost = VERTEX_COST
    for (const vertex of path) cost += VERTEX_COST + CHARACTER_COST * lengthOf(vertex)
    context.spend(cost)
  }
  const add = (path: Path) => {
    spend(path)
    paths.set(path, true)
  }

  const follow = (vertex: RegoValue, before: Path): void => {
    const edges = graph.get(vertex)
    if (edges === undefined) {
      add(before)
      return
    }
    const path = [...before, vertex]
    spend(path)
    const next = verticesOf(edges)
    if (next.length === 0) add(path)
    const seen = new RegoObject()
    for (const one of path) seen.set(one, true)
    for (const neighbour of next) {
      if (seen.get(neighbour) === undefined) follow(neighbour, path)
      else add(path)
    }
  }

  for (const start of verticesOf(initial)) {
    const edges = graph.get(start)
    if (edges === undefined) continue
    const next = verticesOf(edges)
    if (next.length === 0) add([start])
    // An edge from the start to itself is gone once, unlike those of later vertices.
    for (const neighbour of next) follow(neighbour, [start])
  }
  return new RegoSet(Array.from(paths.entries(), ([path]) => path))
}

function verticesOf(value: RegoValue): readonly RegoValue[] {
  if (value instanceof RegoSet) return value.members
  return Array.isArray(value) ? value : []
}
