// A TLS 1.3 client that writes records of a test's own making once node has done the handshake: changes
// of keys, empty records, alerts, in any order and cut into TCP segments anyhow.
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

export interface RawTlsClient {
  /** Below TLS: what is written here is what the sidecar gets. */
  readonly socket: net.Socket
  readonly records: RecordWriter
  received(): string
}

export async function openRawTls(
  t: Cleanup,
  sidecar: TestSidecar,
  certificate: IssuedCertificate,
  ALPNProtocols: readonly string[],
): Promise<RawTlsClient> {
  const socket = net.connect({ host: '127.0.0.1', port: sidecar.port, allowHalfOpen: true })
  t.after(() => socket.destroy())
  const below = new Duplex({
    read() {},
    write: (chunk: Buffer, _encoding, done) => void socket.write(chunk, () => done()),
  })
  socket.on('error', () => {})
  socket.on('data', (chunk) => below.push(chunk)).on('end', () => below.push(null))
  const { host: _, port: __, ...options } = sidecar.clientOptions(certificate)
  const client = tls.connect({
    ...options,
    ALPNProtocols: [...ALPNProtocols],
    socket: below,
    minVersion: 'TLSv1.3',
    ciphers: 'TLS_AES_128_GCM_SHA256',
  })
  let secret = ''
  let text = ''
  client.on('error', () => {})
  client.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  client.on('keylog', (line: Buffer) => {
    secret = /^CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)/.exec(line.toString())?.[1] ?? secret
  })
  await Promise.all([once(client, 'secureConnect'), once(client, 'session')])
  const records = new RecordWriter(Buffer.from(secret, 'hex'))
  return { socket, records, received: () => text }
}
