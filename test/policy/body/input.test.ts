import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { bodyNeed } from '../../../src/policy/body/need.ts'
import type { BodyAtHand } from '../../../src/policy/body/parsed-body.ts'
import { readBundle } from '../../../src/policy/bundle.ts'
import { PolicyEngine } from '../../../src/policy/engine.ts'
import { INPUT_BYTES } from '../../../src/policy/host.ts'
import { buildInput, ConnectionInputs, connectionInput } from '../../../src/policy/input.ts'
import { DEFAULT_BODY_BYTES, PLAIN_INPUT } from '../../../src/policy/input-settings.ts'
import {
  bundleUrl,
  loadMaterial,
  NOW_MS,
  peer,
  request,
  SAMPLE_BUNDLE,
  unpackFile,
} from '../support.ts'

const whole = (text: string): BodyAtHand => ({ bytes: Buffer.from(text), complete: true })
const JSON_FIELDS = ['content-type', 'application/json']

const facts = {
  peer: peer('web'),
  remoteAddress: '10.0.0.1',
  remotePort: 4242,
  localAddress: '10.0.0.2',
  localPort: 8443,
  serverName: 'svc.local',
  destinationPrincipal: '',
  certificatePem: () => '-----BEGIN CERTIFICATE-----\nA+/=\n-----END CERTIFICATE-----\n',
}

describe('the input document', () => {
  it('has the body as text and parsed, and its size', () => {
    const text = '{"b":1.0,"a":[12345678901234567890]}'
    const input = buildInput(
      request('/', { fields: JSON_FIELDS, bodySize: text.length, body: whole(text) }),
    )
    const document = JSON.parse(input)
    assert.ok(input.includes(`"parsed_body":${text},"truncated_body":false`))
    const { http } = document.attributes.request
    assert.deepEqual(
      [http.body, http.size, http.rawBody, http.headers['x-envoy-auth-partial-body']],
      [text, text.length, undefined, 'false'],
    )
  })

  it('knows the size of a chunked body that is complete', () => {
    const sizeOf = (body: BodyAtHand) =>
      JSON.parse(buildInput(request('/', { bodySize: -1, body }))).attributes.request.http.size
    assert.equal(sizeOf(whole('abc')), 3)
    assert.equal(sizeOf({ ...whole('abc'), complete: false }), -1)
  })

  it('has no part of a body that is not complete', () => {
    const body = { ...whole('{"a":1}'), complete: false }
    const input = JSON.parse(buildInput(request('/', { fields: JSON_FIELDS, bodySize: 900, body })))
    const { http } = input.attributes.request
    assert.deepEqual([input.parsed_body, input.truncated_body], [null, true])
    assert.deepEqual([http.body, http.headers['x-envoy-auth-partial-body']], [undefined, 'true'])
  })

  it('has a body that is no text as base64', () => {
    const body = { bytes: Buffer.from([0xff, 0]), complete: true }
    const { http } = JSON.parse(buildInput(request('/', { bodySize: 2, body }))).attributes.request
    assert.deepEqual([http.body, http.rawBody], [undefined, '/wA='])
  })

  it('finds room for the largest body that can be configured, written twice', async () => {
    const text = JSON.stringify({ padding: 'x'.repeat(INPUT_BYTES / 2 - 2_000) })
    const input = {
      body: { maxBytes: INPUT_BYTES / 2, totalBytes: 1 << 20 },
      certificate: false,
      v2: false,
      contextExtensions: [],
    }
    const policy = await loadMaterial(bundleUrl('deny-all'), { input })
    const engine = new PolicyEngine({ allow: [], policy, clock: { nowMs: () => NOW_MS } })
    const body = whole(text)
    const fields = JSON_FIELDS
    const verdict = engine.decide(request('/', { fields, bodySize: text.length, body }))
    assert.equal(verdict.evaluation.outcome, 'deny')
    assert.equal(verdict.kind === 'denial' && verdict.code, 'denied')
  })

  it('has certificate, context extensions and the names of v2 where they are wanted', () => {
    const inputs = new ConnectionInputs(facts)
    const settings = {
      ...PLAIN_INPUT,
      certificate: true,
      v2: true,
      contextExtensions: [
        { name: 'tier', value: 'gold "1"' },
        { name: '__proto__', value: 'x' },
      ],
    }
    const plain = inputs.under(PLAIN_INPUT)
    assert.deepEqual(plain, connectionInput(facts))
    const connection = inputs.under(settings)
    assert.equal(inputs.under(settings), connection)
    const document = JSON.parse(buildInput(request('/', { connection })))
    const { source, destination, contextExtensions, ...attributes } = document.attributes
    assert.equal(
      source.certificate,
      '-----BEGIN%20CERTIFICATE-----%0AA%2B%2F%3D%0A-----END%20CERTIFICATE-----%0A',
    )
    assert.equal(destination.certificate, undefined)
    assert.deepEqual(Object.entries(contextExtensions), [
      ['tier', 'gold "1"'],
      ['__proto__', 'x'],
    ])
    assert.deepEqual(source.address.Address.SocketAddress, {
      address: '10.0.0.1',
      PortSpecifier: { PortValue: 4242 },
    })
    assert.equal(destination.address.Address.SocketAddress.PortSpecifier.PortValue, 8443)
    assert.deepEqual(attributes.metadata_context, { filter_metadata: {} })
    assert.equal(attributes.context_extensions.tier, 'gold "1"')
    assert.deepEqual(document.version, { ext_authz: 'v2', encoding: 'encoding/json' })
    const without = JSON.parse(buildInput(request('/', { connection: plain })))
    assert.deepEqual(Object.keys(without.attributes.source), ['address', 'principal'])
    assert.equal(without.attributes.contextExtensions, undefined)
    assert.equal(without.version.ext_authz, 'v3')
  })
})

describe('a body is waited for', () => {
  const askedBy = async (metadata: unknown): Promise<number | undefined | string> => {
    const entries = new Map(await unpackFile(SAMPLE_BUNDLE))
    const manifest = JSON.parse(String(entries.get('.manifest')))
    entries.set('.manifest', Buffer.from(JSON.stringify({ ...manifest, metadata })))
    const read = readBundle(entries, 'bundle')
    return read.kind === 'bundle' ? read.bundle.bodyBytes : (read.problems[0]?.what ?? '')
  }

  it('when the manifest asks for it', async () => {
    const body = (value: unknown) => askedBy({ postern: { input: { body: value } } })
    assert.equal(await askedBy(undefined), undefined)
    assert.equal(await askedBy({ postern: {} }), undefined)
    assert.equal(await body(true), DEFAULT_BODY_BYTES)
    assert.equal(await body(false), 0)
    assert.equal(await body({ maxBytes: 100 }), 100)
    for (const wrong of [
      'yes',
      {},
      { maxBytes: -1 },
      { maxBytes: 1.5 },
      { maxBytes: 1 << 20 },
      100,
    ]) {
      assert.match(String(await body(wrong)), /metadata.postern.input.body/)
    }
  })

  it('when the policy is seen to read it, unless the configuration says otherwise', async () => {
    const bytesOf = async (name: string, maxBytes?: number) => {
      const body = { ...(maxBytes === undefined ? {} : { maxBytes }), totalBytes: 1 << 20 }
      const input = { body, certificate: false, v2: false, contextExtensions: [] }
      return (await loadMaterial(bundleUrl(name), { input })).input.bodyBytes
    }
    assert.equal(await bytesOf('body'), DEFAULT_BODY_BYTES)
    assert.equal(await bytesOf('body', 0), 0)
    assert.equal(await bytesOf('body', 7), 7)
    assert.equal(await bytesOf('deny-all'), 0)
    assert.equal(await bytesOf('deny-all', 7), 7)
  })

  it('up to a limit, and never for a stream', async () => {
    const outline = (size: number, contentType?: string, path = ['a', 'b']) => ({
      size,
      contentType,
      path: () => path,
    })
    assert.equal(bodyNeed(100, outline(0), undefined), undefined)
    assert.equal(bodyNeed(0, outline(5), undefined), undefined)
    assert.equal(bodyNeed(100, outline(101), undefined), undefined)
    assert.equal(bodyNeed(100, outline(100), undefined)?.maxBytes, 100)
    assert.equal(bodyNeed(100, outline(-1), undefined)?.enough(Buffer.alloc(99)), false)
    assert.equal(bodyNeed(100, outline(-1, 'application/grpc'), undefined), undefined)
  })

  it('not for a peer that the allow rules refuse', async () => {
    const policy = await loadMaterial(bundleUrl('body'))
    const clock = { nowMs: () => NOW_MS }
    const asked = request('/', { bodySize: 10 })
    const open = new PolicyEngine({ allow: [], policy, clock })
    assert.equal(open.bodyNeed(asked)?.maxBytes, DEFAULT_BODY_BYTES)
    const refused = new PolicyEngine({ allow: [{ cn: 'somebody else' }], policy, clock })
    assert.equal(refused.bodyNeed(asked), undefined)
    // What cannot be decided about needs no body either.
    assert.equal(
      open.bodyNeed(
        request('/%zz', { bodySize: 10, fields: ['content-type', 'application/grpc'] }),
      ),
      undefined,
    )
  })
})
