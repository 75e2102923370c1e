// The smallest configuration that is complete, and loading one from text, for the tests of this room.
import assert from 'node:assert/strict'
import { stringify } from 'yaml'
import type { Config } from '../../src/config/config.ts'
import type { Flags } from '../../src/config/flags.ts'
import { type Loaded, loadConfig } from '../../src/config/load.ts'

export const COMPLETE: Flags = {
  listen: '127.0.0.1:8443',
  forward: 'http://127.0.0.1:8080',
  cert: 'tls.crt',
  key: 'tls.key',
  ca: 'ca.crt',
  allowUri: ['spiffe://example.org/ns/*/sa/web'],
}

export const COMPLETE_FILE = stringify({
  inbound: { forward: 'http://127.0.0.1:8080' },
  identity: { certificate: 'tls.crt', privateKey: 'tls.key' },
  trust: { bundles: [{ file: 'ca.crt' }] },
  policy: { bundle: 'bundle.tar.gz' },
})

export function load(
  text: string | undefined,
  flags: Flags = {},
  env: Readonly<Record<string, string>> = {},
): Loaded {
  return loadConfig({
    ...(text === undefined ? {} : { file: { path: 'postern.yaml', text } }),
    flags,
    env,
    container: { cpuLimit: () => 3, memoryLimit: () => 2 ** 40 },
  })
}

/** A flag's value `undefined` takes it out of the complete set. */
export const loadFlags = (changes: Flags): Loaded => load(undefined, { ...COMPLETE, ...changes })

export function configOf(loaded: Loaded): Config {
  assert.deepEqual(loaded.problems, [])
  assert.ok(loaded.config)
  return loaded.config
}

/** Asserts that there is exactly one problem and that `where`, `what` and `remedy` match. */
export function assertOneProblem(
  loaded: Loaded,
  ...[where, what, remedy]: readonly [RegExp, RegExp, RegExp]
): void {
  assert.equal(loaded.config, undefined)
  assert.equal(loaded.problems.length, 1, JSON.stringify(loaded.problems, null, 1))
  const [problem] = loaded.problems
  assert.match(problem?.where ?? '', where)
  assert.match(problem?.what ?? '', what)
  assert.match(problem?.remedy ?? '', remedy)
}
