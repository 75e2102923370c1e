// What clients write cannot make a log line, change another, or speak to the terminal of who reads it.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, openClient, post } from '../support/http1.ts'
import { temporaryDirectory } from '../support/pki.ts'
import { startSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const LINE =
  '{"level":"info","event":"access","status":200,"principal":"spiffe://example.org/admin"}'
/** Clears a terminal, turns text round, begins a line: as a client can bring it into a decision. */
const REQUESTS = [
  get('/api/%c2%9b2J/%e2%80%ae/%7f'),
  get(`/api/?q=%1b%5B2J%0a${encodeURIComponent(LINE)}&r=%e2%80%a8`),
  get('/api/%22,%22outcome%22:%22allow', 'X-Request-Id: a","outcome":"allow\r\nX-A: "}\r\n'),
  post('/api/', `\n${LINE}\n\u001b[2J`, 'Content-Type: application/x-www-form-urlencoded\r\n'),
]

describe('the logs', () => {
  const t = suiteCleanup()

  it('have one line of plain characters for each request, whatever is in it', async () => {
    const workload = await startWorkload(t)
    const file = join(await temporaryDirectory(t), 'decisions.log')
    const sidecar = await startSidecar(t, {
      forward: workload.url,
      config: { log: { access: 'all', decisions: 'all', decisionFile: file } },
    })
    const client = await openClient(t, sidecar, await sidecar.authority.svid('web'))
    for (const bytes of REQUESTS) {
      client.send(bytes)
      assert.equal((await client.answer()).status, 200)
    }
    const written = await eventually('every decision is written', () => {
      const text = readFileSync(file, 'utf8')
      return text.split('\n').length > REQUESTS.length ? text : undefined
    })
    assert.match(written, /^[ -~\n]+$/)
    const decisions = written
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    assert.equal(decisions.length, REQUESTS.length)
    assert.deepEqual(decisions[0].input.parsed_path, ['api', '\u009b2J', '\u202e', '\u007f'])
    assert.deepEqual(decisions[1].input.parsed_query, { q: [`\u001b[2J\n${LINE}`], r: ['\u2028'] })

    const requests = await eventually('every request is logged', () => {
      const lines = sidecar.lines.filter(({ event }) => event === 'access')
      return lines.length >= REQUESTS.length ? lines : undefined
    })
    assert.equal(requests.length, REQUESTS.length)
    assert.ok(sidecar.lines.every(({ level }) => level !== 'text'))
    const web = decisions[0].input.attributes.source.principal
    assert.ok(requests.every(({ principal }) => principal === web))
  })
})
