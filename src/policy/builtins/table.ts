// The builtins that Postern supplies, and those that it refuses with the reason. What is in neither
// table is either native in wasm or unknown; the activation gate compares by name.
import type { Builtin } from './builtin.ts'
import { decodeJwt, decodeVerifyJwt, verifyJwt } from './jwt.ts'
import { replaceRegex } from './regex-builtins.ts'
import { sprintf } from './sprintf.ts'
import { RegoNumber } from './value.ts'

export const BUILTINS: ReadonlyMap<string, Builtin> = new Map<string, Builtin>([
  ['io.jwt.decode', decodeJwt],
  ['io.jwt.decode_verify', decodeVerifyJwt],
  ...(
    [
      ['hs256', 'HS256'],
      ['hs384', 'HS384'],
      ['hs512', 'HS512'],
      ['rs256', 'RS256'],
      ['rs384', 'RS384'],
      ['rs512', 'RS512'],
      ['ps256', 'PS256'],
      ['ps384', 'PS384'],
      ['ps512', 'PS512'],
      ['es256', 'ES256'],
      ['es384', 'ES384'],
      ['es512', 'ES512'],
      ['eddsa', 'EdDSA'],
    ] as const
  ).map(([suffix, algorithm]) => [`io.jwt.verify_${suffix}`, verifyJwt(algorithm)] as const),
  ['regex.replace', replaceRegex],
  ['sprintf', sprintf],
  ['time.now_ns', (_args, context) => new RegoNumber(String(context.timeNs))],
  // OPA erases both unless told otherwise; a policy that was built otherwise runs all the same.
  ['trace', () => true],
  ['internal.print', () => true],
])

/** Builtins that will not be supplied, with the reason. */
export const REFUSED_BUILTINS: ReadonlyMap<string, string> = new Map([
  ['http.send', 'a decision must not wait for another service'],
  ['net.lookup_ip_addr', 'a decision must not wait for a name server'],
  ['providers.aws.sign_req', 'a decision makes no requests that would have to be signed'],
  ['rego.parse_module', 'policies are compiled before they are loaded'],
  ['opa.runtime', 'environment and configuration of the proxy are not for policies'],
  ...[
    'is_valid',
    'parse',
    'parse_and_verify',
    'parse_query',
    'parse_schema',
    'schema_is_valid',
  ].map((name) => [`graphql.${name}`, 'GraphQL is not supported'] as const),
])
