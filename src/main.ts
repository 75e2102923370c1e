#!/usr/bin/env node
// From the command line to a command. Each command is loaded only when it is asked for: `run` has
// to be ready within a fraction of a second and must not pay for the development CA.
import { Command } from 'commander'
import { exitTwoOnWrongUsage } from './cli/failure.ts'
import { VERSION } from './version.ts'

type Environment = Readonly<Record<string, string | undefined>>

interface Entry {
  readonly name: string
  readonly sentence: string
  readonly load: () => Promise<{ command(env: Environment): Command }>
}

const COMMANDS: readonly Entry[] = [
  { name: 'run', sentence: 'run the sidecar', load: () => import('./cli/run.ts') },
  {
    name: 'check',
    sentence: 'load and check everything that `run` would, and open no port',
    load: () => import('./cli/check.ts'),
  },
  {
    name: 'demo',
    sentence: 'see one request allowed and one denied, on nothing but this package',
    load: () => import('./cli/demo.ts'),
  },
  {
    name: 'eval',
    sentence: 'one decision of a policy about an input document',
    load: () => import('./cli/eval.ts'),
  },
  {
    name: 'explain',
    sentence: 'why a decision came out as it did',
    load: () => import('./cli/explain.ts'),
  },
  {
    name: 'replay',
    sentence: 'what another policy would change about recorded decisions',
    load: () => import('./cli/replay.ts'),
  },
  {
    name: 'pki',
    sentence: 'a development CA: init, issue, revoke, crl',
    load: () => import('./cli/pki.ts'),
  },
  {
    name: 'call',
    sentence: 'one request with an identity of the development CA',
    load: () => import('./cli/call.ts'),
  },
]

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
