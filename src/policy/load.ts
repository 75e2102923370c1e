// The activation gate: turns the files of a bundle into a policy that will answer, or says
// everything that keeps it from being one. What passes is metered, compiled and warm.
import type { Problem } from '../errors.ts'
import { GrpcDescriptors } from './body/grpc.ts'
import { BUILTINS, REFUSED_BUILTINS } from './builtins/table.ts'
import { runSelfTests } from './bundle/self-tests.ts'
import { type Bundle, type BundleEntries, readBundle } from './bundle.ts'
import { type EvaluationOutcome, PolicyHost } from './host.ts'
import { DataError, type MemoryImage, memoryImage } from './image.ts'
import { buildInput, connectionInput, isMadeHeader } from './input.ts'
import { bodyBytesOf, headersRead, type InputSettings, PLAIN_INPUT } from './input-settings.ts'
import { inspectModule, type ModuleFacts } from './inspect.ts'
import { logRuleWarnings } from './log-rules.ts'
import type { PolicyMaterial } from './material.ts'
import { type InputReads, readsByEntrypoint } from './reads.ts'
import { readResult } from './result.ts'
import { meterModule } from './rewrite.ts'

export interface PolicySource {
  /** For messages: where the bundle came from. */
  readonly file: string
  readonly entries: BundleEntries
  /** SHA-256 of what was read, lower-case hex. */
  readonly digest: string
}

export interface LoadOptions {
  /** Absent: the only entrypoint of the manifest, or `envoy/authz/allow`. */
  readonly entrypoint: string | undefined
  /** Loop iterations and calls that one evaluation may use; absent: what takes about 10 ms. */
  readonly fuel: number | undefined
  readonly memoryBytes: number
  /** Absent: nothing is configured. */
  readonly input?: InputOptions
}

export interface InputOptions
  extends Pick<InputSettings, 'certificate' | 'v2' | 'contextExtensions' | 'headers'> {
  readonly body: {
    /** Absent: as the bundle asks. */
    readonly maxBytes?: number
    /** Of one data thread. */
    readonly totalBytes: number
  }
  /** A FileDescriptorSet, and where it came from. */
  readonly descriptor?: { readonly file: string; readonly bytes: Uint8Array } | undefined
}

export type LoadedPolicy =
  | {
      readonly kind: 'policy'
      readonly material: PolicyMaterial
      /** Of severity `warning`: what does not keep the policy from being used. */
      readonly warnings: readonly Problem[]
    }
  | { readonly kind: 'problems'; readonly problems: readonly Problem[] }

/** The entrypoint that the OPA-Envoy plugin asks when nothing else is configured. */
export const DEFAULT_ENTRYPOINT = 'envoy/authz/allow'

const ABI_MAJOR = 1
/** 1.2 brought opa_eval. */
const ABI_MINOR = 2
/** What one evaluation may take before it ends as a timeout. */
const EVALUATION_MS = 10
/** Where the sample request gave nothing to measure by. */
const UNMEASURED_FUEL = 2_000_000
/** A machine that is busy just now must not make a policy fail, nor a clock that stands still hang one. */
const LEAST_FUEL = 1_000_000
const MOST_FUEL = 20_000_000
/** Warming serves the first requests; the start of the program must not wait long for it. */
const WARM_EVALUATIONS = 200
const WARM_MS = 15

export async function loadPolicy(
  source: PolicySource,
  options: LoadOptions,
): Promise<LoadedPolicy> {
  const read = readBundle(source.entries, source.file)
  return read.kind === 'problems' ? read : loadBundle({ ...source, bundle: read.bundle }, options)
}

/** The same for what has been read, and perhaps put together from several bundles. */
export async function loadBundle(
  source: Omit<PolicySource, 'entries'> & { readonly bundle: Bundle },
  options: LoadOptions,
): Promise<LoadedPolicy> {
  const { file, bundle } = source
  const metered = meterModule(bundle.wasm)
  if (metered.kind === 'refused') {
    return refused(file, `the WebAssembly module cannot be used: ${metered.reason}`, REBUILD)
  }
  const compiling = compile(metered.bytes)
  // While other threads compile.
  const readsOf = readsByEntrypoint(bundle.wasm)
  const module = await compiling
  if (module === undefined) {
    return refused(file, 'the WebAssembly module cannot be compiled', REBUILD)
  }
  const inspected = inspectModule(module)
  if (inspected.kind === 'refused') return refused(file, inspected.reason, REBUILD)
  const { facts } = inspected
  const entrypoint = entrypointOf(options, bundle)
  const problems = [
    ...checkAbi(file, facts),
    ...checkEntrypoint(file, facts, entrypoint),
    ...checkBuiltins(file, facts),
  ]
  problems.push(...checkDescriptor(options.input?.descriptor))
  const entrypointId = facts.entrypoints.get(entrypoint)
  if (problems.length > 0 || entrypointId === undefined) return { kind: 'problems', problems }

  const reads = readsOf(entrypointId)
  const image = imageOf(module, bundle.dataJson, options.memoryBytes)
  if (typeof image === 'string') {
    const what = `its data cannot be read into policy.memoryBytes (${options.memoryBytes}): ${image}`
    return refused(file, what, 'raise policy.memoryBytes; OPA takes about nine times the JSON text')
  }
  const material: PolicyMaterial = {
    module,
    entrypoint,
    entrypointId,
    ...logEntrypointsOf(facts),
    builtins: Object.fromEntries(facts.builtins),
    reads,
    input: inputSettings(options.input, bundle.bodyBytes, reads),
    data: image,
    revision: bundle.revision,
    digest: source.digest,
    file,
    fuel: options.fuel ?? UNMEASURED_FUEL,
    memoryBytes: options.memoryBytes,
  }
  const tested = selfTest(material)
  const fuel = options.fuel ?? fuelFor(tested.fuelPerMs)
  const warnings = [
    ...tested.problems,
    ...runSelfTests(bundle.tests, { ...material, fuel }, SAMPLE_TIME_MS),
    ...logRuleWarnings({ ...material, fuel }),
    ...headerWarnings(material),
  ]
  if (warnings.some(({ severity }) => severity !== 'warning')) {
    return { kind: 'problems', problems: warnings }
  }
  return { kind: 'policy', material: { ...material, fuel }, warnings }
}

/** @returns undefined where the counters make more of it than an engine takes */
async function compile(bytes: Uint8Array): Promise<WebAssembly.Module | undefined> {
  try {
    return await WebAssembly.compile(bytes)
  } catch (error) {
    if (error instanceof WebAssembly.CompileError) return undefined
    throw error
  }
}

/** On 2 vCPU of 2026 a millisecond is worth 170,000 to 400,000, by what a policy does. */
function fuelFor(fuelPerMs: number | undefined): number {
  if (fuelPerMs === undefined) return UNMEASURED_FUEL
  const fuel = Math.round(fuelPerMs * EVALUATION_MS)
  return Math.min(Math.max(fuel, LEAST_FUEL), MOST_FUEL)
}

function imageOf(...given: Parameters<typeof memoryImage>): MemoryImage | string {
  try {
    return memoryImage(...given)
  } catch (error) {
    if (error instanceof DataError || error instanceof WebAssembly.RuntimeError) {
      return error.message
    }
    throw error
  }
}

const REBUILD = 'build the bundle with `opa build -t wasm` of OPA 0.40 or later'

function refused(where: string, what: string, remedy: string): LoadedPolicy {
  return { kind: 'problems', problems: [{ where, what, remedy }] }
}

function entrypointOf({ entrypoint }: LoadOptions, { entrypoints }: Bundle): string {
  if (entrypoint !== undefined) return entrypoint.replace(/^\/+/, '')
  const [only, ...others] = entrypoints.filter((one) => !one.startsWith(LOG_RULES))
  return only !== undefined && others.length === 0 ? only : DEFAULT_ENTRYPOINT
}

/** The names that OPA's decision log asks for by default. */
function logEntrypointsOf({ entrypoints }: ModuleFacts): Pick<PolicyMaterial, 'logEntrypoints'> {
  const drop = entrypoints.get(`${LOG_RULES}drop`)
  const mask = entrypoints.get(`${LOG_RULES}mask`)
  if (drop === undefined && mask === undefined) return {}
  return {
    logEntrypoints: {
      ...(drop === undefined ? {} : { drop }),
      ...(mask === undefined ? {} : { mask }),
    },
  }
}

const LOG_RULES = 'system/log/'

function inputSettings(
  options: InputOptions | undefined,
  asked: number | undefined,
  reads: InputReads,
): InputSettings {
  const { certificate, v2, contextExtensions, headers } = options ?? PLAIN_INPUT
  return {
    bodyBytes: bodyBytesOf(options?.body.maxBytes, asked, reads),
    totalBodyBytes: options?.body.totalBytes ?? PLAIN_INPUT.totalBodyBytes,
    certificate,
    v2,
    contextExtensions,
    ...(headers && { headers }),
    ...(options?.descriptor && { protoDescriptor: options.descriptor.bytes }),
  }
}

/** A rule against a header that is never there is one that never holds. */
function headerWarnings({ file, reads, input: { headers } }: PolicyMaterial): Problem[] {
  if (headers === undefined) return []
  return headersRead(reads)
    .filter((name) => !isMadeHeader(name) && !headers.includes(name))
    .map((name) => ({
      where: file,
      what: `the policy reads the header ${JSON.stringify(name)}, which is never there for it`,
      remedy: 'add it to policy.input.headers',
      severity: 'warning',
    }))
}

function checkDescriptor(descriptor: InputOptions['descriptor']): Problem[] {
  if (descriptor === undefined) return []
  const { file, bytes } = descriptor
  const remedy = 'write it with `protoc --include_imports -o FILE`, or with `buf build -o FILE`'
  try {
    if (new GrpcDescriptors(bytes).methods.length > 0) return []
    return [{ where: file, what: 'no method in it takes a single message', remedy }]
  } catch (error) {
    return [{ where: file, what: `not a FileDescriptorSet: ${(error as Error).message}`, remedy }]
  }
}

function checkAbi(where: string, { abiMajor, abiMinor }: ModuleFacts): Problem[] {
  if (abiMajor === ABI_MAJOR && abiMinor >= ABI_MINOR) return []
  const what = `the module has ABI ${abiMajor}.${abiMinor}, not ${ABI_MAJOR}.${ABI_MINOR} or later`
  return [{ where, what, remedy: REBUILD }]
}

function checkEntrypoint(where: string, facts: ModuleFacts, entrypoint: string): Problem[] {
  if (facts.entrypoints.has(entrypoint)) return []
  const available = [...facts.entrypoints.keys()].join(', ')
  return [
    {
      where,
      what: `the policy has no entrypoint ${entrypoint}`,
      remedy: `set policy.entrypoint (--entrypoint) to one of: ${available}`,
    },
  ]
}

function checkBuiltins(where: string, facts: ModuleFacts): Problem[] {
  return [...facts.builtins.values()]
    .filter((name) => !BUILTINS.has(name))
    .map((name) => {
      const reason = REFUSED_BUILTINS.get(name)
      return {
        where,
        what: `the policy calls ${name}, which ${reason === undefined ? 'Postern does not supply' : `is refused: ${reason}`}`,
        remedy: `rewrite the rule without ${name}`,
      }
    })
}

/** Asks about a request that may or may not be allowed, and then some more times to warm up. */
function selfTest(material: PolicyMaterial): Tested {
  const host = new PolicyHost(material)
  const problems = problemsOf(host.evaluate(SAMPLE_INPUT, SAMPLE_TIME_MS), material)
  return { problems, fuelPerMs: problems.length === 0 ? warm(host) : undefined }
}

interface Tested {
  readonly problems: readonly Problem[]
  /** How much the fastest evaluation used by the time that it took. */
  readonly fuelPerMs: number | undefined
}

function problemsOf(outcome: EvaluationOutcome, material: PolicyMaterial): Problem[] {
  const where = material.file
  switch (outcome.kind) {
    case 'too_large':
    case 'error': {
      const reason = outcome.kind === 'error' ? outcome.reason : 'the input is too large'
      const what = `the policy failed on a sample request: ${reason}`
      return [{ where, what, remedy: 'try it with `opa eval`; or raise policy.memoryBytes' }]
    }
    case 'timeout':
      return [
        {
          where,
          what:
            outcome.what === 'fuel'
              ? `the policy used up its fuel (${material.fuel} loop iterations and calls) on a sample request`
              : `the policy used up its memory (${material.memoryBytes} bytes) on a sample request`,
          remedy: `make it cheaper or raise ${outcome.what === 'fuel' ? 'policy.fuel' : 'policy.memoryBytes'}; such requests get a 504`,
          severity: 'warning',
        },
      ]
    case 'undefined':
      return [
        {
          where,
          what: `${material.entrypoint} is undefined for a sample request, and undefined is an error`,
          remedy: 'give the rule a default, as in `default allow := false`',
          severity: 'warning',
        },
      ]
    case 'result': {
      const result = readResult(outcome.text)
      if (result.kind === 'invalid') {
        return [
          {
            where,
            what: `${material.entrypoint} gave an unusable answer to a sample request: ${result.reason}`,
            remedy: 'answer with a boolean, or an object with the boolean "allowed"',
          },
        ]
      }
      return []
    }
  }
}

function warm(host: PolicyHost): number {
  let now = performance.now()
  const end = now + WARM_MS
  let fuelPerMs = 0
  for (let i = 0; i < WARM_EVALUATIONS && now < end; i++) {
    const start = now
    host.evaluate(SAMPLE_INPUT, SAMPLE_TIME_MS)
    now = performance.now()
    if (now > start) fuelPerMs = Math.max(fuelPerMs, host.fuelUsed / (now - start))
  }
  return fuelPerMs
}

const SAMPLE_TIME_MS = Date.UTC(2026, 0, 1)

/** From documentation ranges (RFC 5737, RFC 2606), so that no real rule is meant by it. */
const SAMPLE_INPUT = buildInput({
  requestId: 'self-test',
  timeMs: SAMPLE_TIME_MS,
  method: 'GET',
  target: '/self-test?from=postern',
  path: '/self-test',
  query: 'from=postern',
  host: 'self-test.invalid',
  scheme: 'https',
  protocol: 'HTTP/1.1',
  fields: ['accept', '*/*', 'user-agent', 'postern', 'x-request-id', 'self-test'],
  bodySize: 0,
  connection: connectionInput({
    peer: {
      principal: 'spiffe://self-test.invalid/client',
      uris: ['spiffe://self-test.invalid/client'],
      dnsNames: [],
      commonName: undefined,
    },
    remoteAddress: '192.0.2.1',
    remotePort: 49152,
    localAddress: '192.0.2.2',
    localPort: 8443,
    serverName: 'self-test.invalid',
    destinationPrincipal: 'spiffe://self-test.invalid/workload',
  }),
})
