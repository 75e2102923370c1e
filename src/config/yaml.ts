// The YAML library, loaded when a file is to be read or written: 10 MiB that a start from flags alone
// does without.
import { requireModule } from '../package.ts'

type Yaml = typeof import('./yaml-library.ts')

export const loadYaml = (): Yaml => requireModule<Yaml>('config/yaml-library')
