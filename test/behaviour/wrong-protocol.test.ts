// Clients that speak something else than the port does: another protocol over TLS than was negotiated,
// no TLS at all, a header of a balancer that nobody declared, TLS with what TLS has given up. None of
// it reaches the workload or troubles others.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import net from 'node:net'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import tls from 'node:tls'
import { PREFACE, settingsFrame } from '../../src/http/h2/frames.ts'
import { writeProxyHeader } from '../../src/proxy/proxy-protocol.ts'
import {
  assertUnharmed,
  type Bystander,
  calmAnswer,
  isCalm,
  startBystander,
} from '../support/bystander.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { type IssuedCertificate, temporaryDirectory, writeFiles } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const ends = { address: '192.0.2.1', port: 1 }
const PROXY_V2 = writeProxyHeader({
  source: ends,
  destination: ends,
  principal: '',
  commonName: undefined,
  serverName: '',
  tlsVersion: '',
  cipher: '',
})
const GET = Buffer.from('GET /plain HTTP/1.1\r\nhost: localhost\r\n\r\n')
const PROXY_V1 = Buffer.from('PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n')
const HTTP2 = Buffer.concat([Buffer.from(PREFACE, 'latin1'), settingsFrame([])])
const CLIENT_HELLO = Buffer.from('160301020001000200fc0303', 'hex')
const BANNER = Buffer.from('SSH-2.0-OpenSSH_9.7\r\n')

/** Frames, or nothing. */
const NO_HTTP = /^((?!HTTP).)*$/s

/** Over TLS, once `alpn` has been agreed; and what the sidecar says to it. */
const INSIDE: readonly (readonly [
  what: string,
  alpn: string | undefined,
  bytes: Buffer,
  says: RegExp,
])[] = [
  ['HTTP/2 where HTTP/1.1 was agreed', 'http/1.1', HTTP2, /^HTTP\/1.1 505 /],
  ['HTTP/2 where nothing was agreed', undefined, HTTP2, /^HTTP\/1.1 505 /],
  ['a banner', 'http/1.1', BANNER, /^HTTP\/1.1 400 /],
  ['a PROXY header', 'http/1.1', Buffer.concat([PROXY_V1, GET]), /^HTTP\/1.1 (400|505) /],
  ['a binary PROXY header', 'http/1.1', Buffer.concat([PROXY_V2, GET]), /^HTTP\/1.1 400 /],
  ['TLS once more', 'http/1.1', CLIENT_HELLO, /^HTTP\/1.1 400 /],
  ['NUL bytes', 'http/1.1', Buffer.alloc(70_000), /^HTTP\/1.1 400 /],
  ['HTTP/1.1 where HTTP/2 was agreed', 'h2', GET, NO_HTTP],
  ['a banner where HTTP/2 was agreed', 'h2', BANNER, NO_HTTP],
  ['a PROXY header where HTTP/2 was agreed', 'h2', PROXY_V1, NO_HTTP],
  ['NUL bytes where HTTP/2 was agreed', 'h2', Buffer.alloc(70_000), NO_HTTP],
]

const OUTSIDE: readonly (readonly [string, Buffer])[] = [
  ['HTTP/1.1', GET],
  ['HTTP/2', HTTP2],
  ['a banner', BANNER],
  ['a PROXY header before TLS', Buffer.concat([PROXY_V1, CLIENT_HELLO])],
  ['a binary PROXY header before TLS', Buffer.concat([PROXY_V2, CLIENT_HELLO])],
  ['SSL 2.0', Buffer.from('802e0100020015000000100100800200800300800400800500', 'hex')],
  ['a record of application data', Buffer.from('17030300050102030405', 'hex')],
  ['NUL bytes', Buffer.alloc(70_000)],
  ['noise', Buffer.alloc(70_000, 0xe5)],
]

describe('a client that speaks something else', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let workload: Workload
  let web: IssuedCertificate
  let bystander: Bystander
  before(async () => {
    workload = await startWorkload(t, ({ url }, response) =>
      response.end(isCalm(url) ? calmAnswer(url) : url),
    )
    sidecar = await startSidecar(t, {
      forward: workload.url,
      config: {
        inbound: {
          limits: { handshakeFailuresPerAddress: 10_000 },
          timeouts: { handshake: '1s', idle: '5s' },
        },
        log: { decisions: 'off' },
      },
    })
    web = await sidecar.authority.svid('web')
    bystander = await startBystander(t, sidecar, web)
  })

  for (const [what, alpn, bytes, says] of INSIDE) {
    it(`over TLS is told so, and closed: ${what}`, async (test) => {
      const { ALPNProtocols: _, ...options } = sidecar.clientOptions(web)
      const socket = tls.connect({
        ...options,
        ...(alpn === undefined ? {} : { ALPNProtocols: [alpn] }),
      })
      test.after(() => socket.destroy())
      let text = ''
      socket.on('error', () => {})
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString('latin1')
      })
      await once(socket, 'secureConnect')
      socket.write(bytes)
      await once(socket, 'close')
      assert.match(text, says)
      await bystander.served()
    })
  }

  for (const [i, [what, bytes]] of OUTSIDE.entries()) {
    it(`without TLS is closed, and told nothing of HTTP: ${what}`, async (test) => {
      const failures = async (): Promise<number> =>
        (await sidecar.metrics())
          .split('\n')
          .filter((line) => line.startsWith('postern_handshakes_total{result="failure"'))
          .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
      const before = await failures()
      // From an address of its own, which is put away for it.
      const localAddress = `127.0.0.${10 + i}`
      const socket = net.connect({ host: '127.0.0.1', port: sidecar.port, localAddress })
      test.after(() => socket.destroy())
      let text = ''
      socket.on('error', () => {})
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString('latin1')
      })
      socket.write(bytes)
      await new Promise((resolve) => socket.once('close', resolve))
      // At most an alert.
      assert.ok(text.length <= 7 && !text.includes('HTTP'), JSON.stringify(text))
      await eventually('it is counted', async () => (await failures()) === before + 1)
      await bystander.served()
    })
  }

  it('cannot renegotiate', async (test) => {
    const socket = tls.connect({ ...sidecar.clientOptions(web), maxVersion: 'TLSv1.2' })
    test.after(() => socket.destroy())
    socket.on('error', () => {})
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
    })
    await once(socket, 'secureConnect')
    assert.equal(socket.getProtocol(), 'TLSv1.2')
    let outcome: Error | 'done' | undefined
    socket.renegotiate({}, (error) => {
      outcome = error ?? 'done'
    })
    socket.write('GET /after HTTP/1.1\r\nhost: localhost\r\n\r\n')
    // Refused by an alert or a close; without either the request is answered as if nobody had asked.
    await eventually(
      'it is refused or not heard',
      () => outcome !== undefined || socket.destroyed || text.includes('/after'),
    )
    assert.notEqual(outcome, 'done', 'a second handshake on the connection')
    await bystander.served()
  })

  it('cannot have a request taken from early data', async (test) => {
    const directory = await temporaryDirectory(test)
    const files = await writeFiles(directory, {
      'cert.pem': web.chainPem,
      'key.pem': web.privateKeyPem,
      'ca.pem': sidecar.authority.root.certificatePem,
      'early.txt': 'GET /early HTTP/1.1\r\nhost: localhost\r\n\r\n',
      'request.txt': 'GET /late HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n',
    })
    const session = join(directory, 'session.pem')
    const connect = async (...more: string[]): Promise<string> => {
      const { 'cert.pem': cert, 'key.pem': key, 'ca.pem': ca } = files
      const at = `127.0.0.1:${sidecar.port}`
      const identity = ['-cert', cert, '-cert_chain', cert, '-key', key, '-CAfile', ca]
      const fixed = ['s_client', '-connect', at, '-servername', 'localhost', '-tls1_3', '-ign_eof']
      const child = spawn('openssl', [...fixed, ...identity, ...more])
      test.after(() => child.kill())
      let output = ''
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('latin1').on('data', (chunk: string) => {
          output += chunk
        })
      }
      child.stdin.end(await readFile(files['request.txt']))
      await once(child, 'close')
      return output
    }
    const first = await connect('-sess_out', session)
    assert.match(first, /\/late/)
    assert.match(first, /Max Early Data: 0/)
    // A client that does not care what it was told.
    await writeFile(session, withEarlyData(await readFile(session, 'latin1')))
    const seen = workload.seen.length
    const second = await connect('-sess_in', session, '-early_data', files['early.txt'])
    assert.match(second, /Early data was rejected/)
    assert.match(second, /\/late/)
    const urls = workload.seen.slice(seen).map(({ url }) => url)
    assert.deepEqual(
      urls.filter((url) => !isCalm(url)),
      ['/late'],
    )
    await bystander.served()
  })

  it('has reached nobody, and leaves nothing behind', async () => {
    const urls = new Set(workload.seen.map(({ url }) => url).filter((url) => !isCalm(url)))
    urls.delete('/late')
    urls.delete('/after')
    assert.deepEqual([...urls], [])
    await bystander.stop()
    await assertUnharmed(sidecar, { upstream: 0 })
  })
})

/** The session with `max_early_data` (OpenSSL's SSL_SESSION, tag 15), as if the server had offered it. */
function withEarlyData(pem: string): string {
  const der = Buffer.from(pem.replace(/-----[^-]+-----/g, ''), 'base64')
  const [body] = readElement(der, 0)
  const parts: Buffer[] = []
  let added = false
  const offer = Buffer.from('af0402024000', 'hex')
  for (let at = 0; at < body.length; ) {
    const [, next] = readElement(body, at)
    if (!added && body[at]! > 0xaf) {
      parts.push(offer)
      added = true
    }
    parts.push(body.subarray(at, next))
    at = next
  }
  if (!added) parts.push(offer)
  const all = Buffer.concat(parts)
  const head = Buffer.from([0x30, 0x82, all.length >> 8, all.length & 0xff])
  const lines =
    Buffer.concat([head, all])
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN SSL SESSION PARAMETERS-----\n${lines.join('\n')}\n-----END SSL SESSION PARAMETERS-----\n`
}

/** @returns the content of a DER element, and where the next one begins */
function readElement(der: Buffer, at: number): readonly [Buffer, number] {
  const first = der[at + 1]!
  const digits = first < 0x80 ? 0 : first & 0x7f
  const length = digits === 0 ? first : der.readUIntBE(at + 2, digits)
  const start = at + 2 + digits
  return [der.subarray(start, start + length), start + length]
}
