/** The endpoint routes: the URLs that receive the webhooks of a client. */
import type { SecretLocation } from '../../core/encryption.ts'
import { RingbackError } from '../../core/errors.ts'
import { newId } from '../../core/id.ts'
import { type Delivery, defaultEvents, type Endpoint, type Json, type Millis } from '../../core/model.ts'
import type { EndpointInsert, EndpointPatch } from '../../store/interfaces.ts'
import { type AppContext, requireClientId } from '../context.ts'
import { deliveryExamples, endpointExamples as examples } from '../openapi/examples/endpoints.ts'
import { checkIfMatch, ifNoneMatchHits } from '../request/headers.ts'
import { clientFilter, cursorScope, pageReply, startPosition } from '../request/lists.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { emptyReply, notFound, quotaExceeded } from '../request/replies.ts'
import { type ApiCall, type Route, response, route } from '../request/route.ts'
import * as deliveryShapes from '../shapes/deliveries.ts'
import * as shapes from '../shapes/endpoints.ts'
import * as fields from '../shapes/fields.ts'
import { deliveryReply } from './deliveries.ts'
import {
  checkCallbackUrl,
  endpointEtag,
  endpointExists,
  endpointReply,
  findEndpoint,
  findEndpointIfMatch,
  toEndpointDocument,
  updateEndpoint,
} from './endpoint-document.ts'
import { verificationRoute } from './endpoint-verification.ts'

const DEFAULT_IN_FLIGHT = 20
const EVERY_TYPE = ['*']

export function endpointRoutes(context: AppContext): Route[] {
  return [...crudRoutes(context), ...actionRoutes(context), verificationRoute(context)]
}

const secretLocation = (id: string, column: 'secret' | 'previous_secret' | 'headers'): SecretLocation => ({
  table: 'endpoints',
  id,
  column,
})

/** @throws RingbackError with a pointer to `#/url` */
function checkUrl(context: AppContext, url: string): void {
  const detail = 'has characters that a URL must encode'
  if (!/^[\x21-\x7e]*$/.test(url))
    throw new RingbackError('invalid_callback_url', `The callback URL ${detail}.`, { errors: [{ pointer: '#/url', detail }] })
  checkCallbackUrl(context, url, '#/url')
}

const unique = (list: readonly string[]): Json => JSON.stringify([...new Set(list)])

async function create(context: AppContext, call: ApiCall, body: shapes.CreateEndpoint): Promise<ApiReply> {
  checkUrl(context, body.url)
  const id = newId(context.clock, 'endpoint')
  const secret = context.generateSecret()
  const method = body.verification ?? context.verificationDefault
  const headers = body.headers ?? {}
  const max = context.maxPerClient.endpoints
  const endpoint: EndpointInsert = {
    id,
    clientId: requireClientId(call),
    url: body.url,
    description: body.description ?? '',
    events: unique(body.events ?? defaultEvents),
    taskTypes: unique(body.taskTypes ?? EVERY_TYPE),
    ...encryptHeaders(context, id, headers),
    format: body.format ?? 'standard',
    payload: body.payload ?? 'full',
    maxPerMinute: body.maxPerMinute ?? null,
    maxInFlight: body.maxInFlight ?? DEFAULT_IN_FLIGHT,
    retrySchedule: body.retrySchedule ? JSON.stringify(body.retrySchedule) : null,
    secret: context.encryptor.encrypt(secret, secretLocation(id, 'secret')),
    secretHint: context.secretHint(secret),
    verification: method,
    verified: method === 'none',
  }
  const added = await context.store.endpoints.add({ endpoint, max, by: call.author })
  if (added.kind === 'full') throw quotaExceeded(max, 'endpoints')
  if (added.kind === 'duplicate') throw await endpointExists(context, requireClientId(call), body.url)
  const reply = endpointReply(context, added.value, 201, secret)
  reply.headers.Location = `${context.publicUrl()}/v1/endpoints/${id}`
  return reply
}

/** Values are encrypted. Names are stored in plain text and shown. */
function encryptHeaders(context: AppContext, id: string, headers: Record<string, string>): { headers: string | null; headerNames: Json } {
  const names = Object.keys(headers)
  return {
    headers: names.length === 0 ? null : context.encryptor.encrypt(JSON.stringify(headers), secretLocation(id, 'headers')),
    headerNames: JSON.stringify(names),
  }
}

/** RFC 7396: null removes a header. Names ignore case. */
function mergeHeaders(context: AppContext, endpoint: Endpoint, patch: Record<string, string | null> | null): Record<string, string> {
  if (patch === null) return {}
  const known =
    endpoint.headers === null ? {} : JSON.parse(context.encryptor.decrypt(endpoint.headers, secretLocation(endpoint.id, 'headers')))
  const merged = new Map<string, [string, string]>(
    Object.entries(known as Record<string, string>).map(([name, value]) => [name.toLowerCase(), [name, value]]),
  )
  for (const [name, value] of Object.entries(patch))
    if (value === null) merged.delete(name.toLowerCase())
    else merged.set(name.toLowerCase(), [name, value])
  if (merged.size > 20) throw validationFailed([{ pointer: '#/headers', detail: 'must leave at most 20 headers' }])
  return Object.fromEntries(merged.values())
}

/** Null resets a member to its default. */
function planPatch(context: AppContext, endpoint: Endpoint, body: shapes.PatchEndpoint): EndpointPatch {
  const moved = body.url !== undefined && body.url !== endpoint.url
  return {
    ...(body.url !== undefined && { url: body.url }),
    ...(moved && endpoint.verification !== 'none' && { verified: false }),
    ...(body.description !== undefined && { description: body.description ?? '' }),
    ...(body.events !== undefined && { events: unique(body.events ?? defaultEvents) }),
    ...(body.taskTypes !== undefined && { taskTypes: unique(body.taskTypes ?? EVERY_TYPE) }),
    ...(body.format !== undefined && { format: body.format ?? 'standard' }),
    ...(body.payload !== undefined && { payload: body.payload ?? 'full' }),
    ...(body.maxPerMinute !== undefined && { maxPerMinute: body.maxPerMinute }),
    ...(body.maxInFlight !== undefined && { maxInFlight: body.maxInFlight ?? DEFAULT_IN_FLIGHT }),
    ...(body.retrySchedule !== undefined && { retrySchedule: body.retrySchedule === null ? null : JSON.stringify(body.retrySchedule) }),
    ...(body.headers !== undefined && encryptHeaders(context, endpoint.id, mergeHeaders(context, endpoint, body.headers))),
  }
}

function crudRoutes(context: AppContext): Route[] {
  const common = { tag: 'Endpoints' } as const
  const one = response('The endpoint.', shapes.endpoint, [examples.endpoint], ['ETag'])
  const urlRefusals = ['invalid_callback_url', 'callback_url_forbidden', 'endpoint_exists'] as const
  return [
    route.post('/v1/endpoints', 'createEndpoint', {
      ...common,
      summary: 'Register a callback URL',
      description: 'Only this response and the one of rotate-secret show the secret.',
      scope: 'endpoints:write',
      clientOnly: true,
      body: shapes.createEndpoint,
      bodyExamples: [examples.createEndpoint],
      responses: { 201: { ...one, examples: [examples.newEndpoint], headers: ['Location', 'ETag'] } },
      errorCodes: urlRefusals,
      handle: (call, { body }) => create(context, call, body),
    }),
    route.get('/v1/endpoints', 'listEndpoints', {
      ...common,
      summary: 'List endpoints',
      description: 'Oldest first, without secrets. The operator sees the endpoints of every client.',
      scope: 'endpoints:read',
      query: fields.clientPageQuery,
      responses: { 200: response('A page of endpoints.', shapes.endpointList, [examples.endpointList], ['Link']) },
      errorCodes: ['invalid_cursor'],
      async handle(call, { query }) {
        const owner = clientFilter(call.caller, query.clientId)
        const scope = cursorScope(call, 'endpoints', { owner })
        const page = await context.store.endpoints.list(owner, query.limit, await startPosition(context, scope, query.cursor))
        const show = (endpoint: Endpoint): string => JSON.stringify(toEndpointDocument(context, endpoint, null))
        return pageReply(context, call, scope, page, show, ({ createdAt, id }) => ({ at: createdAt, id }))
      },
    }),
    route.get('/v1/endpoints/{id}', 'getEndpoint', {
      ...common,
      summary: 'Get an endpoint',
      description: 'Settings and health. `revision` and the ETag change with settings and status, not with health.',
      scope: 'endpoints:read',
      requestHeaders: ['If-None-Match'],
      responses: { 200: one, 304: { description: 'The endpoint still has the revision of If-None-Match.', headers: ['ETag'] } },
      find: (call) => findEndpoint(context, call),
      handle(call, { found }) {
        if (ifNoneMatchHits(call.header('if-none-match'), String(found.revision)))
          return { status: 304, headers: { ETag: endpointEtag(found), 'Cache-Control': 'private, no-cache' }, body: null }
        return endpointReply(context, found)
      },
    }),
    route.patch('/v1/endpoints/{id}', 'changeEndpoint', {
      ...common,
      summary: 'Change an endpoint by a merge patch (RFC 7396)',
      description: 'A new `url` must be verified again. Deliveries are held until then.',
      scope: 'endpoints:write',
      body: shapes.patchEndpoint,
      bodyExamples: [examples.patchEndpoint],
      acceptedTypes: ['application/merge-patch+json', 'application/json'],
      requestHeaders: ['If-Match'],
      responses: { 200: one },
      errorCodes: [...urlRefusals, 'precondition_failed'],
      checkHeaders: checkIfMatch,
      find: (call) => findEndpointIfMatch(context, call),
      async handle(call, { body, found }) {
        if (body.url !== undefined) checkUrl(context, body.url)
        return endpointReply(context, await updateEndpoint(context, call, found, (endpoint) => planPatch(context, endpoint, body)))
      },
    }),
    route.delete('/v1/endpoints/{id}', 'deleteEndpoint', {
      ...common,
      summary: 'Delete an endpoint: its open deliveries are canceled',
      description: 'Events that were not delivered will not be delivered. They stay in the feed.',
      scope: 'endpoints:write',
      requestHeaders: ['If-Match'],
      responses: { 204: { description: 'Deleted.' } },
      errorCodes: ['precondition_failed'],
      checkHeaders: checkIfMatch,
      find: (call) => findEndpointIfMatch(context, call),
      async handle(call, { found }) {
        if (!(await context.store.endpoints.remove({ id: found.id, clientId: call.caller.clientId, by: call.author })))
          throw notFound('endpoint')
        context.endpointOwners.invalidate(found.id)
        return emptyReply()
      },
    }),
  ]
}

function actionRoutes(context: AppContext): Route[] {
  const common = { tag: 'Endpoints', scope: 'endpoints:write' } as const
  const responses = { 200: response('The endpoint.', shapes.endpoint, [examples.endpoint], ['ETag']) }
  const stages = { checkHeaders: checkIfMatch, find: (call: ApiCall) => findEndpointIfMatch(context, call) }
  const errorCodes = ['precondition_failed'] as const
  const requestHeaders = ['If-Match']
  return [
    route.post('/v1/endpoints/{id}/pause', 'pauseEndpoint', {
      ...common,
      summary: 'Pause an endpoint: its events are held',
      description:
        'Events are held for the time that the installation sets (14 days by default). Pausing a paused endpoint changes nothing.',
      requestHeaders,
      responses,
      errorCodes,
      ...stages,
      handle: async (call, { found }) =>
        endpointReply(context, await updateEndpoint(context, call, found, ({ pausedAt }) => (pausedAt === null ? { paused: true } : {}))),
    }),
    route.post('/v1/endpoints/{id}/resume', 'resumeEndpoint', {
      ...common,
      summary: 'Resume an endpoint: the held events are sent',
      description: 'A disabled endpoint is enabled. If this installation verifies endpoints, it must be verified again.',
      requestHeaders,
      responses,
      errorCodes,
      ...stages,
      handle: async (call, { found }) => endpointReply(context, await updateEndpoint(context, call, found, planResume)),
    }),
    route.post('/v1/endpoints/{id}/rotate-secret', 'rotateSecret', {
      ...common,
      summary: 'Give an endpoint a new secret. Both secrets sign until the overlap ends',
      description: 'Only this response shows the new secret. The old secret also signs for `overlapSeconds` (default: one day).',
      requestHeaders,
      body: shapes.rotateSecret,
      bodyExamples: [examples.rotateSecret],
      bodyOptional: true,
      responses: { 200: { ...responses[200], examples: [examples.rotatedEndpoint] } },
      errorCodes,
      ...stages,
      async handle(call, { body, found }) {
        const secret = context.generateSecret()
        const overlapMs = (body?.overlapSeconds ?? 86_400) * 1000
        const changed = await updateEndpoint(context, call, found, (endpoint) => planRotation(context, endpoint, secret, overlapMs))
        return endpointReply(context, changed, 200, secret)
      },
    }),
    route.post('/v1/endpoints/{id}/ping', 'pingEndpoint', {
      ...common,
      summary: 'Send an endpoint.ping, with one attempt',
      description: 'With `wait`, the response shows the attempted delivery: status, outcome, timings.',
      query: fields.waitQuery,
      responses: {
        200: response('The delivery after its attempt.', deliveryShapes.delivery, [deliveryExamples.pingedDelivery]),
        202: response('The delivery before its attempt.', deliveryShapes.delivery, [deliveryExamples.pingDelivery], ['Location']),
      },
      errorCodes: ['endpoint_not_verified'],
      find: (call) => findEndpoint(context, call),
      handle: (call, { query, found }) => ping(context, call, found, query.wait ?? 0),
    }),
  ]
}

function planResume(endpoint: Endpoint): EndpointPatch {
  const disabled = endpoint.disabledAt !== null
  return {
    ...(endpoint.pausedAt !== null && { paused: false }),
    ...(disabled && { disabled: false }),
    ...(disabled && endpoint.verification !== 'none' && { verified: false }),
  }
}

/** The old secret moves to another column, so it is encrypted again for that column. */
function planRotation(context: AppContext, endpoint: Endpoint, secret: string, overlapMs: Millis): EndpointPatch {
  const { id } = endpoint
  const old = context.encryptor.decrypt(endpoint.secret, secretLocation(id, 'secret'))
  return {
    secret: context.encryptor.encrypt(secret, secretLocation(id, 'secret')),
    secretHint: context.secretHint(secret),
    previousSecret: overlapMs === 0 ? null : context.encryptor.encrypt(old, secretLocation(id, 'previous_secret')),
    previousSecretUntil: overlapMs === 0 ? null : context.clock.wall() + overlapMs,
  }
}

async function ping(context: AppContext, call: ApiCall, endpoint: Endpoint, waitSeconds: number): Promise<ApiReply> {
  if (endpoint.verifiedAt === null)
    throw new RingbackError('endpoint_not_verified', 'The endpoint is not verified yet; nothing is sent to it before.')
  const deliveryId = newId(context.clock, 'delivery')
  const { id: endpointId, clientId } = endpoint
  const wanted = { endpointId, clientId, eventId: newId(context.clock, 'event'), deliveryId }
  const sent = await context.store.endpoints.addPing({ ping: wanted, by: call.caller.operator ? call.author : undefined })
  if (!sent) throw notFound('endpoint')
  const findEnded = async (): Promise<Delivery | null> => {
    const delivery = await context.store.deliveries.find(deliveryId, clientId)
    return delivery && delivery.finishedAt !== null ? delivery : null
  }
  const waits = waitSeconds > 0 && context.waitLimiter.limitError(call.caller) === null
  const ended = waits
    ? await context.waitLimiter.runWithSlot(call.caller, () =>
        context.watchers.pollUntil(findEnded, waitSeconds * 1000, call.request.signal),
      )
    : null
  return deliveryReply(context, call, ended ?? sent, ended === null ? 202 : 200)
}
