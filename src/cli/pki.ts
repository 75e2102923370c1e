// `postern pki`: a development CA in a directory. For trying things out and for tests; whoever can
// read the directory can be anybody.
import { Command, InvalidArgumentError, Option } from 'commander'
import { CommandFailure, exitTwoOnWrongUsage, reporting } from './failure.ts'
import type { Environment } from './options.ts'
import type { KeyType } from './pki/authority.ts'
import { type IssuedFiles, PkiDirectory } from './pki/directory.ts'
import { readText } from './pki/files.ts'
import { normalSerial } from './pki/ledger.ts'
import {
  collect,
  directoryOption,
  keyTypeOption,
  lifetimeOption,
  parseMoment,
  parseTrustDomain,
  parseWorkloadId,
} from './pki/options.ts'

export function command(env: Environment): Command {
  const pki = new Command('pki')
    .description('a development CA: root, intermediate, leaves with SPIFFE IDs, CRLs')
    .addHelpText(
      'after',
      `
Example:
  postern pki init --dir pki
  postern pki issue --dir pki --uri spiffe://example.org/ns/default/sa/web
  postern pki revoke --dir pki --name web`,
    )
  pki.addCommand(init(env))
  pki.addCommand(issue(env))
  pki.addCommand(revoke(env))
  pki.addCommand(crl(env))
  return exitTwoOnWrongUsage(pki)
}

function init(env: Environment): Command {
  return new Command('init')
    .description('makes a new CA: root, intermediate, trust bundle ca.crt, empty ca.crl')
    .addOption(directoryOption(env))
    .option(
      '--trust-domain <name>',
      'SPIFFE trust domain (default: example.org); repeated: a CA of its own for each further one, in DIR/NAME',
      collectTrustDomain,
    )
    .option(
      '--intermediates <number>',
      'CAs between root and leaves, 1 to 4',
      parseIntermediates,
      1,
    )
    .addOption(lifetimeOption('lifetime of root and intermediate', '365d'))
    .addOption(keyTypeOption())
    .addHelpText('after', '\nExample:\n  postern pki init --dir pki --trust-domain example.org')
    .action(
      reporting(async ({ dir, ttl, ...options }: InitOptions) => {
        const { trustDomain: [trustDomain = 'example.org', ...others] = [], ...rest } = options
        const create = (path: string, domain: string): Promise<PkiDirectory> =>
          PkiDirectory.create(path, { ...rest, trustDomain: domain, lifetimeMs: ttl })
        const pki = await create(dir, trustDomain)
        for (const other of others) await create(pki.pathOf(other), other)
        print(
          `development CA of spiffe://${trustDomain} in ${dir}`,
          `trust bundle  ${pki.bundle}`,
          `CRL           ${pki.crl}`,
          ...others.map((other) => `spiffe://${other} in ${pki.pathOf(other)}`),
          `next: postern pki issue --dir ${dir} --uri spiffe://${trustDomain}/ns/default/sa/web`,
        )
      }),
    )
}

function issue(env: Environment): Command {
  return new Command('issue')
    .description('issues NAME.crt (leaf, then intermediate), NAME.key and NAME.pem (both in one)')
    .addOption(directoryOption(env))
    .option('--uri <id>', 'SPIFFE ID of the workload', parseWorkloadId)
    .option('--dns <name>', 'DNS name; may be repeated', collect)
    .option('--ip <address>', 'IP address; may be repeated', collectAddress)
    .option('--cn <name>', 'common name')
    .option('--name <name>', 'name of the files; default: last part of the SPIFFE ID', parseName)
    .addOption(lifetimeOption('lifetime of the certificate', '24h'))
    .option(
      '--not-before <time>',
      'begin of the lifetime, such as -2h, +1d or 2027-01-31T12:00:00Z; default: a minute ago',
      parseMoment,
    )
    .option('--serial <hex>', 'serial number; default: 16 random bytes', parseSerial)
    .option('--passphrase-file <file>', 'encrypt the key with the passphrase in this file')
    .addOption(keyTypeOption())
    .addHelpText(
      'after',
      `
Issuing again under the same name replaces the files, each of them at once, as a rotation does.
Keys are written as PKCS#8. For a certificate that has expired: --not-before -2h --ttl 1h.

Example:
  postern pki issue --dir pki --uri spiffe://example.org/ns/default/sa/web --dns localhost --ttl 1h`,
    )
    .action(
      reporting(async (options: IssueCommandOptions) => {
        const name = options.name ?? defaultName(options)
        const pki = await PkiDirectory.open(options.dir, options.uri)
        const passphrase =
          options.passphraseFile === undefined
            ? undefined
            : await readPassphrase(options.passphraseFile)
        const files = await pki.issue(name, {
          keyType: options.keyType,
          lifetimeMs: options.ttl,
          dns: options.dns ?? [],
          ips: options.ip ?? [],
          ...(options.uri === undefined ? {} : { uri: options.uri }),
          ...(options.notBefore === undefined ? {} : { notBefore: options.notBefore }),
          ...(options.serial === undefined ? {} : { serial: options.serial }),
          ...(options.cn === undefined ? {} : { commonName: options.cn }),
          ...(passphrase === undefined ? {} : { passphrase }),
        })
        print(
          `certificate        ${files.certificate}`,
          `private key        ${files.privateKey}`,
          `credential bundle  ${files.credentialBundle}`,
          `serial ${files.serial}, valid ${validity(files)}`,
        )
      }),
    )
}

function revoke(env: Environment): Command {
  return new Command('revoke')
    .description(
      'revokes what was issued under a name, one serial number, or a CA, and writes ca.crl',
    )
    .addOption(directoryOption(env))
    .addOption(
      new Option('--name <name>', 'everything issued under this name that has not expired')
        .argParser(parseName)
        .conflicts('serial'),
    )
    .option('--serial <hex>', 'one serial number, as postern or openssl print it', parseSerial)
    .addOption(
      new Option(
        '--intermediate',
        'the CA below the root, and so everything issued here; needs root.key',
      ).conflicts(['name', 'serial']),
    )
    .addHelpText('after', '\nExample:\n  postern pki revoke --dir pki --name web')
    .action(
      reporting(async ({ dir, name, serial, intermediate }: RevokeOptions) => {
        if (intermediate === true) {
          const pki = await PkiDirectory.open(dir)
          const revoked = await pki.revokeIntermediate()
          return print(`revoked the CA below the root, serial ${revoked}`, `CRL ${pki.crl}`)
        }
        const which = serial !== undefined ? { serial } : name !== undefined ? { name } : undefined
        if (which === undefined) {
          throw new CommandFailure(2, {
            where: 'postern pki revoke',
            what: 'nothing says which certificate',
            remedy: 'give --name web, --serial 4f2a… or --intermediate',
          })
        }
        const pki = await PkiDirectory.open(dir)
        const revoked = await pki.revoke(which)
        print(
          ...revoked.map((one) => `revoked ${one.name}, serial ${one.serial}`),
          ...(revoked.length === 0 ? ['was revoked before'] : []),
          `CRL ${pki.crl}`,
        )
      }),
    )
}

function crl(env: Environment): Command {
  return new Command('crl')
    .description('signs ca.crl anew, before it goes out of date')
    .addOption(directoryOption(env))
    .addOption(lifetimeOption('time until it has to be replaced', '30d'))
    .addHelpText('after', '\nExample:\n  postern pki crl --dir pki --ttl 7d')
    .action(
      reporting(async ({ dir, ttl }: CrlCommandOptions) => {
        const pki = await PkiDirectory.open(dir)
        const revoked = await pki.writeCrl(ttl)
        print(`CRL ${pki.crl}, revoked certificates: ${revoked.length}`)
      }),
    )
}

interface InitOptions {
  readonly dir: string
  readonly trustDomain?: readonly string[]
  readonly intermediates: number
  readonly ttl: number
  readonly keyType: KeyType
}

interface IssueCommandOptions {
  readonly dir: string
  readonly uri?: string
  readonly dns?: readonly string[]
  readonly ip?: readonly string[]
  readonly cn?: string
  readonly name?: string
  readonly ttl: number
  readonly notBefore?: Date
  readonly serial?: string
  readonly passphraseFile?: string
  readonly keyType: KeyType
}

interface RevokeOptions {
  readonly dir: string
  readonly name?: string
  readonly serial?: string
  readonly intermediate?: boolean
}

interface CrlCommandOptions {
  readonly dir: string
  readonly ttl: number
}

/** The last part of the SPIFFE ID, or the DNS name, or the common name. */
function defaultName({ uri, dns, cn }: IssueCommandOptions): string {
  const candidate = uri?.slice(uri.lastIndexOf('/') + 1) ?? dns?.[0] ?? cn
  if (candidate === undefined) {
    throw new CommandFailure(2, {
      where: 'postern pki issue',
      what: 'nothing says whom to issue for',
      remedy: 'give --uri spiffe://example.org/ns/default/sa/web, --dns or --cn',
    })
  }
  if (isFileName(candidate)) return candidate
  throw new CommandFailure(2, {
    where: '--name',
    what: `${JSON.stringify(candidate)} cannot name the files`,
    remedy: FILE_NAME_REMEDY,
  })
}

/** As identity.passphraseFile is read: a line break at its end is no part of it. */
async function readPassphrase(file: string): Promise<string> {
  const passphrase = (await readText(file)).replace(/\r?\n$/, '')
  if (passphrase !== '') return passphrase
  throw new CommandFailure(2, {
    where: '--passphrase-file',
    what: `${file} is empty`,
    remedy: 'write the passphrase into it, or leave the option out for a plain key',
  })
}

function parseName(text: string): string {
  if (isFileName(text)) return text
  throw new InvalidArgumentError(FILE_NAME_REMEDY)
}

const isFileName = (text: string): boolean =>
  /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/.test(text) && !RESERVED_NAMES.has(text)

/** Files of the CA itself, and of its ledger. */
const RESERVED_NAMES = new Set(['ca', 'root', 'intermediate', 'issued', 'revoked'])
const FILE_NAME_REMEDY =
  'give a --name of letters, digits, ".", "_" and "-" that is not ca, root or intermediate'

/** A certificate that is valid now is told by its end, as that is what matters next. */
const validity = ({ notBefore, notAfter }: IssuedFiles): string => {
  const isValid = notBefore.getTime() <= Date.now() && Date.now() < notAfter.getTime()
  const from = isValid ? '' : `from ${notBefore.toISOString()} `
  return `${from}until ${notAfter.toISOString()}`
}

const collectTrustDomain = (text: string, before?: readonly string[]): string[] =>
  collect(parseTrustDomain(text), before)

function parseIntermediates(text: string): number {
  if (/^[1-4]$/.test(text)) return Number(text)
  throw new InvalidArgumentError('Write a number from 1 to 4: longer chains are not accepted.')
}

function parseSerial(text: string): string {
  const serial = normalSerial(text)
  if (serial !== undefined) return serial
  throw new InvalidArgumentError('Write hexadecimal digits, with or without colons.')
}

function collectAddress(text: string, before: readonly string[] = []): string[] {
  if (!isAddress(text)) throw new InvalidArgumentError('Write an IPv4 or IPv6 address.')
  return collect(text, before)
}

/** The URL parser is the judge: IPv4 in its one usual spelling, IPv6 in any. */
const isAddress = (text: string): boolean =>
  text.includes(':')
    ? URL.canParse(`http://[${text}]`)
    : /^[\d.]+$/.test(text) && URL.parse(`http://${text}`)?.hostname === text

const print = (...lines: readonly string[]): void => {
  process.stdout.write(`${lines.join('\n')}\n`)
}
