// From parsed values to the `Config`. Each field is written out, so that the compiler holds the
// table of keys and the type of the program against each other.
import type {
  AllowRule,
  BundleServiceConfig,
  CandidateConfig,
  Config,
  MaterialsConfig,
  PolicyInputConfig,
  RollbackConfig,
  SigningConfig,
  TrustBundleConfig,
} from './config.ts'
import { memoryBounds } from './memory-bounds.ts'
import type { KeyPath, OptionalValueAt, ValueAt } from './schema.ts'
import { isRemote } from './values.ts'

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

  /** Whether a key has a value that could be read. */
  holds(path: string): boolean {
    return this.#values.has(path)
  }

  /** Where a key was written, if it was. */
  placeOf(path: string): string | undefined {
    return this.#places.get(path)
  }

  at<P extends KeyPath>(path: P): OptionalValueAt<P> {
    return this.#values.get(path) as OptionalValueAt<P>
  }

  /** Paths of the keys that were written in a section. */
  within(section: string): readonly string[] {
    return [...this.#places.keys()].filter(
      (path) => path.startsWith(`${section}.`) || path.startsWith(`${section}[`),
    )
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

/** What `auto` is measured by. */
export interface Container {
  /** Processors; see `containerCpuLimit`. */
  readonly cpuLimit: () => number
  /** Bytes, or those of the machine where the container has no limit. */
  readonly memoryLimit: () => number
}

/** Values must have been checked: what may not be absent is not looked for again. */
export function assemble(values: Values, { cpuLimit, memoryLimit }: Container): Config {
  const at: Values['at'] = (path) => values.at(path)
  const workers = workersFrom(values, cpuLimit)
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
      proxyProtocol: {
        acceptFrom: values.all('inbound.proxyProtocol.acceptFrom[]'),
        send: at('inbound.proxyProtocol.send'),
      },
      forwardedClientCert: at('inbound.forwardedClientCert'),
      forwardedClientCertDetails: values.all('inbound.forwardedClientCertDetails[]'),
      clientCert: at('inbound.clientCert'),
      unsafeAmbiguousPaths: at('inbound.unsafeAmbiguousPaths'),
      unsafeOptionalPeer: at('inbound.unsafeOptionalPeer'),
      unsafePlaintext: at('inbound.unsafePlaintext'),
      limits: {
        ...memoryBounds(
          {
            connections: at('inbound.limits.connections'),
            connectionsPerAddress: at('inbound.limits.connectionsPerAddress'),
            connectionsPerPeer: at('inbound.limits.connectionsPerPeer'),
            heldBytes: at('inbound.limits.heldBytes'),
          },
          memoryLimit(),
          workers,
        ),
        handshakes: at('inbound.limits.handshakes'),
        handshakesPerAddress: at('inbound.limits.handshakesPerAddress'),
        handshakeFailuresPerAddress: at('inbound.limits.handshakeFailuresPerAddress'),
        headBytes: at('inbound.limits.headBytes'),
        headerCount: at('inbound.limits.headerCount'),
        targetBytes: at('inbound.limits.targetBytes'),
        bodyBytes: at('inbound.limits.bodyBytes'),
        requestsPerConnection: at('inbound.limits.requestsPerConnection'),
        streamsPerConnection: at('inbound.limits.streamsPerConnection'),
        upstreamConnections: at('inbound.limits.upstreamConnections'),
      },
      timeouts: {
        handshakeMs: at('inbound.timeouts.handshake'),
        requestHeadMs: at('inbound.timeouts.requestHead'),
        requestBodyMs: at('inbound.timeouts.requestBody'),
        upstreamConnectMs: at('inbound.timeouts.upstreamConnect'),
        upstreamResponseMs: at('inbound.timeouts.upstreamResponse'),
        idleMs: at('inbound.timeouts.idle'),
        tunnelIdleMs: at('inbound.timeouts.tunnelIdle'),
        connectionLifetimeMs: at('inbound.timeouts.connectionLifetime'),
      },
      overload: { eventLoopLagMs: at('inbound.overload.eventLoopLag') },
    },
    ...materials,
    allow: allowRulesFrom(values),
    ...(admin === 'off' ? {} : { admin: { listen: admin } }),
    ...(metrics === 'off' ? {} : { metrics: { listen: metrics } }),
    ...(probes === undefined
      ? {}
      : {
          probes: {
            listen: probes,
            paths: values.all('probes.paths[]'),
            tcpPaths: values.all('probes.tcpPaths[]'),
            grpcServices: values.all('probes.grpcServices[]'),
          },
        }),
    log: {
      level: at('log.level'),
      access: at('log.access'),
      decisions: at('log.decisions'),
      ...(decisionFile === undefined ? {} : { decisionFile }),
      redact: values.all('log.redact[]'),
      labels: values.all('log.labels[]'),
      ...uploadFrom(values),
    },
    drain: { timeoutMs: at('drain.timeout') },
    workers,
    stallMs: at('stall'),
  }
}

function uploadFrom(values: Values): Pick<Config['log'], 'upload'> {
  const at: Values['at'] = (path) => values.at(path)
  const url = at('log.upload.url')
  if (url === undefined) return {}
  const [tokenFile, ca] = [at('log.upload.tokenFile'), at('log.upload.ca')]
  const [certificate, privateKey] = [at('log.upload.certificate'), at('log.upload.privateKey')]
  return {
    upload: {
      url,
      ...(tokenFile && { tokenFile }),
      ...(certificate && { certificate }),
      ...(privateKey && { privateKey }),
      ...(ca && { ca }),
      minDelayMs: at('log.upload.minDelay'),
      maxDelayMs: at('log.upload.maxDelay'),
      maxEvents: at('log.upload.maxEvents'),
      bufferBytes: at('log.upload.bufferBytes'),
      chunkBytes: at('log.upload.chunkBytes'),
      maxPerSecond: at('log.upload.maxPerSecond'),
    },
  }
}

/** Absent where identity or trust cannot be told; a policy that cannot be told is left out. */
export function materialsFrom(values: Values): MaterialsConfig | undefined {
  const identity = identityFrom(values)
  const bundles = trustBundlesFrom(values)
  const policy = policyFrom(values)
  const revoked = values.at('trust.revoked')
  if (identity === undefined || bundles === undefined) return undefined
  return {
    identity,
    trust: {
      bundles,
      crls: values.all('trust.crls[]'),
      revocation: {
        mode: values.at('trust.revocation.mode'),
        graceMs: values.at('trust.revocation.grace'),
        scope: values.at('trust.revocation.scope'),
      },
      ...(revoked === undefined ? {} : { revoked }),
      clockSkewMs: values.at('trust.clockSkew'),
    },
    ...(policy === undefined ? {} : { policy }),
  }
}

function identityFrom(values: Values): Config['identity'] | undefined {
  const workloadApi = values.at('identity.workloadApi')
  const hint = values.at('identity.hint')
  if (workloadApi !== undefined) {
    return { kind: 'workloadApi', workloadApi, ...(hint === undefined ? {} : { hint }) }
  }
  const passphraseFile = values.at('identity.passphraseFile')
  const passphrase = passphraseFile === undefined ? {} : { passphraseFile }
  const directory = values.at('identity.directory')
  if (directory !== undefined) return { kind: 'directory', directory, ...passphrase }
  const credentialBundle = values.at('identity.credentialBundle')
  if (credentialBundle !== undefined) return { kind: 'bundle', credentialBundle, ...passphrase }
  const certificate = values.at('identity.certificate')
  const privateKey = values.at('identity.privateKey')
  if (certificate === undefined || privateKey === undefined) return undefined
  return { kind: 'files', certificate, privateKey, ...passphrase }
}

function trustBundlesFrom(values: Values): readonly TrustBundleConfig[] | undefined {
  const indices = values.indices('trust.bundles')
  const bundles = indices.flatMap((index) => {
    const trustDomain = values.in('trust.bundles[].trustDomain', index)
    const file = values.in('trust.bundles[].file', index)
    if (file === undefined) return []
    return { ...(trustDomain === undefined ? {} : { trustDomain }), file }
  })
  if (bundles.length !== indices.length) return undefined
  return bundles.length > 0 || bringsTrust(values) ? bundles : undefined
}

/** What delivers our identity may deliver trust bundles with it. */
export const bringsTrust = (values: Values): boolean =>
  (['workloadApi', 'directory'] as const).some(
    (name) => values.placeOf(`identity.${name}`) !== undefined,
  )

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
  const fuel = values.at('policy.fuel')
  const isWrong = (key: 'entrypoint' | 'memoryBytes' | 'fuel'): boolean =>
    values.placeOf(`policy.${key}`) !== undefined && values.at(`policy.${key}`) === undefined
  if (bundle === undefined || isWrong('entrypoint') || isWrong('memoryBytes') || isWrong('fuel'))
    return undefined
  const data = values.all('policy.data[]')
  const candidate = candidateFrom(values)
  const rollback = rollbackFrom(values)
  const signing = signingFrom(values)
  // Never looser than what is written: with a key that cannot be told nothing is loaded unverified.
  if (signing === 'wrong' || data.length !== values.indices('policy.data').length) return undefined
  return {
    bundle,
    data,
    ...(signing === undefined ? {} : { signing }),
    ...([bundle, ...data, candidate?.bundle ?? ''].some(isRemote)
      ? { service: bundleServiceFrom(values) }
      : {}),
    ...(entrypoint === undefined ? {} : { entrypoint }),
    memoryBytes: values.at('policy.memoryBytes'),
    ...(fuel === undefined ? {} : { fuel }),
    input: policyInputFrom(values),
    ...(candidate && { candidate }),
    ...(rollback && { rollback }),
  }
}

function candidateFrom(values: Values): CandidateConfig | undefined {
  const bundle = values.at('policy.candidate.bundle')
  const promoteAfter = values.at('policy.candidate.promoteAfter')
  if (bundle === undefined) return undefined
  const sample = values.at('policy.candidate.sample')
  return { bundle, sample, ...(promoteAfter === undefined ? {} : { promoteAfter }) }
}

function rollbackFrom(values: Values): RollbackConfig | undefined {
  const maxDenyIncrease = values.at('policy.rollback.maxDenyIncrease')
  const maxErrorIncrease = values.at('policy.rollback.maxErrorIncrease')
  if (maxDenyIncrease === undefined && maxErrorIncrease === undefined) return undefined
  return {
    windowMs: values.at('policy.rollback.window'),
    ...(maxDenyIncrease === undefined ? {} : { maxDenyIncrease }),
    ...(maxErrorIncrease === undefined ? {} : { maxErrorIncrease }),
    minDecisions: values.at('policy.rollback.minDecisions'),
  }
}

function policyInputFrom(values: Values): PolicyInputConfig {
  const maxBytes = values.at('policy.input.body.maxBytes')
  const protoDescriptor = values.at('policy.input.protoDescriptor')
  const headers = values.all('policy.input.headers[]')
  return {
    body: {
      ...(maxBytes === undefined ? {} : { maxBytes }),
      totalBytes: values.at('policy.input.body.totalBytes'),
    },
    ...(headers.length === 0 ? {} : { headers }),
    ...(protoDescriptor === undefined ? {} : { protoDescriptor }),
    certificate: values.at('policy.input.certificate'),
    contextExtensions: values.indices('policy.input.contextExtensions').flatMap((index) => {
      const name = values.in('policy.input.contextExtensions[].name', index)
      const value = values.in('policy.input.contextExtensions[].value', index)
      return name === undefined || value === undefined ? [] : { name, value }
    }),
    v2: values.at('policy.input.v2'),
  }
}

function signingFrom(values: Values): SigningConfig | 'wrong' | undefined {
  const indices = values.indices('policy.signing.keys')
  const keys = indices.flatMap((index) => {
    const id = values.in('policy.signing.keys[].id', index)
    const file = values.in('policy.signing.keys[].file', index)
    const algorithm = values.in('policy.signing.keys[].algorithm', index)
    if (id === undefined || file === undefined) return []
    return { id, file, ...(algorithm === undefined ? {} : { algorithm }) }
  })
  if (keys.length !== indices.length) return 'wrong'
  if (keys.length === 0) return undefined
  const scope = values.at('policy.signing.scope')
  const minimumIssuedAtMs = values.at('policy.signing.minimumIssuedAt')
  return {
    keys,
    ...(scope === undefined ? {} : { scope }),
    ...(minimumIssuedAtMs === undefined ? {} : { minimumIssuedAtMs }),
    monotonic: values.at('policy.signing.monotonic'),
  }
}

function bundleServiceFrom(values: Values): BundleServiceConfig {
  const given = (key: 'tokenFile' | 'certificate' | 'privateKey' | 'ca' | 'persist') => {
    const path = values.at(`policy.service.${key}`)
    return path === undefined ? {} : { [key]: path }
  }
  return {
    ...given('tokenFile'),
    ...given('certificate'),
    ...given('privateKey'),
    ...given('ca'),
    pollMinMs: values.at('policy.service.pollMin'),
    pollMaxMs: values.at('policy.service.pollMax'),
    longPollMs: values.at('policy.service.longPoll'),
    ...given('persist'),
    unsafePlainText: values.at('policy.service.unsafePlainText'),
  }
}

function workersFrom(values: Values, cpuLimit: () => number): number {
  const workers = values.at('workers')
  if (workers !== 'auto') return workers
  // A UNIX socket cannot be shared with SO_REUSEPORT.
  return values.at('inbound.listen').kind === 'unix' ? 1 : Math.max(1, Math.floor(cpuLimit()))
}
