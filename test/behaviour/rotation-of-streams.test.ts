// What lasts longer than a generation: WebSockets, calls of gRPC, streams of HTTP/2, a body in the middle of
// HTTP/1.1, connections of TCP. Everything rotates while they go on, and is broken now and then; each message
// still comes back, and none of their connections is closed for it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { fileURLToPath } from 'node:url'
import grpc from '@grpc/grpc-js'
import { type Cleanup, suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { openGrpc, startGrpcWorkload, streamed } from '../support/grpc.ts'
import { openSession, startH2cWorkload } from '../support/http2.ts'
import {
  Authority,
  type IssuedCertificate,
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
} from '../support/pki.ts'
import { SAMPLE_POLICY, startSidecar, type TestSidecar } from '../support/sidecar.ts'
import {
  openWebSocket,
  openWebSocketStream,
  startWebSocketWorkload,
  type WebSocketEnd,
} from '../support/websocket.ts'
import { startRawWorkload } from '../support/workload.ts'

const ROUNDS = 12
const EACH = 2
const ALLOW_ALL = fileURLToPath(new URL('../policy/bundles/allow-all.tar.gz', import.meta.url))
const PATH = '/api/orders'

/** Something that says a word and hears it again; rejects when it does not, or is not what it was. */
type Talk = (word: string) => Promise<unknown>

interface Kind {
  readonly start: (t: Cleanup) => Promise<{ readonly url: string }>
  readonly open: (t: Cleanup, sidecar: TestSidecar, web: IssuedCertificate) => Promise<Talk>
}

function talkOver(end: WebSocketEnd | number): Talk {
  assert.ok(typeof end !== 'number', `refused with ${end}`)
  return (word) => {
    end.send(word)
    return eventually('the frame is back', () => {
      assert.ok(!end.ended && !end.closed, 'the WebSocket has ended')
      return end.frames.at(-1)?.payload.toString() === word
    })
  }
}

/** Bytes both ways, of which the last are the word. */
function talkInBytes(
  write: (word: string) => void,
  heard: () => string,
  isOver: () => boolean,
): Talk {
  return (word) => {
    write(word)
    return eventually('the word is back', () => {
      assert.ok(!isOver(), 'it has ended')
      return heard().endsWith(word)
    })
  }
}

const KINDS: Readonly<Record<string, Kind>> = {
  'a WebSocket over HTTP/1.1': {
    start: startWebSocketWorkload,
    open: async (t, sidecar, web) => talkOver(await openWebSocket(t, sidecar, web, PATH)),
  },
  'a WebSocket over HTTP/2': {
    start: startWebSocketWorkload,
    open: async (t, sidecar, web) =>
      talkOver(await openWebSocketStream(await openSession(t, sidecar, web), PATH)),
  },
  'a call of gRPC': {
    start: (t) => startGrpcWorkload(t),
    open: async (t, sidecar, web) => {
      const call = openGrpc(t, sidecar, web).chat(new grpc.Metadata())
      const { received, end } = streamed(call)
      let over = false
      void end.then(() => {
        over = true
      })
      return talkInBytes(
        (word) => call.write(Buffer.from(word)),
        () => received.at(-1)?.toString() ?? '',
        () => over,
      )
    },
  },
  'a stream of HTTP/2': {
    start: (t) => startH2cWorkload(t),
    open: async (t, sidecar, web) => {
      const session = await openSession(t, sidecar, web)
      const stream = session.request({ ':method': 'POST', ':path': PATH })
      let text = ''
      stream
        .on('error', () => {})
        .on('data', (chunk: Buffer) => {
          text += chunk.toString()
        })
      return talkInBytes(
        (word) => stream.write(word),
        () => text,
        () => stream.closed || session.closed,
      )
    },
  },
  'a request of HTTP/1.1': {
    start: (t) => startH2cWorkload(t),
    open: async (t, sidecar, web) => {
      const socket = tls.connect(sidecar.clientOptions(web))
      t.after(() => socket.destroy())
      let text = ''
      socket
        .on('error', () => {})
        .on('data', (chunk: Buffer) => {
          text += chunk.toString()
        })
      socket.write(`POST ${PATH} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n`)
      return talkInBytes(
        (word) => socket.write(`${word.length.toString(16)}\r\n${word}\r\n`),
        () => text.replace(/\r\n$/, ''),
        () => socket.destroyed || socket.readableEnded,
      )
    },
  },
  'a connection of TCP': {
    start: async (t) => {
      const { url } = await startRawWorkload(t, (socket) => void socket.pipe(socket))
      return { url: url.replace('http:', 'tcp:') }
    },
    open: async (t, sidecar, web) => {
      const { ALPNProtocols: _, ...options } = sidecar.clientOptions(web)
      const socket = tls.connect(options)
      t.after(() => socket.destroy())
      let text = ''
      socket
        .on('error', () => {})
        .on('data', (chunk: Buffer) => {
          text += chunk.toString()
        })
      await once(socket, 'secureConnect')
      return talkInBytes(
        (word) => socket.write(word),
        () => text,
        () => socket.destroyed || socket.readableEnded,
      )
    },
  },
}

for (const [what, { start, open }] of Object.entries(KINDS)) {
  describe(`${what}, while everything rotates`, () => {
    const t = suiteCleanup()
    const isTcp = what.endsWith('TCP')
    let sidecar: TestSidecar
    let directory: string
    let authority: TestAuthority
    let unused: Authority
    let policies: readonly Buffer[]
    let talks: readonly Talk[]
    let rounds = 0

    before(async () => {
      directory = await temporaryDirectory(t)
      authority = await testAuthority()
      unused = await Authority.create({ commonName: 'nobody is issued by this' })
      policies = [await readFile(SAMPLE_POLICY), await readFile(ALLOW_ALL)]
      await writeFile(join(directory, 'revoked.yaml'), '[]\n')
      await writeFile(join(directory, 'bundle.tar.gz'), policies[1] as Buffer)
      await replace('ca.crt', trust(''))
      await replace('ca.crl', await crl(1))
      sidecar = await startSidecar(t, {
        authority,
        forward: (await start(t)).url,
        config: {
          trust: {
            bundles: [{ file: join(directory, 'ca.crt') }],
            crls: [join(directory, 'ca.crl')],
            revoked: join(directory, 'revoked.yaml'),
          },
          // The sample policy knows requests alone.
          ...(isTcp ? {} : { policy: { bundle: join(directory, 'bundle.tar.gz') } }),
          log: { decisions: 'off', access: 'off' },
        },
      })
      const web = await authority.svid('web')
      talks = await Promise.all(Array.from({ length: EACH }, () => open(t, sidecar, web)))
    })

    const trust = (more: string): string =>
      authority.root.certificatePem + authority.intermediate.certificatePem + more

    const crl = async (number: number): Promise<string> => {
      const { root, intermediate } = authority
      const options = { revoked: [], number }
      return (await root.crl(options)) + (await intermediate.crl(options))
    }

    async function replace(name: string, content: string | Buffer): Promise<void> {
      const path = name.startsWith('/') ? name : join(directory, name)
      await writeFile(`${path}.new`, content)
      await rename(`${path}.new`, path)
    }

    async function rotate(): Promise<void> {
      const round = ++rounds
      const { files } = sidecar
      const own = await authority.intermediate.issue({ dns: ['localhost'] })
      await replace('ca.crt', trust(round % 2 === 0 ? unused.certificatePem : ''))
      await replace('ca.crl', await crl(round + 1))
      const denied = `- spiffeId: spiffe://example.org/ns/default/sa/nobody-${round}\n`
      await replace('revoked.yaml', round % 3 === 0 ? '- spiffeId: [broken\n' : denied)
      await replace(
        'bundle.tar.gz',
        round % 4 === 0 ? 'no bundle' : (policies[round % 2] as Buffer),
      )
      await replace(files.privateKey, own.privateKeyPem)
      await replace(files.certificate, own.chainPem)
      await eventually('it is in force', async () => {
        const { identity } = JSON.parse((await sidecar.admin('GET', '/snapshot')).body)
        return identity.serial === own.serial
      })
    }

    async function talkOn(talk: Talk, words: string): Promise<void> {
      for (let word = 0; word < 5; word++) await talk(`word ${word} of ${words}.`)
    }

    it('goes on, word for word', async () => {
      for (let round = 0; round < ROUNDS; round++) {
        await Promise.all([rotate(), ...talks.map((talk, i) => talkOn(talk, `${round} of ${i}`))])
      }
      await Promise.all(talks.map((talk, i) => talk(`the last word of ${i}.`)))
      const generation = await sidecar.metric('postern_snapshot_generation')
      assert.ok(generation > ROUNDS, `only ${generation} generations`)
      for (const reason of ['error', 'peer_invalid', 'upstream', 'drain', 'idle', 'rejected']) {
        const series = `postern_connections_closed_total{reason="${reason}"}`
        assert.equal(await sidecar.metric(series), 0, reason)
      }
      assert.equal(await sidecar.metric('postern_connections_open'), EACH)
    })
  })
}
