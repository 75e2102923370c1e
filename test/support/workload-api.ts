// A SPIFFE Workload API as an agent serves it: the X.509-SVID stream over a socket, with messages
// written by protobuf's own writer and gRPC as any other server speaks it.
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { BinaryWriter } from '@bufbuild/protobuf/wire'
import grpc from '@grpc/grpc-js'
import type { Cleanup } from './cleanup.ts'
import type { IssuedCertificate } from './pki.ts'

export interface Svid {
  readonly spiffeId: string
  readonly issued: IssuedCertificate
  /** PEM, also of several certificates. */
  readonly bundlePem: string
  readonly hint?: string
}

export interface Answer {
  readonly svids: readonly Svid[]
  readonly crls?: readonly Uint8Array[]
  /** PEM by trust domain ID. */
  readonly federated?: Readonly<Record<string, string>>
}

type Stream = grpc.ServerWritableStream<Buffer, Buffer>

export class WorkloadApiServer {
  readonly address: string
  /** Of every request, as they came. */
  readonly metadata: grpc.Metadata[] = []
  /** Bytes, an answer, or the error that ends every stream. */
  answer: Answer | Uint8Array | { readonly code: grpc.status; readonly details: string }
  readonly #streams = new Set<Stream>()
  readonly #target: string
  #server: grpc.Server | undefined

  /** `address` as in the configuration; nothing listens before `start`. */
  constructor(t: Cleanup, address: string, answer: WorkloadApiServer['answer']) {
    this.address = address
    this.answer = answer
    this.#target = address.startsWith('tcp://') ? address.slice(6) : address
    t.after(() => this.stop())
  }

  async start(): Promise<this> {
    const server = new grpc.Server()
    const same = (bytes: Buffer) => bytes
    server.addService(
      {
        fetchX509Svid: {
          path: '/SpiffeWorkloadAPI/FetchX509SVID',
          requestStream: false,
          responseStream: true,
          requestSerialize: same,
          requestDeserialize: same,
          responseSerialize: same,
          responseDeserialize: same,
        },
      },
      { fetchX509Svid: (stream: Stream) => this.#serve(stream) },
    )
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(this.#target, grpc.ServerCredentials.createInsecure(), (error) =>
        error === null ? resolve() : reject(error),
      )
    })
    this.#server = server
    return this
  }

  /** As an agent that ends: every stream breaks, and the socket goes. */
  async stop(): Promise<void> {
    this.#server?.forceShutdown()
    this.#server = undefined
    this.#streams.clear()
    if (this.address.startsWith('unix:')) {
      await rm(this.address.replace(/^unix:(\/\/)?/, ''), { force: true })
    }
  }

  get streams(): number {
    return this.#streams.size
  }

  /** Sends to every stream what is new. */
  send(answer: WorkloadApiServer['answer']): void {
    this.answer = answer
    for (const stream of this.#streams) this.#answer(stream)
  }

  #serve(stream: Stream): void {
    this.metadata.push(stream.metadata)
    this.#streams.add(stream)
    for (const event of ['cancelled', 'close', 'error'] as const) {
      stream.on(event, () => this.#streams.delete(stream))
    }
    // SPIFFE Workload Endpoint section 5.
    if (stream.metadata.get('workload.spiffe.io')[0] === 'true') return this.#answer(stream)
    stream.emit('error', { code: grpc.status.INVALID_ARGUMENT, details: 'security header missing' })
  }

  #answer(stream: Stream): void {
    const { answer } = this
    if (answer instanceof Uint8Array) stream.write(Buffer.from(answer))
    else if ('svids' in answer) stream.write(encodeAnswer(answer))
    else stream.emit('error', answer)
  }
}

export function encodeAnswer({ svids, crls = [], federated = {} }: Answer): Buffer {
  const writer = new BinaryWriter()
  for (const { spiffeId, issued, bundlePem, hint } of svids) {
    writer.tag(1, 2).fork()
    writer.tag(1, 2).string(spiffeId)
    writer.tag(2, 2).bytes(derOf(issued.chainPem))
    writer.tag(3, 2).bytes(keyOf(issued.privateKeyPem))
    writer.tag(4, 2).bytes(derOf(bundlePem))
    if (hint !== undefined) writer.tag(5, 2).string(hint)
    writer.join()
  }
  for (const crl of crls) writer.tag(2, 2).bytes(crl)
  for (const [domain, pem] of Object.entries(federated)) {
    writer.tag(3, 2).fork()
    writer.tag(1, 2).string(domain)
    writer.tag(2, 2).bytes(derOf(pem))
    writer.join()
  }
  // A field of a later version: to be skipped.
  writer.tag(99, 0).int32(7)
  return Buffer.from(writer.finish())
}

/** DER of every certificate, one after the other. */
export const derOf = (pem: string): Buffer =>
  Buffer.concat(
    (pem.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g) ?? []).map(
      (one) => new X509Certificate(one).raw,
    ),
  )

const keyOf = (pem: string): Buffer =>
  createPrivateKey(pem).export({ type: 'pkcs8', format: 'der' })
