// The console's script, run against the answers of the admin listener and as much of a browser as it
// needs: what it shows of the decisions, and that text of clients stays text.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import vm from 'node:vm'
import { consoleRoutes } from '../../src/observe/console.ts'

class Element {
  textContent = ''
  href = ''
  value = ''
  disabled = true
  hidden = false
  children: Element[] = []
  listeners = new Map<string, (event: { preventDefault(): void }) => unknown>()

  append(...children: Element[]): void {
    this.children.push(...children)
  }

  replaceChildren(...children: Element[]): void {
    this.children = children
  }

  addEventListener(name: string, listener: () => unknown): void {
    this.listeners.set(name, listener)
  }

  get text(): string {
    return [this.textContent, ...this.children.map(({ text }) => text)].filter(Boolean).join(' | ')
  }
}

const asset = (path: string): string => {
  const route = consoleRoutes().find((one) => one.path === path)
  const answer = route?.answer({ headers: {}, query: new URLSearchParams(), rest: '' })
  assert.ok(answer !== undefined && 'body' in answer)
  return String(answer.body)
}

const DECISION = {
  decision_id: '5f0f2c9e-6a33-4c2c-8a36-0f7f0a0f3d11',
  timestamp: '2026-01-02T03:04:05.678000000Z',
  path: 'envoy/authz/allow',
  bundles: { policy: { revision: 'r1' } },
  input: {
    attributes: {
      source: { principal: 'spiffe://example.org/web' },
      request: { http: { method: 'GET', path: '/<script>alert(1)</script>' } },
    },
  },
  masked: ['/input/x'],
  custom: { outcome: 'deny', rule: 'policy', bundle_digest: 'ab'.repeat(32) },
}

/** Runs the script; `answers` by path without query. */
async function page(
  hash: string,
  answers: Record<string, unknown>,
  filters: Record<string, string> = {},
) {
  const elements = new Map<string, Element>()
  for (const [, id = ''] of asset('/').matchAll(/ id="(\w+)"/g)) elements.set(id, new Element())
  const asked: string[] = []
  const location = { hash }
  const listeners = new Map<string, () => Promise<void>>()
  const settled = async () => {
    for (let i = 0; i < 20; i++) await Promise.resolve()
  }
  vm.runInNewContext(asset('/console.js'), {
    URLSearchParams,
    location,
    document: {
      getElementById: (id: string) => elements.get(id),
      createElement: () => new Element(),
    },
    FormData: class {
      get(name: string): string {
        return filters[name] ?? ''
      }
    },
    confirm: (question: string) => {
      asked.push(question)
      return true
    },
    fetch: async (path: string, { method = 'GET' } = {}) => {
      asked.push(method === 'GET' ? path : `${method} ${path}`)
      const answer = answers[path.split('?')[0] as string]
      return { ok: answer !== undefined, status: 404, json: async () => answer }
    },
    addEventListener: (name: string, listener: () => Promise<void>) =>
      listeners.set(name, listener),
    setInterval: () => 0,
  })
  await settled()
  const text = (id: string): string => elements.get(id)?.text ?? assert.fail(id)
  const go = async (to: string): Promise<void> => {
    location.hash = to
    await listeners.get('hashchange')?.()
    await settled()
  }
  return { asked, text, go, settled, of: (id: string) => elements.get(id) as Element }
}

const LIST = { snapshot: { generation: 7 }, decisions: { decisions: [DECISION] } }

test('the list shows each decision with a link to its explanation', async () => {
  const { text, of } = await page('', LIST)
  assert.match(text('status'), /^Generation 7/)
  const [row] = of('decisions').children
  assert.equal(
    row?.text,
    '2026-01-02T03:04:05.678Z | deny | policy | GET | /<script>alert(1)</script> | spiffe://example.org/web | 5f0f2c9e',
  )
  assert.equal(row?.children.at(-1)?.children[0]?.href, `#${DECISION.decision_id}`)
  assert.equal(of('one').hidden, true)
})

test('the filters ask for outcome and peer, and look at the path', async () => {
  const filters = { outcome: 'deny', principal: 'spiffe://example.org/web', path: 'SCRIPT' }
  const { asked, of } = await page('', LIST, filters)
  assert.ok(
    asked.includes('decisions?limit=1000&outcome=deny&principal=spiffe%3A%2F%2Fexample.org%2Fweb'),
  )
  assert.equal(of('decisions').children.length, 0)
  assert.equal(of('none').hidden, false)
})

test('one decision is shown with its reason and what the policies say now', async () => {
  const active = { revision: 'r2', outcome: 'allow', differs: true, result: { allowed: true } }
  const { text, of, go } = await page(`#${DECISION.decision_id}`, {
    ...LIST,
    [`decisions/${DECISION.decision_id}`]: {
      decision: DECISION,
      why: 'The policy said no.',
      code: 'denied',
      active,
    },
  })
  assert.equal(of('all').hidden, true)
  assert.match(text('facts'), /Outcome \| deny \(denied\) \| Why \| The policy said no\./)
  assert.match(text('facts'), /Hidden \| \/input\/x/)
  assert.match(text('facts'), /active policy says now \| allow, not the same as then\nrevision r2/)
  assert.doesNotMatch(text('facts'), /candidate/)
  assert.match(text('input'), /"principal": "spiffe/)
  await go('')
  assert.deepEqual([of('one').hidden, of('all').hidden], [true, false])
  await go('#gone')
  assert.match(text('status'), /404/)
})

test('the slots are shown, and a button gives an order where there is one to give', async () => {
  const slot = (revision: string) => ({ revision, digest: revision.repeat(64), file: 'b.tar.gz' })
  const of = async (policy: object) =>
    page('', {
      ...LIST,
      snapshot: { generation: 7, policy },
      'policy/rollback': { ok: true, to: slot('a') },
      'policy/promote': { ok: false, error: 'nothing_to_promote', detail: 'it is gone' },
    })
  const press = async (one: Awaited<ReturnType<typeof page>>, id: string) => {
    one.of(id).listeners.get('click')?.({ preventDefault() {} })
    await one.settled()
  }
  const alone = await of({ active: slot('a') })
  assert.deepEqual([alone.of('rollback').disabled, alone.of('promote').disabled], [true, true])
  const after = await of({ active: slot('b'), previous: slot('a') })
  assert.equal(after.of('slots').children[1]?.text, 'previous | a | aaaaaaaaaaaa | b.tar.gz')
  await press(after, 'rollback')
  assert.ok(after.asked.includes('POST policy/rollback'))
  assert.match(after.text('ordered'), /^Decides now: revision a/)
  const held = await of({ active: slot('a'), held_back: slot('b') })
  assert.equal(held.text('promote'), 'Promote what was held back')
  await press(held, 'promote')
  assert.ok(held.asked.includes('POST policy/promote?slot=held_back'))
  assert.equal(held.text('ordered'), 'Not done: it is gone')
  const candidate = await of({ active: slot('a'), candidate: slot('c'), held_back: slot('b') })
  assert.equal(candidate.of('promote').value, 'candidate')
})
