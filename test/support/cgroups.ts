// A group of processes with a limit of its own, as a container is. Where this machine lets nobody make one,
// a test says so and is skipped.
import { mkdir, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Cleanup } from './cleanup.ts'
import { eventually } from './eventually.ts'

export interface Limit {
  /** Of a controller. */
  readonly parent: string
  readonly file: string
  readonly value: string
}

let groups = 0

/** Removed when `t` clears up, and nobody is left in it. @param limits by version 1 and 2 of cgroups: the first that works */
export async function limitedGroup(
  t: Cleanup,
  limits: readonly Limit[],
): Promise<{ readonly processes: string } | { readonly obstacle: string }> {
  const causes: string[] = []
  for (const { parent, file, value } of limits) {
    const group = join(parent, `postern-test-${process.pid}-${groups++}`)
    try {
      await mkdir(group)
      t.after(() =>
        eventually('the group is empty', () =>
          rmdir(group).then(
            () => true,
            () => false,
          ),
        ),
      )
      await writeFile(join(group, file), value)
      return { processes: join(group, 'cgroup.procs') }
    } catch (error) {
      causes.push((error as Error).message)
    }
  }
  return { obstacle: causes.join('; ') }
}
