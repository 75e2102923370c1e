// Headers of the PROXY protocol. Judged alike in pieces; what they say is an address that Node takes
// for one, and is read again where it is written.
import assert from 'node:assert/strict'
import { isIP } from 'node:net'
import { readProxyHeader, writeProxyHeader } from '../../../src/proxy/proxy-protocol.ts'
import type { Target } from '../target.ts'

const FACTS = {
  principal: 'spiffe://a/b',
  commonName: 'c',
  serverName: 'd',
  tlsVersion: 'TLSv1.3',
  cipher: 'e',
}
const between = (source: string, destination: string) =>
  writeProxyHeader({
    ...FACTS,
    source: { address: source, port: 40_000 },
    destination: { address: destination, port: 8443 },
  })

export const target: Target = {
  name: 'proxy-header',
  runs: 6_000,
  seeds: () => [
    between('192.0.2.7', '192.0.2.1'),
    Buffer.concat([between('2001:db8::1', '::ffff:1.2.3.4'), Buffer.from('\x16\x03\x01')]),
    between('somewhere', 'else'),
    Buffer.from('0d0a0d0a000d0a515549540a200000 00'.replaceAll(' ', ''), 'hex'),
    'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n',
  ],
  dictionary: [
    '\x0d\x0a\x0d\x0a\x00\x0d\x0aQUIT\x0a',
    '\x21\x11\x00\x0c',
    '\x21\x21\x00\x24',
    '\x20\x00',
    '\xff\xff',
  ],
  check: (input) => {
    const whole = readProxyHeader(input)
    for (let end = 0; end <= input.length; end += end < 64 ? 1 : 97) {
      const part = readProxyHeader(input.subarray(0, end))
      if (part.kind === 'incomplete') continue
      assert.deepEqual(part, whole)
    }
    if (whole.kind !== 'header') return
    assert.ok(whole.length >= 16 && whole.length <= input.length)
    const { source, destination } = whole
    if (source === undefined || destination === undefined) return
    for (const { address, port } of [source, destination]) {
      assert.ok(isIP(address) > 0 && port >= 0 && port <= 65_535, address)
    }
    const again = readProxyHeader(writeProxyHeader({ ...FACTS, source, destination }))
    assert.ok(again.kind === 'header')
    assert.deepEqual([again.source, again.destination], [source, destination])
  },
}
