// The page for a browser on the admin listener: what is in force and the last decisions, read from
// the JSON endpoints. No outside assets, no markup made from data.
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
<h2>Last decisions</h2>
<label>Outcome <select id="outcome"><option value="">all<option>allow<option>deny<option>error<option>not_ready<option>timeout</select></label>
<table><thead><tr><th>Time<th>Outcome<th>Rule<th>Method<th>Path<th>Peer<th>Decision</thead><tbody id="decisions"></tbody></table>
<h2>In force</h2>
<pre id="snapshot"></pre>
<script type="module" src="console.js"></script>
</html>
`

const STYLE = `:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin-top: .5rem }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; overflow-wrap: anywhere }
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
  a.href = 'decisions/' + encodeURIComponent(id)
  a.textContent = id.slice(0, 8)
  td.append(a)
  return td
}
const row = (decision) => {
  const http = decision.input?.attributes?.request?.http ?? {}
  const tr = document.createElement('tr')
  tr.append(
    cell(decision.time), cell(decision.outcome), cell(decision.rule), cell(http.method),
    cell(http.path), cell(decision.input?.attributes?.source?.principal), link(decision.decision_id),
  )
  return tr
}
const refresh = async () => {
  try {
    const outcome = byId('outcome').value
    const [snapshot, { decisions }] = await Promise.all([
      json('snapshot'),
      json('decisions?limit=50' + (outcome ? '&outcome=' + outcome : '')),
    ])
    byId('status').textContent = 'Generation ' + snapshot.generation + ', ' + new Date().toLocaleTimeString()
    byId('snapshot').textContent = JSON.stringify(snapshot, null, 2)
    byId('decisions').replaceChildren(...decisions.map(row))
  } catch (error) {
    byId('status').textContent = 'Not reachable: ' + error.message
  }
}
byId('outcome').addEventListener('change', refresh)
refresh()
setInterval(refresh, 5000)
`
