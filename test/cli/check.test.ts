import assert from 'node:assert/strict'
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { type CommandResult, postern } from '../support/command.ts'
import {
  type IssuedCertificate,
  spiffeId,
  type TestAuthority,
  testAuthority,
} from '../support/pki.ts'

let directory: string
let authority: TestAuthority
const file = (name: string): string => join(directory, name)

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'postern-check-'))
  authority = await testAuthority()
  const own = await authority.svid('orders')
  await writeFile(file('tls.crt'), own.chainPem)
  await writeFile(file('tls.key'), own.privateKeyPem)
  await writeFile(file('ca.crt'), authority.root.certificatePem)
  await writeFile(file('revoked.yaml'), `- spiffeId: ${spiffeId('denied')}`)
})
after(() => rm(directory, { recursive: true, force: true }))

const check = (...more: readonly string[]): Promise<CommandResult> =>
  postern([
    ...['check', '--forward', 'http://127.0.0.1:9', '--cert', file('tls.crt')],
    ...['--key', file('tls.key'), '--ca', file('ca.crt'), '--revoked', file('revoked.yaml')],
    ...['--allow-uri', spiffeId('*'), ...more],
  ])

async function peer(certificate: IssuedCertificate | string): Promise<CommandResult> {
  const pem = typeof certificate === 'string' ? certificate : certificate.chainPem
  await writeFile(file('client.crt'), pem)
  return check('--peer', file('client.crt'))
}

describe('postern check --peer', () => {
  it('says as whom a client would be believed, by which anchor, and until when', async () => {
    const { exitCode, stdout, stderr } = await peer(await authority.svid('web'))
    assert.deepEqual([exitCode, stderr], [0, ''])
    assert.match(stdout, /client\.crt: a client with this certificate is believed/)
    assert.match(stdout, /1\. leaf .*sa\/web[\s\S]*2\. CA CN=.*intermediate[\s\S]*3\. CA CN=.*root/)
    assert.match(stdout, /anchor in: +\S+ca\.crt\n +principal: +spiffe:.*sa\/web\n +until: +20/)
    assert.match(stdout, /access: +an allow rule admits this client/)
  })

  it('says that no rule admits a client who is believed', async () => {
    const elsewhere = await authority.intermediate.issue({ uris: ['spiffe://example.org/x'] })
    const { exitCode, stdout } = await peer(elsewhere)
    assert.equal(exitCode, 0)
    assert.match(stdout, /access: +no allow rule admits this client/)
  })

  it('says which certificate is refused, by which rule, and what to do', async () => {
    const cases: readonly (readonly [string, RegExp, Promise<IssuedCertificate>])[] = [
      [
        'expired',
        /because: .*valid from .* now [\s\S]*issue it anew/,
        authority.svid('web', {
          notBefore: new Date(Date.now() - 7_200_000),
          notAfter: new Date(Date.now() - 3_600_000),
        }),
      ],
      ['deny_listed', /revoked\.yaml:1[\s\S]*remove the entry/, authority.svid('denied')],
      [
        'untrusted',
        /no path from its issuer[\s\S]*add the root/,
        (await testAuthority()).svid('web'),
      ],
      [
        'purpose',
        /lacks clientAuth[\s\S]*clientAuth/,
        authority.svid('web', { usages: ['serverAuth'] }),
      ],
      [
        'bad_identity',
        /beside 1 other/,
        authority.intermediate.issue({ uris: [spiffeId('a'), spiffeId('b')] }),
      ],
    ]
    for (const [rule, text, certificate] of cases) {
      const { exitCode, stdout } = await peer(await certificate)
      assert.equal(exitCode, 1, stdout)
      assert.match(stdout, /is refused\n {2}1\. leaf/)
      assert.match(stdout, new RegExp(`rule: +${rule}\\n`))
      assert.match(stdout, text)
    }
  })

  it('says what it cannot read', async () => {
    const garbled = await peer('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    assert.equal(garbled.exitCode, 1)
    assert.match(garbled.stdout, /cannot be read\n +PEM block 1: /)
    const key = await peer((await authority.svid('web')).privateKeyPem)
    assert.match(key.stdout, /it has no CERTIFICATE block/)
    const missing = await check('--peer', file('nowhere'))
    assert.equal(missing.exitCode, 1)
    assert.match(missing.stderr, /nowhere: cannot be read: there is no such file/)
  })
})

describe('postern check --forward', () => {
  const forwardTo = (path: string): Promise<CommandResult> => check('--forward', `unix:${path}`)

  it('refuses a directory in the place of a socket, which no workload could change', async () => {
    const { exitCode, stderr } = await forwardTo(directory)
    assert.equal(exitCode, 2)
    assert.match(stderr, /error: inbound\.forward: \S+ is a directory, not a socket\n +name the/)
  })

  it('warns of a file that is no socket, and says nothing of one that is still to come', async () => {
    const { exitCode, stderr } = await forwardTo(file('tls.crt'))
    assert.equal(exitCode, 0)
    assert.match(stderr, /warning: inbound\.forward: \S+tls\.crt is a file, not a socket/)
    await symlink(file('loop'), file('loop'))
    const loop = await forwardTo(file('loop'))
    assert.equal(loop.exitCode, 0)
    assert.match(loop.stderr, /warning: inbound\.forward: cannot be looked at: ELOOP/)
    const absent = await forwardTo(file('workload.sock'))
    assert.deepEqual([absent.exitCode, absent.stderr], [0, ''])
  })
})

describe('postern check --chain', () => {
  it('describes what clients are shown, and what they need for it', async () => {
    const { exitCode, stdout } = await check('--chain')
    assert.equal(exitCode, 0)
    assert.match(stdout, /tls\.crt: the chain that clients are shown\n {2}1\. leaf .*sa\/orders/)
    assert.match(stdout, /clients need, as a trusted root: CN=example\.org root/)
  })
})
