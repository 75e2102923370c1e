#!/usr/bin/env node
// From the command line to a command. Each command is loaded only when it is asked for: `run` has
// to be ready within a fraction of a second and must not pay for the development CA.
import { Command } from 'commander'
import { COMMANDS } from './cli/commands.ts'
import { exitTwoOnWrongUsage } from './cli/failure.ts'
import { VERSION } from './version.ts'

const EXAMPLE = `
Example:
  postern demo
  postern run --listen :8443 --forward http://127.0.0.1:8080 \\
    --cert tls.crt --key tls.key --ca ca.crt --policy bundle.tar.gz

postern COMMAND --help says more.`

const program = new Command('postern')
  .description('Mutual TLS and Rego policy for one workload, without a service mesh.')
  .version(VERSION)
  .addHelpText('after', EXAMPLE)

const [wanted] = process.argv.slice(process.argv[2] === 'help' ? 3 : 2)
const entry = COMMANDS.find(({ name }) => name === wanted)
if (entry !== undefined) {
  const command = (await entry.load()).command(process.env)
  program.addCommand(command.showHelpAfterError(`\`postern ${entry.name} --help\` says more.`))
} else {
  for (const { name, sentence } of COMMANDS)
    program.addCommand(new Command(name).description(sentence))
  program.showHelpAfterError('`postern --help` lists the commands.')
}
exitTwoOnWrongUsage(program)
if (wanted === undefined && process.argv[2] === undefined) program.help({ error: true })
await program.parseAsync()
