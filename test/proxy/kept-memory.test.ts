// What is kept of a client takes the memory that is counted for it, whatever else the thread does meanwhile.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { ChunkedDecoder } from '../../src/http/chunked.ts'
import { FRAME, H2_ERROR, settingsFrame } from '../../src/http/h2/frames.ts'
import { HpackDecoder } from '../../src/http/h2/hpack.ts'
import { FrameReader } from '../../src/http/h2/reader.ts'
import { UNSHARED } from '../../src/http/kept-bytes.ts'
import { TRAILER_LIMITS } from '../../src/proxy/collecting.ts'
import { Copies } from '../../src/proxy/copies.ts'
import { Retry } from '../../src/proxy/retry.ts'
import { frame } from '../support/raw-http2.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** What was given up before is gone when it is measured. */
async function memory(kind: 'arrayBuffers' | 'heapUsed'): Promise<number> {
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return process.memoryUsage()[kind]
}

/** As answers of a few KiB do. */
function othersAreServed(): void {
  for (let i = 0; i < 20; i++) Buffer.allocUnsafe(4_000)
}

const MANY = 200

describe('memory that is kept', () => {
  it('for header blocks that have come in part', async () => {
    const before = await memory('arrayBuffers')
    const readers = Array.from({ length: MANY }, () => {
      const user = {
        dataBegins: () => H2_ERROR.none,
        data() {},
        dataEnds() {},
        headers: () => H2_ERROR.none,
        control: () => H2_ERROR.none,
      }
      const limits = { blockBytes: 1 << 16, blockFrames: 64 }
      const reader = new FrameReader(user, () => limits, Buffer.alloc(0), UNSHARED)
      reader.read(settingsFrame([]))
      reader.read(frame(FRAME.headers, 0, 1, Buffer.alloc(1)))
      othersAreServed()
      return reader
    })
    const counted = readers.reduce((sum, { heldBytes }) => sum + heldBytes, 0)
    const taken = (await memory('arrayBuffers')) - before
    assert.ok(taken < counted + MANY * 1024, `${taken} bytes are taken, ${counted} are counted`)
  })

  it('for bodies that may have to be sent once more', async () => {
    const copies = new Copies()
    const before = await memory('arrayBuffers')
    const kept = Array.from({ length: MANY }, () => {
      const retry = new Retry(copies)
      retry.keep(Buffer.from('x'))
      othersAreServed()
      return retry
    })
    const counted = kept.reduce((sum, { keptBytes }) => sum + keptBytes, 0)
    const taken = (await memory('arrayBuffers')) - before
    assert.ok(taken < counted + MANY * 1024, `${taken} bytes are taken, ${counted} are counted`)
  })

  it('for the table of header compression', async () => {
    // Eight times `a`.
    const eight = Buffer.from([0x18, 0xc6, 0x31, 0x8c, 0x63])
    const value = Buffer.concat(Array.from({ length: 500 }, () => eight))
    // Indexed, with a new name; the value in Huffman's code.
    const length = [0xff, ((value.length - 127) & 0x7f) | 0x80, (value.length - 127) >> 7]
    const block = Buffer.concat([Buffer.from([0x40, 1, 0x78, ...length]), value])
    const before = await memory('heapUsed')
    const decoders = Array.from({ length: MANY }, () => {
      const decoder = new HpackDecoder()
      assert.equal(decoder.decode(block, { listBytes: 100, count: 10 }).kind, 'block')
      return decoder
    })
    const each = ((await memory('heapUsed')) - before) / decoders.length
    assert.ok(each < 16 * 1024, `${Math.round(each)} bytes for a table of 4 KiB`)
  })

  it('for trailers that have come in part', async () => {
    const bytes = Buffer.from(`0\r\nx: ${'y'.repeat(8_000)}`)
    const before = await memory('heapUsed')
    const decoders = Array.from({ length: MANY }, () => {
      const decoder = new ChunkedDecoder(TRAILER_LIMITS)
      decoder.decode(bytes, 0, bytes.length, () => {})
      return decoder
    })
    const each = ((await memory('heapUsed')) - before) / decoders.length
    assert.ok(each < 16 * 1024, `${Math.round(each)} bytes for 8 KiB`)
  })
})
