// A policy as it travels in a snapshot: verified, rewritten, compiled and warmed by the control
// thread, instantiated by each data thread.

import type { MemoryImage } from './image.ts'
import type { InputSettings } from './input-settings.ts'
import type { InputReads } from './reads.ts'

export interface PolicyMaterial {
  /** Metered (see rewrite.ts) and compiled. */
  readonly module: WebAssembly.Module
  readonly entrypoint: string
  readonly entrypointId: number
  /** `system/log/drop` and `system/log/mask`, where the module has them: asked about log events. */
  readonly logEntrypoints?: { readonly drop?: number; readonly mask?: number }
  /** Name of each builtin the module calls, by the id it calls it with. */
  readonly builtins: Readonly<Record<number, string>>
  /** What of the input the entrypoint can read. */
  readonly reads: InputReads
  readonly input: InputSettings
  /** The merged data document. */
  readonly data: MemoryImage
  /** From the manifest; '' when it has none. */
  readonly revision: string
  /** SHA-256 of what was loaded, lower-case hex. */
  readonly digest: string
  readonly file: string
  /** Loop iterations and calls that one evaluation may use. */
  readonly fuel: number
  readonly memoryBytes: number
}
