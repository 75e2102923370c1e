// The YAML library, loaded when a file is to be read or written: 30 ms and 10 MiB (measured on Node
// 26.10) that a start from flags alone does without.
import { createRequire } from 'node:module'
import type * as Yaml from 'yaml'

const require = createRequire(import.meta.url)

export const loadYaml = (): typeof Yaml => require('yaml')
