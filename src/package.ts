// What of the package is found by its path and not by an import: its files, and the modules that are
// loaded late or by another thread. They have the same paths in src/ and in dist/, of both of which
// this is in the topmost directory (see tools/build.ts).
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const EXTENSION = import.meta.url.endsWith('.ts') ? 'ts' : 'js'

/** @param path from the directory of package.json */
export const packageFile = (path: string): URL => new URL(`../${path}`, import.meta.url)

/** @param name path in src/, without its ending */
export const moduleFile = (name: string): URL => new URL(`${name}.${EXTENSION}`, import.meta.url)

/** Loads a module synchronously. @param name as above */
export const requireModule = <M>(name: string): M => require(`./${name}.${EXTENSION}`) as M
