// Loads the policy that a command was given with --bundle, through the same gate as `run`.
import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { type KeyPath, keys, typeOf, type ValueAt } from '../config/schema.ts'
import { readFiles, readTree } from '../control/files.ts'
import type { Problem } from '../errors.ts'
import { ARCHIVE_LIMITS, type BundleEntries, unpackArchive } from '../policy/bundle.ts'
import { loadPolicy } from '../policy/load.ts'
import type { PolicyMaterial } from '../policy/material.ts'
import { CommandFailure, formatProblem } from './failure.ts'

/** Ends the command with 2 when the bundle cannot be used; warnings go to standard error. */
export async function policyOf(path: string, entrypoint?: string): Promise<PolicyMaterial> {
  const source = { file: path, ...(await readBundle(path)) }
  const loaded = await loadPolicy(source, {
    entrypoint,
    fuel: undefined,
    memoryBytes: defaultOf('policy.memoryBytes'),
  })
  if (loaded.kind === 'problems') throw new CommandFailure(2, ...loaded.problems)
  for (const warning of loaded.warnings) process.stderr.write(`${formatProblem(warning)}\n`)
  return loaded.material
}

async function readBundle(path: string): Promise<{ entries: BundleEntries; digest: string }> {
  const found = await stat(path).catch(() => undefined)
  const hash = createHash('sha256')
  if (found?.isDirectory()) {
    const tree = await readTree(path, WHERE, ARCHIVE_LIMITS)
    if (tree.kind === 'problem') throw new CommandFailure(2, tree.problem)
    for (const [name, bytes] of tree.entries) hash.update(name).update(bytes)
    return { entries: tree.entries, digest: hash.digest('hex') }
  }
  const [content] = await readFiles([{ path, where: WHERE, maxBytes: ARCHIVE_LIMITS.fileBytes }])
  if (content?.kind !== 'bytes')
    throw new CommandFailure(2, (content as { problem: Problem }).problem)
  const unpacked = await unpackArchive(content.bytes, path)
  if (unpacked.kind === 'problems') throw new CommandFailure(2, ...unpacked.problems)
  return { entries: unpacked.entries, digest: hash.update(content.bytes).digest('hex') }
}

const WHERE = '--bundle'

function defaultOf<P extends KeyPath>(path: P): ValueAt<P> {
  const key = keys.find((one) => one.path === path)
  const parsed = key?.default === undefined ? undefined : typeOf(key).parse(key.default, key)
  if (parsed?.kind !== 'value') throw new Error(`${path} has no default`)
  return parsed.value as ValueAt<P>
}
