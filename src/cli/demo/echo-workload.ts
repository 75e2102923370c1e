// A workload for the demo: HTTP on loopback that answers with what it was sent, and counts, so that
// one can see which requests never reached it.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface EchoWorkload {
  readonly url: string
  requests(): number
  close(): Promise<void>
}

export async function startEchoWorkload(): Promise<EchoWorkload> {
  let requests = 0
  const server = createServer((request, response) => {
    requests += 1
    const { method, url: path, headers } = request
    request.resume().on('end', () => {
      response.setHeader('content-type', 'application/json')
      response.end(`${JSON.stringify({ method, path, headers }, undefined, 2)}\n`)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: () => requests,
    close: async () => {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}
