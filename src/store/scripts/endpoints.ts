/** Endpoints: settings, status and the rule of their lane change together. */
import { sql } from 'drizzle-orm'
import { defaultEvents, type Endpoint, type EventType, endpointStatus, type Millis } from '../../model.ts'
import { endpointColumns } from '../columns.ts'
import { bind, first, query, type Script, send, statement, together } from '../script.ts'
import type { Changed, EndpointPatch, NewEndpoint } from '../store.ts'
import { DELIVERIES } from './deliveries.ts'
import { addLanes, changeLane } from './lanes.ts'
import { FOREVER } from './share.ts'
import { anyone } from './tasks.ts'

export const readEndpoint = statement(
  (d) => sql`select ${endpointColumns} from endpoints where id = ${bind('id')} and client_id = ${anyone(d)} and deleted_at is null`,
)
const NEW = {
  id: 'text',
  client_id: 'text',
  url: 'text',
  description: 'text',
  events: 'text',
  task_types: 'text',
  follows: 'int8',
  headers: 'text',
  header_names: 'text',
  format: 'text',
  payload: 'text',
  max_per_minute: 'int8',
  max_in_flight: 'int8',
  retry_schedule: 'text',
  secret: 'text',
  secret_hint: 'text',
  verification: 'text',
} as const
const newNames = sql.raw(Object.keys(NEW).join(', '))
const insertEndpoint = statement(
  (d) => sql`insert into endpoints (${newNames}, verified_at, created_at, updated_at, revision)
    select ${newNames}, case when ${bind('verified')} = 1 then ${d.now} else null end, ${d.now}, ${d.now}, 1 from ${d.records('endpoints', NEW)} v where true
    on conflict (client_id, url) where deleted_at is null do nothing returning ${endpointColumns}`,
)
/** Whether these event types hold some that are no endings. */
const follows = (events: string): 0 | 1 =>
  (JSON.parse(events) as EventType[]).some((type) => !(defaultEvents as readonly EventType[]).includes(type)) ? 1 : 0
const paceOf = (maxPerMinute: number | null): Millis | null => (maxPerMinute === null ? null : Math.ceil(60_000 / maxPerMinute))
const heldUntil = (endpoint: Endpoint): Millis => (endpointStatus(endpoint) === 'active' ? 0 : FOREVER)

/** Null: the client has an endpoint with that URL. */
export function* addEndpoint(endpoint: NewEndpoint): Script<Endpoint | null> {
  const row = {
    id: endpoint.id,
    client_id: endpoint.clientId,
    url: endpoint.url,
    description: endpoint.description,
    events: endpoint.events,
    task_types: endpoint.taskTypes,
    follows: follows(endpoint.events),
    headers: endpoint.headers,
    header_names: endpoint.headerNames,
    format: endpoint.format,
    payload: endpoint.payload,
    max_per_minute: endpoint.maxPerMinute,
    max_in_flight: endpoint.maxInFlight,
    retry_schedule: endpoint.retrySchedule,
    secret: endpoint.secret,
    secret_hint: endpoint.secretHint,
    verification: endpoint.verification,
  }
  const made = yield* first<Endpoint>(insertEndpoint({ endpoints: [row], verified: endpoint.verified ? 1 : 0 }))
  if (!made) return null
  yield* send(addLanes([{ id: made.id, cap: made.maxInFlight, paceMs: paceOf(made.maxPerMinute), heldUntil: heldUntil(made) }]))
  return made
}

const plain = {
  url: 'url',
  description: 'description',
  events: 'events',
  taskTypes: 'task_types',
  headers: 'headers',
  headerNames: 'header_names',
  format: 'format',
  payload: 'payload',
  maxPerMinute: 'max_per_minute',
  maxInFlight: 'max_in_flight',
  retrySchedule: 'retry_schedule',
  secret: 'secret',
  secretHint: 'secret_hint',
  previousSecret: 'previous_secret',
  previousSecretUntil: 'previous_secret_until',
} as const satisfies Partial<Record<keyof EndpointPatch, string>>

const takenBy = statement(
  () =>
    sql`select id from endpoints where client_id = ${bind('clientId')} and url = ${bind('url')} and id <> ${bind('id')} and deleted_at is null`,
)
const lockEndpoint = statement(
  (d) =>
    sql`select ${endpointColumns} from endpoints where id = ${bind('id')} and client_id = ${anyone(d)} and deleted_at is null ${d.lock}`,
)

/** Changes settings or status; the lane's cap, pace and hold follow in the same commit, and it is looked at again. */
export function* changeEndpoint(
  id: string,
  clientId: string | null,
  patch: EndpointPatch,
  revision: number | null,
): Script<Changed<Endpoint>> {
  const known = yield* first<Endpoint>(lockEndpoint({ id, clientId }))
  if (!known) return { kind: 'missing' }
  if (revision !== null && known.revision !== revision) return { kind: 'stale' }
  if (patch.url !== undefined && (yield* first(takenBy({ id, clientId: known.clientId, url: patch.url })))) return { kind: 'duplicate' }
  const changed = yield* first<Endpoint>(
    query((d) => {
      const sets = Object.entries(plain).flatMap(([member, column]) => {
        const value = patch[member as keyof typeof plain]
        return value === undefined ? [] : [sql`${sql.raw(column)} = ${value}`]
      })
      if (patch.events !== undefined) sets.push(sql`follows = ${follows(patch.events)}`)
      if (patch.paused !== undefined) sets.push(patch.paused ? sql`paused_at = coalesce(paused_at, ${d.now})` : sql`paused_at = null`)
      if (patch.verified !== undefined) sets.push(patch.verified ? sql`verified_at = ${d.now}` : sql`verified_at = null`)
      if (patch.disabled !== undefined)
        sets.push(
          patch.disabled
            ? sql`disabled_at = ${d.now}, disabled_reason = ${patch.disabled}`
            : sql`disabled_at = null, disabled_reason = null, failing_since = null`,
        )
      return sql`update endpoints set ${sql.join([...sets, sql`revision = revision + 1`, sql`updated_at = ${d.now}`], sql`, `)}
        where id = ${id} returning ${endpointColumns}`
    }),
  )
  const value = changed!
  const place = { queue: DELIVERIES, clientId: value.clientId, laneId: value.id }
  const rule = { cap: value.maxInFlight, paceMs: paceOf(value.maxPerMinute) }
  // What a receiver asked to wait stays, unless the endpoint's status is what changes.
  const hold = endpointStatus(known) === endpointStatus(value) ? {} : { heldUntil: heldUntil(value) }
  yield* send(changeLane(place, { ...rule, ...hold }, value.updatedAt))
  return { kind: 'changed', value }
}

const removeEndpointRow = statement(
  (
    d,
  ) => sql`update endpoints set deleted_at = ${d.now}, updated_at = ${d.now}, headers = null, previous_secret = null, revision = revision + 1
    where id = ${bind('id')} and client_id = ${anyone(d)} and deleted_at is null returning client_id as "clientId"`,
)
const cancelDeliveries = statement(
  (
    d,
  ) => sql`update deliveries set fence = fence + 1, state = 'canceled', canceled_reason = 'endpointDeleted', finished_at = ${d.now}, updated_at = ${d.now},
      leased_until = null, leased_by = null
    where lane_id = ${bind('id')} and state in ('pending', 'running')`,
)
const dropLane = statement(() => sql`delete from lanes where id = ${bind('id')}`)
const dropTurns = statement(() => sql`delete from turns where lane_id = ${bind('id')}`)

/** Deletes an endpoint; its open deliveries become canceled. False: there is none such. */
export function* removeEndpoint(id: string, clientId: string | null): Script<boolean> {
  const removed = yield* first<{ clientId: string }>(removeEndpointRow({ id, clientId }))
  if (!removed) return false
  yield* together([cancelDeliveries({ id }), dropTurns({ id }), dropLane({ id })])
  return true
}
