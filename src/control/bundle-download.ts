// One request to a bundle server, in OPA's protocol. Promises an end within bounded time and memory
// whatever the server does, and that nothing but its own answer decides: no proxy of the environment,
// no redirect, no certificate that the configured authorities do not vouch for.
import type http from 'node:http'

export interface DownloadRequest {
  readonly url: string
  /** Of the version in force: the server answers 304 while it has nothing else. */
  readonly etag: string | undefined
  /** How long the server may wait for something new; 0: not at all. */
  readonly waitMs: number
  readonly token?: string
  /** PEM. */
  readonly certificate?: Buffer
  readonly privateKey?: Buffer
  readonly ca?: Buffer
  readonly maxBytes: number
}

export type Download =
  | {
      readonly kind: 'bundle'
      readonly bytes: Buffer
      readonly etag: string | undefined
      /** The server holds requests back until there is something new. */
      readonly longPolls: boolean
    }
  | { readonly kind: 'not_modified'; readonly longPolls: boolean }
  | { readonly kind: 'failed'; readonly what: string; readonly remedy: string }

export interface DownloadTimeouts {
  /** From the request to the head of the answer, beside what the server may wait. */
  readonly headMs: number
  /** Longest silence within the answer. */
  readonly silenceMs: number
  readonly totalMs: number
}

export const DOWNLOAD_TIMEOUTS: DownloadTimeouts = {
  headMs: 10_000,
  silenceMs: 10_000,
  totalMs: 300_000,
}

/** Never rejects. */
export function download(
  request: DownloadRequest,
  signal: AbortSignal,
  timeouts: DownloadTimeouts = DOWNLOAD_TIMEOUTS,
): Promise<Download> {
  return new Promise((resolve) => {
    try {
      new Exchange(request, timeouts, resolve).begin(signal)
    } catch (error) {
      // A certificate or key that OpenSSL does not take.
      resolve(failure(error, 'correct the files of policy.service'))
    }
  })
}

class Exchange {
  readonly #request: DownloadRequest
  readonly #timeouts: DownloadTimeouts
  readonly #resolve: (download: Download) => void
  #client: http.ClientRequest | undefined
  #timer: NodeJS.Timeout | undefined
  #total: NodeJS.Timeout | undefined

  constructor(
    request: DownloadRequest,
    timeouts: DownloadTimeouts,
    resolve: (download: Download) => void,
  ) {
    this.#request = request
    this.#timeouts = timeouts
    this.#resolve = resolve
  }

  begin(signal: AbortSignal): void {
    const { waitMs } = this.#request
    const { headMs, totalMs } = this.#timeouts
    const client = this.#open(signal)
    this.#client = client
    client.on('response', (response) => this.#take(response))
    client.on('error', (error) => this.#end(failure(error)))
    client.on('close', () => this.#end(failure(new Error('the connection was closed'))))
    this.#within(headMs + waitMs, `gave no answer within ${headMs + waitMs} ms`)
    this.#total = setTimeout(
      () => this.#end(failure(new Error(`took longer than ${totalMs} ms`))),
      totalMs + waitMs,
    ).unref()
    client.end()
  }

  #open(signal: AbortSignal): http.ClientRequest {
    const { url, certificate, privateKey, ca } = this.#request
    // A fresh agent knows of no proxy and of no session of another request.
    const options = { method: 'GET', agent: false as const, headers: this.#headers(), signal }
    // Not imported: an import of node:http loads undici, too, for every start.
    if (new URL(url).protocol === 'http:') {
      return process.getBuiltinModule('node:http').request(url, options)
    }
    return process.getBuiltinModule('node:https').request(url, {
      ...options,
      // Said again, because an environment variable of Node.js can turn it off.
      rejectUnauthorized: true,
      minVersion: 'TLSv1.2',
      ...(certificate && privateKey ? { cert: certificate, key: privateKey } : {}),
      ...(ca && { ca }),
    })
  }

  #headers(): Record<string, string> {
    const { etag, token, waitMs } = this.#request
    const wait = waitMs > 0 ? `;wait=${Math.ceil(waitMs / 1000)}` : ''
    return {
      accept: `${LONG_POLLS}, application/gzip, application/octet-stream`,
      'accept-encoding': 'identity',
      'user-agent': 'postern',
      prefer: `modes=snapshot${wait}`,
      ...(etag === undefined ? {} : { 'if-none-match': etag }),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    }
  }

  #take(response: http.IncomingMessage): void {
    const { statusCode: status = 0, headers } = response
    const longPolls = headers['content-type']?.toLowerCase() === LONG_POLLS
    if (status === 304) {
      return this.#end(
        this.#request.etag === undefined
          ? refusal('said that nothing has changed, and was not asked for that', SERVER)
          : { kind: 'not_modified', longPolls },
      )
    }
    if (status !== 200) return this.#end(refused(status, headers.location))
    const { maxBytes } = this.#request
    if (Number(headers['content-length'] ?? 0) > maxBytes) return this.#end(tooLarge(maxBytes))
    const chunks: Buffer[] = []
    let length = 0
    const silence = () =>
      this.#within(this.#timeouts.silenceMs, `fell silent in the middle of its answer`)
    silence()
    response.on('data', (chunk: Buffer) => {
      length += chunk.length
      if (length > maxBytes) return this.#end(tooLarge(maxBytes))
      chunks.push(chunk)
      silence()
    })
    response.on('error', (error) => this.#end(failure(error)))
    response.on('end', () => {
      if (!response.complete) return this.#end(failure(new Error('the answer was cut off')))
      if (length === 0) return this.#end(refusal('answered with nothing', SERVER))
      const { etag } = headers
      this.#end({ kind: 'bundle', bytes: Buffer.concat(chunks), etag: usable(etag), longPolls })
    })
  }

  #within(ms: number, what: string): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#end(refusal(what, SERVER)), ms).unref()
  }

  /** The first word counts; what comes later is only the connection falling apart. */
  #end(outcome: Download): void {
    clearTimeout(this.#timer)
    clearTimeout(this.#total)
    this.#resolve(outcome)
    this.#client?.destroy()
  }
}

/** OPA's sign that a server understands `wait`. */
const LONG_POLLS = 'application/vnd.openpolicyagent.bundles'
const SERVER = 'look into the log of the bundle server'

/** It is sent back as it came: no more than a header may hold, and only if it is one (RFC 9110 8.8.3). */
const usable = (etag: string | undefined): string | undefined =>
  etag !== undefined && /^(?:W\/)?"[\x21\x23-\x7e]{0,256}"$/.test(etag) ? etag : undefined

const refusal = (what: string, remedy: string): Download => ({ kind: 'failed', what, remedy })

function failure(error: unknown, remedy = 'check address, network and policy.service'): Download {
  const { code, message } = error as NodeJS.ErrnoException
  return refusal(`cannot be asked: ${message || code}`, remedy)
}

function refused(status: number, location: string | undefined): Download {
  if (status >= 300 && status < 400) {
    const target = JSON.stringify((location ?? '').slice(0, 200))
    return refusal(`answered ${status} with another address (${target})`, 'configure that address')
  }
  if (status === 401 || status === 403) {
    return refusal(
      `answered ${status}: it does not let us in`,
      'check policy.service.tokenFile, certificate and privateKey',
    )
  }
  return status === 404
    ? refusal('answered 404: it has no such bundle', 'correct the address')
    : refusal(`answered ${status}`, SERVER)
}

const tooLarge = (maxBytes: number): Download =>
  refusal(`has more than ${maxBytes} bytes`, 'make the bundle smaller')
