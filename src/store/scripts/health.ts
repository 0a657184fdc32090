/**
 * Health of endpoints: what attempts mean for episodes of failure, for disabling and enabling, and for announcements. Deliveries held too long end
 * here.
 */
import { DISABLED_PROBE_MS, deliveryGateOf, INITIAL_WINDOW, isAddressForbidden } from '../../core/circuit-breaker.ts'
import { type Endpoint, type EventType, endpointStatus, type Millis } from '../../core/model.ts'
import { cloudEventJson } from '../../core/wire.ts'
import { endpointColumns } from '../columns.ts'
import type { DeliverySettlement } from '../interfaces.ts'
import { FOREVER, type LaneRule } from '../queue/fair-order.ts'
import { changeLane } from '../queue/lane.ts'
import { type BoundStatement, bind, type Dialect, execute, now, type RecordColumns, rows, type Script, sql, statement } from '../script.ts'
import {
  addDeliveries,
  addEvents,
  deliveryOf,
  endpointEvent,
  maxTriesOf,
  type NewDelivery,
  type NewEvent,
  type RenderContext,
  readEndpointsOfClients,
} from './outbox.ts'
import { DELIVERY_QUEUE, idRows, ids } from './shared.ts'

const DAY_MS: Millis = 86_400_000
/** A failing endpoint is announced after the first time, and disabled after the second. */
const ANNOUNCE_AFTER_MS: Millis = DAY_MS
const DISABLED_AFTER_MS: Millis = 5 * DAY_MS
/** Deliveries of an endpoint that was never verified are held for this long. */
const UNVERIFIED_HOLD_MS: Millis = DAY_MS

/** `lastSuccessAt` has a precision of one second, so that a busy endpoint's row is not written with every batch. */
const markSucceeded = statement(
  (d) => sql`update endpoints set failing_since = null, failing_told_at = null, last_success_at = ${d.now}
    where id ${d.anyOf(ids(d, 'endpoints'))} and (failing_since is not null or last_success_at is null or last_success_at < ${d.now} - 1000)`,
)
const FAILED: RecordColumns = { endpoint_id: 'text', at_url: 'text' }
const markFailed = statement(
  (d) => sql`update endpoints set failing_since = ${d.now} from ${d.records('endpoints', FAILED)} v
    where endpoints.id = v.endpoint_id and (v.at_url is null or endpoints.url = v.at_url) and endpoints.failing_since is null
      ${d.restrictTo(sql`endpoints.id`, sql`select y.endpoint_id from ${d.records('endpoints', FAILED)} y`)}`,
)

/** Records on the endpoints whether they work. */
export function recordHealth(settlements: readonly DeliverySettlement[]): readonly BoundStatement[] {
  const verdicts = new Map<string, { readonly url: string | null; readonly works: boolean }>()
  for (const { endpoint } of settlements) {
    if (endpoint.succeeded === null) continue
    // One success in a batch of failures shows that the endpoint works.
    const works = endpoint.succeeded || verdicts.get(endpoint.id)?.works === true
    verdicts.set(endpoint.id, { url: endpoint.url, works })
  }
  const working = [...verdicts].filter(([, { works }]) => works).map(([id]) => ({ id }))
  // Failures at an earlier address do not count against the new one.
  const failing = [...verdicts].filter(([, { works }]) => !works).map(([id, { url }]) => ({ endpoint_id: id, at_url: url }))
  return [
    ...(working.length > 0 ? [markSucceeded({ endpoints: working })] : []),
    ...(failing.length > 0 ? [markFailed({ endpoints: failing })] : []),
  ]
}

const DISABLED: RecordColumns = { endpoint_id: 'text', at_url: 'text', reason: 'text' }
// coalesce keeps the planner off the partial index of existing endpoints.
const disableEndpoints = statement(
  (d) => sql`update endpoints
    set disabled_at = ${d.now}, disabled_reason = v.reason, revision = endpoints.revision + 1, updated_at = ${d.now}
    from ${d.records('endpoints', DISABLED)} v
    where endpoints.id = v.endpoint_id and (v.at_url is null or endpoints.url = v.at_url) and coalesce(endpoints.deleted_at, 0) = 0
      ${d.restrictTo(sql`endpoints.id`, sql`select y.endpoint_id from ${d.records('endpoints', DISABLED)} y`)}
      and (endpoints.disabled_at is null or endpoints.disabled_reason = 'failing' and v.reason <> 'failing')
      and (v.reason <> 'failing' or endpoints.failing_since <= ${d.now} - ${sql.raw(String(DISABLED_AFTER_MS))})
    returning ${endpointColumns}`,
)
const enableEndpoints = statement(
  (d) => sql`update endpoints set disabled_at = null, disabled_reason = null, revision = revision + 1, updated_at = ${d.now}
    where id ${d.anyOf(ids(d, 'endpoints'))} and disabled_reason = 'failing' and deleted_at is null returning ${endpointColumns}`,
)

/** Disables endpoints whose attempts demand it, and enables those whose probe succeeded. `lanes` are their lanes before and after. */
export function* updateEndpointStatuses(
  settlements: readonly DeliverySettlement[],
  lanes: readonly { readonly before: LaneRule; readonly after: LaneRule }[],
  at: Millis,
  view: RenderContext,
): Script<void> {
  const recovered = lanes.filter(({ before, after }) => before.probeMs >= DISABLED_PROBE_MS && after.probeMs === 0)
  if (recovered.length > 0)
    for (const endpoint of yield* rows<Endpoint>(enableEndpoints({ endpoints: recovered.map(({ after }) => ({ id: after.id })) })))
      yield* updateProbing(endpoint, at)
  const forbidden = new Set(lanes.filter(({ after }) => isAddressForbidden(after, at)).map(({ after }) => after.id))
  const reasons = new Map<string, { readonly url: string | null; readonly reason: string }>()
  for (const { endpoint } of settlements) {
    const reason = endpoint.disable ?? (forbidden.has(endpoint.id) ? 'forbiddenAddress' : endpoint.succeeded === false ? 'failing' : null)
    if (reason !== null && reasons.get(endpoint.id)?.reason !== 'gone') reasons.set(endpoint.id, { url: endpoint.url, reason })
  }
  if (reasons.size === 0) return
  const disabled = yield* rows<Endpoint>(
    disableEndpoints({ endpoints: [...reasons].map(([endpoint_id, { url, reason }]) => ({ endpoint_id, at_url: url, reason })) }),
  )
  for (const endpoint of disabled) yield* updateProbing(endpoint, at)
  yield* announceToOthers(disabled, 'endpoint.disabled', at, view)
}

/** Adjusts the lane to what the endpoint's status allows. A lane that opens starts slowly, without its past failures. */
export function* updateProbing(endpoint: Endpoint, at: Millis): Script<void> {
  const healthy = { failures: 0, probeMs: 0, blocked: 0, blockedSince: null }
  const rules = {
    open: { ...healthy, heldUntil: 0 },
    probing: { ...healthy, probeMs: DISABLED_PROBE_MS, heldUntil: at + DISABLED_PROBE_MS },
    shut: { heldUntil: FOREVER },
  }
  const rule = rules[deliveryGateOf(endpoint)]
  const place = { queue: DELIVERY_QUEUE, clientId: endpoint.clientId, laneId: endpoint.id }
  yield* changeLane(place, (known) => ({ ...known, ...rule, windowSize: known.windowSize && INITIAL_WINDOW }), at)
}

const takeFailing = statement(
  (d) =>
    sql`update endpoints set failing_told_at = ${d.now} where failing_told_at is null and id ${d.anyOf(
      sql`select x.id from endpoints x where x.failing_since <= ${bind('since')} and x.failing_told_at is null
      and x.disabled_at is null and x.paused_at is null and coalesce(x.deleted_at, 0) = 0 order by x.failing_since limit ${bind('limit')} ${d.skipLocked}`,
    )} returning ${endpointColumns}`,
)
/** Announces endpoints that have failed for a day, once for each episode. Returns how many. */
export function* announceFailing(limit: number, view: RenderContext): Script<number> {
  const at = yield* now()
  const failing = yield* rows<Endpoint>(takeFailing({ limit, since: at - ANNOUNCE_AFTER_MS }))
  yield* announceToOthers(failing, 'endpoint.failing', at, view)
  return failing.length
}

/** Records an event about each of these endpoints, owed to all other active endpoints of its client regardless of their subscriptions. */
function* announceToOthers(about: readonly Endpoint[], type: EventType, at: Millis, view: RenderContext): Script<void> {
  if (about.length === 0) return
  const clients = about.map(({ clientId }) => clientId)
  const all = yield* rows<Endpoint>(readEndpointsOfClients({ clients: idRows(clients) }))
  const events: NewEvent[] = []
  const deliveries: NewDelivery[] = []
  for (const endpoint of about) {
    const { id: endpointId, url, disabledReason: reason, failingSince: since } = endpoint
    const data = JSON.stringify({ endpointId, url, reason, failingSince: since === null ? null : new Date(since).toISOString() })
    const head = { id: view.newId('event'), type, at }
    const event = endpointEvent(endpoint, head, data)
    events.push(event)
    for (const other of all) {
      if (other.clientId !== endpoint.clientId || other.id === endpointId || endpointStatus(other) !== 'active') continue
      const envelope = { ...head, source: view.publicUrl(), subject: endpointId, sequence: null }
      const { id, format, retrySchedule } = other
      const body = format === 'cloudevents' ? cloudEventJson(envelope, data) : null
      const maxTries = maxTriesOf(type, retrySchedule, view)
      deliveries.push(deliveryOf(event, { id: view.newId('delivery'), endpointId: id, body, retrySchedule, trigger: 'event', maxTries }))
    }
  }
  yield* addEvents(events, addDeliveries(deliveries))
}

// Holds end.

const EXPIRED: RecordColumns = { delivery_id: 'text', fence: 'int8' }
const expiring = (stale: (d: Dialect) => ReturnType<typeof sql>) =>
  statement(
    (d) => sql`update deliveries
      set state = 'failed', fence = fence + 1, finished_at = ${d.now}, updated_at = ${d.now}, retry_after_at = null
      where coalesce(state, '') = 'pending' and id ${d.anyOf(stale(d))} returning id as "delivery_id", fence`,
  )
const expireOld = expiring(
  (d) => sql`select x.id from deliveries x where x.state = 'pending' and x.created_at > 0 and x.created_at <= ${bind('before')}
    order by x.created_at limit ${bind('limit')} ${d.skipLocked}`,
)
const expireUnverified = expiring(
  (d) => sql`select x.id from endpoints e cross join deliveries x
    where e.first_verified_at is null and e.deleted_at is null
      and x.lane_id = e.id and x.state = 'pending' and x.line in (0, 1) and x.rank <= ${bind('before')} limit ${bind('limit')} ${d.skipLocked}`,
)
const recordExpired = statement(
  (d) => sql`insert into attempts (delivery_id, fence, started_at, duration_ms, outcome, error, timings, response_headers)
    select v.delivery_id, v.fence, ${d.now}, 0, 'expired', ${bind('error')}, ${bind('timings')}, '{}' from ${d.records('expired', EXPIRED)} v where true
    on conflict (delivery_id, fence) do nothing`,
)

/** Fails deliveries still open after `holdMs`, or after a day at an endpoint that was never verified. Returns how many. */
export function* expireDeliveries(limit: number, holdMs: Millis): Script<number> {
  const at = yield* now()
  const timings = '{"dnsMs":null,"connectMs":null,"tlsMs":null,"firstByteMs":null}'
  const days = Math.round(holdMs / DAY_MS)
  const ended = [
    { call: expireOld({ limit, before: at - holdMs }), error: `It could not be delivered for ${days} ${days === 1 ? 'day' : 'days'}.` },
    { call: expireUnverified({ limit, before: at - UNVERIFIED_HOLD_MS }), error: 'The endpoint was not verified within a day.' },
  ]
  let count = 0
  for (const { call, error } of ended) {
    const expired = yield* rows<{ delivery_id: string; fence: number }>(call)
    if (expired.length > 0) yield* execute([recordExpired({ expired, error, timings })])
    count += expired.length
  }
  return count
}
