// A tunnel whose client ends its side and breaks off in the same breath: the workload's connection ends
// with it, and its descriptor is given back.
import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { before, describe, it } from 'node:test'
import { assertUnharmed } from '../support/bystander.ts'
import { suiteCleanup } from '../support/cleanup.ts'
import { eventually } from '../support/eventually.ts'
import type { IssuedCertificate } from '../support/pki.ts'
import { data, head, openRawHttp2, resetStreamFrame } from '../support/raw-http2.ts'
import { startSidecar, type TestSidecar } from '../support/sidecar.ts'
import { startWebSocketWorkload, type WebSocketWorkload } from '../support/websocket.ts'

const TUNNELS = 40
const CANCEL = 8
const CONNECT = [
  ...[':method', 'CONNECT', ':protocol', 'websocket', ':scheme', 'https'],
  ...[':authority', 'localhost', ':path', '/socket', 'sec-websocket-version', '13'],
]

describe('WebSockets over HTTP/2 whose client ends and resets them at once', () => {
  const t = suiteCleanup()
  let sidecar: TestSidecar
  let workload: WebSocketWorkload
  let web: IssuedCertificate
  before(async () => {
    workload = await startWebSocketWorkload(t)
    sidecar = await startSidecar(t, { forward: workload.url })
    web = await sidecar.authority.svid('web')
  })

  const descriptors = async (): Promise<number> => (await readdir(`/proc/${sidecar.pid}/fd`)).length

  it('give back every descriptor', async (test) => {
    const raw = await openRawHttp2(test, sidecar, web)
    const before = await descriptors()
    const ids = Array.from({ length: TUNNELS }, (_, i) => 2 * i + 1)
    raw.send(...ids.map((id) => head(id, CONNECT, false)))
    await eventually('all are open', () => workload.ends.length === TUNNELS)
    await eventually('and known to be', () => ids.every((id) => raw.answer(id).status === 200))
    // One TLS record for each: the end of the stream and its reset are read together.
    for (const id of ids) raw.send(data(id, '', true), resetStreamFrame(id, CANCEL))
    await eventually('the workload has lost them', () =>
      workload.ends.every(({ closed }) => closed),
    )
    await eventually('nothing is left of them', async () => (await descriptors()) <= before)
    assert.equal(raw.over, false)
    raw.socket.destroy()
  })

  it('leave nothing behind', () => assertUnharmed(sidecar, { upstream: 0 }))
})
