// A TLS client that writes records of a test's own making once node has done the handshake: changes of
// keys, empty records, alerts, in any order and cut into TCP segments anyhow.
import { createCipheriv, createHmac } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { Duplex } from 'node:stream'
import tls from 'node:tls'
import type { Cleanup } from './cleanup.ts'
import type { IssuedCertificate } from './pki.ts'
import type { TestSidecar } from './sidecar.ts'

const ALERT = 21
const HANDSHAKE = 22
const APPLICATION_DATA = 23
const CLIENT_HELLO = 1
const KEY_UPDATE = 24

/** Encrypts with TLS_AES_128_GCM_SHA256 (RFC 8446 sections 5.2, 7.2 and 7.3). */
export class RecordWriter {
  #secret: Buffer
  #sequence = 0n

  constructor(secret: Buffer) {
    this.#secret = secret
  }

  data(bytes: string | Buffer, paddingBytes = 0): Buffer {
    return this.#record(APPLICATION_DATA, Buffer.from(bytes as string, 'latin1'), paddingBytes)
  }

  closeNotify(): Buffer {
    return this.#record(ALERT, Buffer.from([1, 0]))
  }

  /** @param asks the other side to change its keys as well */
  keyUpdate(asks: boolean): Buffer {
    const record = this.#record(HANDSHAKE, Buffer.from([KEY_UPDATE, 0, 0, 1, asks ? 1 : 0]))
    this.#secret = expand(this.#secret, 'traffic upd', 32)
    this.#sequence = 0n
    return record
  }

  #record(type: number, content: Buffer, paddingBytes = 0): Buffer {
    const inner = Buffer.concat([content, Buffer.from([type]), Buffer.alloc(paddingBytes)])
    const header = Buffer.from([APPLICATION_DATA, 3, 3, 0, 0])
    header.writeUInt16BE(inner.length + 16, 3)
    const nonce = expand(this.#secret, 'iv', 12)
    nonce.writeBigUInt64BE(nonce.readBigUInt64BE(4) ^ this.#sequence++, 4)
    const cipher = createCipheriv('aes-128-gcm', expand(this.#secret, 'key', 16), nonce)
    cipher.setAAD(header)
    return Buffer.concat([header, cipher.update(inner), cipher.final(), cipher.getAuthTag()])
  }
}

/** HKDF-Expand-Label of at most one block. */
function expand(secret: Buffer, label: string, length: number): Buffer {
  const name = Buffer.from(`tls13 ${label}`)
  const info = [Buffer.from([0, length, name.length]), name, Buffer.from([0, 1])]
  return createHmac('sha256', secret).update(Buffer.concat(info)).digest().subarray(0, length)
}

/** The same of TLS 1.2, with TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 (RFC 5246, RFC 5288). */
export class RecordWriter12 {
  readonly #key: Buffer
  readonly #salt: Buffer
  /** The client has sent its Finished. */
  #sequence = 1n

  constructor(masterSecret: Buffer, clientRandom: Buffer, serverRandom: Buffer) {
    const seed = Buffer.concat([Buffer.from('key expansion'), serverRandom, clientRandom])
    const hmac = (data: Buffer) => createHmac('sha256', masterSecret).update(data).digest()
    const first = hmac(seed)
    const block = Buffer.concat([
      hmac(Buffer.concat([first, seed])),
      hmac(Buffer.concat([hmac(first), seed])),
    ])
    this.#key = block.subarray(0, 16)
    this.#salt = block.subarray(32, 36)
  }

  data(text: string): Buffer {
    return this.#record(APPLICATION_DATA, Buffer.from(text, 'latin1'))
  }

  /** Asks for another handshake: OpenSSL looks no further than that it is one. */
  clientHello(): Buffer {
    return this.#record(HANDSHAKE, Buffer.from([CLIENT_HELLO, 0, 0, 0]))
  }

  #record(type: number, content: Buffer): Buffer {
    const sequence = Buffer.alloc(8)
    sequence.writeBigUInt64BE(this.#sequence++)
    const nonce = Buffer.concat([this.#salt, sequence])
    const cipher = createCipheriv('aes-128-gcm', this.#key, nonce)
    cipher.setAAD(Buffer.from([...sequence, type, 3, 3, content.length >> 8, content.length & 255]))
    const sealed = [sequence, cipher.update(content), cipher.final(), cipher.getAuthTag()]
    const body = Buffer.concat(sealed)
    return Buffer.concat([Buffer.from([type, 3, 3, body.length >> 8, body.length & 255]), body])
  }
}

interface Raw<Writer> {
  /** Below TLS: what is written here is what the sidecar gets. */
  readonly socket: net.Socket
  readonly records: Writer
  received(): string
}

export type RawTlsClient = Raw<RecordWriter>

export async function openRawTls(
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate | undefined,
  ALPNProtocols: readonly string[],
): Promise<RawTlsClient> {
  const { keys, ...raw } = await openBelow(t, sidecar, certificate, {
    ALPNProtocols: [...ALPNProtocols],
    minVersion: 'TLSv1.3',
    ciphers: 'TLS_AES_128_GCM_SHA256',
  })
  const [, secret = ''] = /^CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)/m.exec(keys) ?? []
  return { ...raw, records: new RecordWriter(Buffer.from(secret, 'hex')) }
}

export async function openRawTls12(
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
): Promise<Raw<RecordWriter12>> {
  const { keys, first, ...raw } = await openBelow(t, sidecar, certificate, {
    maxVersion: 'TLSv1.2',
    ciphers: 'ECDHE-ECDSA-AES128-GCM-SHA256',
  })
  const [, random = '', secret = ''] = /^CLIENT_RANDOM (\w+) (\w+)/m.exec(keys) ?? []
  const [masterSecret, clientRandom] = [Buffer.from(secret, 'hex'), Buffer.from(random, 'hex')]
  // Behind the headers of record and message, and the version.
  const serverRandom = first.subarray(11, 43)
  return { ...raw, records: new RecordWriter12(masterSecret, clientRandom, serverRandom) }
}

/** @returns with what node tells of the keys, and what came first from the sidecar */
async function openBelow(
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate | undefined,
  options: tls.ConnectionOptions,
) {
  const socket = net.connect({ host: '127.0.0.1', port: sidecar.port, allowHalfOpen: true })
  t.after(() => socket.destroy())
  const below = new Duplex({
    read() {},
    write: (chunk: Buffer, _encoding, done) => void socket.write(chunk, () => done()),
  })
  socket.on('error', () => {})
  let first: Buffer | undefined
  socket.on('data', (chunk: Buffer) => {
    first ??= chunk
    below.push(chunk)
  })
  socket.on('end', () => below.push(null))
  const { host: _, port: __, ...usual } = sidecar.clientOptions(certificate)
  const client = tls.connect({ ...usual, ...options, socket: below })
  let keys = ''
  let text = ''
  client.on('error', () => {})
  client.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  client.on('keylog', (line: Buffer) => {
    keys += line.toString()
  })
  await Promise.all([once(client, 'secureConnect'), once(client, 'session')])
  return { socket, keys, first: first ?? Buffer.alloc(0), received: () => text }
}
