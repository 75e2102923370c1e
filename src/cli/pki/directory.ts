// A development CA in a directory: which files it consists of, and what issuing and revoking does
// to them. Every file is replaced whole. The root's key may be taken away after `create`: leaves and
// their CRL need the intermediate only.
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { readCertificate } from '../../identity/certificate.ts'
import { parseSpiffeId } from '../../identity/spiffe-id.ts'
import { CommandFailure, fileProblem } from '../failure.ts'
import { Authority, type IssuedCertificate, type IssueOptions, type KeyType } from './authority.ts'
import { PRIVATE, PUBLIC, readText, readTextIfThere, writeNew, writeWhole } from './files.ts'
import { type Issued, Ledger, normalSerial, type Revoked } from './ledger.ts'

export interface CreateOptions {
  readonly trustDomain: string
  readonly keyType: KeyType
  readonly lifetimeMs: number
  /** Below the root; absent: one. */
  readonly intermediates?: number
}

export interface IssueFilesOptions
  extends Pick<IssueOptions, 'commonName' | 'dns' | 'ips' | 'notBefore' | 'serial'> {
  readonly uri?: string
  readonly keyType: KeyType
  readonly lifetimeMs: number
  /** The key is written encrypted with it. */
  readonly passphrase?: string
}

/** Paths of one issued identity. */
export interface IssuedFiles {
  readonly certificate: string
  readonly privateKey: string
  readonly credentialBundle: string
  readonly serial: string
  readonly notBefore: Date
  readonly notAfter: Date
}

export class PkiDirectory {
  readonly trustDomain: string
  readonly bundle: string
  readonly crl: string
  readonly #path: string
  readonly #intermediate: Authority
  readonly #notAfterMs: number
  readonly #ledger: Ledger

  private constructor(path: string, trustDomain: string, intermediate: Authority) {
    this.trustDomain = trustDomain
    this.bundle = join(path, 'ca.crt')
    this.crl = join(path, 'ca.crl')
    this.#path = path
    this.#intermediate = intermediate
    this.#notAfterMs = new X509Certificate(intermediate.certificatePem).validToDate.getTime()
    this.#ledger = new Ledger(path)
  }

  /** Makes root, intermediate and empty CRLs. Never touches a CA that is there already. */
  static async create(path: string, options: CreateOptions): Promise<PkiDirectory> {
    const { trustDomain, keyType, intermediates = 1 } = options
    const notAfter = new Date(Date.now() + options.lifetimeMs)
    const common = { trustDomain, keyType, notAfter }
    const root = await Authority.create({ ...common, commonName: `${trustDomain} root` })
    const above = [root]
    let issuing = root
    for (let depth = 1; depth <= intermediates; depth++) {
      const number = intermediates === 1 ? '' : ` ${depth}`
      issuing = await issuing.intermediate({
        ...common,
        commonName: `${trustDomain} intermediate${number}`,
        pathLength: intermediates - depth,
      })
      above.push(issuing)
    }
    above.pop()
    await makeDirectory(path)
    // With the intermediates: they sign CRLs, and only who has their certificates can check those.
    await claim(join(path, 'ca.crt'), root.certificatePem + issuing.chainPem, PUBLIC)
    await claim(join(path, 'root.key'), root.privateKeyPem, PRIVATE)
    const crls = await Promise.all(
      above.map((one) => one.crl({ revoked: [], nextUpdate: notAfter, number: Date.now() })),
    )
    await writeWhole(join(path, 'root.crl'), crls.join(''), PUBLIC)
    await writeWhole(join(path, 'intermediate.key'), issuing.privateKeyPem, PRIVATE)
    await writeWhole(join(path, 'intermediate.crt'), issuing.chainPem, PUBLIC)
    const directory = new PkiDirectory(path, trustDomain, issuing)
    await directory.writeCrl(CRL_LIFETIME_MS)
    return directory
  }

  /** @param uri what is to be issued: the CA below that has its trust domain is opened where there is one */
  static async open(path: string, uri?: string): Promise<PkiDirectory> {
    const directory = await PkiDirectory.#openOne(path)
    const trustDomain = parseSpiffeId(uri ?? '')?.trustDomain
    if (trustDomain === undefined || trustDomain === directory.trustDomain) return directory
    const below = directory.pathOf(trustDomain)
    const isThere = (await readTextIfThere(join(below, 'intermediate.crt'))) !== undefined
    return isThere ? PkiDirectory.#openOne(below) : directory
  }

  static async #openOne(path: string): Promise<PkiDirectory> {
    const chainPem = await readTextIfThere(join(path, 'intermediate.crt'))
    const certificatePem = chainPem && ONE_CERTIFICATE.exec(chainPem)?.[0]
    if (chainPem === undefined || certificatePem === undefined) {
      throw new CommandFailure(1, {
        where: path,
        what: 'holds no development CA',
        remedy: `make one where no file is yet with: postern pki init --dir ${path}`,
      })
    }
    const privateKeyPem = await readText(join(path, 'intermediate.key'))
    try {
      const intermediate = await Authority.load({
        certificatePem,
        privateKeyPem,
        chainPem,
      })
      return new PkiDirectory(path, trustDomainOf(certificatePem), intermediate)
    } catch (error) {
      throw new CommandFailure(1, {
        where: join(path, 'intermediate.crt'),
        what: `cannot be used with intermediate.key: ${(error as Error).message}`,
        remedy: 'restore both files, or make a new CA in another directory',
      })
    }
  }

  /** Where the CA of a further trust domain is. */
  pathOf(trustDomain: string): string {
    // Dots alone are a trust domain, too, and would lead somewhere else.
    return join(this.#path, /^\.+$/.test(trustDomain) ? `_${trustDomain}` : trustDomain)
  }

  readBundle(): Promise<string> {
    return readText(this.bundle)
  }

  /** An identity without files and without a record, for one call. */
  issueInMemory(uri: string, lifetimeMs: number): Promise<IssuedCertificate> {
    this.#requireTrustDomain(uri)
    return this.#intermediate.issue({ uris: [uri], notAfter: new Date(Date.now() + lifetimeMs) })
  }

  /** Writes `NAME.crt`, `NAME.key` and `NAME.pem`, replacing those of an earlier issue. */
  async issue(name: string, options: IssueFilesOptions): Promise<IssuedFiles> {
    const { uri, lifetimeMs, notBefore, passphrase, ...rest } = options
    if (uri !== undefined) this.#requireTrustDomain(uri)
    const notAfter = new Date((notBefore?.getTime() ?? Date.now()) + lifetimeMs)
    if (notAfter.getTime() > this.#notAfterMs) {
      throw new CommandFailure(2, {
        where: '--ttl',
        what: 'the certificate would outlive the CA that issues it',
        remedy: `choose a time that ends before ${new Date(this.#notAfterMs).toISOString()}`,
      })
    }
    const issued = await this.#intermediate.issue({
      ...rest,
      notAfter,
      ...(notBefore === undefined ? {} : { notBefore }),
      ...(uri === undefined ? {} : { uris: [uri] }),
    })
    // Recorded first: a certificate that nobody knows of could never be revoked by name.
    await this.#ledger.addIssued({
      serial: issued.serial,
      name,
      notAfter: notAfter.toISOString(),
      ...(uri === undefined ? {} : { uri }),
    })
    const files = {
      certificate: join(this.#path, `${name}.crt`),
      privateKey: join(this.#path, `${name}.key`),
      credentialBundle: join(this.#path, `${name}.pem`),
    }
    const keyPem =
      passphrase === undefined ? issued.privateKeyPem : encrypted(issued.privateKeyPem, passphrase)
    await writeWhole(files.privateKey, keyPem, PRIVATE)
    await writeWhole(files.certificate, issued.chainPem, PUBLIC)
    await writeWhole(files.credentialBundle, keyPem + issued.chainPem, PRIVATE)
    const { validFromDate } = new X509Certificate(issued.certificatePem)
    return { ...files, serial: issued.serial, notBefore: validFromDate, notAfter }
  }

  /**
   * Revokes one serial number, or everything issued under a name that has not expired, and writes
   * the CRL. Gives what was newly revoked; empty where it had been before.
   */
  async revoke(which: { readonly serial: string } | { readonly name: string }): Promise<Issued[]> {
    const issued = await this.#ledger.issued()
    const chosen = 'serial' in which ? bySerial(issued, which.serial) : byName(issued, which.name)
    if (chosen.length === 0) throw unknownCertificate(which, issued)
    const before = new Set((await this.#ledger.revoked()).map(({ serial }) => serial))
    const fresh = chosen.filter(({ serial }) => !before.has(serial))
    for (const { serial } of fresh) {
      await this.#ledger.addRevoked({ serial, at: new Date().toISOString() })
    }
    await this.writeCrl(CRL_LIFETIME_MS)
    return fresh
  }

  /**
   * Revokes the CA below the root, and with it everything that was ever issued here. Takes the key of
   * the root, which is needed for nothing else. Gives its serial number.
   */
  async revokeIntermediate(): Promise<string> {
    const [rootPem = ''] = certificatesIn(await this.readBundle())
    const below = certificatesIn(await readText(join(this.#path, 'intermediate.crt'))).at(-1) ?? ''
    const root = await this.#loadRoot(rootPem)
    const { serialNumber } = new X509Certificate(below)
    const ofRoot = await root.crl({
      revoked: [{ serial: serialNumber, at: new Date() }],
      nextUpdate: new X509Certificate(rootPem).validToDate,
      number: Date.now(),
    })
    // Of the root first, then of the CAs between, which have revoked nothing.
    const [, ...others] = (await readText(join(this.#path, 'root.crl'))).match(ONE_CRL) ?? []
    await writeWhole(join(this.#path, 'root.crl'), ofRoot + others.join(''), PUBLIC)
    await this.writeCrl(CRL_LIFETIME_MS)
    return serialNumber.toLowerCase()
  }

  async #loadRoot(certificatePem: string): Promise<Authority> {
    const where = join(this.#path, 'root.key')
    const privateKeyPem = await readTextIfThere(where)
    if (privateKeyPem === undefined) {
      throw new CommandFailure(1, {
        where,
        what: 'is not there: only the root can revoke the CA below it',
        remedy: 'bring the key of the root back for this command',
      })
    }
    try {
      return await Authority.load({ certificatePem, privateKeyPem })
    } catch (error) {
      throw new CommandFailure(1, {
        where,
        what: `cannot be used with ca.crt: ${(error as Error).message}`,
        remedy: 'restore both files',
      })
    }
  }

  /**
   * Signs the CRL of the issuing CA anew and puts those above after it. Those were signed for good,
   * or when a CA was revoked; without them, checking the whole chain would fail.
   */
  async writeCrl(lifetimeMs: number): Promise<readonly Revoked[]> {
    const revoked = await this.#ledger.revoked()
    const ours = await this.#intermediate.crl({
      revoked: revoked.map(({ serial, at }) => ({ serial, at: new Date(at) })),
      nextUpdate: new Date(Date.now() + lifetimeMs),
      // Milliseconds: grows without a counter that two commands would have to share.
      number: Date.now(),
    })
    await writeWhole(this.crl, ours + (await readText(join(this.#path, 'root.crl'))), PUBLIC)
    return revoked
  }

  #requireTrustDomain(uri: string): void {
    if (parseSpiffeId(uri)?.trustDomain === this.trustDomain) return
    throw new CommandFailure(2, {
      where: uri,
      what: `is not in the trust domain of the CA, ${this.trustDomain}`,
      remedy: `write spiffe://${this.trustDomain}/…, or make another CA with pki init --trust-domain`,
    })
  }
}

const encrypted = (privateKeyPem: string, passphrase: string): string =>
  createPrivateKey(privateKeyPem)
    .export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase })
    .toString()

const certificatesIn = (pem: string): string[] =>
  pem.match(new RegExp(ONE_CERTIFICATE.source, 'g')) ?? []

const ONE_CRL = /-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----\n?/g
const ONE_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/

export const CRL_LIFETIME_MS = 30 * 86_400_000

/** Its parent has to be there: Node's recursive mkdir never returns on a path below /proc. */
async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path)
  } catch (error) {
    // Where it is a file, the first one written into it says so.
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return
    throw new CommandFailure(1, fileProblem(error, path, 'written'))
  }
}

/** Written first and never over another one: whoever creates it owns the place. */
async function claim(path: string, text: string, mode: number): Promise<void> {
  try {
    await writeNew(path, text, mode)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
      throw new CommandFailure(1, fileProblem(error, path, 'written'))
    }
    throw new CommandFailure(1, {
      where: path,
      what: 'a CA is there already',
      remedy: 'choose another --dir; a CA that is in use is never overwritten',
    })
  }
}

/** From the intermediate's own SPIFFE ID, which has no path. */
function trustDomainOf(certificatePem: string): string {
  const reading = readCertificate(new X509Certificate(certificatePem))
  const uri = reading.kind === 'certificate' ? reading.uris[0] : undefined
  if (uri?.startsWith('spiffe://')) return uri.slice('spiffe://'.length)
  throw new Error('the certificate has no SPIFFE trust domain')
}

function bySerial(issued: readonly Issued[], text: string): Issued[] {
  const wanted = normalSerial(text)
  return issued.filter(({ serial }) => normalSerial(serial) === wanted)
}

const byName = (issued: readonly Issued[], wanted: string): Issued[] =>
  issued.filter(({ name, notAfter }) => name === wanted && Date.parse(notAfter) > Date.now())

function unknownCertificate(
  which: { readonly serial: string } | { readonly name: string },
  issued: readonly Issued[],
): CommandFailure {
  const names = [...new Set(issued.map(({ name }) => name))]
  return new CommandFailure(1, {
    where: 'serial' in which ? '--serial' : '--name',
    what: `no valid certificate ${'serial' in which ? `with serial number ${which.serial}` : `named ${which.name}`} was issued here`,
    remedy: names.length === 0 ? 'nothing has been issued yet' : `issued: ${names.join(', ')}`,
  })
}
