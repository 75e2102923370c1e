import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Mutations, NO_MUTATIONS } from '../../src/policy/permit.ts'
import { mutateFields, mutateTarget, mutateTrailers } from '../../src/proxy/mutations.ts'

const mutations = (some: Partial<Mutations>): Mutations => ({ ...NO_MUTATIONS, ...some })

describe('the fields of a request', () => {
  it('stay the same array when nothing is to be changed', () => {
    const fields = ['a', '1']
    assert.equal(mutateFields(fields, NO_MUTATIONS), fields)
  })

  it('lose every field of a name that is set or removed', () => {
    const changed = mutateFields(
      ['x-role', 'admin', 'a', '1', 'x-role', 'root', 'gone', '1'],
      mutations({ setRequestHeaders: [['x-role', 'reader']], removeRequestHeaders: ['gone'] }),
    )
    assert.deepEqual(changed, ['a', '1', 'x-role', 'reader'])
  })
})

describe('the trailers of a request', () => {
  it('lose what is set or removed in the head, and gain nothing', () => {
    const changed = mutateTrailers(
      ['x-role', 'admin', 'x-sum', '1', 'gone', '1'],
      mutations({ setRequestHeaders: [['x-role', 'reader']], removeRequestHeaders: ['gone'] }),
    )
    assert.deepEqual(changed, ['x-sum', '1'])
    assert.deepEqual(mutateTrailers(['x-sum', '1'], NO_MUTATIONS), ['x-sum', '1'])
  })
})

describe('the target of a request', () => {
  const target = (from: string, some: Partial<Mutations>): string =>
    mutateTarget(from, mutations(some))

  it('keeps the bytes of what is not changed', () => {
    assert.equal(target('/a%20b?x=%41&y', {}), '/a%20b?x=%41&y')
    assert.equal(target('/a?x=%41&y&z=+', { removeQueryParameters: ['y'] }), '/a?x=%41&z=+')
  })

  it('loses a parameter however its name is written', () => {
    for (const query of [
      'token=1',
      '%74oken=1',
      'to%6Ben',
      'token=',
      'token=1&&%74%6f%6b%65%6e=2',
    ]) {
      assert.equal(target(`/a?${query}`, { removeQueryParameters: ['token'] }), '/a', query)
    }
    assert.equal(target('/a?my+name=1', { removeQueryParameters: ['my name'] }), '/a')
    assert.equal(target('/a?%ff=1', { removeQueryParameters: ['token'] }), '/a?%ff=1')
  })

  it('gets parameters that cannot end theirs early', () => {
    assert.equal(
      target('/a', {
        setQueryParameters: [
          ['k&', 'v=1&b#c d\r\n'],
          ['k&', 'é'],
        ],
      }),
      '/a?k%26=v%3D1%26b%23c%20d%0D%0A&k%26=%C3%A9',
    )
  })

  it('can be given what is no Unicode text', () => {
    assert.equal(target('/a', { setQueryParameters: [['k', '\ud800']] }), '/a?k=%EF%BF%BD')
  })

  it('of the server as a whole has no query', () => {
    assert.equal(target('*', { setQueryParameters: [['k', 'v']] }), '*')
  })
})
