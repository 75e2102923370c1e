// The keys of the decision log: what they mean, and every way to get them wrong.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, test } from 'node:test'
import { uploadProblems } from '../../src/cli/decision-server.ts'
import { parseLabel, parseLogServer } from '../../src/config/values.ts'
import { temporaryDirectory, testAuthority } from '../support/pki.ts'
import { assertOneProblem, COMPLETE_FILE, configOf, load } from './loading.ts'

const loadLog = (log: string) => load(`${COMPLETE_FILE}log: ${log}\n`)

test('an upload has the figures of OPA where nothing else is said', () => {
  const { upload, labels } = configOf(
    loadLog('{ upload: { url: "https://opa.example" }, labels: [app=orders, zone=] }'),
  ).log
  assert.deepEqual(upload, {
    url: 'https://opa.example/logs',
    minDelayMs: 300_000,
    maxDelayMs: 600_000,
    maxEvents: 10_000,
    bufferBytes: 32 * 1024 * 1024,
    chunkBytes: 32_768,
    maxPerSecond: 0,
  })
  assert.deepEqual(labels, [
    { name: 'app', value: 'orders' },
    { name: 'zone', value: '' },
  ])
  assert.equal(configOf(load(COMPLETE_FILE)).log.upload, undefined)
})

test('a URL keeps its path and query', () => {
  const url = 'https://opa.example:8443/v1/logs?tenant=a'
  assert.deepEqual(parseLogServer(url), { kind: 'value', value: url })
})

test('plain text stays on this host', () => {
  for (const url of ['http://127.0.0.1:8181/logs', 'http://[::1]/logs', 'http://localhost/logs']) {
    assert.equal(parseLogServer(url).kind, 'value', url)
  }
  for (const url of ['http://10.0.0.1/logs', 'http://opa.example', 'http://127.0.0.1.example']) {
    assert.equal(parseLogServer(url).kind, 'wrong', url)
  }
})

test('what is no URL, no label, or says too much is refused', () => {
  for (const url of [
    '',
    'opa',
    'ftp://a',
    'https:/a',
    'https://',
    'https://u:p@a',
    'https://a#b',
  ]) {
    assert.equal(parseLogServer(url).kind, 'wrong', url)
  }
  for (const label of ['', 'app', '=x', 'a b=c', 'id=x', 'version=1']) {
    assert.equal(parseLabel(label).kind, 'wrong', label)
  }
})

describe('an upload that contradicts itself', () => {
  for (const [log, where, what, remedy] of [
    ['{ upload: { tokenFile: t } }', /tokenFile/, /no effect/, /log\.upload\.url/],
    ['{ upload: { url: "https://a", certificate: c } }', /certificate/, /half/, /privateKey/],
    ['{ upload: { url: "https://a", privateKey: c } }', /privateKey/, /half/, /certificate/],
    ['{ upload: { url: "https://a", maxDelay: 1m } }', /maxDelay/, /longer/, /minDelay/],
    ['{ upload: { url: "https://a", minDelay: 1h } }', /minDelay/, /longer/, /maxDelay/],
    ['{ upload: { url: "http://a" } }', /url/, /plain text/, /loopback/],
    ['{ upload: { url: "https://a", chunkBytes: 10 } }', /chunkBytes/, /below/, /1KiB/],
  ] as const) {
    it(log, () => assertOneProblem(loadLog(log), where, what, remedy))
  }
})

describe('files of an upload that cannot be used', () => {
  it('are each a problem with key, file and remedy', async (t) => {
    const directory = await temporaryDirectory(t)
    const authority = await testAuthority()
    const [one, other] = [await authority.svid('one'), await authority.svid('other')]
    const write = (name: string, text: string): string => {
      const path = join(directory, name)
      writeFileSync(path, text)
      return path
    }
    const good = {
      tokenFile: write('token', 'abc.def\n'),
      certificate: write('one.crt', one.chainPem),
      privateKey: write('one.key', one.privateKeyPem),
      ca: write('ca.crt', authority.root.certificatePem),
    }
    const upload = configOf(loadLog('{ upload: { url: "https://a" } }')).log.upload
    assert.ok(upload !== undefined)
    assert.deepEqual(await uploadProblems({ ...upload, ...good }), [])
    for (const [changes, where, what] of [
      [{ tokenFile: join(directory, 'none') }, /tokenFile: .*none/, /no such file/],
      [{ tokenFile: directory }, /tokenFile/, /directory/],
      [{ tokenFile: write('empty', '\n') }, /tokenFile/, /no token/],
      [{ tokenFile: write('two', 'a\nb') }, /tokenFile/, /no token/],
      [{ certificate: good.tokenFile }, /certificate/, /no certificate/],
      [{ privateKey: good.tokenFile }, /privateKey/, /no key/],
      [{ privateKey: write('other.key', other.privateKeyPem) }, /privateKey/, /not the key/],
      [{ ca: good.tokenFile }, /ca/, /no certificate/],
    ] as const) {
      const problems = await uploadProblems({ ...upload, ...good, ...changes })
      assert.equal(problems.length, 1, JSON.stringify(problems))
      assert.match(problems[0]?.where ?? '', where)
      assert.match(problems[0]?.what ?? '', what)
      assert.ok(problems[0]?.remedy)
    }
  })
})
