// crypto.md5, crypto.sha1, crypto.sha256 and crypto.hmac.*: digests of UTF-8 text, in hexadecimal.
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { type Builtin, type BuiltinContext, stringArgument } from './builtin.ts'
import type { RegoValue } from './value.ts'

type Hash = 'md5' | 'sha1' | 'sha256' | 'sha512'

/** In loop iterations of wasm (5 ns): some microseconds to begin with, then a few bytes for each. */
const DIGEST_COST = 400

export function digest(hash: Hash): Builtin {
  return (args, context) => {
    const text = stringArgument(args[0], 1)
    context.spend(DIGEST_COST + text.length)
    return createHash(hash).update(text, 'utf8').digest('hex')
  }
}

export function hmac(hash: Hash): Builtin {
  return (args, context) => {
    const message = stringArgument(args[0], 1)
    const key = stringArgument(args[1], 2)
    context.spend(2 * DIGEST_COST + message.length + key.length)
    return createHmac(hash, Buffer.from(key, 'utf8')).update(message, 'utf8').digest('hex')
  }
}

/** crypto.hmac.equal(a, b): in a time that does not tell where they differ. */
export function hmacEqual(args: readonly RegoValue[], context: BuiltinContext): RegoValue {
  const [a, b] = [Buffer.from(stringArgument(args[0], 1)), Buffer.from(stringArgument(args[1], 2))]
  context.spend(DIGEST_COST + a.length + b.length)
  return a.length === b.length && timingSafeEqual(a, b)
}
