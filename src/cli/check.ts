// `postern check`: everything that `run` would load, loaded and held against each other; no port.
import { Command } from 'commander'
import type { MaterialsConfig } from '../config/config.ts'
import { printConfig } from '../config/print.ts'
import { fetchDelivery } from '../control/workload-api.ts'
import type { Problem } from '../errors.ts'
import { uploadProblems } from './decision-server.ts'
import { formatProblem } from './failure.ts'
import { loadChecked } from './materials.ts'
import { addConfigurationOptions, type Environment, readConfiguration } from './options.ts'

export function command(env: Environment): Command {
  const check = addConfigurationOptions(new Command('check'))
    .description(
      'load and cross-check everything that `run` would, open no port, and print every problem',
    )
    .option('--print', 'print the configuration in force, with every default')
    .addHelpText('after', '\nExample:\n  postern check --config postern.yaml --print')
  return check.action(
    async ({ print, ...options }: Record<string, string | boolean | string[]>) => {
      const { config, problems, materials, unsafeOptions } = readConfiguration(options, env)
      const found = [...problems]
      if (materials !== undefined) found.push(...(await problemsOf(materials)))
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
    },
  )
}

async function problemsOf(materials: MaterialsConfig): Promise<readonly Problem[]> {
  const { identity } = materials
  // One attempt: `run` would wait for the agent and try again.
  const delivered =
    identity.kind === 'workloadApi'
      ? await fetchDelivery(identity.workloadApi, WORKLOAD_API_DEADLINE_MS)
      : undefined
  if (delivered === undefined || !('what' in delivered)) {
    return (await loadChecked(materials, Date.now(), { delivery: delivered })).problems
  }
  const { problems } = await loadChecked(materials, Date.now())
  return [delivered, ...problems.filter(({ where }) => where !== delivered.where)]
}

const WORKLOAD_API_DEADLINE_MS = 5_000
