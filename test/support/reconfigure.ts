// Changes the configuration file of a running sidecar, as an operator with an editor does.
import { readFile, writeFile } from 'node:fs/promises'
import { parse, stringify } from 'yaml'
import type { TestSidecar } from './sidecar.ts'

export type Document = Record<string, unknown>

/** Writes the file anew with these top-level sections in place of its own; gives back the old text. */
export async function reconfigure(sidecar: TestSidecar, sections: Document): Promise<string> {
  const before = await readFile(sidecar.files.config, 'utf8')
  await writeFile(sidecar.files.config, stringify({ ...(parse(before) as Document), ...sections }))
  return before
}
