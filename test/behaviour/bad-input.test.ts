// What `run` and `check` say to things that cannot work: one exit code, each problem with its place
// and its remedy, never a stack trace.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { before, describe, it } from 'node:test'
import { stringify } from 'yaml'
import { suiteCleanup } from '../support/cleanup.ts'
import { type CommandResult, MAIN, postern } from '../support/command.ts'
import {
  type TestAuthority,
  temporaryDirectory,
  testAuthority,
  writeFiles,
} from '../support/pki.ts'

interface Case {
  readonly name: string
  /** In place of sections of a configuration that works. */
  readonly sections?: (file: (name: string) => string) => Record<string, unknown>
  readonly args?: readonly string[]
  /** Each has to be in what is said. */
  readonly says: readonly RegExp[]
  readonly problems?: number
}

const CASES: readonly Case[] = [
  {
    name: 'a misspelt key',
    sections: () => ({ inbuond: { listen: ':8443' } }),
    says: [/inbuond \(.*postern\.yaml:\d+:\d+\)/, /inbound/],
  },
  {
    name: 'a key that is not of the certificate',
    sections: (file) => ({
      identity: { certificate: file('tls.crt'), privateKey: file('other.key') },
    }),
    says: [/other\.key/, /belong/],
  },
  {
    name: 'an empty credential bundle',
    sections: (file) => ({ identity: { credentialBundle: file('empty') } }),
    says: [/empty is empty/],
  },
  {
    name: 'an empty policy bundle',
    sections: (file) => ({ policy: { bundle: file('empty') } }),
    says: [/policy\.bundle/, /is empty/],
  },
  {
    name: 'a policy bundle that is no archive',
    sections: (file) => ({ policy: { bundle: file('ca.crt') } }),
    says: [/ca\.crt/, /opa build/],
  },
  {
    name: 'an empty trust file',
    sections: (file) => ({ trust: { bundles: [{ file: file('empty') }] } }),
    says: [/trust\.bundles\[0\]\.file/, /is empty/],
  },
  {
    name: 'a trust file without a certificate',
    sections: (file) => ({ trust: { bundles: [{ file: file('tls.key') }] } }),
    says: [/tls\.key/, /private key/],
  },
  {
    name: 'a directory in place of a file',
    sections: (file) => ({ trust: { bundles: [{ file: file('directory') }] } }),
    says: [/directory is a directory/, /name a file in it/],
  },
  {
    name: 'a file that is not there',
    sections: (file) => ({ identity: { certificate: file('nope'), privateKey: file('tls.key') } }),
    says: [/identity\.certificate/, /nope does not exist/],
  },
  {
    name: 'no access rule at all',
    sections: () => ({ allow: undefined }),
    says: [/allow/, /no access rule/],
  },
  {
    name: 'an unknown flag',
    args: ['--polcy', 'x'],
    says: [/unknown option '--polcy'/, /--policy/],
  },
  { name: 'a flag without its value', args: ['--listen'], says: [/--listen/, /missing/, /--help/] },
  { name: 'a word too many', args: ['now'], says: [/now/, /--help/] },
  {
    name: 'a flag with a value that cannot be',
    args: ['--listen', 'localhost:99999'],
    says: [/--listen/],
  },
  {
    name: 'a workload on another host',
    args: ['--forward', 'http://192.0.2.1:80'],
    says: [/--forward/, /unsafe-forward/],
  },
]

describe('bad input', () => {
  const t = suiteCleanup()
  let directory: string
  let authority: TestAuthority
  const file = (name: string): string => join(directory, name)

  before(async () => {
    directory = await temporaryDirectory(t)
    authority = await testAuthority()
    const own = await authority.svid('orders')
    const other = await authority.svid('other')
    await writeFiles(directory, {
      'tls.crt': own.chainPem,
      'tls.key': own.privateKeyPem,
      'other.key': other.privateKeyPem,
      'ca.crt': authority.root.certificatePem,
      empty: '',
    })
    await mkdir(file('directory'))
  })

  function configuration(sections: Record<string, unknown> = {}): Record<string, unknown> {
    return {
      inbound: { listen: '127.0.0.1:0', forward: 'http://127.0.0.1:9' },
      identity: { certificate: file('tls.crt'), privateKey: file('tls.key') },
      trust: { bundles: [{ file: file('ca.crt') }] },
      allow: [{ all: true }],
      admin: { listen: '127.0.0.1:0' },
      metrics: { listen: '127.0.0.1:0' },
      ...sections,
    }
  }

  async function attempt(
    command: 'run' | 'check',
    sections: Record<string, unknown> = {},
    args: readonly string[] = [],
  ): Promise<CommandResult> {
    const config = file(`${command}-postern.yaml`)
    await writeFile(config, stringify(configuration(sections)))
    return postern([command, '--config', config, ...args])
  }

  function refused(result: CommandResult, says: readonly RegExp[]): void {
    const { exitCode, stdout, stderr } = result
    assert.equal(exitCode, 2, stderr)
    for (const pattern of says) assert.match(stderr, pattern)
    assert.match(stderr, /^error: /)
    assert.doesNotMatch(stderr, /\n\s+at .*(:\d+:\d+|node:)/)
    assert.doesNotMatch(stdout, /"event":"ready"|ok:/)
  }

  for (const { name, sections, args, says } of CASES) {
    it(`is refused by run and check: ${name}`, async () => {
      const results = await Promise.all([
        attempt('run', sections?.(file), args),
        attempt('check', sections?.(file), args),
      ])
      for (const result of results) refused(result, says)
      const [run, check] = results.map(({ stderr }) => stderr.match(/^error: /gm)?.length)
      assert.deepEqual([run, check], [1, 1])
    })
  }

  it('is refused by run and check: a configuration file that is not there', async () => {
    for (const command of ['run', 'check']) {
      refused(await postern([command, '--config', file('none.yaml')]), [
        /none\.yaml: does not exist/,
      ])
    }
  })

  it('is refused by run and check: a file that may not be read', async (context) => {
    if (process.getuid?.() === 0) return context.skip('root may read everything')
    await chmod(file('other.key'), 0)
    const sections = { identity: { certificate: file('tls.crt'), privateKey: file('other.key') } }
    refused(await attempt('check', sections), [/may not be read/, /fsGroup/])
  })

  it('reports an own certificate that has expired', async () => {
    const expired = await authority.svid('orders', {
      notBefore: new Date(Date.now() - 120_000),
      notAfter: new Date(Date.now() - 60_000),
    })
    await writeFiles(directory, { 'old.crt': expired.chainPem, 'old.key': expired.privateKeyPem })
    const identity = { certificate: file('old.crt'), privateKey: file('old.key') }
    const { stderr } = await attempt('check', { identity })
    assert.match(stderr, /old\.crt: .*outside its validity/)
    assert.match(stderr, /\d{4}-\d\d-\d\dT.*\d{4}-\d\d-\d\dT/s)
  })

  it('is told all at once by check, wherever it is', async () => {
    const { exitCode, stderr } = await attempt(
      'check',
      {
        inbuond: {},
        drain: { timeout: 'soon' },
        identity: { certificate: file('tls.crt'), privateKey: file('other.key') },
        trust: {
          bundles: [{ file: file('ca.crt') }, { file: file('nope') }],
          crls: [file('none')],
        },
        policy: { bundle: file('empty') },
      },
      ['--workers', 'many'],
    )
    assert.equal(exitCode, 2)
    for (const place of [
      /inbuond/,
      /drain\.timeout/,
      /--workers/,
      /other\.key/,
      /nope does not exist/,
      /none does not exist/,
      /policy\.bundle/,
    ]) {
      assert.match(stderr, place)
    }
    assert.match(stderr, /7 problems; `postern run` would not start/)
  })

  describe('that run has much to say about', () => {
    const KEYS = 3_000
    const args = async (): Promise<string[]> => {
      const unknown = Object.fromEntries(
        Array.from({ length: KEYS }, (_, i) => [`unknown${i}`, 'x'.repeat(60)]),
      )
      await writeFile(file('many.yaml'), stringify(configuration(unknown)))
      return [MAIN, 'run', '--config', file('many.yaml')]
    }

    it('is told to the end, to a pipe that is read late too', async () => {
      const child = spawn(process.execPath, await args(), { stdio: ['ignore', 'ignore', 'pipe'] })
      t.after(() => child.kill('SIGKILL'))
      const exited = once(child, 'close')
      // Not before as much is there as the stream takes by itself.
      await once(child.stderr, 'readable')
      const told = await text(child.stderr)
      assert.equal(told.match(/^error: /gm)?.length, KEYS)
      assert.deepEqual(await exited, [2, null])
    })

    it('ends it all the same where nobody reads, or the reader has gone', async () => {
      for (const gone of [false, true]) {
        const child = spawn(process.execPath, await args(), { stdio: ['ignore', 'ignore', 'pipe'] })
        t.after(() => child.kill('SIGKILL'))
        if (gone) child.stderr.destroy()
        assert.deepEqual(await once(child, 'exit'), [2, null])
      }
    })
  })

  describe('to run where the system lets there be no thread', () => {
    const env = {
      NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(`
        import threads from 'node:worker_threads'
        import { syncBuiltinESMExports } from 'node:module'
        threads.Worker = class { constructor() { throw new Error('EAGAIN') } }
        syncBuiltinESMExports()`)}`,
    }

    it('is told as it is elsewhere', async () => {
      await writeFile(file('no-thread.yaml'), stringify(configuration({ inbuond: {} })))
      const args = ['run', '--config', file('no-thread.yaml')]
      const { exitCode, stderr } = await postern(args, { env })
      assert.match(stderr, /^error: inbuond/)
      assert.doesNotMatch(stderr, /EAGAIN/)
      assert.equal(exitCode, 2)
    })

    it('is not to blame for that, and the thread is all that is told of', async () => {
      await writeFile(file('no-thread.yaml'), stringify(configuration()))
      const args = ['run', '--config', file('no-thread.yaml')]
      const { exitCode, stderr } = await postern(args, { env })
      assert.match(stderr, /^error: workers: a data thread .*: EAGAIN\n {2}.*ulimit.*\n$/)
      assert.equal(exitCode, 1)
    })
  })

  it('is nothing that check finds in what works', async () => {
    const { exitCode, stdout, stderr } = await attempt('check')
    assert.deepEqual([exitCode, stdout, stderr], [0, 'ok: `postern run` would start\n', ''])
  })
})

describe('the command line', () => {
  it('names the commands to someone who misspells one', async () => {
    const { exitCode, stderr } = await postern(['chek'])
    assert.equal(exitCode, 2)
    assert.match(stderr, /unknown command 'chek'/)
    assert.match(stderr, /Did you mean check\?|--help/)
  })

  it('shows its help to someone who says nothing, as wrong usage', async () => {
    const { exitCode, stderr } = await postern([])
    assert.equal(exitCode, 2)
    assert.match(stderr, /Usage: postern/)
  })

  for (const command of ['run', 'check', 'demo', 'pki', 'call']) {
    it(`shows an example of ${command} in its help`, async () => {
      const { exitCode, stdout } = await postern([command, '--help'])
      assert.equal(exitCode, 0)
      assert.match(stdout, new RegExp(`Examples?:\\n\\s+postern ${command}`))
      assert.equal((await postern(['help', command])).stdout, stdout)
    })
  }
})
