// `postern check`: everything that `run` would load, loaded and held against each other; no port.
import { Command } from 'commander'
import type { Config, MaterialsConfig } from '../config/config.ts'
import { printConfig } from '../config/print.ts'
import type { Loaded } from '../control/loader.ts'
import { PolicyBundles } from '../control/policy-bundles.ts'
import { nextGeneration } from '../control/snapshot-builder.ts'
import { fetchDelivery } from '../control/workload-api.ts'
import type { Problem } from '../errors.ts'
import { describeChain, explainPeer } from './check/chain.ts'
import { uploadProblems } from './decision-server.ts'
import { formatProblem, reporting } from './failure.ts'
import { type LoadOptions, loadChecked } from './materials.ts'
import { addConfigurationOptions, type Environment, readConfiguration } from './options.ts'
import { readText } from './pki/files.ts'

export function command(env: Environment): Command {
  const check = addConfigurationOptions(new Command('check'))
    .description(
      'load and cross-check everything that `run` would, open no port, and print every problem',
    )
    .option('--print', 'print the configuration in force, with every default')
    .option('--chain', 'describe our own certificate chain')
    .option(
      '--peer <file>',
      'say whether a client with this certificate chain (PEM) would be believed, and why; ends with 1 if not',
    )
    .addHelpText(
      'after',
      '\nExample:\n  postern check --config postern.yaml --print\n  postern check --config postern.yaml --peer client.crt',
    )
  return check.action(
    reporting(
      async ({ print, chain, peer, ...options }: Record<string, string | boolean | string[]>) => {
        const { config, problems, materials, unsafeOptions } = readConfiguration(options, env)
        const found = [...problems]
        const outcome = materials === undefined ? undefined : await load(materials)
        found.push(...(outcome?.problems ?? []))
        const upload = config?.log.upload
        if (upload !== undefined) found.push(...(await uploadProblems(upload)))
        if (config !== undefined && print === true) process.stdout.write(printConfig(config))
        for (const option of unsafeOptions) {
          process.stderr.write(
            `warning: ${option}: weakens a guarantee; metric postern_unsafe_options shows it\n`,
          )
        }
        for (const problem of found) process.stderr.write(`${formatProblem(problem)}\n`)
        const errors = found.filter(({ severity }) => severity !== 'warning').length
        if (errors > 0) {
          process.stderr.write(
            `${errors} ${errors === 1 ? 'problem' : 'problems'}; \`postern run\` would not start\n`,
          )
          process.exitCode = 2
        } else if (print !== true) process.stdout.write('ok: `postern run` would start\n')
        if (config === undefined || outcome?.loaded === undefined) return
        if (chain === true) tell(ownChain(outcome.loaded))
        if (typeof peer === 'string') await explain(peer, config, outcome.loaded)
      },
    ),
  )
}

function ownChain({ identity: { material } }: Loaded): readonly string[] {
  return describeChain(material.certificateChainPem, material.facts.file)
}

async function explain(file: string, config: Config, loaded: Loaded): Promise<void> {
  const { trust } = nextGeneration(config, loaded, Date.now()).snapshot
  const access = { allow: config.allow, hasPolicy: config.policy !== undefined }
  const verdict = explainPeer({ pem: await readText(file), file }, trust, access, Date.now())
  tell(verdict.lines)
  if (!verdict.accepted) process.exitCode = 1
}

const tell = (lines: readonly string[]): void => void process.stdout.write(`${lines.join('\n')}\n`)

interface Found {
  readonly loaded: Loaded | undefined
  readonly problems: readonly Problem[]
}

async function load(materials: MaterialsConfig): Promise<Found> {
  const patient = () => new PolicyBundles({ clock: () => Date.now(), patient: true })
  const from = { bundles: patient(), candidates: patient() }
  try {
    return await loadWith(materials, from)
  } finally {
    from.bundles.stop()
    from.candidates.stop()
  }
}

async function loadWith(
  materials: MaterialsConfig,
  from: Pick<LoadOptions, 'bundles' | 'candidates'>,
): Promise<Found> {
  const { identity } = materials
  // One attempt: `run` would wait for the agent and try again.
  const delivered =
    identity.kind === 'workloadApi'
      ? await fetchDelivery(identity.workloadApi, WORKLOAD_API_DEADLINE_MS)
      : undefined
  if (delivered === undefined || !('what' in delivered)) {
    return loadChecked(materials, Date.now(), { delivery: delivered, ...from })
  }
  const { problems } = await loadChecked(materials, Date.now(), from)
  return {
    loaded: undefined,
    problems: [delivered, ...problems.filter(({ where }) => where !== delivered.where)],
  }
}

const WORKLOAD_API_DEADLINE_MS = 5_000
