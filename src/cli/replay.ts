// `postern replay`: what another policy would have decided about the requests of a decision log.
import { Command } from 'commander'
import { harmless, harmlessJson } from '../observe/harmless.ts'
import { PolicyHost } from '../policy/host.ts'
import type { PolicyMaterial } from '../policy/material.ts'
import { policyOf } from './bundle.ts'
import { CommandFailure, exitTwoOnWrongUsage, fileProblem, reporting } from './failure.ts'
import { type Comparison, compare, type Difference, OBSTACLES } from './replay/comparison.ts'
import { type Line, LONGEST_LINE, linesOf } from './replay/lines.ts'
import { type RecordedDecision, readLine } from './replay/recorded.ts'
import { print } from './terminal.ts'

export function command(): Command {
  const replay = new Command('replay')
    .description('run recorded decisions through another bundle and print what would change')
    .argument('<decisions>', 'decision log, NDJSON, also gzipped; - for standard input')
    .requiredOption('--bundle <file>', 'bundle.tar.gz, or the directory of an unpacked bundle')
    .option('--entrypoint <rule>', 'default: the only one of the bundle, or envoy/authz/allow')
    .option('--json', 'one JSON line for each change, and one with the summary')
    .addHelpText('after', EXAMPLE)
    .action(reporting(replayLog))
  return exitTwoOnWrongUsage(replay)
}

const EXAMPLE = `
Reads log.decisionFile, standard output of \`postern run\` with its other lines, uploaded chunks, and
logs of OPA-Envoy. Each decision is made as of its own time. Events that lack something which the new
policy reads (erased, masked) are counted as not replayable.
Exit codes: 0 nothing would change, 1 something would, 2 wrong usage, or nothing could be replayed.

Example:
  postern replay --bundle new.tar.gz decisions.ndjson
  kubectl logs deploy/orders -c postern | postern replay --bundle new.tar.gz -`

interface ReplayOptions {
  readonly bundle: string
  readonly entrypoint?: string
  readonly json?: true
}

async function replayLog(path: string, options: ReplayOptions): Promise<void> {
  const policy = await policyOf(options.bundle, options.entrypoint)
  const replay = new Replay(policy, options.json === true)
  try {
    for await (const lines of linesOf(path)) {
      const text = lines.map((line) => replay.take(line)).join('')
      if (text !== '') await print(text)
    }
  } catch (error) {
    throw new CommandFailure(2, fileProblem(error, path, 'read'))
  }
  await print(replay.summary())
  if (replay.replayed === 0) {
    throw new CommandFailure(2, {
      where: path,
      what: 'nothing could be replayed, so that nothing is known about the bundle',
      remedy: 'give a log of decisions by a policy whose input is not masked',
    })
  }
  if (replay.changed > 0) process.exitCode = 1
}

/** Of each kind of thing: there may be a million. */
const MOST_TOLD = 20

class Replay {
  replayed = 0
  changed = 0
  readonly #policy: PolicyMaterial
  readonly #host: PolicyHost
  readonly #json: boolean
  readonly #changes = new Map<string, number>()
  readonly #obstacles = new Map<string, number>()
  #lines = 0
  #other = 0
  #broken = 0
  #partly = 0

  constructor(policy: PolicyMaterial, json: boolean) {
    this.#policy = policy
    this.#host = new PolicyHost(policy)
    this.#json = json
  }

  /** What is to be printed about this line. */
  take({ number, text }: Line): string {
    this.#lines = number
    const line =
      text === undefined
        ? { kind: 'broken' as const, what: `longer than ${LONGEST_LINE} bytes` }
        : readLine(text)
    switch (line.kind) {
      case 'other':
        this.#other++
        return ''
      case 'broken':
        this.#tellBroken(number, line.what)
        return ''
      case 'decisions':
        return line.decisions.map((decision) => this.#compare(decision, number)).join('')
    }
  }

  summary(): string {
    const { revision, digest } = this.#policy
    const notReplayable = sum(this.#obstacles)
    if (this.#json) {
      const summary = {
        lines: this.#lines,
        other: this.#other,
        broken: this.#broken,
        revision,
        bundle_digest: digest,
        replayed: this.replayed,
        changes: Object.fromEntries(this.#changes),
        partly_compared: this.#partly,
        not_replayable: Object.fromEntries(this.#obstacles),
      }
      return `${JSON.stringify({ summary })}\n`
    }
    const version = revision === '' ? digest.slice(0, 12) : harmless(revision)
    const rows = (counts: ReadonlyMap<string, number>, about: (key: string) => string): string[] =>
      [...counts].map(
        ([key, count]) => `  ${key.padEnd(16)} ${`${count}`.padStart(9)}${about(key)}`,
      )
    return `${[
      `${this.#lines} lines: ${this.replayed + notReplayable} decisions, ${this.#other} other lines, ${this.#broken} not understood`,
      `replayed with ${version}: ${this.replayed}, of which ${this.changed} would change`,
      ...rows(this.#changes, () => ''),
      ...(this.#partly === 0
        ? []
        : [`  of these ${this.#partly} without masked parts of the result`]),
      `not replayable: ${notReplayable}`,
      ...rows(this.#obstacles, (key) => `  ${OBSTACLES[key as keyof typeof OBSTACLES]}`),
    ].join('\n')}\n`
  }

  #compare(decision: RecordedDecision, number: number): string {
    const comparison = compare(decision, this.#host, this.#policy.reads)
    if (comparison.kind === 'not_replayable') {
      count(this.#obstacles, comparison.obstacle)
      return ''
    }
    this.replayed++
    if (comparison.partly) this.#partly++
    count(this.#changes, comparison.change)
    if (comparison.change === 'same') return ''
    this.changed++
    return this.#json ? asJson(decision, comparison, number) : inWords(decision, comparison, number)
  }

  #tellBroken(number: number, what: string): void {
    this.#broken++
    if (this.#broken < MOST_TOLD) process.stderr.write(`line ${number}: ${what}\n`)
    else if (this.#broken === MOST_TOLD)
      process.stderr.write(`line ${number}: ${what}; no more are told\n`)
  }
}

type Replayed = Extract<Comparison, { kind: 'replayed' }>

const asJson = (
  decision: RecordedDecision,
  { change, differences, error }: Replayed,
  line: number,
) =>
  `${harmlessJson(JSON.stringify({ change, decision_id: decision.id, line, request: decision.request, differences, error }))}\n`

function inWords(decision: RecordedDecision, replayed: Replayed, line: number): string {
  const { change, differences, error } = replayed
  const told = differences.slice(0, MOST_TOLD).map(differenceInWords)
  const more = differences.length - told.length
  return `${[
    `${change}  ${harmless(decision.id)}  line ${line}  ${harmless(decision.request)}`,
    ...told,
    ...(more > 0 ? [`    and ${more} more`] : []),
    ...(error === undefined ? [] : [`    error: ${harmless(error)}`]),
  ].join('\n')}\n`
}

const differenceInWords = (difference: Difference): string => {
  const { path, before, after } = difference
  return `    ${path || '/'}: ${valueInWords(before)} -> ${valueInWords(after)}`
}

const valueInWords = (value: unknown): string => {
  if (value === undefined) return 'nothing'
  const text = JSON.stringify(value)
  return harmlessJson(text.length > 200 ? `${text.slice(0, 200)}…` : text)
}

const count = (counts: Map<string, number>, key: string): void => {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}

const sum = (counts: ReadonlyMap<string, number>): number =>
  [...counts.values()].reduce((total, one) => total + one, 0)
