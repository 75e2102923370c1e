// What no single key can tell: keys that are missing, exclude each other or contradict each other.
// A key whose own value is wrong has been reported and is not reported again as missing.
import type { Problem } from '../errors.ts'
import type { Values } from './assemble.ts'
import type { Address } from './config.ts'
import type { KeyPath } from './schema.ts'
import { formatAddress, isLocal } from './values.ts'

export function crossCheck(values: Values): readonly Problem[] {
  return [
    ...forwardProblems(values),
    ...identityProblems(values),
    ...trustProblems(values),
    ...accessProblems(values),
    ...listenerProblems(values),
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

function identityProblems(values: Values): Problem[] {
  const written = (['certificate', 'privateKey', 'credentialBundle'] as const).filter((name) =>
    isWritten(values, `identity.${name}`),
  )
  const [first] = written
  if (first === undefined) {
    return [
      {
        where: 'identity',
        what: 'is missing: nothing says who this workload is',
        remedy:
          'set certificate and privateKey (--cert and --key), or credentialBundle (--credential-bundle)',
      },
    ]
  }
  if (written.includes('credentialBundle')) {
    if (written.length === 1) return []
    return [
      {
        where: place(values, 'identity.credentialBundle'),
        what: `is given together with identity.${first}`,
        remedy: 'keep either certificate and privateKey, or credentialBundle',
      },
    ]
  }
  if (written.length === 2) return []
  const [missing, flag] =
    first === 'certificate' ? ['privateKey', '--key'] : ['certificate', '--cert']
  return [
    {
      where: `identity.${missing}`,
      what: `is missing beside identity.${first}`,
      remedy: `set it, or ${flag}`,
    },
  ]
}

function trustProblems(values: Values): Problem[] {
  const indices = values.indices('trust.bundles')
  if (indices.length === 0) {
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
  for (const key of ['entrypoint', 'memoryBytes', 'fuel'] as const) {
    if (isWritten(values, `policy.${key}`) && !hasPolicy) {
      problems.push({
        where: place(values, `policy.${key}`),
        what: 'has no effect without policy.bundle',
        remedy: 'set policy.bundle (--policy), or leave it out',
      })
    }
  }
  return problems
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

function probeProblems(values: Values): Problem[] {
  const [listen, paths] = [isWritten(values, 'probes.listen'), values.indices('probes.paths')]
  if (listen === paths.length > 0) return []
  return [
    listen
      ? {
          where: place(values, 'probes.listen'),
          what: 'has no paths, so that it would answer nothing',
          remedy: 'list probes.paths, such as [/healthz]',
        }
      : {
          where: place(values, 'probes.paths[0]'),
          what: 'has no effect without probes.listen',
          remedy: 'set probes.listen, such as 0.0.0.0:15021',
        },
  ]
}

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
