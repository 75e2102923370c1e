// Searching in strings, each argument one string or a collection of them. All of it is paid for by
// pairs compared, since both collections may come from a client.
import { type BuiltinContext, BuiltinError, stringArgument, textsArgument } from './builtin.ts'
import { RegoNumber, type RegoValue } from './value.ts'

const PAIR_COST = 3

/** strings.any_prefix_match(search, base): does any of `search` begin with any of `base`? */
export function anyPrefixMatch(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  return anyPair(args, context, (text, prefix) => text.startsWith(prefix))
}

/** strings.any_suffix_match(search, base) */
export function anySuffixMatch(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  return anyPair(args, context, (text, suffix) => text.endsWith(suffix))
}

/** strings.count(search, substring): occurrences that do not overlap. */
export function countSubstring(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const text = stringArgument(args[0], 1)
  const part = stringArgument(args[1], 2)
  chargeSearch(text, part, context)
  // As Go: an empty string is around every code point.
  if (part === '') return new RegoNumber(String(Array.from(text).length + 1))
  let count = 0
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length)) count++
  return new RegoNumber(String(count))
}

/** indexof_n(haystack, needle): all places, overlapping ones too, counted in code points. */
export function indexOfAll(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const text = stringArgument(args[0], 1)
  const part = stringArgument(args[1], 2)
  if (part === '') throw new BuiltinError('empty search character')
  chargeSearch(text, part, context)
  const places: RegoNumber[] = []
  let counted = 0
  let codePoints = 0
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + 1)) {
    for (; counted < at; counted++) if (!isLowSurrogate(text.charCodeAt(counted))) codePoints++
    context.spend(4 + part.length)
    places.push(new RegoNumber(String(codePoints)))
  }
  return places
}

function anyPair(
  args: readonly RegoValue[],
  context: BuiltinContext,
  matches: (text: string, affix: string) => boolean,
): boolean {
  const texts = oneOrMany(args[0], 1)
  const affixes = oneOrMany(args[1], 2)
  for (const text of texts) {
    for (const affix of affixes) {
      context.spend(PAIR_COST + (affix.length >> 4))
      if (matches(text, affix)) return true
    }
  }
  return false
}

function oneOrMany(value: RegoValue | undefined, position: number): readonly string[] {
  return typeof value === 'string' ? [value] : textsArgument(value, position)
}

/** V8 searches in less than text times part, but nothing promises that it is linear. */
function chargeSearch(text: string, part: string, context: BuiltinContext): void {
  context.spend(text.length + Math.ceil((text.length * part.length) / 16))
}

function isLowSurrogate(unit: number): boolean {
  return unit >= 0xdc00 && unit <= 0xdfff
}
