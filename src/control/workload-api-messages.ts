// The messages of the SPIFFE Workload API's X.509 profile (workload.proto), as far as they are read:
// a handful of fields, so that no generated code is needed. Loaded only where the API is configured.
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire'

/** One X509SVID message. */
export interface DeliveredSvid {
  readonly spiffeId: string
  /** DER certificates one after the other, leaf first. */
  readonly chain: Uint8Array
  /** PKCS#8 in DER. */
  readonly key: Uint8Array
  /** DER certificates of the authorities of the SVID's trust domain. */
  readonly bundle: Uint8Array
  /** Empty: none. */
  readonly hint: string
}

/** One X509SVIDResponse message: everything that this workload is entitled to at that moment. */
export interface Delivery {
  readonly svids: readonly DeliveredSvid[]
  /** DER. */
  readonly crls: readonly Uint8Array[]
  /** By trust domain ID, as it came: `spiffe://partner.example`. */
  readonly federated: ReadonlyMap<string, Uint8Array>
}

/** @throws when the bytes are no such message. */
export function readDelivery(bytes: Uint8Array): Delivery {
  const svids: DeliveredSvid[] = []
  const crls: Uint8Array[] = []
  const federated = new Map<string, Uint8Array>()
  eachField(bytes, {
    1: (value) => void svids.push(readSvid(value)),
    2: (value) => void crls.push(value),
    3: (value) => {
      let domain = ''
      let bundle: Uint8Array = EMPTY
      eachField(value, {
        1: (key) => {
          domain = text(key)
        },
        2: (one) => {
          bundle = one
        },
      })
      federated.set(domain, bundle)
    },
  })
  return { svids, crls, federated }
}

function readSvid(bytes: Uint8Array): DeliveredSvid {
  const fields: Uint8Array[] = []
  const take = (at: number) => (value: Uint8Array) => {
    fields[at] = value
  }
  eachField(bytes, { 1: take(1), 2: take(2), 3: take(3), 4: take(4), 5: take(5) })
  const [, id = EMPTY, chain = EMPTY, key = EMPTY, bundle = EMPTY, hint = EMPTY] = fields
  return { spiffeId: text(id), chain, key, bundle, hint: text(hint) }
}

/** All fields that matter are length-delimited; others are newer than this code and are skipped. */
function eachField(
  bytes: Uint8Array,
  takers: Readonly<Record<number, (value: Uint8Array) => void>>,
): void {
  const reader = new BinaryReader(bytes)
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag()
    const take = takers[field]
    if (take === undefined || type !== WireType.LengthDelimited) reader.skip(type, field)
    // A copy: the buffer of the transport is shared.
    else take(Uint8Array.from(reader.bytes()))
  }
}

const text = (bytes: Uint8Array): string => new TextDecoder('utf-8', { fatal: true }).decode(bytes)

const EMPTY = new Uint8Array()
