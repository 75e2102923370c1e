// Connections that a balancer passes on: before TLS they begin with a PROXY header, which is believed
// from the sources that the configuration names, and demanded of them.
import { BlockList, isIPv6, type Socket } from 'node:net'
import { type ProxyEnd, readProxyHeader } from './proxy-protocol.ts'

export class ProxyGate {
  readonly #sources = new BlockList()

  /** @param sources networks as `10.0.0.0/8` */
  constructor(sources: readonly string[]) {
    for (const source of sources) {
      const [address = '', bits = ''] = source.split('/')
      this.#sources.addSubnet(address, Number(bits), isIPv6(address) ? 'ipv6' : 'ipv4')
    }
  }

  concerns(address: string): boolean {
    return address !== '' && this.#sources.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
  }

  /**
   * Reads the header and leaves what follows it unread. How long it may take is for the caller to say.
   * @param then once: the client that the header names; undefined, the balancer itself; or
   *   `malformed`. Never, when the socket closes before.
   */
  read(socket: Socket, then: (client: ProxyEnd | undefined | 'malformed') => void): void {
    let seen: Buffer = Buffer.alloc(0)
    const done = (client: Parameters<typeof then>[0]): void => {
      socket.removeListener('readable', onReadable)
      then(client)
    }
    const onReadable = (): void => {
      for (let chunk = read(socket); chunk !== null; chunk = read(socket)) {
        seen = Buffer.concat([seen, chunk])
        const reading = readProxyHeader(seen)
        if (reading.kind === 'incomplete') continue
        if (reading.kind !== 'header') return done('malformed')
        const rest = seen.subarray(reading.length)
        if (rest.length > 0) socket.unshift(rest)
        return done(reading.source)
      }
    }
    socket.on('readable', onReadable)
  }
}

const read = (socket: Socket): Buffer | null => socket.read() as Buffer | null
