// The options of `run` and `check`: the flags of the configuration table, and the file.
import type { Command } from 'commander'
import type { Config, MaterialsConfig } from '../config/config.ts'
import { FLAGS, type Flags } from '../config/flags.ts'
import { CONTAINER, loadConfig, readConfigFile } from '../config/load.ts'
import type { Problem } from '../errors.ts'
import { forwardSocketProblem } from './forward-socket.ts'

export type Environment = Readonly<Record<string, string | undefined>>

export interface ConfigurationRead {
  readonly config: Config | undefined
  readonly problems: readonly Problem[]
  /** Known beside problems in other places, too. */
  readonly materials: MaterialsConfig | undefined
  readonly unsafeOptions: readonly string[]
}

/** Adds `--config` and every flag of the table. */
export function addConfigurationOptions(command: Command): Command {
  command.option('--config <file>', 'configuration file, YAML or JSON (see docs/reference.md)')
  for (const { flag, aliases, argument, sentence, repeatable } of FLAGS) {
    for (const name of [flag, ...aliases]) {
      const text = name === flag ? sentence : `same as ${flag}`
      const spelled = argument === undefined ? name : `${name} <${argument}>`
      if (repeatable)
        command.option(spelled, text, (value: string, before: string[] = []) => [...before, value])
      else command.option(spelled, text)
    }
  }
  return command
}

export function readConfiguration(
  options: Flags & { readonly config?: string },
  env: Environment,
): ConfigurationRead {
  const { config: path, ...flags } = options
  if (path === undefined) return reachable(loadConfig({ flags, env, container: CONTAINER }))
  const file = readConfigFile(path)
  if (file.kind === 'problem')
    return {
      config: undefined,
      problems: [file.problem],
      materials: undefined,
      unsafeOptions: [],
    }
  return reachable(loadConfig({ file: file.file, flags, env, container: CONTAINER }))
}

/** The same, unless it leads to what can be no workload. */
function reachable(read: ConfigurationRead): ConfigurationRead {
  const problem = read.config && forwardSocketProblem(read.config.inbound.forward)
  if (problem === undefined) return read
  const config = problem.severity === 'warning' ? read.config : undefined
  return { ...read, config, problems: [...read.problems, problem] }
}
