// A header value with parameters, `form-data; name="a"`, in the spellings that every reader takes for
// the same. Everything else is refused: what decides about a name must not have two readings.
import { InputError } from '../input-error.ts'

export interface Parameterised {
  /** What stands before the first semicolon, in lower case. */
  readonly value: string
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>
}

/** One parameter; `"` ends a quoted one, because readers disagree about `\"`. */
const PARAMETER =
  /[ \t]*;[ \t]*([\w!#$%&'*+.^`|~-]+)=(?:"([^"\x00-\x1f\x7f]*)"|([\w!#$%&'*+.^`|~-]+))/y
const VALUE = /[ \t]*([\w!#$%&'*+./^`|~-]+)/y

/** @throws InputError */
export function parameterised(text: string, where: string): Parameterised {
  VALUE.lastIndex = 0
  const first = VALUE.exec(text)
  if (first === null) throw new InputError(`a malformed ${where}`)
  let at = VALUE.lastIndex
  const parameters = new Map<string, string>()
  for (;;) {
    PARAMETER.lastIndex = at
    const found = PARAMETER.exec(text)
    if (found === null) break
    at = PARAMETER.lastIndex
    const name = (found[1] as string).toLowerCase()
    const quoted = found[2]
    if (quoted?.endsWith('\\')) throw new InputError(`an escaped quote in the ${where}`)
    if (parameters.has(name)) throw new InputError(`${where} says ${name} twice`)
    parameters.set(name, quoted ?? (found[3] as string))
  }
  const rest = text.slice(at).trim()
  if (rest !== '' && rest !== ';') throw new InputError(`a malformed ${where}`)
  return { value: (first[1] as string).toLowerCase(), parameters }
}
