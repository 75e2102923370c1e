// The thread that reads one large bundle, see policy-aside.ts.
import { parentPort } from 'node:worker_threads'
import { readBundlePart } from '../policy/bundle.ts'
import { loadBundle } from '../policy/load.ts'
import { asBuffer, type PolicyJob } from './policy-aside.ts'

parentPort?.once('message', async (job: PolicyJob) => {
  parentPort?.postMessage(await done(job))
})

async function done(job: PolicyJob): Promise<unknown> {
  if (job.kind === 'load') return loadBundle(job.source, job.options)
  const entries = new Map([...job.entries].map(([name, bytes]) => [name, asBuffer(bytes)]))
  return readBundlePart(entries, job.file)
}
