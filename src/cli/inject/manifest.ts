// Adds the sidecar to the workloads of a stream of Kubernetes manifests, and leaves every other byte
// that it can: comments, order, documents of other kinds. Doing it twice is the same as once.
import { type Document, isMap, isSeq, parseAllDocuments, type YAMLMap, type YAMLSeq } from 'yaml'
import type { Problem } from '../../errors.ts'
import {
  CONTAINER_NAME,
  GROUP,
  type InjectNames,
  sidecarContainer,
  sidecarVolumes,
} from './sidecar-container.ts'

export interface Injection {
  readonly text: string
  /** `Deployment orders`, and what happened to it. */
  readonly told: readonly string[]
}

/** Set to `false` on a workload or its pods, it is left alone. */
export const ANNOTATION = 'postern.dev/inject'

/** Names of the things that the pods of a workload mount, from the name of the workload. */
export type NamesFor = (workload: string) => InjectNames

const POD_SPECS: Readonly<Record<string, readonly string[]>> = {
  Pod: ['spec'],
  Deployment: ['spec', 'template', 'spec'],
  ReplicaSet: ['spec', 'template', 'spec'],
  StatefulSet: ['spec', 'template', 'spec'],
  DaemonSet: ['spec', 'template', 'spec'],
  Job: ['spec', 'template', 'spec'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template', 'spec'],
}

/** @param file for messages */
export function inject(
  text: string,
  file: string,
  names: NamesFor,
): Injection | { readonly problems: readonly Problem[] } {
  const documents = parseAllDocuments(text, { keepSourceTokens: true }) as Document.Parsed[]
  const problems = documents.flatMap(({ errors }) =>
    errors.map(({ linePos, message }) => ({
      where: linePos === undefined ? file : `${file}:${linePos[0].line}:${linePos[0].col}`,
      what: `not YAML: ${message.split('\n')[0]}`,
      remedy: 'give manifests as kubectl reads them',
    })),
  )
  if (problems.length > 0) return { problems }
  const told = documents.flatMap((document) => injectInto(document, names))
  if (told.length === 0) {
    const kinds = Object.keys(POD_SPECS).join(', ')
    const what = 'there is no workload in it'
    return { problems: [{ where: file, what, remedy: `give one of ${kinds}` }] }
  }
  return { text: documents.map((document, i) => asText(document, i === 0)).join(''), told }
}

/** A list of kind List holds further objects. */
function injectInto(document: Document, names: NamesFor): string[] {
  const root = document.contents
  if (!isMap(root)) return []
  const items = root.get('items')
  if (root.get('kind') === 'List' && isSeq(items)) {
    return items.items.flatMap((item) => (isMap(item) ? injectObject(document, item, names) : []))
  }
  return injectObject(document, root, names)
}

function injectObject(document: Document, object: YAMLMap, names: NamesFor): string[] {
  const kind = String(object.get('kind'))
  const path = Object.hasOwn(POD_SPECS, kind) ? POD_SPECS[kind] : undefined
  if (path === undefined) return []
  const name = String(
    object.getIn(['metadata', 'name']) ?? object.getIn(['metadata', 'generateName']) ?? '',
  )
  const spec = object.getIn(path)
  const told = `${kind} ${name || '(without a name)'}`
  if (!isMap(spec)) return [`${told}: has no pod spec, left as it is`]
  const template = [...path.slice(0, -1), 'metadata', 'annotations', ANNOTATION]
  const off = [['metadata', 'annotations', ANNOTATION], template].some(
    (where) => String(object.getIn(where)) === 'false',
  )
  if (off) return [`${told}: left as it is, as ${ANNOTATION} says`]
  if (spec.get('hostNetwork') === true) {
    return [`${told}: left as it is, hostNetwork gives the workload ports that others reach`]
  }
  return addSidecar(document, spec, names(name), told)
}

function addSidecar(document: Document, spec: YAMLMap, names: InjectNames, told: string): string[] {
  const before = put(document, spec, 'initContainers', sidecarContainer(names), 'first')
  for (const volume of sidecarVolumes(names)) put(document, spec, 'volumes', volume, 'last')
  const security = spec.get('securityContext')
  if (!isMap(security)) spec.set('securityContext', document.createNode({ fsGroup: GROUP }))
  else if (!security.has('fsGroup')) security.set('fsGroup', GROUP)
  const lines = [
    `${told}: ${before ? 'sidecar replaced' : 'sidecar added'} (${names.config}, ${names.identity}, ${names.trust}, ${names.policy})`,
  ]
  const containers = spec.get('containers')
  const probed = isSeq(containers) && containers.items.some(hasNetworkProbe)
  if (probed) {
    lines.push(
      `${told}: its probes reach the workload past Postern; send them to port 15021 and list their paths in probes.paths`,
    )
  }
  return lines
}

/** Puts `value` into the list, in place of one of the same name. @returns whether there was one */
function put(
  document: Document,
  spec: YAMLMap,
  key: string,
  value: Record<string, unknown>,
  place: 'first' | 'last',
): boolean {
  const node = document.createNode(value)
  const known = spec.get(key)
  if (!isSeq(known)) {
    spec.set(key, document.createNode([value]))
    return false
  }
  const list = known as YAMLSeq
  const at = list.items.findIndex((item) => isMap(item) && item.get('name') === value['name'])
  if (at !== -1) list.items[at] = node
  else if (place === 'first') list.items.unshift(node)
  else list.items.push(node)
  return at !== -1
}

function hasNetworkProbe(container: unknown): boolean {
  if (!isMap(container) || container.get('name') === CONTAINER_NAME) return false
  return ['livenessProbe', 'readinessProbe', 'startupProbe'].some((probe) => {
    const port = ['httpGet', 'tcpSocket', 'grpc'].map((kind) =>
      container.getIn([probe, kind, 'port']),
    )
    return port.some((one) => one !== undefined && one !== 15021)
  })
}

/** The documents one after the other, as they came. */
function asText(document: Document, first: boolean): string {
  const text = document.toString({ lineWidth: 0 })
  return first || text.startsWith('---') ? text : `---\n${text}`
}
