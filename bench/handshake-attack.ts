// What others feel of an attack with the dearest client certificates: the time from connect to the
// first answer on a new connection, calm and under attack, in interleaved rounds of the same run.
// node bench/handshake-attack.ts [SECONDS-PER-ROUND]
import { fork } from 'node:child_process'
import { once } from 'node:events'
import tls from 'node:tls'
import { fileURLToPath } from 'node:url'
import { costlyChain } from '../test/support/costly-chain.ts'
import { type IssuedCertificate, testAuthority } from '../test/support/pki.ts'
import { startSidecar, type TestSidecar } from '../test/support/sidecar.ts'
import { startWorkload } from '../test/support/workload.ts'

const ROUNDS = 3
const HONEST = '127.0.0.3'
/** By number of attacking addresses, each with connections as fast as it gets rid of the last one. */
const VARIANTS = [0, 1, 40] as const

interface Attack {
  readonly port: number
  readonly addresses: readonly string[]
  readonly chain: IssuedCertificate
}

if (process.send !== undefined) {
  process.once('message', (attack: Attack) => void attackForever(attack))
} else await main()

async function main(): Promise<void> {
  const roundMs = Number(process.argv[2] ?? 8) * 1000
  const chain = costlyChain()
  const latencies = new Map<number, number[]>(VARIANTS.map((variant) => [variant, []]))
  for (let round = 0; round < ROUNDS; round++) {
    for (const addresses of VARIANTS) {
      latencies.get(addresses)?.push(...(await measure(addresses, chain, roundMs)))
    }
  }
  const calmMean = mean(latencies.get(0) ?? [])
  for (const [addresses, all] of latencies) {
    all.sort((a, b) => a - b)
    const at = (share: number): string => (all[Math.floor(all.length * share)] ?? 0).toFixed(2)
    const figures = [
      `handshakes ${all.length}`,
      `p50 ${at(0.5)} ms`,
      `p90 ${at(0.9)} ms`,
      `p99 ${at(0.99)} ms`,
      `max ${(all.at(-1) ?? 0).toFixed(0)} ms`,
      `mean ${mean(all).toFixed(2)} ms (${(mean(all) / calmMean).toFixed(2)} of calm)`,
    ]
    console.log(`${String(addresses).padStart(2)} attacking addresses: ${figures.join(', ')}`)
  }
}

/** Milliseconds of each honest handshake; a sidecar of its own, so that no penalty is left over. */
async function measure(
  addresses: number,
  chain: IssuedCertificate,
  roundMs: number,
): Promise<number[]> {
  const cleanups: (() => unknown)[] = []
  const t = { after: (cleanup: () => unknown) => void cleanups.push(cleanup) }
  const authority = await testAuthority()
  const { url } = await startWorkload(t)
  const sidecar = await startSidecar(t, { forward: url, authority })
  const client = await authority.svid('web')
  for (let i = 0; i < 200; i++) await handshake(sidecar, client)
  if (addresses > 0) {
    const attacker = fork(fileURLToPath(import.meta.url))
    t.after(() => attacker.kill('SIGKILL'))
    const attack: Attack = {
      port: sidecar.port,
      addresses: Array.from({ length: addresses }, (_, i) => `127.0.2.${i + 1}`),
      chain,
    }
    attacker.send(attack)
    await once(attacker, 'message')
  }
  const latencies: number[] = []
  const until = performance.now() + roundMs
  while (performance.now() < until) latencies.push(await handshake(sidecar, client))
  for (const cleanup of cleanups.reverse()) await cleanup()
  return latencies
}

async function handshake(sidecar: TestSidecar, client: IssuedCertificate): Promise<number> {
  const options = { ...sidecar.clientOptions(client), localAddress: HONEST }
  const beganMs = performance.now()
  const socket = tls.connect(options as tls.ConnectionOptions)
  socket.write('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n')
  const [answer] = (await once(socket, 'data')) as [Buffer]
  const tookMs = performance.now() - beganMs
  if (!answer.toString('latin1').startsWith('HTTP/1.1 200 ')) throw new Error(String(answer))
  socket.destroy()
  return tookMs
}

async function attackForever({ port, addresses, chain }: Attack): Promise<void> {
  const secureContext = tls.createSecureContext({ cert: chain.chainPem, key: chain.privateKeyPem })
  const attackFrom = async (localAddress: string): Promise<never> => {
    for (;;) {
      const options = { host: '127.0.0.1', port, localAddress, secureContext }
      const socket = tls.connect({ ...options, rejectUnauthorized: false } as tls.ConnectionOptions)
      const closed = new Promise((resolve) => socket.once('close', resolve))
      socket.on('error', () => {}).resume()
      await closed
      // Flooding with connections is another attack: this one is about what each of them costs.
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
  process.send?.('begun')
  await Promise.all(addresses.map(attackFrom))
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}
