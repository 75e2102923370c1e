// HTTP/2 frames (RFC 9113 section 4 and 6), as either side writes and reads them:
// layout only, no state of a connection or a stream.

export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  resetStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const

export const FLAG = {
  endStream: 0x1,
  ack: 0x1,
  endHeaders: 0x4,
  padded: 0x8,
  priority: 0x20,
} as const

/** Section 7. */
export const H2_ERROR = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  streamClosed: 5,
  frameSize: 6,
  refusedStream: 7,
  cancel: 8,
  compression: 9,
  enhanceYourCalm: 11,
  http11Required: 13,
} as const

/** As section 7 calls it; for the log. */
export const nameOfError = (code: number): string => ERROR_NAMES[code] ?? `error ${code}`

// biome-ignore format: a list
const ERROR_NAMES = [
  'NO_ERROR', 'PROTOCOL_ERROR', 'INTERNAL_ERROR', 'FLOW_CONTROL_ERROR', 'SETTINGS_TIMEOUT', 'STREAM_CLOSED',
  'FRAME_SIZE_ERROR', 'REFUSED_STREAM', 'CANCEL', 'COMPRESSION_ERROR', 'CONNECT_ERROR', 'ENHANCE_YOUR_CALM',
  'INADEQUATE_SECURITY', 'HTTP_1_1_REQUIRED',
]

/** Section 6.5.2. */
export const SETTING = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
  /** RFC 8441 section 3. */
  enableConnectProtocol: 8,
} as const

export const FRAME_HEADER_BYTES = 9
/** The default of SETTINGS_MAX_FRAME_SIZE, and what everybody has to accept. */
export const MAX_FRAME_BYTES = 16_384
export const DEFAULT_WINDOW = 65_535
export const MAX_WINDOW = 2 ** 31 - 1

/** Section 3.4: what a client with prior knowledge sends first. */
export const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'

export interface FrameHeader {
  readonly length: number
  readonly type: number
  readonly flags: number
  readonly stream: number
}

/** @param at where nine bytes of frame header begin; they must all be there */
export function readFrameHeader(buffer: Buffer, at: number): FrameHeader {
  return {
    length: (buffer[at]! << 16) | (buffer[at + 1]! << 8) | buffer[at + 2]!,
    type: buffer[at + 3]!,
    flags: buffer[at + 4]!,
    stream: readUint31(buffer, at + 5),
  }
}

/** The highest bit is reserved, and ignored. */
export function readUint31(buffer: Buffer, at: number): number {
  return (
    ((buffer[at]! & 0x7f) << 24) |
    (buffer[at + 1]! << 16) |
    (buffer[at + 2]! << 8) |
    buffer[at + 3]!
  )
}

/** Writes a frame header at `at`. */
export function writeFrameHeader(
  out: Buffer,
  length: number,
  type: number,
  flags: number,
  stream: number,
  at = 0,
): void {
  out[at] = length >>> 16
  out[at + 1] = length >>> 8
  out[at + 2] = length
  out[at + 3] = type
  out[at + 4] = flags
  writeUint32(out, at + 5, stream)
}

function writeUint32(out: Buffer, at: number, value: number): void {
  out[at] = value >>> 24
  out[at + 1] = value >>> 16
  out[at + 2] = value >>> 8
  out[at + 3] = value
}

export function dataFrameHeader(length: number, stream: number, endStream: boolean): Buffer {
  const out = Buffer.allocUnsafe(FRAME_HEADER_BYTES)
  writeFrameHeader(out, length, FRAME.data, endStream ? FLAG.endStream : 0, stream)
  return out
}

/**
 * HEADERS, with CONTINUATION frames where the block is larger than a frame.
 * @param maxFrameBytes what the peer accepts
 */
export function headersFrames(
  block: Buffer,
  stream: number,
  endStream: boolean,
  maxFrameBytes: number,
): Buffer {
  const count = Math.max(1, Math.ceil(block.length / maxFrameBytes))
  const out = Buffer.allocUnsafe(block.length + count * FRAME_HEADER_BYTES)
  let at = 0
  for (let i = 0; i < count; i++) {
    const from = i * maxFrameBytes
    const length = Math.min(maxFrameBytes, block.length - from)
    const flags =
      (i === count - 1 ? FLAG.endHeaders : 0) | (i === 0 && endStream ? FLAG.endStream : 0)
    const type = i === 0 ? FRAME.headers : FRAME.continuation
    writeFrameHeader(out.subarray(at), length, type, flags, stream)
    at += FRAME_HEADER_BYTES
    at += block.copy(out, at, from, from + length)
  }
  return out
}

export function settingsFrame(settings: readonly (readonly [number, number])[]): Buffer {
  const out = Buffer.allocUnsafe(FRAME_HEADER_BYTES + 6 * settings.length)
  writeFrameHeader(out, 6 * settings.length, FRAME.settings, 0, 0)
  let at = FRAME_HEADER_BYTES
  for (const [id, value] of settings) {
    out[at] = id >>> 8
    out[at + 1] = id
    writeUint32(out, at + 2, value)
    at += 6
  }
  return out
}

export function settingsAckFrame(): Buffer {
  const out = Buffer.allocUnsafe(FRAME_HEADER_BYTES)
  writeFrameHeader(out, 0, FRAME.settings, FLAG.ack, 0)
  return out
}

/** @param payload eight bytes; by default they say nothing: whoever hears anything at all knows enough */
export function pingFrame(payload = Buffer.alloc(8)): Buffer {
  const out = Buffer.alloc(FRAME_HEADER_BYTES + 8)
  writeFrameHeader(out, 8, FRAME.ping, 0, 0)
  payload.copy(out, FRAME_HEADER_BYTES)
  return out
}

/** @param payload eight bytes */
export function pingAckFrame(payload: Buffer): Buffer {
  const out = Buffer.allocUnsafe(FRAME_HEADER_BYTES + 8)
  writeFrameHeader(out, 8, FRAME.ping, FLAG.ack, 0)
  payload.copy(out, FRAME_HEADER_BYTES)
  return out
}

export function windowUpdateFrame(stream: number, increment: number): Buffer {
  const out = Buffer.allocUnsafe(FRAME_HEADER_BYTES + 4)
  writeFrameHeader(out, 4, FRAME.windowUpdate, 0, stream)
  writeUint32(out, FRAME_HEADER_BYTES, increment)
  return out
}

export function resetStreamFrame(stream: number, code: number): Buffer {
  const out = Buffer.allocUnsafe(FRAME_HEADER_BYTES + 4)
  writeFrameHeader(out, 4, FRAME.resetStream, 0, stream)
  writeUint32(out, FRAME_HEADER_BYTES, code)
  return out
}

export function goAwayFrame(lastStream: number, code: number): Buffer {
  const out = Buffer.allocUnsafe(FRAME_HEADER_BYTES + 8)
  writeFrameHeader(out, 8, FRAME.goAway, 0, 0)
  writeUint32(out, FRAME_HEADER_BYTES, lastStream)
  writeUint32(out, FRAME_HEADER_BYTES + 4, code)
  return out
}
