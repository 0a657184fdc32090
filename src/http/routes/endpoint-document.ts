/** The endpoint as it is shown, and the one way it is changed. */
import { canonicalUrl } from '../../core/callback-url.ts'
import type { EndpointDocument } from '../../core/documents.ts'
import { RingbackError } from '../../core/errors.ts'
import { defaultEvents, type Endpoint, endpointStatus } from '../../core/model.ts'
import { isJson, parseStored } from '../../core/stored-json.ts'
import type { EndpointPatch } from '../../store/interfaces.ts'
import { type AppContext, idParam, jsonReply, notFound, toTimestamp, toTimestampOrNull } from '../context.ts'
import { checkIfMatch, ifMatchAllows } from '../request/headers.ts'
import type { ApiReply } from '../request/problem.ts'
import type { ApiCall } from '../request/route.ts'

/** The endpoint document. `secret` is given by create and rotate only. */
export function toEndpointDocument(context: AppContext, endpoint: Endpoint, secret: string | null): EndpointDocument {
  const names = parseStored<string[]>(endpoint.headerNames, [])
  return {
    id: endpoint.id,
    url: endpoint.url,
    status: endpointStatus(endpoint),
    disabledReason: endpoint.disabledReason,
    description: endpoint.description,
    events: parseStored<string[]>(endpoint.events, [...defaultEvents]),
    taskTypes: parseStored<string[]>(endpoint.taskTypes, ['*']),
    headers: Object.fromEntries(names.map((name) => [name, '***'] as const)),
    format: endpoint.format,
    payload: endpoint.payload,
    maxPerMinute: endpoint.maxPerMinute,
    maxInFlight: endpoint.maxInFlight,
    retrySchedule:
      endpoint.retrySchedule !== null && isJson(endpoint.retrySchedule) ? (JSON.parse(endpoint.retrySchedule) as number[]) : null,
    secret,
    secretHint: endpoint.secretHint,
    jwksUrl: `${context.publicUrl()}/.well-known/jwks.json`,
    audience: endpoint.url,
    verification: {
      method: endpoint.verification,
      lastError: endpoint.verificationError,
      expiresAt: toTimestampOrNull(endpoint.verificationExpiresAt),
    },
    failingSince: toTimestampOrNull(endpoint.failingSince),
    lastSuccessAt: toTimestampOrNull(endpoint.lastSuccessAt),
    createdAt: toTimestamp(endpoint.createdAt),
    updatedAt: toTimestamp(endpoint.updatedAt),
    revision: endpoint.revision,
  }
}

export const endpointEtag = (endpoint: Endpoint): string => `"${endpoint.revision}"`

export function endpointReply(context: AppContext, endpoint: Endpoint, status = 200, secret: string | null = null): ApiReply {
  const cached: Record<string, string> = secret === null ? { 'Cache-Control': 'private, no-cache' } : {}
  return jsonReply(status, toEndpointDocument(context, endpoint, secret), { ...cached, ETag: endpointEtag(endpoint) })
}

export async function findEndpoint(context: AppContext, call: ApiCall): Promise<Endpoint> {
  const endpoint = await context.store.endpoints.find(idParam(call, 'endpoint'), call.caller.clientId)
  if (!endpoint) throw notFound('endpoint')
  return endpoint
}

/** The endpoint, if it is still what the caller saw. */
export async function findEndpointIfMatch(context: AppContext, call: ApiCall): Promise<Endpoint> {
  const endpoint = await findEndpoint(context, call)
  if (!ifMatchAllows(call.header('if-match'), String(endpoint.revision))) throw changedMeanwhile(endpoint)
  return endpoint
}

const changedMeanwhile = (endpoint: Pick<Endpoint, 'revision'>): RingbackError =>
  new RingbackError('precondition_failed', `The endpoint has changed: its revision is ${endpoint.revision} now. Read it again.`)

export const checkIfMatchHeader = (call: ApiCall): void => checkIfMatch(call.header('if-match'))

/** Names the endpoint that has the URL. */
export async function endpointExists(context: AppContext, clientId: string, url: string): Promise<RingbackError> {
  const wanted = canonicalUrl(url)
  const other = (await listAllEndpoints(context, clientId)).find((endpoint) => canonicalUrl(endpoint.url) === wanted)
  // Deleted in this very moment, it has no id to be named by.
  const id = other?.id ?? '{id}'
  return new RingbackError(
    'endpoint_exists',
    `You have an endpoint with this URL: change it with PATCH /v1/endpoints/${id}, or give it a new secret with POST /v1/endpoints/${id}/rotate-secret.`,
  )
}

/** Every endpoint of a client. */
export async function listAllEndpoints(context: AppContext, clientId: string): Promise<Endpoint[]> {
  const all: Endpoint[] = []
  let page = await context.store.endpoints.list(clientId, 200, null)
  for (;;) {
    all.push(...page.items)
    if (page.next === null) return all
    page = await context.store.endpoints.list(clientId, 200, page.next)
  }
}

/** How often a change that another one overtook is made again. */
const MAX_RETRIES = 5

/**
 * Reads, plans, writes; again when another change came between, unless the caller named the revision it saw.
 * @throws RingbackError `precondition_failed`, `endpoint_exists`, `not_found`
 */
export async function updateEndpoint(
  context: AppContext,
  call: ApiCall,
  found: Endpoint,
  plan: (endpoint: Endpoint) => EndpointPatch,
): Promise<Endpoint> {
  let endpoint = found
  for (let again = 0; ; again++) {
    const patch = plan(endpoint)
    if (Object.keys(patch).length === 0) return endpoint
    const changed = await context.store.endpoints.change({
      id: endpoint.id,
      clientId: call.caller.clientId,
      patch,
      revision: endpoint.revision,
      by: call.author,
    })
    if (changed.kind === 'changed') return changed.value
    if (changed.kind === 'missing') throw notFound('endpoint')
    if (changed.kind === 'duplicate') throw await endpointExists(context, endpoint.clientId, patch.url!)
    endpoint = await findEndpointIfMatch(context, call)
    if (again === MAX_RETRIES) throw changedMeanwhile(endpoint)
  }
}
