// `postern demo`: the main job on nothing but this package. Throwaway PKI, echo workload, sample
// policy, the real sidecar; one call that is allowed and one that is denied, and the lines to repeat
// them. Everything it makes is gone when it ends.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import { stringify } from 'yaml'
import { packageFile } from '../package.ts'
import { send } from './call/send.ts'
import { type EchoWorkload, startEchoWorkload } from './demo/echo-workload.ts'
import { type SidecarProcess, startSidecarProcess } from './demo/sidecar-process.ts'
import { CommandFailure, exitTwoOnWrongUsage, fileProblem, reporting } from './failure.ts'
import { PkiDirectory } from './pki/directory.ts'

export function command(): Command {
  const demo = new Command('demo')
    .description('see one request allowed and one denied, on nothing but this package')
    .option('--once', 'end after the two calls; 1 unless they went as they should')
    .addHelpText('after', '\nExample:\n  postern demo\n  postern demo --once')
    .action(reporting(demonstrate))
  return exitTwoOnWrongUsage(demo)
}

async function demonstrate({ once }: { readonly once?: true }): Promise<void> {
  const interrupted = interruption()
  const directory = await makeDirectory()
  try {
    const stage = await setUp(directory)
    try {
      await Promise.race([play(stage, once === true, interrupted), sidecarEnded(stage)])
    } finally {
      await tearDown(stage)
    }
  } catch (error) {
    // The log goes with the directory, so what it said last is shown before.
    process.stderr.write(await endOfLog(directory))
    throw error
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

async function makeDirectory(): Promise<string> {
  try {
    return await mkdtemp(join(tmpdir(), 'postern-demo-'))
  } catch (error) {
    throw new CommandFailure(1, fileProblem(error, tmpdir(), 'written'))
  }
}

interface Stage {
  readonly directory: string
  readonly pki: PkiDirectory
  readonly workload: EchoWorkload
  readonly sidecar: SidecarProcess
}

const POLICY = fileURLToPath(packageFile('policies/bundle.tar.gz'))
const TRUST_DOMAIN = 'example.org'
const WORKLOAD_ID = `spiffe://${TRUST_DOMAIN}/ns/default/sa/orders`
/** The sample policy lets it read below /api, and not write. */
const CALLER_ID = `spiffe://${TRUST_DOMAIN}/ns/default/sa/web`
const DAY_MS = 86_400_000

async function setUp(directory: string): Promise<Stage> {
  const pki = await PkiDirectory.create(join(directory, 'pki'), {
    trustDomain: TRUST_DOMAIN,
    keyType: 'ec-p256',
    lifetimeMs: 2 * DAY_MS,
  })
  const leaf = { keyType: 'ec-p256', lifetimeMs: DAY_MS } as const
  const names = { dns: ['localhost'], ips: ['127.0.0.1'] }
  const server = await pki.issue('orders', { ...leaf, ...names, uri: WORKLOAD_ID })
  await pki.issue('web', { ...leaf, uri: CALLER_ID })
  const workload = await startEchoWorkload()
  const configFile = join(directory, 'postern.yaml')
  const config = {
    inbound: { listen: '127.0.0.1:0', forward: workload.url },
    identity: { credentialBundle: server.credentialBundle },
    trust: { bundles: [{ trustDomain: TRUST_DOMAIN, file: pki.bundle }], crls: [pki.crl] },
    policy: { bundle: POLICY },
    admin: { listen: '127.0.0.1:0' },
    metrics: { listen: '127.0.0.1:0' },
    log: { access: 'all' },
  }
  try {
    await writeFile(configFile, stringify(config))
    const sidecar = await startSidecarProcess(configFile, join(directory, 'postern.log'))
    return { directory, pki, workload, sidecar }
  } catch (error) {
    await workload.close()
    throw error
  }
}

async function tearDown({ sidecar, workload }: Stage): Promise<void> {
  await sidecar.stop()
  await workload.close()
}

async function play(stage: Stage, once: boolean, interrupted: Promise<void>): Promise<void> {
  const { directory, workload, sidecar } = stage
  print(
    `Postern demo in ${directory}`,
    '',
    `workload  ${workload.url}, answers with what it was sent`,
    `sidecar   https://localhost:${sidecar.port}, ${WORKLOAD_ID}`,
    `caller    ${CALLER_ID}, may read and not write (policies/data.json)`,
    '',
  )
  await expect(stage, 'GET', 200, true)
  await expect(stage, 'POST', 403, false)
  if (once) return
  printNextSteps(stage)
  await interrupted
  print('', 'Draining, and removing everything.')
}

/** One call, and whether it ended and reached the workload as it should. */
async function expect(
  stage: Stage,
  method: string,
  status: number,
  reaches: boolean,
): Promise<void> {
  const { pki, workload, sidecar } = stage
  const before = workload.requests()
  const identity = await pki.issueInMemory(CALLER_ID, DAY_MS)
  const outcome = await send({
    url: new URL(`https://localhost:${sidecar.port}/api/orders`),
    method,
    headers: [],
    certificateChain: identity.chainPem,
    privateKey: identity.privateKeyPem,
    trustBundle: await pki.readBundle(),
    serverId: WORKLOAD_ID,
    timeoutMs: CALL_TIMEOUT_MS,
  })
  if (outcome.kind === 'failed') throw new CommandFailure(1, outcome.problem)
  const { response } = outcome
  const body = await text(response)
  const reached = workload.requests() > before
  print(
    `${method} /api/orders  ->  ${response.statusCode} ${response.statusMessage}, ${reached ? 'answered by the workload:' : 'the workload saw nothing:'}`,
    ...body
      .trimEnd()
      .split('\n')
      .map((line) => `  ${line}`),
    '',
  )
  if (response.statusCode === status && reached === reaches) return
  throw new CommandFailure(1, {
    where: `${method} /api/orders`,
    what: `answered ${response.statusCode} and ${reached ? 'reached' : 'did not reach'} the workload`,
    remedy: `${status} was expected: with policies/ unchanged this is a fault, please report it`,
  })
}

const CALL_TIMEOUT_MS = 10_000

function printNextSteps({ directory, pki, sidecar }: Stage): void {
  const files = join(directory, 'pki')
  const curl = `curl --cert ${files}/web.crt --key ${files}/web.key --cacert ${pki.bundle}`
  const url = `https://localhost:${sidecar.port}/api/orders`
  // In a checkout nothing is installed under the program's name.
  const program = process.argv[1]?.endsWith('.ts') ? 'npm run -s postern --' : 'postern'
  print(
    'Again by hand: allowed, denied, and without a certificate:',
    `  ${curl} ${url}`,
    `  ${curl} -X POST ${url}`,
    `  curl --cacert ${pki.bundle} ${url}`,
    'Revoke the caller, and see its next call refused; issue it anew, and see it allowed:',
    `  ${program} pki revoke --dir ${files} --name web`,
    `  ${program} pki issue --dir ${files} --uri ${CALLER_ID}`,
    'Look inside:',
    `  curl http://127.0.0.1:${sidecar.adminPort}/decisions`,
    `  curl http://127.0.0.1:${sidecar.metricsPort}/metrics`,
    `  tail -f ${directory}/postern.log`,
    '',
    'Serving until Ctrl-C.',
  )
}

/** The first SIGINT or SIGTERM; the second one ends the process at once, as ever. */
function interruption(): Promise<void> {
  return new Promise((resolve) => {
    process.once('SIGINT', () => resolve())
    process.once('SIGTERM', () => resolve())
  })
}

async function sidecarEnded({ sidecar }: Stage): Promise<never> {
  const exitCode = await sidecar.exited
  throw new CommandFailure(1, {
    where: 'postern run',
    what: `ended unexpectedly with ${exitCode}`,
    remedy: 'see the end of its log above',
  })
}

async function endOfLog(directory: string): Promise<string> {
  const log = await readFile(join(directory, 'postern.log'), 'utf8').catch(() => '')
  return log.split('\n').slice(-SHOWN_LOG_LINES).join('\n')
}

const SHOWN_LOG_LINES = 10

const print = (...lines: readonly string[]): void => {
  process.stdout.write(`${lines.join('\n')}\n`)
}
