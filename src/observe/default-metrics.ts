// The process_ and nodejs_ metrics every Node dashboard expects, from prom-client, loaded late.
import { requireModule } from '../package.ts'

/** Call at the first scrape: garbage collection and event loop are observed from then on. */
export function loadDefaultMetrics(): () => Promise<string> {
  const { collectDefaultMetrics, Registry } =
    requireModule<typeof import('./prom-client.ts')>('observe/prom-client')
  const register = new Registry()
  // The default precision of 10 ms wakes the process a hundred times a second.
  collectDefaultMetrics({ register, eventLoopMonitoringPrecision: 100 })
  return () => register.metrics()
}
