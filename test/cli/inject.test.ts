import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { describe, it } from 'node:test'
import { parseAllDocuments } from 'yaml'
import { MAIN } from '../support/command.ts'

const DEPLOYED = readFileSync(new URL('../../deploy/sidecar.yaml', import.meta.url), 'utf8')

const PLAIN = `# ours
apiVersion: apps/v1
kind: Deployment
metadata:
  name: orders # the name
spec:
  template:
    spec:
      containers:
        - name: orders
          image: orders:1.0.0
          readinessProbe:
            httpGet: { path: /healthz, port: 8080 }
---
apiVersion: v1
kind: Service
metadata:
  name: orders
`

async function inject(input: string, ...args: string[]) {
  const child = spawn(process.execPath, [MAIN, 'inject', ...args])
  child.stdin.end(input)
  const [stdout, stderr, exitCode] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise<number | null>((resolve) => child.on('close', resolve)),
  ])
  return { stdout, stderr, exitCode }
}

// biome-ignore lint/suspicious/noExplicitAny: manifests of Kubernetes
const documentsOf = (yaml: string): any[] => parseAllDocuments(yaml).map((one) => one.toJS())

describe('inject', () => {
  it('adds the sidecar as deploy/sidecar.yaml has it, and keeps everything else', async () => {
    const { stdout, stderr, exitCode } = await inject(PLAIN)
    assert.equal(exitCode, 0)
    assert.match(stdout, /^# ours\n/)
    assert.match(stdout, /name: orders # the name/)
    const [deployment, service] = documentsOf(stdout)
    assert.equal(service.kind, 'Service')
    const pod = deployment.spec.template.spec
    const wanted = documentsOf(DEPLOYED).find(({ kind }) => kind === 'Deployment').spec.template
      .spec
    // The volumes have names of their own, so that they meet no others; and 0440 is what Kubernetes,
    // which reads YAML 1.1, takes for octal.
    const renamed = JSON.parse(
      JSON.stringify(wanted)
        .replaceAll('"name":"config"', '"name":"postern-config"')
        .replace('"defaultMode":440', '"defaultMode":288')
        .replaceAll('"name":"postern","projected"', '"name":"postern-materials","projected"')
        .replaceAll('"name":"postern","mountPath"', '"name":"postern-materials","mountPath"'),
    )
    assert.deepEqual(pod.initContainers, renamed.initContainers)
    assert.deepEqual(pod.volumes, renamed.volumes)
    assert.equal(pod.securityContext.fsGroup, 65532)
    assert.deepEqual(pod.containers, documentsOf(PLAIN)[0].spec.template.spec.containers)
    assert.match(stderr, /Deployment orders: sidecar added/)
    assert.match(stderr, /its probes reach the workload past Postern/)
  })

  it('done twice is the same as once', async () => {
    const once = await inject(PLAIN)
    const twice = await inject(once.stdout)
    assert.equal(twice.stdout, once.stdout)
    assert.match(twice.stderr, /sidecar replaced/)
  })

  it('knows every kind of workload, and lists of them', async () => {
    const template = 'template: { spec: { containers: [] } }'
    for (const [kind, spec] of [
      ['Pod', 'spec: { containers: [] }'],
      ['StatefulSet', `spec: { ${template} }`],
      ['DaemonSet', `spec: { ${template} }`],
      ['Job', `spec: { ${template} }`],
      ['CronJob', `spec: { jobTemplate: { spec: { ${template} } } }`],
    ] as const) {
      const one = `kind: ${kind}\nmetadata: { name: a }\n${spec}\n`
      assert.match((await inject(one)).stdout, /postern-materials/, kind)
      const indented = one.trimEnd().replaceAll('\n', '\n    ')
      const list = `kind: List\nitems:\n  - ${indented}\n`
      assert.match((await inject(list)).stdout, /postern-materials/, `${kind} in a list`)
    }
  })

  it('takes names, with the name of the workload in them', async () => {
    const { stdout } = await inject(
      PLAIN,
      '--image',
      'r.test/p:1',
      '--config',
      'c-{}',
      '--trust',
      't',
    )
    for (const part of [
      'image: r.test/p:1',
      'name: c-orders',
      'name: t\n',
      'name: orders-policy',
    ]) {
      assert.ok(stdout.includes(part), part)
    }
  })

  it('leaves alone who does not want it, or whom it could not guard', async () => {
    const off = PLAIN.replace(
      'metadata:',
      'metadata:\n  annotations: { postern.dev/inject: "false" }',
    )
    const host = PLAIN.replace('      containers:', '      hostNetwork: true\n      containers:')
    for (const manifest of [off, host]) {
      const { stdout, stderr, exitCode } = await inject(manifest)
      assert.equal(exitCode, 0)
      assert.deepEqual(documentsOf(stdout), documentsOf(manifest))
      assert.match(stderr, /left as it is/)
    }
  })

  it('says what is wrong with its input, and writes nothing', async () => {
    for (const [input, message] of [
      ['a: [', /standard input:1:\d+: not YAML/],
      ['kind: Service\n', /there is no workload in it/],
      ['', /there is no workload in it/],
    ] as const) {
      const { stdout, stderr, exitCode } = await inject(input)
      assert.equal(exitCode, 2)
      assert.equal(stdout, '')
      assert.match(stderr, message)
    }
  })
})
