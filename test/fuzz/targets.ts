// Every kind of hostile input that has a corpus.
import type { Target } from './target.ts'
import { target as certificate } from './targets/certificate.ts'
import { target as chunkedBody } from './targets/chunked-body.ts'
import { target as config } from './targets/config.ts'
import { target as crl } from './targets/crl.ts'
import { target as denyList } from './targets/deny-list.ts'
import { target as h2cWorkload } from './targets/h2c-workload.ts'
import { target as hpack } from './targets/hpack.ts'
import { target as http1Request } from './targets/http1-request.ts'
import { target as http1Response } from './targets/http1-response.ts'
import { target as http2Client } from './targets/http2-client.ts'
import { target as nameConstraints } from './targets/name-constraints.ts'
import { target as pem } from './targets/pem.ts'
import { target as policyInput } from './targets/policy-input.ts'
import { target as policyResult } from './targets/policy-result.ts'
import { target as proxyHeader } from './targets/proxy-header.ts'
import { target as requestTarget } from './targets/request-target.ts'
import { target as websocketFrames } from './targets/websocket-frames.ts'
import { target as workloadApi } from './targets/workload-api.ts'

export const TARGETS: readonly Target[] = [
  certificate,
  chunkedBody,
  config,
  crl,
  denyList,
  h2cWorkload,
  hpack,
  http1Request,
  http1Response,
  http2Client,
  nameConstraints,
  pem,
  policyInput,
  policyResult,
  proxyHeader,
  requestTarget,
  websocketFrames,
  workloadApi,
]
