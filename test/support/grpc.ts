// A gRPC service in all four kinds of call, and clients of it that go through a sidecar. Messages are
// bytes: what they mean is no business of a proxy.
import type { EventEmitter } from 'node:events'
import grpc from '@grpc/grpc-js'
import type { Cleanup } from './cleanup.ts'
import type { IssuedCertificate } from './pki.ts'
import type { TestSidecar } from './sidecar.ts'

const bytes = (message: Buffer): Buffer => message
const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/test.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
})

const ECHO = {
  one: method('One', false, false),
  gather: method('Gather', true, false),
  spread: method('Spread', false, true),
  chat: method('Chat', true, true),
} satisfies grpc.ServiceDefinition

type ServerCall =
  | grpc.ServerUnaryCall<Buffer, Buffer>
  | grpc.ServerReadableStream<Buffer, Buffer>
  | grpc.ServerWritableStream<Buffer, Buffer>
  | grpc.ServerDuplexStream<Buffer, Buffer>

export interface GrpcWorkload {
  readonly url: string
  readonly server: grpc.Server
  /** Calls that were begun, and those of them that the server saw cancelled. */
  readonly calls: {
    readonly path: string
    readonly metadata: grpc.Metadata
    readonly deadline: grpc.Deadline
    cancelled: boolean
  }[]
  /** True while `One` calls are to be kept waiting. */
  hold: boolean
  /** Calls of every method fail with this. */
  failure: Partial<grpc.StatusObject> | undefined
}

/**
 * `One` echoes, `Gather` joins, `Spread` sends each byte of the request as a message, `Chat` echoes each
 * message. Metadata `x-echo` and `x-echo-bin` come back in head and trailers.
 */
export async function startGrpcWorkload(
  t: Cleanup,
  options: grpc.ServerOptions = {},
): Promise<GrpcWorkload> {
  const server = new grpc.Server({
    'grpc.max_receive_message_length': -1,
    'grpc.max_metadata_size': 64 * 1024,
    ...options,
  })
  const state = { url: '', server, calls: [], hold: false, failure: undefined } as {
    -readonly [K in keyof GrpcWorkload]: GrpcWorkload[K]
  }
  const seen = (call: ServerCall): grpc.Metadata => {
    const one = {
      path: call.getPath(),
      metadata: call.metadata,
      deadline: call.getDeadline(),
      cancelled: false,
    }
    state.calls.push(one)
    ;(call as EventEmitter).on('cancelled', () => {
      one.cancelled = true
    })
    const echoed = new grpc.Metadata()
    for (const name of ['x-echo', 'x-echo-bin']) {
      for (const value of call.metadata.get(name)) echoed.add(name, value)
    }
    call.sendMetadata(echoed)
    return echoed
  }
  server.addService(ECHO, {
    one(call: grpc.ServerUnaryCall<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) {
      if (state.failure !== undefined) return done(state.failure)
      const echoed = seen(call)
      if (!state.hold) done(null, call.request, echoed)
    },
    gather(call: grpc.ServerReadableStream<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) {
      const echoed = seen(call)
      const parts: Buffer[] = []
      call.on('data', (part: Buffer) => parts.push(part))
      call.on('end', () => done(null, Buffer.concat(parts), echoed))
      call.on('error', () => {})
    },
    spread(call: grpc.ServerWritableStream<Buffer, Buffer>) {
      const echoed = seen(call)
      for (const byte of call.request) call.write(Buffer.from([byte]))
      if (!state.hold) call.end(echoed)
    },
    chat(call: grpc.ServerDuplexStream<Buffer, Buffer>) {
      if (state.failure !== undefined) return void call.emit('error', state.failure)
      const echoed = seen(call)
      call.on('data', (message: Buffer) => call.write(message))
      call.on('end', () => call.end(echoed))
      call.on('error', () => {})
    },
  })
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    )
  })
  state.url = `h2c://127.0.0.1:${port}`
  t.after(() => server.forceShutdown())
  return state
}

export interface GrpcClient extends grpc.Client {
  one(
    message: Buffer,
    metadata: grpc.Metadata,
    options: grpc.CallOptions,
    done: grpc.requestCallback<Buffer>,
  ): grpc.ClientUnaryCall
  gather(
    metadata: grpc.Metadata,
    done: grpc.requestCallback<Buffer>,
  ): grpc.ClientWritableStream<Buffer>
  spread(
    message: Buffer,
    metadata: grpc.Metadata,
    options?: grpc.CallOptions,
  ): grpc.ClientReadableStream<Buffer>
  chat(metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientDuplexStream<Buffer, Buffer>
}

const EchoClient = grpc.makeGenericClientConstructor(ECHO, 'Echo')

export function openGrpc(
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
  options: grpc.ClientOptions = {},
): GrpcClient {
  const credentials = grpc.credentials.createSsl(
    Buffer.from(sidecar.authority.root.certificatePem),
    Buffer.from(certificate.privateKeyPem),
    Buffer.from(certificate.chainPem),
  )
  const client = new EchoClient(`localhost:${sidecar.port}`, credentials, {
    'grpc.max_receive_message_length': -1,
    'grpc.max_metadata_size': 64 * 1024,
    // A connection of its own for each client.
    'grpc.use_local_subchannel_pool': 1,
    ...options,
  }) as unknown as GrpcClient
  t.after(() => client.close())
  return client
}

export interface GrpcEnd {
  readonly code: number
  readonly details: string
  readonly message: Buffer | undefined
  readonly head: grpc.Metadata | undefined
  readonly trailers: grpc.Metadata
}

/** A unary call to its end, however it ends. */
export function unary(
  client: GrpcClient,
  message: Buffer,
  metadata = new grpc.Metadata(),
  options: grpc.CallOptions & { readonly started?: (call: grpc.ClientUnaryCall) => void } = {},
): Promise<GrpcEnd> {
  return new Promise((resolve) => {
    let answer: Buffer | undefined
    let head: grpc.Metadata | undefined
    const call = client.one(message, metadata, options, (_error, value) => {
      answer = value
    })
    call.on('metadata', (received) => {
      head = received
    })
    call.on('status', ({ code, details, metadata: trailers }) =>
      setImmediate(() => resolve({ code, details, message: answer, head, trailers })),
    )
    options.started?.(call)
  })
}

/** The status that a streaming call ends with, and what was received. */
export function streamed(
  call: grpc.ClientReadableStream<Buffer> | grpc.ClientDuplexStream<Buffer, Buffer>,
): { readonly received: Buffer[]; readonly end: Promise<GrpcEnd> } {
  const received: Buffer[] = []
  call.on('data', (message: Buffer) => received.push(message))
  call.on('error', () => {})
  const end = new Promise<GrpcEnd>((resolve) =>
    call.on('status', ({ code, details, metadata: trailers }) =>
      setImmediate(() =>
        resolve({ code, details, message: Buffer.concat(received), head: undefined, trailers }),
      ),
    ),
  )
  return { received, end }
}
