// Sends chunks of decisions to the server of `log.upload`. Token and certificates are read at every
// attempt, so that rotated ones are used without being told.
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { Agent, IncomingMessage } from 'node:http'
import type { LogUploadConfig } from '../config/config.ts'
import type { Problem } from '../errors.ts'
import { VERSION } from '../version.ts'
import { fileProblem } from './failure.ts'

/** As OPA waits for the head of an answer; whatever comes later is no answer. */
const ANSWER_MS = 10_000
/** Of an answer nothing but its status is read; a short one is let end, to keep the connection. */
const LONGEST_ANSWER = 64 * 1024

/** Resolves with the status of the answer; rejects where there was none in time. */
export type Post = (body: Buffer, signal: AbortSignal) => Promise<number>

export function decisionServer(upload: LogUploadConfig): Post {
  const url = new URL(upload.url)
  let agent: Agent | undefined
  return async (body, signal) => {
    const client = await (url.protocol === 'https:' ? import('node:https') : import('node:http'))
    agent ??= new client.Agent({ keepAlive: true, timeout: 60_000 })
    const { token, ...tls } = await readCredentials(upload)
    return new Promise((resolve, reject) => {
      const ended = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)])
      const request = client.request(url, {
        ...tls,
        method: 'POST',
        agent: agent as Agent,
        signal: ended,
        headers: {
          'content-type': 'application/json',
          'content-encoding': 'gzip',
          'content-length': body.length,
          'user-agent': `postern/${VERSION}`,
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        },
      })
      request.on('error', (error) => reject(ended.aborted ? new Error('no answer in time') : error))
      request.on('response', (response) => {
        resolve(response.statusCode ?? 0)
        discard(response)
      })
      request.end(body)
    })
  }
}

/** What of the configured files could not be used now. */
export async function uploadProblems(upload: LogUploadConfig): Promise<readonly Problem[]> {
  const problems: Problem[] = []
  const text = async (name: FileKey): Promise<string | undefined> => {
    const path = upload[name]
    if (path === undefined) return undefined
    try {
      return await readFile(path, 'utf8')
    } catch (error) {
      problems.push({ ...fileProblem(error, path, 'read'), where: `log.upload.${name}: ${path}` })
      return undefined
    }
  }
  const [token, certificate, key, ca] = await Promise.all(FILE_KEYS.map(text))
  const wrong = (name: FileKey, what: string, remedy: string): void => {
    problems.push({ where: `log.upload.${name}: ${upload[name]}`, what, remedy })
  }
  if (token !== undefined && !isToken(token.trim())) {
    wrong('tokenFile', 'has no token in it', 'put the token on its one line')
  }
  const leaf = attempt(certificate, (pem) => new X509Certificate(pem))
  const privateKey = attempt(key, createPrivateKey)
  if (certificate !== undefined && leaf === undefined) {
    wrong('certificate', 'has no certificate that can be read', 'give PEM, the leaf first')
  }
  if (key !== undefined && privateKey === undefined) {
    wrong('privateKey', 'has no key that can be read', 'give a PEM key without a passphrase')
  }
  if (leaf !== undefined && privateKey !== undefined && !leaf.checkPrivateKey(privateKey)) {
    wrong('privateKey', 'is not the key of log.upload.certificate', 'give the key that belongs')
  }
  if (ca !== undefined && attempt(ca, (pem) => new X509Certificate(pem)) === undefined) {
    wrong('ca', 'has no certificate that can be read', 'give the authorities as PEM')
  }
  return problems
}

const FILE_KEYS = ['tokenFile', 'certificate', 'privateKey', 'ca'] as const
type FileKey = (typeof FILE_KEYS)[number]

async function readCredentials({ tokenFile, certificate, privateKey, ca }: LogUploadConfig) {
  const read = async (path: string | undefined): Promise<string | undefined> =>
    path === undefined ? undefined : readFile(path, 'utf8')
  const [token, cert, key, authorities] = await Promise.all(
    [tokenFile, certificate, privateKey, ca].map(read),
  )
  const trimmed = token?.trim()
  if (trimmed !== undefined && !isToken(trimmed)) throw new Error(`${tokenFile} has no token in it`)
  return {
    ...(trimmed === undefined ? {} : { token: trimmed }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(authorities === undefined ? {} : { ca: authorities }),
  }
}

/** RFC 6750 section 2.1, and whatever else can stand in a header. */
const isToken = (text: string): boolean => /^[\x21-\x7e]+$/.test(text)

function attempt<T>(text: string | undefined, read: (text: string) => T): T | undefined {
  if (text === undefined) return undefined
  try {
    return read(text)
  } catch {
    return undefined
  }
}

function discard(response: IncomingMessage): void {
  let length = 0
  response.on('data', (chunk: Buffer) => {
    length += chunk.length
    if (length > LONGEST_ANSWER) response.destroy()
  })
  response.on('error', () => {})
}
