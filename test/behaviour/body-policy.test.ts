import assert from 'node:assert/strict'
import { copyFile, readFile, rename, writeFile } from 'node:fs/promises'
import type net from 'node:net'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import {
  chunked,
  get,
  type Http1Client,
  type Message,
  ok,
  openClient,
  post,
  startScriptedWorkload,
} from '../support/http1.ts'
import { openSession, replyOf } from '../support/http2.ts'
import { type IssuedCertificate, temporaryDirectory, testAuthority } from '../support/pki.ts'
import { reconfigure } from '../support/reconfigure.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import type { RawWorkload } from '../support/workload.ts'

/** Reads parsed_body, so that bodies are collected without being asked for. */
const BUNDLE = fileURLToPath(new URL('../policy/bundles/body.tar.gz', import.meta.url))
const JSON_TYPE = 'content-type: application/json\r\n'
const MAX_BYTES = 1024

interface Seen {
  readonly parsed: unknown
  readonly truncated: boolean
  readonly partial: string | null
  readonly size: number | null
  readonly text: string | null
  readonly raw: string | null
}

const seenText = (message: Message | undefined): string =>
  Buffer.from(message?.values('x-seen')[0] ?? '', 'base64').toString()

const seenBy = (message: Message | undefined): Seen =>
  JSON.parse(seenText(message) || 'null') as Seen

describe('a policy that reads bodies', () => {
  let sidecar: TestSidecar
  let workload: RawWorkload
  let web: IssuedCertificate
  const requests: Message[] = []
  const respond = (socket: net.Socket) => socket.write(ok('done'))
  const t = suiteCleanup()
  before(async () => {
    workload = await startScriptedWorkload(t, (socket, request) => {
      requests.push(request)
      respond(socket)
    })
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        policy: { bundle: BUNDLE, input: { body: { maxBytes: MAX_BYTES, totalBytes: '128KiB' } } },
        inbound: { timeouts: { requestBody: '400ms' } },
        log: { access: 'all' },
      },
    })
    web = await sidecar.authority.svid('web')
  })

  const open = (): Promise<Http1Client> => openClient(t, sidecar, web)

  const ask = async (
    bytes: string,
  ): Promise<{ answer: Message; seen: Seen; request?: Message }> => {
    requests.length = 0
    const client = await open()
    client.send(bytes)
    const answer = await client.answer()
    client.socket.destroy()
    const request = requests[0]
    return { answer, seen: seenBy(request ?? answer), ...(request && { request }) }
  }

  it('decides by JSON, whatever the framing, and the workload gets it byte for byte', async () => {
    const body = '{ "allow": true, "n": 12345678901234567890.10 }'
    const whole = await ask(post('/', body, JSON_TYPE))
    assert.equal(whole.answer.status, 200)
    assert.equal(String(whole.request?.body), body)
    assert.deepEqual(whole.request?.values('content-length'), [String(body.length)])
    assert.deepEqual(
      [whole.seen.truncated, whole.seen.partial, whole.seen.size, whole.seen.text],
      [false, 'false', body.length, body],
    )
    assert.match(seenText(whole.request), /12345678901234567890\.10/)

    const parts = [body.slice(0, 9), body.slice(9)]
    const inChunks = await ask(
      chunked('/', parts, 'x-sum: 1\r\n').replace('\r\n', `\r\n${JSON_TYPE}`),
    )
    assert.equal(inChunks.answer.status, 200)
    assert.equal(String(inChunks.request?.body), body)
    assert.deepEqual(inChunks.request?.values('transfer-encoding'), ['chunked'])
    assert.deepEqual(inChunks.request?.trailers, [['x-sum', '1']])
    assert.equal(inChunks.seen.size, body.length)
  })

  it('binds for bodies without a length (Skipper GHSA-659f-rgp5-w4wf)', async () => {
    const { answer, seen } = await ask(
      chunked('/', ['{"allow":', 'false}']).replace('\r\n', `\r\n${JSON_TYPE}`),
    )
    assert.equal(answer.status, 403)
    assert.deepEqual([seen.parsed, seen.truncated], [{ allow: false }, false])
  })

  it('has a body over the limit as truncated, never as empty (Skipper GHSA-8qqm-fp2q-v734)', async () => {
    const body = `{"allow": true, "padding": "${'x'.repeat(MAX_BYTES)}"}`
    for (const partial of ['', 'x-envoy-auth-partial-body: false\r\n']) {
      const framings = [
        post('/', body, JSON_TYPE + partial),
        chunked('/', [body]).replace('\r\n', `\r\n${JSON_TYPE}${partial}`),
        chunked('/', [body.slice(0, 600), body.slice(600)]).replace('\r\n', `\r\n${JSON_TYPE}`),
      ]
      for (const bytes of framings) {
        const { answer, seen } = await ask(bytes)
        assert.equal(answer.status, 413)
        assert.deepEqual([seen.parsed, seen.truncated, seen.partial], [null, true, 'true'])
      }
    }
    assert.equal(requests.length, 0)
  })

  it('does not believe a client that calls its body partial', async () => {
    const fields = `${JSON_TYPE}x-envoy-auth-partial-body: true\r\n`
    const { answer, seen } = await ask(post('/', '{"allow":false}', fields))
    assert.equal(answer.status, 403)
    assert.deepEqual(
      [seen.parsed, seen.truncated, seen.partial],
      [{ allow: false }, false, 'false'],
    )
  })

  it('may let a truncated body pass, which goes on whole', async () => {
    const body = 'x'.repeat(300_000)
    const whole = await ask(post('/truncated/allowed', body))
    assert.deepEqual([whole.answer.status, whole.seen.truncated], [200, true])
    assert.equal(String(whole.request?.body), body)
    const parts = Array.from({ length: 30 }, (_, i) => String(i % 10).repeat(10_000))
    const inChunks = await ask(chunked('/truncated/allowed', parts, 'x-sum: 1\r\n'))
    assert.deepEqual([inChunks.answer.status, inChunks.seen.truncated], [200, true])
    assert.equal(String(inChunks.request?.body), parts.join(''))
    assert.deepEqual(inChunks.request?.trailers, [['x-sum', '1']])
  })

  it('reads forms and multipart forms', async () => {
    const form = await ask(
      post('/', 'allow=true&a=1&a=+2', 'content-type: application/x-www-form-urlencoded\r\n'),
    )
    assert.deepEqual(
      [form.answer.status, form.seen.parsed],
      [200, { allow: ['true'], a: ['1', ' 2'] }],
    )
    const part = (name: string, value: string) =>
      `--b\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`
    const type = 'content-type: multipart/form-data; boundary=b\r\n'
    const multipart = await ask(
      post('/', `${part('allow', 'true')}${part('x', 'y')}--b--\r\n`, type),
    )
    assert.deepEqual(
      [multipart.answer.status, multipart.seen.parsed],
      [200, { allow: ['true'], x: ['y'] }],
    )
  })

  it('refuses what is not what its type says with 400, and logs the decision', async () => {
    for (const [type, body] of [
      ['application/json', '{"allow":true} x'],
      ['application/json', '{"allow":true'],
      ['application/json', '{"allow":"\xff"}'],
      ['application/x-www-form-urlencoded', 'allow=true;a=b'],
      ['multipart/form-data; boundary=b', 'allow'],
    ] as const) {
      const { answer } = await ask(post('/', body, `content-type: ${type}\r\n`))
      assert.equal(answer.status, 400)
      assert.match(String(answer.body), /policy_bad_input/)
    }
    const decision = await eventually('a decision about bad input', () =>
      sidecar.lines.find(
        (line) => line.msg === 'Decision Log' && /JSON/.test(JSON.stringify(line['error'] ?? '')),
      ),
    )
    assert.ok(decision)
    assert.equal(requests.length, 0)
  })

  it('shows the body of another type as text, or as base64 when it is not UTF-8', async () => {
    const text = await ask(post('/', 'plain', 'content-type: text/plain\r\n'))
    assert.deepEqual([text.seen.parsed, text.seen.text, text.seen.raw], [null, 'plain', null])
    const bytes = await ask(post('/', '\xff\x00', 'content-type: image/x\r\n'))
    assert.deepEqual([bytes.seen.parsed, bytes.seen.text, bytes.seen.raw], [null, null, '/wA='])
    const none = await ask(get('/'))
    assert.deepEqual([none.seen.parsed, none.seen.truncated, none.seen.size], [null, false, null])
  })

  it('waits for bodies that come byte by byte', async () => {
    for (const bytes of [
      post('/', '{"allow":true}', JSON_TYPE),
      chunked('/', ['{"allow"', ':true}'], 'x-t: 1\r\n').replace('\r\n', `\r\n${JSON_TYPE}`),
    ]) {
      requests.length = 0
      const client = await open()
      await client.sendByteWise(bytes)
      assert.equal((await client.answer()).status, 200)
      assert.equal(String(requests[0]?.body), '{"allow":true}')
    }
  })

  it('keeps the connection in step after allowed and denied bodies', async () => {
    const client = await open()
    const denied = post('/', '{"allow":false}', JSON_TYPE)
    const allowed = post('/', '{"allow":true}', JSON_TYPE)
    const inChunks = chunked('/', ['{"allow":', 'true}']).replace('\r\n', `\r\n${JSON_TYPE}`)
    client.send(denied + allowed + get('/') + inChunks + denied + allowed)
    const statuses: number[] = []
    for (let i = 0; i < 6; i++) statuses.push((await client.answer()).status)
    assert.deepEqual(statuses, [403, 200, 403, 200, 403, 200])
    assert.equal(client.socket.closed, false)
  })

  it('sends 100 (Continue) itself, and no other reaches the client', async () => {
    requests.length = 0
    const client = await open()
    const body = '{"allow":true}'
    client.send(
      `POST / HTTP/1.1\r\nhost: a\r\n${JSON_TYPE}expect: 100-continue\r\ncontent-length: ${body.length}\r\n\r\n`,
    )
    assert.equal((await client.answer()).status, 100)
    assert.equal(requests.length, 0)
    client.send(body)
    assert.equal((await client.answer()).status, 200)
    assert.deepEqual(requests[0]?.values('expect'), [])
    assert.equal(String(requests[0]?.body), body)
  })

  it('answers a body that stops with 408', async () => {
    const client = await open()
    client.send(`POST / HTTP/1.1\r\nhost: a\r\n${JSON_TYPE}content-length: 20\r\n\r\n{"allow"`)
    const answer = await client.answer()
    assert.equal(answer.status, 408)
    assert.match(String(answer.body), /body_timeout/)
    await client.ended
  })

  it('refuses malformed chunks before it decides', async () => {
    const client = await open()
    client.send(
      `POST / HTTP/1.1\r\nhost: a\r\n${JSON_TYPE}transfer-encoding: chunked\r\n\r\nzz\r\n`,
    )
    assert.equal((await client.answer()).status, 400)
    await client.ended
  })

  it('forgets a request whose client leaves, and frees its memory', async () => {
    const denials = 'postern_decisions_total{outcome="deny",rule="policy"}'
    const before = await sidecar.metric(denials)
    assert.ok(before > 0)
    const openBefore = await sidecar.metric('postern_connections_open')
    const half = `POST / HTTP/1.1\r\nhost: a\r\n${JSON_TYPE}content-length: 1000\r\n\r\n${' '.repeat(900)}`
    // More than fits at a time, if any of it were kept.
    for (let round = 0; round < 4; round++) {
      const clients = await Promise.all(Array.from({ length: 60 }, open))
      for (const client of clients) client.send(half)
      const left = clients.map((client, i) => {
        if (i % 2 === 0) client.socket.end()
        else client.socket.destroy()
        return new Promise((resolve) => client.socket.once('close', resolve))
      })
      await Promise.all(left)
    }
    await eventually('all of them are gone', async () =>
      (await sidecar.metric('postern_connections_open')) <= openBefore ? true : undefined,
    )
    const { answer } = await ask(post('/', '{"allow":true}', JSON_TYPE))
    assert.equal(answer.status, 200)
    assert.equal(await sidecar.metric(denials), before)
  })

  it('answers 503 when the bodies that wait take all the memory', async () => {
    const half = `POST / HTTP/1.1\r\nhost: a\r\n${JSON_TYPE}content-length: 1024\r\n\r\n${' '.repeat(1000)}`
    const clients: Http1Client[] = []
    // Not all at once: an address may not have too many handshakes under way.
    while (clients.length < 140) {
      clients.push(...(await Promise.all(Array.from({ length: 20 }, open))))
    }
    for (const client of clients) client.send(half)
    const answers = await Promise.all(clients.map((client) => client.answer()))
    const statuses = answers.map(({ status }) => status)
    assert.ok(statuses.includes(503), 'some found no room')
    assert.ok(statuses.includes(408), 'the others waited for the rest')
    const full = answers.find(({ status }) => status === 503)
    assert.match(String(full?.body), /body_memory_full/)
    assert.equal(
      await sidecar.metric('postern_requests_rejected_total{code="body_memory_full"}'),
      statuses.filter((status) => status === 503).length,
    )
    assert.equal((await ask(post('/', '{"allow":true}', JSON_TYPE))).answer.status, 200)
  })
})

async function replaceFile(path: string, bytes: Uint8Array): Promise<void> {
  await writeFile(`${path}.new`, bytes)
  await rename(`${path}.new`, path)
}

describe('while a body is waited for', () => {
  let sidecar: TestSidecar
  let bundle: string
  let workload: RawWorkload
  let web: IssuedCertificate
  const t = suiteCleanup()
  before(async () => {
    workload = await startScriptedWorkload(t, (socket) => socket.write(ok('done')))
    bundle = join(await temporaryDirectory(t), 'bundle.tar.gz')
    await copyFile(BUNDLE, bundle)
    const descriptor = join(await temporaryDirectory(t), 'api.binpb')
    const { descriptors } = JSON.parse(
      await readFile(new URL('../policy/body/protojson-cases.json', import.meta.url), 'utf8'),
    )
    await writeFile(descriptor, Buffer.from(descriptors, 'base64'))
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { policy: { bundle, input: { protoDescriptor: descriptor } } },
    })
    web = await sidecar.authority.svid('web')
  })

  const body = '{"allow":true}'
  const [first, second] = [body.slice(0, 5), body.slice(5)]
  const begin = async (): Promise<Http1Client> => {
    const client = await openClient(t, sidecar, web)
    client.send(`POST / HTTP/1.1\r\nhost: a\r\n${JSON_TYPE}content-length: 14\r\n\r\n${first}`)
    return client
  }
  const generation = () => sidecar.metric('postern_snapshot_generation')

  const reload = async (change: () => Promise<unknown>): Promise<void> => {
    const before = await generation()
    await change()
    await eventually('a newer generation', async () =>
      (await generation()) > before ? true : undefined,
    )
  }

  it('the first message of a gRPC call is enough', async () => {
    const message = Buffer.concat([Buffer.from([0x8a, 1, 5]), Buffer.from('allow')])
    const frame = (bytes: Buffer, flag = 0) =>
      Buffer.concat([Buffer.from([flag, 0, 0, 0, bytes.length]), bytes]).toString('latin1')
    const call = (path: string) =>
      `POST ${path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n`
    const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`
    const client = await openClient(t, sidecar, web)
    // The call stays open: the decision must not depend on its end.
    client.send(call('/cases.Service/Unary') + chunk(frame(message)))
    await eventually('the workload is asked', () => workload.received.join('').includes('Unary'))
    client.send('0\r\n\r\n')
    assert.equal((await client.answer()).status, 200)
    for (const [path, first] of [
      ['/cases.Service/Client', frame(message)],
      ['/cases.Service/Both', ''],
      ['/cases.Service/Unary', frame(message, 1)],
      ['/other.Service/Unary', ''],
    ] as const) {
      const other = await openClient(t, sidecar, web)
      other.send(call(path) + (first === '' ? '' : chunk(first)))
      assert.ok((await other.answer()).status >= 400, path)
    }
  })

  it('the deadline of a gRPC call ends it', async () => {
    const session = await openSession(t, sidecar, web)
    const stream = session.request({
      ':method': 'POST',
      ':path': '/cases.Service/Unary',
      'content-type': 'application/grpc',
      te: 'trailers',
      'grpc-timeout': '200m',
    })
    let status: unknown
    void replyOf(stream).then(({ headers }) => {
      status = headers['grpc-status']
    })
    // Long before a body is late.
    await eventually('its end', () => status !== undefined)
    assert.equal(status, '4')
  })

  it('a new policy decides about it', async () => {
    const client = await begin()
    const denyAll = fileURLToPath(new URL('../policy/bundles/deny-all.tar.gz', import.meta.url))
    await reload(async () => replaceFile(bundle, await readFile(denyAll)))
    client.send(second)
    assert.equal((await client.answer()).status, 403)
    await reload(async () => replaceFile(bundle, await readFile(BUNDLE)))
    client.send(post('/', body, JSON_TYPE))
    assert.equal((await client.answer()).status, 200)
  })

  it('the limit may change, and holds for the next request', async () => {
    const client = await openClient(t, sidecar, web)
    const policy = (maxBytes: number) => ({ policy: { bundle, input: { body: { maxBytes } } } })
    let before = ''
    await reload(async () => {
      before = await reconfigure(sidecar, policy(4))
      sidecar.signal('SIGHUP')
    })
    client.send(post('/', body, JSON_TYPE))
    const answer = await client.answer()
    assert.deepEqual([answer.status, seenBy(answer).truncated], [413, true])
    await reload(async () => {
      await writeFile(sidecar.files.config, before)
      sidecar.signal('SIGHUP')
    })
    client.send(post('/', body, JSON_TYPE))
    assert.equal((await client.answer()).status, 200)
  })

  it('a peer that is no longer trusted is cut', async () => {
    const client = await begin()
    const { root } = await testAuthority('stranger.example')
    const own = await readFile(sidecar.files.trustBundle)
    const stranger = Buffer.from(root.certificatePem)
    await reload(() => replaceFile(sidecar.files.trustBundle, stranger))
    const answer = await client.answer()
    assert.equal(answer.status, 403)
    assert.equal(JSON.parse(String(answer.body)).error, 'peer_untrusted')
    assert.equal(await client.ended, '')
    await reload(() => replaceFile(sidecar.files.trustBundle, own))
  })

  it('a drain waits, too', async () => {
    const client = await begin()
    await eventually('the connection is there', async () =>
      (await sidecar.metric('postern_connections_open')) > 0 ? true : undefined,
    )
    sidecar.signal('SIGTERM')
    await sidecar.logged('drain')
    client.send(second)
    const answer = await client.answer()
    assert.deepEqual([answer.status, answer.values('connection')], [200, ['close']])
    assert.equal(await sidecar.exited, 0)
  })
})

describe('one peer whose bodies take all the memory for bodies', () => {
  const t = suiteCleanup()
  const HALF = 'x'.repeat(900)
  const FILL = 128 * 1024
  const GIVEN_UP = 'postern_requests_rejected_total{code="body_memory_full"}'

  async function stand() {
    const { url } = await startScriptedWorkload(t, (socket) => socket.write(ok('done')))
    const sidecar = await startSidecar(t, {
      forward: url,
      config: {
        policy: { bundle: BUNDLE, input: { body: { maxBytes: MAX_BYTES, totalBytes: '128KiB' } } },
      },
    })
    const calm = await openClient(t, sidecar, await sidecar.authority.svid('calm'))
    const hoarder = await sidecar.authority.svid('hoarder')
    return { sidecar, calm, hoarder }
  }

  async function isServed(sidecar: TestSidecar, calm: Http1Client): Promise<void> {
    await eventually('no room is left', async () => (await sidecar.metric(GIVEN_UP)) > 0)
    const before = await sidecar.metric(GIVEN_UP)
    calm.send(post('/', '{"allow":true}'.padEnd(MAX_BYTES), JSON_TYPE))
    assert.equal((await calm.answer()).status, 200)
    assert.equal(await sidecar.metric(GIVEN_UP), before + 1)
  }

  it('makes room for another one over HTTP/1.1', async () => {
    const { sidecar, calm, hoarder } = await stand()
    for (let bytes = 0; bytes <= FILL; bytes += HALF.length) {
      const client = await openClient(t, sidecar, hoarder)
      client.send(
        `POST / HTTP/1.1\r\nhost: a\r\n${JSON_TYPE}content-length: ${MAX_BYTES}\r\n\r\n${HALF}`,
      )
    }
    await isServed(sidecar, calm)
  })

  it('makes room for another one over HTTP/2', async () => {
    const { sidecar, calm, hoarder } = await stand()
    for (let sessions = 0; sessions < 2; sessions++) {
      const session = await openSession(t, sidecar, hoarder)
      for (let streams = 0; streams < 100; streams++) {
        session
          .request({ ':method': 'POST', 'content-type': 'application/json' })
          .on('error', () => {})
          .write(HALF)
      }
    }
    await isServed(sidecar, calm)
  })
})
