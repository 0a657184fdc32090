/** Reads: lists by keyset, the feed, states of callbacks. The SQL depends on the filters, so it is rendered at each call. */
import type { CallbackStatus } from '../../core/documents.ts'
import { type Delivery, type Endpoint, type Event, type EventType, isTerminal, type Task } from '../../core/model.ts'
import { deliveryColumns, endpointColumns, eventColumns, taskColumns } from '../columns.ts'
import type { DeliveryQuery, LaneState, OpenTaskCursor, Page, Position, TaskHolds, TaskListQuery } from '../interfaces.ts'
import { countRunningByType } from '../queue/claim.ts'
import { FOREVER } from '../queue/fair-order.ts'
import { type QueueRow, readQueues, toQueueState, typeOf } from '../queue/task-types.ts'
import { bind, type Dialect, first, query, rows, runAll, type Script, type SQL, sql, statement } from '../script.ts'

const every = (conditions: readonly SQL[]): SQL => (conditions.length === 0 ? sql`true` : sql.join([...conditions], sql` and `))

/** One row more than the limit shows whether there is a next page. */
function page<T>(found: readonly T[], limit: number, position: (item: T) => Position): Page<T> {
  const items = found.slice(0, limit)
  const last = items.at(-1)
  return { items, next: found.length > limit && last !== undefined ? position(last) : null }
}
const at = (item: { createdAt: number; id: string }): Position => ({ at: item.createdAt, id: item.id })

/** Rows a filtered page reads before it ends early. */
const MAX_SCANNED = 10_000
/** Characters of inputs and results in one page before it ends early. */
const MAX_CHARACTERS = 4 * 1024 * 1024

export const isIn = (column: SQL, values: readonly string[]): SQL =>
  sql`${column} in (${sql.join(
    values.map((value) => sql`${value}`),
    sql`, `,
  )})`

/**
 * Ids and creation times of tasks in order, from what an index serves: client, time, batch or one metadata member. The scan is limited before it is
 * filtered, so that its end is known even if nothing matches.
 */
export function scanTasks(q: Omit<TaskListQuery, 'limit' | 'states' | 'type'>, most: number): SQL {
  const direction = q.order === 'asc' ? sql.raw('asc') : sql.raw('desc')
  const beyond = q.order === 'asc' ? sql.raw('>') : sql.raw('<')
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
      and ${every(within(sql`l`, sql`l.task_id`))} order by l.created_at ${direction}, l.task_id ${direction} limit ${most}`
  const ordered = sql`order by t.created_at ${direction}, t.id ${direction} limit ${most}`
  if (q.batchId === undefined) return sql`select t.id, t.created_at from tasks t where ${every(within(sql`t`, sql`t.id`))} ${ordered}`
  // A batch has an index of its own, which must be used.
  return sql`select t.id, t.created_at from tasks t where t.batch_id = ${q.batchId} and ${every(within(sql`t`, sql`t.id`, sql`t.client_id || ''`))} ${ordered}`
}

/**
 * Whether a scanned row matches, looked up by its id. Not a join: with stale statistics PostgreSQL compares each scanned row with ten thousand
 * others.
 */
const each = (table: 'tasks' | 'deliveries', filters: readonly SQL[]): SQL =>
  sql`(select 1 from ${sql.raw(table)} x where ${every([sql`x.id = s.id`, ...filters])}) = 1`

/** Tasks of a client by creation time. A page may end early; its `next` says where to continue. */
export function* listTasks(q: TaskListQuery): Script<Page<Task>> {
  const direction = q.order === 'asc' ? sql.raw('asc') : sql.raw('desc')
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
  if (fitting < found.length && fitting < q.limit) return page(found, fitting, at)
  if (found.length > q.limit || filters.length === 0) return page(found, q.limit, at)
  const end = yield* first<{ id: string; at: number; n: number }>(
    query(
      () => sql`with scanned as (${scanned}) select s.id as id, s.created_at as at, (select count(*) from scanned) as n from scanned s
        order by s.created_at ${q.order === 'asc' ? sql.raw('desc') : sql.raw('asc')}, s.id ${q.order === 'asc' ? sql.raw('desc') : sql.raw('asc')} limit 1`,
    ),
  )
  return { items: found, next: end && end.n === MAX_SCANNED ? { at: end.at, id: end.id } : null }
}

/** Newest first. A page may end early; its `next` says where to continue. */
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
  const most = wanted.length === 0 ? q.limit + 1 : MAX_SCANNED
  const found = yield* rows<Delivery>(
    query(
      () => sql`with scanned as (select id, created_at from deliveries where ${every(place)} order by created_at desc, id desc limit ${most}), fitting as materialized (
          select s.id from scanned s where ${each('deliveries', wanted)}
          order by s.created_at desc, s.id desc limit ${q.limit + 1})
        select ${deliveryColumns} from deliveries where id in (select id from fitting)
        order by created_at desc, id desc`,
    ),
  )
  if (wanted.length === 0 || found.length > q.limit) return page(found, q.limit, at)
  const next = yield* first<Position>(
    query(
      () => sql`select created_at as at, id from deliveries where ${every(place)} order by created_at desc, id desc
        limit 1 offset ${MAX_SCANNED - 1}`,
    ),
  )
  return { items: found, next }
}

export function* listEndpoints(clientId: string | null, limit: number, after: Position | null): Script<Page<Endpoint>> {
  const filters = [sql`deleted_at is null`]
  if (clientId !== null) filters.push(sql`client_id = ${clientId}`)
  if (after) filters.push(sql`(created_at, id) > (${after.at}, ${after.id})`)
  const found = yield* rows<Endpoint>(
    query(() => sql`select ${endpointColumns} from endpoints where ${every(filters)} order by created_at, id limit ${limit + 1}`),
  )
  return page(found, limit, at)
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
  if (q.types)
    filters.push(
      sql`type in (${sql.join(
        q.types.map((type) => sql`${type}`),
        sql`, `,
      )})`,
    )
  return yield* rows<Event>(
    query(() => sql`select ${eventColumns} from events where ${every(filters)} order by client_id, seq limit ${q.limit}`),
  )
}
const readReach = statement(
  () =>
    sql`select seq from events where client_id = ${bind('clientId')} and seq > ${bind('after')} order by seq limit 1 offset ${sql.raw(String(MAX_SCANNED - 1))}`,
)
/** The last position that one filtered read of a feed looks at; null: the end of the feed. */
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
  const over: Task[] = []
  for (const task of tasks) {
    if (task.callback === null) statuses.set(task.id, 'none')
    else if (isTerminal(task.state)) over.push(task)
    else statuses.set(task.id, 'pending')
  }
  if (over.length === 0) return statuses
  const states = new Map<string, Set<string>>()
  for (const row of yield* rows<{ taskId: string; state: string }>(
    readCallbacks({ tasks: over.map(({ id, generation }) => ({ id, generation })) }),
  )) {
    const known = states.get(row.taskId) ?? new Set()
    states.set(row.taskId, known.add(row.state))
  }
  for (const { id } of over) {
    const seen = states.get(id)
    const open = seen?.has('pending') || seen?.has('running')
    statuses.set(id, open ? 'pending' : seen?.has('failed') ? 'failed' : seen?.has('completed') ? 'delivered' : 'none')
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
    where id ${d.anyOf(sql`select v.id from ${d.records('lanes', { id: 'text' })} v`)}`,
)
export function* findLanes(ids: readonly string[]): Script<readonly LaneState[]> {
  const found = yield* rows<Omit<LaneState, 'filled'> & { filled: number }>(readLanes({ lanes: ids.map((id) => ({ id })) }))
  return found.map((lane) => ({ ...lane, filled: lane.filled === 1 }))
}

/** What may keep these tasks from starting, in one read: paused types, full lanes, and how many run of each type. */
export function* findTaskHolds(tasks: readonly Pick<Task, 'type' | 'laneId'>[]): Script<TaskHolds> {
  const lanes = [...new Set(tasks.map(({ laneId }) => laneId))].map((id) => ({ id }))
  const [rules, queues, running] = yield* runAll([readLanes({ lanes }), readQueues(), countRunningByType()])
  return {
    queues: new Map((queues as unknown as QueueRow[]).map((row) => [typeOf(row.id), toQueueState(row)])),
    filled: new Set((rules as unknown as { id: string; filled: number }[]).filter(({ filled }) => filled === 1).map(({ id }) => id)),
    running: new Map((running as unknown as { id: string; n: number }[]).map(({ id, n }) => [typeOf(id), n])),
  }
}
