// The proxies under measurement: how each is configured and started. All get one processor, the same
// certificates and the same workload, and do the same job.
import type { ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { accepting, end, freePort, isInstalled, PROXY_CPU, spawnOn } from './process.ts'
import { REPOSITORY, type Stage } from './stage.ts'

export interface RunningProxy {
  readonly pid: number
  readonly port: number
  /** Log records that it could not write. */
  lostRecords(): Promise<number>
  end(): Promise<void>
}

export interface ProxyVariant {
  readonly name: string
  /** Absent: it comes with the repository. */
  readonly program?: string
  start(stage: Stage): Promise<RunningProxy>
}

export const NGINX = 'nginx'

const POLICY = { bundle: join(REPOSITORY, 'policies/bundle.tar.gz') }

/** The access log stays at its default, denied, unless the variant says otherwise. */
const POSTERN = {
  'postern-allow': {
    allow: [{ uri: 'spiffe://example.org/ns/*/sa/web' }],
    log: { decisions: 'denied' },
  },
  'postern-policy': { policy: POLICY, log: { decisions: 'denied' } },
  // To standard output, which is read.
  'postern-policy-log-all': { policy: POLICY, log: { access: 'all', decisions: 'all' } },
} as const

/** @param main the program: `dist/main.js` or `src/main.ts` */
export function posternVariants(main: string, suffix = ''): ProxyVariant[] {
  return Object.entries(POSTERN).map(([name, config]) => ({
    name: `${name}${suffix}`,
    start: (stage) => startPostern(name, main, config, stage),
  }))
}

export const PEERS: readonly ProxyVariant[] = [
  { name: 'http-proxy', start: startHttpProxy },
  {
    name: NGINX,
    program: 'nginx',
    start: (stage) =>
      startConfigured('nginx', 'nginx.conf', stage, (file, { directory }) => [
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
    program: 'haproxy',
    start: (stage) =>
      startConfigured('haproxy', 'haproxy.cfg', stage, (file) => ['-q', '-db', '-f', file]),
  },
]

// Debian keeps both programs outside of an ordinary user's PATH.
process.env['PATH'] += ':/usr/sbin:/usr/local/sbin'

export function isThere({ program }: ProxyVariant): boolean {
  return program === undefined || isInstalled(program)
}

export function posternConfig(
  stage: Stage,
  port: number,
  metricsPort: number,
  own: object,
): Record<string, unknown> {
  const { certificate, privateKey, trustBundle } = stage.files
  return {
    inbound: {
      listen: `127.0.0.1:${port}`,
      forward: `http://127.0.0.1:${stage.workload.port}`,
    },
    identity: { certificate, privateKey },
    trust: { bundles: [{ trustDomain: 'example.org', file: trustBundle }] },
    admin: { listen: 'off' },
    metrics: { listen: `127.0.0.1:${metricsPort}` },
    ...own,
  }
}

async function startPostern(
  name: string,
  main: string,
  own: object,
  stage: Stage,
): Promise<RunningProxy> {
  const [port, metricsPort] = [await freePort(), await freePort()]
  const file = join(stage.directory, `${name}-${port}.yaml`)
  fs.writeFileSync(file, stringify(posternConfig(stage, port, metricsPort, own)))
  const child = spawnOn(PROXY_CPU, process.execPath, [main, 'run', '--config', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await posternReady(child)
  return {
    pid: child.pid ?? 0,
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

async function startHttpProxy(stage: Stage): Promise<RunningProxy> {
  const port = await freePort()
  const { certificate, privateKey, trustBundle } = stage.files
  const args = [port, stage.workload.port, certificate, privateKey, trustBundle].map(String)
  return started('http-proxy', process.execPath, [peerFile('http-proxy.ts'), ...args], port)
}

async function startConfigured(
  program: string,
  template: string,
  stage: Stage,
  argsFor: (file: string, stage: Stage) => readonly string[],
): Promise<RunningProxy> {
  const port = await freePort()
  const values: Readonly<Record<string, string | number>> = {
    ...stage.files,
    directory: stage.directory,
    workload: stage.workload.port,
    port,
  }
  const text = fs
    .readFileSync(peerFile(template), 'utf8')
    .replaceAll(/\{\{(\w+)\}\}/g, (_, key: string) => String(values[key]))
  const file = join(stage.directory, template)
  fs.writeFileSync(file, text)
  return started(program, program, argsFor(file, stage), port)
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
    pid: child.pid ?? 0,
    port,
    lostRecords: async () => 0,
    end: () => end(child),
  }
}

function peerFile(name: string): string {
  return fileURLToPath(new URL(`peers/${name}`, import.meta.url))
}
