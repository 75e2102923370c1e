// A multipart/form-data body as JSON text: an array of values for each name, parts typed JSON decoded.
// Readers of this format differ in almost everything that is unusual, and what policy reads must be
// what the workload reads: so only the form that browsers and HTTP libraries send is taken.
import { InputError } from '../input-error.ts'
import { quote } from '../json-text.ts'
import { ValueLists } from './form.ts'
import { jsonForInput } from './json.ts'
import { parameterised } from './parameters.ts'
import { textOf } from './text.ts'

const MAX_PARTS = 256
/** RFC 2046 section 5.1.1. */
const BOUNDARY = /^[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]$/
const CRLF = '\r\n'

/**
 * @param contentType of the request
 * @throws InputError
 */
export function multipartForInput(bytes: Buffer, contentType: string): string {
  const boundary = parameterised(contentType, 'content type').parameters.get('boundary')
  if (boundary === undefined || !BOUNDARY.test(boundary)) {
    throw new InputError('multipart/form-data without a boundary, or with one that cannot be')
  }
  const values = new ValueLists('multipart')
  for (const part of partsOf(bytes, `--${boundary}`)) {
    const { name, value } = readPart(part)
    values.add(name, value)
  }
  return values.text
}

/** What stands between the delimiters, each of which must have a line of its own. */
function partsOf(bytes: Buffer, delimiter: string): Buffer[] {
  const parts: Buffer[] = []
  if (!startsWith(bytes, delimiter, 0)) throw malformed('text before the first part')
  let at = delimiter.length
  for (;;) {
    if (startsWith(bytes, '--', at)) {
      const rest = bytes.length - at - 2
      if (rest === 0 || (rest === 2 && startsWith(bytes, CRLF, at + 2))) return parts
      throw malformed('text behind the last part')
    }
    if (!startsWith(bytes, CRLF, at)) throw malformed('a delimiter with text behind it')
    const start = at + 2
    const next = bytes.indexOf(delimiter, start)
    if (next === -1) throw malformed('no end of the last part')
    // Some readers need no CR before it, some no line break at all.
    if (next < start + 2 || !startsWith(bytes, CRLF, next - 2)) {
      throw malformed('a delimiter inside a line')
    }
    if (parts.push(bytes.subarray(start, next - 2)) > MAX_PARTS) {
      throw malformed(`more than ${MAX_PARTS} parts`)
    }
    at = next + delimiter.length
  }
}

function readPart(part: Buffer): { name: string; value: string } {
  const headEnd = part.indexOf('\r\n\r\n')
  if (headEnd === -1) throw malformed('a part without an end of its header')
  const fields = readFields(textOf(part.subarray(0, headEnd), 'the header of a part'))
  const encoding = fields.get('content-transfer-encoding')?.toLowerCase() ?? 'binary'
  if (!UNENCODED.has(encoding)) throw malformed(`a part in ${encoding.slice(0, 32)}`)
  const disposition = parameterised(fields.get('content-disposition') ?? '', 'content disposition')
  const { parameters } = disposition
  const name = parameters.get('name') ?? ''
  if (disposition.value !== 'form-data' || name === '' || name.includes('\\')) {
    throw malformed('a part without a plain name')
  }
  const other = [...parameters.keys()].find((one) => one.startsWith('name*'))
  if (other !== undefined) throw malformed('a part with an encoded name')
  const content = part.subarray(headEnd + 4)
  if (fields.get('content-type')?.toLowerCase().includes('application/json')) {
    return { name, value: jsonForInput(textOf(content, 'a JSON part')) }
  }
  const isFile = parameters.has('filename') || parameters.has('filename*')
  // The bytes of a file are not for policy to read, and need not be text.
  const text = isFile ? content.toString('utf8') : textOf(content, `the value of a part`)
  return { name, value: quote(text) }
}

/** RFC 7578 section 4.7 has deprecated all others. */
const UNENCODED: ReadonlySet<string> = new Set(['7bit', '8bit', 'binary'])

const NAME = /^[a-z0-9-]+$/
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f]/

function readFields(head: string): ReadonlyMap<string, string> {
  const fields = new Map<string, string>()
  for (const line of head.split(CRLF)) {
    const colon = line.indexOf(':')
    const name = line.slice(0, Math.max(colon, 0)).toLowerCase()
    if (!NAME.test(name) || CONTROL.test(line)) throw malformed('a part with a malformed header')
    if (fields.has(name)) throw malformed('a part that says a header twice')
    fields.set(name, line.slice(colon + 1).trim())
  }
  return fields
}

function startsWith(bytes: Buffer, text: string, at: number): boolean {
  return bytes.length >= at + text.length && bytes.toString('latin1', at, at + text.length) === text
}

const malformed = (what: string): InputError => new InputError(`multipart/form-data with ${what}`)
