// The page for a browser on the admin listener: what is in force, the last decisions, and why one of
// them came out as it did, read from the JSON endpoints. No outside assets, no markup made from data.
import type { Route } from './server.ts'

export function consoleRoutes(): Route[] {
  const asset = (path: string, contentType: string, body: string): Route => ({
    method: 'GET',
    path,
    answer: () => ({
      status: 200,
      body,
      contentType: `${contentType}; charset=utf-8`,
      headers: {
        'content-security-policy':
          "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        'referrer-policy': 'no-referrer',
      },
    }),
  })
  return [
    asset('/', 'text/html', PAGE),
    asset('/console.js', 'text/javascript', SCRIPT),
    asset('/console.css', 'text/css', STYLE),
  ]
}

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Postern</title>
<link rel="stylesheet" href="console.css">
<h1>Postern</h1>
<p id="status" role="status">Loading</p>
<section id="one" hidden>
<h2>Decision <code id="id"></code></h2>
<p><a href="#">All decisions</a></p>
<dl id="facts"></dl>
<h3>Input</h3>
<pre id="input"></pre>
<h3>Result</h3>
<pre id="result"></pre>
</section>
<section id="all">
<h2>Last decisions</h2>
<form id="filters">
<label>Outcome <select name="outcome"><option value="">all<option>allow<option>deny<option>error<option>not_ready<option>timeout</select></label>
<label>Peer <input name="principal" placeholder="spiffe://…" size="50" spellcheck="false"></label>
<label>Path <input name="path" placeholder="any part of it" spellcheck="false"></label>
</form>
<table><thead><tr><th>Time<th>Outcome<th>Rule<th>Method<th>Path<th>Peer<th>Decision</thead><tbody id="decisions"></tbody></table>
<p id="none" hidden>None of the last ones is like that.</p>
<h2>Policies</h2>
<table><thead><tr><th>Slot<th>Revision<th>Bundle<th>File</thead><tbody id="slots"></tbody></table>
<p><button id="rollback" disabled>Roll back to the previous policy</button>
<button id="promote" disabled>Promote</button> <span id="ordered" role="status"></span></p>
<h2>In force</h2>
<pre id="snapshot"></pre>
</section>
<script type="module" src="console.js"></script>
</html>
`

const STYLE = `:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin-top: .5rem }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; overflow-wrap: anywhere }
label { margin-right: 1.5rem }
dt { font-weight: bold }
dd { margin: 0 0 .5rem; white-space: pre-wrap; overflow-wrap: anywhere }
pre { overflow: auto; padding: .75rem; border: 1px solid #8884 }
`

const SCRIPT = `const byId = (id) => document.getElementById(id)
const json = async (path) => {
  const response = await fetch(path)
  if (!response.ok) throw new Error(path + ': ' + response.status)
  return response.json()
}
const cell = (text) => {
  const td = document.createElement('td')
  td.textContent = text ?? ''
  return td
}
const link = (id) => {
  const td = document.createElement('td')
  const a = document.createElement('a')
  a.href = '#' + encodeURIComponent(id)
  a.textContent = id.slice(0, 8)
  td.append(a)
  return td
}
const pretty = (value) => value === undefined ? 'none' : JSON.stringify(value, null, 2)
const httpOf = ({ input }) => input?.attributes?.request?.http ?? {}
const row = (decision) => {
  const { method, path } = httpOf(decision)
  const { outcome, rule } = decision.custom
  const tr = document.createElement('tr')
  tr.append(
    cell(decision.timestamp?.replace('000000Z', 'Z')), cell(outcome), cell(rule), cell(method),
    cell(path), cell(decision.input?.attributes?.source?.principal), link(decision.decision_id),
  )
  return tr
}
const fact = ([name, value]) => {
  const dt = document.createElement('dt')
  const dd = document.createElement('dd')
  dt.textContent = name
  dd.textContent = value
  return [dt, dd]
}
const version = (revision, digest) =>
  [revision && 'revision ' + revision, digest && 'bundle ' + digest.slice(0, 12)].filter(Boolean).join(', ')
const says = (now) => now && [
  now.outcome + (now.differs ? ', not the same as then' : ', the same as then'),
  version(now.revision, now.bundle_digest),
  ...(now.differs && now.result !== undefined ? [pretty(now.result)] : []),
  ...(now.error === undefined ? [] : [now.error.message]),
].join('\\n')
const showOne = async (id) => {
  const { decision, why, code, active, candidate } = await json('decisions/' + encodeURIComponent(id))
  const { method, path } = httpOf(decision)
  byId('id').textContent = decision.decision_id
  byId('facts').replaceChildren(...[
    ['Time', decision.timestamp],
    ['Request', [method, path].filter(Boolean).join(' ')],
    ['Peer', decision.input?.attributes?.source?.principal],
    ['Outcome', decision.custom.outcome + (code ? ' (' + code + ')' : '')],
    ['Why', why],
    ['Policy', [decision.path, version(decision.bundles?.policy?.revision, decision.custom.bundle_digest)].filter(Boolean).join(', ')],
    ['Hidden', [...(decision.erased ?? []), ...(decision.masked ?? [])].join('\\n')],
    ['The active policy says now', says(active)],
    ['The candidate policy says now', says(candidate)],
  ].filter(([, value]) => value).flatMap(fact))
  byId('input').textContent = pretty(decision.input)
  byId('result').textContent = pretty(decision.result)
  byId('status').textContent = ''
}
const SLOTS = { active: 'active', previous: 'previous', candidate: 'candidate', held_back: 'held back' }
const showPolicies = (policy = {}) => {
  byId('slots').replaceChildren(...Object.keys(SLOTS).filter((slot) => policy[slot]).map((slot) => {
    const { revision, digest, file } = policy[slot]
    const tr = document.createElement('tr')
    tr.append(cell(SLOTS[slot]), cell(revision), cell(digest.slice(0, 12)), cell(file))
    return tr
  }))
  const promoted = policy.candidate ? 'candidate' : 'held_back'
  byId('rollback').disabled = !policy.previous
  byId('promote').disabled = !policy[promoted]
  byId('promote').value = promoted
  byId('promote').textContent = promoted === 'held_back' && policy.held_back
    ? 'Promote what was held back' : 'Promote the candidate'
}
const order = async (path, question) => {
  if (!confirm(question)) return
  try {
    const response = await fetch(path, { method: 'POST' })
    const { ok, detail, error, to } = await response.json()
    byId('ordered').textContent = ok ? 'Decides now: ' + version(to.revision, to.digest) : 'Not done: ' + (detail ?? error)
  } catch (failure) {
    byId('ordered').textContent = 'Not done: ' + failure.message
  }
  refresh()
}
const showAll = async () => {
  const given = new FormData(byId('filters'))
  const query = new URLSearchParams({ limit: given.get('path') ? 1000 : 50 })
  for (const name of ['outcome', 'principal']) {
    if (given.get(name)) query.set(name, given.get(name).trim())
  }
  const [snapshot, { decisions }] = await Promise.all([json('snapshot'), json('decisions?' + query)])
  const wanted = decisions.filter((one) => (httpOf(one).path ?? '').includes(given.get('path'))).slice(0, 50)
  byId('status').textContent = 'Generation ' + snapshot.generation + ', ' + new Date().toLocaleTimeString()
  showPolicies(snapshot.policy)
  byId('snapshot').textContent = JSON.stringify(snapshot, null, 2)
  byId('decisions').replaceChildren(...wanted.map(row))
  byId('none').hidden = wanted.length > 0
}
const wantedId = () => decodeURIComponent(location.hash.slice(1))
const refresh = async () => {
  const id = wantedId()
  byId('one').hidden = id === ''
  byId('all').hidden = id !== ''
  try {
    await (id === '' ? showAll() : showOne(id))
  } catch (error) {
    byId('status').textContent = 'Not to be had: ' + error.message
  }
}
byId('filters').addEventListener('input', refresh)
byId('filters').addEventListener('submit', (event) => event.preventDefault())
byId('rollback').addEventListener('click', () =>
  order('policy/rollback', 'Let the previous policy decide again?'))
byId('promote').addEventListener('click', () =>
  order('policy/promote?slot=' + byId('promote').value, 'Let this policy decide from now on?'))
addEventListener('hashchange', refresh)
refresh()
setInterval(() => wantedId() === '' && refresh(), 5000)
`
