// Name constraints, as JSON that is written into a certificate here. The verdict is held against RFC
// 5280 told another way, label by label; to exclude more, or to permit less, never lets a name in.
import assert from 'node:assert/strict'
import { decodeDer } from '../../../src/identity/der.ts'
import type { Link } from '../../../src/identity/link.ts'
import {
  constraintObjection,
  type NameConstraints,
  readNameConstraints,
} from '../../../src/identity/name-constraints.ts'
import { der, octets, sequence, text } from '../../identity/forge.ts'
import { jsonMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

interface Case {
  readonly permitted: readonly (readonly [kind: 'uri' | 'dns', base: string])[]
  readonly excluded: Case['permitted']
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
}

const HOSTS = [
  'a.test',
  '.a.test',
  'b.a.test',
  'ba.test',
  'A.TEST',
  '',
  '.',
  'test',
  'a..test',
  'a.test.',
]
const URIS = [
  'spiffe://a.test/x',
  'spiffe://b.a.test/x',
  'https://u@a.test:1/',
  'urn:x',
  'spiffe://A.test',
]

export const target: Target = {
  name: 'name-constraints',
  runs: 8_000,
  seeds: () => [
    '{"permitted":[["uri","a.test"]],"excluded":[],"uris":["spiffe://a.test/x"],"dnsNames":[]}',
    '{"permitted":[["dns","a.test"],["uri",".a.test"]],"excluded":[["dns","b.a.test"]],"uris":["spiffe://b.a.test/x"],"dnsNames":["c.a.test"]}',
    '{"permitted":[],"excluded":[["uri",""]],"uris":["urn:x"],"dnsNames":["a.test"]}',
  ],
  mutators: [
    jsonMutator([], [...HOSTS, ...URIS, 'uri', 'dns', ['uri', 'a.test'], ['dns', '.test']]),
  ],
  check: (input) => {
    const given = caseOf(input)
    if (given === undefined) return
    const constraints = read(given.permitted, given.excluded)
    if (constraints === undefined) return
    const refused = objection(constraints, given) !== undefined
    assert.equal(refused, expected(given), JSON.stringify(given))
    const moreExcluded = read(given.permitted, [...given.excluded, ['uri', 'x.test'], ['dns', '']])
    if (refused) assert.ok(moreExcluded && objection(moreExcluded, given) !== undefined)
    const upper = (text: string) =>
      text.replace(/(?<=:\/\/).*?(?=\/|$)/, (host) => host.toUpperCase())
    const shouting = {
      ...given,
      uris: given.uris.map(upper),
      dnsNames: given.dnsNames.map((name) => name.toUpperCase()),
    }
    assert.equal(objection(constraints, shouting) !== undefined, refused)
  },
}

function caseOf(input: Buffer): Case | undefined {
  let value: Record<string, unknown>
  try {
    value = JSON.parse(input.toString())
  } catch {
    return undefined
  }
  const strings = (list: unknown): string[] =>
    Array.isArray(list) ? list.filter((one) => typeof one === 'string' && /^[!-~]+$/.test(one)) : []
  const bases = (list: unknown): Case['permitted'] =>
    Array.isArray(list)
      ? list.filter(
          (one) =>
            Array.isArray(one) && ['uri', 'dns'].includes(one[0]) && typeof one[1] === 'string',
        )
      : []
  return {
    permitted: bases(value?.['permitted']),
    excluded: bases(value?.['excluded']),
    uris: strings(value?.['uris']),
    dnsNames: strings(value?.['dnsNames']),
  }
}

function read(
  permitted: Case['permitted'],
  excluded: Case['excluded'],
): NameConstraints | undefined {
  const subtrees = (tag: number, bases: Case['permitted']) =>
    bases.length === 0
      ? []
      : [
          der(
            tag,
            ...bases.map(([kind, base]) => sequence(text(kind === 'uri' ? 0x86 : 0x82, base))),
          ),
        ]
  const bytes = octets(sequence(...subtrees(0xa0, permitted), ...subtrees(0xa1, excluded)))
  const outcome = decodeDer(bytes, (value) => readNameConstraints({ critical: true, value }))
  return outcome !== undefined && 'kind' in outcome ? undefined : outcome
}

const objection = (nameConstraints: NameConstraints, { uris, dnsNames }: Case) => {
  const empty = Buffer.alloc(0)
  const leaf = { uris, dnsNames, commonName: undefined, subject: '', subjectComparable: [] }
  const names = { subjectDer: empty, issuerDer: empty }
  return constraintObjection({ reading: { nameConstraints } } as unknown as Link, [
    { reading: { ...leaf, ...names } } as unknown as Link,
  ])
}

function expected({ permitted, excluded, uris, dnsNames }: Case): boolean {
  const bases = (list: Case['permitted'], kind: string) =>
    list.filter(([one]) => one === kind).map(([, base]) => base.toLowerCase())
  const outside = (kind: string, fits: (base: string) => boolean): boolean =>
    bases(excluded, kind).some(fits) ||
    (bases(permitted, kind).length > 0 && !bases(permitted, kind).some(fits))
  const hasUris = bases(permitted, 'uri').length + bases(excluded, 'uri').length > 0
  const labels = (name: string) => name.toLowerCase().split('.').reverse()
  return (
    uris.some((uri) => {
      const authority = uri.match(/^[^:]+:\/\/([^/?#]*)/)?.[1]
      const host = authority
        ?.slice(authority.lastIndexOf('@') + 1)
        .split(':')[0]
        ?.toLowerCase()
      if (host === undefined || host === '') return hasUris
      return outside('uri', (base) => {
        if (base === '') return true
        return base.startsWith('.') ? host.endsWith(base) : host === base
      })
    }) ||
    dnsNames.some((name) =>
      outside('dns', (base) => {
        const wanted = labels(base.startsWith('.') ? base.slice(1) : base)
        if (base === '') return true
        const there = labels(name)
        const below = wanted.every((label, i) => label === there[i])
        return below && (base.startsWith('.') ? there.length > wanted.length : true)
      }),
    )
  )
}
