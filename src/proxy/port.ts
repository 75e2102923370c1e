// Whether an address is free. Data threads share their port with SO_REUSEPORT, and so would a second
// Postern of the same user, without a word: half of the connections would go astray.
import net from 'node:net'
import type { Address } from '../config/config.ts'

/** Binds the address exclusively and lets it go again. @returns the system's error, if there is one */
export function probeAddress(address: Address): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    const server = net.createServer()
    server.once('error', resolve)
    const options =
      address.kind === 'unix'
        ? { path: address.path }
        : { host: address.host, port: address.port, exclusive: true }
    server.listen(options, () => server.close(() => resolve(undefined)))
  })
}
