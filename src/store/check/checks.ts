/**
 * What holds for tasks, their events and the deliveries these owe, looked at page by page in the order of keys. Each page is one consistent
 * look, and every rule can be judged within it, so that servers may go on meanwhile.
 */

import {
  type CanceledReason,
  type Endpoint,
  type EventType,
  isTerminal,
  type Json,
  type Millis,
  type State,
  type Task,
  type Trigger,
  type WorkKind,
} from '../../core/model.ts'
import { isJson } from '../../core/stored-json.ts'
import { bind, type Dialect, now, rows, runAll, type Script, type SQL, sql, statement } from '../script.ts'
import { readEndpointsOfClients, subscriptions, terminalFact } from '../scripts/outbox.ts'
import { taskLaneOf } from '../scripts/tasks.ts'

/** What an audit proves, each in a sentence. */
export const checks = {
  endings: 'Every generation that ended has exactly one terminal event, and no task that lives has one.',
  bodies: 'The body of every event is JSON and says what its task says.',
  rows: 'Every task and delivery is what its state says: lease, tries, result, reason.',
  leases: 'No lease has ended long ago while somebody was there to take the work back.',
  owed: 'What is owed to an endpoint has its delivery, and every delivery its event and endpoint.',
  attempts: 'Deliveries that ended have an attempt that says so, and every try is on record.',
  feeds: 'The feed of every client counts without gaps, but for what has aged out.',
  lanes: 'Every lane that has something to do has its turn, and holds and limits are what its endpoint says.',
  traces: 'Labels, attempts, idempotency keys and tombstones belong to what is there, or was.',
} as const
export type CheckName = keyof typeof checks
export interface Violation {
  readonly check: CheckName
  /** With the ids of everything it is about. */
  readonly sentence: string
}
export interface CheckPage<Mark> {
  /** Rows looked at. */
  readonly rowsChecked: number
  readonly violations: readonly Violation[]
  /** Where the next portion starts; null: this was the last. */
  readonly next: Mark | null
}

/** Rows of a page. */
const PAGE = 500
/** Characters of texts held at once. */
const MAX_BYTES = 4 * 1024 * 1024
/** An endpoint written by a transaction that was under way when an event was recorded was not seen by it. No transaction lasts so long. */
const SETTLED_MS: Millis = 60_000

export const idsOf = (d: Dialect, name = 'ids'): SQL => sql`select v.id from ${d.records(name, { id: 'text' })} v`
export const idRecords = (ids: Iterable<string | null>): { id: string }[] =>
  [...new Set(ids)].filter((id) => id !== null).map((id) => ({ id }))
export const nextMark = <T, Mark>(found: readonly T[], most: number, mark: (last: T) => Mark): Mark | null =>
  found.length < most ? null : mark(found.at(-1)!)

const readDoomed = statement(() => sql`select id from clients where status = 'deleted'`)
/** Without what belongs to a deleted client: that is erased page by page, and hangs together no more. */
export function* withoutDeletedClients<T extends { readonly clientId: string }>(found: readonly T[]): Script<readonly T[]> {
  const doomed = new Set((yield* rows<{ id: string }>(readDoomed())).map(({ id }) => id))
  return doomed.size === 0 ? found : found.filter(({ clientId }) => !doomed.has(clientId))
}

/** Texts of rows, some megabytes of them at a time. */
function* inChunks(
  sized: readonly { readonly id: string; readonly bytes: number }[],
  read: (values: { ids: { id: string }[] }) => ReturnType<typeof readBodies>,
  see: (id: string, text: string) => void,
): Script<void> {
  for (let from = 0; from < sized.length; ) {
    let to = from
    for (let bytes = 0; to < sized.length && (to === from || bytes + sized[to]!.bytes <= MAX_BYTES); to++) bytes += sized[to]!.bytes
    const ids = sized.slice(from, to).map(({ id }) => ({ id }))
    for (const { id, text } of yield* rows<{ id: string; text: string }>(read({ ids }))) see(id, text)
    from = to
  }
}

/** How long leases may have ended: who looks for them does so within that time. */
export interface LeaseGrace {
  readonly withinMs: Millis
}
/** Somebody who runs tasks was seen not longer ago than this: they say so every 20 s. */
const SEEN_MS: Millis = 60_000
const readSeen = statement(
  (d) => sql`select case when max(worker_seen_at) > ${d.now} - ${sql.raw(String(SEEN_MS))} then 1 else 0 end as served from queues`,
)

interface Leased {
  readonly id: string
  readonly state: State
  readonly tries: number
  readonly maxTries: number
  readonly fence: number
  readonly leasedUntil: Millis | null
  readonly leasedBy: string | null
}
/** What holds for both kinds of leased work. */
function judgeWork(kind: WorkKind, row: Leased, at: Millis, served: boolean, { withinMs }: LeaseGrace): Violation[] {
  const it = `${kind === 'task' ? 'Task' : 'Delivery'} ${row.id}`
  const found: Violation[] = []
  const must = (holds: boolean, check: CheckName, sentence: string): void =>
    void (holds || found.push({ check, sentence: `${it} ${sentence}` }))
  const leased = row.leasedUntil !== null && row.leasedBy !== null
  if (row.state === 'running') {
    must(leased, 'rows', 'is running without a lease.')
    const late = at - (row.leasedUntil ?? at)
    must(!served || late <= withinMs, 'leases', `is running under a lease of ${row.leasedBy} that ended ${Math.round(late / 1000)} s ago.`)
  } else must(row.leasedUntil === null && row.leasedBy === null, 'rows', `is ${row.state} and holds a lease of ${row.leasedBy}.`)
  must(row.tries >= 0 && row.tries <= row.maxTries, 'rows', `counts ${row.tries} tries of ${row.maxTries}.`)
  must(row.fence >= row.tries, 'rows', `counts ${row.tries} tries under ${row.fence} fences.`)
  return found
}

// Tasks.

const readTasks = statement(
  () => sql`select id, client_id as "clientId", lane_id as "laneId", type, concurrency_key as "concurrencyKey", state, generation, revision, tries,
      max_tries as "maxTries", fence, leased_until as "leasedUntil", leased_by as "leasedBy", created_at as "createdAt", updated_at as "updatedAt",
      finished_at as "finishedAt", progress, callback, metadata, octet_length(input) as bytes,
      case when result is null then 0 else 1 end as "hasResult", case when error is null then 0 else 1 end as "hasError"
    from tasks where id > ${bind('after')} order by id limit ${sql.raw(String(PAGE))}`,
)
type CheckedTask = Leased &
  Pick<Task, 'clientId' | 'laneId' | 'type' | 'concurrencyKey' | 'generation' | 'revision' | 'createdAt' | 'finishedAt' | 'progress'> & {
    readonly callback: Json | null
    readonly metadata: Json
    readonly bytes: number
    readonly hasResult: number
    readonly hasError: number
  }
const readInputs = statement((d) => sql`select id, input as text from tasks where id ${d.anyOf(idsOf(d))}`)
const readEndings = statement(
  (d) => sql`select id, task_id as "taskId", client_id as "clientId", type, generation, revision, created_at as "createdAt" from events
    where task_id ${d.anyOf(idsOf(d))} and terminal = 1 order by task_id, generation, id`,
)
interface Ending {
  readonly id: string
  readonly taskId: string
  readonly clientId: string
  readonly type: EventType
  readonly generation: number
  readonly revision: number
  readonly createdAt: Millis
}
const readOwed = statement(
  (d) => sql`select distinct event_id as "eventId", endpoint_id as "endpointId" from deliveries where task_id ${d.anyOf(idsOf(d))}`,
)
const readLabels = statement(
  (d) =>
    sql`select task_id as "taskId", client_id as "clientId", name, value, created_at as "createdAt" from labels where task_id ${d.anyOf(idsOf(d))}`,
)
interface Label {
  readonly taskId: string
  readonly clientId: string
  readonly name: string
  readonly value: string
  readonly createdAt: Millis
}

export interface TaskCheckPage extends CheckPage<string> {
  readonly live: number
  readonly generations: number
  /** Leases that have ended while nobody was there. */
  readonly expiredLeases: number
}
/** Tasks made after the one called `after`, with the events that end them and what these owe. */
export function* checkTasks(after: string, sweeps: LeaseGrace): Script<TaskCheckPage> {
  const at = yield* now()
  const found = yield* rows<CheckedTask>(readTasks({ after }))
  const page = yield* withoutDeletedClients(found)
  if (found.length === 0) return { rowsChecked: 0, live: 0, generations: 0, expiredLeases: 0, violations: [], next: null }
  const ids = page.map(({ id }) => ({ id }))
  const [seen, endings, owed, labels, listeners] = (yield* runAll([
    readSeen(),
    readEndings({ ids }),
    readOwed({ ids }),
    readLabels({ ids }),
    readEndpointsOfClients({ clients: idRecords(page.map(({ clientId }) => clientId)) }),
  ])) as unknown as [{ served: number }[], Ending[], { eventId: string; endpointId: string }[], Label[], Endpoint[]]
  const served = seen[0]!.served === 1
  const endingsOf = Map.groupBy(endings, ({ taskId }) => taskId)
  const labelsOf = Map.groupBy(labels, ({ taskId }) => taskId)
  const judge = expected(listeners, new Set(owed.map(({ eventId, endpointId }) => `${eventId} ${endpointId}`)))
  const violations = page.flatMap((task) => [
    ...judgeWork('task', task, at, served, sweeps),
    ...judgeTask(task),
    ...judgeLabels(task, labelsOf.get(task.id) ?? []),
    ...judgeEndings(task, endingsOf.get(task.id) ?? []),
    ...judge(task, endingsOf.get(task.id) ?? []),
  ])
  // What has ended stands in its event's body, which is looked at too.
  const live = page.filter(({ state }) => !isTerminal(state))
  yield* inChunks(live, readInputs, (id, text) => {
    if (!isJson(text)) violations.push({ check: 'rows', sentence: `The input of task ${id} is not JSON.` })
  })
  const lapsed = page.filter(({ state, leasedUntil }) => !served && state === 'running' && (leasedUntil ?? at) < at).length
  return {
    rowsChecked: found.length,
    live: live.length,
    generations: endings.length,
    expiredLeases: lapsed,
    violations,
    next: nextMark(found, PAGE, ({ id }) => id),
  }
}

function judgeTask(task: CheckedTask): Violation[] {
  const found: Violation[] = []
  const must = (holds: boolean, sentence: string): void =>
    void (holds || found.push({ check: 'rows', sentence: `Task ${task.id} ${sentence}` }))
  const ended = isTerminal(task.state)
  must((task.finishedAt !== null) === ended, `is ${task.state}, and its row says that it ${ended ? 'has not ended' : 'has ended'}.`)
  must((task.hasResult === 1) === (task.state === 'completed'), `is ${task.state} ${task.hasResult ? 'with' : 'without'} a result.`)
  must((task.hasError === 1) === (task.state === 'failed'), `is ${task.state} ${task.hasError ? 'with' : 'without'} an error.`)
  must((task.progress === 100) === (task.state === 'completed'), `is ${task.state} at ${task.progress} percent.`)
  must(task.laneId === taskLaneOf(task), `waits in lane ${task.laneId}, and belongs into ${taskLaneOf(task)}.`)
  must(isJson(task.metadata), 'has metadata that is not JSON.')
  must(task.callback === null || isJson(task.callback), 'has a callback that is not JSON.')
  return found
}

function judgeLabels(task: CheckedTask, labels: readonly Label[]): Violation[] {
  if (!isJson(task.metadata)) return []
  const key = ([name, value]: readonly [string, string]): string => JSON.stringify([name, value])
  const expected = new Set(Object.entries((JSON.parse(task.metadata) ?? {}) as Record<string, string>).map(key))
  const right = labels.filter(
    ({ name, value, clientId, createdAt }) =>
      expected.has(key([name, value])) && clientId === task.clientId && createdAt === task.createdAt,
  )
  if (right.length === labels.length && labels.length === expected.size) return []
  return [
    {
      check: 'traces',
      sentence: `Task ${task.id} has ${expected.size} members of metadata, and ${right.length} of its ${labels.length} labels say so.`,
    },
  ]
}

function judgeEndings(task: CheckedTask, endings: readonly Ending[]): Violation[] {
  const found: Violation[] = []
  const must = (holds: boolean, sentence: string): void =>
    void (holds || found.push({ check: 'endings', sentence: `Task ${task.id} ${sentence}` }))
  const ended = isTerminal(task.state) ? task.generation : task.generation - 1
  const of = Map.groupBy(endings, ({ generation }) => generation)
  for (let generation = 1; generation <= ended; generation++) {
    const events = of.get(generation) ?? []
    must(events.length > 0, `has ended its generation ${generation} without a terminal event.`)
    must(events.length < 2, `has ${events.length} terminal events of generation ${generation}: ${events.map(({ id }) => id).join(', ')}.`)
  }
  for (const { id, generation, type, revision, clientId } of endings) {
    must(
      generation <= ended,
      `is ${task.state} in generation ${task.generation}, and event ${id} says that generation ${generation} has ended.`,
    )
    must(clientId === task.clientId, `belongs to ${task.clientId}, and its event ${id} to ${clientId}.`)
    if (generation === ended && generation === task.generation)
      must(
        type === terminalFact(task as unknown as Task).type && revision === task.revision,
        `is ${task.state} at revision ${task.revision}, and its event ${id} is ${type} at revision ${revision}.`,
      )
    else
      must(
        revision < task.revision || generation > ended,
        `is at revision ${task.revision}, and its event ${id} of a generation before is at ${revision}.`,
      )
  }
  return found
}

/** Who must be owed an ending: endpoints that have not changed since it was recorded say it themselves; of others nobody knows any more. */
function expected(
  listeners: readonly Endpoint[],
  owed: ReadonlySet<string>,
): (task: CheckedTask, endings: readonly Ending[]) => Violation[] {
  const judge = subscriptions(listeners.filter(({ events, taskTypes }) => isJson(events) && isJson(taskTypes)))
  return (task, endings) => {
    if (task.callback === null || !isJson(task.callback)) return []
    return endings.flatMap(({ id, type, createdAt }) =>
      judge({ task: task as unknown as Task, type, at: createdAt })
        .filter(({ endpoint: listener }) => listener.updatedAt < createdAt - SETTLED_MS && !owed.has(`${id} ${listener.id}`))
        .map(
          ({ endpoint: listener }): Violation => ({
            check: 'owed',
            sentence: `Event ${id} of task ${task.id} is owed to endpoint ${listener.id}, and there is no delivery of it.`,
          }),
        ),
    )
  }
}

// Events.

const readEvents = statement(
  () => sql`select id, client_id as "clientId", task_id as "taskId", type, terminal, generation, revision, octet_length(body) as bytes
    from events where id > ${bind('after')} order by id limit ${sql.raw(String(PAGE))}`,
)
interface CheckedEvent {
  readonly id: string
  readonly clientId: string
  readonly taskId: string | null
  readonly type: EventType
  readonly terminal: number
  readonly generation: number
  readonly revision: number
  readonly bytes: number
}
const readBodies = statement((d) => sql`select id, body as text from events where id ${d.anyOf(idsOf(d))}`)
const readTaskIds = statement((d) => sql`select id, client_id as "clientId" from tasks where id ${d.anyOf(idsOf(d))}`)
const readTombstones = statement((d) => sql`select id from tombstones where id ${d.anyOf(idsOf(d))}`)

/** Which of these tasks are there, and which were erased not long ago. */
export function* findTaskFates(
  ids: Iterable<string | null>,
): Script<{ readonly existing: ReadonlyMap<string, string>; readonly erased: ReadonlySet<string> }> {
  const asked = idRecords(ids)
  const [there, erased] = (yield* runAll([readTaskIds({ ids: asked }), readTombstones({ ids: asked })])) as unknown as [
    { id: string; clientId: string }[],
    { id: string }[],
  ]
  return { existing: new Map(there.map(({ id, clientId }) => [id, clientId])), erased: new Set(erased.map(({ id }) => id)) }
}

const ENDS: ReadonlyMap<EventType, State> = new Map([
  ['task.completed', 'completed'],
  ['task.failed', 'failed'],
  ['task.canceled', 'canceled'],
])
/** Events made after the one called `after`, with their bytes. */
export function* checkEvents(after: string): Script<CheckPage<string>> {
  const found = yield* rows<CheckedEvent>(readEvents({ after }))
  const page = yield* withoutDeletedClients(found)
  const { existing: there, erased } = yield* findTaskFates(page.map(({ taskId }) => taskId))
  const violations: Violation[] = []
  const must = (holds: boolean, check: CheckName, sentence: string): void => void (holds || violations.push({ check, sentence }))
  for (const { id, type, terminal, taskId, clientId } of page) {
    must(
      (terminal === 1) === ENDS.has(type),
      'endings',
      `Event ${id} is ${type} and is ${terminal === 1 ? '' : 'not '}marked as an ending.`,
    )
    if (taskId === null) continue
    must(there.has(taskId) || erased.has(taskId), 'traces', `Event ${id} tells of task ${taskId}, which is not there and was not erased.`)
    const owner = there.get(taskId) ?? clientId
    must(owner === clientId, 'endings', `Event ${id} belongs to ${clientId}, and its task ${taskId} to ${owner}.`)
  }
  const byId = new Map(page.map((event) => [event.id, event]))
  yield* inChunks(page, readBodies, (id, text) => {
    const event = byId.get(id)!
    // Erased with its task.
    if (text === '' && event.taskId !== null && !there.has(event.taskId)) return
    const wrong = disagreement(event, text)
    must(wrong === null, 'bodies', `The body of event ${id} ${wrong}.`)
  })
  return { rowsChecked: found.length, violations, next: nextMark(found, PAGE, ({ id }) => id) }
}
function disagreement(event: CheckedEvent, text: string): string | null {
  if (!isJson(text)) return text === '' ? 'is gone' : 'is not JSON'
  const body = JSON.parse(text)
  const said = [body?.id, body?.type]
  const meant: unknown[] = [event.id, event.type]
  if (event.taskId !== null) {
    said.push(body?.data?.id, body?.data?.generation, body?.data?.revision)
    meant.push(event.taskId, event.generation, event.revision)
    if (event.terminal === 1) {
      said.push(body?.data?.status)
      meant.push(ENDS.get(event.type))
    }
  }
  return JSON.stringify(said) === JSON.stringify(meant) ? null : `says ${JSON.stringify(said)} where its row says ${JSON.stringify(meant)}`
}

// Deliveries.

const readDeliveries = statement(
  () => sql`select id, client_id as "clientId", lane_id as "laneId", state, tries, max_tries as "maxTries", fence, leased_until as "leasedUntil",
      leased_by as "leasedBy", event_id as "eventId", event_type as "eventType", task_id as "taskId", endpoint_id as "endpointId", trigger,
      canceled_reason as "canceledReason", created_at as "createdAt", due_at as "dueAt", retry_after_at as "retryAfterAt", finished_at as "finishedAt"
    from deliveries where id > ${bind('after')} order by id limit ${sql.raw(String(PAGE))}`,
)
type CheckedDelivery = Leased & {
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

/** Why an open delivery is open, as far as it says so itself. */
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
/** Deliveries made after the one called `after`, with their attempts. */
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
  // What is in flight has no attempt yet; what was canceled in flight may never get one. What was given back has one and no try.
  const inFlight = state === 'running' || state === 'canceled' ? 1 : 0
  const sent = attempts.filter(({ outcome }) => outcome !== 'expired').length
  must(sent >= tries - inFlight, `counts ${tries} tries, and has ${sent} attempts.`)
  return found
}
