// Process: the workloads behind the proxies, each on a port of its own.
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import type { Service } from '../stage.ts'
import { bodiesServer } from './bodies.ts'
import { echoServer } from './echo.ts'
import { grpcServer } from './grpc.ts'
import { plainServer } from './plain.ts'

const SERVERS = {
  plain: plainServer(),
  bodies: bodiesServer(),
  websocket: echoServer(),
  tcp: echoServer(),
  grpc: grpcServer(),
} as const

const ports: Partial<Record<Service, number>> = {}
for (const [service, server] of Object.entries(SERVERS)) {
  server.listen(0, '127.0.0.1', 4096)
  await once(server, 'listening')
  ports[service as Service] = (server.address() as AddressInfo).port
}
process.send?.({ ports })
process.on('disconnect', () => process.exit())
