// How many open connections showed a certificate of ours that has been replaced since: a rotation is
// over when none is left.
import type { IdentityMaterial } from '../identity/material.ts'
import { type Cells, cellOf } from '../metrics.ts'

export class IdentityAges {
  /** Of the identity in force: what a handshake that begins now will show. */
  epoch = 0
  readonly #cells: Cells
  #chain: string
  #current = 0
  #older = 0

  constructor(cells: Cells, identity: IdentityMaterial) {
    this.#cells = cells
    this.#chain = identity.certificateChainPem
  }

  /** To be told of every generation; one with the same certificate changes nothing. */
  changed(identity: IdentityMaterial): void {
    if (identity.certificateChainPem === this.#chain) return
    this.#chain = identity.certificateChainPem
    this.epoch++
    this.#older += this.#current
    this.#current = 0
    this.#show()
  }

  /** `epoch`: as it was when the handshake began. */
  opened(epoch: number): void {
    this.#count(epoch, 1)
  }

  closed(epoch: number): void {
    this.#count(epoch, -1)
  }

  #count(epoch: number, change: 1 | -1): void {
    if (epoch === this.epoch) this.#current += change
    else {
      this.#older += change
      this.#show()
    }
  }

  #show(): void {
    this.#cells.set(OLDER, this.#older)
  }
}

const OLDER = cellOf('connections_older_identity', {})
