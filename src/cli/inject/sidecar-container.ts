// What `postern inject` adds to a pod: the container and the volumes of deploy/sidecar.yaml, which a
// test holds against this.

export interface InjectNames {
  readonly image: string
  /** ConfigMap with postern.yaml. */
  readonly config: string
  /** Secret with tls.crt and tls.key. */
  readonly identity: string
  /** ConfigMap with ca.crt and ca.crl. */
  readonly trust: string
  /** ConfigMap with bundle.tar.gz. */
  readonly policy: string
}

export const CONTAINER_NAME = 'postern'
export const CONFIG_VOLUME = 'postern-config'
export const MATERIALS_VOLUME = 'postern-materials'
/** Of the image; a pod's fsGroup lets it read the projected key. */
export const GROUP = 65532

export function sidecarContainer({ image }: InjectNames): Record<string, unknown> {
  return {
    name: CONTAINER_NAME,
    image,
    restartPolicy: 'Always',
    args: ['run', '--config', '/etc/postern/postern.yaml'],
    ports: [
      { name: 'mtls', containerPort: 8443 },
      { name: 'metrics', containerPort: 15090 },
      { name: 'probes', containerPort: 15021 },
    ],
    startupProbe: {
      httpGet: { path: '/startupz', port: 'metrics' },
      periodSeconds: 1,
      failureThreshold: 60,
    },
    readinessProbe: { httpGet: { path: '/readyz', port: 'metrics' }, periodSeconds: 5 },
    livenessProbe: {
      httpGet: { path: '/livez', port: 'metrics' },
      periodSeconds: 10,
      failureThreshold: 3,
    },
    resources: {
      requests: { cpu: '50m', memory: '128Mi' },
      limits: { memory: '256Mi' },
    },
    securityContext: {
      runAsNonRoot: true,
      runAsUser: GROUP,
      runAsGroup: GROUP,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
    volumeMounts: [
      { name: CONFIG_VOLUME, mountPath: '/etc/postern', readOnly: true },
      { name: MATERIALS_VOLUME, mountPath: '/run/postern', readOnly: true },
    ],
  }
}

export function sidecarVolumes(names: InjectNames): readonly Record<string, unknown>[] {
  return [
    { name: CONFIG_VOLUME, configMap: { name: names.config } },
    {
      name: MATERIALS_VOLUME,
      projected: {
        defaultMode: 0o440,
        sources: [
          {
            secret: {
              name: names.identity,
              items: [
                { key: 'tls.crt', path: 'identity/tls.crt' },
                { key: 'tls.key', path: 'identity/tls.key' },
              ],
            },
          },
          {
            configMap: {
              name: names.trust,
              items: [
                { key: 'ca.crt', path: 'trust/ca.crt' },
                { key: 'ca.crl', path: 'trust/ca.crl' },
              ],
            },
          },
          {
            configMap: {
              name: names.policy,
              items: [{ key: 'bundle.tar.gz', path: 'policy/bundle.tar.gz' }],
            },
          },
        ],
      },
    },
  ]
}
