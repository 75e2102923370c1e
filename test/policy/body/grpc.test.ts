import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { GrpcDescriptors, grpcPrefix } from '../../../src/policy/body/grpc.ts'
import { parseBody } from '../../../src/policy/body/parsed-body.ts'
import { InputError } from '../../../src/policy/input-error.ts'

interface Case {
  readonly type: string
  readonly message: string
  readonly json?: string
  readonly error?: true
}

/** What Go's proto.Unmarshal and protojson.Marshal (v1.36.12) make of random and broken messages. */
const { descriptors, cases } = JSON.parse(
  readFileSync(new URL('protojson-cases.json', import.meta.url), 'utf8'),
) as { readonly descriptors: string; readonly cases: readonly Case[] }
/** One of the cases: a bit of a tag is flipped. */
const ANOTHER_WIRE_TYPE = 'bcwDAADSAwDiAwD6AQDqBAlfX3Byb3RvX18='
const grpc = new GrpcDescriptors(Buffer.from(descriptors, 'base64'))

const METHODS: Readonly<Record<string, readonly string[]>> = {
  'cases.All': ['cases.Service', 'Unary'],
  'legacy.Old': ['cases.Service', 'Legacy'],
}

/** With each number as it is written. */
function exact(text: string): unknown {
  const keepNumber = (_key: string, value: unknown, context?: { readonly source: string }) =>
    typeof value === 'number' ? `number ${context?.source}` : value
  return JSON.parse(text, keepNumber)
}

function read(type: string, message: Buffer): string {
  const request = grpc.requestType(METHODS[type] ?? [])
  assert.ok(request)
  return grpc.read(request, message)
}

describe('a message in protocol buffers', () => {
  it('becomes the JSON that Go makes of it', () => {
    const sound = cases.filter(({ error }) => error === undefined)
    assert.ok(sound.length > 100)
    for (const { type, message, json = '' } of sound) {
      if (message === ANOTHER_WIRE_TYPE) continue
      const text = read(type, Buffer.from(message, 'base64'))
      assert.deepEqual(exact(text), exact(json), message)
    }
  })

  it('with a field in another wire type, which Go skips and others read, is refused', () => {
    const bytes = Buffer.from(ANOTHER_WIRE_TYPE, 'base64')
    assert.throws(() => read('cases.All', bytes), InputError)
  })

  it('that Go refuses is refused', () => {
    const broken = cases.filter(({ error }) => error)
    assert.ok(broken.length > 10)
    for (const { type, message } of broken) {
      assert.throws(() => read(type, Buffer.from(message, 'base64')), InputError, message)
    }
  })

  it('is refused when it is nested without end', () => {
    let message = Buffer.alloc(0)
    for (let i = 0; i < 200; i++) {
      message = Buffer.concat([Buffer.from([0x08, 1, 0x1a]), varint(message.length), message])
    }
    assert.throws(() => read('legacy.Old', message), InputError)
  })
})

describe('a message of many values', () => {
  it('is refused', () => {
    const deep = Buffer.from([0x1a, 2, 8, 1])
    const times = (count: number) =>
      Buffer.concat([Buffer.from([8, 1]), ...Array.from({ length: count }, () => deep)])
    assert.equal(read('legacy.Old', times(4_999)), '{"must":1,"deep":{"must":1}}')
    assert.throws(() => read('legacy.Old', times(5_000)), InputError)
  })
})

describe('a gRPC body', () => {
  const contentType = 'application/grpc+proto'
  const unary = ['cases.Service', 'Unary']
  const message = Buffer.from([0x5a, 2, 0x68, 0x69])
  const parse = (bytes: Buffer, path: readonly string[], complete = true, descriptors = true) =>
    parseBody({ bytes, complete }, contentType, path, descriptors ? grpc : undefined)

  it('is its first message, whatever follows', () => {
    const body = Buffer.concat([framed(sample), framed(sample), Buffer.from([0, 0])])
    const expected = { parsed: read('cases.All', sample), truncated: false }
    assert.deepEqual(parse(body, unary), expected)
    assert.deepEqual(parse(body, unary, false), expected)
    assert.notEqual(expected.parsed, '{}')
  })

  it('is truncated while the first message is not at hand', () => {
    const body = framed(sample)
    for (let length = 0; length < body.length; length++) {
      const { parsed, truncated } = parse(body.subarray(0, length), unary, false)
      assert.deepEqual([parsed, truncated], ['null', true])
    }
    assert.equal(parse(body.subarray(0, -1), unary, true).truncated, true)
  })

  it('is not parsed when it is compressed, of no known method, or the client streams', () => {
    const compressed = framed(message)
    compressed[0] = 1
    assert.deepEqual(parse(compressed, unary), { parsed: 'null', truncated: false })
    for (const path of [
      ['cases.Service', 'Client'],
      ['cases.Service', 'Both'],
      ['cases.Service', 'Other'],
      ['cases.Other', 'Unary'],
      ['cases.All', 'Unary'],
      ['cases.Service', 'constructor'],
    ]) {
      assert.deepEqual(parse(framed(message), path), { parsed: 'null', truncated: false })
      assert.deepEqual(parse(framed(message), path, false), { parsed: 'null', truncated: true })
    }
    assert.deepEqual(parse(Buffer.alloc(0), unary), { parsed: 'null', truncated: false })
  })

  it('is not parsed without descriptors', () => {
    assert.deepEqual(parse(framed(message), unary, true, false), {
      parsed: 'null',
      truncated: false,
    })
  })

  it('of a server that streams is parsed', () => {
    assert.equal(parse(framed(sample), ['cases.Service', 'Server']).truncated, false)
    assert.notEqual(parse(framed(sample), ['cases.Service', 'Server']).parsed, 'null')
  })

  it('is refused below five bytes and for another path', () => {
    assert.throws(() => parse(Buffer.from([0, 0]), unary), InputError)
    for (const path of [[''], ['cases.Service'], ['a', 'cases.Service', 'Unary']]) {
      assert.throws(() => parse(framed(message), path), InputError)
    }
  })
})

describe('descriptors', () => {
  it('name the methods whose bodies can be read', () => {
    assert.deepEqual(
      [...grpc.methods].sort(),
      ['Legacy', 'Server', 'Unary'].map((name) => `cases.Service/${name}`),
    )
  })

  it('that are none are refused', () => {
    assert.throws(() => new GrpcDescriptors(Buffer.from('syntax = "proto3";')))
    const set = Buffer.from(descriptors, 'base64')
    assert.throws(() => new GrpcDescriptors(set.subarray(0, set.length - 10)))
  })

  it('say nothing by an empty prefix', () => {
    assert.equal(grpcPrefix(Buffer.from([0, 0, 0, 0])), undefined)
    assert.deepEqual(grpcPrefix(Buffer.from([0, 255, 255, 255, 255])), {
      compressed: false,
      end: 0xffffffff + 5,
    })
  })
})

/** A message with a text in its field `one_string`, whatever its number. */
const sample = (() => {
  for (let number = 1; number < 40; number++) {
    const message = Buffer.from([...varint((number << 3) | 2), 2, 0x68, 0x69])
    try {
      if (read('cases.All', message) === '{"oneString":"hi"}') return message
    } catch {
      // another type
    }
  }
  return assert.fail('no such field')
})()

function framed(message: Buffer): Buffer {
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(message.length, 1)
  return Buffer.concat([prefix, message])
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest > 127; rest >>>= 7) bytes.push((rest & 127) | 128)
  bytes.push(rest)
  return Buffer.from(bytes)
}
