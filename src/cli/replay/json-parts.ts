// The texts of the parts of a JSON document, as they stand there: numbers keep their digits and
// objects the order of their keys, which parsing would lose.

/**
 * Key and value of each member of an object; of an array the elements, with '' as key.
 * @param text valid JSON of an object or array
 */
export function jsonParts(text: string): readonly (readonly [key: string, value: string])[] {
  const parts: [string, string][] = []
  let at = text.search(/[{[]/) + 1
  let depth = 1
  let start = at
  let key = ''
  for (; depth > 0; at++) {
    switch (text[at]) {
      case '"':
        at = endOfString(text, at)
        break
      case '{':
      case '[':
        depth++
        break
      case ':':
        if (depth > 1) break
        key = JSON.parse(text.slice(start, at)) as string
        start = at + 1
        break
      case '}':
      case ']':
        depth--
        if (depth === 0) add()
        break
      case ',':
        if (depth > 1) break
        add()
        start = at + 1
        break
      case undefined:
        throw new SyntaxError('the document has no end')
    }
  }
  return parts

  function add(): void {
    const value = text.slice(start, at).trim()
    if (value !== '') parts.push([key, value])
    key = ''
  }
}

function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let backslashes = 0
    while (text[end - 1 - backslashes] === '\\') backslashes++
    if (backslashes % 2 === 0) return end
  }
  throw new SyntaxError('a string has no end')
}
