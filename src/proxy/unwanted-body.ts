// What is still to come of a request's body after an answer of ours that did not need it: read and
// dropped, so that the next request on the connection is found behind it. Promises that little is read,
// and that it ends where the body ends.
import { ChunkedDecoder } from '../http/chunked.ts'
import type { RequestHead } from '../http/head.ts'
import { TRAILER_LIMITS } from './collecting.ts'

/** More is not worth reading: the connection ends. Of a body in chunks, with their framing. */
const MOST_BYTES = 64 * 1024

/** How far a body has been read. */
export interface BodyRest {
  /** Of a body with a length. */
  readonly left: number
  /** Of one in chunks. */
  readonly decoder: ChunkedDecoder | undefined
}

export class UnwantedBody {
  #left: number
  readonly #decoder: ChunkedDecoder | undefined

  private constructor({ left, decoder }: BodyRest) {
    this.#left = decoder === undefined ? left : MOST_BYTES
    this.#decoder = decoder
  }

  /** The rest of one that is partly read. @returns undefined where the connection is to end instead */
  static restOf(rest: BodyRest): UnwantedBody | undefined {
    return rest.decoder === undefined && rest.left > MOST_BYTES ? undefined : new UnwantedBody(rest)
  }

  /**
   * One of which nothing was read. A client that waits to be asked for it may send it, or may send its
   * next request: it is for the connection to end (RFC 9110 section 10.1.1).
   */
  static of({ body, expectContinue }: RequestHead): UnwantedBody | undefined {
    if (expectContinue) return undefined
    return UnwantedBody.restOf({
      left: body.kind === 'length' ? body.length : 0,
      decoder: body.kind === 'chunked' ? new ChunkedDecoder(TRAILER_LIMITS) : undefined,
    })
  }

  get done(): boolean {
    return this.#decoder === undefined ? this.#left === 0 : this.#decoder.done
  }

  /** @returns index after the last byte that belongs to it; undefined: it is malformed, or too much */
  take(buffer: Buffer, start: number, end: number): number | undefined {
    if (this.#decoder === undefined) {
      const stop = start + Math.min(this.#left, end - start)
      this.#left -= stop - start
      return stop
    }
    const stop = this.#decoder.decode(buffer, start, end, ignore)
    if (typeof stop !== 'number') return undefined
    this.#left -= stop - start
    return this.#left < 0 ? undefined : stop
  }
}

function ignore(): void {}
