// The builtins that Postern supplies, and those that it refuses with the reason. What is in neither
// table is either native in wasm or unknown; the activation gate compares by name.
import type { Builtin } from './builtin.ts'
import {
  castToArray,
  castToBoolean,
  castToNull,
  castToObject,
  castToSet,
  castToString,
} from './casts.ts'
import { cidrContainsMatches, expandCidr, isCidr, mergeCidrs } from './cidr.ts'
import { digest, hmac, hmacEqual } from './digests.ts'
import {
  decodeHex,
  decodeUrlQuery,
  decodeUrlQueryObject,
  encodeBase64UrlNoPad,
  encodeHex,
  encodeUrlQuery,
  encodeUrlQueryObject,
} from './encodings.ts'
import { globsMatch } from './glob-intersection.ts'
import { quoteGlob } from './glob-text.ts'
import { marshalWithOptions } from './json-marshal.ts'
import { patchJson } from './json-patch.ts'
import { matchSchema, verifySchema } from './json-schema.ts'
import { decodeJwt, decodeVerifyJwt, verifyJwt } from './jwt.ts'
import { encodeSign, encodeSignRaw } from './jwt-sign.ts'
import { rangeStep } from './number-range.ts'
import { randomBelow, randomUuid } from './random.ts'
import { reachablePaths } from './reachable-paths.ts'
import { findRegex, replaceRegex, splitByRegex } from './regex-builtins.ts'
import { matchTemplate } from './regex-template.ts'
import { compareVersions, isVersion } from './semver.ts'
import { splitN } from './split-n.ts'
import { sprintf } from './sprintf.ts'
import { anyPrefixMatch, anySuffixMatch, countSubstring, indexOfAll } from './strings.ts'
import { isSubset } from './subset.ts'
import { renderTemplate } from './template.ts'
import {
  addDate,
  clock,
  date,
  diff,
  format,
  parseDurationNs,
  parseNs,
  parseRfc3339Ns,
  weekday,
} from './time.ts'
import { parseBytes, parseUnits } from './units.ts'
import { isUri, parseUri } from './uri.ts'
import { parseUuid } from './uuid.ts'
import { RegoNumber, RegoObject } from './value.ts'
import {
  parseCertificates,
  parseKeyPair,
  parsePrivateKeys,
  parseRequest,
  privateKeyJwk,
  verifyCertificates,
  verifyCertificatesWithOptions,
} from './x509.ts'
import { isYaml, unmarshalYaml } from './yaml-read.ts'
import { marshalYaml } from './yaml-write.ts'

export const BUILTINS: ReadonlyMap<string, Builtin> = new Map<string, Builtin>([
  ['base64url.encode_no_pad', encodeBase64UrlNoPad],
  ['cast_array', castToArray],
  ['cast_boolean', castToBoolean],
  ['cast_null', castToNull],
  ['cast_object', castToObject],
  ['cast_set', castToSet],
  ['cast_string', castToString],
  ['crypto.hmac.equal', hmacEqual],
  ['crypto.hmac.md5', hmac('md5')],
  ['crypto.hmac.sha1', hmac('sha1')],
  ['crypto.hmac.sha256', hmac('sha256')],
  ['crypto.hmac.sha512', hmac('sha512')],
  ['crypto.md5', digest('md5')],
  ['crypto.parse_private_keys', parsePrivateKeys],
  ['crypto.sha1', digest('sha1')],
  ['crypto.sha256', digest('sha256')],
  ['crypto.x509.parse_and_verify_certificates', verifyCertificates],
  ['crypto.x509.parse_and_verify_certificates_with_options', verifyCertificatesWithOptions],
  ['crypto.x509.parse_certificate_request', parseRequest],
  ['crypto.x509.parse_certificates', parseCertificates],
  ['crypto.x509.parse_keypair', parseKeyPair],
  ['crypto.x509.parse_rsa_private_key', privateKeyJwk],
  ['glob.quote_meta', quoteGlob],
  ['graph.reachable_paths', reachablePaths],
  ['hex.decode', decodeHex],
  ['hex.encode', encodeHex],
  ['indexof_n', indexOfAll],
  ['io.jwt.decode', decodeJwt],
  ['io.jwt.decode_verify', decodeVerifyJwt],
  ['io.jwt.encode_sign', encodeSign],
  ['io.jwt.encode_sign_raw', encodeSignRaw],
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
  ['json.marshal_with_options', marshalWithOptions],
  ['json.match_schema', matchSchema],
  ['json.patch', patchJson],
  ['json.verify_schema', verifySchema],
  ['net.cidr_contains_matches', cidrContainsMatches],
  ['net.cidr_expand', expandCidr],
  ['net.cidr_is_valid', isCidr],
  ['net.cidr_merge', mergeCidrs],
  ['numbers.range_step', rangeStep],
  ['object.subset', isSubset],
  // As where OPA was not told what it runs in: environment and configuration are not for policies.
  ['opa.runtime', () => new RegoObject()],
  ['rand.intn', randomBelow],
  ['regex.find_n', findRegex],
  ['regex.globs_match', globsMatch],
  ['regex.replace', replaceRegex],
  ['regex.split', splitByRegex],
  ['regex.template_match', matchTemplate],
  ['semver.compare', compareVersions],
  ['semver.is_valid', isVersion],
  ['sprintf', sprintf],
  ['strings.any_prefix_match', anyPrefixMatch],
  ['strings.any_suffix_match', anySuffixMatch],
  ['strings.count', countSubstring],
  ['strings.render_template', renderTemplate],
  ['strings.split_n', splitN],
  ['time.add_date', addDate],
  ['time.clock', clock],
  ['time.date', date],
  ['time.diff', diff],
  ['time.format', format],
  ['time.now_ns', (_args, context) => new RegoNumber(String(context.timeNs))],
  ['units.parse', parseUnits],
  ['units.parse_bytes', parseBytes],
  ['uri.is_valid', isUri],
  ['uri.parse', parseUri],
  ['time.parse_duration_ns', parseDurationNs],
  ['time.parse_ns', parseNs],
  ['time.parse_rfc3339_ns', parseRfc3339Ns],
  ['time.weekday', weekday],
  ['urlquery.decode', decodeUrlQuery],
  ['urlquery.decode_object', decodeUrlQueryObject],
  ['urlquery.encode', encodeUrlQuery],
  ['urlquery.encode_object', encodeUrlQueryObject],
  ['uuid.parse', parseUuid],
  ['uuid.rfc4122', randomUuid],
  ['yaml.is_valid', isYaml],
  ['yaml.marshal', marshalYaml],
  ['yaml.unmarshal', unmarshalYaml],
  // OPA erases these unless told otherwise; a policy that was built otherwise runs all the same.
  ['trace', () => true],
  ['internal.print', () => true],
  ['internal.test_case', () => true],
])

/** Builtins that will not be supplied, with the reason. */
export const REFUSED_BUILTINS: ReadonlyMap<string, string> = new Map([
  ['http.send', 'a decision must not wait for another service'],
  ['net.lookup_ip_addr', 'a decision must not wait for a name server'],
  ['providers.aws.sign_req', 'a decision makes no requests that would have to be signed'],
  ['rego.parse_module', 'policies are compiled before they are loaded'],
  ...[
    'is_valid',
    'parse',
    'parse_and_verify',
    'parse_query',
    'parse_schema',
    'schema_is_valid',
  ].map((name) => [`graphql.${name}`, 'GraphQL is not supported'] as const),
])
