/** Deliveries: claim with event and endpoint, settle with the attempt, redeliver, ping. */
import type { Attempt, Delivery, Endpoint, Event, Millis } from '../../core/model.ts'
import { cloudEventJson } from '../../core/wire.ts'
import { attemptColumns, deliveryColumns, endpointColumns, newAttempt, updatedDeliveryColumns } from '../columns.ts'
import type { DeliverySettlement, OwedDelivery, SettleResult } from '../interfaces.ts'
import type { WorkTable } from '../queue/claim.ts'
import { releaseSlots } from '../queue/lane.ts'
import { byLease, leaseKey } from '../queue/leases.ts'
import { addTurns, turnsFor } from '../queue/run-queue.ts'
import { type BoundStatement, bind, execute, first, now, type RecordColumns, rows, runAll, type Script, sql, statement } from '../script.ts'
import { recordHealth, updateEndpointStatuses } from './health.ts'
import { addDeliveries, addEvents, deliveryOf, endpointEvent, maxTriesOf, type NewDelivery, type RenderContext } from './outbox.ts'
import { settleVerifications } from './ownership.ts'
import { clientMatches, DELIVERY_QUEUE, idRows, ids, targetStates } from './shared.ts'

// Claim.

const takeDeliveries = statement(
  (d) => sql`update deliveries set state = 'running', fence = fence + 1, tries = tries + 1, leased_until = ${d.now} + ${bind('leaseMs')},
      leased_by = ${bind('by')}, updated_at = ${d.now}, retry_after_at = null
    where id ${d.anyOf(sql`select x.id from deliveries x where x.id ${d.anyOf(ids(d))} and coalesce(x.state, '') = 'pending' ${d.skipLocked}`)}
    returning ${deliveryColumns}`,
)
const readBodies = statement(
  (d) => sql`select e.id as id, e.body as body, t.traceparent as traceparent, t.tracestate as tracestate
    from events e ${d.leftJoin('tasks', 't', sql`t.id = e.task_id`)} where e.id ${d.anyOf(ids(d, 'events'))}`,
)
const readEndpoints = statement((d) => sql`select ${endpointColumns} from endpoints where id ${d.anyOf(ids(d, 'endpoints'))}`)

const ORPHAN: RecordColumns = { delivery_id: 'text', why: 'text' }
const cancelOrphans = statement(
  (d) => sql`update deliveries set fence = deliveries.fence + 1, tries = deliveries.tries - 1, state = 'canceled', canceled_reason = v.why,
      finished_at = ${d.now}, updated_at = ${d.now}, leased_until = null, leased_by = null
    from ${d.records('orphans', ORPHAN)} v where deliveries.id = v.delivery_id
      ${d.restrictTo(sql`deliveries.id`, sql`select y.delivery_id from ${d.records('orphans', ORPHAN)} y`)}`,
)
/** An endpoint whose row is missing was removed by something else. */
const isDeleted = ({ endpoint }: OwedDelivery): boolean => {
  const known = endpoint as (Endpoint & { deletedAt: Millis | null }) | undefined
  return known === undefined || known.deletedAt !== null
}

const bytesOf = ({ body, eventBody }: OwedDelivery): string => body ?? eventBody
/** Whether the event's body is complete, without parsing it at every attempt: a truncated body does not end with a brace. */
const isWhole = (bytes: string): boolean => bytes.startsWith('{') && bytes.endsWith('}')
/** What corrupted the delivery; null: its endpoint was deleted or its event erased. */
function corruptionOf(each: OwedDelivery): string | null {
  if (each.endpoint === undefined) return `is owed to endpoint ${each.endpointId}, which is not in the store`
  if (bytesOf(each) !== '' && !isWhole(bytesOf(each))) return `is of event ${each.eventId}, whose bytes are damaged`
  return null
}

/** How a claim takes deliveries. Those that can never be sent end here and come back as canceled. */
export const deliveryTable = (leaseMs: Millis, by: string, view: RenderContext): WorkTable<OwedDelivery> => ({
  kind: 'delivery',
  ordered: false,
  *take(chosen): Script<readonly OwedDelivery[]> {
    const taken = yield* rows<Delivery>(takeDeliveries({ ids: idRows(chosen), leaseMs, by }))
    if (taken.length === 0) return []
    const owed = yield* withEventAndEndpoint(taken)
    // The commit that wrote it did not see that its endpoint was deleted, or its event erased.
    const orphans = owed.filter((each) => isDeleted(each) || !isWhole(bytesOf(each)))
    if (orphans.length === 0) return owed
    for (const each of orphans) {
      const damage = corruptionOf(each)
      if (damage !== null) view.onCorruption(`Delivery ${each.id} ${damage}: it is canceled.`)
    }
    yield* execute([
      cancelOrphans({
        orphans: orphans.map((each) => ({ delivery_id: each.id, why: isDeleted(each) ? 'endpointDeleted' : 'taskDeleted' })),
      }),
    ])
    return owed.map((each) => (orphans.includes(each) ? { ...each, state: 'canceled' } : each))
  },
})
interface EventBody {
  readonly id: string
  readonly body: string
  readonly traceparent: string | null
  readonly tracestate: string | null
}
const ERASED = { body: '', traceparent: null, tracestate: null }

/** Adds the event's body and the endpoint. */
export function* withEventAndEndpoint(taken: readonly Delivery[]): Script<readonly OwedDelivery[]> {
  const [bodies, endpoints] = yield* runAll([
    readBodies({ events: idRows(taken.map((d) => d.eventId)) }),
    readEndpoints({ endpoints: idRows(taken.map((d) => d.endpointId)) }),
  ])
  const byEvent = new Map((bodies as unknown as readonly EventBody[]).map((row) => [row.id, row]))
  const byEndpoint = new Map((endpoints as unknown as Endpoint[]).map((row) => [row.id, row]))
  return taken.map((delivery) => {
    // A missing event was erased: its deliveries are canceled.
    const { body, traceparent, tracestate } = byEvent.get(delivery.eventId) ?? ERASED
    return { ...delivery, eventBody: body, traceparent, tracestate, endpoint: byEndpoint.get(delivery.endpointId)! }
  })
}

// Settle.

const SETTLEMENT: RecordColumns = { delivery_id: 'text', at_fence: 'int8', wish: 'text', delay_ms: 'int8', hold_ms: 'int8', back: 'int8' }
const updateDeliveries = statement(
  (d) => sql`update deliveries set state = v.wish, updated_at = ${d.now}, leased_until = null, leased_by = null,
      tries = deliveries.tries - v.back,
      line = case when v.wish = 'pending' then 1 else deliveries.line end,
      rank = case when v.wish = 'pending' then ${d.now} + v.delay_ms else deliveries.rank end,
      due_at = case when v.wish = 'pending' then ${d.now} + v.delay_ms else deliveries.due_at end,
      retry_after_at = case when v.hold_ms is null then null else ${d.now} + v.hold_ms end,
      finished_at = case when v.wish = 'pending' then null else ${d.now} end
    from ${d.records('settlements', SETTLEMENT)} v
    where deliveries.id = v.delivery_id and deliveries.fence = v.at_fence and coalesce(deliveries.state, '') = 'running'
      ${d.restrictTo(
        sql`deliveries.id`,
        sql`select k.id from deliveries k where k.id ${d.anyOf(
          sql`select y.delivery_id from ${d.records('settlements', SETTLEMENT)} y`,
        )} order by k.id ${d.lock}`,
      )}
    returning ${updatedDeliveryColumns}`,
)
const insertAttempts = statement(
  (d) => sql`insert into attempts (${newAttempt.names})
    select ${newAttempt.names} from ${d.records('attempts', newAttempt.columns)} v where true on conflict (delivery_id, fence) do nothing`,
)
/** A delivery in flight when its endpoint was deleted is canceled, not retried. */
const cancelUnwanted = statement(
  (d) => sql`update deliveries
    set state = 'canceled', canceled_reason = 'endpointDeleted', finished_at = ${d.now}, updated_at = ${d.now}, retry_after_at = null
    where id ${d.anyOf(ids(d, 'waiting'))} and (select e.deleted_at from endpoints e where e.id = deliveries.endpoint_id) is not null
    returning ${updatedDeliveryColumns}`,
)

/** Attempt and state in one transaction. The attempt is stored even when the lease was lost: the request was sent. */
export function* settleDeliveries(
  settlements: readonly DeliverySettlement[],
  view: RenderContext,
): Script<readonly SettleResult<Delivery>[]> {
  const [won] = (yield* runAll([
    updateDeliveries({
      settlements: [...byLease(settlements).values()].map(({ id, fence, outcome, endpoint }) => ({
        delivery_id: id,
        at_fence: fence,
        wish: targetStates[outcome.kind],
        delay_ms: 'delayMs' in outcome ? outcome.delayMs : 0,
        hold_ms: endpoint.holdMs,
        back: outcome.kind === 'release' ? 1 : 0,
      })),
    }),
    ...attempts(settlements),
    ...recordHealth(settlements),
  ])) as unknown as [readonly Delivery[]]
  const ended = byLease(won)
  if (won.length > 0) {
    const now = won[0]!.updatedAt
    const place = (delivery: Delivery) => ({ queue: DELIVERY_QUEUE, clientId: delivery.clientId, laneId: delivery.laneId })
    const signals = settlements.flatMap((settlement) => {
      const delivery = ended.get(leaseKey(settlement))
      const { signal, holdMs: retryAfterMs } = settlement.endpoint
      const durationMs = settlement.attempt?.durationMs ?? 0
      return delivery && (signal !== null || retryAfterMs !== null) ? [{ ...place(delivery), signal, retryAfterMs, durationMs }] : []
    })
    const { turns, lanes } = yield* releaseSlots(won.map(place), signals, now)
    const retried = won.filter((d) => d.state === 'pending')
    const unwanted = retried.length === 0 ? [] : yield* rows<Delivery>(cancelUnwanted({ waiting: idRows(retried.map(({ id }) => id)) }))
    for (const each of unwanted) ended.set(leaseKey(each), each)
    const waiting = retried.filter((d) => ended.get(leaseKey(d)) === d).map((d) => ({ ...place(d), line: 1, rank: d.dueAt }))
    yield* execute(addTurns([...turns, ...turnsFor(waiting, now)]))
    yield* updateEndpointStatuses(settlements, lanes, now, view)
    yield* settleVerifications(settlements, won)
  }
  return settlements.map((settlement) => {
    const lease = leaseKey(settlement)
    const value = ended.get(lease)
    return ended.delete(lease) ? { kind: 'settled', value: value! } : { kind: 'stale' }
  })
}
function attempts(settlements: readonly DeliverySettlement[]): readonly BoundStatement[] {
  const made = settlements.flatMap(({ id: deliveryId, fence, attempt }) =>
    attempt ? [newAttempt.toRow({ ...attempt, deliveryId, fence })] : [],
  )
  return made.length === 0 ? [] : [insertAttempts({ attempts: made })]
}

// Redeliver, ping.

export const readDelivery = statement(
  (d) => sql`select ${deliveryColumns} from deliveries where id = ${bind('id')} and client_id = ${clientMatches(d)}`,
)
const makeDue = statement(
  (d) => sql`update deliveries set line = 1, rank = ${d.now}, due_at = ${d.now}, retry_after_at = null, updated_at = ${d.now}
    where id = ${bind('id')} and coalesce(state, '') = 'pending' returning ${deliveryColumns}`,
)
/** Locked: endpoint events are pruned by age, but not while one is being sent again. */
const readEvent = statement((d) => sql`select id, body from events where id = ${bind('id')} ${d.lock}`)
/** Locks the events that exist, so that they stay until the commit. */
export const lockEvents = statement((d) => sql`select id from events where id ${d.anyOf(ids(d, 'events'))} order by id ${d.lock}`)
/** Locks the tasks that exist, so that retention skips them until the commit. */
export const lockTasks = statement((d) => sql`select id from tasks where id ${d.anyOf(ids(d, 'tasks'))} order by id ${d.lock}`)

/**
 * An open delivery becomes due now. An ended one gets a new delivery of the same body with all its tries. A verification that ended is started
 * again elsewhere.
 */
export function* redeliver(id: string, newId: string, clientId: string | null, view: RenderContext): Script<Delivery | null> {
  const known = yield* first<Delivery>(readDelivery({ id, clientId }))
  if (!known) return null
  if (known.state === 'running') return known
  if (known.state === 'pending') {
    const due = (yield* first<Delivery>(makeDue({ id }))) ?? known
    yield* runAll(
      addTurns(turnsFor([{ queue: DELIVERY_QUEUE, clientId: due.clientId, laneId: due.laneId, line: 1, rank: due.dueAt }], due.dueAt)),
    )
    return due
  }
  if (known.eventType === 'endpoint.verification') return null
  if (known.taskId !== null && !(yield* first(lockTasks({ tasks: [{ id: known.taskId }] })))) return null
  const event = yield* first<Pick<Event, 'body'>>(readEvent({ id: known.eventId }))
  const endpoint = yield* first<Endpoint & { deletedAt: Millis | null }>(readEndpoints({ endpoints: [{ id: known.endpointId }] }))
  if (!event || event.body === '' || !endpoint || endpoint.deletedAt !== null) return null
  const retrySchedule = known.retrySchedule ?? endpoint.retrySchedule
  const { clientId: owner, endpointId, eventId, eventType, taskId, url, body } = known
  const maxTries = maxTriesOf(eventType, retrySchedule, view)
  const copied = { clientId: owner, endpointId, eventId, eventType, taskId, url, body }
  const made: NewDelivery = { ...copied, id: newId, retrySchedule, trigger: 'redelivery', maxTries, createdAt: yield* now() }
  yield* execute(addDeliveries([made]))
  return yield* first<Delivery>(readDelivery({ id: newId, clientId: null }))
}

/** An `endpoint.ping` for this endpoint alone, with one attempt. Null: the client has no such endpoint. */
export function* addPing(
  ping: { endpointId: string; clientId: string; eventId: string; deliveryId: string },
  view: RenderContext,
): Script<Delivery | null> {
  const at = yield* now()
  const endpoint = yield* first<Endpoint & { deletedAt: Millis | null }>(readEndpoints({ endpoints: [{ id: ping.endpointId }] }))
  if (!endpoint || endpoint.clientId !== ping.clientId || endpoint.deletedAt !== null) return null
  const { eventId, deliveryId: id, endpointId } = ping
  const head = { id: eventId, type: 'endpoint.ping', at } as const
  const data = JSON.stringify({ endpointId })
  const envelope = { ...head, source: view.publicUrl(), subject: null, sequence: null }
  const body = endpoint.format === 'cloudevents' ? cloudEventJson(envelope, data) : null
  const event = endpointEvent(endpoint, head, data)
  const made = deliveryOf(event, { id, endpointId, body, retrySchedule: null, trigger: 'ping', maxTries: 1 })
  yield* addEvents([event], addDeliveries([made]))
  return yield* first<Delivery>(readDelivery({ id: ping.deliveryId, clientId: null }))
}

const readAttempts = statement(
  (d) => sql`select ${attemptColumns} from attempts where delivery_id ${d.anyOf(ids(d, 'deliveries'))} order by delivery_id, fence`,
)
export function* listAttempts(deliveryIds: readonly string[]): Script<readonly Attempt[]> {
  return yield* rows<Attempt>(readAttempts({ deliveries: idRows(deliveryIds) }))
}
