// `postern check`: everything that `run` would load, loaded and held against each other; no port.
import { Command } from 'commander'
import { printConfig } from '../config/print.ts'
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
      if (materials !== undefined)
        found.push(...(await loadChecked(materials, Date.now())).problems)
      if (config?.log.upload !== undefined) found.push(...(await uploadProblems(config.log.upload)))
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
