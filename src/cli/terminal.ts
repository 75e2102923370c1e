// Output that waits for its reader.
import { once } from 'node:events'

/** Resolves when standard output can take more; ends the process when its reader has gone. */
export async function print(text: string): Promise<void> {
  if (process.stdout.listenerCount('error') === 0) {
    process.stdout.on('error', () => process.exit(1))
  }
  if (!process.stdout.write(text)) await once(process.stdout, 'drain')
}
