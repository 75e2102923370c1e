// Envoy as a sidecar would have it: TLS 1.3 with verified clients, x-forwarded-client-cert, RBAC by
// SPIFFE ID and path, or the question to an authorisation service in its place.
import type { Service, Stage } from '../stage.ts'

const TYPE = 'type.googleapis.com/envoy.extensions'

/** @param authorisation port of the service to ask; absent: RBAC */
export function envoyConfig(
  stage: Stage,
  service: Service,
  port: number,
  authorisation?: number,
): object {
  const workload = cluster('workload', stage.workload.ports[service], service === 'grpc')
  return {
    static_resources: {
      listeners: [
        {
          address: address(port),
          filter_chains: [
            {
              filters: [
                {
                  name: 'http',
                  typed_config: {
                    '@type': `${TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
                    stat_prefix: 'inbound',
                    codec_type: 'AUTO',
                    forward_client_cert_details: 'SANITIZE_SET',
                    set_current_client_cert_details: { uri: true },
                    stream_idle_timeout: '3600s',
                    upgrade_configs: [{ upgrade_type: 'websocket' }],
                    route_config: {
                      virtual_hosts: [
                        {
                          name: 'workload',
                          domains: ['*'],
                          routes: [
                            {
                              match: { prefix: '/' },
                              route: { cluster: 'workload', timeout: '0s' },
                            },
                          ],
                        },
                      ],
                    },
                    http_filters: [
                      authorisation === undefined ? rbac() : externalAuthorisation(authorisation),
                      {
                        name: 'router',
                        typed_config: { '@type': `${TYPE}.filters.http.router.v3.Router` },
                      },
                    ],
                  },
                },
              ],
              transport_socket: downstreamTls(stage),
            },
          ],
        },
      ],
      clusters:
        authorisation === undefined
          ? [workload]
          : [workload, cluster('authorisation', authorisation, false)],
    },
  }
}

function rbac(): object {
  const principal = {
    authenticated: {
      principal_name: { safe_regex: { regex: 'spiffe://example\\.org/ns/[^/]+/sa/[^/]+' } },
    },
  }
  return {
    name: 'rbac',
    typed_config: {
      '@type': `${TYPE}.filters.http.rbac.v3.RBAC`,
      rules: {
        action: 'ALLOW',
        policies: {
          read: {
            permissions: [
              {
                and_rules: {
                  rules: [
                    { header: { name: ':method', string_match: { exact: 'GET' } } },
                    { url_path: { path: { prefix: '/api/' } } },
                  ],
                },
              },
            ],
            principals: [principal],
          },
          write: {
            permissions: [{ header: { name: ':method', string_match: { exact: 'POST' } } }],
            principals: [principal],
          },
        },
      },
    },
  }
}

function externalAuthorisation(port: number): object {
  return {
    name: 'ext_authz',
    typed_config: {
      '@type': `${TYPE}.filters.http.ext_authz.v3.ExtAuthz`,
      http_service: {
        server_uri: { uri: `http://127.0.0.1:${port}`, cluster: 'authorisation', timeout: '5s' },
        path_prefix: '/v1/data',
      },
      allowed_headers: { patterns: [{ exact: 'x-forwarded-client-cert' }] },
    },
  }
}

function downstreamTls(stage: Stage): object {
  const { certificate, privateKey, trustBundle } = stage.files
  return {
    name: 'tls',
    typed_config: {
      '@type': `${TYPE}.transport_sockets.tls.v3.DownstreamTlsContext`,
      require_client_certificate: true,
      common_tls_context: {
        alpn_protocols: ['h2', 'http/1.1'],
        tls_params: { tls_minimum_protocol_version: 'TLSv1_3' },
        tls_certificates: [
          { certificate_chain: { filename: certificate }, private_key: { filename: privateKey } },
        ],
        validation_context: { trusted_ca: { filename: trustBundle } },
      },
    },
  }
}

function cluster(name: string, port: number, http2: boolean): object {
  const options = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions'
  return {
    name,
    type: 'STATIC',
    connect_timeout: '5s',
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: address(port) } }] }],
    },
    typed_extension_protocol_options: {
      [options]: {
        '@type': `type.googleapis.com/${options}`,
        explicit_http_config: http2
          ? { http2_protocol_options: {} }
          : { http_protocol_options: {} },
      },
    },
  }
}

const address = (port: number): object => ({
  socket_address: { address: '127.0.0.1', port_value: port },
})
