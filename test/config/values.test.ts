import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  formatAddress,
  formatDuration,
  formatForward,
  formatSize,
  isLocal,
  LONGEST_DURATION_MS,
  type Parsed,
  parseAddress,
  parseCommonName,
  parseDnsPattern,
  parseDuration,
  parseEntrypoint,
  parseForward,
  parseGrpcService,
  parseHeaderName,
  parseRequestPath,
  parseSize,
  parseTrustDomain,
  parseUriPattern,
} from '../../src/config/values.ts'

const parsed = <T>(outcome: Parsed<T>): T => {
  assert.equal(outcome.kind, 'value', JSON.stringify(outcome))
  return (outcome as { value: T }).value
}

const assertAllWrong = (parse: (text: string) => Parsed<unknown>, texts: readonly string[]) => {
  for (const text of texts)
    assert.equal(parse(text).kind, 'wrong', `${JSON.stringify(text)} passed`)
}

test('every duration that can be kept is read back as it was written', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: LONGEST_DURATION_MS }), (ms) => {
      assert.equal(parsed(parseDuration(formatDuration(ms))), ms)
    }),
  )
})

test('every size is read back as it was written', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.constantFrom(1, 1024, 1024 ** 2), (count, unit) => {
      const bytes = Math.floor(count / unit) * unit
      assert.equal(parsed(parseSize(formatSize(bytes))), bytes)
    }),
  )
})

test('durations have one whole number and one unit', () => {
  assert.equal(parsed(parseDuration('250ms')), 250)
  assert.equal(parsed(parseDuration('30s')), 30_000)
  assert.equal(parsed(parseDuration('5m')), 300_000)
  assert.equal(parsed(parseDuration('1h')), 3_600_000)
  assert.equal(parsed(parseDuration('0')), 0)
  assertAllWrong(parseDuration, ['', '30', '1.5s', '-1s', '1m30s', '1d', ' 1s', '1 s', '1S', 's'])
})

test('refuses a duration that a timer of Node would take as no time at all', () => {
  assertAllWrong(parseDuration, ['25000d', '597h', '9999999999h', '2147483648ms'])
  assert.equal(parsed(parseDuration('2147483647ms')), LONGEST_DURATION_MS)
})

test('sizes are bytes or binary units', () => {
  assert.equal(parsed(parseSize('64KiB')), 65_536)
  assert.equal(parsed(parseSize('1MiB')), 1_048_576)
  assert.equal(parsed(parseSize('4GiB')), 4_294_967_296)
  assert.equal(parsed(parseSize('1000')), 1000)
  assertAllWrong(parseSize, [
    '',
    '64KB',
    '64k',
    '1.5MiB',
    '-1',
    '1e3',
    '0x10',
    '999999999999999GiB',
  ])
})

test('addresses are a host and a port, or a UNIX socket', () => {
  const forms: readonly (readonly [string, string])[] = [
    ['127.0.0.1:8080', '127.0.0.1:8080'],
    [':8443', '0.0.0.0:8443'],
    ['[::]:8443', '[::]:8443'],
    ['[0:0:0:0:0:0:0:1]:0', '[::1]:0'],
    ['LocalHost:1', 'localhost:1'],
    ['my-host.svc:65535', 'my-host.svc:65535'],
    ['unix:/run/a.sock', 'unix:/run/a.sock'],
    ['unix:///run/a.sock', 'unix:/run/a.sock'],
  ]
  for (const [text, written] of forms)
    assert.equal(formatAddress(parsed(parseAddress(text))), written)
  assertAllWrong(parseAddress, [
    '',
    '8443',
    '127.0.0.1',
    '127.0.0.1:',
    '127.0.0.1:65536',
    '256.0.0.1:80',
    '127.1:80',
    '0x7f.1:80',
    '01.2.3.4:80',
    '::1:80',
    '[::1]',
    '[::g]:80',
    '[fe80::1%eth0]:80',
    'a b:80',
    '-a:80',
    'unix:',
    'unix:relative',
    'unix:/a\0b',
    `unix:/${'x'.repeat(107)}`,
  ])
})

test('every address is read back as it was written', () => {
  const address = fc.oneof(
    fc
      .tuple(fc.oneof(fc.ipV4(), fc.domain()), fc.nat(65_535))
      .map(([host, port]) => `${host}:${port}`),
    fc.tuple(fc.ipV6(), fc.nat(65_535)).map(([host, port]) => `[${host}]:${port}`),
  )
  fc.assert(
    fc.property(address, (text) => {
      const once = parsed(parseAddress(text))
      assert.deepEqual(parsed(parseAddress(formatAddress(once))), once)
    }),
  )
})

test('only loopback and UNIX sockets are local', () => {
  const local = (text: string) => isLocal(parsed(parseAddress(text)))
  for (const text of ['127.0.0.1:1', '127.9.9.9:1', 'localhost:1', '[::1]:1', 'unix:/a']) {
    assert.ok(local(text), text)
  }
  for (const text of [
    '0.0.0.0:1',
    '10.0.0.1:1',
    '[::]:1',
    '127.example.org:1',
    'localhost.example:1',
  ]) {
    assert.ok(!local(text), text)
  }
})

test('the workload is named by a URL or a socket', () => {
  const forms: readonly (readonly [string, string])[] = [
    ['http://127.0.0.1:8080', 'http://127.0.0.1:8080'],
    ['http://localhost:8080/', 'http://localhost:8080'],
    ['http://[::1]', 'http://[::1]:80'],
    ['http://localhost', 'http://localhost:80'],
    ['unix:/run/app.sock', 'unix:/run/app.sock'],
    ['http+unix:/run/app.sock', 'unix:/run/app.sock'],
    ['http+unix:///run/app.sock', 'unix:/run/app.sock'],
  ]
  for (const [text, written] of forms)
    assert.equal(formatForward(parsed(parseForward(text))), written)
  assertAllWrong(parseForward, [
    '',
    '127.0.0.1:8080',
    'http:',
    'http://',
    'http://:8080',
    'http://127.0.0.1:0',
    'http://127.0.0.1:8080/path',
    'http://127.0.0.1:8080?q',
    'http://user@127.0.0.1:8080',
    'https://127.0.0.1:8080',
    'ftp://127.0.0.1',
    'unix:app.sock',
  ])
})

test('a workload speaks HTTP/1.1, HTTP/2 or anything', () => {
  const address = { kind: 'tcp', host: '127.0.0.1', port: 1 }
  assert.deepEqual(parsed(parseForward('h2c://127.0.0.1:1')), { scheme: 'h2c', address })
  assert.deepEqual(parsed(parseForward('tcp://127.0.0.1:1')), { scheme: 'tcp', address })
  for (const text of ['h2c+unix:/a', 'tcp+unix:/a']) {
    const forward = parsed(parseForward(text))
    assert.equal(formatForward(forward), text)
  }
  assertAllWrong(parseForward, ['tcp://127.0.0.1', 'udp://127.0.0.1:1', 'tcp://127.0.0.1:1/x'])
})

test('trust domains are bare lower-case names', () => {
  assert.equal(parsed(parseTrustDomain('partner.example')), 'partner.example')
  assertAllWrong(parseTrustDomain, ['', 'Example.org', 'spiffe://a', 'a/b', 'a:1', 'ä', 'a%41'])
})

test('a wildcard stands for whole segments and labels only', () => {
  for (const text of [
    'spiffe://example.org/ns/*/sa/web',
    'spiffe://a/**',
    'urn:example:a',
    '*:b',
  ]) {
    assert.equal(parseUriPattern(text).kind, text === '*:b' ? 'wrong' : 'value', text)
  }
  assertAllWrong(parseUriPattern, [
    '',
    '/path',
    'spiffe://a/x*',
    'spiffe://a/***',
    'spiffe://a b',
    'x',
  ])
  for (const text of ['api.example.org', '*.example.org', '**.example.org', 'localhost']) {
    assert.equal(parseDnsPattern(text).kind, 'value', text)
  }
  assertAllWrong(parseDnsPattern, ['', 'a..b', 'a*.b', '.a', 'a.', 'a b', 'http://a'])
  for (const text of ['client', 'Client 1', '*.example.org']) {
    assert.equal(parseCommonName(text).kind, 'value', text)
  }
  assertAllWrong(parseCommonName, ['', 'client*', 'a.b*'])
})

test('names of rules, headers and paths are held to their own grammar', () => {
  assert.equal(parsed(parseEntrypoint('envoy/authz/allow')), 'envoy/authz/allow')
  assertAllWrong(parseEntrypoint, ['', 'data.envoy.authz.allow', '/a', 'a/', 'a//b'])
  assert.equal(parsed(parseHeaderName('X-Api-Key')), 'x-api-key')
  assertAllWrong(parseHeaderName, ['', 'a b', 'a:', 'ä'])
  assert.equal(parsed(parseRequestPath('/healthz')), '/healthz')
  assert.equal(parsed(parseRequestPath('/healthz?full=1&x')), '/healthz?full=1&x')
  assertAllWrong(parseRequestPath, ['', 'healthz', '?full', '/a b', '/a#b', '/a?b#c', '/ä'])
})

test('takes gRPC services by their full names, and all of them as one', () => {
  for (const name of ['*', 'Health', 'shop.v1.Orders'])
    assert.equal(parsed(parseGrpcService(name)), name)
  assertAllWrong(parseGrpcService, ['', '.', 'a..b', 'a.b.', 'a/b', 'shop.*', 'ä', 'a'.repeat(128)])
})
