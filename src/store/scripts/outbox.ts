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
  type Trigger,
} from '../../core/model.ts'
import { parseStored, sanitizeStored } from '../../core/stored-json.ts'
import { cloudEventJson, envelopeJson, taskDocumentJson } from '../../core/wire.ts'
import { endpointColumns } from '../columns.ts'
import type { OwedDelivery } from '../interfaces.ts'
import { admitStarts, type LentSlots, type StartDemand } from '../queue/claim.ts'
import { addTurns, turnsFor } from '../queue/run-queue.ts'
import { type BoundStatement, bind, execute, type RecordColumns, rows, runAll, type Script, sql, statement } from '../script.ts'

/** What rendering needs beside the rows. */
export interface RenderContext {
  readonly publicUrl: () => string
  /** The installation's delays before each retry, in seconds. */
  readonly retrySchedule: readonly number[]
  readonly newId: (prefix: 'task' | 'event' | 'delivery') => string
  /** 43 characters that nobody can guess. */
  readonly newChallenge: () => string
  /** Called for rows that something else has corrupted. */
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
    where client_id ${d.anyOf(sql`select v.id from ${d.records('clients', { id: 'text' })} v`)} and deleted_at is null`,
)
/** The endpoints that tasks name, without reading the client's others. */
const readNamed = statement(
  (d) => sql`select ${endpointColumns} from endpoints where id ${d.anyOf(sql`select v.id from ${d.records('endpoints', { id: 'text' })} v`)}
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
const EVENT: RecordColumns = {
  id: 'text',
  client_id: 'text',
  task_id: 'text',
  endpoint_id: 'text',
  type: 'text',
  terminal: 'int8',
  generation: 'int8',
  revision: 'int8',
  seq: 'int8',
  body: 'text',
  created_at: 'int8',
}
const eventNames = sql.raw(Object.keys(EVENT).join(', '))
const insertEvents = statement((d) => sql`insert into events (${eventNames}) select ${eventNames} from ${d.records('events', EVENT)} v`)
/** The lane of a delivery: that of its endpoint. A verification has a lane of its own, because everything else is held until it passes. */
export const deliveryLaneOf = (endpointId: string, type: EventType): string =>
  type === 'endpoint.verification' ? `${endpointId}/verify` : endpointId
const laneOfNew = ({ endpoint_id, event_type }: NewDelivery): string => deliveryLaneOf(endpoint_id, event_type)

const DELIVERY: RecordColumns = {
  id: 'text',
  lane_id: 'text',
  client_id: 'text',
  endpoint_id: 'text',
  event_id: 'text',
  event_type: 'text',
  task_id: 'text',
  url: 'text',
  body: 'text',
  retry_schedule: 'text',
  trigger: 'text',
  max_tries: 'int8',
  created_at: 'int8',
  start: 'int8',
}
const deliveryNames = sql.raw(
  Object.keys(DELIVERY)
    .filter((name) => name !== 'start')
    .join(', '),
)
const insertDeliveries = statement(
  (d) => sql`insert into deliveries (${deliveryNames}, state, line, rank, due_at, tries, fence, updated_at, leased_until, leased_by)
    select ${deliveryNames}, case when start = 1 then 'running' else 'pending' end, 0, created_at, created_at, start, start, created_at,
      case when start = 1 then ${d.now} + ${bind('leaseMs')} end, case when start = 1 then ${d.name === 'postgres' ? sql`${bind('by')}::text` : bind('by')} end
    from ${d.records('deliveries', DELIVERY)} v`,
)

/** A delivery to insert. Its body is null when it is the event's own. */
export interface NewDelivery {
  readonly id: string
  readonly client_id: string
  readonly endpoint_id: string
  readonly event_id: string
  readonly event_type: EventType
  readonly task_id: string | null
  readonly url: string | null
  readonly body: string | null
  readonly retry_schedule: Json | null
  readonly trigger: Trigger
  readonly max_tries: number
  readonly created_at: Millis
}
export interface NewEvent {
  readonly id: string
  readonly client_id: string
  readonly task_id: string | null
  readonly endpoint_id: string | null
  readonly type: EventType
  readonly terminal: 0 | 1
  readonly generation: number
  readonly revision: number
  readonly body: string
  readonly created_at: Millis
}

/**
 * Records events and the deliveries they owe. An event that is not terminal is recorded only when an endpoint subscribes to it. Returns the
 * deliveries that start at once in lent slots.
 */
export function* emit(facts: readonly TaskFact[], view: RenderContext, slots: LentSlots | null = null): Script<readonly OwedDelivery[]> {
  if (facts.length === 0) return []
  const listeners = yield* readSubscribers(facts)
  const judge = subscriptions(listeners)
  const events: NewEvent[] = []
  const deliveries: NewDelivery[] = []
  const newer: { task_id: string; endpoint_id: string }[] = []
  for (const fact of facts) {
    const owed = judge(fact)
    const terminal = isTerminal(fact.task.state)
    if (!terminal && owed.length === 0) continue
    const id = view.newId('event')
    const event = { id, type: fact.type, at: fact.at }
    const context = { publicUrl: view.publicUrl(), callbackStatus: null, retentionMs: view.retentionMs(fact.task.type) }
    const task = sanitizeStored(fact.task)
    if (task !== fact.task) view.onCorruption(`Task ${task.id} holds what is not JSON: its events are written without it.`)
    const full = taskDocumentJson(task, context)
    events.push({
      id,
      client_id: fact.task.clientId,
      task_id: fact.task.id,
      endpoint_id: null,
      type: fact.type,
      terminal: terminal ? 1 : 0,
      generation: fact.task.generation,
      revision: fact.task.revision,
      body: envelopeJson(event, full),
      created_at: fact.at,
    })
    for (const { endpoint: listener, callback, wantsProgress } of owed) {
      if (wantsProgress && fact.type !== 'task.created') newer.push({ task_id: fact.task.id, endpoint_id: listener.id })
      const data = listener.payload === 'thin' ? taskDocumentJson(task, { ...context, thin: true }) : full
      const { id: subject, revision: sequence, traceparent, tracestate } = fact.task
      const source = { source: context.publicUrl, subject, sequence, traceparent, tracestate }
      const schedule = callback.retrySchedule ? JSON.stringify(callback.retrySchedule) : listener.retrySchedule
      deliveries.push({
        id: view.newId('delivery'),
        client_id: fact.task.clientId,
        endpoint_id: listener.id,
        event_id: id,
        event_type: fact.type,
        task_id: fact.task.id,
        url: callback.url ?? null,
        body:
          listener.format === 'cloudevents'
            ? cloudEventJson({ ...event, ...source }, data)
            : listener.payload === 'thin'
              ? envelopeJson(event, data)
              : null,
        retry_schedule: schedule,
        trigger: 'event',
        max_tries: maxTriesOf(fact.type, schedule, view),
        created_at: fact.at,
      })
    }
  }
  if (newer.length > 0) yield* execute([supersede({ newer })])
  return yield* record(events, deliveries, new Map(listeners.map((listener) => [listener.id, listener])), facts, slots)
}

/** One attempt only: a newer progress report follows anyway, and a ping asks how the endpoint is now. */
const ONCE: ReadonlySet<EventType> = new Set(['task.progress', 'endpoint.ping'])
/** All tries of a delivery of such an event. */
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
  const ids = (of: ReadonlySet<string>) => [...of].map((id) => ({ id }))
  const found = (yield* runAll([
    ...(clients.size > 0 ? [readEndpointsOfClients({ clients: ids(clients) })] : []),
    ...(named.size > 0 ? [readNamed({ endpoints: ids(named) })] : []),
  ])) as unknown as readonly (readonly Endpoint[])[]
  return found.length === 1 ? found[0]! : [...new Map(found.flat().map((listener) => [listener.id, listener])).values()]
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
      eventBody: bodies.get(made.event_id)!,
      endpoint: endpoints.get(made.endpoint_id)!,
      ...(traces.get(made.task_id ?? '') ?? NO_TRACE),
    }))
}

const NO_TRACE = { traceparent: null, tracestate: null }

/** Inserts events that are owed only to the named endpoints. */
export function* addEvents(events: readonly NewEvent[], owed: readonly BoundStatement[]): Script<void> {
  if (events.length === 0) return
  const perClient = new Map<string, number>()
  for (const event of events) perClient.set(event.client_id, (perClient.get(event.client_id) ?? 0) + 1)
  const counted = yield* rows<{ id: string; seq: number }>(
    countEvents({ clients: [...perClient].map(([client_id, n]) => ({ client_id, n })) }),
  )
  const next = new Map(counted.map(({ id, seq }) => [id, seq - perClient.get(id)!]))
  const numbered = events.map((event) => {
    const seq = next.get(event.client_id)! + 1
    next.set(event.client_id, seq)
    return { ...event, seq }
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
          deliveries: deliveries.map((made) => ({ ...made, lane_id: laneOfNew(made), start: starting.has(made.id) ? 1 : 0 })),
          leaseMs: slots?.leaseMs ?? 0,
          by: slots?.leasedBy ?? '',
        }),
        ...addTurns(
          turnsFor(
            deliveries
              .filter(({ id }) => !starting.has(id))
              .map((d) => ({ queue: 'delivery', clientId: d.client_id, laneId: laneOfNew(d), line: 0, rank: d.created_at })),
            0,
          ),
        ),
      ]

/** Deliveries that may start in the commit that creates them: their lane has a free slot and no older work. */
function* chooseStarting(deliveries: readonly NewDelivery[], slots: LentSlots | null): Script<ReadonlySet<string>> {
  if (!slots || slots.count === 0 || deliveries.length === 0) return new Set()
  const wanted = new Map<string, StartDemand>()
  for (const { endpoint_id, client_id } of deliveries)
    wanted.set(endpoint_id, { clientId: client_id, count: (wanted.get(endpoint_id)?.count ?? 0) + 1 })
  const admitted = new Map(yield* admitStarts(wanted, slots, deliveries[0]!.created_at))
  const starting = new Set<string>()
  for (const { id, endpoint_id } of deliveries) {
    const left = admitted.get(endpoint_id) ?? 0
    if (left === 0) continue
    admitted.set(endpoint_id, left - 1)
    starting.add(id)
  }
  return starting
}

const running = (made: NewDelivery, { leasedBy: by, leaseMs }: LentSlots): Delivery => ({
  id: made.id,
  clientId: made.client_id,
  laneId: made.endpoint_id,
  state: 'running',
  dueAt: made.created_at,
  tries: 1,
  maxTries: made.max_tries,
  fence: 1,
  leasedUntil: made.created_at + leaseMs,
  leasedBy: by,
  eventId: made.event_id,
  eventType: made.event_type,
  taskId: made.task_id,
  endpointId: made.endpoint_id,
  url: made.url,
  body: made.body,
  retrySchedule: made.retry_schedule,
  trigger: made.trigger,
  retryAfterAt: null,
  canceledReason: null,
  createdAt: made.created_at,
  updatedAt: made.created_at,
  finishedAt: null,
})

/** Which endpoints are owed an event: the one the task names, otherwise every subscribed endpoint of its client, whatever its status. */
export function subscriptions(
  listeners: readonly Endpoint[],
): (fact: TaskFact) => readonly { endpoint: Endpoint; callback: Callback; wantsProgress: boolean }[] {
  const byClient = new Map<string, { listener: Endpoint; events: ReadonlySet<string>; types: ReadonlySet<string> }[]>()
  for (const listener of listeners) {
    const known = {
      listener,
      events: new Set<string>(parseStored(listener.events, [...defaultEvents])),
      types: new Set<string>(parseStored(listener.taskTypes, ['*'])),
    }
    const own = byClient.get(listener.clientId)
    if (own) own.push(known)
    else byClient.set(listener.clientId, [known])
  }
  return ({ task, type }) => {
    if (task.callback === null) return []
    const callback = callbackOf(task.callback)
    if (callback.events && !callback.events.some((it) => it === type)) return []
    return (byClient.get(task.clientId) ?? [])
      .filter(({ listener, events, types }) => {
        if (!events.has(type)) return false
        if (callback.endpointId !== undefined) return listener.id === callback.endpointId
        return types.has(task.type) || (types.has('*') && !task.type.startsWith('system.'))
      })
      .map(({ listener, events }) => ({ endpoint: listener, callback, wantsProgress: events.has('task.progress') }))
  }
}
