// Tar archives that no tool would write: every field of a header is the caller's.
import { gzipSync } from 'node:zlib'

export interface TarHeader {
  readonly name: string
  readonly content: Buffer
  /** `0` file, `1` link, `2` symbolic link, `5` directory, `x` PAX, `g` global PAX, `L` long name. */
  readonly type: string
  /** What the header says; absent: what the content has. */
  readonly size?: string
  readonly linkName?: string
  readonly prefix?: string
  readonly magic?: string
  readonly badChecksum?: boolean
}

export function tar(entries: readonly TarHeader[], end = 1024): Buffer {
  return Buffer.concat([...entries.flatMap(blocks), Buffer.alloc(end)])
}

export const archive = (entries: readonly TarHeader[]): Buffer =>
  gzipSync(tar(entries), { level: 1 })

/** Records of a PAX header: each begins with its own length. */
export function pax(records: Readonly<Record<string, string>>): Buffer {
  return Buffer.concat(
    Object.entries(records).map(([key, value]) => {
      const body = Buffer.from(` ${key}=${value}\n`)
      let length = body.length + 1
      while (String(length).length + body.length !== length)
        length = String(length).length + body.length
      return Buffer.concat([Buffer.from(String(length)), body])
    }),
  )
}

function blocks({ content, ...header }: TarHeader): Buffer[] {
  const padding = Buffer.alloc((512 - (content.length % 512)) % 512)
  return [headerBlock(header, content.length), content, padding]
}

function headerBlock(header: Omit<TarHeader, 'content'>, length: number): Buffer {
  const block = Buffer.alloc(512)
  const put = (text: string, at: number, most: number) =>
    Buffer.from(text).copy(block, at, 0, Math.min(most, Buffer.byteLength(text)))
  put(header.name, 0, 100)
  put('0000600\0', 100, 8)
  put(header.size ?? `${length.toString(8).padStart(11, '0')}\0`, 124, 12)
  put('00000000000\0', 136, 12)
  put(header.type, 156, 1)
  put(header.linkName ?? '', 157, 100)
  put(header.magic ?? 'ustar\x0000', 257, 8)
  put(header.prefix ?? '', 345, 155)
  block.fill(0x20, 148, 156)
  const sum = block.reduce((all, byte) => all + byte, header.badChecksum ? 1 : 0)
  put(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8)
  return block
}
