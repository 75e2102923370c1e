// Which known name an unknown one was probably meant to be.

/** The nearest of the names, or none when even that one is too far to be a slip of the hand. */
export function nearest(written: string, names: Iterable<string>): string | undefined {
  const folded = fold(written)
  // Comparing costs length times length, and no slip makes a name twice as long.
  if (folded.length > 64) return undefined
  let best: string | undefined
  // Two slips in a word of four letters make any other word of four letters.
  let least = (folded.length <= 4 ? 1 : Math.max(2, Math.floor(folded.length / 3))) + 1
  for (const name of names) {
    const distance = editDistance(folded, fold(name))
    if (distance < least) [best, least] = [name, distance]
  }
  return best
}

/** `head_bytes` and `HeadBytes` are how others spell `headBytes`. */
const fold = (name: string): string => name.toLowerCase().replaceAll(/[-_]/g, '')

/** Levenshtein's distance, one row of the matrix at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[b.length] as number
}
