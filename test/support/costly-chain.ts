// The dearest client certificate chain that fits into a handshake: ninety P-521 authorities, each
// signed by the next, none of them trusted. A quarter of a second of event loop in plain Node.
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { CA, commonName, type Forged, forge, integer, oid, sequence } from '../identity/forge.ts'
import type { IssuedCertificate } from './pki.ts'

const ECDSA_SHA512 = sequence(oid('1.2.840.10045.4.3.4'))

export function costlyChain(length = 90): IssuedCertificate {
  const newKey = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey
  const common = {
    algorithm: ECDSA_SHA512,
    sign: (tbs: Buffer, key: KeyObject) => sign('sha512', tbs, key),
  }
  // One key for all authorities: it is verifying that costs.
  const key = newKey()
  let issuer: Forged = forge({ ...common, key, subject: commonName('0'), extensions: [CA] })
  const chain = [issuer]
  for (let i = 1; i < length; i++) {
    issuer = forge({
      ...common,
      key,
      issuer,
      serial: integer((0x1000 + i).toString(16)),
      subject: commonName(String(i)),
      ...(i < length - 1 && { extensions: [CA] }),
    })
    chain.unshift(issuer)
  }
  const [leaf] = chain as [Forged]
  const pem = leaf.certificate.toString()
  return {
    certificatePem: pem,
    chainPem: chain.map(({ certificate }) => certificate.toString()).join(''),
    privateKeyPem: leaf.key.export({ type: 'pkcs8', format: 'pem' }).toString(),
    serial: leaf.certificate.serialNumber,
  }
}
