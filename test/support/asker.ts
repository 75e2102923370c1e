// One request through the sidecar, over any protocol that clients speak, and how it ended in a few
// words: so that one table can say what each fault of a workload comes to for each kind of client.
import assert from 'node:assert/strict'
import { calmAnswer } from './bystander.ts'
import type { Cleanup } from './cleanup.ts'
import { eventually } from './eventually.ts'
import { get, MessageReader, openClient } from './http1.ts'
import type { IssuedCertificate } from './pki.ts'
import { data, head, openRawHttp2, type RawHttp2, requestFields } from './raw-http2.ts'
import type { TestSidecar } from './sidecar.ts'

export interface Question {
  readonly path: string
  /** Default: GET, or POST where there is a body. */
  readonly method?: string
  /** Less than the first window of a connection (64 KiB). */
  readonly body?: string
  /** The end of the body does not come before an answer. */
  readonly unfinished?: boolean
  /** Nothing is asked behind it: there may be nobody who would answer. */
  readonly alone?: boolean
}

/**
 * `200 body`: a complete answer; with `, closed` where the connection ended behind it unannounced. `502 upstream_reset`: one that Postern made. `cut 200 bo`: one that
 * began, and is seen to be incomplete. `nothing`: no byte of one. `grpc 14`: a status, and `cut grpc`
 * where there was none.
 */
export type Ending = string

export type Asker = (
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
  question: Question,
) => Promise<Ending>

const AFTER = '/calm/after'
const FRAME_BYTES = 16_384
const methodOf = ({ method, body }: Question): string =>
  method ?? (body === undefined ? 'GET' : 'POST')

/** Where the answer does not announce the end of the connection, it has to serve the next request. */
export const askHttp1: Asker = async (t, sidecar, certificate, question) => {
  const client = await openClient(t, sidecar, certificate)
  const reader = new MessageReader()
  let over = false
  client.socket.on('data', (chunk: Buffer) => reader.push(chunk))
  for (const event of ['end', 'close']) client.socket.on(event, () => (over = true))
  const method = methodOf(question)
  const { path, body, unfinished } = question
  const framing =
    body === undefined
      ? ''
      : unfinished
        ? 'transfer-encoding: chunked\r\n'
        : `content-length: ${body.length}\r\n`
  const bytes =
    body === undefined ? '' : unfinished ? `${body.length.toString(16)}\r\n${body}\r\n` : body
  client.send(`${method} ${path} HTTP/1.1\r\nhost: localhost\r\n${framing}\r\n${bytes}`)
  for (;;) {
    const answer = await eventually(
      `the answer to ${path}`,
      () => reader.next(method) ?? (over ? 'over' : undefined),
    )
    if (answer === 'over') {
      const text = reader.rest.toString('latin1')
      client.socket.destroy()
      if (text === '') return 'nothing'
      const bodyAt = text.indexOf('\r\n\r\n') + 4
      const body = text.slice(bodyAt)
      const inChunks = text.slice(0, bodyAt).includes('transfer-encoding: chunked')
      return `cut ${text.slice(9, 12)} ${inChunks ? dataOf(body) : body}`
    }
    if (answer.status < 200) continue
    let closed = false
    if (answer.values('connection').includes('close')) {
      await eventually('the connection ends as announced', () => over)
    } else if (question.alone !== true) {
      client.send(`${unfinished ? '0\r\n\r\n' : ''}${get(AFTER)}`)
      const after = await eventually(
        'the next answer',
        () => reader.next() ?? (over ? 'over' : undefined),
      )
      closed = after === 'over'
      if (after !== 'over') assert.equal(String(after.body), calmAnswer(AFTER))
    }
    assert.equal(reader.rest.length, 0, 'bytes behind the answer')
    client.socket.destroy()
    return `${endingOf(answer.status, answer.body)}${closed ? ', closed' : ''}`
  }
}

/** The stream ends, and the connection serves the next request whatever became of the first. */
export const askHttp2: Asker = async (t, sidecar, certificate, question) => {
  const raw = await openRawHttp2(t, sidecar, certificate)
  sendOn(raw, question, [])
  const answer = await raw.answered(1)
  await assertGoesOn(raw, question)
  if (answer.status === 0) return 'nothing'
  if (!answer.ended) return `cut ${answer.status} ${answer.body}`
  return endingOf(answer.status, answer.body)
}

/** The question's body is the message of a call. */
export const askGrpc: Asker = async (t, sidecar, certificate, question) => {
  const raw = await openRawHttp2(t, sidecar, certificate)
  sendOn(raw, { body: '\0\0\0\0\x02hi', ...question }, [
    ...['content-type', 'application/grpc', 'te', 'trailers'],
  ])
  const { status, fields, trailers, ended } = await raw.answered(1)
  await assertGoesOn(raw, question)
  const all = [...fields, ...trailers]
  const at = all.indexOf('grpc-status')
  if (at === -1) return ended && status !== 200 ? `${status}` : 'cut grpc'
  return `${ended ? '' : 'cut '}grpc ${all[at + 1]}`
}

function sendOn(raw: RawHttp2, question: Question, fields: readonly string[]): void {
  const { path, body, unfinished } = question
  const method = methodOf(question)
  const list = [...requestFields({ ':method': method, ':path': path }), ...fields]
  raw.send(head(1, list, body === undefined))
  if (body === undefined) return
  let at = 0
  do {
    const piece = body.slice(at, at + FRAME_BYTES)
    at += FRAME_BYTES
    raw.send(data(1, piece, at >= body.length && unfinished !== true))
  } while (at < body.length)
}

async function assertGoesOn(raw: RawHttp2, { alone }: Question): Promise<void> {
  if (alone === true) return void raw.socket.destroy()
  raw.send(head(3, requestFields({ ':path': AFTER })))
  const { status, body } = await raw.answered(3)
  assert.equal(`${status} ${body}`, `200 ${calmAnswer(AFTER)}`)
  raw.socket.destroy()
}

/** Of complete chunks; the sidecar writes no others. */
function dataOf(chunks: string): string {
  let data = ''
  for (let rest = chunks; rest !== ''; ) {
    const [, size = '', body = ''] = /^([\da-f]+)\r\n(.*)$/s.exec(rest) ?? []
    const length = Number.parseInt(size, 16)
    assert.ok(length > 0 && body.slice(length, length + 2) === '\r\n', `no chunk: ${rest}`)
    data += body.slice(0, length)
    rest = body.slice(length + 2)
  }
  return data
}

function endingOf(status: number, body: Buffer): Ending {
  const text = body.toString('latin1')
  return `${status} ${/^\{"error":"(\w+)"/.exec(text)?.[1] ?? text}`.trimEnd()
}
