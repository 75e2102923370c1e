// PEM and base64 as Go's encoding/pem and encoding/base64 read them.
import { BuiltinError } from './builtin.ts'

export interface PemBlock {
  readonly type: string
  readonly bytes: Buffer
}

const BEGIN = '-----BEGIN '
const DASHES = '-----'

/** The blocks of a text; what stands between them, and what is no block, is passed over. */
export function pemBlocks(text: string): readonly PemBlock[] {
  const blocks: PemBlock[] = []
  for (let at = text.indexOf(BEGIN); at >= 0; at = text.indexOf(BEGIN, at + 1)) {
    const lineEnd = text.indexOf('\n', at)
    const label = lineEnd < 0 ? '' : text.slice(at + BEGIN.length, lineEnd).trimEnd()
    if ((at > 0 && text[at - 1] !== '\n') || !label.endsWith(DASHES)) continue
    const type = label.slice(0, -DASHES.length)
    const end = text.indexOf(`\n-----END ${type}-----`, lineEnd - 1)
    if (end < 0) break
    const bytes = decodeBase64(text.slice(lineEnd + 1, end).replace(/[ \t]+/g, ''))
    if (bytes !== undefined) blocks.push({ type, bytes })
    at = end
  }
  return blocks
}

export function decodeBase64(text: string): Buffer | undefined {
  const digits = text.replace(/[\r\n]+/g, '')
  if (digits.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(digits)) return undefined
  return Buffer.from(digits, 'base64')
}

export function neededBase64(text: string): Buffer {
  const bytes = decodeBase64(text)
  if (bytes === undefined) throw new BuiltinError('illegal base64 data')
  return bytes
}
