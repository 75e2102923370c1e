// A workload that speaks HTTP/2, or something else: whatever bytes it sends, each call ends once, what it
// hands on is an answer, and nothing throws.
import assert from 'node:assert/strict'
import net, { type AddressInfo } from 'node:net'
import { isToken } from '../../../src/field-names.ts'
import {
  dataFrameHeader,
  goAwayFrame,
  headersFrames,
  pingAckFrame,
  resetStreamFrame,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../../src/http/h2/frames.ts'
import { encodeHeaderBlock } from '../../../src/http/h2/hpack.ts'
import type { AnswerHead, CallRequest, UpgradeUser } from '../../../src/proxy/call.ts'
import { H2cPool } from '../../../src/proxy/h2c/pool.ts'
import { Turn } from '../../../src/proxy/turn.ts'
import { framesMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

const answer = (fields: readonly string[], endStream: boolean, stream = 1) =>
  headersFrames(encodeHeaderBlock(fields), stream, endStream, 16_384)
const data = (text: string, endStream: boolean) =>
  Buffer.concat([dataFrameHeader(text.length, 1, endStream), Buffer.from(text)])
const START = settingsFrame([
  [4, 1_000],
  [8, 1],
])

export const target: Target = {
  name: 'h2c-workload',
  runs: 400,
  seeds: () => [
    Buffer.concat([START, settingsAckFrame(), answer([':status', '200', 'x-a', 'b'], true)]),
    Buffer.concat([
      START,
      answer([':status', '103'], false),
      answer([':status', '200', 'content-length', '2'], false),
      data('hi', true),
    ]),
    Buffer.concat([
      START,
      answer([':status', '200'], false),
      data('a', false),
      answer(['grpc-status', '0'], true),
    ]),
    Buffer.concat([
      START,
      pingAckFrame(Buffer.alloc(8)),
      windowUpdateFrame(0, 9),
      windowUpdateFrame(1, 2 ** 31 - 1),
    ]),
    Buffer.concat([START, resetStreamFrame(1, 8), goAwayFrame(0, 0)]),
    'HTTP/1.1 400 Bad Request\r\n\r\n',
  ],
  dictionary: [
    '\0\0\0\x04\0\0\0\0\0',
    '\x88',
    '\0\0\0\x09\x04\0\0\0\x01',
    '\0\0\0\0\x01\0\0\0\x01',
    '\0\x40\x01',
    '\xff\xff\xff\xff',
  ],
  mutators: [framesMutator],
  check: async (input) => {
    await assertAnswered(input, POST)
    await assertAnswered(input, WEB_SOCKET)
  },
}

/** One server for all inputs: it sends the one at hand, and then no more. */
let sending: Buffer = Buffer.alloc(0)
const server = net.createServer((socket) => {
  socket.on('error', () => {})
  socket.once('data', () => socket.end(sending))
  socket.resume()
})
const listening = new Promise<number>((resolve) => {
  server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port))
  server.unref()
})

const POST: CallRequest = {
  ...{ method: 'POST', target: '/', authority: 'a', scheme: 'https', fields: [] },
  ...{ body: { kind: 'chunked' }, expectContinue: false },
}
const WEB_SOCKET: CallRequest = {
  ...POST,
  ...{ method: 'GET', body: { kind: 'none' }, webSocketKey: 'dGhlIHNhbXBsZSBub25jZQ==' },
}

async function assertAnswered(input: Buffer, request: CallRequest): Promise<void> {
  const { faults, ends, head } = await answered(input, request)
  assert.deepEqual(faults, [])
  assert.equal(ends, 1)
  if (head === undefined) return
  assert.ok(head.status >= 200 && head.status <= 599)
  for (let i = 0; i < head.fields.length; i += 2) {
    assert.ok(isToken(head.fields[i]!))
    assert.doesNotMatch(head.fields[i + 1]!, /[\0\r\n]/)
  }
}

async function answered(input: Buffer, request: CallRequest) {
  sending = input
  const seen = {
    faults: [] as unknown[],
    ends: 0,
    head: undefined as Pick<AnswerHead, 'status' | 'fields'> | undefined,
  }
  const pool = new H2cPool({
    address: { kind: 'tcp', host: '127.0.0.1', port: await listening },
    limits: () => ({ listBytes: 65_536, count: 200 }),
    turn: new Turn(),
    nowMs: () => 0,
    fault: (error) => seen.faults.push(error),
    maxConnections: 1,
    connectTimeoutMs: 5_000,
    opened: () => {},
  })
  const over = Promise.withResolvers<void>()
  const end = () => {
    seen.ends++
    over.resolve()
  }
  const user: UpgradeUser = {
    callInterim: (head) =>
      assert.ok(head.status >= 100 && head.status < 200 && seen.head === undefined),
    callHead: (head) => {
      assert.equal(seen.head, undefined)
      seen.head = head
    },
    callData: () => assert.ok(seen.head !== undefined && seen.ends === 0),
    callEnd: end,
    callDrain: () => {},
    callFailed: end,
    callUpgraded: (fields, upstream) => {
      assert.ok(request.webSocketKey !== undefined && seen.head === undefined)
      seen.head = { status: 200, fields }
      upstream.begin({
        upstreamData: () => assert.equal(seen.ends, 0),
        upstreamDrain: () => {},
        upstreamEnd: () => upstream.end(),
        upstreamFailed: end,
        upstreamFault: end,
      })
      upstream.write(Buffer.from('some'))
    },
  }
  const call = pool.call(user, request)
  call.begin()
  if (request.body.kind !== 'none') call.write(Buffer.from('some'))
  call.end([])
  await over.promise
  pool.close()
  await new Promise((resolve) => setImmediate(resolve))
  return seen
}
