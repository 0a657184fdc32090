/** Reads: lists by keyset, the feed, states of callbacks. The SQL depends on the filters, so it is rendered at each call. */
import type { CallbackStatus } from '../../core/documents.ts'
import { type Delivery, type Endpoint, type Event, type EventType, isTerminal, type State, type Task } from '../../core/model.ts'
import { deliveryColumns, endpointColumns, eventColumns, taskColumns } from '../columns.ts'
import type { DeliveryQuery, LaneState, OpenTaskCursor, Page, Position, TaskHolds, TaskListQuery } from '../interfaces.ts'
import { countRunningByType } from '../queue/claim.ts'
import { FOREVER } from '../queue/fair-order.ts'
import { type QueueRow, readQueues, toQueueState, typeOf } from '../queue/task-types.ts'
import { bind, type Dialect, first, query, rows, runAll, type Script, type SQL, sql, statement } from '../script.ts'
import { all, idRows, ids, isAfter, isIn, toPage } from './shared.ts'

/** Rows a filtered page reads before it ends early. */
const MAX_SCANNED = 10_000
/** Characters of inputs and results in one page before it ends early. */
const MAX_CHARACTERS = 4 * 1024 * 1024

/**
 * Ids and creation times of tasks in order, from what an index serves: client, time, batch or one metadata member. The scan is limited before it is
 * filtered, so that its end is known even if nothing matches.
 */
export function scanTasks(q: Omit<TaskListQuery, 'limit' | 'states' | 'type'>, max: number): SQL {
  const direction = sql.raw(q.order)
  const beyond = sql.raw(q.order === 'asc' ? '>' : '<')
  const within = (table: SQL, id: SQL, owner = sql`${table}.client_id`): SQL[] => {
    const place: SQL[] = []
    if (q.clientId !== null) place.push(sql`${owner} = ${q.clientId}`)
    if (q.createdAfter !== undefined) place.push(sql`${table}.created_at > ${q.createdAfter}`)
    if (q.createdBefore !== undefined) place.push(sql`${table}.created_at < ${q.createdBefore}`)
    if (q.after) place.push(sql`(${table}.created_at, ${id}) ${beyond} (${q.after.at}, ${q.after.id})`)
    return place
  }
  if (q.metadata)
    return sql`select l.task_id as id, l.created_at from labels l where l.name = ${q.metadata.key} and l.value = ${q.metadata.value}
      and ${all(within(sql`l`, sql`l.task_id`))} order by l.created_at ${direction}, l.task_id ${direction} limit ${max}`
  const ordered = sql`order by t.created_at ${direction}, t.id ${direction} limit ${max}`
  if (q.batchId === undefined) return sql`select t.id, t.created_at from tasks t where ${all(within(sql`t`, sql`t.id`))} ${ordered}`
  // A batch has an index of its own, which must be used.
  return sql`select t.id, t.created_at from tasks t where t.batch_id = ${q.batchId} and ${all(within(sql`t`, sql`t.id`, sql`t.client_id || ''`))} ${ordered}`
}

/**
 * Whether a scanned row matches, looked up by its id. Not a join: with stale statistics PostgreSQL compares each scanned row with ten thousand
 * others.
 */
const each = (table: 'tasks' | 'deliveries', filters: readonly SQL[]): SQL =>
  sql`(select 1 from ${sql.raw(table)} x where ${all([sql`x.id = s.id`, ...filters])}) = 1`

/** Tasks of a client by creation time. A page may end early; `next` is where to continue. */
export function* listTasks(q: TaskListQuery): Script<Page<Task>> {
  const direction = sql.raw(q.order)
  const filters: SQL[] = []
  if (q.states) filters.push(isIn(sql`x.state`, q.states))
  if (q.type !== undefined) filters.push(sql`x.type = ${q.type}`)
  if (q.batchId !== undefined) filters.push(sql`x.batch_id = ${q.batchId}`)
  const scanned = scanTasks(q, MAX_SCANNED)
  const found = yield* rows<Task>(
    query(
      () => sql`with scanned as (${scanned}), fitting as materialized (
          select s.id from scanned s where ${each('tasks', filters)}
          order by s.created_at ${direction}, s.id ${direction} limit ${q.limit + 1})
        select ${taskColumns} from tasks where id in (select id from fitting)
        order by created_at ${direction}, id ${direction}`,
    ),
  )
  let characters = 0
  let fitting = 0
  for (const task of found) {
    characters += Math.min(task.input.length, 65_536) + Math.min(task.result?.length ?? 0, 65_536)
    if (fitting > 0 && characters > MAX_CHARACTERS) break
    fitting++
  }
  if (fitting < found.length && fitting < q.limit) return toPage(found, fitting)
  if (found.length > q.limit || filters.length === 0) return toPage(found, q.limit)
  const back = sql.raw(q.order === 'asc' ? 'desc' : 'asc')
  const end = yield* first<Position & { n: number }>(
    query(
      () => sql`with scanned as (${scanned}) select s.id as id, s.created_at as at, (select count(*) from scanned) as n from scanned s
        order by s.created_at ${back}, s.id ${back} limit 1`,
    ),
  )
  return { items: found, next: end && end.n === MAX_SCANNED ? { at: end.at, id: end.id } : null }
}

/** Newest first. A page may end early; `next` is where to continue. */
export function* listDeliveries(q: DeliveryQuery): Script<Page<Delivery>> {
  const place: SQL[] = []
  // The deliveries of an endpoint, and those of a task, have indexes of their own, which must be used.
  const narrow = q.endpointId !== undefined || q.taskId !== undefined
  if (q.clientId !== null) place.push(narrow ? sql`client_id || '' = ${q.clientId}` : sql`client_id = ${q.clientId}`)
  if (q.endpointId !== undefined) place.push(sql`endpoint_id = ${q.endpointId}`)
  if (q.taskId !== undefined) place.push(sql`task_id = ${q.taskId}`)
  if (q.since !== undefined) place.push(sql`created_at >= ${q.since}`)
  if (q.until !== undefined) place.push(sql`created_at < ${q.until}`)
  if (q.after) place.push(sql`(created_at, id) < (${q.after.at}, ${q.after.id})`)
  const wanted: SQL[] = []
  if (q.eventType !== undefined) wanted.push(sql`x.event_type = ${q.eventType}`)
  if (q.states) wanted.push(isIn(sql`x.state`, q.states))
  const max = wanted.length === 0 ? q.limit + 1 : MAX_SCANNED
  const found = yield* rows<Delivery>(
    query(
      () => sql`with scanned as (select id, created_at from deliveries where ${all(place)} order by created_at desc, id desc limit ${max}), fitting as materialized (
          select s.id from scanned s where ${each('deliveries', wanted)}
          order by s.created_at desc, s.id desc limit ${q.limit + 1})
        select ${deliveryColumns} from deliveries where id in (select id from fitting)
        order by created_at desc, id desc`,
    ),
  )
  if (wanted.length === 0 || found.length > q.limit) return toPage(found, q.limit)
  const next = yield* first<Position>(
    query(
      () => sql`select created_at as at, id from deliveries where ${all(place)} order by created_at desc, id desc
        limit 1 offset ${MAX_SCANNED - 1}`,
    ),
  )
  return { items: found, next }
}

export function* listEndpoints(clientId: string | null, limit: number, after: Position | null): Script<Page<Endpoint>> {
  const filters = [sql`deleted_at is null`]
  if (clientId !== null) filters.push(sql`client_id = ${clientId}`)
  if (after) filters.push(isAfter(after))
  const found = yield* rows<Endpoint>(
    query(() => sql`select ${endpointColumns} from endpoints where ${all(filters)} order by created_at, id limit ${limit + 1}`),
  )
  return toPage(found, limit)
}

/** Events in the order they were recorded. `after` is a position in the client's feed. */
export function* listEvents(q: {
  clientId: string | null
  taskId?: string
  types?: readonly EventType[]
  after: number
  upTo?: number
  limit: number
}): Script<readonly Event[]> {
  const filters = [sql`seq > ${q.after}`, sql`body <> ''`]
  if (q.upTo !== undefined) filters.push(sql`seq <= ${q.upTo}`)
  // The events of one task come from the two indexes by task: any other plan reads the whole feed of the client.
  if (q.clientId !== null) filters.push(q.taskId === undefined ? sql`client_id = ${q.clientId}` : sql`client_id || '' = ${q.clientId}`)
  if (q.taskId !== undefined)
    filters.push(sql`id in (select e.id from events e where e.task_id = ${q.taskId} and e.terminal = 1
      union all select e.id from events e where e.task_id = ${q.taskId} and e.terminal = 0)`)
  if (q.types) filters.push(isIn(sql`type`, q.types))
  return yield* rows<Event>(
    query(() => sql`select ${eventColumns} from events where ${all(filters)} order by client_id, seq limit ${q.limit}`),
  )
}
const readReach = statement(
  () =>
    sql`select seq from events where client_id = ${bind('clientId')} and seq > ${bind('after')} order by seq limit 1 offset ${sql.raw(String(MAX_SCANNED - 1))}`,
)
/** The last position that one filtered read of a feed reaches; null: it reaches the end of the feed. */
export function* findFeedScanEnd(clientId: string, after: number): Script<number | null> {
  return (yield* first<{ seq: number }>(readReach({ clientId, after })))?.seq ?? null
}
const readSeq = statement(() => sql`select seq from events where id = ${bind('id')} and (client_id = ${bind('clientId')})`)
/** The position of an event in its client's feed; null: there is no such event. */
export function* findEventSeq(id: string, clientId: string): Script<number | null> {
  return (yield* first<{ seq: number }>(readSeq({ id, clientId })))?.seq ?? null
}

const readCallbacks = statement(
  (d: Dialect) => sql`select w.task_id as "taskId", w.state as state from ${d.records('tasks', { id: 'text', generation: 'int8' })} v
    ${d.join('events', 'e', sql`e.task_id = v.id and e.generation = v.generation and e.terminal = 1`)}
    ${d.join('deliveries', 'w', sql`w.task_id = v.id and w.event_id = e.id`)}`,
)
/** Over the deliveries of each task's terminal event. */
export function* callbackStatuses(tasks: readonly Task[]): Script<ReadonlyMap<string, CallbackStatus>> {
  const statuses = new Map<string, CallbackStatus>()
  const ended: Task[] = []
  for (const task of tasks) {
    if (task.callback === null) statuses.set(task.id, 'none')
    else if (isTerminal(task.state)) ended.push(task)
    else statuses.set(task.id, 'pending')
  }
  if (ended.length === 0) return statuses
  const found = yield* rows<{ taskId: string; state: State }>(
    readCallbacks({ tasks: ended.map(({ id, generation }) => ({ id, generation })) }),
  )
  const states = Map.groupBy(found, ({ taskId }) => taskId)
  for (const { id } of ended) {
    const has = (...some: State[]) => states.get(id)?.some(({ state }) => some.includes(state))
    statuses.set(id, has('pending', 'running') ? 'pending' : has('failed') ? 'failed' : has('completed') ? 'delivered' : 'none')
  }
  return statuses
}

/** Rows one page of a count reads, in some milliseconds. */
const PORTION = 10_000
const behindMark = sql`state = 'pending' and (lane_id, line, rank, id) > (${bind('laneId')}, ${bind('line')}, ${bind('rank')}, ${bind('id')})`
/** The lanes of a client are adjacent: the character after `/` is `0`. */
const beforeEnd = sql`lane_id < ${bind('end')}`
const counting = (pending: SQL, running: SQL) => ({
  readMark: statement(
    () => sql`select lane_id as "laneId", line as line, rank as rank, id as id from tasks where ${pending}
      order by lane_id, line, rank, id limit 1 offset ${sql.raw(String(PORTION - 1))}`,
  ),
  countPending: statement(() => sql`select count(*) as n from tasks where ${pending}`),
  countRunning: statement(() => sql`select count(*) as n from tasks where state = 'running' and ${running}`),
})
const ofAll = counting(behindMark, sql`true`)
const ofClient = counting(sql`${behindMark} and ${beforeEnd}`, sql`lane_id >= ${bind('begin')} and ${beforeEnd}`)
const BEGINNING = { line: 0, rank: -FOREVER, id: '' }
/** One page of a count of open tasks, of a client or of all. The running ones are in the last page. */
export function* countOpenTasks(
  after: OpenTaskCursor | null,
  clientId: string | null,
): Script<{ readonly n: number; readonly next: OpenTaskCursor | null }> {
  const { readMark, countPending, countRunning } = clientId === null ? ofAll : ofClient
  const [begin, end] = clientId === null ? ['', ''] : [`${clientId}/`, `${clientId}0`]
  const { laneId, line, rank, id } = after ?? { laneId: begin, ...BEGINNING }
  const place = { laneId, line, rank, id, begin, end }
  const next = yield* first<OpenTaskCursor>(readMark(place))
  if (next) return { n: PORTION, next }
  const [pending, running] = yield* runAll([countPending(place), countRunning(place)])
  return { n: [pending, running].reduce((sum, found) => sum + (found as { n: number }[])[0]!.n, 0), next: null }
}

const readLanes = statement(
  (d) => sql`select id, held_until as "heldUntil", probe_ms as "probeMs", filled, paced_at + pace_ms as "pacedUntil" from lanes
    where id ${d.anyOf(ids(d, 'lanes'))}`,
)
export function* findLanes(of: readonly string[]): Script<readonly LaneState[]> {
  const found = yield* rows<Omit<LaneState, 'filled'> & { filled: number }>(readLanes({ lanes: idRows(of) }))
  return found.map((lane) => ({ ...lane, filled: lane.filled === 1 }))
}

/** What may keep these tasks from starting, in one read: paused types, full lanes, and how many run of each type. */
export function* findTaskHolds(tasks: readonly Pick<Task, 'type' | 'laneId'>[]): Script<TaskHolds> {
  const lanes = idRows(tasks.map(({ laneId }) => laneId))
  const [rules, queues, running] = yield* runAll([readLanes({ lanes }), readQueues(), countRunningByType()])
  return {
    queues: new Map((queues as unknown as QueueRow[]).map((row) => [typeOf(row.id), toQueueState(row)])),
    filled: new Set((rules as unknown as { id: string; filled: number }[]).filter(({ filled }) => filled === 1).map(({ id }) => id)),
    running: new Map((running as unknown as { id: string; n: number }[]).map(({ id, n }) => [typeOf(id), n])),
  }
}
