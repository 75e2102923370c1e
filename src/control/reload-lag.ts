// How long a change takes from the file, or from the agent that delivers it, to every data thread.
import type { ReloadReport } from './reloader.ts'

export type ReloadedSource = keyof ReloadReport['perSource']

export class ReloadLag {
  readonly #tell: (source: ReloadedSource, seconds: number) => void
  /** Generations that some thread does not apply yet. */
  #waiting: readonly {
    readonly generation: number
    readonly sinceMs: number
    readonly sources: readonly ReloadedSource[]
  }[] = []

  constructor(tell: (source: ReloadedSource, seconds: number) => void) {
    this.#tell = tell
  }

  reloaded({ generation, sinceMs, perSource }: ReloadReport): void {
    const sources = (Object.keys(perSource) as ReloadedSource[]).filter(
      (source) => perSource[source] === 'changed',
    )
    if (sinceMs === undefined || sources.length === 0) return
    this.#waiting = [...this.#waiting, { generation, sinceMs, sources }]
  }

  /** `generation`: the oldest that a thread decides by. */
  applied(generation: number, nowMs: number): void {
    const done = this.#waiting.filter((one) => one.generation <= generation)
    if (done.length === 0) return
    this.#waiting = this.#waiting.filter((one) => one.generation > generation)
    for (const { sinceMs, sources } of done) {
      for (const source of sources) this.#tell(source, Math.max(0, nowMs - sinceMs) / 1000)
    }
  }
}
