// The proxies under measurement: how each is configured and started. All get one processor, the same
// certificates and the same workload, and do the same job.
import type { ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { envoyConfig } from './peers/envoy.ts'
import {
  accepting,
  end,
  freePort,
  IMAGE_ENVIRONMENT,
  IMAGE_OPTIONS,
  isInstalled,
  PROXY_CPU,
  spawnOn,
} from './process.ts'
import { REPOSITORY, type Service, type Stage } from './stage.ts'

export interface RunningProxy {
  /** Of the proxy, and of what it asks for decisions. */
  readonly pids: readonly number[]
  readonly port: number
  /** Log records that it could not write. */
  lostRecords(): Promise<number>
  end(): Promise<void>
}

export interface ProxyVariant {
  readonly name: string
  /** What has to be installed. */
  readonly programs: readonly string[]
  /** Of the requests of a turn: a dear one needs fewer to be measured. */
  readonly share?: number
  start(stage: Stage, service: Service): Promise<RunningProxy>
}

export const NGINX = 'nginx'
export const PIPE = 'pipe'

const POLICY = { bundle: join(REPOSITORY, 'policies/bundle.tar.gz') }

/** The access log stays at its default, denied, unless the variant says otherwise. */
const POSTERN = {
  'postern-allow': {
    allow: [{ uri: 'spiffe://example.org/ns/*/sa/*' }],
    log: { decisions: 'denied' },
  },
  'postern-policy': { policy: POLICY, log: { decisions: 'denied' } },
  // To standard output, which is read.
  'postern-policy-log-all': { policy: POLICY, log: { access: 'all', decisions: 'all' } },
} as const

/** @returns the program of another checkout, as `--compare` names it; throws where it was not built */
export function comparedMain(checkout: string): string {
  const main = join(checkout, 'dist/main.js')
  if (!fs.existsSync(main))
    throw new Error(`--compare ${checkout}: no ${main}; run npm run build there`)
  return main
}

/** @param main the program: `dist/main.js` or `src/main.ts` */
export function posternVariants(main: string, suffix = ''): ProxyVariant[] {
  return Object.entries(POSTERN).map(([name, own]) => posternVariant(`${name}${suffix}`, main, own))
}

export function posternVariant(
  name: string,
  main: string,
  own: object,
  cpu: number | 'any' = PROXY_CPU,
): ProxyVariant {
  return {
    name,
    programs: [],
    start: (stage, service) => startPostern(name, main, own, cpu, stage, service),
  }
}

/** All that a data thread needs for the smallest configuration. */
export const ALLOW = POSTERN['postern-allow']

/** The sample policy. */
export const SAMPLE = POSTERN['postern-policy']

export const PEERS: readonly ProxyVariant[] = [
  { name: 'http-proxy', programs: [], share: 0.5, start: startHttpProxy },
  {
    name: NGINX,
    programs: ['nginx'],
    start: (stage, service) =>
      startConfigured('nginx', 'nginx.conf', stage, service, (file, { directory }) => [
        '-e',
        'stderr',
        '-p',
        directory,
        '-c',
        file,
      ]),
  },
  {
    name: 'haproxy',
    programs: ['haproxy'],
    start: (stage, service) =>
      startConfigured('haproxy', 'haproxy.cfg', stage, service, haproxyArguments),
  },
  { name: 'envoy-rbac', programs: ['envoy'], start: startEnvoy },
  { name: 'envoy-opa', programs: ['envoy', 'opa'], share: 0.2, start: startEnvoyWithOpa },
]

/** What passes on the bytes of a TLS connection. */
export const L4_PEERS: readonly ProxyVariant[] = [
  { name: PIPE, programs: [], start: (stage, service) => startOwn('pipe.ts', stage, service) },
  {
    name: 'haproxy-tcp',
    programs: ['haproxy'],
    start: (stage, service) =>
      startConfigured('haproxy', 'haproxy-tcp.cfg', stage, service, haproxyArguments),
  },
]

// Debian keeps these programs outside of an ordinary user's PATH.
process.env['PATH'] += ':/usr/sbin:/usr/local/sbin'

export function missingPrograms({ programs }: ProxyVariant): readonly string[] {
  return programs.filter((program) => !isInstalled(program))
}

const SCHEMES: Readonly<Record<Service, string>> = {
  plain: 'http',
  bodies: 'http',
  websocket: 'http',
  tcp: 'tcp',
  grpc: 'h2c',
}

export function posternConfig(
  stage: Stage,
  port: number,
  metricsPort: number,
  own: object,
  service: Service = 'plain',
): Record<string, unknown> {
  const { certificate, privateKey, trustBundle } = stage.files
  const { inbound, ...others } = own as { readonly inbound?: object }
  return {
    inbound: {
      listen: `127.0.0.1:${port}`,
      forward: `${SCHEMES[service]}://127.0.0.1:${stage.workload.ports[service]}`,
      ...inbound,
    },
    identity: { certificate, privateKey },
    trust: { bundles: [{ trustDomain: 'example.org', file: trustBundle }] },
    admin: { listen: 'off' },
    metrics: { listen: `127.0.0.1:${metricsPort}` },
    ...others,
  }
}

async function startPostern(
  name: string,
  main: string,
  own: object,
  cpu: number | 'any',
  stage: Stage,
  service: Service,
): Promise<RunningProxy> {
  const [port, metricsPort] = [await freePort(), await freePort()]
  const file = join(stage.directory, `${name}-${port}.yaml`)
  fs.writeFileSync(file, stringify(posternConfig(stage, port, metricsPort, own, service)))
  const child = spawnOn(
    cpu === 'any' ? undefined : cpu,
    process.execPath,
    [...IMAGE_OPTIONS, main, 'run', '--config', file],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...IMAGE_ENVIRONMENT },
    },
  )
  await posternReady(child)
  return {
    pids: [child.pid ?? 0],
    port,
    end: () => end(child),
    lostRecords: async () => {
      const metrics = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text()
      const lines = metrics.matchAll(/^postern_log_records_dropped_total\{.*\} (\d+)$/gm)
      return [...lines].reduce((sum, [, count]) => sum + Number(count), 0)
    },
  }
}

/** Resolves when it says that it is ready; a port that accepts may be its check that the port is free. */
export async function posternReady(child: ChildProcess): Promise<void> {
  let said = ''
  await new Promise<void>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`postern ended with exit code ${code}`)))
    const listen = (chunk: Buffer): void => {
      said += chunk
      if (!said.includes('"event":"ready"')) return
      child.stdout?.off('data', listen).resume()
      resolve()
    }
    child.stdout?.on('data', listen)
  })
}

function startHttpProxy(stage: Stage, service: Service): Promise<RunningProxy> {
  return startOwn('http-proxy.ts', stage, service)
}

async function startOwn(program: string, stage: Stage, service: Service): Promise<RunningProxy> {
  const port = await freePort()
  const { certificate, privateKey, trustBundle } = stage.files
  const args = [port, stage.workload.ports[service], certificate, privateKey, trustBundle]
  return started(program, process.execPath, [peerFile(program), ...args.map(String)], port)
}

const haproxyArguments = (file: string): readonly string[] => ['-q', '-db', '-f', file]

async function startConfigured(
  program: string,
  template: string,
  stage: Stage,
  service: Service,
  argsFor: (file: string, stage: Stage) => readonly string[],
): Promise<RunningProxy> {
  const port = await freePort()
  const values: Readonly<Record<string, string | number>> = {
    ...stage.files,
    directory: stage.directory,
    workload: stage.workload.ports[service],
    protocol: service === 'grpc' ? 'proto h2' : '',
    port,
  }
  const text = fs
    .readFileSync(peerFile(template), 'utf8')
    .replaceAll(/\{\{(\w+)\}\}/g, (_, key: string) => String(values[key]))
  const file = join(stage.directory, `${port}-${template}`)
  fs.writeFileSync(file, text)
  return started(program, program, argsFor(file, stage), port)
}

async function startEnvoy(
  stage: Stage,
  service: Service,
  authorisation?: number,
): Promise<RunningProxy> {
  const port = await freePort()
  const file = join(stage.directory, `${port}-envoy.json`)
  fs.writeFileSync(file, JSON.stringify(envoyConfig(stage, service, port, authorisation)))
  const args = ['-c', file, '--concurrency', '1', '--log-level', 'error', '--disable-hot-restart']
  return started('envoy', 'envoy', args, port)
}

/** OPA's own server decides; its processor time is the price of the decision and counts. */
async function startEnvoyWithOpa(stage: Stage, service: Service): Promise<RunningProxy> {
  const port = await freePort()
  const address = `127.0.0.1:${port}`
  const policies = [join(REPOSITORY, 'policies/envoy/authz.rego'), peerFile('opa-server.rego')]
  const data = join(REPOSITORY, 'policies/data.json')
  const args = ['run', '--server', '--addr', address, '--authorization', 'basic']
  const opa = await started(
    'opa',
    'opa',
    [...args, '--log-level', 'error', '--skip-version-check', ...policies, data],
    port,
  )
  const envoy = await startEnvoy(stage, service, port)
  return {
    ...envoy,
    pids: [...envoy.pids, ...opa.pids],
    end: async () => {
      await envoy.end()
      await opa.end()
    },
  }
}

async function started(
  name: string,
  program: string,
  args: readonly string[],
  port: number,
): Promise<RunningProxy> {
  const child: ChildProcess = spawnOn(PROXY_CPU, program, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  child.stdout?.resume()
  await accepting(port, child, name)
  return {
    pids: [child.pid ?? 0],
    port,
    lostRecords: async () => 0,
    end: () => end(child),
  }
}

function peerFile(name: string): string {
  return fileURLToPath(new URL(`peers/${name}`, import.meta.url))
}
