/** What is read and not changed: lists by keyset, the feed, states of callbacks. Texts vary with the filters, so they are rendered at each call. */
import { type SQL, sql } from 'drizzle-orm'
import { type Delivery, type Endpoint, type Event, type EventType, isTerminal, type Task } from '../../model.ts'
import { deliveryColumns, endpointColumns, eventColumns, taskColumns } from '../columns.ts'
import { bind, type Dialect, first, query, rows, type Script, statement } from '../script.ts'
import type { CallbackStatus, DeliveryQuery, Page, Position, TaskQuery } from '../store.ts'

const every = (conditions: readonly SQL[]): SQL => (conditions.length === 0 ? sql`true` : sql.join([...conditions], sql` and `))

/** One row more than asked tells whether there is a next page. */
function page<T>(found: readonly T[], limit: number, position: (item: T) => Position): Page<T> {
  const items = found.slice(0, limit)
  const last = items.at(-1)
  return { items, next: found.length > limit && last !== undefined ? position(last) : null }
}
const at = (item: { createdAt: number; id: string }): Position => ({ at: item.createdAt, id: item.id })

/** Rows a filtered page looks at before it ends early. */
const MOST_SCANNED = 10_000
/** Characters of inputs and results in one page before it ends early. */
const MOST_CHARACTERS = 4 * 1024 * 1024

/** Tasks of a client by time of creation. A page may end early, after much was scanned or gathered; `next` says where to go on. */
export function* listTasks(q: TaskQuery): Script<Page<Task>> {
  const direction = q.order === 'asc' ? sql.raw('asc') : sql.raw('desc')
  const beyond = q.order === 'asc' ? sql.raw('>') : sql.raw('<')
  const filters: SQL[] = []
  if (q.states)
    filters.push(
      sql`x.state in (${sql.join(
        q.states.map((state) => sql`${state}`),
        sql`, `,
      )})`,
    )
  if (q.type !== undefined) filters.push(sql`x.type = ${q.type}`)
  if (q.batchId !== undefined) filters.push(sql`x.batch_id = ${q.batchId}`)
  const bounds = (table: SQL): SQL[] => {
    const place: SQL[] = []
    if (q.clientId !== null) place.push(sql`${table}.client_id = ${q.clientId}`)
    if (q.createdAfter !== undefined) place.push(sql`${table}.created_at > ${q.createdAfter}`)
    if (q.createdBefore !== undefined) place.push(sql`${table}.created_at < ${q.createdBefore}`)
    return place
  }
  const after = (table: SQL, id: SQL): SQL[] =>
    q.after ? [sql`(${table}.created_at, ${id}) ${beyond} (${q.after.at}, ${q.after.id})`] : []
  // What is scanned is bounded before it is filtered, and where the scan ended is known even if nothing passed.
  const scanned = q.metadata
    ? sql`select l.task_id as id, l.created_at from labels l where l.name = ${q.metadata.key} and l.value = ${q.metadata.value}
        and ${every([...bounds(sql`l`), ...after(sql`l`, sql`l.task_id`)])} order by l.created_at ${direction}, l.task_id ${direction} limit ${MOST_SCANNED}`
    : sql`select t.id, t.created_at from tasks t where ${every([
        ...bounds(sql`t`),
        ...after(sql`t`, sql`t.id`),
        ...(q.batchId === undefined ? [] : [sql`t.batch_id = ${q.batchId}`]),
      ])} order by t.created_at ${direction}, t.id ${direction} limit ${MOST_SCANNED}`
  const found = yield* rows<Task>(
    query(
      () => sql`with scanned as (${scanned})
        select ${taskColumns} from tasks where id in (
          select s.id from scanned s join tasks x on x.id = s.id where ${every(filters)}
          order by s.created_at ${direction}, s.id ${direction} limit ${q.limit + 1})
        order by created_at ${direction}, id ${direction}`,
    ),
  )
  let characters = 0
  let fitting = 0
  for (const task of found) {
    characters += Math.min(task.input.length, 65_536) + Math.min(task.result?.length ?? 0, 65_536)
    if (fitting > 0 && characters > MOST_CHARACTERS) break
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
  return { items: found, next: end && end.n === MOST_SCANNED ? { at: end.at, id: end.id } : null }
}

export function* listDeliveries(q: DeliveryQuery): Script<Page<Delivery>> {
  const filters: SQL[] = []
  if (q.clientId !== null) filters.push(sql`client_id = ${q.clientId}`)
  if (q.endpointId !== undefined) filters.push(sql`endpoint_id = ${q.endpointId}`)
  if (q.taskId !== undefined) filters.push(sql`task_id = ${q.taskId}`)
  if (q.eventType !== undefined) filters.push(sql`event_type = ${q.eventType}`)
  if (q.since !== undefined) filters.push(sql`created_at >= ${q.since}`)
  if (q.until !== undefined) filters.push(sql`created_at < ${q.until}`)
  if (q.states)
    filters.push(
      sql`state in (${sql.join(
        q.states.map((state) => sql`${state}`),
        sql`, `,
      )})`,
    )
  if (q.after) filters.push(sql`(created_at, id) < (${q.after.at}, ${q.after.id})`)
  const found = yield* rows<Delivery>(
    query(
      () => sql`select ${deliveryColumns} from deliveries where ${every(filters)} order by created_at desc, id desc limit ${q.limit + 1}`,
    ),
  )
  return page(found, q.limit, at)
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

/** Events in the order they were recorded. `after` is a place in the client's own count. */
export function* listEvents(q: {
  clientId: string | null
  taskId?: string
  types?: readonly EventType[]
  after: number
  limit: number
}): Script<readonly Event[]> {
  const filters = [sql`seq > ${q.after}`, sql`body <> ''`]
  if (q.clientId !== null) filters.push(sql`client_id = ${q.clientId}`)
  if (q.taskId !== undefined) filters.push(sql`task_id = ${q.taskId}`)
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
const readSeq = statement(() => sql`select seq from events where id = ${bind('id')} and (client_id = ${bind('clientId')})`)
/** Where an event stands in its client's feed; null: it is not there. */
export function* findEventSeq(id: string, clientId: string): Script<number | null> {
  return (yield* first<{ seq: number }>(readSeq({ id, clientId })))?.seq ?? null
}

const readCallbacks = statement(
  (d: Dialect) => sql`select w.task_id as "taskId", w.state as state from ${d.records('tasks', { id: 'text', generation: 'int8' })} v
    join events e on e.task_id = v.id and e.generation = v.generation and e.terminal = 1
    join deliveries w on w.task_id = v.id and w.event_id = e.id`,
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

const countOpen = statement(
  () => sql`select (select count(*) from tasks where state = 'pending') + (select count(*) from tasks where state = 'running') as n`,
)
export function* countOpenTasks(): Script<number> {
  return (yield* first<{ n: number }>(countOpen()))!.n
}
