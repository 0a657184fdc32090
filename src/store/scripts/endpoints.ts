/** Endpoints. Settings, status and the rule of the lane change together. */
import { canonicalUrl } from '../../core/callback-url.ts'
import { deliveryGateOf, INITIAL_WINDOW } from '../../core/circuit-breaker.ts'
import { defaultEvents, type Endpoint, type EventType } from '../../core/model.ts'
import { endpointColumns, endpointSettings, newEndpoint } from '../columns.ts'
import type { AddResult, ChangeResult, EndpointInsert, EndpointPatch } from '../interfaces.ts'
import { FOREVER } from '../queue/fair-order.ts'
import { addLanes, changeLane, paceOf } from '../queue/lane.ts'
import { addTurns } from '../queue/run-queue.ts'
import { bind, type Dialect, execute, first, now, query, rows, type Script, type SQL, sql, statement } from '../script.ts'
import { lockClient } from './clients.ts'
import { updateProbing } from './health.ts'
import { deliveryLaneOf, type RenderContext } from './outbox.ts'
import { endVerification, startVerification } from './ownership.ts'
import { clientMatches, DELIVERY_QUEUE, idRows, ids } from './shared.ts'

export const readEndpoint = statement(
  (d) =>
    sql`select ${endpointColumns} from endpoints where id = ${bind('id')} and client_id = ${clientMatches(d)} and coalesce(deleted_at, 0) = 0`,
)
const readMany = statement((d) => sql`select ${endpointColumns} from endpoints where id ${d.anyOf(ids(d))}`)
/** Endpoints by id, deleted ones too: their ended deliveries still show where they were sent. Unknown ids are left out. */
export function* findEndpoints(of: readonly string[]): Script<readonly Endpoint[]> {
  return of.length === 0 ? [] : yield* rows<Endpoint>(readMany({ ids: idRows(of) }))
}
const insertEndpoint = statement(
  (d) => sql`insert into endpoints (${newEndpoint.names}, verified_at, first_verified_at, created_at, updated_at, revision)
    select ${newEndpoint.names}, case when ${bind('verified')} = 1 then ${d.now} else null end,
      case when ${bind('verified')} = 1 then ${d.now} else null end, ${d.now}, ${d.now}, 1
    from ${d.records('endpoints', newEndpoint.columns)} v where true
    on conflict (client_id, url) where deleted_at is null do nothing returning ${endpointColumns}`,
)
/** 1 when the event types include one that is not terminal. */
const follows = (events: string): 0 | 1 =>
  (JSON.parse(events) as EventType[]).some((type) => !(defaultEvents as readonly EventType[]).includes(type)) ? 1 : 0

/** At most `max` for each client, however many are added at once. */
export function* addEndpoint(endpoint: EndpointInsert, max: number, view: RenderContext): Script<AddResult<Endpoint>> {
  const known = yield* urlsOf(endpoint.clientId)
  if (known.length >= max) return { kind: 'full' }
  if (hasUrl(known, endpoint.url, endpoint.id)) return { kind: 'duplicate' }
  const made = yield* first<Endpoint>(
    insertEndpoint({
      endpoints: [newEndpoint.toRow({ ...endpoint, follows: follows(endpoint.events) })],
      verified: endpoint.verified ? 1 : 0,
    }),
  )
  if (!made) return { kind: 'duplicate' }
  const heldUntil = deliveryGateOf(made) === 'open' ? 0 : FOREVER
  yield* execute(addLanes([{ id: made.id, cap: made.maxInFlight, paceMs: paceOf(made), heldUntil, windowSize: INITIAL_WINDOW }]))
  return { kind: 'added', value: mustProve(made) ? yield* startVerification(made, view) : made }
}

const mustProve = ({ verifiedAt, verification }: Endpoint): boolean => verifiedAt === null && verification !== 'none'

const readUrls = statement(() => sql`select id, url from endpoints where client_id = ${bind('clientId')} and deleted_at is null`)
/** The URLs of a client's endpoints. Until the commit no other transaction can add or change one. */
function* urlsOf(clientId: string): Script<readonly Pick<Endpoint, 'id' | 'url'>[]> {
  yield* execute([lockClient({ id: clientId })])
  return yield* rows<Pick<Endpoint, 'id' | 'url'>>(readUrls({ clientId }))
}
/** Whether another endpoint than `id` has this URL in any spelling. */
function hasUrl(known: readonly Pick<Endpoint, 'id' | 'url'>[], url: string, id: string): boolean {
  const wanted = canonicalUrl(url)
  return known.some((other) => other.id !== id && canonicalUrl(other.url) === wanted)
}
const lockEndpoint = statement(
  (d) =>
    sql`select ${endpointColumns} from endpoints where id = ${bind('id')} and client_id = ${clientMatches(d)} and coalesce(deleted_at, 0) = 0 ${d.lock}`,
)

/** Changes settings or status. Cap, pace and hold of the lane follow in the same commit, and the lane gets a turn. */
export function* changeEndpoint(
  id: string,
  clientId: string | null,
  patch: EndpointPatch,
  revision: number | null,
  view: RenderContext,
): Script<ChangeResult<Endpoint>> {
  const known = yield* first<Endpoint>(lockEndpoint({ id, clientId }))
  if (!known) return { kind: 'missing' }
  if (revision !== null && known.revision !== revision) return { kind: 'stale' }
  if (patch.url !== undefined && hasUrl(yield* urlsOf(known.clientId), patch.url, id)) return { kind: 'duplicate' }
  const changed = yield* first<Endpoint>(
    query((d) => {
      const sets = endpointSettings.assignments(patch)
      if (patch.events !== undefined) sets.push(sql`follows = ${follows(patch.events)}`)
      if (patch.paused !== undefined) sets.push(patch.paused ? sql`paused_at = coalesce(paused_at, ${d.now})` : sql`paused_at = null`)
      // A new address, or a resumed endpoint, ends the episode of failure.
      if (patch.disabled !== undefined ? patch.disabled === false : (patch.url ?? known.url) !== known.url || patch.paused === false)
        sets.push(sql`failing_since = null, failing_told_at = null`)
      if (patch.verified !== undefined)
        sets.push(
          patch.verified
            ? sql`verified_at = ${d.now}, first_verified_at = coalesce(first_verified_at, ${d.now}), verification_delivery_id = null,
                verification_error = null, verification_expires_at = null`
            : sql`verified_at = null`,
        )
      if (patch.disabled !== undefined)
        sets.push(
          sql`disabled_at = ${patch.disabled ? d.now : sql`null`}, disabled_reason = ${patch.disabled ? patch.disabled : sql`null`}`,
        )
      return sql`update endpoints set ${sql.join([...sets, sql`revision = revision + 1`, sql`updated_at = ${d.now}`], sql`, `)}
        where id = ${id} returning ${endpointColumns}`
    }),
  )
  const value = changed!
  const place = { queue: DELIVERY_QUEUE, clientId: value.clientId, laneId: value.id }
  yield* changeLane(place, (rule) => ({ ...rule, cap: value.maxInFlight, paceMs: paceOf(value) }), value.updatedAt)
  // A hold from Retry-After stays unless the change affects what may be sent.
  if (deliveryGateOf(known) !== deliveryGateOf(value)) yield* updateProbing(value, value.updatedAt)
  if (patch.verified === true) yield* endVerification({ ...known, updatedAt: value.updatedAt })
  const begins = patch.verified === false && mustProve(value)
  return { kind: 'changed', value: begins ? yield* startVerification(value, view) : value }
}

const removeEndpointRow = statement(
  (d) => sql`update endpoints
    set deleted_at = ${d.now}, updated_at = ${d.now}, headers = null, secret = '', previous_secret = null, revision = revision + 1
    where id = ${bind('id')} and client_id = ${clientMatches(d)} and coalesce(deleted_at, 0) = 0 returning client_id as "clientId"`,
)
/** Deliveries canceled in the commit that deletes their endpoint. Claims cancel the rest, batch by batch. */
const CANCELED_AT_ONCE = 10_000

// Ordered like the lane's index: otherwise the planner reads all open deliveries.
const pendingOf = sql`x.lane_id = ${bind('id')} and x.state = 'pending' order by x.line, x.rank, x.id`
const canceling = (d: Dialect, chosen: SQL): SQL =>
  sql`update deliveries set fence = fence + 1, state = 'canceled', canceled_reason = 'endpointDeleted', finished_at = ${d.now}, updated_at = ${d.now},
      leased_until = null, leased_by = null
    where coalesce(state, '') in ('pending', 'running') and id ${d.anyOf(sql`select x.id from deliveries x where ${chosen}`)}`
const cancelRunning = statement((d) => canceling(d, sql`x.lane_id = ${bind('id')} and x.state = 'running'`))
const cancelPending = statement((d) => canceling(d, sql`${pendingOf} limit ${bind('limit')}`))
const readRest = statement(() => sql`select x.id from deliveries x where ${pendingOf} limit 1`)
const dropLane = statement(() => sql`delete from lanes where id = ${bind('id')}`)
const dropTurns = statement(() => sql`delete from turns where lane_id = ${bind('id')}`)

/** Deletes an endpoint and cancels its open deliveries. Returns the id of its client; null: there is no such endpoint. */
export function* removeEndpoint(id: string, clientId: string | null): Script<string | null> {
  const removed = yield* first<{ clientId: string }>(removeEndpointRow({ id, clientId }))
  if (!removed) return null
  const lanes = [id, deliveryLaneOf(id, 'endpoint.verification')].map((lane) => ({ id: lane }))
  yield* execute(
    lanes.flatMap((lane) => [cancelRunning(lane), cancelPending({ ...lane, limit: CANCELED_AT_ONCE }), dropTurns(lane), dropLane(lane)]),
  )
  if (yield* first(readRest({ id }))) {
    const at = yield* now()
    yield* execute(addTurns([{ queue: DELIVERY_QUEUE, clientId: removed.clientId, laneId: id, turn: at, alarmAt: null }]))
  }
  return removed.clientId
}
