// Writes lines of JSON to standard output or a file without ever waiting for the reader: what is pending
// is bounded, what does not fit is refused at once (and counted by whoever offered it). People read them
// in terminals: what clients wrote in them does nothing there.
import fs from 'node:fs'
import { Socket } from 'node:net'
import type { Problem } from '../errors.ts'
import { harmlessJson } from './harmless.ts'

/** Somewhere that takes complete lines. */
export interface LineSink {
  /**
   * Takes one line without its newline; `false`: it did not fit and is lost. `reserve` is how much of
   * the space kept for rare but important lines this one may use, in UTF-16 units. `tally` is told
   * what becomes of the line.
   */
  write(line: string, reserve?: number, tally?: LineTally): boolean
  /** Resolves when nothing is pending any more (`true`) or `deadlineMs` later (`false`). */
  flush(deadlineMs: number): Promise<boolean>
  /** For the last moment of a process: writes what can be written without blocking. */
  flushSync(): void
}

/** Counts the lines that were offered with it, each in one place at a time. */
export interface LineTally {
  /** Accepted, and not written yet. */
  pending: number
  written: number
  /** Accepted, and lost to a write error. */
  lost: number
  refused: number
}

const { O_APPEND, O_CREAT, O_NONBLOCK, O_WRONLY } = fs.constants
const BATCH = 64 * 1024
const RETRY_MS = 20

export class LineWriter implements LineSink {
  readonly #maxPending: number
  readonly #path: string | undefined
  /** A synchronous write to it cannot block: a regular file or a descriptor with O_NONBLOCK. */
  readonly #prompt: boolean
  /** Only kept from the garbage collector, which would close the descriptor. */
  readonly #handle: Socket | undefined
  #fd: number
  #replacement: number | undefined
  #lines: string[] = []
  /** Of each line in `#lines`, or undefined. */
  #tallies: (LineTally | undefined)[] = []
  #pending = 0
  #batch: Buffer | undefined
  /** A write ended in the middle of a line: the next one must not begin on it. */
  #torn = false
  #scheduled = false
  #closed = false
  #lost = 0
  #waiting: (() => void)[] = []

  private constructor(
    fd: number,
    prompt: boolean,
    maxPending: number,
    path?: string,
    handle?: Socket,
  ) {
    this.#handle = handle
    this.#fd = fd
    this.#prompt = prompt
    this.#maxPending = maxPending
    this.#path = path
  }

  /** Standard output; at most `maxPending` UTF-16 units wait for a slow reader. */
  static standardOutput(maxPending = 8 * 1024 * 1024): LineWriter {
    return LineWriter.descriptor(1, maxPending)
  }

  /** An inherited descriptor. */
  static descriptor(fd: number, maxPending: number): LineWriter {
    const facts = fs.fstatSync(fd)
    // An inherited pipe or socket blocks: one write to a full one holds a thread of libuv's pool, and
    // process.exit() then waits for that thread for ever (measured on Node 26.10). Opening a pipe again
    // gives a description of our own that can be non-blocking without changing the shell's.
    if (facts.isFIFO() || facts.isCharacterDevice()) {
      try {
        const own = fs.openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK)
        return new LineWriter(own, true, maxPending)
      } catch {
        // Another user's pipe, or not Linux.
      }
    }
    // A socket (systemd, a Node parent) cannot be opened again; a handle of libuv on it sets
    // O_NONBLOCK, for everyone who shares it.
    const handle =
      facts.isFIFO() || facts.isSocket() ? new Socket({ fd, readable: false }) : undefined
    handle?.unref()
    return new LineWriter(fd, facts.isFile() || handle !== undefined, maxPending, undefined, handle)
  }

  /** A file, appended to, created with mode 0600. `where` names the configuration key. */
  static file(path: string, where: string, maxPending = 8 * 1024 * 1024): LineWriter | Problem {
    const fd = openForAppend(path, where)
    return typeof fd === 'number' ? new LineWriter(fd, true, maxPending, path) : fd
  }

  /** Lines accepted, but lost to a write error (disk full, reader gone). */
  get lost(): number {
    return this.#lost
  }

  /** UTF-16 units accepted and not yet written. */
  get pending(): number {
    return this.#pending
  }

  write(json: string, reserve = 0, tally?: LineTally): boolean {
    const line = harmlessJson(json)
    const size = line.length + 1
    if (this.#closed || this.#pending + size > this.#maxPending + reserve) {
      if (tally !== undefined) tally.refused++
      return false
    }
    this.#lines.push(line)
    this.#tallies.push(tally)
    if (tally !== undefined) tally.pending++
    this.#pending += size
    if (!this.#scheduled) {
      this.#scheduled = true
      // Not now: the lines of one turn of the loop go out in one system call.
      setImmediate(() => this.#writeBatch())
    }
    return true
  }

  async flush(deadlineMs: number): Promise<boolean> {
    if (this.#pending === 0) return true
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), deadlineMs)
      this.#waiting.push(() => {
        clearTimeout(timer)
        resolve(true)
      })
    })
  }

  flushSync(): void {
    // Where a write may block, one that is still out says that the reader is stuck.
    if (this.#closed || (!this.#prompt && this.#batch !== undefined)) return
    try {
      while (this.#lines.length > 0) {
        const { text, tallies } = this.#take()
        this.#pending = Math.max(0, this.#pending - text.length)
        const bytes = Buffer.from(text)
        if (fs.writeSync(this.#fd, bytes) < bytes.length) return
        settle(tallies, 'written')
      }
    } catch {
      // EAGAIN, EPIPE, ENOSPC: there is nobody left to tell.
    }
  }

  /** Opens the file anew, after it was rotated away; on failure the old one stays in use. */
  reopen(where: string): Problem | undefined {
    if (this.#path === undefined || this.#closed) return undefined
    const fd = openForAppend(this.#path, where)
    if (typeof fd !== 'number') return fd
    if (this.#replacement !== undefined) fs.closeSync(this.#replacement)
    this.#replacement = fd
    if (!this.#scheduled) this.#swap()
    return undefined
  }

  /** Takes no more lines and forgets what is pending; call after `flush`. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#lines = []
    settle(this.#tallies.splice(0), 'lost')
    this.#pending = 0
    this.#settle()
    if (!this.#scheduled) this.#release()
  }

  #take(): { text: string; tallies: (LineTally | undefined)[] } {
    let size = 0
    let count = 0
    while (count < this.#lines.length && size < BATCH) size += this.#lines[count++]!.length + 1
    const lines = count === this.#lines.length ? this.#lines : this.#lines.slice(0, count)
    this.#lines = count === this.#lines.length ? [] : this.#lines.slice(count)
    const tallies = this.#tallies.splice(0, count)
    return { text: `${lines.join('\n')}\n`, tallies }
  }

  #writeBatch(): void {
    if (this.#closed) {
      this.#release()
      return
    }
    this.#swap()
    if (this.#lines.length === 0) {
      this.#scheduled = false
      if (this.#pending === 0) this.#settle()
      return
    }
    const { text, tallies } = this.#take()
    this.#batch = Buffer.from(this.#torn ? `\n${text}` : text)
    this.#writeRest(0, (result) => {
      if (result === 'lost') this.#lost += tallies.length
      settle(tallies, result)
      this.#batch = undefined
      this.#pending = Math.max(0, this.#pending - text.length)
      this.#writeBatch()
    })
  }

  #writeRest(offset: number, done: (result: 'written' | 'lost') => void): void {
    const batch = this.#batch!
    fs.write(this.#fd, batch, offset, batch.length - offset, null, (error, written) => {
      if (this.#closed) {
        this.#release()
      } else if (error?.code === 'EAGAIN') {
        // Not kept alive by this: a process that wants its last lines out awaits flush().
        setTimeout(() => this.#writeRest(offset, done), RETRY_MS).unref()
      } else if (error) {
        this.#torn ||= offset > 0
        done('lost')
      } else if (offset + written < batch.length) {
        this.#writeRest(offset + written, done)
      } else {
        this.#torn = false
        done('written')
      }
    })
  }

  #swap(): void {
    if (this.#replacement === undefined) return
    fs.closeSync(this.#fd)
    this.#fd = this.#replacement
    this.#torn = false
    this.#replacement = undefined
  }

  #settle(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  #release(): void {
    this.#scheduled = false
    this.#swap()
    if (this.#handle) this.#handle.destroy()
    else if (this.#fd > 2) fs.close(this.#fd)
  }
}

function settle(tallies: readonly (LineTally | undefined)[], result: 'written' | 'lost'): void {
  for (const tally of tallies) {
    if (tally === undefined) continue
    tally.pending--
    tally[result]++
  }
}

function openForAppend(path: string, where: string): number | Problem {
  try {
    // O_NONBLOCK: a named pipe without reader is an error instead of a hang.
    return fs.openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK, 0o600)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'error'
    return {
      where,
      what: `cannot write ${path}: ${REASONS.get(code) ?? code}`,
      remedy: 'Name a file in an existing directory that this user may write to',
    }
  }
}

const REASONS = new Map([
  ['EISDIR', 'it is a directory'],
  ['ENOENT', 'its directory does not exist'],
  ['ENOTDIR', 'a part of its path is not a directory'],
  ['EACCES', 'permission denied'],
  ['EPERM', 'permission denied'],
  ['EROFS', 'the file system is read-only'],
  ['ENXIO', 'it is a socket, or a named pipe that nobody reads'],
])
