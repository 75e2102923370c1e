// The one language of patterns for names of peers, in allow rules and in the deny list. Names come from
// peers, so they are matched by comparison (time at most pattern times text), never by a regular
// expression.
export type PatternTest = (text: string) => boolean

/**
 * `*` stands for any characters within one segment, and alone for exactly one segment that is not
 * empty; `**` as a whole segment stands for any number of segments, also none.
 */
export function compilePattern(pattern: string, separator: '/' | '.'): PatternTest {
  if (!pattern.includes('*')) return (text) => text === pattern
  const segments = pattern.split(separator)
  return (text) => {
    const parts = text.split(separator)
    return matchesSequence(
      segments.length,
      parts.length,
      (p) => segments[p] === '**',
      (p, t) => matchesSegment(segments[p] as string, parts[t] as string),
    )
  }
}

function matchesSegment(pattern: string, text: string): boolean {
  if (pattern === '*') return text !== ''
  return matchesSequence(
    pattern.length,
    text.length,
    (p) => pattern[p] === '*',
    (p, t) => pattern[p] === text[t],
  )
}

/** Glob matching: only the last "any" ever has to be extended, so nothing is tried twice over. */
function matchesSequence(
  patternLength: number,
  textLength: number,
  isAny: (p: number) => boolean,
  fits: (p: number, t: number) => boolean,
): boolean {
  let p = 0
  let t = 0
  let lastAny = -1
  let coveredTo = 0
  while (t < textLength) {
    if (p < patternLength && isAny(p)) {
      lastAny = p++
      coveredTo = t
    } else if (p < patternLength && fits(p, t)) {
      p++
      t++
    } else if (lastAny >= 0) {
      p = lastAny + 1
      t = ++coveredTo
    } else {
      return false
    }
  }
  while (p < patternLength && isAny(p)) p++
  return p === patternLength
}
