// The real sidecar as a child process of the demo: started, waited for, drained. Its log goes to a
// file; the ports that the kernel chose are read from its `ready` line.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { z } from 'zod'
import { CommandFailure } from '../failure.ts'

export interface SidecarProcess {
  readonly port: number
  readonly adminPort: number
  readonly metricsPort: number
  /** Resolves when the process has ended, for whatever reason, with its exit code. */
  readonly exited: Promise<number | null>
  stop(): Promise<number | null>
}

export async function startSidecarProcess(
  configFile: string,
  logFile: string,
): Promise<SidecarProcess> {
  const args = [process.argv[1] ?? '', 'run', '--config', configFile]
  // A process group of its own: Ctrl-C in the terminal would reach it beside the signal of `stop`,
  // and a second signal ends it without draining.
  const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  const exited = once(child, 'close').then(
    ([code]) => code as number | null,
    (error: Error) => {
      throw new CommandFailure(1, {
        where: 'postern run',
        what: `cannot be started: ${error.message}`,
        remedy: 'the demo needs to start a process of its own',
      })
    },
  )
  const log = createWriteStream(logFile)
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-MAX_SAID)
  })
  child.stdout.pipe(log)
  const stop = (): Promise<number | null> => {
    child.kill('SIGTERM')
    return exited
  }
  const ready = new Promise<z.infer<typeof READY>>((resolve) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const parsed = READY.safeParse(parseJson(line))
      if (parsed.success) resolve(parsed.data)
    })
  })
  const first = await Promise.race([ready, exited])
  if (first === null || typeof first === 'number') {
    throw new CommandFailure(1, {
      where: 'postern run',
      what: `ended with ${first} before it was ready: ${said.trim()}`,
      remedy: 'see what it says; with nothing changed here this is a fault, please report it',
    })
  }
  const { listen, admin, metrics } = first
  return { port: listen.port, adminPort: admin.port, metricsPort: metrics.port, exited, stop }
}

const MAX_SAID = 4096
const PORT = z.object({ port: z.number() })
const READY = z.object({ event: z.literal('ready'), listen: PORT, admin: PORT, metrics: PORT })

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}
