// Cutting bytes into frames: the same frames, however the bytes come; errors for what no frame may be.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { FLAG, FRAME, H2_ERROR, settingsFrame } from '../../../src/http/h2/frames.ts'
import { FrameReader, type FrameUser } from '../../../src/http/h2/reader.ts'
import { type Memory, UNSHARED } from '../../../src/http/kept-bytes.ts'
import { data, frame } from '../../support/raw-http2.ts'
import { SharedMemory } from '../../support/shared-memory.ts'

const LIMITS = { blockBytes: 1_000, blockFrames: 4 }
const PREFACE = Buffer.from('hello')

/** Notes what it is told; bytes of a body that follow each other are one note. */
class Notes implements FrameUser {
  readonly list: string[] = []
  onHeaders = (): void => {}

  dataBegins(stream: number, length: number, padding: number, endStream: boolean): number {
    this.list.push(
      `data ${stream} of ${length}, ${padding} for nothing${endStream ? ', last' : ''}: `,
    )
    return H2_ERROR.none
  }

  data(_stream: number, bytes: Buffer, start: number, end: number): void {
    this.list.push(`${this.list.pop()}${bytes.toString('latin1', start, end)}`)
  }

  dataEnds(stream: number): void {
    this.list.push(`end ${stream}`)
  }

  headers(stream: number, bytes: Buffer, start: number, end: number, endStream: boolean): number {
    this.list.push(
      `headers ${stream} ${bytes.toString('latin1', start, end)}${endStream ? ', last' : ''}`,
    )
    this.onHeaders()
    return H2_ERROR.none
  }

  control(type: number, flags: number, stream: number, bytes: Buffer, start: number, end: number) {
    this.list.push(`${type} ${flags} ${stream} ${bytes.toString('latin1', start, end)}`)
    return H2_ERROR.none
  }
}

const reading = (
  preface = PREFACE,
  memory: Memory = UNSHARED,
): { notes: Notes; reader: FrameReader } => {
  const notes = new Notes()
  return { notes, reader: new FrameReader(notes, () => LIMITS, preface, memory) }
}
const START = Buffer.concat([PREFACE, settingsFrame([])])

const stream = fc.constantFrom(1, 3, 5)
const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 40 })
const one = fc.oneof(
  fc.tuple(stream, text, fc.boolean()).map(([id, body, end]) => data(id, body, end)),
  fc
    .tuple(stream, text, fc.nat(20))
    .map(([id, body, padding]) =>
      frame(
        FRAME.data,
        FLAG.padded,
        id,
        Buffer.concat([Buffer.from([padding]), Buffer.from(body), Buffer.alloc(padding)]),
      ),
    ),
  fc
    .tuple(stream, text, fc.nat(9), fc.boolean())
    .map(([id, block, padding, priority]) =>
      frame(
        FRAME.headers,
        FLAG.padded | FLAG.endHeaders | (priority ? FLAG.priority : 0),
        id,
        Buffer.concat([
          Buffer.from([padding]),
          Buffer.alloc(priority ? 5 : 0),
          Buffer.from(block),
          Buffer.alloc(padding),
        ]),
      ),
    ),
  fc
    .tuple(stream, fc.array(text, { maxLength: 3 }))
    .map(([id, parts]) =>
      Buffer.concat([
        frame(FRAME.headers, parts.length === 0 ? 5 : 1, id, Buffer.from('first')),
        ...parts.map((part, i) =>
          frame(FRAME.continuation, i === parts.length - 1 ? 4 : 0, id, Buffer.from(part)),
        ),
      ]),
    ),
  fc
    .tuple(fc.constantFrom(2, 3, 6, 8, 0xee), text)
    .map(([type, bytes]) => frame(type, 0, 1, Buffer.from(bytes))),
)

describe('reading frames', () => {
  it('gives the same ones, wherever the bytes are cut and whenever it is held', () => {
    fc.assert(
      fc.property(
        fc.array(one, { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 20 }),
        fc.boolean(),
        (frames, lengths, holds) => {
          const bytes = Buffer.concat([START, ...frames])
          const whole = reading()
          assert.equal(whole.reader.read(bytes), H2_ERROR.none)
          const cut = reading()
          if (holds) cut.notes.onHeaders = () => cut.reader.hold()
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const length = lengths[i % lengths.length]!
            // The memory of what was read is used again.
            const lent = Buffer.from(bytes.subarray(at, at + length))
            assert.equal(cut.reader.read(lent), H2_ERROR.none)
            lent.fill('!')
            while (cut.reader.held) assert.equal(cut.reader.release(), H2_ERROR.none)
            at += length
          }
          assert.deepEqual(cut.notes.list, whole.notes.list)
        },
      ),
      { numRuns: 500 },
    )
  })

  it('gives the same ones of large frames, in memory that another reader uses in turn', () => {
    const large = fc
      .tuple(
        fc.constantFrom(FRAME.data, FRAME.headers, 6, 0xee),
        fc.integer({ min: 1, max: 16_384 }),
      )
      .map(([type, length]) => {
        const text = Array.from({ length }, (_, i) => (i % 26) + 97)
        return frame(type, type === FRAME.headers ? FLAG.endHeaders : 0, 1, Buffer.from(text))
      })
    const lengths = fc.array(fc.integer({ min: 1, max: 20_000 }), { minLength: 1, maxLength: 20 })
    fc.assert(
      fc.property(
        fc.array(large, { maxLength: 8 }),
        lengths,
        fc.boolean(),
        (frames, cuts, holds) => {
          const bytes = Buffer.concat([START, ...frames])
          const whole = reading()
          assert.equal(whole.reader.read(bytes), H2_ERROR.none)
          const memory = new SharedMemory()
          const both = [reading(PREFACE, memory), reading(PREFACE, memory)]
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const length = cuts[i % cuts.length]!
            for (const { notes, reader } of both) {
              if (holds) notes.onHeaders = () => reader.hold()
              const lent = Buffer.from(bytes.subarray(at, at + length))
              assert.equal(reader.read(lent), H2_ERROR.none)
              lent.fill('!')
              while (reader.held) assert.equal(reader.release(), H2_ERROR.none)
            }
            at += length
          }
          for (const { notes } of both) assert.deepEqual(notes.list, whole.notes.list)
        },
      ),
      { numRuns: 200 },
    )
  })

  it('gives the memory of a part back when it is stopped, but not while its bytes are looked at', () => {
    const memory = new SharedMemory()
    const settings = frame(FRAME.settings, 0, 0, Buffer.alloc(16_000))
    const { reader } = reading(Buffer.alloc(0), memory)
    reader.read(settings.subarray(0, 10_000))
    assert.ok(reader.heldBytes >= 10_000)
    reader.stop()
    assert.equal(memory.free.length, 1)
    assert.equal(reader.heldBytes, 0)

    const other = reading(Buffer.alloc(0), memory)
    const headers = frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.alloc(16_000, 'a'))
    const free: number[] = []
    other.notes.onHeaders = () => {
      other.reader.stop()
      free.push(memory.free.length)
    }
    other.reader.read(Buffer.concat([settingsFrame([]), headers.subarray(0, 10_000)]))
    other.reader.read(headers.subarray(10_000))
    assert.deepEqual([...free, memory.free.length], [0, 1])
  })

  it('leaves out what pads, and says how much that was', () => {
    const { notes, reader } = reading()
    const padded = frame(FRAME.data, 0x9, 1, Buffer.from('\x02abc\0\0', 'latin1'))
    reader.read(Buffer.concat([START, padded]))
    assert.deepEqual(notes.list.slice(1), ['data 1 of 6, 3 for nothing, last: abc', 'end 1'])
  })

  for (const [what, bytes, code] of [
    ['another preface', Buffer.from('hallo'), H2_ERROR.protocol],
    ['no SETTINGS first', Buffer.concat([PREFACE, data(1, 'a')]), H2_ERROR.protocol],
    [
      'padding longer than the frame',
      Buffer.concat([START, frame(0, 8, 1, Buffer.from([3, 0, 0]))]),
      H2_ERROR.protocol,
    ],
    [
      'no room for the length of padding',
      Buffer.concat([START, frame(0, 8, 1, Buffer.alloc(0))]),
      H2_ERROR.protocol,
    ],
    [
      'HEADERS without room for it',
      Buffer.concat([START, frame(1, 0xc, 1, Buffer.alloc(0))]),
      H2_ERROR.frameSize,
    ],
    [
      'HEADERS without room for a priority',
      Buffer.concat([START, frame(1, 0x24, 1, Buffer.alloc(4))]),
      H2_ERROR.protocol,
    ],
    [
      'a frame above the size that we take',
      Buffer.concat([START, frame(6, 0, 0, Buffer.alloc(16_385))]),
      H2_ERROR.frameSize,
    ],
    [
      'CONTINUATION alone',
      Buffer.concat([START, frame(9, 4, 1, Buffer.alloc(1))]),
      H2_ERROR.protocol,
    ],
    [
      'a block in too many frames',
      Buffer.concat([
        START,
        frame(1, 0, 1, Buffer.alloc(1)),
        ...Array.from({ length: 4 }, () => frame(9, 0, 1, Buffer.alloc(0))),
      ]),
      H2_ERROR.enhanceYourCalm,
    ],
    [
      'a block of too many bytes',
      Buffer.concat([START, frame(1, 0, 1, Buffer.alloc(600)), frame(9, 4, 1, Buffer.alloc(600))]),
      H2_ERROR.enhanceYourCalm,
    ],
  ] as const) {
    it(`refuses ${what}, also byte by byte`, () => {
      assert.equal(reading().reader.read(bytes), code)
      const { reader } = reading()
      let last: number = H2_ERROR.none
      for (const byte of bytes) {
        last = reader.read(Buffer.from([byte]))
        if (last !== H2_ERROR.none) break
      }
      assert.equal(last, code)
    })
  }
})

describe('what has begun and is not whole', () => {
  const block = Buffer.alloc(10)

  it('is another thing with each frame and header block, and nothing while we hold', () => {
    const { reader } = reading()
    reader.read(START)
    assert.equal(reader.unfinished, undefined)
    reader.read(frame(FRAME.ping, 0, 0, Buffer.alloc(8)).subarray(0, 12))
    const first = reader.unfinished
    assert.notEqual(first, undefined)
    reader.read(Buffer.alloc(1))
    assert.equal(reader.unfinished, first)
    reader.read(
      Buffer.concat([Buffer.alloc(4), frame(FRAME.ping, 0, 0, Buffer.alloc(8)).subarray(0, 3)]),
    )
    assert.notEqual(reader.unfinished, first)
    reader.read(frame(FRAME.ping, 0, 0, Buffer.alloc(8)).subarray(3))
    assert.equal(reader.unfinished, undefined)

    reader.read(frame(FRAME.headers, 0, 1, block))
    const second = reader.unfinished
    assert.notEqual(second, undefined)
    reader.read(frame(FRAME.continuation, 0, 1, block))
    assert.equal(reader.unfinished, second, 'frames of a block do not make it whole')
    reader.hold()
    reader.read(frame(FRAME.continuation, FLAG.endHeaders, 1, block))
    assert.equal(reader.unfinished, undefined, 'it is whole, and waits for us')
    reader.release()
    assert.equal(reader.unfinished, undefined)
  })
})
