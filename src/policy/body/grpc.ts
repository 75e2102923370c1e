// gRPC bodies: the first message of a call, read with the descriptors that the operator gave. Only of
// methods to which the client sends one message: of a stream, the first says nothing about the rest.
import type { DescMessage, FileRegistry } from '@bufbuild/protobuf'
import { loadProtobuf } from './protobuf.ts'
import { ProtoJson } from './protojson.ts'

/** Compression flag and length (gRPC over HTTP/2, section "Length-Prefixed-Message"). */
const PREFIX_BYTES = 5

export class GrpcDescriptors {
  readonly #registry: FileRegistry
  readonly #json: ProtoJson

  /**
   * @param bytes a `google.protobuf.FileDescriptorSet`, as `protoc -o` and `buf build` write it
   * @throws Error when it is not one, or lacks a file that another imports
   */
  constructor(bytes: Uint8Array) {
    const protobuf = loadProtobuf()
    const { createFileRegistry, fromBinary, FileDescriptorSetSchema } = protobuf
    this.#registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes))
    for (const type of this.#registry) {
      // Go knows open enumerations only: a number without a name stays a number.
      if (type.kind === 'enum') Object.assign(type, { open: true })
    }
    this.#json = new ProtoJson(protobuf, this.#registry)
  }

  /** `package.Service/Method` of every method whose bodies can be read. */
  get methods(): readonly string[] {
    return [...this.#registry].flatMap((type) =>
      type.kind === 'service'
        ? type.methods
            .filter(({ methodKind }) => takesOneMessage(methodKind))
            .map(({ name }) => `${type.typeName}/${name}`)
        : [],
    )
  }

  /** What the client sends to a method; undefined when it is unknown or the client streams. */
  requestType(path: readonly string[]): DescMessage | undefined {
    const [service = '', name] = path
    if (path.length !== 2) return undefined
    const method = this.#registry.getService(service)?.methods.find((one) => one.name === name)
    return method !== undefined && takesOneMessage(method.methodKind) ? method.input : undefined
  }

  /**
   * The message as JSON text.
   * @throws InputError
   */
  read(type: DescMessage, message: Uint8Array): string {
    return this.#json.write(type, message)
  }
}

const takesOneMessage = (kind: string): boolean => kind === 'unary' || kind === 'server_streaming'

export interface GrpcPrefix {
  readonly compressed: boolean
  /** Where the message ends, counted from the beginning of the body. */
  readonly end: number
}

/** What the first five bytes say; undefined while they are not there. */
export function grpcPrefix(bytes: Buffer): GrpcPrefix | undefined {
  if (bytes.length < PREFIX_BYTES) return undefined
  return { compressed: bytes[0] !== 0, end: PREFIX_BYTES + bytes.readUInt32BE(1) }
}

/** The message itself. */
export const grpcMessage = (bytes: Buffer, { end }: GrpcPrefix): Buffer =>
  bytes.subarray(PREFIX_BYTES, end)
