/** What must hold for deliveries: events, endpoints, attempts; and what is owed to which endpoint. */
import { type CanceledReason, type EventType, isTerminal, type Millis, type Trigger } from '../../core/model.ts'
import { bind, now, rows, runAll, type Script, sql, statement } from '../script.ts'
import {
  type CheckName,
  type CheckPage,
  idRecords,
  idsOf,
  judgeWork,
  type LeasedRow,
  type LeaseGrace,
  nextMark,
  PAGE,
  readSeen,
  type Violation,
  withoutDeletedClients,
} from './checks.ts'
import { findTaskFates } from './events.ts'

const readDeliveries = statement(
  () => sql`select id, client_id as "clientId", lane_id as "laneId", state, tries, max_tries as "maxTries", fence, leased_until as "leasedUntil",
      leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", trigger,
      canceled_reason as "canceledReason", created_at as "createdAt", due_at as "dueAt", retry_after_at as "retryAfterAt", finished_at as "finishedAt"
    from deliveries where id > ${bind('after')} order by id limit ${sql.raw(String(PAGE))}`,
)
type CheckedDelivery = LeasedRow & {
  readonly clientId: string
  readonly laneId: string
  readonly eventId: string
  readonly eventType: EventType
  readonly taskId: string | null
  readonly endpointId: string
  readonly trigger: Trigger
  readonly canceledReason: CanceledReason | null
  readonly createdAt: Millis
  readonly dueAt: Millis
  readonly retryAfterAt: Millis | null
  readonly finishedAt: Millis | null
}
const readFacts = statement(
  (d) => sql`select id, client_id as "clientId", task_id as "taskId", type from events where id ${d.anyOf(idsOf(d, 'events'))}`,
)
const readOwners = statement(
  (d) => sql`select id, client_id as "clientId", deleted_at as "deletedAt" from endpoints where id ${d.anyOf(idsOf(d, 'endpoints'))}`,
)
const readAttempts = statement(
  (d) =>
    sql`select delivery_id as "deliveryId", fence, outcome from attempts where delivery_id ${d.anyOf(idsOf(d))} order by delivery_id, fence`,
)
interface CheckedAttempt {
  readonly deliveryId: string
  readonly fence: number
  readonly outcome: string
}

/** Why a delivery is open, as far as its own row shows. */
export type OpenReason = 'sending' | 'due' | 'retryBackoff' | 'retryAfter'
export interface OpenDelivery {
  readonly endpointId: string
  readonly clientId: string
  readonly createdAt: Millis
  readonly reason: OpenReason
}
export interface DeliveryCheckPage extends CheckPage<string> {
  readonly open: readonly OpenDelivery[]
  readonly expiredLeases: number
  readonly attempts: number
}
/** Checks deliveries created after `after`, with their attempts. */
export function* checkDeliveries(after: string, sweeps: LeaseGrace): Script<DeliveryCheckPage> {
  const at = yield* now()
  const found = yield* rows<CheckedDelivery>(readDeliveries({ after }))
  const page = yield* withoutDeletedClients(found)
  if (found.length === 0) return { rowsChecked: 0, open: [], expiredLeases: 0, attempts: 0, violations: [], next: null }
  const [seen, facts, owners, attempts] = (yield* runAll([
    readSeen(),
    readFacts({ events: idRecords(page.map(({ eventId }) => eventId)) }),
    readOwners({ endpoints: idRecords(page.map(({ endpointId }) => endpointId)) }),
    readAttempts({ ids: page.map(({ id }) => ({ id })) }),
  ])) as unknown as [
    { served: number }[],
    { id: string; clientId: string; taskId: string | null; type: EventType }[],
    { id: string; clientId: string; deletedAt: Millis | null }[],
    CheckedAttempt[],
  ]
  const served = seen[0]!.served === 1
  const { existing: there, erased } = yield* findTaskFates(page.map(({ taskId }) => taskId))
  const factOf = new Map(facts.map((fact) => [fact.id, fact]))
  const ownerOf = new Map(owners.map((owner) => [owner.id, owner]))
  const attemptsOf = Map.groupBy(attempts, ({ deliveryId }) => deliveryId)
  const violations: Violation[] = []
  for (const delivery of page) {
    violations.push(...judgeWork('delivery', delivery, at, served, sweeps), ...judgeAttempts(delivery, attemptsOf.get(delivery.id) ?? []))
    const must = (holds: boolean, check: CheckName, sentence: string): void =>
      void (holds || violations.push({ check, sentence: `Delivery ${delivery.id} ${sentence}` }))
    const { eventId, endpointId, taskId, eventType, clientId, canceledReason: reason, state } = delivery
    const fact = factOf.get(eventId)
    const owner = ownerOf.get(endpointId)
    must(fact !== undefined, 'owed', `is of event ${eventId}, which is not there.`)
    if (fact)
      must(
        fact.type === eventType && fact.taskId === taskId && fact.clientId === clientId,
        'owed',
        `and its event ${eventId} tell of different things.`,
      )
    must(owner !== undefined, 'owed', `is owed to endpoint ${endpointId}, which is not there.`)
    must((owner?.clientId ?? clientId) === clientId, 'owed', `of ${clientId} is owed to endpoint ${endpointId} of ${owner?.clientId}.`)
    must(
      taskId === null || there.has(taskId) || erased.has(taskId),
      'traces',
      `tells of task ${taskId}, which is not there and was not erased.`,
    )
    must(
      delivery.laneId === endpointId || delivery.laneId === `${endpointId}/verify`,
      'rows',
      `waits in lane ${delivery.laneId}, and is owed to ${endpointId}.`,
    )
    must(
      (delivery.finishedAt !== null) === isTerminal(state),
      'rows',
      `is ${state}, and its row says that it ${isTerminal(state) ? 'has not ended' : 'has ended'}.`,
    )
    must((reason !== null) === (state === 'canceled'), 'rows', `is ${state} with the reason ${reason}.`)
    if (reason === 'endpointDeleted')
      must(
        owner === undefined || owner.deletedAt !== null,
        'rows',
        `was canceled because endpoint ${endpointId} was deleted, which is there.`,
      )
    if (reason === 'taskDeleted')
      must(taskId === null || !there.has(taskId), 'rows', `was canceled because task ${taskId} was deleted, which is there.`)
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
  const lapsed = page.filter(({ state, leasedUntil }) => !served && state === 'running' && (leasedUntil ?? at) < at).length
  return {
    rowsChecked: found.length,
    open,
    expiredLeases: lapsed,
    attempts: attempts.length,
    violations,
    next: nextMark(found, PAGE, ({ id }) => id),
  }
}

function judgeAttempts({ id, state, tries, fence }: CheckedDelivery, attempts: readonly CheckedAttempt[]): Violation[] {
  const found: Violation[] = []
  const must = (holds: boolean, sentence: string): void =>
    void (holds || found.push({ check: 'attempts', sentence: `Delivery ${id} ${sentence}` }))
  const last = attempts.find((attempt) => attempt.fence === fence)
  if (state === 'completed') must(last?.outcome === 'success', `is delivered, and no attempt of it under fence ${fence} succeeded.`)
  if (state === 'failed')
    must(last !== undefined && last.outcome !== 'success', `has failed, and no attempt of it under fence ${fence} did.`)
  must(
    attempts.every((attempt) => attempt.fence <= fence),
    `has been claimed ${fence} times, and has an attempt under fence ${attempts.at(-1)?.fence}.`,
  )
  // A delivery in flight has no attempt yet, and one canceled in flight may never get it. A released one has an attempt that counts no try.
  const inFlight = state === 'running' || state === 'canceled' ? 1 : 0
  const sent = attempts.filter(({ outcome }) => outcome !== 'expired').length
  must(sent >= tries - inFlight, `counts ${tries} tries, and has ${sent} attempts.`)
  return found
}
