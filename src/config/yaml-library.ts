// What is used of the YAML library, as a module that can be loaded late.
export { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument, stringify } from 'yaml'
