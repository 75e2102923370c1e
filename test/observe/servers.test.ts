import assert from 'node:assert/strict'
import fs from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { after, afterEach, test } from 'node:test'
import type { Address } from '../../src/config/config.ts'
import type { Problem } from '../../src/errors.ts'
import { type AdminFacade, startAdmin } from '../../src/observe/admin.ts'
import { DecisionRing } from '../../src/observe/decision-ring.ts'
import { type HealthFacade, type ReadyPart, startMetricsServer } from '../../src/observe/health.ts'
import { isRunning, type RunningServer } from '../../src/observe/server.ts'
import { ask, decisionRecord, until } from './support.ts'

const LOOPBACK: Address = { kind: 'tcp', host: '127.0.0.1', port: 0 }
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'postern-servers-'))
const open: RunningServer[] = []
afterEach(async () => {
  for (const server of open.splice(0)) await server.close()
})
after(() => fs.rmSync(directory, { recursive: true }))

async function running(start: Promise<RunningServer | Problem>): Promise<Address> {
  const server = await start
  assert.ok(isRunning(server), JSON.stringify(server))
  open.push(server)
  return server.address
}

const health = (changes: Partial<HealthFacade> = {}) =>
  running(
    startMetricsServer(LOOPBACK, {
      metrics: async () => 'postern_x 1\n',
      ready: () => ({ parts: [{ name: 'snapshot', ready: true }], details: {} }),
      started: () => true,
      ...changes,
    }),
  )

function adminFacade(changes: Partial<AdminFacade> = {}): AdminFacade {
  const decisions = new DecisionRing()
  for (const [id, outcome, principal] of [
    ['d-1', 'deny', 'spiffe://a/x'],
    ['d-2', 'allow', 'spiffe://a/y'],
    ['d-3', 'deny', 'spiffe://a/y'],
  ] as const) {
    const json = JSON.stringify({ decision_id: id, custom: { outcome } })
    const record = decisionRecord({ decisionId: id, outcome, principal })
    decisions.add({ id, outcome, principal, json, record })
  }
  return {
    config: () => 'workers: 1\n',
    snapshot: () => ({ generation: 7 }),
    decisions,
    reconsider: ({ decisionId }) => ({ active: { outcome: 'allow', asked: decisionId } }),
    reload: async () => ({ ok: true, generation: 8, problems: [] }),
    drain: () => {},
    policy: { rollback: async () => ({ ok: true }), promote: async () => ({ ok: true }) },
    ...changes,
  }
}

const admin = (changes: Partial<AdminFacade> = {}) =>
  running(startAdmin(LOOPBACK, adminFacade(changes)))

test('metrics are served as Prometheus text; HEAD gives the same headers and no body', async () => {
  const address = await health()
  const got = await ask(address, '/metrics')
  assert.equal(got.status, 200)
  assert.equal(got.text, 'postern_x 1\n')
  assert.equal(got.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8')
  const head = await ask(address, '/metrics', { method: 'HEAD' })
  assert.equal(head.status, 200)
  assert.equal(head.text, '')
  assert.equal(head.headers['content-length'], '12')
})

test('readiness names what is not ready and gives the details', async () => {
  let parts: ReadyPart[] = [
    { name: 'snapshot', ready: true },
    { name: 'data_threads', ready: false, reason: 'thread 1 has not applied generation 3' },
  ]
  const details = { last_reload_failure: { policy: 'no entrypoint' } }
  const address = await health({ ready: () => ({ parts, details }) })
  const no = await ask(address, '/readyz')
  assert.equal(no.status, 503)
  const body = JSON.parse(no.text)
  assert.deepEqual(body.not_ready, ['data_threads'])
  assert.equal(body.parts[1].reason, 'thread 1 has not applied generation 3')
  assert.deepEqual(body.details, details)
  parts = [{ name: 'snapshot', ready: true }]
  assert.equal((await ask(address, '/readyz')).status, 200)
  parts = []
  assert.equal((await ask(address, '/readyz')).status, 503, 'nothing checked is not ready')
})

test('liveness does not depend on readiness, start-up is its own question', async () => {
  let started = false
  const address = await health({
    ready: () => ({ parts: [], details: {} }),
    started: () => started,
  })
  assert.equal((await ask(address, '/livez')).status, 200)
  assert.equal((await ask(address, '/startupz')).status, 503)
  started = true
  assert.equal((await ask(address, '/startupz')).status, 200)
})

test('unknown paths are 404, other methods 405 with Allow', async () => {
  const address = await health()
  assert.equal((await ask(address, '/nope')).status, 404)
  assert.equal((await ask(address, '/metrics/')).status, 404)
  assert.equal((await ask(address, '/config')).status, 404, 'no admin route on this listener')
  const post = await ask(address, '/livez', { method: 'POST', body: 'x' })
  assert.equal(post.status, 405)
  assert.equal(post.headers['allow'], 'GET, HEAD')
  assert.equal(post.headers['connection'], 'close', 'a body that is not read ends the connection')
})

test('a handler that throws gives 500 without the reason, and the server goes on', async () => {
  const faults: unknown[] = []
  const address = await health({
    metrics: () => Promise.reject(new Error('inner detail')),
    fault: (error) => faults.push(error),
  })
  const got = await ask(address, '/metrics')
  assert.equal(got.status, 500)
  assert.ok(!got.text.includes('inner detail'))
  assert.equal(faults.length, 1)
  const unprintable = await admin({ snapshot: () => ({ big: 1n }) })
  assert.equal((await ask(unprintable, '/snapshot')).status, 500)
  assert.equal((await ask(address, '/livez')).status, 200)
})

/** Connections that asked once and stay; as many of them as are still open. */
async function held(port: number, localAddress: string, count: number): Promise<net.Socket[]> {
  const sockets = Array.from({ length: count }, () => {
    const socket = net.connect({ host: '127.0.0.1', port, localAddress })
    socket.on('error', () => {}).resume()
    socket.write('GET /livez HTTP/1.1\r\nHost: a\r\n\r\n')
    return socket
  })
  after(() => {
    for (const socket of sockets) socket.destroy()
  })
  const settled = (socket: net.Socket) => socket.closed || socket.bytesRead > 0
  await until(() => sockets.every(settled))
  return sockets.filter((socket) => !socket.closed)
}

const onLinux = process.platform === 'linux' ? false : 'only Linux has all of 127.0.0.0/8'

test('who sends a second request before the first is answered is cut', async () => {
  let asked = 0
  const address = await health({
    metrics: () => {
      asked++
      return Promise.resolve('postern_x 1\n')
    },
  })
  assert.ok(address.kind === 'tcp')
  const socket = net.connect(address.port, '127.0.0.1')
  after(() => socket.destroy())
  socket.on('error', () => {}).resume()
  socket.write('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(1_000))
  await until(() => socket.closed)
  assert.equal(asked, 1)
  assert.equal((await ask(address, '/metrics')).status, 200)
})

test('one after the other they are answered on one connection', async () => {
  const address = await health()
  assert.ok(address.kind === 'tcp')
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  after(() => agent.destroy())
  const ports = new Set<number | undefined>()
  for (let i = 0; i < 20; i++) {
    await new Promise<void>((resolve, reject) => {
      const options = { host: '127.0.0.1', port: address.port, path: '/metrics', agent }
      http
        .get(options, (response) => {
          ports.add(response.socket.localPort)
          response.resume().on('end', resolve)
        })
        .on('error', reject)
    })
  }
  assert.equal(ports.size, 1)
})

test('who holds many connections to the metrics keeps no kubelet out', {
  skip: onLinux,
}, async () => {
  const address = await health()
  assert.ok(address.kind === 'tcp')
  const one = await held(address.port, '127.0.0.2', 200)
  assert.ok(one.length <= 32, `${one.length} of one address`)
  // Several together: then those that are idle give way.
  for (let host = 3; host < 12; host++) await held(address.port, `127.0.0.${host}`, 32)
  assert.equal((await ask(address, '/livez')).status, 200)
})

test('admin shows configuration and snapshot', async () => {
  const address = await admin()
  const config = await ask(address, '/config')
  assert.equal(config.text, 'workers: 1\n')
  assert.match(config.headers['content-type'] ?? '', /yaml/)
  assert.deepEqual(JSON.parse((await ask(address, '/snapshot')).text), { generation: 7 })
})

test('admin lists decisions newest first, filters them, and shows one', async () => {
  const address = await admin()
  const ids = async (query: string) =>
    JSON.parse((await ask(address, `/decisions${query}`)).text).decisions.map(
      (one: { decision_id: string }) => one.decision_id,
    )
  assert.deepEqual(await ids(''), ['d-3', 'd-2', 'd-1'])
  assert.deepEqual(await ids('?limit=1'), ['d-3'])
  assert.deepEqual(await ids('?outcome=deny'), ['d-3', 'd-1'])
  assert.deepEqual(await ids('?principal=spiffe%3A%2F%2Fa%2Fy&outcome=allow'), ['d-2'])
  assert.deepEqual(JSON.parse((await ask(address, '/decisions/d-1')).text), {
    decision: { decision_id: 'd-1', custom: { outcome: 'deny' } },
    code: 'denied',
    why: 'The policy said no.',
    active: { outcome: 'allow', asked: 'd-1' },
  })
  assert.equal((await ask(address, '/decisions/none')).status, 404)
  for (const limit of ['0', '-1', '1001', 'x', '']) {
    assert.equal((await ask(address, `/decisions?limit=${limit}`)).status, 400, limit)
  }
})

test('reload reports success and failure, drain is accepted, later features say so', async () => {
  let drained = 0
  let ok = true
  const problems = [{ where: 'policy.bundle', what: 'no entrypoint', remedy: 'Build it with -e' }]
  const address = await admin({
    reload: async () => ({ ok, generation: 7, problems: ok ? [] : problems }),
    drain: () => drained++,
  })
  assert.equal((await ask(address, '/reload', { method: 'POST' })).status, 200)
  ok = false
  const failed = await ask(address, '/reload', { method: 'POST' })
  assert.equal(failed.status, 500)
  assert.deepEqual(JSON.parse(failed.text).problems, problems)
  assert.equal((await ask(address, '/drain', { method: 'GET' })).status, 405)
  assert.equal(drained, 0)
  assert.equal((await ask(address, '/drain', { method: 'POST' })).status, 202)
  assert.equal(drained, 1)
})

test('orders about policies are passed on, and refusals say why', async () => {
  const asked: (string | undefined)[] = []
  const refused = { ok: false, error: 'nothing_to_roll_back_to', detail: 'no other' } as const
  const address = await admin({
    policy: {
      rollback: async () => refused,
      promote: async (slot) => {
        asked.push(slot)
        return { ok: true }
      },
    },
  })
  const post = (path: string, headers = {}) => ask(address, path, { method: 'POST', headers })
  const rolledBack = await post('/policy/rollback')
  assert.equal(rolledBack.status, 409)
  assert.deepEqual(JSON.parse(rolledBack.text), refused)
  assert.equal((await post('/policy/promote')).status, 200)
  assert.equal((await post('/policy/promote?slot=held_back')).status, 200)
  assert.equal((await post('/policy/promote?slot=previous')).status, 400)
  assert.equal((await ask(address, '/policy/promote')).status, 405)
  for (const headers of [
    { origin: 'https://evil.example' },
    { 'sec-fetch-site': 'cross-site' },
    { host: 'evil.example' },
  ]) {
    assert.equal((await post('/policy/promote', headers)).status, 403)
  }
  assert.deepEqual(asked, [undefined, 'held_back'])
})

for (const host of ['evil.example', 'evil.example:80', '127.0.0.1.evil.example', '10.0.0.1']) {
  test(`a request for host "${host}" is refused: a rebound name could read the answer`, async () => {
    const address = await admin()
    assert.equal((await ask(address, '/config', { headers: { host } })).status, 403)
  })
}

test('a request without Host is refused', async () => {
  const address = await admin()
  assert.ok(address.kind === 'tcp')
  const socket = net.connect(address.port, address.host)
  socket.end('GET /config HTTP/1.0\r\n\r\n')
  const [first] = (await socket.toArray()).map(String)
  assert.match(first ?? '', /^HTTP\/1\.1 403 /)
})

for (const host of ['localhost', 'localhost:15000', '127.0.0.1:1', '127.8.8.8', '[::1]:15000']) {
  test(`a request for host ${host} is served`, async () => {
    const address = await admin()
    assert.equal((await ask(address, '/config', { headers: { host } })).status, 200)
  })
}

test('an order from a web page of another origin is refused and not carried out', async () => {
  let drained = 0
  const address = await admin({ drain: () => drained++ })
  assert.equal(address.kind, 'tcp')
  const host = `localhost:15000`
  for (const headers of [
    { host, origin: 'http://evil.example' },
    { host, origin: 'null' },
    { host, origin: 'http://localhost:3000' },
    { host, origin: 'https://localhost:15000' },
    { host, 'sec-fetch-site': 'cross-site' },
    { host, 'sec-fetch-site': 'same-site' },
  ]) {
    const got = await ask(address, '/drain', { method: 'POST', headers })
    assert.equal(got.status, 403, JSON.stringify(headers))
  }
  assert.equal(drained, 0)
  const own = { host, origin: `http://${host}`, 'sec-fetch-site': 'same-origin' }
  assert.equal((await ask(address, '/drain', { method: 'POST', headers: own })).status, 202)
})

test('admin refuses to listen where other hosts can reach it', async () => {
  for (const host of ['0.0.0.0', '::', '10.0.0.1', 'example.org']) {
    const problem = await startAdmin({ kind: 'tcp', host, port: 0 }, adminFacade())
    assert.ok(!isRunning(problem), host)
    assert.equal(problem.where, 'admin.listen')
  }
})

test('the console loads nothing from elsewhere and allows no inline code', async () => {
  const address = await admin()
  const page = await ask(address, '/')
  assert.equal(page.status, 200)
  assert.match(`${page.headers['content-security-policy']}`, /default-src 'none'/)
  assert.ok(!/https?:|<script>|<style>| on\w+=/.test(page.text))
  for (const asset of ['/console.js', '/console.css']) {
    assert.equal((await ask(address, asset)).status, 200)
  }
  assert.ok(!/innerHTML|eval|document\.write/.test((await ask(address, '/console.js')).text))
})

test('admin serves on a UNIX socket that only its user can open', async () => {
  const address: Address = { kind: 'unix', path: path.join(directory, 'admin.sock') }
  await running(startAdmin(address, adminFacade()))
  assert.equal((await ask(address, '/config')).status, 200)
  assert.equal(fs.statSync(address.path).mode & 0o777, 0o600)
})

test('a stale socket is replaced, a live one and another file are not', async () => {
  const address: Address = { kind: 'unix', path: path.join(directory, 'stale.sock') }
  // A server that dies without removing its socket: closing a renamed one leaves the file behind.
  const dead = net.createServer().listen(`${address.path}.before`)
  await new Promise((resolve) => dead.once('listening', resolve))
  fs.renameSync(`${address.path}.before`, address.path)
  await new Promise((resolve) => dead.close(resolve))
  assert.ok(fs.statSync(address.path).isSocket())
  await running(startAdmin(address, adminFacade()))

  const second = await startAdmin(address, adminFacade())
  assert.ok(!isRunning(second))
  assert.match(second.what, /in use/)
  assert.equal((await ask(address, '/config')).status, 200, 'the first one still answers')

  const file = path.join(directory, 'precious.txt')
  fs.writeFileSync(file, 'keep')
  const third = await startAdmin({ kind: 'unix', path: file }, adminFacade())
  assert.ok(!isRunning(third))
  assert.equal(fs.readFileSync(file, 'utf8'), 'keep')
})

test('a taken port and a missing directory are problems with a remedy', async () => {
  const address = await health()
  const facade = {
    metrics: async () => '',
    ready: () => ({ parts: [], details: {} }),
    started: () => true,
  }
  const taken = await startMetricsServer(address, facade)
  assert.ok(!isRunning(taken))
  assert.equal(taken.where, 'metrics.listen')
  assert.match(taken.what, /in use/)
  const nowhere = await startMetricsServer({ kind: 'unix', path: `${directory}/no/x.sock` }, facade)
  assert.ok(!isRunning(nowhere))
  assert.match(nowhere.what, /directory does not exist/)
  assert.notEqual(nowhere.remedy, '')
})
