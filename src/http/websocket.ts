// The WebSocket handshake (RFC 6455 section 4), the only upgrade that is ever forwarded.
import { createHash } from 'node:crypto'
import { connectionTokens, fieldValues } from './fields.ts'

/** Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2 step 5.4). */
export function acceptKeyFor(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
}

/** Exactly one key that is 16 bytes of base64, and exactly one version, 13 (section 4.2.1). */
export function hasHandshakeFields(fields: readonly string[]): boolean {
  const keys = fieldValues(fields, 'sec-websocket-key')
  const versions = fieldValues(fields, 'sec-websocket-version')
  return keys.length === 1 && KEY.test(keys[0]!) && versions.length === 1 && versions[0] === '13'
}

/**
 * Whether the fields of a 101 answer open the connection that `key` asked for (section 4.1): only
 * then may bytes flow unparsed.
 */
export function isHandshakeAnswer(fields: readonly string[], key: string): boolean {
  const upgrades = fieldValues(fields, 'upgrade')
  const accepts = fieldValues(fields, 'sec-websocket-accept')
  return (
    upgrades.length === 1 &&
    upgrades[0]!.toLowerCase() === 'websocket' &&
    connectionTokens(fields).includes('upgrade') &&
    accepts.length === 1 &&
    accepts[0] === acceptKeyFor(key)
  )
}

/** 16 bytes in base64 leave four significant bits in the last character before the padding. */
const KEY = /^[A-Za-z0-9+/]{21}[AQgw]==$/
