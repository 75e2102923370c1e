// What no single key can tell: keys that are missing, exclude each other or contradict each other.
// A key whose own value is wrong has been reported and is not reported again as missing.
import type { Problem } from '../errors.ts'
import { bringsTrust, type Values } from './assemble.ts'
import type { Address } from './config.ts'
import { type KeyPath, keys } from './schema.ts'
import { formatAddress, isLocal, isPlainTextFromAfar, isRemote } from './values.ts'

export function crossCheck(values: Values): readonly Problem[] {
  return [
    ...forwardProblems(values),
    ...protocolProblems(values),
    ...identityProblems(values),
    ...trustProblems(values),
    ...accessProblems(values),
    ...anonymousProblems(values),
    ...listenerProblems(values),
    ...logProblems(values),
  ]
}

function forwardProblems(values: Values): Problem[] {
  const forward = values.at('inbound.forward')
  if (!isWritten(values, 'inbound.forward')) {
    return [
      {
        where: 'inbound.forward',
        what: 'is missing: nothing says where the workload is',
        remedy: 'set it (or --forward) to http://127.0.0.1:PORT or unix:/path',
      },
    ]
  }
  if (forward === undefined || isLocal(forward.address) || values.at('inbound.unsafeForward')) {
    return []
  }
  return [
    {
      where: place(values, 'inbound.forward'),
      what: `${formatAddress(forward.address)} is another host, which anyone could reach without Postern`,
      remedy:
        'forward to loopback or a UNIX socket; inbound.unsafeForward (--unsafe-forward) accepts the risk',
    },
  ]
}

/** What the protocol of the workload has no place for, and other protocols would. */
function protocolProblems(values: Values): Problem[] {
  const scheme = values.at('inbound.forward')?.scheme
  if (scheme === undefined) return []
  if (scheme !== 'tcp' && values.at('inbound.proxyProtocol.send')) {
    return [
      {
        where: place(values, 'inbound.proxyProtocol.send'),
        what: 'has no effect: only a tcp:// workload is sent a PROXY header',
        remedy: 'leave it out; requests say who the client is in x-forwarded-client-cert',
      },
    ]
  }
  if (scheme === 'tcp' && values.at('inbound.clientCert')) {
    return [
      {
        where: place(values, 'inbound.clientCert'),
        what: 'has no effect on TCP, which has no headers',
        remedy: 'leave it out; inbound.proxyProtocol.send says who the client is',
      },
    ]
  }
  return []
}

/** The ways to say who this workload is, each with the keys that belong to it alone. */
const IDENTITY_FORMS = {
  'certificate and privateKey': ['certificate', 'privateKey'],
  credentialBundle: ['credentialBundle'],
  directory: ['directory'],
  workloadApi: ['workloadApi'],
} as const

function identityProblems(values: Values): Problem[] {
  const isGiven = (name: string) => isWritten(values, `identity.${name}`)
  const [form, other] = Object.entries(IDENTITY_FORMS).filter(([, names]) => names.some(isGiven))
  if (form === undefined) {
    return [
      {
        where: 'identity',
        what: 'is missing: nothing says who this workload is',
        remedy:
          'set certificate and privateKey (--cert and --key), credentialBundle (--credential-bundle), directory, or workloadApi (--workload-api)',
      },
    ]
  }
  const [name, keysOfForm] = form
  const firstOf = (names: readonly string[]) => names.find(isGiven) as string
  if (other !== undefined) {
    return [
      {
        where: place(values, `identity.${firstOf(other[1])}`),
        what: `is given together with identity.${firstOf(keysOfForm)}`,
        remedy: `keep either ${name}, or ${other[0]}`,
      },
    ]
  }
  const problems: Problem[] = []
  for (const missing of keysOfForm.filter((one) => !isGiven(one))) {
    problems.push({
      where: `identity.${missing}`,
      what: `is missing beside identity.${firstOf(keysOfForm)}`,
      remedy: `set it, or ${missing === 'certificate' ? '--cert' : '--key'}`,
    })
  }
  if (isGiven('hint') && name !== 'workloadApi') {
    problems.push({
      where: place(values, 'identity.hint'),
      what: 'has no effect without identity.workloadApi',
      remedy: 'set identity.workloadApi (--workload-api), or leave it out',
    })
  }
  if (isGiven('passphraseFile') && name === 'workloadApi') {
    problems.push({
      where: place(values, 'identity.passphraseFile'),
      what: 'has no effect with identity.workloadApi, whose keys are never encrypted',
      remedy: 'leave it out',
    })
  }
  return problems
}

function trustProblems(values: Values): Problem[] {
  const indices = values.indices('trust.bundles')
  if (indices.length === 0 && !bringsTrust(values)) {
    return [
      {
        where: 'trust.bundles',
        what: 'is missing: no client could be believed',
        remedy: 'list at least one bundle with its file, or set --ca',
      },
    ]
  }
  const problems: Problem[] = []
  const domains = new Set<string>()
  for (const index of indices) {
    if (!isWritten(values, `trust.bundles[${index}].file`)) {
      problems.push({
        where: `trust.bundles[${index}].file`,
        what: 'is missing',
        remedy: 'name the PEM file of this bundle',
      })
    }
    const domain = values.in('trust.bundles[].trustDomain', index)
    if (domain === undefined) continue
    if (domains.has(domain)) {
      problems.push({
        where: place(values, `trust.bundles[${index}].trustDomain`),
        what: `${domain} already has a bundle`,
        remedy: 'put all its authorities into one file',
      })
    }
    domains.add(domain)
  }
  return problems
}

function accessProblems(values: Values): Problem[] {
  const problems: Problem[] = []
  const rules = values.indices('allow')
  const hasPolicy = isWritten(values, 'policy.bundle')
  if (rules.length === 0 && !hasPolicy) {
    problems.push({
      where: 'policy.bundle, allow',
      what: 'there is no access rule at all',
      remedy:
        'set policy.bundle (--policy) or an allow rule (--allow-uri, --allow-dns, --allow-cn); --allow-all admits every accepted certificate',
    })
  }
  for (const index of rules) {
    const others = (['uri', 'dns', 'cn'] as const).filter((name) =>
      isWritten(values, `allow[${index}].${name}`),
    )
    if (isWritten(values, `allow[${index}].all`) && others.length > 0) {
      problems.push({
        where: place(values, `allow[${index}].all`),
        what: `contradicts ${others.join(' and ')} in the same rule`,
        remedy: 'keep one of them, or make two rules',
      })
    }
  }
  if (hasPolicy) {
    return [
      ...problems,
      ...signingProblems(values),
      ...slotProblems(values),
      ...serviceProblems(values),
      ...inputProblems(values),
    ]
  }
  for (const path of values.within('policy').filter((one) => values.holds(one))) {
    problems.push({
      where: place(values, path),
      what: 'has no effect without policy.bundle',
      remedy: 'set policy.bundle (--policy), or leave it out',
    })
  }
  return problems
}

function inputProblems(values: Values): Problem[] {
  const list = 'policy.input.contextExtensions'
  const problems: Problem[] = []
  const names = new Set<string>()
  for (const index of values.indices(list)) {
    const missing = (['name', 'value'] as const).find(
      (one) => !isWritten(values, `${list}[${index}].${one}`),
    )
    const name = values.in(`${list}[].name`, index)
    if (missing !== undefined) {
      problems.push({
        where: `${list}[${index}]`,
        what: `has no ${missing}`,
        remedy: 'write { KEY: VALUE }',
      })
    } else if (name !== undefined && names.has(name)) {
      problems.push({
        where: place(values, `${list}[${index}].name`),
        what: `${JSON.stringify(name)} is written twice`,
        remedy: 'keep one of them',
      })
    }
    if (name !== undefined) names.add(name)
  }
  return problems
}

function signingProblems(values: Values): Problem[] {
  const keys = values.indices('policy.signing.keys')
  const [first] = values.within('policy.signing')
  if (first !== undefined && keys.length === 0) {
    return [
      {
        where: place(values, first),
        what: 'has no effect without policy.signing.keys',
        remedy: 'name the keys that bundles are signed with, or leave it out',
      },
    ]
  }
  const problems: Problem[] = []
  const ids = new Set<string>()
  for (const index of keys) {
    const at = (name: 'id' | 'file') => `policy.signing.keys[${index}].${name}`
    for (const name of ['id', 'file'] as const) {
      if (isWritten(values, at(name))) continue
      const [other] = values.within(`policy.signing.keys[${index}]`)
      problems.push({
        where: place(values, other ?? at(name)),
        what: `stands in a key without ${name}`,
        remedy: 'write keys as { ID: FILE }, or { ID: { file: FILE, algorithm: ES256 } }',
      })
    }
    const id = values.in('policy.signing.keys[].id', index)
    if (id === undefined) continue
    if (ids.has(id)) {
      problems.push({
        where: place(values, at('id')),
        what: `${JSON.stringify(id)} already has a key`,
        remedy: 'give the new key a name of its own; both may be there during a rotation',
      })
    }
    ids.add(id)
  }
  return problems
}

/** What is written about slots and would never do anything. */
function slotProblems(values: Values): Problem[] {
  const problems: Problem[] = []
  const [candidate] = values.within('policy.candidate')
  if (candidate !== undefined && !isWritten(values, 'policy.candidate.bundle')) {
    problems.push({
      where: place(values, candidate),
      what: 'has no effect without policy.candidate.bundle',
      remedy: 'name the bundle that is to be compared, or leave it out',
    })
  } else if (
    isWritten(values, 'policy.candidate.promoteAfter') &&
    values.at('policy.candidate.sample') === 0
  ) {
    problems.push({
      where: place(values, 'policy.candidate.promoteAfter'),
      what: 'is never reached: policy.candidate.sample is 0',
      remedy: 'let the candidate be asked, or leave it out',
    })
  }
  const [rollback] = values.within('policy.rollback')
  const isBounded = (['maxDenyIncrease', 'maxErrorIncrease'] as const).some((name) =>
    isWritten(values, `policy.rollback.${name}`),
  )
  if (rollback !== undefined && !isBounded) {
    problems.push({
      where: place(values, rollback),
      what: 'has no effect without policy.rollback.maxDenyIncrease or maxErrorIncrease',
      remedy: 'set at least one of the two, or leave it out',
    })
  }
  return problems
}

function serviceProblems(values: Values): Problem[] {
  const bundles = [
    ['policy.bundle', values.at('policy.bundle')] as const,
    ...(isWritten(values, 'policy.candidate.bundle')
      ? [['policy.candidate.bundle', values.at('policy.candidate.bundle')] as const]
      : []),
    ...values
      .indices('policy.data')
      .map((index) => [`policy.data[${index}]`, values.in('policy.data[]', index)] as const),
  ]
  const problems: Problem[] = []
  for (const [path, bundle] of bundles) {
    if (bundle === undefined || !isPlainTextFromAfar(bundle)) continue
    if (values.at('policy.service.unsafePlainText')) continue
    problems.push({
      where: place(values, path),
      what: 'is fetched in plain text, which the network can read and change',
      remedy: 'use https://; policy.service.unsafePlainText accepts the risk',
    })
  }
  const written = values.within('policy.service')
  const [first] = written
  const allKnown = bundles.every(([, bundle]) => bundle !== undefined)
  if (first !== undefined && allKnown && !bundles.some(([, one]) => isRemote(one ?? ''))) {
    problems.push({
      where: place(values, first),
      what: 'has no effect: no bundle comes from a server',
      remedy: 'set policy.bundle to an https:// address, or leave it out',
    })
  }
  const has = (name: string) => written.includes(`policy.service.${name}`)
  if (has('certificate') !== has('privateKey')) {
    const [given, missing] = has('certificate')
      ? ['certificate', 'privateKey']
      : ['privateKey', 'certificate']
    problems.push({
      where: place(values, `policy.service.${given}`),
      what: `is given without policy.service.${missing}`,
      remedy: 'set both, or neither',
    })
  }
  const [least, most] = [values.at('policy.service.pollMin'), values.at('policy.service.pollMax')]
  if (least > most) {
    const later = has('pollMax') ? 'pollMax' : 'pollMin'
    problems.push({
      where: place(values, `policy.service.${later}`),
      what: 'policy.service.pollMin is longer than policy.service.pollMax',
      remedy: 'correct one of them; they are 1m and 2m by default',
    })
  }
  return problems
}

/** Nobody but a policy can admit a client without a name, and it decides about requests. */
function anonymousProblems(values: Values): Problem[] {
  const tcp = values.at('inbound.forward')?.scheme === 'tcp'
  const hasPolicy = isWritten(values, 'policy.bundle')
  if (hasPolicy && !tcp) return []
  return (['unsafeOptionalPeer', 'unsafePlaintext'] as const).flatMap((name) =>
    values.at(`inbound.${name}`)
      ? {
          where: place(values, `inbound.${name}`),
          what: tcp
            ? 'has no effect on TCP, where there are no requests to decide about'
            : 'has no effect without a policy: allow rules never admit a client without a certificate',
          remedy: tcp
            ? 'leave it out, or forward to an http:// workload'
            : 'set policy.bundle (--policy), or leave it out',
        }
      : [],
  )
}

const LISTENERS = ['inbound.listen', 'admin.listen', 'metrics.listen', 'probes.listen'] as const

function listenerProblems(values: Values): Problem[] {
  const problems: Problem[] = []
  const admin = values.at('admin.listen')
  if (admin !== 'off' && admin !== undefined && !isLocal(admin)) {
    problems.push({
      where: place(values, 'admin.listen'),
      what: `${formatAddress(admin)} could be reached from other hosts, and admin asks nobody who they are`,
      remedy: 'use 127.0.0.1:PORT, a UNIX socket, or off',
    })
  }
  const taken: (readonly [KeyPath, Address])[] = []
  for (const key of LISTENERS) {
    const address = values.at(key)
    if (address === undefined || address === 'off') continue
    const other = taken.find(([, one]) => collide(one, address))
    if (other !== undefined) {
      problems.push({
        where: place(values, key),
        what: `${formatAddress(address)} is already taken by ${other[0]}`,
        remedy: 'give each listener its own port',
      })
    }
    taken.push([key, address])
  }
  const forward = values.at('inbound.forward')?.address
  const own = taken.find(([, one]) => forward !== undefined && collide(one, forward))
  if (own !== undefined) {
    problems.push({
      where: place(values, 'inbound.forward'),
      what: `leads back to ${own[0]}`,
      remedy: 'name the port of the workload',
    })
  }
  return [...problems, ...probeProblems(values), ...workerProblems(values)]
}

function logProblems(values: Values): Problem[] {
  const of = (name: string): string => `log.upload.${name}`
  const written = UPLOAD_KEYS.filter((name) => isWritten(values, of(name)))
  const [first] = written
  if (first === undefined) return []
  if (!written.includes('url')) {
    return [
      {
        where: place(values, of(first)),
        what: 'has no effect without log.upload.url',
        remedy: 'set log.upload.url, or leave it out',
      },
    ]
  }
  const problems: Problem[] = []
  const pair = (['certificate', 'privateKey'] as const).filter((name) => written.includes(name))
  if (pair.length === 1) {
    problems.push({
      where: place(values, of(pair[0] as string)),
      what: 'is one half of a pair',
      remedy: 'set both log.upload.certificate and log.upload.privateKey, or neither',
    })
  }
  if (values.at('log.upload.minDelay') > values.at('log.upload.maxDelay')) {
    problems.push({
      where: place(values, of(written.includes('maxDelay') ? 'maxDelay' : 'minDelay')),
      what: 'the shortest wait would be longer than the longest',
      remedy: 'set both log.upload.minDelay and log.upload.maxDelay',
    })
  }
  return problems
}

const UPLOAD_KEYS = keys.flatMap(({ path }) =>
  path.startsWith('log.upload.') ? path.slice('log.upload.'.length) : [],
)

function probeProblems(values: Values): Problem[] {
  const listen = isWritten(values, 'probes.listen')
  const written = PROBES.filter((list) => values.indices(list).length > 0)
  const first = written[0]
  if (!listen) {
    if (first === undefined) return []
    return [
      {
        where: place(values, `${first}[0]`),
        what: 'has no effect without probes.listen',
        remedy: 'set probes.listen, such as 0.0.0.0:15021',
      },
    ]
  }
  const problems: Problem[] = []
  if (first === undefined) {
    problems.push({
      where: place(values, 'probes.listen'),
      what: 'has no paths, so that it would answer nothing',
      remedy: 'list probes.paths, such as [/healthz]; or probes.tcpPaths or probes.grpcServices',
    })
  }
  const paths: readonly string[] = values.all('probes.paths[]')
  for (const path of values.all('probes.tcpPaths[]')) {
    if (!paths.includes(path)) continue
    problems.push({
      where: place(values, 'probes.tcpPaths[0]'),
      what: `${path} is one of probes.paths too`,
      remedy: 'choose another path to probe connections on, such as /tcp',
    })
  }
  const { scheme = 'tcp' } = values.at('inbound.forward') ?? {}
  if (scheme === 'http' && written.includes('probes.grpcServices')) {
    problems.push({
      where: place(values, 'probes.grpcServices[0]'),
      what: 'cannot be asked of a workload that speaks HTTP/1.1',
      remedy: 'forward to h2c:// (inbound.forward), or probe a path',
    })
  }
  return problems
}

const PROBES = ['probes.paths', 'probes.tcpPaths', 'probes.grpcServices'] as const

function workerProblems(values: Values): Problem[] {
  const workers = values.at('workers')
  if (values.at('inbound.listen')?.kind !== 'unix' || workers === 'auto' || !(workers > 1))
    return []
  return [
    {
      where: place(values, 'workers'),
      what: 'several data threads cannot share the UNIX socket of inbound.listen',
      remedy: 'use one worker, or a TCP port',
    },
  ]
}

const isWritten = (values: Values, path: string): boolean => values.placeOf(path) !== undefined

const place = (values: Values, path: string): string => values.placeOf(path) ?? path

/** Port 0 is chosen by the kernel and never collides. */
function collide(a: Address, b: Address): boolean {
  if (a.kind === 'unix' || b.kind === 'unix') {
    return a.kind === 'unix' && b.kind === 'unix' && a.path === b.path
  }
  return a.port !== 0 && a.port === b.port && hostsOverlap(a.host, b.host)
}

const ANY_ADDRESS: readonly string[] = ['0.0.0.0', '::']

function hostsOverlap(a: string, b: string): boolean {
  const [one, other] = [a === 'localhost' ? '127.0.0.1' : a, b === 'localhost' ? '127.0.0.1' : b]
  return one === other || ANY_ADDRESS.includes(one) || ANY_ADDRESS.includes(other)
}
