/** The endpoint as it is shown, and the one way it is changed. */
import { canonicalUrl } from '../../core/callback-url.ts'
import { RingbackError } from '../../core/errors.ts'
import { defaultEvents, type Endpoint, endpointStatus } from '../../core/model.ts'
import { isJson, parsed } from '../../core/stored-json.ts'
import type { EndpointPatch } from '../../store/interfaces.ts'
import { type House, idParam, jsonReply, notFound, shownTime, shownTimeOrNull } from '../context.ts'
import { checkIfMatch, matches } from '../request/headers.ts'
import type { Reply } from '../request/problem.ts'
import type { Call } from '../request/route.ts'

/** The endpoint document. `secret` is given by create and rotate only. */
export function shownEndpoint(house: House, endpoint: Endpoint, secret: string | null) {
  const names = parsed<string[]>(endpoint.headerNames, [])
  return {
    id: endpoint.id,
    url: endpoint.url,
    status: endpointStatus(endpoint),
    disabledReason: endpoint.disabledReason,
    description: endpoint.description,
    events: parsed<string[]>(endpoint.events, [...defaultEvents]),
    taskTypes: parsed<string[]>(endpoint.taskTypes, ['*']),
    headers: Object.fromEntries(names.map((name) => [name, '***'])),
    format: endpoint.format,
    payload: endpoint.payload,
    maxPerMinute: endpoint.maxPerMinute,
    maxInFlight: endpoint.maxInFlight,
    retrySchedule:
      endpoint.retrySchedule !== null && isJson(endpoint.retrySchedule) ? (JSON.parse(endpoint.retrySchedule) as number[]) : null,
    secret,
    secretHint: endpoint.secretHint,
    jwksUrl: `${house.publicUrl()}/.well-known/jwks.json`,
    audience: endpoint.url,
    verification: {
      method: endpoint.verification,
      lastError: endpoint.verificationError,
      expiresAt: shownTimeOrNull(endpoint.verificationExpiresAt),
    },
    failingSince: shownTimeOrNull(endpoint.failingSince),
    lastSuccessAt: shownTimeOrNull(endpoint.lastSuccessAt),
    createdAt: shownTime(endpoint.createdAt),
    updatedAt: shownTime(endpoint.updatedAt),
    revision: endpoint.revision,
  }
}

export const tagOf = (endpoint: Endpoint): string => `"${endpoint.revision}"`

export function endpointReply(house: House, endpoint: Endpoint, status = 200, secret: string | null = null): Reply {
  const cached: Record<string, string> = secret === null ? { 'Cache-Control': 'private, no-cache' } : {}
  return jsonReply(status, shownEndpoint(house, endpoint, secret), { ...cached, ETag: tagOf(endpoint) })
}

export async function findEndpoint(house: House, call: Call): Promise<Endpoint> {
  const endpoint = await house.store.findEndpoint(idParam(call, 'endpoint'), call.caller.clientId)
  if (!endpoint) throw notFound('endpoint')
  return endpoint
}

/** The endpoint, if it is still what the caller saw. */
export async function findUnchanged(house: House, call: Call): Promise<Endpoint> {
  const endpoint = await findEndpoint(house, call)
  if (!matches(call.header('if-match'), String(endpoint.revision))) throw changedMeanwhile(endpoint)
  return endpoint
}

const changedMeanwhile = (endpoint: Pick<Endpoint, 'revision'>): RingbackError =>
  new RingbackError('precondition_failed', `The endpoint has changed: its revision is ${endpoint.revision} now. Read it again.`)

export const checkPrecondition = (call: Call): void => checkIfMatch(call.header('if-match'))

/** Names the endpoint that has the URL. */
export async function duplicate(house: House, clientId: string, url: string): Promise<RingbackError> {
  const wanted = canonicalUrl(url)
  const other = (await listAllEndpoints(house, clientId)).find((endpoint) => canonicalUrl(endpoint.url) === wanted)
  // Deleted in this very moment, it has no id to be named by.
  const id = other?.id ?? '{id}'
  return new RingbackError(
    'endpoint_exists',
    `You have an endpoint with this URL: change it with PATCH /v1/endpoints/${id}, or give it a new secret with POST /v1/endpoints/${id}/rotate-secret.`,
  )
}

/** Every endpoint of a client. */
export async function listAllEndpoints(house: House, clientId: string): Promise<Endpoint[]> {
  const all: Endpoint[] = []
  let page = await house.store.listEndpoints(clientId, 200, null)
  for (;;) {
    all.push(...page.items)
    if (page.next === null) return all
    page = await house.store.listEndpoints(clientId, 200, page.next)
  }
}

/** How often a change that another one overtook is made again. */
const MOST_RETRIES = 5

/**
 * Reads, plans, writes; again when another change came between, unless the caller named the revision it saw.
 * @throws RingbackError `precondition_failed`, `endpoint_exists`, `not_found`
 */
export async function change(house: House, call: Call, found: Endpoint, plan: (endpoint: Endpoint) => EndpointPatch): Promise<Endpoint> {
  let endpoint = found
  for (let again = 0; ; again++) {
    const patch = plan(endpoint)
    if (Object.keys(patch).length === 0) return endpoint
    const changed = await house.store.changeEndpoint(endpoint.id, call.caller.clientId, patch, endpoint.revision, call.author)
    if (changed.kind === 'changed') return changed.value
    if (changed.kind === 'missing') throw notFound('endpoint')
    if (changed.kind === 'duplicate') throw await duplicate(house, endpoint.clientId, patch.url!)
    endpoint = await findUnchanged(house, call)
    if (again === MOST_RETRIES) throw changedMeanwhile(endpoint)
  }
}
