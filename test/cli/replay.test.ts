// `postern replay`: what would change, what cannot be known, and which lines were not understood.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { jsonParts } from '../../src/cli/replay/json-parts.ts'
import { LONGEST_LINE, linesOf } from '../../src/cli/replay/lines.ts'
import { decisionEvent } from '../../src/observe/decision-event.ts'
import { createRedactor } from '../../src/observe/redaction.ts'
import type { DecisionRecord } from '../../src/threads.ts'
import { decisionRecord } from '../observe/support.ts'
import { postern } from '../support/command.ts'

const bundle = (name: string): string =>
  new URL(`../policy/bundles/${name}.tar.gz`, import.meta.url).pathname
/** Allows /open and denies others; reads the path alone. */
const BY_PATH = bundle('log-rules')

const directory = mkdtempSync(join(tmpdir(), 'postern-replay-'))
after(() => rmSync(directory, { recursive: true }))
let files = 0
function file(content: string | Buffer): string {
  const path = join(directory, `${files++}.ndjson`)
  writeFileSync(path, content)
  return path
}

const inputOf = (path: string, headers: Record<string, string> = {}): string =>
  JSON.stringify({
    attributes: { request: { http: { method: 'GET', headers, path: `/${path}` } } },
    parsed_path: [path],
  })

function event(changes: Partial<DecisionRecord> = {}): string {
  const record = decisionRecord({ input: inputOf('open'), result: 'true', ...changes })
  const labels = { id: 'a', version: '1' }
  const made = decisionEvent(record, { labels, redactor: createRedactor() })
  assert.equal(made.kind, 'event')
  return made.kind === 'event' ? made.json : ''
}

/** As the console has it. */
const logLine = (changes: Partial<DecisionRecord> = {}): string =>
  `{"level":"info","time":"t","msg":"Decision Log","type":"openpolicyagent.org/decision_logs",${event(changes).slice(1)}`

interface Summary {
  readonly lines: number
  readonly other: number
  readonly broken: number
  readonly replayed: number
  readonly changes: Record<string, number>
  readonly partly_compared: number
  readonly not_replayable: Record<string, number>
}

async function replay(lines: readonly string[], policy = BY_PATH) {
  const { exitCode, stdout, stderr } = await postern([
    'replay',
    '--json',
    '--bundle',
    policy,
    file(`${lines.join('\n')}\n`),
  ])
  const told = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  const { summary } = told.pop() as { summary: Summary }
  return { exitCode, stderr, summary, changes: told }
}

const DENIED = { input: inputOf('closed'), result: 'false', outcome: 'deny' } as const

describe('replay', () => {
  it('ends with 0 where nothing would change', async () => {
    const { exitCode, summary } = await replay([logLine(), logLine(DENIED), event()])
    assert.equal(exitCode, 0)
    assert.deepEqual(summary.changes, { same: 3 })
  })

  it('ends with 1 and tells what would, by transition, with the difference', async () => {
    const { exitCode, summary, changes } = await replay([
      logLine(),
      logLine({ ...DENIED, decisionId: 'becomes-allowed', input: inputOf('open') }),
      logLine({ decisionId: 'becomes-denied', input: inputOf('closed') }),
      logLine({ decisionId: 'other-result', result: '{"allowed":true,"headers":{"x":"y"}}' }),
      logLine({ ...DENIED, decisionId: 'was-error', outcome: 'error', result: '1', error: 'bad' }),
    ])
    assert.equal(exitCode, 1)
    assert.deepEqual(summary.changes, {
      same: 1,
      deny_to_allow: 1,
      allow_to_deny: 1,
      allow_changed: 1,
      error_to_deny: 1,
    })
    assert.deepEqual(
      changes.map(({ change, decision_id, line }) => [change, decision_id, line]),
      [
        ['deny_to_allow', 'becomes-allowed', 2],
        ['allow_to_deny', 'becomes-denied', 3],
        ['allow_changed', 'other-result', 4],
        ['error_to_deny', 'was-error', 5],
      ],
    )
    assert.deepEqual(changes[0]?.['differences'], [{ path: '', before: false, after: true }])
  })

  it('counts what it cannot know, and never guesses', async () => {
    const { exitCode, summary } = await replay([
      logLine(),
      // Masked, and not read by this policy.
      logLine({ input: inputOf('open', { authorization: 'Bearer abc' }) }),
      logLine().replace('"timestamp"', '"erased":["/input/parsed_path"],"timestamp"'),
      logLine().replace('"timestamp"', '"masked":["/input"],"timestamp"'),
      logLine().replace('"timestamp"', '"masked":["/input/parsed_path/0"],"timestamp"'),
      logLine().replace('"timestamp"', '"erased":["/input/%"],"timestamp"'),
      logLine().replace('["open"]', '["closed"]'),
      logLine({ ...DENIED, rule: 'allow_rules' }),
      logLine({ input: '{}', result: undefined, outcome: 'deny', error: 'bad path' } as never),
      logLine({ input: inputOf('open', { x: 'y'.repeat(300_000) }) }),
    ])
    assert.equal(exitCode, 0)
    assert.deepEqual(summary.changes, { same: 2 })
    assert.deepEqual(summary.not_replayable, {
      masked: 4,
      altered: 1,
      not_policy: 1,
      no_input: 1,
      too_large: 1,
    })
  })

  it('leaves masked parts of the result out, and says so', async () => {
    const { summary } = await replay([
      logLine({ result: 'true' }).replace(
        '"timestamp"',
        '"masked":["/result/headers/x"],"timestamp"',
      ),
      logLine({ ...DENIED, input: inputOf('open') }).replace(
        '"result":false,',
        '"erased":["/result"],',
      ),
    ])
    assert.deepEqual(summary.changes, { same: 1, deny_to_allow: 1 })
    assert.equal(summary.partly_compared, 2)
  })

  it('tells other lines of the log from lines that it does not understand', async () => {
    const { stderr, summary } = await replay([
      '{"level":"info","msg":"Ready","event":"ready"}',
      logLine(),
      'nonsense',
      '',
      '{"decision_id":1,"type":"openpolicyagent.org/decision_logs"}',
      '{"decision_id":"without a time"}',
      '{"x":1}',
      '5',
      logLine().slice(0, -10),
    ])
    assert.deepEqual([summary.lines, summary.other, summary.broken], [9, 2, 6])
    for (const line of [3, 5, 6, 7, 8, 9]) assert.match(stderr, new RegExp(`^line ${line}: `, 'm'))
  })

  it('reads what was uploaded, what OPA wrote, and what a collector wrote anew', async () => {
    const opa = {
      decision_id: 'of-opa',
      path: 'envoy/authz/allow',
      input: JSON.parse(inputOf('open')),
      result: { allowed: true },
      timestamp: '2026-01-02T03:04:05.678Z',
    }
    const { summary } = await replay([
      `[${event()},${event()}]`,
      JSON.stringify(opa),
      logLine().replaceAll('":', '" : '),
    ])
    assert.deepEqual(summary.changes, { same: 3, allow_changed: 1 })
  })

  it('decides as of the time of the event', async () => {
    const input = JSON.stringify({ parsed_path: ['now'] })
    const { summary, changes } = await replay(
      [
        logLine({ input, timeMs: Date.UTC(2020, 0, 1) }),
        logLine({ input, timeMs: Date.UTC(2030, 0, 1) }),
      ],
      bundle('time'),
    )
    assert.deepEqual(summary.changes, { same: 1, allow_to_deny: 1 })
    assert.equal(changes[0]?.['line'], 2)
  })

  it('says the same in words', async () => {
    const path = file(`${logLine({ input: inputOf('closed') })}\nnonsense\n`)
    const { exitCode, stdout } = await postern(['replay', '--bundle', BY_PATH, path])
    assert.equal(exitCode, 1)
    assert.match(stdout, /^allow_to_deny {2}\S+ {2}line 1 {2}GET \/closed$/m)
    assert.match(stdout, /^ {4}\/: true -> false$/m)
    assert.match(stdout, /^2 lines: 1 decisions, 0 other lines, 1 not understood$/m)
  })

  it('lets no log line speak to the terminal', async () => {
    const hostile = '\u001b]0;title\u0007\u009b31m\u202e'
    const line = logLine({
      decisionId: hostile,
      result: `{"allowed":true,"x":"${'\\u001b\\u009b'}"}`,
    })
    const { stdout } = await postern(['replay', '--bundle', BY_PATH, file(`${line}\n`)])
    assert.doesNotMatch(stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/)
  })

  for (const [what, path, args, expected] of [
    ['a file that is not there', 'nowhere.ndjson', [], /nowhere\.ndjson: cannot be read/],
    ['a directory', directory, [], /cannot be read: it is a directory/],
    ['nothing that can be replayed', file('{"msg":"x"}\n'), [], /nothing could be replayed/],
    [
      'a gzipped file that is cut off',
      file(gzipSync(logLine()).subarray(0, 200)),
      [],
      /cannot be read/,
    ],
    [
      'an entrypoint that the bundle lacks',
      file(logLine()),
      ['--entrypoint', 'a/b'],
      /no entrypoint a\/b/,
    ],
  ] as const) {
    it(`ends with 2 for ${what}`, async () => {
      const { exitCode, stderr } = await postern(['replay', '--bundle', BY_PATH, ...args, path])
      assert.equal(exitCode, 2)
      assert.match(stderr, expected)
    })
  }
})

describe('the lines of a log', () => {
  const read = async (content: string | Buffer) => {
    const lines: [number, string | undefined][] = []
    for await (const batch of linesOf(file(content))) {
      for (const { number, text } of batch) lines.push([number, text])
    }
    return lines
  }

  it('are the same whether they are gzipped or not, also in several members', async () => {
    const expected = [
      [1, 'a'],
      [2, ''],
      [3, 'é'],
      [4, 'end'],
    ]
    assert.deepEqual(await read('a\n\né\nend'), expected)
    assert.deepEqual(await read(Buffer.concat([gzipSync('a\n\n'), gzipSync('é\nend\n')])), expected)
    assert.deepEqual(await read(''), [])
    assert.deepEqual(await read('x'), [[1, 'x']])
  })

  it('are left out when they are too long, and counted', async () => {
    const lines = await read(
      `a\n${'x'.repeat(LONGEST_LINE + 1)}\nb\n${'y'.repeat(LONGEST_LINE)}\nc`,
    )
    assert.deepEqual(
      lines.map(([number, text]) => [number, text?.length]),
      [
        [1, 1],
        [2, undefined],
        [3, 1],
        [4, LONGEST_LINE],
        [5, 1],
      ],
    )
  })
})

test('the parts of a document are its texts, whatever they hold', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), fc.array(fc.jsonValue())),
      fc.nat(4),
      (value, spaces) => {
        const text = JSON.stringify(value, null, spaces)
        const parts = jsonParts(text)
        const expected = Array.isArray(value)
          ? value.map((one) => ['', one])
          : Object.entries(value)
        assert.deepEqual(
          parts.map(([key, part]) => [key, JSON.stringify(JSON.parse(part))]),
          expected.map(([key, one]) => [key, JSON.stringify(one)]),
        )
        for (const [, part] of parts) assert.ok(text.includes(part))
      },
    ),
  )
})
