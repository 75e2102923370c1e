// Text of strangers on its way to a terminal, where log lines and problems are read as well.

/** Control characters and those that turn the direction of text, which JSON leaves as they are. */
const OBEYED = /[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g
const CONTROL = /[\0-\u001f]/g

/** JSON text without characters that a terminal would obey; still the same JSON. */
export const harmlessJson = (json: string): string => json.replace(OBEYED, escaped)

/** The same for any text, as inside a JSON string. */
export const harmless = (text: string): string => harmlessJson(JSON.stringify(text)).slice(1, -1)

/** A sentence of ours with text of others in it: quotes stay as they are. */
export const harmlessSentence = (text: string): string =>
  text.replace(CONTROL, escaped).replace(OBEYED, escaped)

const escaped = (one: string): string => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`
