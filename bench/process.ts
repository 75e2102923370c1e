// Processes that a benchmark starts: pinned to a processor, ended with it, and measured from /proc.
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'

/** The proxies have a processor to themselves; generator and workload share the rest. */
export const PROXY_CPU = 0
export const LOAD_CPU = 1
export const WORKLOAD_CPU = os.availableParallelism() > 2 ? 2 : 1

/** Of Node.js, as the image has it (Dockerfile). */
export const IMAGE_OPTIONS: readonly string[] = ['--v8-pool-size=0']
/** Of the process, as the image has it. */
export const IMAGE_ENVIRONMENT = { MALLOC_MMAP_THRESHOLD_: '65536' } as const

const canPin = os.availableParallelism() > 1 && isInstalled('taskset')

/** Spawns on one processor where the machine has more than one. */
export function spawnOn(
  cpu: number | undefined,
  program: string,
  args: readonly string[],
  options: SpawnOptions,
): ChildProcess {
  const child =
    canPin && cpu !== undefined
      ? spawn('taskset', ['-c', String(cpu), program, ...args], options)
      : spawn(program, args, options)
  running.add(child)
  child.once('exit', () => running.delete(child))
  return child
}

/** Moves all threads of a running process to these processors, where the machine has more than one. */
export function pin(pid: number, cpus: readonly number[]): void {
  if (canPin) spawnSync('taskset', ['-a', '-c', '-p', cpus.join(','), String(pid)])
}

/** All threads of a running process get only what no other process wants of a processor. */
export function runWhenIdle(pid: number): void {
  const { status } = spawnSync('chrt', ['--all-tasks', '--idle', '--pid', '0', String(pid)])
  if (status !== 0) os.setPriority(pid, os.constants.priority.PRIORITY_LOW)
}

const running = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'close')
  child.kill('SIGKILL')
  await gone
}

export function isInstalled(program: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' }).status === 0
}

/** Linux counts in hundredths of a second towards programs, whatever its own clock does. */
const MICROS_PER_TICK = 10_000

/** User and system time of all threads so far, also of those that have ended. */
export function cpuMicrosOf(pid: number): number {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  // Fields 14 and 15 of proc_pid_stat(5); the slice begins at field 3.
  return (Number(fields[11]) + Number(fields[12])) * MICROS_PER_TICK
}

export function cpuMicrosOfAll(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + cpuMicrosOf(pid), 0)
}

export function rssBytesOf(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
  if (kib === undefined) throw new Error(`process ${pid} has no resident memory`)
  return Number(kib) * 1024
}

export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Resolves when something accepts connections there; rejects when `child` ended before. */
export async function accepting(port: number, child: ChildProcess, name: string): Promise<void> {
  for (const deadline = Date.now() + 30_000; Date.now() < deadline; ) {
    if (child.exitCode !== null) throw new Error(`${name} ended with exit code ${child.exitCode}`)
    const socket = net.connect(port, '127.0.0.1')
    const connected = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true))
      socket.once('error', () => resolve(false))
    })
    socket.destroy()
    if (connected) return
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error(`${name} does not listen on port ${port}`)
}

export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2
}
