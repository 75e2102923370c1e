// A string as JSON text, cheap for what most strings are.

/** Anything but the printable ASCII that JSON writes as it is. */
const SPECIAL = /[^\x20\x21\x23-\x5b\x5d-\x7e]/

export function quote(text: string): string {
  return SPECIAL.test(text) ? JSON.stringify(text) : `"${text}"`
}
