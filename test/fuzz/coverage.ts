// Which code ran, as V8 counts it for coverage reports: cheap enough to ask after every few inputs
// whether one of them went where none had been.
import { Session } from 'node:inspector'

interface Report {
  readonly result: readonly {
    readonly url: string
    readonly functions: readonly {
      readonly ranges: readonly {
        readonly startOffset: number
        readonly endOffset: number
        readonly count: number
      }[]
    }[]
  }[]
}

export class CoverageWatch {
  readonly #session = new Session()
  readonly #seen = new Set<string>()
  #latest: readonly string[] = []

  constructor() {
    this.#session.connect()
    this.#session.post('Profiler.enable')
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }

  /** Whether anything of `src/` ran since the last call that never ran before. */
  grew(): boolean {
    this.#latest = this.#blocks().filter((block) => !this.#seen.has(block))
    for (const block of this.#latest) this.#seen.add(block)
    return this.#latest.length > 0
  }

  /** As if what `grew` found last had not run. */
  forget(): void {
    for (const block of this.#latest) this.#seen.delete(block)
  }

  #blocks(): string[] {
    const blocks: string[] = []
    this.#session.post('Profiler.takePreciseCoverage', (_error, report) => {
      for (const { url, functions } of (report as unknown as Report).result) {
        if (!url.includes('/src/') || url.includes('/node_modules/')) continue
        for (const { ranges } of functions) {
          for (const { startOffset, endOffset, count } of ranges) {
            if (count > 0) blocks.push(`${url}:${startOffset}:${endOffset}`)
          }
        }
      }
    })
    return blocks
  }
}
