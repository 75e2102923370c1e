// From a configuration file, flags and environment to a `Config`, or to every problem at once. The
// one place of this room that touches the file system.
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs'
import { availableParallelism, totalmem } from 'node:os'
import type { Problem } from '../errors.ts'
import { assemble, type Container, materialsFrom, Values } from './assemble.ts'
import { crossCheck } from './check.ts'
import type { Config, MaterialsConfig } from './config.ts'
import { type ConfigFile, readDocument } from './document.ts'
import { type Flags, flagsToConfig, listOf } from './flags.ts'
import type { GivenValues } from './given.ts'
import { keys, typeOf } from './schema.ts'

export interface LoadInput {
  readonly file?: ConfigFile
  readonly flags: Flags
  readonly env: Readonly<Record<string, string | undefined>>
  readonly container: Container
}

export interface Loaded {
  /** Absent as soon as there is one problem: nothing starts from half a configuration. */
  readonly config: Config | undefined
  readonly problems: readonly Problem[]
  /** Beside problems, too: what files it names, so that those can be checked all the same. */
  readonly materials: MaterialsConfig | undefined
  /** Keys in use that weaken a guarantee, for the warning at start and the metric. */
  readonly unsafeOptions: readonly string[]
}

/** Never throws for anything that an operator can write. Flags win over the file. */
export function loadConfig(input: LoadInput): Loaded {
  const fromFile = input.file === undefined ? undefined : readDocument(input.file, input.env)
  const given = overrule(fromFile?.given ?? new Map(), flagsToConfig(input.flags))
  const { values, problems, unsafeOptions } = parseValues(given)
  const all = [
    ...(fromFile?.problems ?? []),
    ...problems,
    ...(fromFile?.readable === false ? [] : crossCheck(values)),
  ]
  return {
    config: all.length === 0 ? assemble(values, input.container) : undefined,
    problems: all,
    materials: materialsFrom(values),
    unsafeOptions,
  }
}

/**
 * A flag replaces the value of its key; a flag for a list replaces the list, as adding to it could
 * only widen what the file says. Naming one form of identity replaces the other.
 */
function overrule(file: GivenValues, flags: GivenValues): GivenValues {
  const lists = new Set([...flags.values()].map(({ key }) => listOf(key.path)))
  const identity = [...flags.keys()].some((path) => path.startsWith('identity.'))
  const kept = [...file].filter(
    ([path]) =>
      !(listOf(path) !== undefined && lists.has(listOf(path))) &&
      !(identity && path.startsWith('identity.')),
  )
  return new Map([...kept, ...flags])
}

function parseValues(given: GivenValues) {
  const values = new Values()
  const problems: Problem[] = []
  const unsafeOptions: string[] = []
  for (const [path, { key, text, where }] of given) {
    values.remember(path, where)
    if (text === undefined) continue
    const parsed = typeOf(key).parse(text, key)
    if (parsed.kind === 'wrong') {
      problems.push({ where, what: parsed.what, remedy: parsed.remedy })
      continue
    }
    values.set(path, parsed.value)
    if ((key.unsafe && parsed.value === true) || key.unsafeValues?.includes(text)) {
      unsafeOptions.push(path)
    }
  }
  for (const key of keys) {
    if (key.default === undefined || key.path.endsWith('[]') || given.has(key.path)) continue
    const parsed = typeOf(key).parse(key.default, key)
    if (parsed.kind === 'wrong') throw new Error(`the default of ${key.path} ${parsed.what}`)
    values.set(key.path, parsed.value)
  }
  return { values, problems, unsafeOptions }
}

/** Far above any configuration that was written by hand or by a template. */
const LARGEST_FILE_BYTES = 1024 * 1024

export type FileRead =
  | { readonly kind: 'file'; readonly file: ConfigFile }
  | { readonly kind: 'problem'; readonly problem: Problem }

/** Reads a configuration file, at most 1 MiB of UTF-8. */
export function readConfigFile(path: string): FileRead {
  try {
    const bytes = readBounded(path)
    if (typeof bytes === 'string') return unreadable(path, bytes)
    return {
      kind: 'file',
      file: { path, text: new TextDecoder('utf-8', { fatal: true }).decode(bytes) },
    }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    return unreadable(path, READ_FAULTS.get(code) ?? `cannot be read (${code || error})`)
  }
}

const READ_FAULTS: ReadonlyMap<string, string> = new Map([
  ['ENOENT', 'does not exist'],
  ['EACCES', 'may not be read by this user'],
  ['ENOTDIR', 'has a file where its path needs a directory'],
  ['ERR_ENCODING_INVALID_ENCODED_DATA', 'is not UTF-8 text'],
])

function unreadable(path: string, what: string): FileRead {
  return {
    kind: 'problem',
    problem: { where: path, what, remedy: 'give --config a YAML or JSON file that can be read' },
  }
}

/** The bytes, or what is wrong. Reads no more than the limit, also from a pipe or a device. */
function readBounded(path: string): Buffer | string {
  const file = openSync(path, 'r')
  try {
    if (fstatSync(file).isDirectory()) return 'is a directory'
    const buffer = Buffer.allocUnsafe(LARGEST_FILE_BYTES + 1)
    let length = 0
    for (let read = -1; read !== 0 && length < buffer.length; length += read) {
      read = readSync(file, buffer, length, buffer.length - length, null)
    }
    return length > LARGEST_FILE_BYTES ? 'is larger than 1 MiB' : buffer.subarray(0, length)
  } finally {
    closeSync(file)
  }
}

/** What `auto` means. */
export const CONTAINER: Container = {
  cpuLimit: containerCpuLimit,
  memoryLimit: () => Math.min(process.constrainedMemory() || Number.POSITIVE_INFINITY, totalmem()),
}

/**
 * How many processors the container may use: the quota of cgroup v2 or v1, rounded up because half a
 * processor is still used by one thread, and never more than the process can be scheduled on.
 */
export function containerCpuLimit(
  read: (path: string) => string = (path) => readFileSync(path, 'utf8'),
  processors: number = availableParallelism(),
): number {
  const numbers = (path: string): readonly number[] => {
    try {
      return read(path).trim().split(/\s+/).map(Number)
    } catch {
      return []
    }
  }
  const [quota, period] = numbers('/sys/fs/cgroup/cpu.max')
  const [quotaV1] = numbers('/sys/fs/cgroup/cpu/cpu.cfs_quota_us')
  const [periodV1] = numbers('/sys/fs/cgroup/cpu/cpu.cfs_period_us')
  // No quota is "max" in version 2 and -1 in version 1: NaN and a negative number here.
  const limits = [Number(quota) / Number(period), Number(quotaV1) / Number(periodV1)]
  const limit = limits.find((one) => one > 0 && Number.isFinite(one))
  return Math.max(1, Math.min(processors, Math.ceil(limit ?? processors)))
}
