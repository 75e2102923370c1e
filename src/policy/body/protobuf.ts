// The library for protocol buffers, loaded when a descriptor is configured: 20 ms and 6 MiB that all
// others do without.
import { createRequire } from 'node:module'
import type * as Library from '@bufbuild/protobuf'
import type * as Reflection from '@bufbuild/protobuf/reflect'
import type * as WellKnown from '@bufbuild/protobuf/wkt'

export type Protobuf = typeof Library &
  Pick<typeof Reflection, 'reflect' | 'protoCamelCase'> &
  Pick<typeof WellKnown, 'FileDescriptorSetSchema'>

const require = createRequire(import.meta.url)

export function loadProtobuf(): Protobuf {
  const { reflect, protoCamelCase } = require('@bufbuild/protobuf/reflect') as typeof Reflection
  const { FileDescriptorSetSchema } = require('@bufbuild/protobuf/wkt') as typeof WellKnown
  const library = require('@bufbuild/protobuf') as typeof Library
  return { ...library, reflect, protoCamelCase, FileDescriptorSetSchema }
}
