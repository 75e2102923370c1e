// The input document for the requests of a connection as values: what is the same for all of them is
// written once and copied, and holes in it are filled with the addresses of what is not.

import type { RequestFacts } from './input.ts'
import type { ConnectionDocument, Part, WriteOfRequest } from './input-parts.ts'
import type { Json, Key, ValueWriter } from './value-writer.ts'

export interface ValueTemplate {
  /** Address of the document. */
  readonly root: number
  readonly holes: readonly Hole[]
}

interface Hole {
  readonly place: number
  readonly write: WriteOfRequest
}

/** What there is of a part before a request is known: its address, 0 for nothing; or how it is made. */
type Laid = number | WriteOfRequest

/** @param writer writes what stays there; when it is full, the template is of no use */
export function valueTemplate(
  root: Part,
  connection: ConnectionDocument,
  writer: ValueWriter,
): ValueTemplate {
  const layer = new Layer(connection, writer)
  const laid = layer.lay(root)
  if (typeof laid === 'number') return { root: laid, holes: layer.holes }
  // So that there is an address to begin with.
  return { root: 0, holes: [{ place: 0, write: laid }] }
}

/** @returns the address of the document; of no use when the writer is full. @throws InputError */
export function fill(
  { root, holes }: ValueTemplate,
  writer: ValueWriter,
  request: RequestFacts,
): number {
  for (const { place, write } of holes) {
    const address = write(writer, request)
    if (place === 0) return address
    writer.put(place, address)
  }
  return root
}

class Layer {
  readonly holes: Hole[] = []
  readonly #connection: ConnectionDocument
  readonly #writer: ValueWriter

  constructor(connection: ConnectionDocument, writer: ValueWriter) {
    this.#connection = connection
    this.#writer = writer
  }

  lay(part: Part): Laid {
    switch (part.kind) {
      case 'request':
        return part.write
      case 'connection': {
        const value = this.#connection.valueOf(part)
        return value === undefined ? 0 : this.#writer.json(value as Json)
      }
      case 'object': {
        const laid = part.members.map(([key, member]) => [key, this.lay(member)] as const)
        const isUncertain = part.members.some(
          ([, member]) => member.kind === 'request' && member.mayBeEmpty,
        )
        return isUncertain ? this.#anew(laid) : this.#once(laid)
      }
    }
  }

  /** An object with members that may be absent is made for each request. */
  #anew(laid: readonly (readonly [string, Laid])[]): WriteOfRequest {
    const members: (readonly [Key, Laid])[] = laid
      .filter(([, value]) => value !== 0)
      .map(([key, value]) => [this.#writer.key(key), value])
    return (writer, request) => {
      const begun = writer.begin()
      for (const [key, value] of members) {
        const address = typeof value === 'number' ? value : value(writer, request)
        if (address !== 0) writer.knownMember(key, address)
      }
      return writer.object(begun)
    }
  }

  #once(laid: readonly (readonly [string, Laid])[]): number {
    const there = laid.filter(([, value]) => value !== 0)
    const begun = this.#writer.begin()
    for (const [key, value] of there) {
      this.#writer.askedMember(key, typeof value === 'number' ? value : 0)
    }
    const object = this.#writer.object(begun)
    if (this.#writer.full) return object
    for (const [index, [, write]] of there.entries()) {
      if (typeof write === 'number') continue
      this.holes.push({ place: this.#writer.placeOfMember(object, index), write })
    }
    return object
  }
}
