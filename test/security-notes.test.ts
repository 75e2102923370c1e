// Each promise of SECURITY.md names what keeps it, and that is there.
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { it } from 'node:test'
import { fileURLToPath } from 'node:url'

const cwd = fileURLToPath(new URL('../', import.meta.url))
const text = readFileSync(new URL('../SECURITY.md', import.meta.url), 'utf8')
const rows = text
  .split('\n')
  .filter(
    (line) => line.startsWith('| ') && !line.startsWith('| who |') && !line.startsWith('| --- '),
  )
  .map((line) => line.split(' | ').map((cell) => cell.replaceAll(/^\| | \|$/g, '').trim()))

it('every row says who tries what, what stops them, and which test keeps it', () => {
  assert.ok(rows.length > 20)
  for (const row of rows) {
    assert.equal(row.length, 4, `${row[1]}`)
    for (const cell of row) assert.notEqual(cell, '')
    assert.match(row[3]!, /`test\//, `${row[1]}`)
  }
})

it('every path that is named is there', () => {
  const paths = [...text.matchAll(/`((?:test|docs|deploy|src)\/[^`]+)`/g)].map(([, path]) => path!)
  assert.ok(paths.length > rows.length)
  for (const path of paths) assert.notDeepEqual(globSync(path, { cwd }), [], path)
})

it('what is named as a test has tests, and what is named as a fuzz target is run', () => {
  const kept = rows.flatMap((row) => [...row[3]!.matchAll(/`(test\/[^`]+)`/g)])
  for (const [, pattern] of kept) {
    for (const path of globSync(pattern!, { cwd })) {
      const source = readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')
      if (path.startsWith('test/fuzz/targets/')) {
        const targets = readFileSync(new URL('fuzz/targets.ts', import.meta.url), 'utf8')
        assert.ok(targets.includes(`'./${path.slice('test/fuzz/'.length)}'`), path)
      } else {
        assert.match(path, /\.test\.ts$/)
        assert.match(source, /\b(it|test|fuzz)\(/, path)
      }
    }
  }
})
