// Option values that `postern pki` and `postern call` share, read once into what they mean.
import { InvalidArgumentError, Option } from 'commander'
import { parseSpiffeId } from '../../identity/spiffe-id.ts'
import type { Environment } from '../options.ts'
import type { KeyType } from './authority.ts'

/** Where the development CA is. */
export const directoryOption = (env: Environment): Option =>
  new Option('--dir <directory>', 'directory of the development CA, else $POSTERN_PKI').default(
    env['POSTERN_PKI'] || '.postern-pki',
  )

export const lifetimeOption = (description: string, lifetime: string): Option =>
  new Option('--ttl <time>', description)
    .argParser(parseLifetime)
    .default(parseLifetime(lifetime), lifetime)

export const keyTypeOption = (): Option =>
  new Option('--key-type <type>', 'kind of the private key')
    .choices([
      'ec-p256',
      'ec-p384',
      'ec-p521',
      'rsa-2048',
      'rsa-3072',
      'rsa-4096',
      'ed25519',
    ] satisfies KeyType[])
    .default('ec-p256')

export function parseWorkloadId(text: string): string {
  if (parseSpiffeId(text) !== undefined) return text
  throw new InvalidArgumentError(
    'Write a SPIFFE ID such as spiffe://example.org/ns/default/sa/web: lower-case trust domain, a path, nothing percent-encoded.',
  )
}

export function parseTrustDomain(text: string): string {
  if (parseSpiffeId(`spiffe://${text}/workload`) !== undefined) return text
  throw new InvalidArgumentError('Write a trust domain such as example.org, in lower case.')
}

/** `90s`, `15m`, `24h` or `30d`, in milliseconds. */
function parseLifetime(text: string): number {
  const match = /^([1-9]\d{0,5})([smhd])$/.exec(text)
  const unitMs = LIFETIME_UNITS_MS.get(match?.[2] ?? '')
  const lifetimeMs = Number(match?.[1]) * (unitMs ?? Number.NaN)
  // X.509 dates end with the year 9999, and nothing here has to come near that.
  if (lifetimeMs <= LONGEST_LIFETIME_MS) return lifetimeMs
  throw new InvalidArgumentError('Write a time up to 36500d: 90s, 15m, 24h or 30d.')
}

/** A time of day as `2027-01-31T12:00:00Z`, or so long from now: `+1h`, `-2d`. */
export function parseMoment(text: string): Date {
  const offset = /^([+-])(\d+[smhd])$/.exec(text)
  const time = offset
    ? Date.now() + (offset[1] === '-' ? -1 : 1) * parseLifetime(offset[2] ?? '')
    : /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/.test(text)
      ? Date.parse(text)
      : Number.NaN
  if (!Number.isNaN(time)) return new Date(time)
  throw new InvalidArgumentError('Write -2h, +1d or a time such as 2027-01-31T12:00:00Z.')
}

const DAY_MS = 86_400_000
const LONGEST_LIFETIME_MS = 36_500 * DAY_MS
const LIFETIME_UNITS_MS = new Map([
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', DAY_MS],
])

/** For options that may be given more than once. */
export const collect = (one: string, before: readonly string[] = []): string[] => [...before, one]
