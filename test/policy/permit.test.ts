import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

test('only the engine issues permits', () => {
  const source = fileURLToPath(new URL('../../src/', import.meta.url))
  const users = readdirSync(source, { recursive: true, encoding: 'utf8' })
    .filter(
      (name) =>
        name.endsWith('.ts') &&
        /issuePermit|new Permit\(/.test(readFileSync(source + name, 'utf8')),
    )
    .sort()
  assert.deepEqual(users, ['policy/engine.ts', 'policy/permit.ts'])
})
