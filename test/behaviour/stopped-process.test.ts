// A process that got no processor for longer than its timeouts, as in a paused container: what has come
// meanwhile was in time.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import { get, openClient, post } from '../support/http1.ts'
import { ask, openSession } from '../support/http2.ts'
import { startSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

const TIMEOUT_MS = 1_500

describe('a process that was stopped', () => {
  const t = suiteCleanup()

  it('takes no answer and no request for late that came meanwhile', async () => {
    const waiting: (() => void)[] = []
    const { url } = await startWorkload(t, (_, response) => {
      waiting.push(() => response.end('in time'))
    })
    const sidecar = await startSidecar(t, {
      forward: url,
      config: {
        inbound: {
          timeouts: {
            upstreamResponse: `${TIMEOUT_MS}ms`,
            requestBody: `${TIMEOUT_MS}ms`,
            idle: `${TIMEOUT_MS}ms`,
          },
        },
      },
    })
    const web = await sidecar.authority.svid('web')
    const [one, two, idle] = await Promise.all([1, 2, 3].map(() => openClient(t, sidecar, web)))
    assert.ok(one && two && idle)
    const session = await openSession(t, sidecar, web)
    for (let round = 0; round < 2; round++) {
      one.send(get('/'))
      const stream = ask(session)
      two.send('POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\nha')
      await eventually('both have come', () => waiting.length === 2)
      sidecar.signal('SIGSTOP')
      await eventually('it has stopped', async () =>
        (await readFile(`/proc/${sidecar.pid}/stat`, 'latin1')).includes(') T '),
      )
      two.send('lf')
      idle.send(post('/', 'x'))
      for (const answer of waiting.splice(0)) answer()
      // The time is the point: twice what anything may take.
      await setTimeout(2 * TIMEOUT_MS)
      sidecar.signal('SIGCONT')
      assert.equal(String((await one.answer()).body), 'in time')
      assert.equal((await stream).status, 200)
      await eventually('the others have come', () => waiting.length === 2)
      for (const answer of waiting.splice(0)) answer()
      assert.equal(String((await two.answer()).body), 'in time')
      assert.equal(String((await idle.answer()).body), 'in time')
    }
  })
})
