// Configuration files of any text. Problems are named, all in plain characters; without a problem the
// printed configuration is the same configuration, and says what `yaml` by itself reads in the file.
import assert from 'node:assert/strict'
import { parse, stringify } from 'yaml'
import { formatProblem } from '../../../src/cli/failure.ts'
import { printConfig } from '../../../src/config/print.ts'
import { keys } from '../../../src/config/schema.ts'
import { COMPLETE_FILE, load } from '../../config/loading.ts'
import { linesMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

const VARIABLE = ['$', '{HOME_OF_TEST}'].join('')
const FULL = stringify({
  inbound: {
    listen: '0.0.0.0:8443',
    forward: 'h2c+unix:/run/a.sock',
    limits: { headBytes: '64KiB' },
    proxyProtocol: { acceptFrom: ['10.0.0.0/8'] },
  },
  identity: { credentialBundle: '/id/credentials.pem' },
  trust: {
    bundles: [{ trustDomain: 'partner.example', file: `/trust/$${VARIABLE}.pem` }],
    crls: ['/trust/ca.crl'],
    revocation: { mode: 'soft-fail', scope: 'chain' },
    revoked: '/trust/revoked.yaml',
  },
  allow: [{ uri: 'spiffe://example.org/ns/*/sa/web' }, { cn: 'a', dns: '*.example.org' }],
  policy: {
    bundle: 'https://bundles.example/b.tar.gz',
    entrypoint: 'envoy/authz/allow',
    signing: { keys: { k1: '/run/k1.pem' } },
    candidate: { bundle: '/c.tar.gz', sample: 0.5 },
    input: { body: { maxBytes: '64KiB' } },
  },
  admin: { listen: '127.0.0.1:15000' },
  probes: { listen: '0.0.0.0:15021', paths: ['/healthz'] },
  log: { level: 'debug', redact: ['x-a'], labels: [`a=${VARIABLE}`] },
  drain: { timeout: '30s' },
  workers: 'auto',
})
const words = new Set(keys.flatMap(({ path, default: value }) => [...path.split('.'), value ?? '']))

export const target: Target = {
  name: 'config',
  runs: 450,
  seeds: () => [
    COMPLETE_FILE,
    FULL,
    JSON.stringify(parse(COMPLETE_FILE)),
    JSON.stringify(parse(FULL)),
  ],
  dictionary: [
    ...words,
    ...[
      '\n  ',
      ': ',
      '- ',
      '*a',
      '&a ',
      '<<: ',
      '!!binary ',
      '---\n',
      '...',
      '{',
      '}',
      '[',
      ']',
      '"',
      "'",
    ],
    ...[
      '#',
      '|',
      '>',
      '%YAML 1.1\n',
      VARIABLE,
      '$\x7b',
      `$${VARIABLE}`,
      '\t',
      '\xff',
      'unsafeForward: true\n',
    ],
    ...[
      '0',
      '-1',
      '1e9',
      '999999999d',
      '__proto__',
      'constructor',
      'null',
      '~',
      'yes',
      '0x10',
      '::',
      '\x1b[2J',
    ],
  ],
  mutators: [linesMutator],
  check: (input) => {
    const text = input.toString()
    const env = { HOME_OF_TEST: 'value' }
    const { config, problems, unsafeOptions } = load(text, {}, env)
    for (const problem of problems) {
      assert.ok(problem.where !== '' && problem.what !== '' && problem.remedy !== '')
      assert.match(formatProblem(problem), /^[^\p{Cc}]+\n {2}[^\p{Cc}]+$/u)
    }
    assert.equal(
      config === undefined,
      problems.some(({ severity }) => severity !== 'warning'),
    )
    if (config === undefined) return
    const again = load(printConfig(config), {}, env)
    assert.deepEqual(again.config, config)
    assert.deepEqual([...again.unsafeOptions].sort(), [...unsafeOptions].sort())
    const plain = parse(text, { schema: 'failsafe', uniqueKeys: false, logLevel: 'silent' })
    const written = plain.policy?.bundle
    if (written !== undefined && !written.includes('$'))
      assert.equal(config.policy?.bundle, written)
    assert.equal(config.allow.length, plain.allow?.length ?? 0)
  },
}
