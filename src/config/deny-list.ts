// The deny list: who is refused although trust would let them in. Strict, because an entry that means
// nothing would leave somebody in: every entry says one thing that can be true of a certificate, or
// the whole file is refused with the line.
import type { Node } from 'yaml'
import type { Problem } from '../errors.ts'
import type { DenyEntry } from './config.ts'
import type { ConfigFile } from './document.ts'
import { nearest } from './nearest.ts'
import { parseUriPattern } from './values.ts'
import { loadYaml } from './yaml.ts'

export interface DenyListRead {
  /** Undefined as soon as one problem is an error. */
  readonly entries: readonly DenyEntry[] | undefined
  readonly problems: readonly Problem[]
}

/** A YAML or JSON list; `[]` is the list of nobody. Never throws. */
export function readDenyList(file: ConfigFile, nowMs: number): DenyListRead {
  const reading = new Reading(file, nowMs)
  reading.read()
  const { problems } = reading
  const failed = problems.some(({ severity }) => severity !== 'warning')
  return { entries: failed ? undefined : reading.entries, problems }
}

class Reading {
  readonly entries: DenyEntry[] = []
  readonly problems: Problem[] = []
  readonly #file: ConfigFile
  readonly #nowMs: number
  readonly #yaml = loadYaml()
  readonly #lines = new this.#yaml.LineCounter()
  #patterns = 0

  constructor(file: ConfigFile, nowMs: number) {
    this.#file = file
    this.#nowMs = nowMs
  }

  read(): void {
    const { contents, errors, warnings } = this.#yaml.parseDocument(this.#file.text, {
      schema: 'failsafe',
      lineCounter: this.#lines,
      prettyErrors: false,
      logLevel: 'error',
    })
    const [fault] = [...errors, ...warnings]
    if (fault !== undefined) {
      const message = fault.message.slice(0, 200).replaceAll(/\p{C}/gu, ' ')
      return this.#problem(fault.pos[0], `is not YAML: ${message}`, 'correct the syntax')
    }
    if (!this.#yaml.isSeq(contents)) {
      return this.#problem(
        contents?.range?.[0] ?? 0,
        'is not a list',
        'write each entry after "- "; [] is an empty list',
      )
    }
    if (contents.items.length > MAX_ENTRIES) {
      return this.#problem(
        0,
        `has ${contents.items.length} entries, more than ${MAX_ENTRIES}`,
        'revoke whole keys or patterns, or publish a CRL',
      )
    }
    for (const item of contents.items) {
      const entry = this.#entry(item as Node | null)
      if (entry !== undefined) this.entries.push(entry)
    }
    if (this.#patterns > MAX_PATTERNS) {
      this.#problem(
        0,
        `has ${this.#patterns} patterns with *, more than ${MAX_PATTERNS}`,
        'join them, or name the SPIFFE IDs: each pattern is tried on every client',
      )
    }
  }

  #entry(node: Node | null): DenyEntry | undefined {
    const at = node?.range?.[0] ?? 0
    if (!this.#yaml.isMap(node)) {
      this.#problem(at, 'has an entry that is not a section', `write one of ${FORMS}`)
      return undefined
    }
    const before = this.problems.length
    const given = this.#given(node.items as never)
    if (this.problems.length > before) return undefined
    const what = this.#what(given, at)
    const until = given.get('until')
    const untilMs = until === undefined ? undefined : this.#time(until)
    const reason = given.get('reason')
    if (
      what === undefined ||
      this.problems.some((one, n) => n >= before && one.severity !== 'warning')
    )
      return undefined
    return {
      where: `${this.#file.path}:${this.#lines.linePos(at).line}`,
      what,
      ...(untilMs === undefined ? {} : { untilMs }),
      ...(reason === undefined ? {} : { reason: reason.text.replaceAll(/\p{C}/gu, ' ') }),
    }
  }

  /** The values of one entry by key. */
  #given(pairs: readonly { readonly key: Node; readonly value: Node | null }[]): Given {
    const given = new Map<string, Value>()
    for (const { key, value } of pairs) {
      const at = key.range?.[0] ?? 0
      const name = this.#yaml.isScalar(key) ? String(key.value) : ''
      const text = this.#yaml.isScalar(value) ? String(value.value).trim() : ''
      if (!KEYS.includes(name)) {
        const near = nearest(name, KEYS)
        const shown = JSON.stringify(name.slice(0, 80))
        this.#problem(
          at,
          `${shown} is not a key of an entry`,
          near === undefined ? `the keys are ${KEYS.join(', ')}` : `did you mean ${near}?`,
        )
      } else if (text === '' || text.length > MAX_TEXT) {
        this.#problem(
          at,
          `${name} has no value, or none that is one line`,
          'write it after the colon',
        )
      } else given.set(name, { text, at: value?.range?.[0] ?? at })
    }
    return given
  }

  #what(given: Given, at: number): DenyEntry['what'] | undefined {
    const spiffeId = given.get('spiffeId')
    const issuer = given.get('issuer')
    const serial = given.get('serial')
    const spki = given.get('spki')
    const forms = [spiffeId, issuer ?? serial, spki].filter((one) => one !== undefined)
    if (forms.length !== 1) {
      this.#problem(
        at,
        forms.length === 0
          ? 'has an entry that denies nobody'
          : 'has an entry that says two things',
        `write one of ${FORMS}`,
      )
      return undefined
    }
    if (spiffeId !== undefined) return this.#spiffeId(spiffeId)
    if (spki !== undefined) return this.#key(spki)
    if (issuer !== undefined && serial !== undefined) return this.#certificate(issuer, serial)
    this.#problem(
      at,
      `has an entry with ${issuer === undefined ? 'a serial and no issuer' : 'an issuer and no serial'}`,
      'write both: serial numbers are unique for one issuer only',
    )
    return undefined
  }

  #spiffeId({ text, at }: Value): DenyEntry['what'] | undefined {
    const pattern = parseUriPattern(text)
    if (pattern.kind === 'wrong') {
      this.#problem(at, `spiffeId: ${pattern.what}`, pattern.remedy)
      return undefined
    }
    // A pattern that fits nothing would be an exclusion that nobody notices is missing.
    if (!CAN_MATCH.test(text)) {
      this.#problem(
        at,
        `spiffeId: ${JSON.stringify(text)} fits no SPIFFE ID of a workload`,
        'write spiffe://, a trust domain in lower case and a path; spiffe://example.org/** is the whole domain',
      )
      return undefined
    }
    if (text.includes('*')) this.#patterns += 1
    return { kind: 'spiffe_id', pattern: text }
  }

  #key({ text, at }: Value): DenyEntry['what'] | undefined {
    const digest = text.replace(/^sha256(?::|\/\/?)/i, '')
    const hex = digest.replaceAll(':', '').toLowerCase()
    if (/^[0-9a-f]{64}$/.test(hex)) return { kind: 'key', spkiSha256: hex }
    if (/^[A-Za-z0-9+/]{43}=$/.test(digest)) {
      return { kind: 'key', spkiSha256: Buffer.from(digest, 'base64').toString('hex') }
    }
    this.#problem(
      at,
      'spki: is not a SHA-256',
      'write sha256: and 64 hexadecimal digits, or the 44 characters of base64, of the SubjectPublicKeyInfo',
    )
    return undefined
  }

  #certificate(issuer: Value, serial: Value): DenyEntry['what'] | undefined {
    const hex = serial.text.replace(/^0x/i, '').replaceAll(':', '').toLowerCase()
    if (!/^[0-9a-f]{1,40}$/.test(hex)) {
      this.#problem(
        serial.at,
        'serial: is not a serial number',
        'write up to 40 hexadecimal digits, with or without colons, as openssl x509 -serial prints them',
      )
      return undefined
    }
    if (!/^[\w.-]+\s*=/.test(issuer.text)) {
      this.#problem(
        issuer.at,
        'issuer: is not a distinguished name',
        'write it as the log does, or openssl x509 -issuer: CN=example.org intermediate,O=Example',
      )
      return undefined
    }
    return {
      kind: 'certificate',
      issuer: issuer.text,
      serial: hex.replace(/^0+(?=.)/, ''),
    }
  }

  #time({ text, at }: Value): number | undefined {
    const timeMs = TIME.test(text) ? Date.parse(text) : Number.NaN
    if (Number.isNaN(timeMs)) {
      this.#problem(at, 'until: is not a time with its zone', 'write it as 2027-01-31T12:00:00Z')
      return undefined
    }
    if (timeMs <= this.#nowMs) {
      const now = new Date(this.#nowMs).toISOString()
      this.#problem(
        at,
        `until: the entry has ended; it is ${now}`,
        'remove the entry, or correct the time',
        'warning',
      )
    }
    return timeMs
  }

  #problem(at: number, what: string, remedy: string, severity?: 'warning'): void {
    if (this.problems.length >= MAX_PROBLEMS) return
    const { line, col } = this.#lines.linePos(at)
    const where = `trust.revoked (${this.#file.path}:${line}:${col})`
    this.problems.push({ where, what, remedy, ...(severity && { severity }) })
  }
}

interface Value {
  readonly text: string
  readonly at: number
}

type Given = ReadonlyMap<string, Value>

const KEYS: readonly string[] = ['spiffeId', 'issuer', 'serial', 'spki', 'until', 'reason']
const FORMS = 'spiffeId: PATTERN, issuer: NAME with serial: HEX, or spki: sha256:HEX'
const CAN_MATCH = /^spiffe:\/\/(?:[a-z0-9._-]+|\*)(?:\/(?:[A-Za-z0-9._-]+|\*\*?))+$/
const TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?(?:Z|[+-]\d{2}:\d{2})$/
const MAX_TEXT = 4_096
/** For emergencies; a CRL is the place for more. Each data thread receives them with the snapshot. */
const MAX_ENTRIES = 10_000
const MAX_PATTERNS = 1_000
const MAX_PROBLEMS = 20
