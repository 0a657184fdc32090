/** Replay: deliveries are sent again, page by page. A page and its checkpoint are one commit. */
import type { Endpoint, EventType, Json, Millis, State } from '../../core/model.ts'
import type { LeaseRef, Position, ReplayCheckpoint, ReplayFilter } from '../interfaces.ts'
import { addTurns, turnsFor } from '../queue/run-queue.ts'
import {
  bind,
  type Dialect,
  execute,
  now,
  query,
  type RecordColumns,
  rows,
  runAll,
  type Script,
  type SQL,
  sql,
  statement,
} from '../script.ts'
import { loadCheckpoint, writeCheckpointCall } from './checkpoints.ts'
import { lockEvents, lockTasks } from './deliveries.ts'
import { maxTriesOf, type RenderContext, readEndpointsOfClients } from './outbox.ts'
import { DELIVERY_QUEUE, idRows } from './shared.ts'

/** Rows one page reads, matching or not. */
const SCANNED = 1_000

interface Candidate {
  readonly id: string
  readonly createdAt: Millis
  readonly endpointId: string
  readonly laneId: string
  /** Of the latest delivery of the same event to the same endpoint. */
  readonly state: State
  readonly taskId: string | null
  readonly eventId: string
  readonly eventType: EventType
  readonly retrySchedule: Json | null
  /** 1: no later delivery in the filter's time has the same event and endpoint. */
  readonly latest: number
  /** 1: the event's body exists. */
  readonly whole: number
  readonly canceledReason: string | null
}

/** Deliveries in the filter's time, oldest first, with what matching needs. */
function scan({ clientId, endpointId, since, until, asOf }: ReplayFilter, after: Position | null): ReturnType<typeof query> {
  const start = Math.max(since ?? 0, 0)
  const conditions: SQL[] = [sql`x.client_id = ${clientId}`, sql`x.created_at >= ${start}`, sql`x.created_at < ${until}`]
  if (endpointId !== null) conditions.push(sql`x.endpoint_id = ${endpointId}`)
  if (after) conditions.push(sql`(x.created_at, x.id) > (${after.at}, ${after.id})`)
  // Other deliveries of the same event to the same endpoint, found by the task, or by the endpoint for events without a task.
  const others = (chosen: (y: SQL, createdAt: SQL) => SQL): SQL => {
    const byEndpoint = sql`y.endpoint_id = p.endpoint_id and y.created_at >= p.created_at and y.event_id = p.event_id`
    // The joined text and the sum keep planners off the index of the endpoint, which may be large.
    const byTask = sql`y.task_id = p.task_id and y.event_id = p.event_id and y.endpoint_id || '' = p.endpoint_id`
    return sql`case when p.task_id is null then (${chosen(byEndpoint, sql`y.created_at`)}) else (${chosen(byTask, sql`y.created_at + 0`)}) end`
  }
  const latestState = others(
    (same, createdAt) =>
      sql`select y.state from deliveries y where ${same} and (${createdAt} < ${asOf} or y.id = p.id) order by ${createdAt} desc, y.id desc limit 1`,
  )
  const later = others(
    (same, createdAt) =>
      sql`select count(*) from deliveries y where ${same} and ${createdAt} < ${until} and (${createdAt}, y.id) > (p.created_at, p.id)`,
  )
  return query(
    (d) => sql`select p.id as id, p.created_at as "createdAt", p.endpoint_id as "endpointId", p.lane_id as "laneId",
        ${latestState} as state, p.task_id as "taskId", p.event_id as "eventId", p.event_type as "eventType", p.retry_schedule as "retrySchedule", p.canceled_reason as "canceledReason",
        case when e.body = '' then 0 else 1 end as whole,
        case when ${later} = 0 then 1 else 0 end as latest
      from (select * from deliveries x where ${sql.join(conditions, sql` and `)} order by x.created_at, x.id limit ${SCANNED}) p
        ${d.join('events', 'e', sql`e.id = p.event_id`)} order by p.created_at, p.id`,
  )
}

interface Matches {
  readonly matched: readonly Candidate[]
  /** Matched, but the body was erased. */
  readonly skipped: number
  /** Where the next page starts; null: there is none. */
  readonly next: Position | null
}
function match(found: readonly Candidate[], { states, eventTypes }: ReplayFilter): Matches {
  const last = found.at(-1)
  const wanted = found.filter(
    ({ state, eventType, latest, canceledReason }) =>
      latest === 1 &&
      states.includes(state) &&
      canceledReason !== 'superseded' &&
      eventType !== 'endpoint.verification' &&
      eventType !== 'endpoint.ping' &&
      (eventTypes === null || eventTypes.includes(eventType)),
  )
  const matched = wanted.filter(({ whole }) => whole === 1)
  const next = found.length === SCANNED && last ? { at: last.createdAt, id: last.id } : null
  return { matched, skipped: wanted.length - matched.length, next }
}

/** How many a page of the filter matches, and where the next one starts. */
export function* countReplay(
  filter: ReplayFilter,
  after: Position | null,
): Script<{ readonly matched: number; readonly next: Position | null }> {
  const { matched, skipped, next } = match(yield* rows<Candidate>(scan(filter, after)), filter)
  return { matched: matched.length + skipped, next }
}

/** Locks the tasks of these deliveries, or their events without a task, until the commit. Returns the ids of those that exist. */
function* lockSources(matched: readonly Candidate[]): Script<ReadonlySet<string>> {
  const tasks = idRows(matched.map(({ taskId }) => taskId))
  const events = idRows(matched.map(({ taskId, eventId }) => (taskId === null ? eventId : null)))
  const found = yield* runAll([...(tasks.length > 0 ? [lockTasks({ tasks })] : []), ...(events.length > 0 ? [lockEvents({ events })] : [])])
  return new Set((found as unknown as { id: string }[][]).flat().map(({ id }) => id))
}

const COPY: RecordColumns = { new_id: 'text', from_id: 'text', most: 'int8' }
const copied = sql.raw('client_id, lane_id, endpoint_id, event_id, event_type, task_id, url, body, retry_schedule')
const copyDeliveries = statement(
  // Line 1 sorts them behind work that is due for the first time.
  (
    d: Dialect,
  ) => sql`insert into deliveries (id, ${copied}, trigger, max_tries, created_at, state, line, rank, due_at, tries, fence, updated_at)
    select v.new_id, ${sql.raw('x.client_id, x.lane_id, x.endpoint_id, x.event_id, x.event_type, x.task_id, x.url, x.body, x.retry_schedule')},
      'replay', v.most, ${bind('at')}, 'pending', 1, ${bind('at')}, ${bind('at')}, 0, 0, ${bind('at')}
    from ${d.records('copies', COPY)} v ${d.join('deliveries', 'x', sql`x.id = v.from_id`)}`,
)

/**
 * One page of a replay with its checkpoint in the same commit, so that a page is neither repeated nor left out after a crash. Null: the lease was
 * lost and nothing was written.
 */
export function* replayPage(lease: LeaseRef, filter: ReplayFilter, view: RenderContext): Script<ReplayCheckpoint | null> {
  const before = yield* loadCheckpoint<ReplayCheckpoint>(lease, { after: null, done: false, replayed: 0, skipped: 0 }, { lock: true })
  if (before === null || before.done) return before
  const { matched, skipped, next } = match(yield* rows<Candidate>(scan(filter, before.after)), filter)
  const endpoints = new Map(
    (yield* rows<Endpoint>(readEndpointsOfClients({ clients: [{ id: filter.clientId }] }))).map((endpoint) => [endpoint.id, endpoint]),
  )
  const existing = yield* lockSources(matched)
  // Nothing can be sent to a deleted endpoint.
  const replayed = matched.filter(({ endpointId, taskId, eventId }) => endpoints.has(endpointId) && existing.has(taskId ?? eventId))
  const checkpoint: ReplayCheckpoint = {
    after: next,
    done: next === null,
    replayed: before.replayed + replayed.length,
    skipped: before.skipped + skipped + matched.length - replayed.length,
  }
  const at = yield* now()
  const maxOf = ({ eventType, endpointId, retrySchedule }: Candidate): number =>
    maxTriesOf(eventType, retrySchedule ?? endpoints.get(endpointId)!.retrySchedule, view)
  const lanes = replayed.map(({ laneId }) => ({ queue: DELIVERY_QUEUE, clientId: filter.clientId, laneId, line: 1, rank: at }))
  yield* execute([
    ...(replayed.length > 0
      ? [copyDeliveries({ at, copies: replayed.map((one) => ({ new_id: view.newId('delivery'), from_id: one.id, most: maxOf(one) })) })]
      : []),
    writeCheckpointCall(lease, checkpoint),
    ...addTurns(turnsFor(lanes, at)),
  ])
  return checkpoint
}
