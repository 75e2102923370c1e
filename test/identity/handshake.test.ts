import assert from 'node:assert/strict'
import type { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { describe, it, type TestContext } from 'node:test'
import tls from 'node:tls'
import { parseTrustBundle } from '../../src/identity/trust.ts'
import { PeerVerifier } from '../../src/identity/verifier.ts'
import { sentCertificates } from '../../src/proxy/handshake.ts'
import { ORDERS, testAuthority, WEB } from '../support/pki.ts'
import { accepted, rejected, trustOf } from './trust-material.ts'

const authority = await testAuthority()
const server = await authority.svid('orders')
const client = await authority.svid('web')
const anchor = parseTrustBundle(authority.root.certificatePem, 'ca.crt', undefined, Date.now())
assert.ok(anchor.material !== undefined)
const trust = trustOf([anchor.material])

/** A server that tells what each connection's peer sent, and lets clients resume. */
const listen = async (t: TestContext) => {
  const seen: { resumed: boolean; chain: X509Certificate[] }[] = []
  const listener = tls.createServer(
    {
      cert: server.chainPem,
      key: server.privateKeyPem,
      ca: authority.root.certificatePem,
      requestCert: true,
      rejectUnauthorized: true,
    },
    (socket) => {
      seen.push({ resumed: socket.isSessionReused(), chain: sentCertificates(socket) })
      socket.end('x')
    },
  )
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  t.after(() => listener.close())
  const connect = async (session?: Buffer): Promise<Buffer | undefined> => {
    const socket = tls.connect({
      host: '127.0.0.1',
      port: (listener.address() as AddressInfo).port,
      ca: authority.root.certificatePem,
      cert: client.chainPem,
      key: client.privateKeyPem,
      checkServerIdentity: () => undefined,
      ...(session === undefined ? {} : { session }),
    })
    let ticket: Buffer | undefined
    socket.on('session', (received: Buffer) => {
      ticket ??= received
    })
    socket.resume()
    await once(socket, 'close')
    return ticket
  }
  return { seen, connect }
}

describe('a handshake', () => {
  it('shows the chain that the client sent, which verifies', async (t) => {
    const { seen, connect } = await listen(t)
    await connect()
    const peer = accepted(new PeerVerifier(trust).verify(seen[0]?.chain ?? [], Date.now()))
    assert.equal(peer.principal, WEB)
    assert.notEqual(peer.principal, ORDERS)
    assert.deepEqual(
      peer.chain.map(({ subject }) => subject ?? ''),
      ['', 'CN=example.org intermediate', 'CN=example.org root'],
    )
  })

  it('that resumes shows the leaf alone, which only the same verifier knows', async (t) => {
    const { seen, connect } = await listen(t)
    const ticket = await connect()
    assert.ok(ticket !== undefined)
    await connect(ticket)
    const [full, resumed] = seen
    assert.deepEqual([full?.resumed, resumed?.resumed], [false, true])
    assert.equal(resumed?.chain.length, 1)
    const verifier = new PeerVerifier(trust)
    rejected(verifier.verify(resumed?.chain ?? [], Date.now()), 'untrusted', /no path/)
    accepted(verifier.verify(full?.chain ?? [], Date.now()))
    const peer = accepted(verifier.verify(resumed?.chain ?? [], Date.now()))
    assert.equal(peer.principal, WEB)
    assert.equal(peer.chain.length, 3)
  })
})
