// What the Connection field says about the connection itself.
import { isFramingField, isIdentityField, isToken } from '../field-names.ts'
import { listElements } from './fields.ts'

export interface ConnectionOptions {
  readonly close: boolean
  readonly keepAlive: boolean
  readonly upgrade: boolean
}

/**
 * @param value of all Connection fields, joined with commas.
 * @returns undefined where an element is no token, or names a field that an intermediary must not
 *   drop: whoever makes a proxy drop it (RFC 9110 section 7.6.1) changes how the next hop frames,
 *   routes or authenticates the request.
 */
export function requestConnectionOptions(value: string | undefined): ConnectionOptions | undefined {
  if (value === undefined || value === 'keep-alive' || value === 'close') {
    return connectionOptions(value)
  }
  const options = listElements(value)
  return options.every((option) => isToken(option) && !isEndToEnd(option))
    ? connectionOptions(value)
    : undefined
}

export function connectionOptions(value: string | undefined): ConnectionOptions {
  if (value === undefined) return NOTHING
  if (value === 'keep-alive') return KEEP_ALIVE
  if (value === 'close') return CLOSE
  const options = listElements(value)
  return {
    close: options.includes('close'),
    keepAlive: options.includes('keep-alive'),
    upgrade: options.includes('upgrade'),
  }
}

/** `transfer-encoding` is hop-by-hop, but whoever names it here aims at dropping the framing. */
function isEndToEnd(name: string): boolean {
  return (
    isFramingField(name) ||
    isIdentityField(name) ||
    name === 'host' ||
    name === 'authorization' ||
    name === 'cookie' ||
    name === 'content-type' ||
    name === 'content-encoding'
  )
}

const NOTHING: ConnectionOptions = { close: false, keepAlive: false, upgrade: false }
const KEEP_ALIVE: ConnectionOptions = { close: false, keepAlive: true, upgrade: false }
const CLOSE: ConnectionOptions = { close: true, keepAlive: false, upgrade: false }
