// regex.replace with the meaning of Go's Regexp.ReplaceAllString.
import { type BuiltinContext, BuiltinError, stringArgument } from './builtin.ts'
import { compileRegex, type Regex, RegexSyntaxError } from './regex.ts'
import type { RegoValue } from './value.ts'

/** A replacement may multiply its text; the result goes back into the policy's memory. */
const MAX_RESULT_LENGTH = 1024 * 1024

export function replaceRegex(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const text = stringArgument(args[0], 1)
  const pattern = stringArgument(args[1], 2)
  const template = stringArgument(args[2], 3)
  const regex = cachedRegex(pattern, context)
  let result = ''
  let from = 0
  for (const match of regex.matches(text, (steps) => context.spend(steps))) {
    const [start, end] = [match[0] as number, match[1] as number]
    result += text.slice(from, start) + expand(template, text, match, regex)
    if (result.length > MAX_RESULT_LENGTH) throw new BuiltinError('result is too long')
    from = end
  }
  return result + text.slice(from)
}

function cachedRegex(pattern: string, context: BuiltinContext): Regex {
  try {
    return context.regexes.get(pattern, () => {
      context.spend(pattern.length * 100)
      return compileRegex(pattern)
    })
  } catch (error) {
    if (error instanceof RegexSyntaxError) throw new BuiltinError(error.message)
    throw error
  }
}

/** `$name`, `${name}` and `$$`; the longest name wins, an unknown one is empty (Regexp.Expand). */
function expand(template: string, text: string, match: readonly number[], regex: Regex): string {
  return template.replace(
    /\$(?:\$|([\p{L}\p{Nd}_]+)|\{([\p{L}\p{Nd}_]+)\})/gu,
    (whole, bare?: string, braced?: string) => {
      const name = bare ?? braced
      if (name === undefined) return whole === '$$' ? '$' : whole
      const group = /^[0-9]+$/.test(name) ? groupNumber(name) : regex.names.get(name)
      if (group === undefined) return ''
      const start = match[2 * group] ?? -1
      return start < 0 ? '' : text.slice(start, match[2 * group + 1])
    },
  )
}

/** A number with a leading zero is a name, which no group can have. */
function groupNumber(digits: string): number | undefined {
  return digits.length > 1 && digits.startsWith('0') ? undefined : Number(digits)
}
