/** The document of an endpoint, and the one function that changes it. */
import { canonicalUrl } from '../../core/callback-url.ts'
import type { EndpointDocument } from '../../core/documents.ts'
import { RingbackError } from '../../core/errors.ts'
import { defaultEvents, type Endpoint, endpointStatus } from '../../core/model.ts'
import { isJson, parseStored } from '../../core/stored-json.ts'
import type { EndpointPatch } from '../../store/interfaces.ts'
import { type AppContext, idParam } from '../context.ts'
import { preconditionFailed, requireIfMatch } from '../request/headers.ts'
import type { ApiReply } from '../request/problem.ts'
import { jsonReply, notFound, toTimestamp, toTimestampOrNull } from '../request/replies.ts'
import type { ApiCall } from '../request/route.ts'

/** Only create and rotate give `secret`. */
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

/** The endpoint, if `If-Match` admits its revision. */
export async function findEndpointIfMatch(context: AppContext, call: ApiCall): Promise<Endpoint> {
  const endpoint = await findEndpoint(context, call)
  requireIfMatch(call, 'endpoint', endpoint)
  return endpoint
}

/** The error that names the endpoint with this URL. */
export async function endpointExists(context: AppContext, clientId: string, url: string): Promise<RingbackError> {
  const wanted = canonicalUrl(url)
  const other = (await listAllEndpoints(context, clientId)).find((endpoint) => canonicalUrl(endpoint.url) === wanted)
  // The other endpoint may have been deleted just now.
  const id = other?.id ?? '{id}'
  return new RingbackError(
    'endpoint_exists',
    `You have an endpoint with this URL: change it with PATCH /v1/endpoints/${id}, or give it a new secret with POST /v1/endpoints/${id}/rotate-secret.`,
  )
}

/**
 * Checks a callback URL.
 * @throws RingbackError `invalid_callback_url`, `callback_url_forbidden`, with the pointer
 */
export function checkCallbackUrl(context: AppContext, url: string, pointer: string): URL {
  try {
    return context.validateCallbackUrl(url)
  } catch (error) {
    if (!(error instanceof RingbackError) || error.errors.length > 0) throw error
    throw new RingbackError(error.code, error.message, { errors: [{ pointer, detail: 'cannot be called' }] })
  }
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

/** How often a change is repeated after a conflict. */
const MAX_RETRIES = 5

/**
 * Reads, plans and writes. Repeats after a conflict, unless the caller named a revision.
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
    if (again === MAX_RETRIES) throw preconditionFailed('endpoint', endpoint.revision)
  }
}
