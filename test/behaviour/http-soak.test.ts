import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type net from 'node:net'
import { before, describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type Message, openResettableClient, startScriptedWorkload } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { type Randomness, randomness, SEED } from '../support/randomness.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'

const CLIENTS = 12
const CONNECTIONS_EACH = 10
const MOST_REQUESTS = 12
const MOST_BODY = 40_000

const digest = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex')

/** The body as one of the framings, and the field that says so. */
function framed(body: string, random: Randomness): readonly [field: string, bytes: string] {
  if (random.chance(0.5)) return [`content-length: ${body.length}\r\n`, body]
  let bytes = ''
  for (let at = 0; at < body.length; ) {
    const size = 1 + random.below(Math.min(body.length - at, 9_000))
    bytes += `${size.toString(16)}\r\n${body.slice(at, at + size)}\r\n`
    at += size
  }
  return [
    'transfer-encoding: chunked\r\n',
    `${bytes}0\r\n${random.chance(0.3) ? 'x-t: 1\r\n' : ''}\r\n`,
  ]
}

/** Writes in pieces of random size, each on its own turn of the event loop now and then. */
async function writeInPieces(socket: net.Socket, bytes: string, random: Randomness): Promise<void> {
  for (let at = 0; at < bytes.length && !socket.destroyed; ) {
    const size = 1 + random.below(random.chance(0.2) ? 40 : 20_000)
    socket.write(bytes.slice(at, at + size), 'latin1')
    at += size
    if (random.chance(0.5)) await new Promise((resolve) => setImmediate(resolve))
  }
}

describe(`any valid traffic (POSTERN_SEED=${SEED})`, () => {
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let broken = 0
  let answered = 0
  const t = suiteCleanup()
  before(async () => {
    const random = randomness(SEED ^ 0x5eed)
    const busy = new WeakMap<net.Socket, Promise<void>>()
    const workload = await startScriptedWorkload(t, (socket, request) => {
      const [, path] = request.line.split(' ')
      const body = random.text(random.below(MOST_BODY))
      let [field, bytes] = framed(body, random)
      if (request.line.startsWith('HEAD')) bytes = ''
      const untilClose = !request.line.startsWith('HEAD') && random.chance(0.1)
      if (untilClose) [field, bytes] = ['', body]
      const last = untilClose || random.chance(0.05)
      const hint = random.chance(0.1) ? 'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n' : ''
      const answer = `${hint}HTTP/1.1 200 OK\r\nx-path: ${path}\r\nx-asked: ${digest(request.body)}\r\nx-sum: ${digest(body)}\r\n${last ? 'connection: close\r\n' : ''}${field}\r\n${bytes}`
      const before = busy.get(socket) ?? Promise.resolve()
      busy.set(
        socket,
        before.then(async () => {
          if (random.chance(0.02)) return void socket.resetAndDestroy()
          await writeInPieces(socket, answer, random)
          if (last) socket.end()
        }),
      )
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { log: { decisions: 'off' } },
    })
    web = await sidecar.authority.svid('web')
  })

  interface Sent {
    readonly method: string
    readonly path: string
    readonly sum: string
  }

  function check(sent: Sent, answer: Message): void {
    if (answer.status >= 500) {
      // The workload resets now and then; whoever asked is told so, and nobody else.
      assert.match(String(answer.body), /upstream_reset|^$/)
      broken++
      return
    }
    assert.equal(answer.status, 200)
    assert.deepEqual(answer.values('x-path'), [sent.path])
    assert.deepEqual(answer.values('x-asked'), [sent.sum])
    if (sent.method !== 'HEAD') assert.deepEqual(answer.values('x-sum'), [digest(answer.body)])
    answered++
  }

  async function oneConnection(name: string, random: Randomness): Promise<void> {
    const client = await openResettableClient(t, sidecar, web)
    const requests = 1 + random.below(MOST_REQUESTS)
    const sent: Sent[] = []
    let bytes = ''
    for (let i = 0; i < requests; i++) {
      const method = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE'][random.below(5)] ?? 'GET'
      const path = `/${name}/${i}`
      const hasBody = method === 'POST' || method === 'PUT' || random.chance(0.1)
      const body = hasBody ? random.text(random.below(MOST_BODY)) : ''
      const [field, framedBody] = hasBody ? framed(body, random) : ['', '']
      bytes += `${method} ${path} HTTP/1.1\r\nhost: localhost\r\n${field}\r\n${framedBody}`
      sent.push({ method, path, sum: digest(body) })
    }
    const pipelined = random.chance(0.7)
    const abortAt = random.chance(0.2) ? random.below(bytes.length) : -1
    if (abortAt !== -1) {
      await writeInPieces(client.socket, bytes.slice(0, abortAt), random)
      if (random.chance(0.5)) client.reset()
      else client.socket.end()
    } else if (pipelined)
      void writeInPieces(client.socket, bytes, random).then(
        () => void (random.chance(0.3) && client.socket.end()),
      )
    else client.send(bytes)
    for (const one of sent) {
      const answer = await nextFinal(client, one.method)
      // After an abort the answers stop somewhere; those that come must be right all the same.
      if (answer === undefined) {
        assert.ok(abortAt !== -1 || broken > 0, `no answer to ${one.path}`)
        break
      }
      check(one, answer)
      if (answer.values('connection').includes('close')) break
    }
    client.socket.destroy()
  }

  async function nextFinal(
    client: Awaited<ReturnType<typeof openResettableClient>>,
    method: string,
  ): Promise<Message | undefined> {
    for (;;) {
      const answer = await client.answer(method).catch((error: Error) => {
        if (/^no answer/.test(error.message)) return undefined
        throw error
      })
      if (answer === undefined || answer.status >= 200) return answer
    }
  }

  it('gets each answer to the request that it belongs to', async () => {
    await Promise.all(
      Array.from({ length: CLIENTS }, async (_, client) => {
        const random = randomness(SEED + client)
        for (let i = 0; i < CONNECTIONS_EACH; i++) await oneConnection(`${client}-${i}`, random)
      }),
    )
    assert.ok(answered > CLIENTS * CONNECTIONS_EACH, `only ${answered} answers`)
  })

  it('leaves nothing behind', async () => {
    for (const gauge of ['postern_connections_open', 'postern_upstream_connections_open']) {
      await eventually(`${gauge} is 0`, async () => (await sidecar.metric(gauge)) === 0)
    }
    assert.deepEqual(
      sidecar.lines.filter(({ event }) => event === 'fault'),
      [],
    )
  })
})
