// Text of strangers on its way to a terminal, and output that waits for its reader.
import { once } from 'node:events'

/** Without characters that a terminal would obey. */
export const harmless = (text: string): string =>
  JSON.stringify(text)
    .slice(1, -1)
    .replace(/[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (one) => {
      return `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`
    })

/** Resolves when standard output can take more; ends the process when its reader has gone. */
export async function print(text: string): Promise<void> {
  if (process.stdout.listenerCount('error') === 0) {
    process.stdout.on('error', () => process.exit(1))
  }
  if (!process.stdout.write(text)) await once(process.stdout, 'drain')
}
