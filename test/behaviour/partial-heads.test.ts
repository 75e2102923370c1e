// A head that comes byte by byte, each in a TLS record of its own: what has been looked at before costs nothing
// again, and others are served meanwhile.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { describe, it } from 'node:test'
import { suiteCleanup } from '../support/cleanup.ts'
import { get, openClient } from '../support/http1.ts'
import { openRawTls } from '../support/raw-tls.ts'
import { startSidecar } from '../support/sidecar.ts'
import { startWorkload } from '../support/workload.ts'

/** Most of what a head may have, in the shortest lines that there are. */
const HEAD = `GET / HTTP/1.1\r\nhost: localhost\r\n${'a:\r\n'.repeat(7_000)}x: `
/** What node reads at once, about. */
const RECORDS = 2_700
const CLIENTS = 8

describe('the head of a request that comes in records of a byte', () => {
  const t = suiteCleanup()

  it('does not keep others from being served, nor the data thread from living', async () => {
    const { url } = await startWorkload(t)
    const sidecar = await startSidecar(t, { forward: url, config: { log: { decisions: 'off' } } })
    const calm = await openClient(t, sidecar, await sidecar.authority.svid('calm'))
    const certificate = await sidecar.authority.svid('slow')
    const clients = await Promise.all(
      Array.from({ length: CLIENTS }, () => openRawTls(t, sidecar, certificate, ['http/1.1'])),
    )
    for (const { socket, records } of clients) {
      const parts = [HEAD.slice(0, 15_000), HEAD.slice(15_000)]
      socket.write(Buffer.concat(parts.map((part) => records.data(part))))
    }
    calm.send(get('/'))
    assert.equal((await calm.answer()).status, 200)
    const answers = clients.map(async ({ socket, records }) => {
      const tail = Array.from({ length: RECORDS }, () => records.data('y'))
      socket.write(Buffer.concat([...tail, records.data('\r\n\r\n')]))
      await once(socket, 'data')
    })
    let answered = false
    const all = Promise.all(answers).then(() => (answered = true))
    while (!answered) {
      calm.send(get('/'))
      assert.equal((await calm.answer()).status, 200)
    }
    await all
    assert.deepEqual(
      sidecar.lines.filter(({ event }) => event === 'data_thread_restart'),
      [],
    )
  })
})
