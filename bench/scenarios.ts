// What is measured by the request: who takes part, what is asked, and the bars that Postern is to
// reach. A bar is on the median of the rounds' ratios of processor time by request.
import type { Work } from './load.ts'
import { NGINX, PIPE } from './proxies.ts'
import {
  ANSWER_SIZES,
  BODY_BYTES,
  type BodySize,
  bodyRequestHead,
  GRPC_MESSAGE,
  grpcFields,
  requestFields,
  requestHead,
  type Service,
  webSocketHead,
} from './stage.ts'

export interface Task {
  readonly name: string
  readonly work: Work
  /** Of the requests of one turn: large bodies make few of them enough. */
  readonly share: number
}

export interface Bar {
  readonly variant: string
  readonly to: string
  readonly atMost: number
}

export interface Scenario {
  readonly title: string
  readonly service: Service
  /** Who the ratios are to. */
  readonly measure: string
  readonly variants: readonly string[]
  readonly connections: number
  readonly as: 'client' | 'admin'
  readonly tasks: readonly Task[]
  readonly bars: readonly Bar[]
}

const POSTERN = ['postern-allow', 'postern-policy'] as const
const ENVOYS = ['envoy-rbac', 'envoy-opa'] as const
const CONNECTIONS = 64
/** HTTP/2 as services use it: few connections, several requests on each. */
const H2 = { connections: 8, streams: 8 } as const
const MESSAGES = { '100B': 100, '10KB': 10 * 1024 } as const

const atMost = (limit: number, to: string, variants: readonly string[]): Bar[] =>
  variants.map((variant) => ({ variant, to, atMost: limit }))

export const SCENARIOS = {
  http1: {
    title: 'HTTP/1.1: a GET, one at a time on each connection',
    service: 'plain',
    measure: NGINX,
    variants: [...POSTERN, 'postern-policy-log-all', 'http-proxy', NGINX, 'haproxy', ...ENVOYS],
    connections: CONNECTIONS,
    as: 'client',
    tasks: ANSWER_SIZES.map((name) => ({
      name,
      work: { kind: 'http1', head: requestHead(name), bodyBytes: 0 },
      share: 1,
    })),
    bars: [
      ...atMost(1.5, NGINX, ['postern-policy']),
      ...atMost(1, 'envoy-rbac', ['postern-policy']),
      ...atMost(0.2, 'envoy-opa', ['postern-policy']),
    ],
  },
  http2: {
    title: `HTTP/2 to HTTP/1.1: a GET, ${H2.streams} at a time on each connection`,
    service: 'plain',
    measure: NGINX,
    variants: [...POSTERN, NGINX, 'haproxy', ...ENVOYS],
    connections: H2.connections,
    as: 'client',
    tasks: [
      {
        name: '100B',
        work: {
          kind: 'h2',
          fields: requestFields('100B'),
          body: '',
          answerBytes: 100,
          streams: H2.streams,
        },
        share: 1,
      },
    ],
    bars: atMost(2, NGINX, POSTERN),
  },
  grpc: {
    title: `gRPC to h2c: a unary call with 64 bytes each way, ${H2.streams} at a time on each connection`,
    service: 'grpc',
    measure: NGINX,
    variants: [...POSTERN, NGINX, 'haproxy', ...ENVOYS],
    connections: H2.connections,
    as: 'admin',
    tasks: [
      {
        name: 'unary',
        work: {
          kind: 'h2',
          fields: grpcFields(),
          body: GRPC_MESSAGE,
          answerBytes: GRPC_MESSAGE.length,
          streams: H2.streams,
        },
        share: 1,
      },
    ],
    bars: atMost(2, NGINX, POSTERN),
  },
  bodies: {
    title: 'HTTP/1.1: a POST with a body, answered with one of the same size',
    service: 'bodies',
    measure: NGINX,
    variants: ['postern-policy', NGINX, 'haproxy', 'envoy-rbac'],
    connections: 16,
    as: 'admin',
    tasks: [bodyTask('10KB', 1), bodyTask('1MB', 0.02)],
    bars: atMost(1.3, NGINX, ['postern-policy']),
  },
  websocket: {
    title: 'WebSocket: a message that comes back, one at a time on each connection',
    service: 'websocket',
    measure: PIPE,
    variants: ['postern-allow', PIPE, NGINX, 'haproxy'],
    connections: CONNECTIONS,
    as: 'client',
    tasks: messageTasks(webSocketHead()),
    bars: atMost(1.2, PIPE, ['postern-allow']),
  },
  tcp: {
    title: 'TCP: bytes that come back, one message at a time on each connection',
    service: 'tcp',
    measure: PIPE,
    variants: ['postern-allow', PIPE, 'haproxy-tcp'],
    connections: CONNECTIONS,
    as: 'client',
    tasks: messageTasks(undefined),
    bars: atMost(1.2, PIPE, ['postern-allow']),
  },
} as const satisfies Readonly<Record<string, Scenario>>

function bodyTask(name: BodySize, share: number): Task {
  const work = { kind: 'http1', head: bodyRequestHead(name), bodyBytes: BODY_BYTES[name] } as const
  return { name, work, share }
}

function messageTasks(upgrade: string | undefined): Task[] {
  return Object.entries(MESSAGES).map(([name, bytes]) => ({
    name,
    work: { kind: 'tunnel', bytes, ...(upgrade === undefined ? {} : { upgrade }) },
    share: 1,
  }))
}
