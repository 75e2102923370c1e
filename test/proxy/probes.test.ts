import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { requestFor, serviceOf } from '../../src/proxy/probes/grpc-health.ts'
import { ProbeLimiter } from '../../src/proxy/probes/limiter.ts'

describe('the share of an address in the probes listener', () => {
  it('is a burst, then ten a second, whatever others do', () => {
    let nowMs = 0
    const limiter = new ProbeLimiter(() => nowMs)
    const probe = (address: string): boolean => {
      const begun = limiter.begun(address)
      if (begun) limiter.ended(address)
      return begun
    }
    const flood = Array.from({ length: 100 }, () => probe('10.0.0.66'))
    assert.equal(flood.filter(Boolean).length, 20)
    assert.equal(probe('10.0.0.1'), true)
    nowMs = 1_000
    assert.equal(Array.from({ length: 100 }, () => probe('10.0.0.66')).filter(Boolean).length, 10)
  })

  it('is eight probes at once, which are given back', () => {
    const limiter = new ProbeLimiter(() => 0)
    const begun = Array.from({ length: 9 }, () => limiter.begun('10.0.0.1'))
    assert.deepEqual(begun, [...Array(8).fill(true), false])
    assert.equal(limiter.begun('10.0.0.2'), true)
    limiter.ended('10.0.0.1')
    assert.equal(limiter.begun('10.0.0.1'), true)
  })

  it('is 32 connections, which are given back', () => {
    const limiter = new ProbeLimiter(() => 0)
    for (let i = 0; i < 32; i++) assert.equal(limiter.opened('10.0.0.1'), true)
    assert.equal(limiter.opened('10.0.0.1'), false)
    assert.equal(limiter.opened('10.0.0.2'), true)
    limiter.closed('10.0.0.1')
    assert.equal(limiter.opened('10.0.0.1'), true)
  })

  it('is remembered for a bounded number of addresses, first of all for those with something open', () => {
    const limiter = new ProbeLimiter(() => 0)
    assert.equal(limiter.opened('10.0.0.1'), true)
    for (let i = 0; i < 5_000; i++) {
      assert.equal(limiter.begun(`a${i}`), true)
      limiter.ended(`a${i}`)
    }
    assert.equal(limiter.addresses, 1_024)
    limiter.closed('10.0.0.1')
    for (let i = 0; i < 32; i++) assert.equal(limiter.opened('10.0.0.1'), true)
    assert.equal(limiter.opened('10.0.0.1'), false)
  })
})

describe('the message of a gRPC health probe', () => {
  it('names the service that it was written for', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[\w.]{0,127}$/), (name) => {
        assert.equal(serviceOf(requestFor(name)), name)
      }),
    )
  })

  it('is nothing else, and bytes of any kind do no harm', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const message = Buffer.from(bytes)
        const service = serviceOf(message)
        if (service === undefined) return
        assert.equal(message.length, message.readUInt32BE(1) + 5)
      }),
    )
    const wrong = ['', '01 00000000', '00 00000001', '00 00000000 00', '00 00000001 0a']
    wrong.push('00 00000003 0a 02 41', '00 00000003 12 01 41', '00 00000004 0a 01 41 41')
    for (const hex of wrong) {
      assert.equal(serviceOf(Buffer.from(hex.replaceAll(' ', ''), 'hex')), undefined, hex)
    }
    assert.equal(serviceOf(Buffer.from('0000000000', 'hex')), '')
  })
})
