// The configuration as the rest of the program sees it: every value parsed, every default filled in,
// units in the names. Made only by `load.ts` from the table in `schema.ts`.

import type { ValueAt } from './schema.ts'

/** Where a listener listens or a connection goes. */
export type Address =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }

/** The workload: HTTP/1.1, HTTP/2 without TLS and with prior knowledge, or bytes of any kind. */
export interface Forward {
  readonly scheme: 'http' | 'h2c' | 'tcp'
  readonly address: Address
}

/** What happens to `x-forwarded-client-cert`; Envoy's names for its modes, in lower case. */
export type ForwardedClientCertMode =
  | 'sanitize'
  | 'sanitize_set'
  | 'forward_only'
  | 'append_forward'
  | 'always_forward_only'

export interface Limits {
  readonly connections: number
  readonly connectionsPerAddress: number
  readonly connectionsPerPeer: number
  /** Of one data thread. */
  readonly heldBytes: number
  readonly handshakes: number
  readonly handshakesPerAddress: number
  /** Failed handshakes that one address may cause in a burst, before it is put in the penalty box. */
  readonly handshakeFailuresPerAddress: number
  readonly headBytes: number
  readonly headerCount: number
  readonly targetBytes: number
  /** 0: no limit. */
  readonly bodyBytes: number
  /** 0: no limit. */
  readonly requestsPerConnection: number
  /** That a client may have open at once; HTTP/2 only. */
  readonly streamsPerConnection: number
  readonly upstreamConnections: number
}

export interface Timeouts {
  readonly handshakeMs: number
  readonly requestHeadMs: number
  /** Longest time without progress of a request body. */
  readonly requestBodyMs: number
  readonly upstreamConnectMs: number
  readonly upstreamResponseMs: number
  readonly idleMs: number
  readonly tunnelIdleMs: number
  /** 0: no limit. */
  readonly connectionLifetimeMs: number
}

export interface ProbesConfig {
  readonly listen: Address
  readonly paths: readonly string[]
  /** On which a connection to the workload is tried. */
  readonly tcpPaths: readonly string[]
  /** `*`: the server as a whole. */
  readonly grpcServices: readonly string[]
}

/** The keys are OR-ed over rules and AND-ed inside one. Patterns: `*` one segment or label, `**` any. */
export interface AllowRule {
  readonly uri?: string
  readonly dns?: string
  readonly cn?: string
  readonly all?: true
}

/** One entry of the deny list, `trust.revoked`. */
export interface DenyEntry {
  /** File and line, for logs. */
  readonly where: string
  readonly what:
    | { readonly kind: 'spiffe_id'; readonly pattern: string }
    /** Any certificate of the chain; `issuer` as text (RFC 4514), `serial` as hex. */
    | { readonly kind: 'certificate'; readonly issuer: string; readonly serial: string }
    /** Any certificate of the chain; SHA-256 of the SubjectPublicKeyInfo, lower-case hex. */
    | { readonly kind: 'key'; readonly spkiSha256: string }
  /** Counts until then; absent: for ever. */
  readonly untilMs?: number
  /** For the log. */
  readonly reason?: string
}

export interface TrustBundleConfig {
  /** Absent: the bundle vouches for identities of any kind. */
  readonly trustDomain?: string
  readonly file: string
}

/** Where our own certificate and key come from. */
export type IdentityConfig =
  | IdentityFiles
  /** Names of files as programs that deliver identities write them; trust bundles among them. */
  | { readonly kind: 'directory'; readonly directory: string; readonly passphraseFile?: string }
  | { readonly kind: 'workloadApi'; readonly workloadApi: Address; readonly hint?: string }

export type IdentityFiles =
  | {
      readonly kind: 'files'
      readonly certificate: string
      readonly privateKey: string
      readonly passphraseFile?: string
    }
  | { readonly kind: 'bundle'; readonly credentialBundle: string; readonly passphraseFile?: string }

export interface SigningConfig {
  /** Never empty. */
  readonly keys: readonly {
    /** As signatures name it. */
    readonly id: string
    readonly file: string
    /** Absent: the usual one for this kind of key. */
    readonly algorithm?: ValueAt<'policy.signing.keys[].algorithm'>
  }[]
  /** Absent: signatures may have none. */
  readonly scope?: string
  /** Epoch milliseconds. */
  readonly minimumIssuedAtMs?: number
  readonly monotonic: boolean
}

export interface CandidateConfig {
  readonly bundle: string
  /** Share of the decisions, from 0 to 1. */
  readonly sample: number
  /** Decisions in a row without a difference, and the candidate is promoted. */
  readonly promoteAfter?: number
}

/** When a new policy is rolled back; shares of its decisions, from 0 to 1. */
export interface RollbackConfig {
  readonly windowMs: number
  readonly maxDenyIncrease?: number
  readonly maxErrorIncrease?: number
  readonly minDecisions: number
}

export interface BundleServiceConfig {
  readonly tokenFile?: string
  readonly certificate?: string
  readonly privateKey?: string
  readonly ca?: string
  readonly pollMinMs: number
  readonly pollMaxMs: number
  /** 0: the server is asked in pauses. */
  readonly longPollMs: number
  readonly persist?: string
  readonly unsafePlainText: boolean
}

/** OPA's decision-log API. */
export interface LogUploadConfig {
  readonly url: string
  readonly tokenFile?: string
  readonly certificate?: string
  readonly privateKey?: string
  readonly ca?: string
  readonly minDelayMs: number
  readonly maxDelayMs: number
  readonly maxEvents: number
  readonly bufferBytes: number
  readonly chunkBytes: number
  /** 0: no limit. */
  readonly maxPerSecond: number
}

/** The part that names files and says how they are read. */
export type MaterialsConfig = Pick<Config, 'identity' | 'trust' | 'policy'>

/** What of a request the policy is given. */
export interface PolicyInputConfig {
  readonly body: {
    /** Absent: as the bundle asks. 0: none. */
    readonly maxBytes?: number
    /** Of one data thread. */
    readonly totalBytes: number
  }
  /** Names in lower case. Absent: all. */
  readonly headers?: readonly string[]
  /** A FileDescriptorSet. */
  readonly protoDescriptor?: string
  readonly certificate: boolean
  readonly contextExtensions: readonly { readonly name: string; readonly value: string }[]
  /** Add the names of ext_authz v2. */
  readonly v2: boolean
}

export interface Config {
  readonly inbound: {
    readonly listen: Address
    readonly forward: Forward
    readonly unsafeForward: boolean
    readonly proxyProtocol: { readonly acceptFrom: readonly string[]; readonly send: boolean }
    readonly forwardedClientCert: ForwardedClientCertMode
    /** Optional keys of the XFCC element, beside By, Hash and URI. */
    readonly forwardedClientCertDetails: readonly ('subject' | 'dns' | 'cert' | 'chain')[]
    /** Also set `client-cert` (RFC 9440). */
    readonly clientCert: boolean
    /** `allow` lets ambiguous paths through to policy and workload, byte for byte. */
    readonly unsafeAmbiguousPaths: boolean
    /** Clients without a certificate reach the policy. */
    readonly unsafeOptionalPeer: boolean
    /** Clients that speak HTTP/1.1 without TLS reach the policy. */
    readonly unsafePlaintext: boolean
    readonly limits: Limits
    readonly timeouts: Timeouts
    /** 0: nothing is refused, whatever comes. */
    readonly overload: { readonly eventLoopLagMs: number }
  }
  readonly identity: IdentityConfig
  readonly trust: {
    readonly bundles: readonly TrustBundleConfig[]
    readonly crls: readonly string[]
    readonly revocation: {
      /** Where a CRL is missing or out of date: refuse, or let in and count. */
      readonly mode: 'hard-fail' | 'soft-fail'
      /** How long a CRL counts as current after its nextUpdate. */
      readonly graceMs: number
      /** Whose issuer needs a current CRL. */
      readonly scope: 'leaf' | 'chain'
    }
    /** The deny list. */
    readonly revoked?: string
    readonly clockSkewMs: number
  }
  readonly allow: readonly AllowRule[]
  readonly policy?: {
    readonly bundle: string
    /** Further bundles, which bring data. */
    readonly data: readonly string[]
    /** Absent: signed bundles are refused, as nothing could verify them. */
    readonly signing?: SigningConfig
    /** Present where a bundle comes from a server. */
    readonly service?: BundleServiceConfig
    /** Absent: the only entrypoint of the bundle's manifest, or `envoy/authz/allow`. */
    readonly entrypoint?: string
    /** Highest memory of one policy instance. */
    readonly memoryBytes: number
    /** Loop iterations and calls that one evaluation may use; absent: what takes about 10 ms. */
    readonly fuel?: number
    readonly input: PolicyInputConfig
    /** Compared with what is in force. */
    readonly candidate?: CandidateConfig
    /** Absent: only somebody who asks rolls back. */
    readonly rollback?: RollbackConfig
  }
  readonly admin?: { readonly listen: Address }
  readonly metrics?: { readonly listen: Address }
  readonly probes?: ProbesConfig
  readonly log: {
    readonly level: 'debug' | 'info' | 'warn' | 'error'
    readonly access: 'off' | 'denied' | 'all'
    readonly decisions: 'off' | 'denied' | 'all'
    /** Absent: standard output. */
    readonly decisionFile?: string
    /** Header names whose values are replaced in logs, beside the built-in ones. */
    readonly redact: readonly string[]
    /** Of every decision event, beside our own. */
    readonly labels: readonly { readonly name: string; readonly value: string }[]
    /** Absent: decisions stay on this host. */
    readonly upload?: LogUploadConfig
  }
  readonly drain: { readonly timeoutMs: number }
  readonly workers: number
  /** Longest silence of a data thread before it is replaced. */
  readonly stallMs: number
}
