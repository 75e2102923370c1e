// Deny lists of any text: an entry is never lost without a word, since that would let somebody in.
import assert from 'node:assert/strict'
import { parse, stringify } from 'yaml'
import { formatProblem } from '../../../src/cli/failure.ts'
import { readDenyList } from '../../../src/config/deny-list.ts'
import { linesMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

const NOW_MS = Date.UTC(2026, 10, 22)
const ENTRIES = [
  { spiffeId: 'spiffe://example.org/ns/*/sa/web', reason: 'laptop stolen' },
  { issuer: 'CN=issuing,O=Example', serial: '0A:bc' },
  { spki: `sha256:${'ab'.repeat(32)}`, until: '2027-01-31T12:00:00Z' },
]

export const target: Target = {
  name: 'deny-list',
  runs: 600,
  seeds: () => [stringify(ENTRIES), JSON.stringify(ENTRIES), '[]', '- spiffeId: spiffe://a/**\n'],
  dictionary: [
    ...[
      'spiffeId: ',
      'issuer: ',
      'serial: ',
      'spki: ',
      'until: ',
      'reason: ',
      '\n- ',
      '\n  ',
      '*',
      '**',
    ],
    ...[
      '{',
      '}',
      '[',
      ']',
      '"',
      ': ',
      ', ',
      '#',
      '*a',
      '&a',
      '0x',
      '2020-01-01T00:00:00Z',
      '\x1b',
      '\xff',
    ],
  ],
  mutators: [linesMutator],
  check: (input) => {
    const text = input.toString()
    const { entries, problems } = readDenyList({ path: 'revoked.yaml', text }, NOW_MS)
    for (const problem of problems) {
      assert.match(formatProblem(problem), /^[^\p{Cc}]+\n {2}[^\p{Cc}]+$/u)
    }
    assert.equal(
      entries === undefined,
      problems.some(({ severity }) => severity !== 'warning'),
    )
    if (entries === undefined) return
    const plain: unknown = parse(text, { schema: 'failsafe', logLevel: 'silent' })
    assert.ok(Array.isArray(plain))
    assert.equal(entries.length, plain.length)
    for (const { what, untilMs, reason } of entries) {
      assert.ok(untilMs === undefined || Number.isInteger(untilMs))
      assert.doesNotMatch(reason ?? '', /\p{C}/u)
      if (what.kind === 'key') assert.match(what.spkiSha256, /^[0-9a-f]{64}$/)
      if (what.kind === 'certificate') assert.match(what.serial, /^(0|[1-9a-f][0-9a-f]*)$/)
      if (what.kind === 'spiffe_id') assert.match(what.pattern, /^spiffe:\/\/[^/]+\/./)
    }
  },
}
