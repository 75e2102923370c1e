// Memory that is given to the next who asks as soon as it was given back, with something else in it.
import assert from 'node:assert/strict'
import type { KeptCopy, Memory } from '../../src/http/kept-bytes.ts'

export class SharedMemory implements Memory {
  readonly free: Buffer[] = []
  taken = 0

  take(length: number): KeptCopy {
    this.taken++
    const memory = this.free.pop() ?? Buffer.alloc(64 * 1024)
    assert.ok(length <= memory.length)
    return { memory, release: () => void this.free.push(memory.fill('?')) }
  }
}
