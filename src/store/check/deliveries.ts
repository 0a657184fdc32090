/** What must hold for deliveries: events, endpoints, attempts; and what is owed to which endpoint. */
import { type Attempt, type Delivery, type Event, isTerminal, type Millis } from '../../core/model.ts'
import { bind, now, rows, runAll, type Script, sql, statement } from '../script.ts'
import { idRows, ids } from '../scripts/shared.ts'
import {
  type CheckPage,
  checkLease,
  countExpiredLeases,
  Findings,
  type LeasedRow,
  lastId,
  PAGE,
  type Rule,
  readNodeRunning,
  withoutDeletedClients,
} from './checks.ts'
import { findTaskFates } from './events.ts'

const readDeliveries = statement(
  () => sql`select id, client_id as "clientId", lane_id as "laneId", state, tries, max_tries as "maxTries", fence, leased_until as "leasedUntil",
      leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", trigger,
      canceled_reason as "canceledReason", created_at as "createdAt", due_at as "dueAt", retry_after_at as "retryAfterAt", finished_at as "finishedAt"
    from deliveries where id > ${bind('after')} order by id limit ${sql.raw(String(PAGE))}`,
)
type CheckedDelivery = LeasedRow &
  Pick<
    Delivery,
    'eventId' | 'eventType' | 'taskId' | 'endpointId' | 'trigger' | 'canceledReason' | 'createdAt' | 'dueAt' | 'retryAfterAt' | 'finishedAt'
  >
const readEvents = statement(
  (d) => sql`select id, client_id as "clientId", task_id as "taskId", type from events where id ${d.anyOf(ids(d, 'events'))}`,
)
const readEndpoints = statement(
  (d) => sql`select id, client_id as "clientId", deleted_at as "deletedAt" from endpoints where id ${d.anyOf(ids(d, 'endpoints'))}`,
)
const readAttempts = statement(
  (d) =>
    sql`select delivery_id as "deliveryId", fence, outcome from attempts where delivery_id ${d.anyOf(ids(d))} order by delivery_id, fence`,
)
type CheckedAttempt = Pick<Attempt, 'deliveryId' | 'fence' | 'outcome'>

/** Why a delivery is open, as far as its own row shows. */
export type OpenReason = 'sending' | 'due' | 'retryBackoff' | 'retryAfter'
export interface OpenDelivery extends Pick<Delivery, 'endpointId' | 'clientId' | 'createdAt'> {
  readonly reason: OpenReason
}
export interface DeliveryCheckPage extends CheckPage<string> {
  readonly open: readonly OpenDelivery[]
  readonly expiredLeases: number
  readonly attempts: number
}
type Owner = Pick<Delivery, 'id' | 'clientId'>
type OwnerEvent = Owner & Pick<Event, 'taskId' | 'type'>
type OwnerEndpoint = Owner & { readonly deletedAt: Millis | null }
/** Checks deliveries created after `after`, with their attempts. */
export function* checkDeliveries(after: string, graceMs: Millis): Script<DeliveryCheckPage> {
  const at = yield* now()
  const found = yield* rows<CheckedDelivery>(readDeliveries({ after }))
  const page = yield* withoutDeletedClients(found)
  if (found.length === 0) return { rowsChecked: 0, open: [], expiredLeases: 0, attempts: 0, violations: [], next: null }
  const [seen, events, endpoints, attempts] = (yield* runAll([
    readNodeRunning(),
    readEvents({ events: idRows(page.map(({ eventId }) => eventId)) }),
    readEndpoints({ endpoints: idRows(page.map(({ endpointId }) => endpointId)) }),
    readAttempts({ ids: page.map(({ id }) => ({ id })) }),
  ])) as unknown as [{ served: number }[], OwnerEvent[], OwnerEndpoint[], CheckedAttempt[]]
  const leases = { at, running: seen[0]!.served === 1, graceMs }
  const { existing, erased } = yield* findTaskFates(page.map(({ taskId }) => taskId))
  const eventOf = new Map(events.map((event) => [event.id, event]))
  const endpointOf = new Map(endpoints.map((endpoint) => [endpoint.id, endpoint]))
  const attemptsOf = Map.groupBy(attempts, ({ deliveryId }) => deliveryId)
  const findings = new Findings()
  for (const delivery of page) {
    const rule = findings.about(`Delivery ${delivery.id}`)
    const { eventId, endpointId, taskId, canceledReason: reason } = delivery
    checkLease(rule, delivery, leases)
    checkAttempts(rule, delivery, attemptsOf.get(delivery.id) ?? [])
    checkOwners(rule, delivery, eventOf.get(eventId), endpointOf.get(endpointId))
    checkRow(rule, delivery)
    const exists = taskId !== null && existing.has(taskId)
    rule(taskId === null || exists || erased.has(taskId), 'traces', `belongs to task ${taskId}, which neither exists nor was erased.`)
    if (reason === 'endpointDeleted')
      rule(
        endpointOf.get(endpointId)?.deletedAt !== null,
        'rows',
        `was canceled because endpoint ${endpointId} was deleted, but it exists.`,
      )
    if (reason === 'taskDeleted') rule(!exists, 'rows', `was canceled because task ${taskId} was deleted, but it exists.`)
  }
  const open = page
    .filter(({ state }) => !isTerminal(state))
    .map(
      ({ endpointId, clientId, createdAt, state, dueAt, retryAfterAt }): OpenDelivery => ({
        endpointId,
        clientId,
        createdAt,
        reason: state === 'running' ? 'sending' : (retryAfterAt ?? 0) > at ? 'retryAfter' : dueAt > at ? 'retryBackoff' : 'due',
      }),
    )
  const counts = { open, expiredLeases: countExpiredLeases(page, leases), attempts: attempts.length }
  return { ...findings.page(found, PAGE, lastId), ...counts }
}

function checkOwners(rule: Rule, delivery: CheckedDelivery, event: OwnerEvent | undefined, endpoint: OwnerEndpoint | undefined): void {
  const { eventId, endpointId, taskId, eventType, clientId } = delivery
  rule(event !== undefined, 'owed', `belongs to event ${eventId}, which does not exist.`)
  const same = event?.type === eventType && event.taskId === taskId && event.clientId === clientId
  rule(event === undefined || same, 'owed', `has another type, task or client than its event ${eventId}.`)
  rule(endpoint !== undefined, 'owed', `is owed to endpoint ${endpointId}, which does not exist.`)
  const owner = endpoint?.clientId ?? clientId
  rule(owner === clientId, 'owed', `belongs to ${clientId}, but its endpoint ${endpointId} belongs to ${owner}.`)
}

function checkRow(rule: Rule, { state, laneId, endpointId, finishedAt, canceledReason }: CheckedDelivery): void {
  rule([endpointId, `${endpointId}/verify`].includes(laneId), 'rows', `is in lane ${laneId} but is owed to ${endpointId}.`)
  rule((finishedAt !== null) === isTerminal(state), 'rows', `is ${state} ${isTerminal(state) ? 'without' : 'with'} a finish time.`)
  rule((canceledReason !== null) === (state === 'canceled'), 'rows', `is ${state} with the reason ${canceledReason}.`)
}

function checkAttempts(rule: Rule, { state, tries, fence }: CheckedDelivery, attempts: readonly CheckedAttempt[]): void {
  const must = (holds: boolean, sentence: string): void => rule(holds, 'attempts', sentence)
  const last = attempts.find((attempt) => attempt.fence === fence)
  if (state === 'completed') must(last?.outcome === 'success', `is completed but has no successful attempt under fence ${fence}.`)
  if (state === 'failed')
    must(last !== undefined && last.outcome !== 'success', `has failed but has no failed attempt under fence ${fence}.`)
  const highest = attempts.at(-1)?.fence ?? 0
  must(highest <= fence, `has fence ${fence} but an attempt under fence ${highest}.`)
  // A delivery in flight has no attempt yet, and one canceled in flight may never get it. A released one has an attempt that counts no try.
  const inFlight = state === 'running' || state === 'canceled' ? 1 : 0
  const sent = attempts.filter(({ outcome }) => outcome !== 'expired').length
  must(sent >= tries - inFlight, `has ${tries} tries but ${sent} attempts.`)
}
