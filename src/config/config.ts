// The configuration as the rest of the program sees it: every value parsed, every default filled in,
// units in the names. Made only by `load.ts` from the table in `schema.ts`.

/** Where a listener listens or a connection goes. */
export type Address =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }

/** The workload. Other schemes of the contract are refused until they are built. */
export interface Forward {
  readonly scheme: 'http'
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
  /** 0: no limit. */
  readonly connectionLifetimeMs: number
}

/** The keys are OR-ed over rules and AND-ed inside one. Patterns: `*` one segment or label, `**` any. */
export interface AllowRule {
  readonly uri?: string
  readonly dns?: string
  readonly cn?: string
  readonly all?: true
}

export interface TrustBundleConfig {
  /** Absent: the bundle vouches for identities of any kind. */
  readonly trustDomain?: string
  readonly file: string
}

/** The part that names files and says how they are read. */
export type MaterialsConfig = Pick<Config, 'identity' | 'trust' | 'policy'>

export interface Config {
  readonly inbound: {
    readonly listen: Address
    readonly forward: Forward
    readonly unsafeForward: boolean
    readonly forwardedClientCert: ForwardedClientCertMode
    /** Optional keys of the XFCC element, beside By, Hash and URI. */
    readonly forwardedClientCertDetails: readonly ('subject' | 'dns' | 'cert' | 'chain')[]
    /** Also set `client-cert` (RFC 9440). */
    readonly clientCert: boolean
    /** `allow` lets ambiguous paths through to policy and workload, byte for byte. */
    readonly unsafeAmbiguousPaths: boolean
    readonly limits: Limits
    readonly timeouts: Timeouts
  }
  readonly identity:
    | { readonly kind: 'files'; readonly certificate: string; readonly privateKey: string }
    | { readonly kind: 'bundle'; readonly credentialBundle: string }
  readonly trust: {
    readonly bundles: readonly TrustBundleConfig[]
    readonly crls: readonly string[]
  }
  readonly allow: readonly AllowRule[]
  readonly policy?: {
    readonly bundle: string
    /** Absent: the only entrypoint of the bundle's manifest, or `envoy/authz/allow`. */
    readonly entrypoint?: string
    /** Highest memory of one policy instance. */
    readonly memoryBytes: number
    /** Loop iterations that one evaluation may use. */
    readonly fuel: number
  }
  readonly admin?: { readonly listen: Address }
  readonly metrics?: { readonly listen: Address }
  readonly probes?: { readonly listen: Address; readonly paths: readonly string[] }
  readonly log: {
    readonly level: 'debug' | 'info' | 'warn' | 'error'
    readonly access: 'off' | 'denied' | 'all'
    readonly decisions: 'off' | 'denied' | 'all'
    /** Absent: standard output. */
    readonly decisionFile?: string
    /** Header names whose values are replaced in logs, beside the built-in ones. */
    readonly redact: readonly string[]
  }
  readonly drain: { readonly timeoutMs: number }
  readonly workers: number
  /** Longest silence of a data thread before it is replaced. */
  readonly stallMs: number
}
