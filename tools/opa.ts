// Finds the compiler of the policies: the one version that the repository is built with.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

/** Bundles are the same byte for byte only when the compiler is the same. */
export const OPA_VERSION = '1.22.2'
export const OPA_PACKAGE = `github.com/open-policy-agent/opa@v${OPA_VERSION}`

/** `opa` of the right version: on the PATH, where Go installs, or installed there now. */
export function findOpa(): string {
  const goPath = spawnSync('go', ['env', 'GOPATH'], { encoding: 'utf8' }).stdout?.trim()
  const installed = goPath ? join(goPath, 'bin', 'opa') : undefined
  for (const candidate of ['opa', installed]) {
    if (candidate !== undefined && versionOf(candidate) === OPA_VERSION) return candidate
  }
  if (installed === undefined) {
    throw new Error(
      `opa ${OPA_VERSION} is needed: install it, or Go (then it is built from source)`,
    )
  }
  console.error(`installing ${OPA_PACKAGE}`)
  run('go', ['install', OPA_PACKAGE])
  return installed
}

function versionOf(opa: string): string | undefined {
  const { stdout } = spawnSync(opa, ['version'], { encoding: 'utf8' })
  return /^Version: (\S+)$/m.exec(stdout ?? '')?.[1]
}

/** @returns what it wrote to standard output. */
export function run(command: string, args: readonly string[]): string {
  const { error, status, stdout, stderr } = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
  if (error !== undefined) throw new Error(`cannot run ${command}: ${error.message}`)
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}:\n${stdout}${stderr}`)
  return stdout
}
