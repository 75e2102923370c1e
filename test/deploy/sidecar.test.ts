import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { parseAllDocuments } from 'yaml'
import { IMAGE_ENVIRONMENT, IMAGE_OPTIONS } from '../../bench/process.ts'
import { loadConfig } from '../../src/config/load.ts'

const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')

// biome-ignore lint/suspicious/noExplicitAny: a manifest of Kubernetes, read here and nowhere else
type Manifest = any

const documents: Manifest[] = parseAllDocuments(read('deploy/sidecar.yaml')).map((document) => {
  assert.deepEqual(document.errors, [])
  assert.deepEqual(document.warnings, [])
  return document.toJS()
})

const only = (kind: string): Manifest => {
  const found = documents.filter((one) => one.kind === kind)
  assert.equal(found.length, 1, kind)
  return found[0]
}

const pod = only('Deployment').spec.template.spec
const sidecar = pod.initContainers[0]
const configFile = 'postern.yaml'

const loaded = loadConfig({
  file: { path: configFile, text: only('ConfigMap').data[configFile] },
  flags: {},
  env: {},
  container: { cpuLimit: () => 1, memoryLimit: () => 256 * 1024 * 1024 },
})

function config() {
  assert.deepEqual(loaded.problems, [])
  assert.ok(loaded.config !== undefined)
  return loaded.config
}

test('the configuration of the manifest is accepted, and weakens nothing', () => {
  assert.equal(config().workers, 1)
  assert.deepEqual(loaded.unsafeOptions, [])
})

test('every file of the configuration is projected into the volume where it is read', () => {
  const { identity, trust, policy } = config()
  assert.ok(identity.kind === 'files' && policy !== undefined)
  const volume = pod.volumes.find((one: Manifest) => one.projected !== undefined)
  const mount = sidecar.volumeMounts.find((one: Manifest) => one.name === volume.name)
  const projected = volume.projected.sources
    .flatMap((source: Manifest) => Object.values(source) as Manifest[])
    .flatMap(({ items }: Manifest) => items)
    .map(({ path }: Manifest) => `${mount.mountPath}/${path}`)
  const used = [
    identity.certificate,
    identity.privateKey,
    ...trust.bundles.map(({ file }) => file),
    ...trust.crls,
    policy.bundle,
  ]
  assert.deepEqual(used.sort(), projected.sort())
})

test('the configuration is mounted where the argument of the sidecar says', () => {
  const mount = sidecar.volumeMounts.find((one: Manifest) => one.name === 'config')
  assert.deepEqual(sidecar.args, ['run', '--config', `${mount.mountPath}/${configFile}`])
  const volume = pod.volumes.find((one: Manifest) => one.name === 'config')
  assert.equal(volume.configMap.name, only('ConfigMap').metadata.name)
})

test('no mount uses subPath, which the kubelet never updates', () => {
  for (const mount of sidecar.volumeMounts) {
    assert.equal(mount.subPath, undefined)
    assert.equal(mount.readOnly, true)
  }
})

test('ports, probes, service and network policy agree with the listeners', () => {
  const { inbound, metrics, probes } = config()
  const port = (listener: { listen: Manifest } | undefined): number => listener?.listen.port
  const byName = new Map(
    sidecar.ports.map((one: Manifest) => [one.name, one.containerPort] as const),
  )
  assert.deepEqual(
    [byName.get('mtls'), byName.get('metrics'), byName.get('probes')],
    [port(inbound), port(metrics), port(probes)],
  )
  assert.equal(sidecar.startupProbe.httpGet.path, '/startupz')
  assert.equal(sidecar.readinessProbe.httpGet.path, '/readyz')
  assert.equal(sidecar.livenessProbe.httpGet.path, '/livez')
  for (const probe of ['startupProbe', 'readinessProbe', 'livenessProbe']) {
    assert.equal(sidecar[probe].httpGet.port, 'metrics')
  }
  const workload = pod.containers[0].readinessProbe.httpGet
  assert.equal(workload.port, port(probes))
  assert.ok(probes?.paths.includes(workload.path))
  assert.equal(only('Service').spec.ports[0].targetPort, 'mtls')
  const open = only('NetworkPolicy').spec.ingress.flatMap((rule: Manifest) => rule.ports)
  assert.deepEqual(open.map((one: Manifest) => one.port).sort(), ['metrics', 'mtls'])
})

test('the sidecar is native, unprivileged, and drains before it is killed', () => {
  assert.equal(sidecar.restartPolicy, 'Always')
  assert.deepEqual(sidecar.securityContext, {
    runAsNonRoot: true,
    runAsUser: 65532,
    runAsGroup: 65532,
    readOnlyRootFilesystem: true,
    allowPrivilegeEscalation: false,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  })
  const pauseMs = pod.containers[0].lifecycle.preStop.sleep.seconds * 1000
  assert.ok(pod.terminationGracePeriodSeconds * 1000 > pauseMs + config().drain.timeoutMs)
})

test('the image starts Postern as it was measured', () => {
  const program = ['/usr/local/bin/node', ...IMAGE_OPTIONS, '/app/dist/main.js']
  assert.ok(
    read('Dockerfile').includes(`ENTRYPOINT ${JSON.stringify(program).replaceAll('","', '", "')}`),
  )
  for (const [name, value] of Object.entries(IMAGE_ENVIRONMENT)) {
    assert.ok(read('Dockerfile').includes(`\nENV ${name}=${value}\n`), name)
  }
})

test('image and manifest agree about user, ports and configuration', () => {
  const image = read('Dockerfile')
  assert.match(image, /^USER 65532:65532$/m)
  const ports = sidecar.ports.map((one: Manifest) => one.containerPort).join(' ')
  assert.match(image, new RegExp(`^EXPOSE ${ports}$`, 'm'))
  assert.ok(image.includes(`CMD ${JSON.stringify(sidecar.args).replaceAll('","', '", "')}`))
})
