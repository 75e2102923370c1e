// The parts of the input document that a request decides, as values in the memory of a module. Says
// the same as their text in input.ts, and refuses the same.
import { formValues } from './body/form.ts'
import {
  decodedPath,
  forEachHeader,
  headerValues,
  isDoubtfulPath,
  type RequestFacts,
  type WantedHeaders,
} from './input.ts'
import { TWICE, type ValueWriter } from './value-writer.ts'

const SLASH = 0x2f

export function writeTime(writer: ValueWriter, { timeMs }: RequestFacts): number {
  const seconds = Math.floor(timeMs / 1000)
  const nanos = Math.floor((timeMs - seconds * 1000) * 1e6)
  const begun = writer.begin()
  writer.member('seconds', writer.number(String(seconds)))
  if (nanos !== 0) writer.member('nanos', writer.number(String(nanos)))
  return writer.object(begun)
}

/** @throws InputError */
export function writeHeaders(
  writer: ValueWriter,
  request: RequestFacts,
  partialBody: string | undefined,
  wanted?: WantedHeaders,
): number {
  const { at } = writer
  const begun = writer.begin()
  forEachHeader(request, partialBody, wanted, (name, value) => {
    if (wanted === undefined) writer.member(name, writer.string(value))
    else writer.askedMember(name, writer.string(value))
  })
  const written = writer.object(begun)
  if (written !== TWICE) return written
  writer.goBack(at, begun)
  const values = headerValues(request, partialBody, wanted)
  for (const name in values) writer.member(name, writer.string(values[name] as string))
  return writer.object(begun)
}

/** @throws InputError */
export function writePath(writer: ValueWriter, { path }: RequestFacts): number {
  const decoded = isDoubtfulPath(path) ? decodedPath(path) : path
  const begun = writer.begin()
  let start = 0
  while (decoded.charCodeAt(start) === SLASH) start++
  for (let end = start; end < decoded.length; end++) {
    if (decoded.charCodeAt(end) !== SLASH) continue
    writer.element(writer.part(decoded, start, end))
    start = end + 1
  }
  writer.element(writer.part(decoded, start, decoded.length))
  return writer.array(begun)
}

/** @throws InputError */
export function writeQuery(writer: ValueWriter, { query }: RequestFacts): number {
  const begun = writer.begin()
  if (query !== undefined && query !== '') {
    for (const [key, values] of formValues(query, 'query')) {
      const list = writer.begin()
      for (const value of values) writer.element(writer.string(value))
      writer.member(key, writer.array(list))
    }
  }
  return writer.object(begun)
}
