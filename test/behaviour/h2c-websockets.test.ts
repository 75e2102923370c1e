// What becomes of a WebSocket where its workload speaks HTTP/2 and does what no library would.
import assert from 'node:assert/strict'
import type net from 'node:net'
import { before, describe, it } from 'node:test'
import { FRAME_HEADER_BYTES, goAwayFrame, H2_ERROR, SETTING } from '../../src/http/h2/frames.ts'
import {
  assertUnharmed,
  type Bystander,
  calmAnswer,
  isCalm,
  startBystander,
} from '../support/bystander.ts'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type Http1Client, openClient } from '../support/http1.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { type RawStream, startRawH2cWorkload } from '../support/raw-h2c.ts'
import {
  data,
  head,
  openRawHttp2,
  type RawHttp2,
  requestFields,
  resetStreamFrame,
  settingsFrame,
} from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { webSocketRequest } from '../support/websocket.ts'
import { startWorkload } from '../support/workload.ts'

const OFFER = [SETTING.enableConnectProtocol, 1] as const
const ALLOWED = 'postern_decisions_total{outcome="allow",rule="allow_rules"}'
const AGREED = [':status', '200']
const connectTo = (path: string): Record<string, string> => ({
  ':method': 'CONNECT',
  ':protocol': 'websocket',
  ':path': path,
})
const BYTES = Buffer.from('\x82\x02hi', 'latin1')
/** The key of the example in RFC 6455 section 1.3. */
const ACCEPT = /\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r\n/

describe('a workload that speaks HTTP/2, asked for a WebSocket,', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let bystander: Bystander
  let act: (stream: RawStream) => void
  let asked: RawStream | undefined
  before(async () => {
    const { url } = await startRawH2cWorkload(
      t,
      (stream) => {
        const { id, path, send } = stream
        if (isCalm(path)) {
          return send(head(id, AGREED, false), data(id, calmAnswer(path), true))
        }
        asked = stream
        act(stream)
      },
      { settings: [OFFER] },
    )
    sidecar = await startSidecar(t, { forward: url, config: { log: { access: 'all' } } })
    web = await sidecar.authority.svid('web')
    bystander = await startBystander(t, sidecar, web)
  })

  const askHttp1 = async (test: Cleanup): Promise<Http1Client> => {
    const client = await openClient(test, sidecar, web)
    client.send(webSocketRequest('/ws'))
    return client
  }
  const askHttp2 = async (
    test: Cleanup,
    options?: Parameters<typeof openRawHttp2>[3],
  ): Promise<RawHttp2> => {
    const raw = await openRawHttp2(test, sidecar, web, options)
    raw.send(head(1, requestFields(connectTo('/ws')), false))
    return raw
  }

  it('gets an extended CONNECT, and what it agrees to is a handshake for HTTP/1.1', async (test) => {
    act = ({ id, send }) =>
      send(
        head(id, [':status', '103', 'link', '<a>'], false),
        head(id, [...AGREED, 'content-length', '9', 'sec-websocket-protocol', 'chat'], false),
        data(id, BYTES),
        data(id, '', true),
      )
    const client = await askHttp1(test)
    client.socket.end()
    const text = await client.ended
    const at = text.indexOf('HTTP/1.1 101 Switching Protocols\r\n')
    assert.match(text.slice(0, at), /^HTTP\/1.1 103 /)
    assert.match(text.slice(at), ACCEPT)
    assert.match(text.slice(at), /\r\nsec-websocket-protocol: chat\r\n/)
    assert.doesNotMatch(text.slice(at), /content-length/)
    assert.ok(text.endsWith(`\r\n\r\n${BYTES.toString('latin1')}`))
    const fields = asked?.fields ?? []
    for (const [name, value] of [
      [':method', 'CONNECT'],
      [':protocol', 'websocket'],
      [':path', '/ws'],
      [':authority', 'localhost'],
      ['sec-websocket-version', '13'],
    ] as const) {
      assert.equal(fields[fields.indexOf(name) + 1], value, name)
    }
    for (const name of ['sec-websocket-key', 'connection', 'upgrade', 'host', 'te']) {
      assert.ok(!fields.includes(name), name)
    }
    await eventually('the end of the client', () => asked?.ended)
  })

  it('may end its side with the head', async (test) => {
    act = ({ id, send }) => send(head(id, AGREED, true))
    const raw = await askHttp2(test)
    raw.send(data(1, BYTES, true))
    const { status, ended, reset } = await raw.answered(1)
    assert.deepEqual([status, ended, reset], [200, true, undefined])
    await eventually('what the client says', () => asked?.ended)
    assert.deepEqual(asked?.body, BYTES)
  })

  it('answers as it likes where it does not agree', async (test) => {
    act = ({ id, send }) => send(head(id, [':status', '426'], false), data(id, 'no', true))
    const client = await askHttp1(test)
    const answer = await client.answer()
    assert.deepEqual([answer.status, String(answer.body)], [426, 'no'])
    const other = await (await askHttp2(test)).answered(1)
    assert.deepEqual([other.status, String(other.body)], [426, 'no'])
    await eventually('the stream is over', () => asked?.reset === H2_ERROR.none)
  })

  const faults: readonly (readonly [
    what: string,
    frames: (id: number) => Buffer[],
    code: number,
  ])[] = [
    ['trailers', (id) => [head(id, ['x', 'y'], true)], H2_ERROR.protocol],
    ['a second head', (id) => [head(id, AGREED, false)], H2_ERROR.protocol],
    ['bytes behind its end', (id) => [data(id, '', true), data(id, BYTES)], H2_ERROR.streamClosed],
    [
      'more than its window',
      (id) => Array.from({ length: 80 }, () => data(id, Buffer.alloc(16_384))),
      H2_ERROR.flowControl,
    ],
  ]
  for (const [what, frames, code] of faults) {
    it(`is reset where it sends ${what}`, async (test) => {
      act = ({ id, send }) => send(head(id, AGREED, false), data(id, BYTES), ...frames(id))
      const settings = [[SETTING.initialWindowSize, 1_000]] as const
      const raw = await askHttp2(test, { settings, credit: false })
      await eventually('the workload is told', () => asked?.reset === code)
      const { status, reset } = await raw.answered(1)
      assert.deepEqual([status, reset], [200, H2_ERROR.cancel])
      await bystander.served()
    })
  }

  it('may say GOAWAY: what it has agreed to goes on, what it has not looked at is asked for again', async (test) => {
    const streams: RawStream[] = []
    const goAway = goAwayFrame(0, H2_ERROR.none)
    act = (stream) => {
      const { id, send } = stream
      if (streams.push(stream) !== 2) return send(head(id, AGREED, false))
      goAway.writeUInt32BE(streams[0]?.id ?? 0, FRAME_HEADER_BYTES)
      send(goAway)
    }
    const clients = [await askHttp1(test), await askHttp1(test)]
    for (const client of clients) assert.equal((await client.answer()).status, 101)
    const [first, , third] = streams
    assert.equal(streams.length, 3)
    assert.notEqual(third?.socket, first?.socket)
    clients[0]?.send(BYTES)
    await eventually('its bytes come', () => first?.body.equals(BYTES))
    for (const stream of [first, third]) stream?.send(data(stream.id, '', true))
    for (const client of clients) client.socket.end()
    await bystander.served()
  })

  it('leaves nothing behind', async () => {
    await bystander.stop()
    await assertUnharmed(sidecar, { upstream: 1 })
  })
})

describe('a workload that speaks HTTP/2 and has not said that it takes WebSockets', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let web: IssuedCertificate
  let accepted: (socket: net.Socket) => void
  before(async () => {
    const { url } = await startRawH2cWorkload(t, () => assert.fail('it was asked'), {
      accept: (socket) => {
        accepted(socket)
        return true
      },
    })
    const inbound = { timeouts: { upstreamResponse: '1s' } }
    sidecar = await startSidecar(t, { forward: url, config: { inbound } })
    web = await sidecar.authority.svid('web')
  })

  const answerOf = async (): Promise<string> => {
    const client = await openClient(t, sidecar, web)
    client.send(webSocketRequest('/ws'))
    const { status, body } = await client.answer()
    return `${status} ${JSON.parse(String(body)).error}`
  }

  it('is not asked: 502', async () => {
    let connection: net.Socket | undefined
    accepted = (socket) => {
      connection = socket
      socket.write(settingsFrame([[SETTING.maxConcurrentStreams, 1]]))
    }
    for (let i = 0; i < 3; i++) assert.equal(await answerOf(), '502 upstream_no_websocket')
    connection?.destroy()
  })

  it('is not asked when it closes instead: 502', async () => {
    accepted = (socket) => socket.end()
    assert.equal(await answerOf(), '502 upstream_reset')
  })

  it('is not asked, and waited for as long as for an answer: 504', async () => {
    accepted = () => {}
    assert.equal(await answerOf(), '504 upstream_timeout')
  })

  it('is left where it takes its offer back: 502', async () => {
    accepted = (socket) => socket.write(settingsFrame([[...OFFER], [OFFER[0], 0]]))
    assert.equal(await answerOf(), '502 upstream_bad_response')
  })
})

describe('a workload that speaks HTTP/1.1 and knows no WebSocket', () => {
  it('does not make one for a client of HTTP/2 by an ordinary answer', async (t) => {
    const { url } = await startWorkload(t)
    const sidecar = await startSidecar(t, { forward: url })
    const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    raw.send(head(1, requestFields(connectTo('/ws')), false))
    const { status, body } = await raw.answered(1)
    assert.deepEqual([status, JSON.parse(String(body)).error], [502, 'upstream_no_websocket'])
  })
})

describe('a workload that speaks HTTP/2 and says late that it takes WebSockets', () => {
  it('is asked then, and not for clients that have gone', async (t) => {
    const asked: string[] = []
    const ready = Promise.withResolvers<void>()
    const { url, sockets } = await startRawH2cWorkload(
      t,
      ({ id, path, send }) => {
        asked.push(path)
        send(head(id, AGREED, false), data(id, BYTES, true))
      },
      { settings: [OFFER], ready: ready.promise },
    )
    const sidecar = await startSidecar(t, { forward: url, config: { log: { access: 'all' } } })
    const web = await sidecar.authority.svid('web')
    const stays = await openClient(t, sidecar, web)
    stays.send(webSocketRequest('/stays'))
    const goes = await openRawHttp2(t, sidecar, web)
    goes.send(
      head(1, requestFields(connectTo('/goes')), false),
      resetStreamFrame(1, H2_ERROR.cancel),
    )
    await sidecar.logged('access', { path: '/goes', code: 'client_closed' })
    ready.resolve()
    assert.equal((await stays.answer()).status, 101)
    stays.socket.end()
    assert.equal(await stays.ended, BYTES.toString('latin1'))
    assert.deepEqual(asked, ['/stays'])
    assert.equal(sockets.length, 1)
  })

  it('and few at once, is asked for no more than that: others wait', async (t) => {
    const asked = new Map<net.Socket, RawStream[]>()
    const ready = Promise.withResolvers<void>()
    const { url } = await startRawH2cWorkload(
      t,
      (stream) => {
        const { id, socket, send } = stream
        asked.set(socket, [...(asked.get(socket) ?? []), stream])
        send(head(id, AGREED, false))
      },
      { settings: [OFFER, [SETTING.maxConcurrentStreams, 2]], ready: ready.promise },
    )
    const sidecar = await startSidecar(t, {
      forward: url,
      config: { inbound: { limits: { upstreamConnections: 2 } } },
    })
    const raw = await openRawHttp2(t, sidecar, await sidecar.authority.svid('web'))
    const ids = Array.from({ length: 10 }, (_, i) => 2 * i + 1)
    raw.send(...ids.map((id) => head(id, requestFields(connectTo(`/${id}`)), false)))
    await eventually('all are permitted', async () => {
      return (await sidecar.metric(ALLOWED)) === ids.length
    })
    ready.resolve()
    for (let ended = 0; ended < ids.length; ended++) {
      const open = await eventually('some are open', () => {
        const streams = [...asked.values()].map((of) => of.filter(({ ended }) => !ended))
        for (const { length } of streams) assert.ok(length <= 2, `${length} on one connection`)
        return streams.flat()[0]
      })
      const id = Number(open.path.slice(1))
      open.send(data(open.id, BYTES, true))
      raw.send(data(id, '', true))
      const { status, body, ended } = await raw.answered(id)
      assert.deepEqual([status, body, ended], [200, BYTES, true])
      await eventually('the workload knows of its end', () => open.ended)
    }
  })
})
