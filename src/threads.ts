// What goes between the control thread and the data threads: the sealed snapshot down, answers and
// records up. Everything here survives a structured clone: plain data, bytes, a WebAssembly.Module.
import type { AllowRule, Config } from './config/config.ts'
import type { ErrorCode, Problem } from './errors.ts'
import type { IdentityMaterial, TrustBundleMaterial, TrustMaterial } from './identity/material.ts'
import type { HANDSHAKE_FAILURES, UNSAFE_REQUEST_KINDS } from './metrics.ts'
import type { RequestFacts } from './policy/input.ts'
import type { PolicyMaterial } from './policy/material.ts'

/** Everything of one generation that belongs together. A request reads it once, at its head. */
export interface Snapshot {
  readonly generation: number
  readonly createdAtMs: number
  readonly identity: IdentityMaterial
  readonly trust: TrustMaterial
  readonly allow: readonly AllowRule[]
  /** Absent when the configuration has no policy: then the allow rules alone decide. */
  readonly policy?: PolicyMaterial
  /** Decided before, and is kept ready to decide again. */
  readonly previousPolicy?: PolicyMaterial
  /** The configuration has a policy that has not come yet: nothing is admitted. */
  readonly policyPending?: true
  readonly settings: DataSettings
}

/** The part of the configuration that data threads read. */
export interface DataSettings {
  readonly inbound: Config['inbound']
  readonly log: Pick<Config['log'], 'access' | 'decisions'>
  /** Share of the decisions that a candidate policy is asked about; absent: there is none. */
  readonly candidateSample?: number
}

/** What a data thread begins with: a message, so that its code can be loaded before. */
export interface DataThreadStart {
  readonly thread: number
  readonly snapshot: Snapshot
  readonly cells: SharedArrayBuffer
}

/** Whether clients can shake hands with it, asked of a thread that has nothing to do yet. */
export interface HandshakeQuestion {
  readonly id: number
  readonly identity: IdentityMaterial
  readonly bundles: readonly TrustBundleMaterial[]
}

export type ToDataThread =
  /** Before all others. */
  | { readonly kind: 'shake_hands'; readonly question: HandshakeQuestion }
  | { readonly kind: 'take_in'; readonly start: DataThreadStart }
  /** Once, after that. `reusePort`: share the port with other threads (`SO_REUSEPORT`). */
  | { readonly kind: 'listen'; readonly reusePort: boolean }
  | { readonly kind: 'snapshot'; readonly snapshot: Snapshot }
  /** Take no more; cut what is left after `timeoutMs`. */
  | { readonly kind: 'drain'; readonly timeoutMs: number }
  | { readonly kind: 'records_taken'; readonly bytes: number }

export type FromDataThread =
  | { readonly kind: 'hands_shaken'; readonly id: number; readonly problem: Problem | undefined }
  /** Listening; sent once. `port` is the bound one, also where the configuration says 0. */
  | { readonly kind: 'ready'; readonly port: number }
  /** Could not listen; the thread ends. */
  | { readonly kind: 'failed'; readonly message: string; readonly code?: string }
  | { readonly kind: 'applied'; readonly generation: number }
  /** `bytes`: what they take of memory, told back when they are taken. */
  | {
      readonly kind: 'records'
      readonly records: readonly LogRecord<SentInput>[]
      readonly bytes: number
    }
  /** The last connection is gone, or the deadline passed with `left` of them open. */
  | { readonly kind: 'drained'; readonly left: number }

/**
 * The whole input document, or what it is made of: a data thread makes it for no log, and sends what is
 * cheap to send.
 */
export type SentInput = string | RequestFacts

/** @template Input of a decision: its document, or as a data thread sends it */
export type LogRecord<Input = string> =
  | AccessRecord
  | DecisionRecord<Input>
  | SampleRecord<Input>
  | HandshakeRecord
  | CutRecord
  | FaultRecord
  | OverloadRecord
  | SlowReadsRecord
  | UnreachableRecord
  | RelievedRecord

/** One request, written when it ended. */
export interface AccessRecord {
  readonly kind: 'access'
  readonly timeMs: number
  /** `x-request-id`, kept or created. */
  readonly requestId: string
  readonly decisionId?: string
  readonly principal: string
  /** Of a client that only an unsafe option lets in. */
  readonly unsafe?: (typeof UNSAFE_REQUEST_KINDS)[number]
  readonly remoteAddress: string
  readonly remotePort: number
  readonly method: string
  readonly path: string
  readonly protocol: string
  /** 0 when no answer was sent. */
  readonly status: number
  readonly outcome: string
  readonly code?: ErrorCode
  /** What was wrong, or why a tunnel has ended, where the code leaves it open; from our code. */
  readonly detail?: string
  readonly durationMs: number
  readonly requestBytes: number
  readonly responseBytes: number
}

/** One policy decision, in the terms of OPA's EventV1; the control thread gives it that shape. */
export interface DecisionRecord<Input = string> {
  readonly kind: 'decision'
  readonly decisionId: string
  readonly requestId: string
  readonly timeMs: number
  readonly outcome: string
  readonly rule: string
  /** The whole input document as JSON text, of which the policy may have read a part; not yet redacted. */
  readonly input: Input
  /** The result as JSON text; absent when there was none. */
  readonly result?: string
  readonly error?: string
  readonly entrypoint?: string
  readonly revision?: string
  readonly bundleDigest?: string
  readonly evalNs: number
  readonly principal: string
  readonly traceparent?: string
  /** The candidate policy is to be asked about it. */
  readonly sampled?: true
}

/**
 * A decision that is not logged, and that the candidate policy is to be asked about. Without an id
 * where the client was not told one.
 */
export interface SampleRecord<Input = string> {
  readonly kind: 'sample'
  readonly decision: DecisionRecord<Input>
}

export interface HandshakeRecord {
  readonly kind: 'handshake'
  readonly timeMs: number
  readonly remoteAddress: string
  readonly remotePort: number
  readonly reason: (typeof HANDSHAKE_FAILURES)[number]
  /** What OpenSSL or the identity rules said; with both times where time is the reason. */
  readonly detail: string
  readonly subject?: string
  readonly serial?: string
  /** That the client was told with the answer why. */
  readonly requestId?: string
}

/** An established connection that was cut because its peer stopped being acceptable. */
export interface CutRecord {
  readonly kind: 'cut'
  readonly timeMs: number
  readonly remoteAddress: string
  readonly remotePort: number
  readonly principal: string
  readonly serial: string
  readonly code: ErrorCode
  readonly detail: string
}

/** A thread has begun to refuse requests because it is past its capacity, or does so no longer. */
export interface OverloadRecord {
  readonly kind: 'overload'
  readonly timeMs: number
  readonly active: boolean
  /** How long a turn of its event loop took lately. */
  readonly lagMs: number
  /** Requests that were refused meanwhile. */
  readonly shed: number
}

/** What clients send is read in the way that costs more: the other does not work with this Node.js. */
export interface SlowReadsRecord {
  readonly kind: 'slow_reads'
  readonly timeMs: number
  readonly detail: string
}

/** There is no connection to the workload. */
export interface UnreachableRecord {
  readonly kind: 'unreachable'
  readonly timeMs: number
  /** What the system says, with the address. */
  readonly detail: string
}

/** Connections were closed because all together held more than they may. */
export interface RelievedRecord {
  readonly kind: 'relieved'
  readonly timeMs: number
  readonly closed: number
  readonly heldBytes: number
  /** Of those that were closed, and of one that held most. */
  readonly principal: string
}

/** A fault in Postern itself that ended one connection; the others went on. */
export interface FaultRecord {
  readonly kind: 'fault'
  readonly timeMs: number
  /** Message and stack; from our code, never from a client. */
  readonly detail: string
}
