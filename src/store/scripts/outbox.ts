/**
 * The outbox: events and the deliveries they owe, written by the script that changes the task, in its transaction. Bodies are rendered here from
 * the updated row, so they never change afterwards.
 */

import {
  type Callback,
  type Delivery,
  defaultEvents,
  type Endpoint,
  type EventType,
  isTerminal,
  type Json,
  type Millis,
  type Task,
} from '../../core/model.ts'
import { parseStored, sanitizeStored } from '../../core/stored-json.ts'
import { cloudEventJson, envelopeJson, taskDocumentJson } from '../../core/wire.ts'
import { endpointColumns, newDelivery, newEvent, type RowOf } from '../columns.ts'
import type { OwedDelivery } from '../interfaces.ts'
import { admitStarts, type LentSlots, type StartDemand } from '../queue/claim.ts'
import { addTurns, turnsFor } from '../queue/run-queue.ts'
import { type BoundStatement, bind, execute, type RecordColumns, rows, runAll, type Script, sql, statement } from '../script.ts'
import { boundText, DELIVERY_QUEUE, idRows, ids } from './shared.ts'

/** What rendering needs in addition to the rows. */
export interface RenderContext {
  readonly publicUrl: () => string
  /** The installation's delays before each retry, in seconds. */
  readonly retrySchedule: readonly number[]
  readonly newId: (prefix: 'task' | 'event' | 'delivery') => string
  /** 43 random characters. */
  readonly newChallenge: () => string
  /** Called for rows that something else corrupted. */
  readonly onCorruption: (sentence: string) => void
  /** How long a task of that type is kept after its end. */
  readonly retentionMs: (type: string) => Millis
  /** Queues of task types with a limit across nodes, as far as this node has claimed them. */
  readonly limitedQueues: Set<string>
}
/** A change of a task that subscribers may receive. */
export interface TaskFact {
  readonly task: Task
  readonly type: EventType
  readonly at: Millis
}

const terminalType: Partial<Record<Task['state'], EventType>> = {
  completed: 'task.completed',
  failed: 'task.failed',
  canceled: 'task.canceled',
}
/** The terminal event of an ended task. */
export const terminalFact = (task: Task): TaskFact => ({ task, type: terminalType[task.state]!, at: task.finishedAt ?? task.updatedAt })

/** The endpoints of these clients that are not deleted. */
export const readEndpointsOfClients = statement(
  (d) => sql`select ${endpointColumns} from endpoints
    where client_id ${d.anyOf(ids(d, 'clients'))} and deleted_at is null`,
)
/** The endpoints that tasks name, without reading the client's others. */
const readNamed = statement(
  (d) => sql`select ${endpointColumns} from endpoints where id ${d.anyOf(ids(d, 'endpoints'))}
    and coalesce(deleted_at, 0) = 0`,
)
const countEvents = statement(
  (d) => sql`update clients set seq = clients.seq + v.n from ${d.records('clients', { client_id: 'text', n: 'int8' })} v
    where clients.id = v.client_id ${d.restrictTo(
      sql`clients.id`,
      sql`select c.id from clients c where c.id ${d.anyOf(
        sql`select x.client_id from ${d.records('clients', { client_id: 'text', n: 'int8' })} x`,
      )} order by c.id ${d.lock}`,
    )} returning clients.id as id, clients.seq as seq`,
)
const insertEvents = statement(
  (d) => sql`insert into events (${newEvent.names}) select ${newEvent.names} from ${d.records('events', newEvent.columns)} v`,
)
/** The lane of a delivery: that of its endpoint. A verification has a lane of its own, because everything else is held until it passes. */
export const deliveryLaneOf = (endpointId: string, type: EventType): string =>
  type === 'endpoint.verification' ? `${endpointId}/verify` : endpointId
const laneOfNew = ({ endpointId, eventType }: NewDelivery): string => deliveryLaneOf(endpointId, eventType)

const insertDeliveries = statement(
  (d) => sql`insert into deliveries (${newDelivery.names}, state, line, rank, due_at, tries, fence, updated_at, leased_until, leased_by)
    select ${newDelivery.names}, case when start = 1 then 'running' else 'pending' end, 0, created_at, created_at, start, start, created_at,
      case when start = 1 then ${d.now} + ${bind('leaseMs')} end, case when start = 1 then ${boundText(d, 'by')} end
    from ${d.records('deliveries', { ...newDelivery.columns, start: 'int8' })} v`,
)

/** A delivery to insert. Its body is null when it is the event's own. */
export type NewDelivery = Omit<RowOf<typeof newDelivery>, 'laneId'>
export type NewEvent = Omit<RowOf<typeof newEvent>, 'seq'>

/** An event about an endpoint. It belongs to no task. */
export const endpointEvent = (
  { id: endpointId, clientId }: Pick<Endpoint, 'id' | 'clientId'>,
  { id, type, at }: { id: string; type: EventType; at: Millis },
  data: Json,
): NewEvent => {
  const body = envelopeJson({ id, type, at }, data)
  return { id, clientId, taskId: null, endpointId, type, terminal: 0, generation: 0, revision: 0, body, createdAt: at }
}
/** A delivery of such an event, to that endpoint or to another one of its client. */
export const deliveryOf = (
  { id: eventId, type: eventType, clientId, createdAt }: NewEvent,
  to: Pick<NewDelivery, 'id' | 'endpointId' | 'body' | 'retrySchedule' | 'trigger' | 'maxTries'>,
): NewDelivery => ({ ...to, eventId, eventType, clientId, taskId: null, url: null, createdAt })

/**
 * Records events and the deliveries they owe. An event that is not terminal is recorded only when an endpoint subscribes to it. Returns the
 * deliveries that start at once in free slots of the node.
 */
export function* emit(facts: readonly TaskFact[], view: RenderContext, slots: LentSlots | null = null): Script<readonly OwedDelivery[]> {
  if (facts.length === 0) return []
  const endpoints = yield* readSubscribers(facts)
  const subscribed = subscriptions(endpoints)
  const events: NewEvent[] = []
  const deliveries: NewDelivery[] = []
  const newer: { task_id: string; endpoint_id: string }[] = []
  for (const fact of facts) {
    const owed = subscribed(fact)
    const { type, at: createdAt } = fact
    const { id: taskId, clientId, generation, revision, traceparent, tracestate } = fact.task
    const terminal = isTerminal(fact.task.state)
    if (!terminal && owed.length === 0) continue
    const id = view.newId('event')
    const event = { id, type, at: createdAt }
    const context = { publicUrl: view.publicUrl(), callbackStatus: null, retentionMs: view.retentionMs(fact.task.type) }
    const task = sanitizeStored(fact.task)
    if (task !== fact.task) view.onCorruption(`Task ${task.id} holds what is not JSON: its events are written without it.`)
    const full = taskDocumentJson(task, context)
    events.push({
      id,
      clientId,
      taskId,
      endpointId: null,
      type,
      terminal: terminal ? 1 : 0,
      generation,
      revision,
      body: envelopeJson(event, full),
      createdAt,
    })
    for (const { endpoint, callback, wantsProgress } of owed) {
      if (wantsProgress && type !== 'task.created') newer.push({ task_id: taskId, endpoint_id: endpoint.id })
      const isThin = endpoint.payload === 'thin'
      const data = isThin ? taskDocumentJson(task, { ...context, thin: true }) : full
      const source = { source: context.publicUrl, subject: taskId, sequence: revision, traceparent, tracestate }
      const retrySchedule = callback.retrySchedule ? JSON.stringify(callback.retrySchedule) : endpoint.retrySchedule
      deliveries.push({
        id: view.newId('delivery'),
        clientId,
        endpointId: endpoint.id,
        eventId: id,
        eventType: type,
        taskId,
        url: callback.url ?? null,
        body: endpoint.format === 'cloudevents' ? cloudEventJson({ ...event, ...source }, data) : isThin ? envelopeJson(event, data) : null,
        retrySchedule,
        trigger: 'event',
        maxTries: maxTriesOf(type, retrySchedule, view),
        createdAt,
      })
    }
  }
  if (newer.length > 0) yield* execute([supersede({ newer })])
  return yield* record(events, deliveries, new Map(endpoints.map((endpoint) => [endpoint.id, endpoint])), facts, slots)
}

/** One attempt only: a newer progress report follows anyway, and a ping asks how the endpoint is now. */
const ONCE: ReadonlySet<EventType> = new Set(['task.progress', 'endpoint.ping'])
/** The number of tries of a delivery of such an event. */
export const maxTriesOf = (type: EventType, schedule: Json | null, { retrySchedule }: RenderContext): number =>
  ONCE.has(type) ? 1 : parseStored(schedule, retrySchedule).length + 1
const NEWER: RecordColumns = { task_id: 'text', endpoint_id: 'text' }
/** A pending progress delivery is superseded when the endpoint is owed something newer of the same task. */
// The joined texts keep planners off the indexes of the endpoint and of all pending work, which may be large.
const supersede = statement((d) => {
  const waiting = sql`k.task_id = v.task_id and k.endpoint_id || '' = v.endpoint_id and k.event_type = 'task.progress' and k.state || '' = 'pending'`
  const old = sql`select k.id from ${d.records('newer', NEWER)} v ${d.join('deliveries', 'k', waiting)}`
  return sql`update deliveries set state = 'canceled', canceled_reason = 'superseded', fence = fence + 1, finished_at = ${d.now}, updated_at = ${d.now}
    where coalesce(state, '') = 'pending'
      and id ${d.anyOf(sql`select x.id from deliveries x where x.id ${d.anyOf(old)} order by x.id ${d.lock}`)}`
})

function* readSubscribers(facts: readonly TaskFact[]): Script<readonly Endpoint[]> {
  const clients = new Set<string>()
  const named = new Set<string>()
  for (const { task } of facts) {
    if (task.callback === null) continue
    const { endpointId } = callbackOf(task.callback)
    if (endpointId === undefined) clients.add(task.clientId)
    else named.add(endpointId)
  }
  const found = (yield* runAll([
    ...(clients.size > 0 ? [readEndpointsOfClients({ clients: idRows(clients) })] : []),
    ...(named.size > 0 ? [readNamed({ endpoints: idRows(named) })] : []),
  ])) as unknown as readonly (readonly Endpoint[])[]
  return found.length === 1 ? found[0]! : [...new Map(found.flat().map((endpoint) => [endpoint.id, endpoint])).values()]
}
/** A callback that cannot be read names no endpoint: every subscribed endpoint of the client is owed the event. */
const callbackOf = (callback: Json): Callback => (callback === '{}' ? {} : parseStored(callback, {}))

/** Inserts events in this order, each with its position in the client's feed, and deliveries, which start at once or get their turns. */
function* record(
  events: readonly NewEvent[],
  deliveries: readonly NewDelivery[],
  endpoints: ReadonlyMap<string, Endpoint>,
  facts: readonly TaskFact[],
  slots: LentSlots | null,
): Script<readonly OwedDelivery[]> {
  if (events.length === 0) return []
  const starting = yield* chooseStarting(deliveries, slots)
  yield* addEvents(events, addDeliveries(deliveries, starting, slots))
  if (starting.size === 0) return []
  const bodies = new Map(events.map(({ id, body }) => [id, body]))
  const traces = new Map(facts.map(({ task: { id, traceparent, tracestate } }) => [id, { traceparent, tracestate }]))
  return deliveries
    .filter(({ id }) => starting.has(id))
    .map((made) => ({
      ...running(made, slots!),
      eventBody: bodies.get(made.eventId)!,
      endpoint: endpoints.get(made.endpointId)!,
      ...(traces.get(made.taskId ?? '') ?? NO_TRACE),
    }))
}

const NO_TRACE = { traceparent: null, tracestate: null }

/** Inserts events that are owed only to the named endpoints. */
export function* addEvents(events: readonly NewEvent[], owed: readonly BoundStatement[]): Script<void> {
  if (events.length === 0) return
  const perClient = new Map<string, number>()
  for (const event of events) perClient.set(event.clientId, (perClient.get(event.clientId) ?? 0) + 1)
  const counted = yield* rows<{ id: string; seq: number }>(
    countEvents({ clients: [...perClient].map(([client_id, n]) => ({ client_id, n })) }),
  )
  const next = new Map(counted.map(({ id, seq }) => [id, seq - perClient.get(id)!]))
  const numbered = events.map((event) => {
    const seq = next.get(event.clientId)! + 1
    next.set(event.clientId, seq)
    return newEvent.toRow({ ...event, seq })
  })
  yield* execute([insertEvents({ events: numbered }), ...owed])
}

/** Inserts deliveries of existing events. */
export const addDeliveries = (
  deliveries: readonly NewDelivery[],
  starting: ReadonlySet<string> = new Set(),
  slots: LentSlots | null = null,
): readonly BoundStatement[] =>
  deliveries.length === 0
    ? []
    : [
        insertDeliveries({
          deliveries: deliveries.map((made) => ({
            ...newDelivery.toRow({ ...made, laneId: laneOfNew(made) }),
            start: starting.has(made.id) ? 1 : 0,
          })),
          leaseMs: slots?.leaseMs ?? 0,
          by: slots?.leasedBy ?? '',
        }),
        ...addTurns(
          turnsFor(
            deliveries
              .filter(({ id }) => !starting.has(id))
              .map((d) => ({ queue: DELIVERY_QUEUE, clientId: d.clientId, laneId: laneOfNew(d), line: 0, rank: d.createdAt })),
            0,
          ),
        ),
      ]

/** Deliveries that may start in the commit that creates them: their lane has a free slot and no older work. */
function* chooseStarting(deliveries: readonly NewDelivery[], slots: LentSlots | null): Script<ReadonlySet<string>> {
  if (!slots || slots.count === 0 || deliveries.length === 0) return new Set()
  const wanted = new Map<string, StartDemand>()
  for (const { endpointId, clientId } of deliveries) wanted.set(endpointId, { clientId, count: (wanted.get(endpointId)?.count ?? 0) + 1 })
  const admitted = new Map(yield* admitStarts(wanted, slots, deliveries[0]!.createdAt))
  const starting = new Set<string>()
  for (const { id, endpointId } of deliveries) {
    const left = admitted.get(endpointId) ?? 0
    if (left === 0) continue
    admitted.set(endpointId, left - 1)
    starting.add(id)
  }
  return starting
}

const running = (made: NewDelivery, { leasedBy, leaseMs }: LentSlots): Delivery => ({
  ...made,
  laneId: made.endpointId,
  state: 'running',
  dueAt: made.createdAt,
  tries: 1,
  fence: 1,
  leasedUntil: made.createdAt + leaseMs,
  leasedBy,
  retryAfterAt: null,
  canceledReason: null,
  updatedAt: made.createdAt,
  finishedAt: null,
})

/** Which endpoints are owed an event: the one the task names, otherwise every subscribed endpoint of its client in any status. */
export function subscriptions(
  endpoints: readonly Endpoint[],
): (fact: TaskFact) => readonly { endpoint: Endpoint; callback: Callback; wantsProgress: boolean }[] {
  const known = endpoints.map((endpoint) => ({
    endpoint,
    events: new Set<string>(parseStored(endpoint.events, [...defaultEvents])),
    types: new Set<string>(parseStored(endpoint.taskTypes, ['*'])),
  }))
  const byClient = Map.groupBy(known, ({ endpoint }) => endpoint.clientId)
  return ({ task, type }) => {
    if (task.callback === null) return []
    const callback = callbackOf(task.callback)
    if (callback.events && !callback.events.some((it) => it === type)) return []
    return (byClient.get(task.clientId) ?? [])
      .filter(({ endpoint, events, types }) => {
        if (!events.has(type)) return false
        if (callback.endpointId !== undefined) return endpoint.id === callback.endpointId
        return types.has(task.type) || (types.has('*') && !task.type.startsWith('system.'))
      })
      .map(({ endpoint, events }) => ({ endpoint, callback, wantsProgress: events.has('task.progress') }))
  }
}
