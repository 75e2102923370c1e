// Asks a compiled policy module what it is: ABI, entrypoints, builtins that it expects. Nothing of
// it is kept; evaluation is the host's business.

export interface ModuleFacts {
  readonly abiMajor: number
  readonly abiMinor: number
  readonly entrypoints: ReadonlyMap<string, number>
  /** Names by the id that the module calls them with. */
  readonly builtins: ReadonlyMap<number, string>
}

export type Inspected =
  | { readonly kind: 'facts'; readonly facts: ModuleFacts }
  | { readonly kind: 'refused'; readonly reason: string }

const IMPORTS = [
  'opa_abort',
  'opa_println',
  'opa_builtin0',
  'opa_builtin1',
  'opa_builtin2',
  'opa_builtin3',
  'opa_builtin4',
]

const FUNCTIONS = [
  'opa_eval',
  'opa_malloc',
  'opa_free',
  'opa_json_parse',
  'opa_json_dump',
  'opa_value_parse',
  'opa_value_dump',
  'opa_heap_ptr_get',
  'entrypoints',
  'builtins',
]

const PAGES = 32

export function inspectModule(module: WebAssembly.Module): Inspected {
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    if (from !== 'env' || (name !== 'memory' && !IMPORTS.includes(name))) {
      return {
        kind: 'refused',
        reason: `the module imports ${from}.${name}, which no policy needs`,
      }
    }
  }
  const exported = WebAssembly.Module.exports(module)
  for (const name of FUNCTIONS) {
    if (!exported.some((one) => one.name === name && one.kind === 'function')) {
      return { kind: 'refused', reason: `the module has no function ${name}` }
    }
  }
  try {
    return { kind: 'facts', facts: factsOf(module) }
  } catch (error) {
    return { kind: 'refused', reason: `the module cannot be asked what it is: ${String(error)}` }
  }
}

function factsOf(module: WebAssembly.Module): ModuleFacts {
  const memory = new WebAssembly.Memory({ initial: PAGES })
  const refuse = () => {
    throw new Error('it calls its host while it is loaded')
  }
  const imports = Object.fromEntries(IMPORTS.map((name) => [name, refuse]))
  const { exports } = new WebAssembly.Instance(module, { env: { ...imports, memory } })
  const dump = (name: 'entrypoints' | 'builtins'): [string, number][] => {
    const functions = exports as Record<string, (address?: number) => number>
    const address = functions['opa_json_dump']?.(functions[name]?.()) ?? 0
    const bytes = Buffer.from(memory.buffer)
    const text = bytes.toString('utf8', address, bytes.indexOf(0, address))
    return Object.entries(JSON.parse(text) as Record<string, number>)
  }
  return {
    abiMajor: globalValue(exports['opa_wasm_abi_version']),
    abiMinor: globalValue(exports['opa_wasm_abi_minor_version']),
    entrypoints: new Map(dump('entrypoints')),
    builtins: new Map(dump('builtins').map(([name, id]) => [id, name])),
  }
}

/** Modules from before ABI 1.1 have no minor version. */
function globalValue(exported: unknown): number {
  return exported instanceof WebAssembly.Global ? exported.value : 0
}
