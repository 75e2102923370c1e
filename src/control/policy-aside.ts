// Reads and activates bundles; large ones in a thread of their own, so that the control thread keeps
// answering while 20 MB of data take their seconds. The result is the same.
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { moduleFile } from '../package.ts'
import { type BundleEntries, type ReadPart, readBundlePart } from '../policy/bundle.ts'
import { type LoadedPolicy, loadBundle } from '../policy/load.ts'

export type PolicyJob =
  | { readonly kind: 'part'; readonly entries: BundleEntries; readonly file: string }
  | {
      readonly kind: 'load'
      readonly source: Parameters<typeof loadBundle>[0]
      readonly options: Parameters<typeof loadBundle>[1]
    }

/** Starting a thread takes about as long as reading this much. */
export const LARGE_BYTES = 1024 * 1024

export async function readPartAside(entries: BundleEntries, file: string): Promise<ReadPart> {
  const bytes = [...entries.values()].reduce((sum, one) => sum + one.length, 0)
  if (bytes < LARGE_BYTES) return readBundlePart(entries, file)
  const read = (await inThread({ kind: 'part', entries, file })) as ReadPart
  if (read.kind === 'problems' || read.part.wasm === undefined) return read
  return { kind: 'part', part: { ...read.part, wasm: asBuffer(read.part.wasm) } }
}

export async function loadBundleAside(
  ...[source, options]: Parameters<typeof loadBundle>
): Promise<LoadedPolicy> {
  if (source.bundle.dataJson.length < LARGE_BYTES) return loadBundle(source, options)
  return (await inThread({ kind: 'load', source, options })) as LoadedPolicy
}

async function inThread(job: PolicyJob): Promise<unknown> {
  const worker = new Worker(moduleFile('control/policy-thread'), { name: 'policy' })
  try {
    const exit = once(worker, 'exit').then(() => {
      throw new Error('the thread that reads bundles ended before it was done')
    })
    exit.catch(() => {})
    worker.postMessage(job)
    // Rejects with what was thrown there.
    const [answer] = await Promise.race([once(worker, 'message'), exit])
    return answer
  } finally {
    await worker.terminate()
  }
}

/** Buffers go from thread to thread as plain arrays of bytes. */
export function asBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength)
}
