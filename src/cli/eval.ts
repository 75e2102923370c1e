// `postern eval`: one decision of a policy about an input document, by the same engine as `run`.
import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { Command } from 'commander'
import { parseEntrypoint } from '../config/values.ts'
import { PolicyHost } from '../policy/host.ts'
import { judge } from '../policy/judge.ts'
import { policyOf } from './bundle.ts'
import { CommandFailure, exitTwoOnWrongUsage, fileProblem, reporting } from './failure.ts'

export function command(): Command {
  const evaluate = new Command('eval')
    .description('one decision of a policy about an input document, as JSON, with timing')
    .requiredOption('--bundle <file>', 'bundle.tar.gz, or the directory of an unpacked bundle')
    .requiredOption('--input <file>', 'JSON file with the input document; - for standard input')
    .option('--entrypoint <rule>', 'default: the only one of the bundle, or envoy/authz/allow')
    .addHelpText('after', EXAMPLE)
    .action(reporting(evalOnce))
  return exitTwoOnWrongUsage(evaluate)
}

const EXAMPLE = `
The input document is what the rules see as \`input\`. Times are nanoseconds, of a policy that is warm.
Exit codes: 0 allowed or denied, 1 the policy failed or took too long, 2 wrong usage or bundle.

Example:
  postern eval --bundle bundle.tar.gz --input input.json
  echo '{"parsed_path": ["healthz"]}' | postern eval --bundle policies/ --input -`

interface EvalOptions {
  readonly bundle: string
  readonly input: string
  readonly entrypoint?: string
}

async function evalOnce(options: EvalOptions): Promise<void> {
  const entrypoint = options.entrypoint && checkedEntrypoint(options.entrypoint)
  const input = checkedInput(await inputText(options.input), options.input)
  const startMs = performance.now()
  const policy = await policyOf(options.bundle, entrypoint)
  const loadNs = Math.round((performance.now() - startMs) * 1e6)
  const host = new PolicyHost(policy)
  const nowMs = Date.now()
  // The first time an instance is made, which a data thread has behind it.
  judge(host, input, nowMs)
  const { outcome, result, error, evalNs } = judge(host, input, nowMs)
  const decision = {
    outcome,
    ...(result === undefined ? {} : { result: JSON.parse(result) as unknown }),
    ...(error === undefined ? {} : { error: { message: error } }),
    path: policy.entrypoint,
    bundles: { policy: policy.revision === '' ? {} : { revision: policy.revision } },
    bundle_digest: policy.digest,
    metrics: { timer_rego_load_bundles_ns: loadNs, timer_rego_query_eval_ns: evalNs },
  }
  process.stdout.write(`${JSON.stringify(decision, null, 2)}\n`)
  if (outcome === 'error' || outcome === 'timeout') process.exitCode = 1
}

function checkedEntrypoint(given: string): string {
  const parsed = parseEntrypoint(given)
  if (parsed.kind === 'value') return parsed.value
  const { what, remedy } = parsed
  throw new CommandFailure(2, { where: '--entrypoint', what, remedy })
}

async function inputText(path: string): Promise<string> {
  try {
    return path === '-' ? await text(process.stdin) : await readFile(path, 'utf8')
  } catch (error) {
    throw new CommandFailure(2, { ...fileProblem(error, path, 'read'), where: `--input ${path}` })
  }
}

/** Never handed to a module unread: for it, broken JSON is no input at all, which some rules allow. */
function checkedInput(given: string, path: string): string {
  const where = `--input ${path}`
  const remedy = 'give the input document, such as {"attributes": {"request": {…}}}'
  let document: unknown
  try {
    document = JSON.parse(given)
  } catch (error) {
    throw new CommandFailure(2, { where, what: `not JSON: ${(error as Error).message}`, remedy })
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    throw new CommandFailure(2, { where, what: 'the input document is no object', remedy })
  }
  return given
}
