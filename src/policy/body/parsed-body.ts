// What of a body goes into the input document: `parsed_body` and `truncated_body`, chosen by the
// content type in the order of the OPA-Envoy plugin.
import { InputError } from '../input-error.ts'
import { formForInput } from './form.ts'
import { type GrpcDescriptors, grpcMessage, grpcPrefix } from './grpc.ts'
import { jsonForInput } from './json.ts'
import { multipartForInput } from './multipart.ts'
import { textOf } from './text.ts'

/** What is there of a body when policy is asked. */
export interface BodyAtHand {
  readonly bytes: Buffer
  /** False: there is more, or may be. */
  readonly complete: boolean
}

export interface ParsedBody {
  /** JSON text. */
  readonly parsed: string
  readonly truncated: boolean
}

const NOTHING: ParsedBody = { parsed: 'null', truncated: false }
const TRUNCATED: ParsedBody = { parsed: 'null', truncated: true }

export type BodyFormat = 'json' | 'grpc' | 'form' | 'multipart'

/** By substring, like the plugin; but whatever the case of its letters, as media types are. */
export function bodyFormat(contentType: string | undefined): BodyFormat | undefined {
  const type = contentType?.toLowerCase() ?? ''
  return FORMATS.find(([name]) => type.includes(name))?.[1]
}

const FORMATS = [
  ['application/json', 'json'],
  ['application/grpc', 'grpc'],
  ['application/x-www-form-urlencoded', 'form'],
  ['multipart/form-data', 'multipart'],
] as const

/**
 * @param path the segments of `parsed_path`
 * @param codings what `content-encoding` says, a line each
 * @throws InputError when the body is not what its type says
 */
export function parseBody(
  body: BodyAtHand,
  contentType: string | undefined,
  path: readonly string[],
  descriptors: GrpcDescriptors | undefined,
  codings: readonly string[] = [],
): ParsedBody {
  const format = bodyFormat(contentType)
  if (format === 'grpc' && descriptors !== undefined) return parseGrpc(body, path, descriptors)
  if (!body.complete) return TRUNCATED
  const { bytes } = body
  if (bytes.length === 0) return NOTHING
  // Bytes can be JSON and, unpacked, another (streams of deflate can be ASCII).
  if (format !== undefined && format !== 'grpc' && !codings.every(isIdentity)) {
    throw new InputError('a body with a content coding')
  }
  switch (format) {
    case 'json':
      return whole(jsonForInput(textOf(bytes, 'the JSON body')))
    case 'form':
      return whole(formForInput(textOf(bytes, 'the form'), 'form'))
    case 'multipart':
      return whole(multipartForInput(bytes, contentType ?? ''))
    default:
      return NOTHING
  }
}

const isIdentity = (coding: string): boolean => coding.toLowerCase() === 'identity'

const whole = (parsed: string): ParsedBody => ({ parsed, truncated: false })

function parseGrpc(
  { bytes, complete }: BodyAtHand,
  path: readonly string[],
  descriptors: GrpcDescriptors,
): ParsedBody {
  if (bytes.length === 0) return complete ? NOTHING : TRUNCATED
  if (path.length !== 2) throw new InputError('a gRPC path that is not /SERVICE/METHOD')
  const type = descriptors.requestType(path)
  const prefix = grpcPrefix(bytes)
  if (type === undefined) return complete ? NOTHING : TRUNCATED
  if (prefix === undefined) {
    if (complete) throw new InputError('a gRPC body of less than 5 bytes')
    return TRUNCATED
  }
  if (prefix.compressed) return NOTHING
  if (prefix.end > bytes.length) return TRUNCATED
  return whole(descriptors.read(type, grpcMessage(bytes, prefix)))
}
