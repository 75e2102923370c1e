// A string as JSON text, cheap for what most strings are.

/** Anything but the printable ASCII that JSON writes as it is. */
const SPECIAL = /[^\x20\x21\x23-\x5b\x5d-\x7e]/

/** From here on the engine's own search, many letters at a time, is faster (V8 of Node 26). */
const LONG = 100

export function quote(text: string): string {
  return text.length >= LONG || SPECIAL.test(text) ? JSON.stringify(text) : `"${text}"`
}
