// What is in force, as the admin server and the metrics show it.
import type { BundleServerStatus } from '../control/bundle-server.ts'
import type { PolicyPiece, VerifiedPart } from '../control/policy-bundles.ts'
import type { SlotPieces } from '../control/policy-slots.ts'
import type { ReloadReport } from '../control/reloader.ts'
import type { Generation } from '../control/snapshot-builder.ts'
import type { Problem } from '../errors.ts'
import type { CertificateFacts } from '../identity/material.ts'
import { SERIAL_BYTES } from '../identity/serials.ts'
import type { RELOAD_SOURCES } from '../metrics.ts'
import type { ReadyPart, ReadyReport } from '../observe/health.ts'
import type { MetricsRegistry } from '../observe/metrics.ts'

/** `GET /snapshot`: plain data, no key material. */
export function snapshotView(
  { snapshot, slots }: Generation,
  servers: readonly BundleServerStatus[],
  operation: object,
): unknown {
  const { generation, createdAtMs, identity, trust, allow } = snapshot
  return {
    generation,
    created: iso(createdAtMs),
    identity: certificateView(identity.facts),
    trust: {
      generation: trust.generation,
      bundles: trust.bundles.map(({ trustDomain, file, facts }) => ({
        file,
        ...(trustDomain === undefined ? {} : { trust_domain: trustDomain }),
        certificates: facts.map(certificateView),
      })),
      crl_required: trust.revocation.required,
      deny_list_entries: trust.denied.length,
      crls: trust.crls.map((crl) => ({
        file: crl.file,
        issuer: crl.issuer,
        this_update: iso(crl.thisUpdateMs),
        ...(crl.nextUpdateMs === undefined ? {} : { next_update: iso(crl.nextUpdateMs) }),
        revoked: crl.revokedSerials.length / SERIAL_BYTES,
      })),
    },
    allow_rules: allow.length,
    policy: {
      ...(slots.active && { active: policyView(slots.active) }),
      ...(slots.previous && { previous: policyView(slots.previous) }),
      ...(slots.candidate && { candidate: policyView(slots.candidate) }),
      ...(slots.heldBack && { held_back: policyView(slots.heldBack) }),
      ...operation,
    },
    ...(snapshot.policyPending ? { policy_pending: true } : {}),
    ...(servers.length > 0 ? { bundle_servers: servers.map(serverView) } : {}),
  }
}

const policyView = ({ material, parts }: PolicyPiece): unknown => ({
  file: material.file,
  revision: material.revision,
  digest: material.digest,
  entrypoint: material.entrypoint,
  bundles: parts.map(bundleView),
})

function bundleView({ digest, part, keyId, issuedAt }: VerifiedPart): unknown {
  return {
    file: part.file,
    revision: part.revision,
    roots: part.roots,
    digest,
    ...(keyId === undefined ? {} : { signed_by: keyId }),
    ...(issuedAt === undefined ? {} : { issued_at: issuedAt }),
  }
}

/** Named as in OPA's status of a bundle. */
function serverView(status: BundleServerStatus): unknown {
  const at = (name: string, ms: number | undefined) => (ms === undefined ? {} : { [name]: iso(ms) })
  const { problem } = status
  return {
    name: status.url,
    ...at('last_request', status.lastRequestMs),
    ...at('last_successful_request', status.lastSuccessfulRequestMs),
    ...at('last_successful_download', status.lastSuccessfulDownloadMs),
    ...at('last_successful_activation', status.lastActivationMs),
    ...(problem === undefined ? {} : { code: 'bundle_error', message: problem.what }),
  }
}

function certificateView(facts: CertificateFacts): unknown {
  return {
    file: facts.file,
    subject: facts.subject,
    ...(facts.spiffeId === undefined ? {} : { spiffe_id: facts.spiffeId }),
    serial: facts.serial,
    fingerprint_sha256: facts.fingerprint,
    not_before: iso(facts.notBeforeMs),
    not_after: iso(facts.notAfterMs),
  }
}

/** Sets the gauges that describe what is in force. */
export function showGeneration(metrics: MetricsRegistry, { snapshot }: Generation): void {
  metrics.set('snapshot_generation', {}, snapshot.generation)
  metrics.clear('certificate_expiration_timestamp_seconds')
  const expires = (kind: 'identity' | 'trust', facts: CertificateFacts): void =>
    metrics.set(
      'certificate_expiration_timestamp_seconds',
      { kind, name: nameOf(facts) },
      facts.notAfterMs / 1000,
    )
  expires('identity', snapshot.identity.facts)
  for (const bundle of snapshot.trust.bundles)
    for (const facts of bundle.facts) expires('trust', facts)
  metrics.clear('crl_next_update_timestamp_seconds')
  for (const crl of snapshot.trust.crls) {
    if (crl.nextUpdateMs !== undefined) {
      metrics.set(
        'crl_next_update_timestamp_seconds',
        { name: `${crl.file} (${crl.issuer})` },
        crl.nextUpdateMs / 1000,
      )
    }
  }
}

export interface ReadinessFacts {
  readonly generation: Generation | undefined
  readonly appliedGeneration: number
  readonly serving: number
  readonly threads: number
  readonly draining: boolean
  readonly lastReload: string
  readonly failedSources: readonly string[]
  readonly problems: readonly Problem[]
  /** Why there is no generation yet, where something is waited for. */
  readonly waitingFor: string | undefined
  readonly workloadApiTrouble: Problem | undefined
  readonly nowMs: number
}

/** `GET /readyz`. A failed reload does not take the workload out of service: the old one is good. */
export function readiness(facts: ReadinessFacts): ReadyReport {
  const { generation, serving, threads, failedSources, problems } = facts
  const own = generation?.snapshot.identity.facts
  return {
    parts: [
      part('snapshot', generation !== undefined, facts.waitingFor ?? 'nothing is loaded yet'),
      part(
        'data_threads',
        serving === threads,
        `${serving} of ${threads} data threads are serving`,
      ),
      part('applied', !lagsBehind(facts), 'a data thread does not apply the newest generation'),
      part('policy', !generation?.snapshot.policyPending, 'the policy has not come yet'),
      part('drain', !facts.draining, 'draining'),
    ],
    details: {
      generation: generation?.snapshot.generation ?? 0,
      applied_generation: facts.appliedGeneration,
      last_reload: facts.lastReload,
      ...(generation?.slots.active && { policy: slotsInShort(generation.slots) }),
      ...(failedSources.length > 0 ? { failed_sources: failedSources, problems } : {}),
      ...(own === undefined
        ? {}
        : {
            certificate_not_after: iso(own.notAfterMs),
            certificate_expired: own.notAfterMs <= facts.nowMs,
            certificate_seconds_left: Math.floor((own.notAfterMs - facts.nowMs) / 1000),
          }),
      ...(facts.workloadApiTrouble && { workload_api: facts.workloadApiTrouble }),
    },
  }
}

/** What lies in the file is not always what decides. */
const slotsInShort = ({ active, heldBack }: SlotPieces) => ({
  active: { revision: active?.material.revision, digest: active?.digest },
  ...(heldBack && {
    held_back: { revision: heldBack.material.revision, digest: heldBack.digest },
  }),
})

/** A thread that keeps old trust must not go unnoticed; the moment that applying takes may. */
function lagsBehind({ generation, appliedGeneration, nowMs }: ReadinessFacts): boolean {
  if (generation === undefined) return false
  const { snapshot } = generation
  return appliedGeneration < snapshot.generation && nowMs - snapshot.createdAtMs > APPLYING_MS
}

/** From the begin of a load to the last thread's word, on a machine with little to spare. */
const APPLYING_MS = 10_000

const part = (name: string, ready: boolean, reason: string): ReadyPart =>
  ready ? { name, ready } : { name, ready, reason }

/** Counts one reload by source; a source that did not change is not counted. */
export function countReload(metrics: MetricsRegistry, report: ReloadReport, nowMs: number): void {
  for (const [source, result] of Object.entries(report.perSource) as [Source, string][]) {
    if (result === 'unchanged') continue
    metrics.inc('reload_total', { source, result: result === 'changed' ? 'success' : 'failure' })
    if (result === 'changed')
      metrics.set('reload_last_success_timestamp_seconds', { source }, nowMs / 1000)
  }
}

type Source = (typeof RELOAD_SOURCES)[number]

const nameOf = (facts: CertificateFacts): string => facts.spiffeId ?? facts.subject

const iso = (timeMs: number): string => new Date(timeMs).toISOString()
