// Text of strangers on its way to a terminal, and output that waits for its reader.
import { once } from 'node:events'

/** Control characters and those that turn the direction of text, which JSON leaves as they are. */
const OBEYED = /[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g

/** JSON text without characters that a terminal would obey; still the same JSON. */
export const harmlessJson = (json: string): string =>
  json.replace(OBEYED, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`)

/** The same for any text. */
export const harmless = (text: string): string => harmlessJson(JSON.stringify(text)).slice(1, -1)

/** Resolves when standard output can take more; ends the process when its reader has gone. */
export async function print(text: string): Promise<void> {
  if (process.stdout.listenerCount('error') === 0) {
    process.stdout.on('error', () => process.exit(1))
  }
  if (!process.stdout.write(text)) await once(process.stdout, 'drain')
}
