// PEM files read strictly (RFC 7468). OpenSSL stops silently at the first broken block, so that a
// bundle can lose half its authorities without a word; here every block is good or a problem.
import type { Problem } from '../errors.ts'

export interface PemBlock {
  /** Position in the file, from 1. */
  readonly number: number
  /** `CERTIFICATE`, `PRIVATE KEY`, ... */
  readonly label: string
  /** Undefined for a key in OpenSSL's old encrypted form: its content is of no use without a password. */
  readonly bytes: Buffer | undefined
  /** The block as it was written, only where `bytes` is undefined. */
  readonly text?: string
}

export interface PemFile {
  readonly blocks: readonly PemBlock[]
  readonly problems: readonly Problem[]
}

/** Text outside blocks is a comment. Goes on after a broken block, to report all of them. */
export const readPem = (text: string, file: string): PemFile => {
  const blocks: PemBlock[] = []
  const problems: Problem[] = []
  let open: OpenBlock | undefined
  let number = 0
  let line = 0

  const refuse = (what: string, remedy: string): void => {
    problems.push({ where: file, what: `PEM block ${number} ${what}`, remedy })
  }
  const close = (block: OpenBlock): void => {
    const bytes = block.encrypted ? undefined : decodeBase64(block.lines.join(''))
    if (bytes !== undefined || block.encrypted) {
      const text = `-----BEGIN ${block.label}-----\n${block.written.join('\n')}\n-----END ${block.label}-----\n`
      blocks.push({
        number,
        label: block.label,
        bytes,
        ...(block.encrypted ? { text } : {}),
      })
    } else {
      refuse(`(${block.label}, line ${block.line}) is not base64`, 'Replace the block')
    }
  }

  for (const raw of lines(text)) {
    line += 1
    const content = raw.trim()
    const begin = BEGIN.exec(content)
    if (begin !== null) {
      if (open !== undefined) refuse(`(line ${open.line}) has no END line`, 'Restore the block')
      number += 1
      open = { label: begin[1]!, line, lines: [], written: [], encrypted: false }
    } else if (open !== undefined && content === `-----END ${open.label}-----`) {
      close(open)
      open = undefined
    } else if (MARKER.test(content)) {
      if (open === undefined) number += 1
      refuse(`has a broken BEGIN or END line (line ${line})`, markerRemedy(content))
      open = undefined
    } else if (open !== undefined) {
      if (HEADER.test(content)) open.encrypted = true
      else open.lines.push(content)
      if (open.encrypted) open.written.push(content)
    }
  }
  if (open !== undefined) refuse(`(line ${open.line}) has no END line`, 'Restore the block')
  if (number === 0) {
    problems.push({
      where: file,
      what: 'The file has no PEM block',
      remedy: 'Give a file with blocks that begin with "-----BEGIN ...-----"',
    })
  }
  return { blocks, problems }
}

/** Clean PEM, 64 characters to the line. */
export const writePem = (label: string, bytes: Uint8Array): string => {
  const body = Buffer.from(bytes)
    .toString('base64')
    .replace(/.{64}(?=.)/g, '$&\n')
  return `-----BEGIN ${label}-----\n${body}\n-----END ${label}-----\n`
}

interface OpenBlock {
  readonly label: string
  readonly line: number
  readonly lines: string[]
  /** From its first header on, of an encrypted key. */
  readonly written: string[]
  encrypted: boolean
}

function* lines(text: string): Generator<string> {
  // Not split(): a CRL has a hundred thousand lines.
  for (let start = text.startsWith('\ufeff') ? 1 : 0; start < text.length; ) {
    const end = text.indexOf('\n', start)
    yield text.slice(start, end === -1 ? text.length : end)
    start = end === -1 ? text.length : end + 1
  }
}

/** Undefined unless the text is the one base64 form of its bytes. */
const decodeBase64 = (text: string): Buffer | undefined => {
  const bytes = Buffer.from(text, 'base64')
  return bytes.length > 0 && bytes.toString('base64') === text ? bytes : undefined
}

const markerRemedy = (line: string): string =>
  /-----END [^-]+-----.*-----BEGIN/.test(line)
    ? 'Put a line break between the two blocks: the first file was joined without one at its end'
    : 'Write it as "-----BEGIN CERTIFICATE-----" or "-----END CERTIFICATE-----", alone on its line'

const BEGIN = /^-----BEGIN ([A-Z0-9][A-Z0-9 .]*)-----$/
/** Anything that was meant as a BEGIN or END line. */
const MARKER = /--\s*(?:BEGIN|END)\b/i
/** Headers of an encrypted key (RFC 1421). */
const HEADER = /^(?:Proc-Type|DEK-Info):/
