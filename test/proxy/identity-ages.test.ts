import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { IdentityMaterial } from '../../src/identity/material.ts'
import { Cells, cellOf } from '../../src/metrics.ts'
import { IdentityAges } from '../../src/proxy/identity-ages.ts'

const OLDER = cellOf('connections_older_identity', {})
const identity = (chain: number) => ({ certificateChainPem: `${chain}` }) as IdentityMaterial

test('counts the open connections that began under another identity than the one in force', () => {
  const step = fc.oneof(
    fc.constant('begin' as const),
    fc.constant('same' as const),
    fc.constant('rotate' as const),
    fc.record({ end: fc.nat(20) }),
    fc.record({ finish: fc.nat(20) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const cells = Cells.allocate()
      let chain = 0
      const ages = new IdentityAges(cells, identity(chain))
      // A connection opens some time after its handshake began.
      const handshakes: { epoch: number; chain: number }[] = []
      const open: { epoch: number; chain: number }[] = []
      for (const one of steps) {
        if (one === 'begin') handshakes.push({ epoch: ages.epoch, chain })
        else if (one === 'same') ages.changed(identity(chain))
        else if (one === 'rotate') ages.changed(identity(++chain))
        else if ('finish' in one) {
          const [done] = handshakes.splice(one.finish, 1)
          if (done !== undefined) {
            ages.opened(done.epoch)
            open.push(done)
          }
        } else {
          const [gone] = open.splice(one.end, 1)
          if (gone !== undefined) ages.closed(gone.epoch)
        }
        assert.equal(cells.read(OLDER), open.filter((other) => other.chain !== chain).length)
      }
    }),
    { numRuns: 300 },
  )
})
