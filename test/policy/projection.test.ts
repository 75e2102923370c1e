// What a policy is given of the input changes no decision: each entrypoint of many policies says the
// same about the whole document and about the part of it that the analysis found it to read.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { PolicyEngine } from '../../src/policy/engine.ts'
import { PolicyHost } from '../../src/policy/host.ts'
import { buildInput, InputError, type PolicyRequest } from '../../src/policy/input.ts'
import { PLAIN_INPUT } from '../../src/policy/input-settings.ts'
import { inspectModule } from '../../src/policy/inspect.ts'
import type { PolicyMaterial } from '../../src/policy/material.ts'
import { projectionOf } from '../../src/policy/projection.ts'
import { type InputReads, readsOf } from '../../src/policy/reads.ts'
import {
  bundleUrl,
  connection,
  loadMaterial,
  NOW_MS,
  peer,
  request,
  SAMPLE_BUNDLE,
  unpackFile,
} from './support.ts'

const wasmOf = async (url: URL): Promise<Buffer> => {
  const wasm = (await unpackFile(url)).get('policy.wasm')
  assert.ok(wasm)
  return wasm
}

const PROJECTION = bundleUrl('projection')

async function entrypointsOf(url: URL): Promise<readonly PolicyMaterial[]> {
  const entrypoint = url === PROJECTION ? 'projection/nothing' : undefined
  const material = await loadMaterial(url, { entrypoint })
  const inspected = inspectModule(material.module)
  assert.equal(inspected.kind, 'facts')
  if (inspected.kind !== 'facts') return []
  const wasm = await wasmOf(url)
  return [...inspected.facts.entrypoints].map(([entrypoint, entrypointId]) => ({
    ...material,
    entrypoint,
    entrypointId,
    reads: readsOf(wasm, entrypointId),
  }))
}

type Plain = 'all' | { [key: string]: Plain }
const plain = (reads: InputReads): Plain =>
  reads === 'all' ? 'all' : Object.fromEntries([...reads].map(([key, part]) => [key, plain(part)]))

const text = fc.oneof(
  fc.constantFrom('', '1', 'GET', 'x', 'é"\\', '\u2028', '😀', '1:1', '0:;', ',1:x1,1:x', '\n'),
  fc.string({ unit: 'binary', maxLength: 12 }),
)
const anyRequest: fc.Arbitrary<PolicyRequest> = fc
  .record({
    path: fc.constantFrom(
      '/',
      '/api',
      '/api/orders',
      '/admin/1',
      '//a%2Fb//',
      '/%C3%A9',
      '/%',
      '/%0a',
    ),
    query: fc.constantFrom('', 'a=1', 'a=1&a=2', 'a=2&b=1&c', 'a=%', 'a;b', 'x=%22&a=api'),
    method: fc.constantFrom('GET', 'POST'),
    who: fc.constantFrom('web', 'orders'),
    headers: fc.array(
      fc.tuple(
        fc.constantFrom('x-a', 'x-b', 'accept', 'cookie', 'host', 'x-envoy-auth-partial-body'),
        text,
      ),
      { maxLength: 5 },
    ),
    bodySize: fc.constantFrom(0, -1, 58),
    requestId: fc.constantFrom('1', 'r-2'),
    shown: fc.constantFrom(undefined, ['x-a', 'cookie']),
  })
  .map(({ path, query, who, headers, shown, ...more }) =>
    request(query === '' ? path : `${path}?${query}`, {
      ...more,
      fields: headers.flat(),
      connection: connection(peer(who), { ...PLAIN_INPUT, ...(shown && { headers: shown }) }),
    }),
  )

function inputOrError(build: () => string): string | InputError {
  try {
    return build()
  } catch (error) {
    if (error instanceof InputError) return error
    throw error
  }
}

/** Every member of `part` is in `whole`, with the same value. */
function assertPartOf(part: unknown, whole: unknown): void {
  if (typeof part !== 'object' || part === null || Array.isArray(part)) {
    return assert.deepEqual(part, whole)
  }
  for (const [key, value] of Object.entries(part)) {
    assert.ok(Object.hasOwn(whole as object, key), key)
    assertPartOf(value, (whole as Record<string, unknown>)[key])
  }
}

describe('an entrypoint says the same of what it reads as of everything', async () => {
  const bundles = [SAMPLE_BUNDLE, PROJECTION, ...['oracle', 'result', 'undefined'].map(bundleUrl)]
  for (const material of (await Promise.all(bundles.map(entrypointsOf))).flat()) {
    const projection = projectionOf(material.reads)
    if (projection === undefined) continue
    test(material.entrypoint, () => {
      const host = new PolicyHost(material)
      const answer = (input: string) => {
        const outcome = host.evaluate(input, NOW_MS)
        return outcome.kind === 'result' ? JSON.parse(outcome.text) : outcome
      }
      fc.assert(
        fc.property(anyRequest, (asked) => {
          const whole = inputOrError(() => buildInput(asked))
          const part = inputOrError(() => buildInput(asked, projection))
          if (whole instanceof InputError || part instanceof InputError) {
            return assert.deepEqual(part, whole)
          }
          assertPartOf(JSON.parse(part), JSON.parse(whole))
          assert.deepEqual(answer(part), answer(whole))
        }),
        { numRuns: 60 },
      )
    })
  }
})

/** Few enough values that most requests of a sequence are the same as one before in what is read. */
const fewRequests: fc.Arbitrary<PolicyRequest> = fc
  .record({
    target: fc.constantFrom('/', '/api', '/api/1', '/%', '/%0a', '/api?a=1', '/api?a=1;', '/?a=%'),
    method: fc.constantFrom('GET', '3:GET', 'POST'),
    who: fc.constantFrom('web', 'orders'),
    headers: fc.array(
      fc.tuple(fc.constantFrom('x-a', 'x-b'), fc.constantFrom('', '1', ',', '1,', '1:1', '0:1,0:')),
      { maxLength: 3 },
    ),
    many: fc.boolean(),
    bodySize: fc.constantFrom(0, -1, 1),
    protocol: fc.constantFrom('HTTP/1.1', 'HTTP/2', 'TCP'),
  })
  .map(({ target, who, headers, many, ...more }) =>
    request(target, {
      ...more,
      fields: [...headers.flat(), ...(many ? new Array<string>(512).fill('x-c') : [])],
      connection: connection(peer(who)),
    }),
  )

describe('an engine that remembers says what one says that is asked each time', async () => {
  for (const policy of (await Promise.all([SAMPLE_BUNDLE, PROJECTION].map(entrypointsOf))).flat()) {
    const projection = projectionOf(policy.reads)
    if (projection?.keyOf === undefined) continue
    test(policy.entrypoint, () => {
      const clock = { nowMs: () => NOW_MS }
      const remembers = new PolicyEngine({ allow: [], policy, clock })
      const asks = new PolicyEngine({ allow: [], policy: { ...policy, reads: 'all' }, clock })
      const said = (engine: PolicyEngine, asked: PolicyRequest) => {
        const { evaluation, ...verdict } = engine.decide(asked)
        const { outcome, rule, result, error } = evaluation
        const read = result && JSON.parse(result)
        return { ...verdict, outcome, rule, error, result: read }
      }
      const texts = new Map<string, string | InputError>()
      fc.assert(
        fc.property(fewRequests, (asked) => {
          assert.deepEqual(said(remembers, asked), said(asks, asked))
          if (asked.protocol === 'TCP') return
          const key = projection.keyOf?.(asked)
          if (key === undefined) return
          const text = inputOrError(() => projection.textOf(asked))
          assert.deepEqual(texts.get(key) ?? text, text)
          texts.set(key, text)
        }),
        { numRuns: 60 },
      )
    })
  }
})

test('a key tells apart whatever has another text', () => {
  const part = (members: Record<string, InputReads>): InputReads => new Map(Object.entries(members))
  const headers = part({ 'x-a': 'all', 'x-b': 'all' })
  const http = part({ method: 'all', host: 'all', headers })
  const reads = part({ attributes: part({ request: part({ http }) }) })
  const projection = projectionOf(reads)
  const values = ['', '1', '11', '1:', '1:1', '0,', '0,1:1', ';', ';0:']
  const lines = [
    [],
    ...values.flatMap((value) => [
      ['x-a', value],
      ['x-b', value],
      ['x-a', value, 'x-b', '1'],
    ]),
  ]
  const keys = new Map<string, string>()
  for (const method of values) {
    for (const host of values) {
      for (const fields of lines) {
        const asked = request('/', { method, host, fields })
        const [key, text] = [projection?.keyOf?.(asked), projection?.textOf(asked)]
        assert.ok(key !== undefined && text !== undefined)
        assert.equal(keys.get(key) ?? text, text)
        keys.set(key, text)
      }
    }
  }
})

test('what an entrypoint reads is found out, and in doubt it is everything', async () => {
  const found = Object.fromEntries(
    (await entrypointsOf(PROJECTION)).map(({ entrypoint, reads }) => [
      entrypoint.replace('projection/', ''),
      plain(reads),
    ]),
  )
  const http = (part: Plain): Plain => ({ attributes: { request: { http: part } } })
  assert.deepEqual(found['nothing'], {})
  assert.deepEqual(found['plain'], { ...(http({ method: 'all' }) as object), parsed_path: 'all' })
  assert.deepEqual(
    found['fixed_headers'],
    http({ headers: { 'x-a': 'all', ':path': 'all', ':method': 'all' } }),
  )
  assert.deepEqual(found['any_header'], http({ headers: 'all' }))
  assert.deepEqual(found['listed_headers'], http({ headers: 'all' }))
  assert.deepEqual(found['rule_alias'], http({ method: 'all' }))
  assert.deepEqual(found['absent'], http({ headers: { 'x-a': 'all' } }))
  assert.deepEqual(found['variable'], { attributes: 'all' })
  assert.deepEqual(found['replaced_by_part'], {
    method: 'all',
    ...(http({ method: 'all' }) as object),
  })
  for (const name of ['whole', 'walked', 'by_path', 'replaced_part', 'dynamic', 'partial_member']) {
    assert.equal(found[name], 'all', name)
  }
})

test('a module without the names of its functions is given everything', async () => {
  const wasm = await wasmOf(SAMPLE_BUNDLE)
  const name = wasm.indexOf('\x04name')
  const stripped = Buffer.from(wasm)
  stripped.write('mane', name + 1)
  assert.ok(WebAssembly.validate(stripped))
  assert.equal(readsOf(stripped, 0), 'all')
  assert.notEqual(readsOf(wasm, 0), 'all')
  assert.equal(readsOf(wasm.subarray(0, 1000), 0), 'all')
})
