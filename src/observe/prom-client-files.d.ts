// The two files of prom-client that are loaded by themselves; its types are of its index.
declare module 'prom-client/lib/registry.js' {
  import { Registry } from 'prom-client'
  export = Registry
}

declare module 'prom-client/lib/defaultMetrics.js' {
  import type { DefaultMetricsCollectorConfiguration, RegistryContentType } from 'prom-client'

  const collectDefaultMetrics: (
    options: DefaultMetricsCollectorConfiguration<RegistryContentType>,
  ) => void
  export = collectDefaultMetrics
}
