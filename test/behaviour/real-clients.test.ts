// The clients that people have at hand, as their own processes: curl, nghttp, h2load, openssl s_client.
// Each is skipped where it is not installed; CI installs them all.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { suiteCleanup } from '../support/cleanup.ts'
import { writeFiles } from '../support/pki.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWorkload, type Workload } from '../support/workload.ts'

const run = promisify(execFile)
/** More than any window or buffer on the way. */
const UPLOAD_BYTES = 3_000_017

const sum = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

async function installed(t: TestContext, program: string, ask: string): Promise<boolean> {
  try {
    await run(program, [ask])
    return true
  } catch {
    t.skip(`${program} is not installed`)
    return false
  }
}

describe('a client that is a program of its own', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let workload: Workload
  let origin: string
  let files: Record<'web.crt' | 'web.key' | 'ca.crt', string>
  let upload: string
  const uploaded = randomBytes(UPLOAD_BYTES)

  before(async () => {
    workload = await startWorkload(t, ({ method, body, url }, response) => {
      if (method === 'POST') response.setHeader('x-sum', sum(body))
      response.end(url === '/big' ? uploaded : `answer to ${method} ${url}`)
    })
    sidecar = await startSidecar(t, { forward: workload.url })
    origin = `https://localhost:${sidecar.port}`
    const web = await sidecar.authority.svid('web')
    files = await writeFiles(sidecar.directory, {
      'web.crt': web.chainPem,
      'web.key': web.privateKeyPem,
      'ca.crt': sidecar.authority.root.certificatePem,
    })
    upload = join(sidecar.directory, 'upload')
    await writeFile(upload, uploaded)
  })

  const curl = async (...args: string[]): Promise<Buffer> => {
    const identity = ['--cert', files['web.crt'], '--key', files['web.key']]
    const { stdout } = await run(
      'curl',
      ['-sS', '--cacert', files['ca.crt'], ...identity, ...args],
      {
        encoding: 'buffer',
        maxBuffer: 2 * UPLOAD_BYTES,
      },
    )
    return stdout
  }

  for (const version of ['--http1.1', '--http2']) {
    it(`curl ${version} sends and gets large bodies whole`, async (t) => {
      if (!(await installed(t, 'curl', '--version'))) return
      const fields = (
        await curl(
          version,
          '-D',
          '-',
          '-o',
          '/dev/null',
          '--data-binary',
          `@${upload}`,
          `${origin}/up`,
        )
      ).toString()
      assert.match(fields, version === '--http2' ? /^HTTP\/2 200/ : /^HTTP\/1.1 200/m)
      assert.equal(/^x-sum: (\S+)/im.exec(fields)?.[1], sum(uploaded))
      assert.equal(sum(await curl(version, `${origin}/big`)), sum(uploaded))
    })

    it(`curl ${version} sends a body of unknown length`, async (t) => {
      if (!(await installed(t, 'curl', '--version'))) return
      const fields = (
        await curl(
          version,
          '-D',
          '-',
          '-o',
          '/dev/null',
          '-X',
          'POST',
          '-T',
          upload,
          `${origin}/up`,
        )
      ).toString()
      assert.equal(/^x-sum: (\S+)/im.exec(fields)?.[1], sum(uploaded))
    })
  }

  it('curl --http1.0, which says so in its handshake, is answered', async (t) => {
    if (!(await installed(t, 'curl', '--version'))) return
    const seen = workload.seen.length
    assert.equal(String(await curl('--http1.0', `${origin}/old`)), 'answer to GET /old')
    assert.equal(workload.seen.length, seen + 1)
  })

  it('curl without a certificate gets nothing', async (t) => {
    if (!(await installed(t, 'curl', '--version'))) return
    const seen = workload.seen.length
    const { stdout } = await run('curl', [
      '-s',
      '--cacert',
      files['ca.crt'],
      `${origin}/none`,
    ]).catch((error: { stdout: string }) => error)
    assert.doesNotMatch(stdout, /answer to/)
    assert.equal(workload.seen.length, seen)
  })

  const nghttp = async (...args: string[]): Promise<string> => {
    const identity = [`--cert=${files['web.crt']}`, `--key=${files['web.key']}`, '-y']
    // It prints every header field that it sends.
    const maxBuffer = 64 * 1024 * 1024
    return (await run('nghttp', ['-v', '-n', ...identity, ...args], { maxBuffer })).stdout
  }

  it('nghttp asks many times on one connection, with bodies and padding', async (t) => {
    if (!(await installed(t, 'nghttp', '--version'))) return
    const seen = workload.seen.length
    const body = `--data=${files['ca.crt']}`
    const said = await nghttp('--multiply=50', '--padding=100', body, `${origin}/many`)
    assert.equal(said.match(/:status: 200/g)?.length, 50)
    assert.doesNotMatch(said, /RST_STREAM/)
    assert.equal(workload.seen.length - seen, 50)
  })

  it('nghttp is told that a head in many CONTINUATION frames is too large', async (t) => {
    if (!(await installed(t, 'nghttp', '--version'))) return
    const seen = workload.seen.length
    const said = await nghttp('--continuation', '--multiply=3', `${origin}/continued`)
    assert.equal(said.match(/:status: 431/g)?.length, 3)
    assert.equal(workload.seen.length, seen)
  })

  it('h2load, which has no certificate, is let in by nothing but an unsafe option', async (t) => {
    if (!(await installed(t, 'h2load', '--version'))) return
    const seen = workload.seen.length
    const { stdout } = await run('h2load', ['-n', '100', '-c', '2', '-m', '10', `${origin}/load`])
    assert.match(stdout, /status codes: 0 2xx/)
    assert.equal(workload.seen.length, seen)
  })

  it('openssl s_client sees TLS 1.3 with its certificate asked for, and an answer', async (t) => {
    if (!(await installed(t, 'openssl', 'version'))) return
    const said = await new Promise<string>((resolve, reject) => {
      const child = execFile(
        'openssl',
        [
          ...['s_client', '-connect', `127.0.0.1:${sidecar.port}`, '-servername', 'localhost'],
          ...['-CAfile', files['ca.crt'], '-cert', files['web.crt'], '-key', files['web.key']],
          ...['-cert_chain', files['web.crt'], '-ign_eof', '-verify_return_error'],
        ],
        (error, stdout) => (error === null ? resolve(stdout) : reject(error)),
      )
      child.stdin?.write('GET /s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
    })
    assert.match(said, /TLSv1\.3/)
    assert.match(said, /Verify return code: 0 \(ok\)/)
    assert.match(said, /answer to GET \/s/)
  })
})
