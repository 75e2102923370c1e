import assert from 'node:assert/strict'
import { isIPv4 } from 'node:net'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { readProxyHeader, writeProxyHeader } from '../../src/proxy/proxy-protocol.ts'

const FACTS = {
  source: { address: '192.0.2.7', port: 40_000 },
  destination: { address: '192.0.2.1', port: 8443 },
  principal: 'spiffe://example.org/ns/a/sa/b',
  commonName: 'web',
  serverName: 'db.test',
  tlsVersion: 'TLSv1.3',
  cipher: 'TLS_AES_128_GCM_SHA256',
}

/** As haproxy's documentation lays it out, by hand: TCP over IPv4, without TLVs. */
const BY_HAND = Buffer.from(
  '0d0a0d0a000d0a515549540a' + '21' + '11' + '000c' + 'c0000207' + 'c0000201' + '9c40' + '20fb',
  'hex',
)

describe('a PROXY header', () => {
  it('says who the client is', () => {
    assert.deepEqual(readProxyHeader(Buffer.concat([BY_HAND, Buffer.from('rest')])), {
      kind: 'header',
      length: 28,
      source: FACTS.source,
      destination: FACTS.destination,
    })
  })

  it('is incomplete at every byte before its end, and refused at the first that is wrong', () => {
    for (let i = 0; i < BY_HAND.length; i++) {
      assert.equal(readProxyHeader(BY_HAND.subarray(0, i)).kind, 'incomplete', `${i} bytes`)
    }
    for (let i = 0; i < 14; i++) {
      const wrong = Buffer.from(BY_HAND)
      wrong[i] = wrong[i]! ^ 0x40
      assert.equal(readProxyHeader(wrong).kind, 'malformed', `byte ${i}`)
    }
    assert.equal(readProxyHeader(Buffer.from('PROXY TCP4 192.0.2.7')).kind, 'malformed')
    assert.equal(readProxyHeader(Buffer.from([0x16, 3, 1])).kind, 'malformed')
  })

  it('without addresses stands for the balancer itself', () => {
    for (const bytes of ['2000', '2011', '2100']) {
      const local = Buffer.concat([BY_HAND.subarray(0, 12), Buffer.from(`${bytes}0000`, 'hex')])
      assert.deepEqual(readProxyHeader(local), { kind: 'header', length: 16 })
    }
  })

  it('with too few bytes for its addresses, or too many in all, is refused', () => {
    for (const size of ['000b', '1001', 'ffff']) {
      const wrong = Buffer.concat([
        BY_HAND.subarray(0, 14),
        Buffer.from(size, 'hex'),
        Buffer.alloc(70_000),
      ])
      assert.equal(readProxyHeader(wrong).kind, 'malformed', size)
    }
  })

  it('reads back as it was written, for every pair of addresses', () => {
    const address = fc.oneof(fc.ipV4(), fc.ipV6())
    const port = fc.integer({ min: 0, max: 65_535 })
    fc.assert(
      fc.property(address, port, address, port, (from, fromPort, to, toPort) => {
        const source = { address: from, port: fromPort }
        const destination = { address: to, port: toPort }
        const bytes = writeProxyHeader({ ...FACTS, source, destination })
        const read = readProxyHeader(bytes)
        assert.ok(read.kind === 'header' && read.source && read.destination)
        assert.equal(read.length, bytes.length)
        assert.equal(read.source.port, fromPort)
        assert.equal(read.destination.port, toPort)
        // IPv4 among IPv6 is read as IPv4, and two of them are written so.
        fc.pre(isIPv4(read.source.address) === isIPv4(from))
        fc.pre(isIPv4(read.destination.address) === isIPv4(to))
        // The same text once more: what is written again from what was read is the same bytes.
        const again = { source: read.source, destination: read.destination }
        assert.deepEqual(writeProxyHeader({ ...FACTS, ...again }), bytes)
      }),
    )
  })

  it('tells the workload of TLS and the peer', () => {
    const text = writeProxyHeader(FACTS).toString('latin1')
    for (const part of ['TLSv1.3', 'TLS_AES_128_GCM_SHA256', 'web', 'db.test', FACTS.principal]) {
      assert.ok(text.includes(part), part)
    }
  })

  it('never throws, whatever the bytes', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 80 }),
        fc.integer({ min: 0, max: 28 }),
        (tail, kept) => {
          readProxyHeader(Buffer.concat([BY_HAND.subarray(0, kept), tail]))
        },
      ),
    )
  })
})
