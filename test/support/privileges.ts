// What a test may do to the process it starts: own namespaces need a kernel that lets everybody have
// them, or root. Where it may not, the test says so and is skipped.
import { spawnSync } from 'node:child_process'

/** A sidecar that runs through this has namespaces of its own and `script` done before; undefined: not here. */
export function inNamespaces(script: string): readonly string[] | undefined {
  const unshare = ['--map-root-user', '--user', '--mount', 'sh', '-c']
  const works = spawnSync('unshare', [...unshare, script]).status === 0
  return works ? ['unshare', ...unshare, `${script} && exec "$@"`, 'sh'] : undefined
}
