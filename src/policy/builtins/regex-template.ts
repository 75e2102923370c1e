// regex.template_match: a text with patterns between two delimiters, as in `urn:foo:{.*}`.
import { type BuiltinContext, BuiltinError, stringArgument } from './builtin.ts'
import { cachedRegex } from './regex-builtins.ts'
import type { RegoValue } from './value.ts'

export function matchTemplate(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const template = stringArgument(args[0], 1)
  const text = stringArgument(args[1], 2)
  const [start, end] = [delimiter(args[2], 3), delimiter(args[3], 4)]
  context.spend(20 * template.length)
  const regex = cachedRegex(patternOf(template, start, end, context), context)
  for (const _ of regex.matches(text, (steps) => context.spend(steps))) return true
  return false
}

/** Delimiters are bytes in OPA; a character of more than one byte is an error there. */
function delimiter(value: RegoValue | undefined, position: number): string {
  const text = stringArgument(value, position)
  if (/^[\0-\x7f]$/.test(text)) return text
  throw new BuiltinError(`operand ${position} must be one character`)
}

function patternOf(template: string, start: string, end: string, context: BuiltinContext): string {
  let pattern = '^'
  let depth = 0
  let from = 0
  for (let at = 0; at < template.length; at++) {
    const character = template[at]
    // Where both are the same, the first one opens and none closes, as in OPA.
    if (character === start) {
      if (++depth > 1) continue
      pattern += quoted(template.slice(from, at))
      from = at + 1
    } else if (character === end) {
      if (--depth > 0) continue
      if (depth < 0) throw new BuiltinError('unbalanced delimiters')
      const part = template.slice(from, at)
      // On its own it has to be a pattern too: no part may close the group around another.
      cachedRegex(`^${part}$`, context)
      pattern += `(${part})`
      from = at + 1
    }
  }
  if (depth !== 0) throw new BuiltinError('unbalanced delimiters')
  return `${pattern}${quoted(template.slice(from))}$`
}

function quoted(text: string): string {
  return text.replace(/[\\.+*?()|[\]{}^$]/g, '\\$&')
}
