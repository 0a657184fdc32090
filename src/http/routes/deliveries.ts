/** The delivery routes: list, get, redeliver. */
import { RingbackError } from '../../core/errors.ts'
import { newId } from '../../core/id.ts'
import { type Attempt, type Delivery, type Endpoint, endpointStatus, type Millis, type Timings } from '../../core/model.ts'
import { parseStored } from '../../core/stored-json.ts'
import type { DeliveryQuery, LaneState } from '../../store/interfaces.ts'
import { type AppContext, idParam } from '../context.ts'
import { deliveryExamples as examples } from '../openapi/examples/endpoints.ts'
import { clientFilter, cursorScope, omitUndefined, pageReply, startPosition } from '../request/lists.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { jsonReply, notFound, taskExpired, toTimestamp, toTimestampOrNull } from '../request/replies.ts'
import { type ApiCall, type Route, response, route } from '../request/route.ts'
import * as shapes from '../shapes/deliveries.ts'
import { replayRoute } from './replay.ts'

export function deliveryRoutes(context: AppContext): Route[] {
  const common = { tag: 'Deliveries' } as const
  const find = async (call: ApiCall): Promise<Delivery> => {
    const delivery = await context.store.deliveries.find(idParam(call, 'delivery'), call.caller.clientId)
    if (!delivery) throw notFound('delivery')
    return delivery
  }
  return [
    replayRoute(context),
    route.get('/v1/deliveries', 'listDeliveries', {
      ...common,
      summary: 'List deliveries with their attempts, newest first',
      description: 'A delivery must match every filter. `waitingFor` says why an open delivery was not sent yet.',
      scope: 'deliveries:read',
      query: shapes.deliveryListQuery,
      responses: { 200: response('A page of deliveries.', shapes.deliveryList, [examples.deliveryList], ['Link']) },
      errorCodes: ['invalid_cursor'],
      handle: (call, { query }) => listDeliveries(context, call, query),
    }),
    route.get('/v1/deliveries/{id}', 'getDelivery', {
      ...common,
      summary: 'Get a delivery with its attempts',
      description: 'The time and the outcome of every attempt. The body is the event itself, which the feed lists.',
      scope: 'deliveries:read',
      responses: { 200: response('The delivery.', shapes.delivery, [examples.delivery]) },
      find,
      handle: (call, { found }) => deliveryReply(context, call, found, 200),
    }),
    route.post('/v1/deliveries/{id}/redeliver', 'redeliver', {
      ...common,
      summary: 'Send again: an open delivery now, an ended delivery as a new delivery of the same event and bytes',
      description: 'The `webhook-id` stays the same, so that a receiver recognizes an event that it has processed.',
      scope: 'deliveries:write',
      responses: { 202: response('The delivery that will be sent.', shapes.delivery, [examples.owedDelivery], ['Location']) },
      errorCodes: ['task_expired'],
      find,
      async handle(call, { found }) {
        const delivery = await context.store.deliveries.redeliver({
          id: found.id,
          newId: newId(context.clock, 'delivery'),
          clientId: call.caller.clientId,
          by: call.author,
        })
        if (!delivery && found.eventType === 'endpoint.verification') throw verificationEnded()
        if (!delivery)
          throw (await context.store.endpoints.find(found.endpointId, call.caller.clientId)) ? taskExpired() : endpointDeleted()
        return deliveryReply(context, call, delivery, 202)
      },
    }),
  ]
}

const verificationEnded = (): RingbackError =>
  validationFailed([{ pointer: '#/id', detail: 'names a verification that has ended; start another with POST /v1/endpoints/{id}/verify' }])
const endpointDeleted = (): RingbackError =>
  new RingbackError('not_found', 'The endpoint was deleted, so this cannot be sent again; the feed at /v1/events has the event.')

async function listDeliveries(context: AppContext, call: ApiCall, query: shapes.DeliveryListQuery): Promise<ApiReply> {
  const { limit, cursor, clientId, status, ...rest } = query
  const owner = clientFilter(call.caller, clientId)
  const same = omitUndefined(rest)
  const scope = cursorScope(call, 'deliveries', { owner, status, ...same })
  const filter: DeliveryQuery = {
    ...same,
    clientId: owner,
    limit,
    after: await startPosition(context, scope, cursor),
    ...(status && { states: status.map(shapes.toDeliveryState) }),
  }
  const page = await context.store.deliveries.list(filter)
  const documents = await toDeliveryDocuments(context, call, page.items)
  const show = (_: Delivery, index: number): string => JSON.stringify(documents[index])
  return pageReply(context, call, scope, page, show, ({ createdAt, id }) => ({ at: createdAt, id }))
}

/** A delivery as a reply. A 202 has a `Location`. */
export async function deliveryReply(context: AppContext, call: ApiCall, delivery: Delivery, status: number): Promise<ApiReply> {
  const [document] = await toDeliveryDocuments(context, call, [delivery])
  const location = status === 202 ? { Location: `${context.publicUrl()}/v1/deliveries/${delivery.id}` } : undefined
  return jsonReply(status, document, { 'Cache-Control': 'private, no-cache', ...location })
}

async function toDeliveryDocuments(context: AppContext, call: ApiCall, deliveries: readonly Delivery[]): Promise<object[]> {
  if (deliveries.length === 0) return []
  const [attempts, lanes, endpoints] = await Promise.all([
    context.store.deliveries.listAttempts(deliveries.map(({ id }) => id)),
    context.store.deliveries.findLanes([...new Set(deliveries.map(({ laneId }) => laneId))]),
    context.store.endpoints.findMany([...new Set(deliveries.map(({ endpointId }) => endpointId))]),
  ])
  const byDelivery = Map.groupBy(attempts, ({ deliveryId }) => deliveryId)
  const now = context.clock.now()
  return deliveries.map((delivery) => {
    const endpoint = endpoints.find(({ id }) => id === delivery.endpointId) ?? null
    const waits = deliveryWaitOf(delivery, endpoint, lanes.find(({ id }) => id === delivery.laneId) ?? null, now)
    return toDeliveryDocument(delivery, endpoint, byDelivery.get(delivery.id) ?? [], waits, call.caller.operator)
  })
}

function toDeliveryDocument(
  delivery: Delivery,
  endpoint: Endpoint | null,
  attempts: readonly Attempt[],
  waits: DeliveryWait,
  operator: boolean,
) {
  return {
    id: delivery.id,
    eventId: delivery.eventId,
    eventType: delivery.eventType,
    taskId: delivery.taskId,
    endpointId: delivery.endpointId,
    url: delivery.url ?? endpoint?.url ?? null,
    status: shapes.toDeliveryStatus(delivery.state),
    tries: delivery.tries,
    maxTries: delivery.maxTries,
    nextAttemptAt: toTimestampOrNull(waits.until),
    waitingFor: waits.for,
    canceledReason: delivery.canceledReason,
    deliveredAt: delivery.state === 'completed' ? toTimestampOrNull(delivery.finishedAt) : null,
    trigger: delivery.trigger,
    createdAt: toTimestamp(delivery.createdAt),
    attempts: attempts
      .filter((attempt) => isPast(attempt, delivery))
      .sort((a, b) => a.fence - b.fence)
      .map((attempt, index) => toAttemptDocument(attempt, index + 1, operator)),
  }
}

/** Attempts are read after their delivery. An attempt that ended in between would contradict the state of the delivery. */
const isPast = ({ fence }: Attempt, delivery: Delivery): boolean =>
  delivery.state === 'running' ? fence < delivery.fence : fence <= delivery.fence

interface DeliveryWait {
  readonly for:
    | 'endpointDisabled'
    | 'endpointUnverified'
    | 'endpointPaused'
    | 'retryAfter'
    | 'retryBackoff'
    | 'breaker'
    | 'rate'
    | 'inFlight'
    | null
  /** Null: until another delivery ends, or until the hold is released. */
  readonly until: Millis | null
}

function deliveryWaitOf(delivery: Delivery, endpoint: Endpoint | null, lane: LaneState | null, now: Millis): DeliveryWait {
  if (delivery.state !== 'pending') return { for: null, until: null }
  // Only the pace of its lane can hold a verification.
  const status = endpoint === null || delivery.eventType === 'endpoint.verification' ? 'active' : endpointStatus(endpoint)
  if (status === 'disabled') return { for: 'endpointDisabled', until: null }
  if (status === 'pendingVerification') return { for: 'endpointUnverified', until: null }
  if (status === 'paused') return { for: 'endpointPaused', until: null }
  const dueAt = Math.max(delivery.dueAt, delivery.retryAfterAt ?? 0)
  if (dueAt > now)
    return { for: (delivery.retryAfterAt ?? 0) > now ? 'retryAfter' : delivery.tries > 0 ? 'retryBackoff' : null, until: dueAt }
  if (lane === null) return { for: null, until: dueAt }
  if (lane.probeMs > 0) return { for: 'breaker', until: null }
  if (lane.heldUntil > now) return { for: 'retryAfter', until: lane.heldUntil }
  if (lane.pacedUntil !== null && lane.pacedUntil > now) return { for: 'rate', until: lane.pacedUntil }
  return lane.filled ? { for: 'inFlight', until: null } : { for: null, until: dueAt }
}

/** Response headers that clients see. The operator sees all. */
const SHOWN_HEADERS: ReadonlySet<string> = new Set(['retry-after', 'content-type', 'date'])

function toAttemptDocument(attempt: Attempt, number: number, operator: boolean) {
  const headers = parseStored<Record<string, string>>(attempt.responseHeaders, {})
  const visible = operator ? headers : Object.fromEntries(Object.entries(headers).filter(([name]) => SHOWN_HEADERS.has(name.toLowerCase())))
  const { dnsMs, connectMs, tlsMs, firstByteMs } = parseStored<Timings>(attempt.timings, {
    dnsMs: null,
    connectMs: null,
    tlsMs: null,
    firstByteMs: null,
  })
  return {
    number,
    startedAt: toTimestamp(attempt.startedAt),
    durationMs: attempt.durationMs,
    outcome: attempt.outcome,
    httpStatus: attempt.httpStatus,
    error: clockError(attempt, headers) ?? attempt.error,
    timings: { dnsMs, connectMs, tlsMs, firstByteMs },
    keyId: attempt.keyId,
    retryAfterSeconds: attempt.retryAfterSeconds,
    responseHeaders: visible,
    responseExcerpt: attempt.responseExcerpt,
    remoteAddress: operator ? attempt.remoteAddress : null,
  }
}

/** A receiver whose clock is off by more than 300 s refuses signatures. Its `Date` header shows the difference. */
function clockError(attempt: Attempt, headers: Readonly<Record<string, string>>): string | null {
  if (attempt.httpStatus !== 401 || headers.date === undefined) return null
  const offSeconds = Math.round((Date.parse(headers.date) - attempt.startedAt - attempt.durationMs) / 1000)
  if (!(Math.abs(offSeconds) > 300)) return null
  return `the receiver answered 401, and its clock is ${Math.abs(offSeconds)} s ${offSeconds > 0 ? 'ahead of' : 'behind'} this node: it may refuse the signature for its age`
}
