// The builtins that Postern supplies, and those that it refuses with the reason. What is in neither
// table is either native in wasm or unknown; the activation gate compares by name. The code of a
// builtin is loaded when a policy first calls for it: all of it is more than the rest of the program.
import { requireModule } from '../../package.ts'
import type { Builtin } from './builtin.ts'
import { RegoNumber, RegoObject } from './value.ts'

type Row = readonly [name: string, builtin: () => Builtin]

/** Rows whose builtins are all in one module, `M`. Loaded synchronously: a policy host is made in one go. */
function from<M>(module: string, rows: Readonly<Record<string, (module: M) => Builtin>>): Row[] {
  return Object.entries(rows).map(([name, pick]) => [
    name,
    () => pick(requireModule<M>(`policy/builtins/${module}`)),
  ])
}

const ROWS: ReadonlyMap<string, () => Builtin> = new Map<string, () => Builtin>([
  ...from<typeof import('./casts.ts')>('casts', {
    cast_array: (m) => m.castToArray,
    cast_boolean: (m) => m.castToBoolean,
    cast_null: (m) => m.castToNull,
    cast_object: (m) => m.castToObject,
    cast_set: (m) => m.castToSet,
    cast_string: (m) => m.castToString,
  }),
  ...from<typeof import('./cidr.ts')>('cidr', {
    'net.cidr_contains_matches': (m) => m.cidrContainsMatches,
    'net.cidr_expand': (m) => m.expandCidr,
    'net.cidr_is_valid': (m) => m.isCidr,
    'net.cidr_merge': (m) => m.mergeCidrs,
  }),
  ...from<typeof import('./digests.ts')>('digests', {
    'crypto.hmac.equal': (m) => m.hmacEqual,
    'crypto.hmac.md5': (m) => m.hmac('md5'),
    'crypto.hmac.sha1': (m) => m.hmac('sha1'),
    'crypto.hmac.sha256': (m) => m.hmac('sha256'),
    'crypto.hmac.sha512': (m) => m.hmac('sha512'),
    'crypto.md5': (m) => m.digest('md5'),
    'crypto.sha1': (m) => m.digest('sha1'),
    'crypto.sha256': (m) => m.digest('sha256'),
  }),
  ...from<typeof import('./encodings.ts')>('encodings', {
    'base64url.encode_no_pad': (m) => m.encodeBase64UrlNoPad,
    'hex.decode': (m) => m.decodeHex,
    'hex.encode': (m) => m.encodeHex,
    'urlquery.decode': (m) => m.decodeUrlQuery,
    'urlquery.decode_object': (m) => m.decodeUrlQueryObject,
    'urlquery.encode': (m) => m.encodeUrlQuery,
    'urlquery.encode_object': (m) => m.encodeUrlQueryObject,
  }),
  ...from<typeof import('./glob-intersection.ts')>('glob-intersection', {
    'regex.globs_match': (m) => m.globsMatch,
  }),
  ...from<typeof import('./glob-text.ts')>('glob-text', {
    'glob.quote_meta': (m) => m.quoteGlob,
  }),
  ...from<typeof import('./json-marshal.ts')>('json-marshal', {
    'json.marshal_with_options': (m) => m.marshalWithOptions,
  }),
  ...from<typeof import('./json-patch.ts')>('json-patch', {
    'json.patch': (m) => m.patchJson,
  }),
  ...from<typeof import('./json-schema.ts')>('json-schema', {
    'json.match_schema': (m) => m.matchSchema,
    'json.verify_schema': (m) => m.verifySchema,
  }),
  ...from<typeof import('./jwt-sign.ts')>('jwt-sign', {
    'io.jwt.encode_sign': (m) => m.encodeSign,
    'io.jwt.encode_sign_raw': (m) => m.encodeSignRaw,
  }),
  ...from<typeof import('./number-range.ts')>('number-range', {
    'numbers.range_step': (m) => m.rangeStep,
  }),
  ...from<typeof import('./random.ts')>('random', {
    'rand.intn': (m) => m.randomBelow,
    'uuid.rfc4122': (m) => m.randomUuid,
  }),
  ...from<typeof import('./reachable-paths.ts')>('reachable-paths', {
    'graph.reachable_paths': (m) => m.reachablePaths,
  }),
  ...from<typeof import('./regex-builtins.ts')>('regex-builtins', {
    'regex.find_n': (m) => m.findRegex,
    'regex.replace': (m) => m.replaceRegex,
    'regex.split': (m) => m.splitByRegex,
  }),
  ...from<typeof import('./regex-template.ts')>('regex-template', {
    'regex.template_match': (m) => m.matchTemplate,
  }),
  ...from<typeof import('./semver.ts')>('semver', {
    'semver.compare': (m) => m.compareVersions,
    'semver.is_valid': (m) => m.isVersion,
  }),
  ...from<typeof import('./split-n.ts')>('split-n', {
    'strings.split_n': (m) => m.splitN,
  }),
  ...from<typeof import('./sprintf.ts')>('sprintf', {
    sprintf: (m) => m.sprintf,
  }),
  ...from<typeof import('./strings.ts')>('strings', {
    indexof_n: (m) => m.indexOfAll,
    'strings.any_prefix_match': (m) => m.anyPrefixMatch,
    'strings.any_suffix_match': (m) => m.anySuffixMatch,
    'strings.count': (m) => m.countSubstring,
  }),
  ...from<typeof import('./subset.ts')>('subset', {
    'object.subset': (m) => m.isSubset,
  }),
  ...from<typeof import('./template.ts')>('template', {
    'strings.render_template': (m) => m.renderTemplate,
  }),
  ...from<typeof import('./time.ts')>('time', {
    'time.add_date': (m) => m.addDate,
    'time.clock': (m) => m.clock,
    'time.date': (m) => m.date,
    'time.diff': (m) => m.diff,
    'time.format': (m) => m.format,
    'time.parse_duration_ns': (m) => m.parseDurationNs,
    'time.parse_ns': (m) => m.parseNs,
    'time.parse_rfc3339_ns': (m) => m.parseRfc3339Ns,
    'time.weekday': (m) => m.weekday,
  }),
  ...from<typeof import('./units.ts')>('units', {
    'units.parse': (m) => m.parseUnits,
    'units.parse_bytes': (m) => m.parseBytes,
  }),
  ...from<typeof import('./uri.ts')>('uri', {
    'uri.is_valid': (m) => m.isUri,
    'uri.parse': (m) => m.parseUri,
  }),
  ...from<typeof import('./uuid.ts')>('uuid', {
    'uuid.parse': (m) => m.parseUuid,
  }),
  ...from<typeof import('./x509.ts')>('x509', {
    'crypto.parse_private_keys': (m) => m.parsePrivateKeys,
    'crypto.x509.parse_and_verify_certificates': (m) => m.verifyCertificates,
    'crypto.x509.parse_and_verify_certificates_with_options': (m) =>
      m.verifyCertificatesWithOptions,
    'crypto.x509.parse_certificate_request': (m) => m.parseRequest,
    'crypto.x509.parse_certificates': (m) => m.parseCertificates,
    'crypto.x509.parse_keypair': (m) => m.parseKeyPair,
    'crypto.x509.parse_rsa_private_key': (m) => m.privateKeyJwk,
  }),
  ...from<typeof import('./yaml-read.ts')>('yaml-read', {
    'yaml.is_valid': (m) => m.isYaml,
    'yaml.unmarshal': (m) => m.unmarshalYaml,
  }),
  ...from<typeof import('./yaml-write.ts')>('yaml-write', {
    'yaml.marshal': (m) => m.marshalYaml,
  }),
  ...from<typeof import('./jwt.ts')>('jwt', {
    'io.jwt.decode': (m) => m.decodeJwt,
    'io.jwt.decode_verify': (m) => m.decodeVerifyJwt,
    'io.jwt.verify_hs256': (m) => m.verifyJwt('HS256'),
    'io.jwt.verify_hs384': (m) => m.verifyJwt('HS384'),
    'io.jwt.verify_hs512': (m) => m.verifyJwt('HS512'),
    'io.jwt.verify_rs256': (m) => m.verifyJwt('RS256'),
    'io.jwt.verify_rs384': (m) => m.verifyJwt('RS384'),
    'io.jwt.verify_rs512': (m) => m.verifyJwt('RS512'),
    'io.jwt.verify_ps256': (m) => m.verifyJwt('PS256'),
    'io.jwt.verify_ps384': (m) => m.verifyJwt('PS384'),
    'io.jwt.verify_ps512': (m) => m.verifyJwt('PS512'),
    'io.jwt.verify_es256': (m) => m.verifyJwt('ES256'),
    'io.jwt.verify_es384': (m) => m.verifyJwt('ES384'),
    'io.jwt.verify_es512': (m) => m.verifyJwt('ES512'),
    'io.jwt.verify_eddsa': (m) => m.verifyJwt('EdDSA'),
  }),
  ['time.now_ns', () => (_args, context) => new RegoNumber(String(context.timeNs))],
  // As where OPA was not told what it runs in: environment and configuration are not for policies.
  ['opa.runtime', () => () => new RegoObject()],
  // OPA erases these unless told otherwise; a policy that was built otherwise runs all the same.
  ['trace', () => () => true],
  ['internal.print', () => () => true],
  ['internal.test_case', () => () => true],
])

/** By name. `get` loads what it gives. */
export const BUILTINS: Pick<ReadonlyMap<string, Builtin>, 'has' | 'get' | 'keys'> = {
  has: (name) => ROWS.has(name),
  get: (name) => ROWS.get(name)?.(),
  keys: () => ROWS.keys(),
}

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
