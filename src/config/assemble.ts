// From parsed values to the `Config`. Each field is written out, so that the compiler holds the
// table of keys and the type of the program against each other.
import type { AllowRule, Config, MaterialsConfig, TrustBundleConfig } from './config.ts'
import type { KeyPath, OptionalValueAt, ValueAt } from './schema.ts'

/** Parsed values by concrete path (`allow[0].uri`), with the types that the table gives them. */
export class Values {
  readonly #values = new Map<string, unknown>()
  readonly #places = new Map<string, string>()

  set(path: string, value: unknown): void {
    this.#values.set(path, value)
  }

  /** Notes that a key was written, even if its value turns out to be wrong. */
  remember(path: string, where: string): void {
    this.#places.set(path, where)
  }

  /** Where a key was written, if it was. */
  placeOf(path: string): string | undefined {
    return this.#places.get(path)
  }

  at<P extends KeyPath>(path: P): OptionalValueAt<P> {
    return this.#values.get(path) as OptionalValueAt<P>
  }

  /** The value of a key in one entry of its list. */
  in<P extends KeyPath>(path: P, index: number): ValueAt<P> | undefined {
    return this.#values.get(path.replace('[]', `[${index}]`)) as ValueAt<P> | undefined
  }

  /** All entries of a list of single values. */
  all<P extends KeyPath>(path: P): readonly ValueAt<P>[] {
    return this.indices(path.slice(0, -2)).flatMap((index) => this.in(path, index) ?? [])
  }

  /** The entries of a list that were written, be their values right or wrong. */
  indices(list: string): readonly number[] {
    const found = new Set<number>()
    for (const path of this.#places.keys()) {
      if (path.startsWith(`${list}[`)) found.add(Number.parseInt(path.slice(list.length + 1), 10))
    }
    return [...found]
  }
}

/** Values must have been checked: what may not be absent is not looked for again. */
export function assemble(values: Values, cpuLimit: () => number): Config {
  const at: Values['at'] = (path) => values.at(path)
  const materials = materialsFrom(values)
  const [admin, metrics, probes] = [at('admin.listen'), at('metrics.listen'), at('probes.listen')]
  const decisionFile = at('log.decisionFile')
  const forward = at('inbound.forward')
  if (forward === undefined || materials === undefined)
    throw new Error('assembled from an incomplete configuration')
  return {
    inbound: {
      listen: at('inbound.listen'),
      forward,
      unsafeForward: at('inbound.unsafeForward'),
      forwardedClientCert: at('inbound.forwardedClientCert'),
      forwardedClientCertDetails: values.all('inbound.forwardedClientCertDetails[]'),
      clientCert: at('inbound.clientCert'),
      unsafeAmbiguousPaths: at('inbound.unsafeAmbiguousPaths'),
      limits: {
        connections: at('inbound.limits.connections'),
        connectionsPerAddress: at('inbound.limits.connectionsPerAddress'),
        handshakes: at('inbound.limits.handshakes'),
        handshakesPerAddress: at('inbound.limits.handshakesPerAddress'),
        handshakeFailuresPerAddress: at('inbound.limits.handshakeFailuresPerAddress'),
        headBytes: at('inbound.limits.headBytes'),
        headerCount: at('inbound.limits.headerCount'),
        targetBytes: at('inbound.limits.targetBytes'),
        bodyBytes: at('inbound.limits.bodyBytes'),
        requestsPerConnection: at('inbound.limits.requestsPerConnection'),
        upstreamConnections: at('inbound.limits.upstreamConnections'),
      },
      timeouts: {
        handshakeMs: at('inbound.timeouts.handshake'),
        requestHeadMs: at('inbound.timeouts.requestHead'),
        requestBodyMs: at('inbound.timeouts.requestBody'),
        upstreamConnectMs: at('inbound.timeouts.upstreamConnect'),
        upstreamResponseMs: at('inbound.timeouts.upstreamResponse'),
        idleMs: at('inbound.timeouts.idle'),
        connectionLifetimeMs: at('inbound.timeouts.connectionLifetime'),
      },
    },
    ...materials,
    allow: allowRulesFrom(values),
    ...(admin === 'off' ? {} : { admin: { listen: admin } }),
    ...(metrics === 'off' ? {} : { metrics: { listen: metrics } }),
    ...(probes === undefined
      ? {}
      : { probes: { listen: probes, paths: values.all('probes.paths[]') } }),
    log: {
      level: at('log.level'),
      access: at('log.access'),
      decisions: at('log.decisions'),
      ...(decisionFile === undefined ? {} : { decisionFile }),
      redact: values.all('log.redact[]'),
    },
    drain: { timeoutMs: at('drain.timeout') },
    workers: workersFrom(values, cpuLimit),
    stallMs: at('stall'),
  }
}

/** Absent where identity or trust cannot be told; a policy that cannot be told is left out. */
export function materialsFrom(values: Values): MaterialsConfig | undefined {
  const identity = identityFrom(values)
  const bundles = trustBundlesFrom(values)
  const policy = policyFrom(values)
  if (identity === undefined || bundles === undefined) return undefined
  return {
    identity,
    trust: { bundles, crls: values.all('trust.crls[]') },
    ...(policy === undefined ? {} : { policy }),
  }
}

function identityFrom(values: Values): Config['identity'] | undefined {
  const credentialBundle = values.at('identity.credentialBundle')
  if (credentialBundle !== undefined) return { kind: 'bundle', credentialBundle }
  const certificate = values.at('identity.certificate')
  const privateKey = values.at('identity.privateKey')
  if (certificate === undefined || privateKey === undefined) return undefined
  return { kind: 'files', certificate, privateKey }
}

function trustBundlesFrom(values: Values): readonly TrustBundleConfig[] | undefined {
  const indices = values.indices('trust.bundles')
  const bundles = indices.flatMap((index) => {
    const trustDomain = values.in('trust.bundles[].trustDomain', index)
    const file = values.in('trust.bundles[].file', index)
    if (file === undefined) return []
    return { ...(trustDomain === undefined ? {} : { trustDomain }), file }
  })
  return bundles.length > 0 && bundles.length === indices.length ? bundles : undefined
}

function allowRulesFrom(values: Values): readonly AllowRule[] {
  return values.indices('allow').map((index) => {
    const uri = values.in('allow[].uri', index)
    const dns = values.in('allow[].dns', index)
    const cn = values.in('allow[].cn', index)
    const all = values.in('allow[].all', index)
    return {
      ...(uri === undefined ? {} : { uri }),
      ...(dns === undefined ? {} : { dns }),
      ...(cn === undefined ? {} : { cn }),
      ...(all === undefined ? {} : { all }),
    }
  })
}

function policyFrom(values: Values): Config['policy'] {
  const bundle = values.at('policy.bundle')
  const entrypoint = values.at('policy.entrypoint')
  const isWrong = (key: 'entrypoint' | 'memoryBytes' | 'fuel'): boolean =>
    values.placeOf(`policy.${key}`) !== undefined && values.at(`policy.${key}`) === undefined
  if (bundle === undefined || isWrong('entrypoint') || isWrong('memoryBytes') || isWrong('fuel'))
    return undefined
  return {
    bundle,
    ...(entrypoint === undefined ? {} : { entrypoint }),
    memoryBytes: values.at('policy.memoryBytes'),
    fuel: values.at('policy.fuel'),
  }
}

function workersFrom(values: Values, cpuLimit: () => number): number {
  const workers = values.at('workers')
  if (workers !== 'auto') return workers
  // A UNIX socket cannot be shared with SO_REUSEPORT.
  return values.at('inbound.listen').kind === 'unix' ? 1 : Math.max(1, Math.floor(cpuLimit()))
}
