import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Generation } from '../../src/proxy/generation.ts'
import type { UpstreamPool, UpstreamUser } from '../../src/proxy/upstream.ts'
import { eventually } from '../support/eventually.ts'
import { spiffeId } from '../support/pki.ts'
import { secureConnect, startListener } from './listening.ts'

describe('a connection of bytes, whose peer is denied just after its handshake', () => {
  for (const when of ['before it is swept', 'and swept'] as const) {
    it(`goes nowhere, ${when}`, async (t) => {
      const listening = await startListener(t, { forward: 'tcp://127.0.0.1:9' })
      const { context, listener, records } = listening
      const asked: UpstreamUser[] = []
      const pool = { acquire: (user: UpstreamUser) => asked.push(user), forget: () => {} }
      Object.assign(context, { pool: pool as unknown as UpstreamPool })
      const { snapshot } = context.generation
      const where = 'revoked.yaml:1'
      const denied = [{ where, what: { kind: 'spiffe_id', pattern: spiffeId('web') } as const }]
      const trust = { ...snapshot.trust, generation: snapshot.trust.generation + 1, denied }
      const next = { ...snapshot, trust }
      // In the same turn of the loop, before policy is asked.
      listener.connections.add = (one) => {
        Set.prototype.add.call(listener.connections, one)
        if (when === 'and swept') listening.apply(() => ({ trust }))
        else
          context.generation = new Generation(next, [context.generation], context.clock, () => {})
        return listener.connections
      }
      await secureConnect(t, listening.client(await listening.authority.svid('web')))
      await eventually('it is over', () => listening.successes() === 1 && listener.idle)
      assert.deepEqual(asked, [])
      const told = records.find(({ kind }) => kind === 'access')
      assert.partialDeepStrictEqual(told, { outcome: 'peer_invalid', code: 'peer_deny_listed' })
      assert.ok(records.every(({ kind }) => kind !== 'decision'))
    })
  }
})
