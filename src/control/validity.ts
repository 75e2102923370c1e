// Says when something in force approaches the end of its validity, once for each stage and more
// urgently each time; of our own certificate again and again when it is over. Nothing is reloaded for
// it: whoever renews has not, and somebody should know.
import type { Loaded } from './loader.ts'

/** How much of the life is left: a third (renewal is due), a tenth, a twentieth, nothing. */
export type ValidityStage = 'third' | 'tenth' | 'twentieth' | 'expired'

export interface ValidityNotice {
  readonly kind: 'identity' | 'trust' | 'crl'
  /** The file, with the subject or issuer where a file holds several. */
  readonly name: string
  readonly stage: ValidityStage
  readonly endsAtMs: number
  readonly nowMs: number
}

export interface ValidityOptions {
  readonly loaded: () => Loaded | undefined
  /** Epoch milliseconds. */
  readonly clock: () => number
  readonly onNotice: (notice: ValidityNotice) => void
  readonly everyMs?: number
  /** Pause between two notices that our own certificate has expired and is still in force. */
  readonly repeatMs?: number
}

export class ValidityWatch {
  readonly #options: ValidityOptions
  readonly #told = new Map<string, { readonly stage: ValidityStage; readonly atMs: number }>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: ValidityOptions) {
    this.#options = options
  }

  start(): void {
    this.look()
    this.#timer = setInterval(() => this.look(), this.#options.everyMs ?? 5_000).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** Also to be called after each reload. */
  look(): void {
    const loaded = this.#options.loaded()
    const notices = loaded === undefined ? [] : noticesOf(loaded, this.#options.clock())
    const present = new Map(notices.map((notice) => [keyOf(notice), notice]))
    for (const key of this.#told.keys()) if (!present.has(key)) this.#told.delete(key)
    for (const [key, notice] of present) {
      const told = this.#told.get(key)
      if (told?.stage === notice.stage && !this.#isDueAgain(notice, told.atMs)) continue
      this.#told.set(key, { stage: notice.stage, atMs: notice.nowMs })
      this.#options.onNotice(notice)
    }
  }

  #isDueAgain({ kind, stage, nowMs }: ValidityNotice, toldMs: number): boolean {
    const { repeatMs = 10 * 60_000 } = this.#options
    return kind === 'identity' && stage === 'expired' && nowMs - toldMs >= repeatMs
  }
}

/** Everything in force that has reached a stage. */
export function noticesOf({ identity, trust, crls }: Loaded, nowMs: number): ValidityNotice[] {
  const own = identity.material.facts
  const lives: Life[] = [{ kind: 'identity', name: own.file, ...livesOf(own) }]
  for (const { material } of trust) {
    for (const facts of material.facts) {
      lives.push({ kind: 'trust', name: `${facts.file} (${facts.subject})`, ...livesOf(facts) })
    }
  }
  for (const crl of crls.flatMap(({ material }) => material)) {
    if (crl.nextUpdateMs === undefined) continue
    const name = `${crl.file} (${crl.issuer})`
    lives.push({ kind: 'crl', name, beganMs: crl.thisUpdateMs, endsAtMs: crl.nextUpdateMs })
  }
  return lives.flatMap((life) => {
    const stage = stageOf(life, nowMs)
    const { kind, name, endsAtMs } = life
    return stage === undefined ? [] : { kind, name, stage, endsAtMs, nowMs }
  })
}

interface Life extends Pick<ValidityNotice, 'kind' | 'name' | 'endsAtMs'> {
  readonly beganMs: number
}

const livesOf = (facts: { readonly notBeforeMs: number; readonly notAfterMs: number }) => ({
  beganMs: facts.notBeforeMs,
  endsAtMs: facts.notAfterMs,
})

/** In shares of the whole life, so that it fits a certificate of an hour and one of ten years. */
function stageOf({ kind, beganMs, endsAtMs }: Life, nowMs: number): ValidityStage | undefined {
  const left = (endsAtMs - nowMs) / (endsAtMs - beganMs)
  if (!(left > 0)) return 'expired'
  if (left <= 1 / 20) return 'twentieth'
  if (left <= 1 / 10) return 'tenth'
  // Authorities and CRLs are replaced at their end, workload certificates long before.
  return kind === 'identity' && left <= 1 / 3 ? 'third' : undefined
}

const keyOf = ({ kind, name, endsAtMs }: ValidityNotice): string => `${kind} ${name} ${endsAtMs}`
