// Files that will never change because each is a mount of its own: a `subPath` of Kubernetes or a
// bind mount of one file holds on to the inode it was made with (kubernetes#50345). Said at the first
// load, because a rotation that never arrives is otherwise found out when the certificate expires.
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { Problem } from '../errors.ts'
import type { FileRequest } from './files.ts'

export async function warnOfSingleFileMounts(files: readonly FileRequest[]): Promise<Problem[]> {
  // Only Linux has it, and only there do these mounts exist.
  const mountInfo = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '')
  return singleFileMounts(mountInfo, files)
}

/** `mountInfo`: text as in proc(5), the mount point in the fifth field. */
export function singleFileMounts(mountInfo: string, files: readonly FileRequest[]): Problem[] {
  const mountPoints = new Set(mountInfo.split('\n').map((line) => unescaped(line.split(' ')[4])))
  return files
    .filter(({ path }) => mountPoints.has(resolve(path)))
    .map(({ path, where }) => ({
      where,
      what: `${path} is a mount of its own (subPath, or a bind mount of one file), so that no replacement of it will ever be seen`,
      remedy: 'mount the directory that holds it',
      severity: 'warning',
    }))
}

/** Space, tab, newline and backslash are written as three octal digits. */
const unescaped = (field = ''): string =>
  field.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)))
