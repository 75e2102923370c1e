import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { before, describe, it } from 'node:test'
import fc from 'fast-check'
import { PolicyEngine } from '../../../src/policy/engine.ts'
import { bundleUrl, loadMaterial, NOW_MS, request } from '../support.ts'

const TYPES = [
  'application/json',
  'application/grpc',
  'application/x-www-form-urlencoded',
  'multipart/form-data; boundary=b',
]

describe('hostile bodies', () => {
  let engine: PolicyEngine
  /** Is given bodies, and says nothing about them. */
  let mute: PolicyEngine
  let recycled = 0
  before(async () => {
    const { descriptors } = JSON.parse(
      readFileSync(new URL('protojson-cases.json', import.meta.url), 'utf8'),
    )
    const input = {
      body: { maxBytes: 128 * 1024, totalBytes: 1 << 20 },
      certificate: false,
      v2: false,
      contextExtensions: [],
      descriptor: { file: 'api.binpb', bytes: Buffer.from(descriptors, 'base64') },
    }
    const events = { recycled: () => void recycled++ }
    const engineOf = async (name: string) => {
      const policy = await loadMaterial(bundleUrl(name), { input })
      return new PolicyEngine({ allow: [], policy, clock: { nowMs: () => NOW_MS }, events })
    }
    engine = await engineOf('body')
    mute = await engineOf('deny-all')
  })

  const decide = (type: string, bytes: Buffer, by = engine) =>
    by.decide(
      request('/cases.Service/Unary', {
        fields: ['content-type', type],
        bodySize: bytes.length,
        body: { bytes, complete: true },
      }),
    )

  const isAllowed = (text: string): boolean =>
    decide('application/json', Buffer.from(text)).kind === 'permit'

  it('are denied or read, and never keep the policy from deciding', () => {
    const soup = fc
      .array(
        fc.oneof(
          fc.constantFrom(
            ...['{', '}', '[', ']', ',', ':', '"a"', '"\\ud800"', '"\\u0000"', '1e400', '1e-400'],
            ...['true', '--b\r\n', '--b--', 'content-disposition: form-data; name="a"\r\n\r\n'],
            ...['\r\n', 'a=b&', '%', '\xff', '\0\0\0\0\x05', '\x8a\x01\x05', 'allow'],
          ),
          fc.string({ unit: 'binary', maxLength: 5 }),
        ),
        { maxLength: 12 },
      )
      .map((parts) => Buffer.from(parts.join(''), 'latin1'))
    fc.assert(
      fc.property(fc.constantFrom(...TYPES), soup, (type, bytes) => {
        const { outcome, error } = decide(type, bytes).evaluation
        assert.ok(outcome === 'allow' || outcome === 'deny', `${outcome}: ${error}`)
      }),
      { numRuns: 3_000 },
    )
    assert.equal(recycled, 0)
    assert.equal(isAllowed('{"allow":true}'), true)
  })

  it('as large as they may be are decided about all the same', () => {
    const size = 128 * 1024
    const filled = (text: string) => text.repeat(size / text.length)
    const inners = Buffer.concat([Buffer.alloc(5), Buffer.alloc(size, Buffer.from([0x92, 1, 0]))])
    inners.writeUInt32BE(inners.length - 5, 1)
    for (const [type, bytes] of [
      ['application/json', `[${filled('1,')}1]`],
      ['application/json', `[${filled('{},')}1]`],
      [
        'application/json',
        `{${Array.from({ length: 999 }, (_, i) => `"k${i}":"${'x'.repeat(100)}"`)}}`,
      ],
      ['application/json', `"${filled('\\u0001')}"`],
      ['application/json', filled('[')],
      ['application/json', filled('9')],
      ['application/x-www-form-urlencoded', filled('a&')],
      ['multipart/form-data; boundary=b', filled('--b\r\n')],
      ['text/plain', filled('\x01')],
      ['application/grpc', inners],
    ] as const) {
      const { outcome, error } = decide(type, Buffer.from(bytes), mute).evaluation
      assert.ok(outcome === 'deny' || outcome === 'timeout', `${outcome}: ${error}`)
    }
    assert.equal(isAllowed('{"allow":true}'), true)
    assert.equal(isAllowed('{"allow":false}'), false)
  })
})
