// PEM files. One without problems has a block for each BEGIN line, and says the same when written anew.
import assert from 'node:assert/strict'
import { readPem, writePem } from '../../../src/identity/pem.ts'
import { linesMutator } from '../mutate.ts'
import type { Target } from '../target.ts'

const block = (label: string, length: number) =>
  writePem(label, Buffer.from(Uint8Array.from({ length }, (_, i) => i)))

export const target: Target = {
  name: 'pem',
  runs: 10_000,
  seeds: () => [
    block('CERTIFICATE', 100) + block('CERTIFICATE', 1),
    `# a comment\r\n${block('PRIVATE KEY', 48).replaceAll('\n', '\r\n')}`,
    `${block('X509 CRL', 65)}trailing text\n`,
    '-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n',
  ],
  dictionary: [
    ...[
      '-----BEGIN CERTIFICATE-----',
      '-----END CERTIFICATE-----',
      '-----',
      'BEGIN',
      'END',
      '\n',
      '\r',
    ],
    ...[
      '=',
      '==',
      ' ',
      '\t',
      '\0',
      'Proc-Type: 4,ENCRYPTED\n',
      '\ufeff',
      '---- BEGIN',
      '-----begin',
    ],
  ],
  mutators: [linesMutator],
  check: (input) => {
    const text = input.toString('latin1')
    const { blocks, problems } = readPem(text, 'file.pem')
    for (const { what, remedy } of problems) assert.ok(what !== '' && remedy !== '')
    const numbers = blocks.map(({ number }) => number)
    assert.deepEqual(
      numbers,
      [...new Set(numbers)].sort((a, b) => a - b),
    )
    if (problems.length > 0) return
    assert.equal(blocks.length, text.match(/^\s*-----BEGIN /gm)?.length)
    const written = blocks.map(({ label, bytes, text }) => text ?? writePem(label, bytes!)).join('')
    const letters = text.replaceAll(/\s/g, '')
    for (const { bytes } of blocks) assert.ok(letters.includes(bytes?.toString('base64') ?? ''))
    const again = readPem(written, 'file.pem')
    assert.deepEqual(again.problems, [])
    assert.deepEqual(
      again.blocks.map(({ label, bytes, text }) => ({ label, bytes, text })),
      blocks.map(({ label, bytes, text }) => ({ label, bytes, text })),
    )
  },
}
