// Names and defaults are API: whoever changes one sees it here, and says so in the change log.
// `UPDATE_GOLDEN=1 node --test test/config/interface.test.ts` writes the file anew.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import type { Command } from 'commander'
import { COMMANDS } from '../../src/cli/commands.ts'
import { FLAGS } from '../../src/config/flags.ts'
import { keys, typeOf } from '../../src/config/schema.ts'
import { ERRORS, type ErrorCode, errorEntry } from '../../src/errors.ts'
import { METRICS, type MetricName, metricEntry } from '../../src/metrics.ts'

const GOLDEN = new URL('../golden/interface.txt', import.meta.url)

test('keys, flags, defaults, metrics, errors and commands are those that users rely on', async () => {
  const now = [
    ...configuration(),
    '',
    ...metrics(),
    '',
    ...errors(),
    '',
    ...(await commands()),
    '',
  ].join('\n')
  if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(GOLDEN, now)
  assert.equal(now, readFileSync(GOLDEN, 'utf8'))
})

const configuration = (): string[] => [
  '# configuration: key, type, default, bounds, flag',
  ...keys.map((key) =>
    [
      key.path,
      key.values?.join('|') ?? typeOf(key).name,
      ...(key.default === undefined ? [] : [`= ${key.default}`]),
      ...(key.min === undefined ? [] : [`>= ${key.min}`]),
      ...(key.max === undefined ? [] : [`<= ${key.max}`]),
      ...(key.flag === undefined ? [] : [key.flag.name, ...(key.flag.aliases ?? [])]),
      ...(key.unsafe ? ['unsafe'] : []),
      ...(key.unsafeValues === undefined ? [] : [`unsafe: ${key.unsafeValues.join('|')}`]),
    ].join('  '),
  ),
]

const metrics = (): string[] => [
  '# metrics: name, type, labels with their values, buckets',
  ...(Object.keys(METRICS) as MetricName[]).map((name) => {
    const { type, labels, buckets } = metricEntry(name)
    const shown = Object.entries(labels).map(
      ([label, values]) => `${label}=${values === 'any' ? '*' : values.join('|')}`,
    )
    return [`postern_${name}`, type, ...shown, ...(buckets ? [buckets.join(' ')] : [])].join('  ')
  }),
]

const errors = (): string[] => [
  '# errors: code, fault, HTTP status, gRPC status, connection, log level',
  ...(Object.keys(ERRORS) as ErrorCode[]).map((code) => {
    const { fault, http, grpc, connection, log } = errorEntry(code)
    return [code, fault, http, grpc, connection, log].join('  ')
  }),
]

async function commands(): Promise<string[]> {
  const lines = ['# commands: name, arguments, options beside the flags of the configuration']
  for (const { load } of COMMANDS) lines.push(...linesOf((await load()).command({})))
  return lines
}

function linesOf(command: Command, parent = 'postern'): string[] {
  const name = `${parent} ${command.name()}`
  const known = ['run', 'check'].includes(command.name())
    ? FLAGS.flatMap(({ flag, aliases }): string[] => [flag, ...aliases])
    : []
  const parts = [
    ...command.registeredArguments.map((one) => `<${one.name()}>`),
    ...command.options.filter(({ long }) => !known.includes(long ?? '')).map(({ flags }) => flags),
  ]
  return [[name, ...parts].join('  '), ...command.commands.flatMap((one) => linesOf(one, name))]
}
