// `postern inject`: Kubernetes manifests in, the same with the sidecar out.
import { text } from 'node:stream/consumers'
import { Command } from 'commander'
import { VERSION } from '../version.ts'
import { CommandFailure, exitTwoOnWrongUsage, reporting } from './failure.ts'
import { ANNOTATION, inject } from './inject/manifest.ts'
import { print } from './terminal.ts'

export function command(): Command {
  const adding = new Command('inject')
    .description('add the sidecar to the workloads in Kubernetes manifests, from standard input')
    .option('--image <image>', 'of the sidecar', `postern:${VERSION}`)
    .option('--config <name>', 'ConfigMap with postern.yaml', '{}-postern')
    .option('--identity <name>', 'Secret with tls.crt and tls.key', '{}-identity')
    .option('--trust <name>', 'ConfigMap with ca.crt and ca.crl', 'postern-trust')
    .option('--policy <name>', 'ConfigMap with bundle.tar.gz', '{}-policy')
    .addHelpText('after', EXAMPLE)
    .action(reporting(injectOnce))
  return exitTwoOnWrongUsage(adding)
}

const EXAMPLE = `
{} in a name stands for the name of the workload. What was done is told on standard error. A workload
with the annotation ${ANNOTATION}: "false" is left alone, and so is one with hostNetwork.
Let the workload listen on 127.0.0.1 only; deploy/sidecar.yaml shows everything together.

Example:
  postern inject < orders.yaml | kubectl apply -f -
  kubectl get deployment orders -o yaml | postern inject --config orders-postern > out.yaml`

interface InjectOptions {
  readonly image: string
  readonly config: string
  readonly identity: string
  readonly trust: string
  readonly policy: string
}

async function injectOnce(options: InjectOptions): Promise<void> {
  const named = (name: string, workload: string): string => name.replaceAll('{}', workload)
  const injection = inject(await text(process.stdin), 'standard input', (workload) => ({
    image: options.image,
    config: named(options.config, workload),
    identity: named(options.identity, workload),
    trust: named(options.trust, workload),
    policy: named(options.policy, workload),
  }))
  if ('problems' in injection) throw new CommandFailure(2, ...injection.problems)
  for (const line of injection.told) process.stderr.write(`${line}\n`)
  await print(injection.text)
}
