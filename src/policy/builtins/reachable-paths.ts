// graph.reachable_paths: every way from the given vertices until there is none on, or a cycle.
import { type BuiltinContext, BuiltinError, objectArgument } from './builtin.ts'
import { RegoObject, RegoSet, type RegoValue } from './value.ts'

type Path = readonly RegoValue[]

/** Of one vertex in one path, in loop iterations of wasm: it is copied, written and read again. */
const VERTEX_COST = 10

export function reachablePaths(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const graph = objectArgument(args[0], 1)
  const initial = args[1]
  if (!Array.isArray(initial) && !(initial instanceof RegoSet)) {
    throw new BuiltinError('operand 2 must be one of {array, set}')
  }
  const paths = new RegoObject()
  const add = (path: Path) => {
    context.spend(VERTEX_COST * (path.length + 1))
    paths.set(path, true)
  }

  const follow = (vertex: RegoValue, before: Path): void => {
    const edges = graph.get(vertex)
    if (edges === undefined) {
      add(before)
      return
    }
    const path = [...before, vertex]
    context.spend(VERTEX_COST * path.length)
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
