/** Retention: removes ended tasks with all their rows, endpoint events, deleted endpoints, expired idempotency keys, and tombstones. */
import { isTerminal, type Millis, type State } from '../../core/model.ts'
import type { PrunedPage } from '../interfaces.ts'
import { bind, execute, now, rows, type Script, sql, statement } from '../script.ts'
import { ids } from './shared.ts'

/** How long an erased task answers 410. */
export const TOMBSTONE_MS: Millis = 7 * 86_400_000

// Tasks are read in the order of their ids, which is that of their creation: this needs no index of its own.
const readNextTasks = statement(
  () =>
    sql`select id, type, state, finished_at as "finishedAt", created_at as "createdAt" from tasks where id > ${bind('after')} order by id limit ${bind('limit')}`,
)
const lockEnded = statement(
  (d) => sql`select t.id as id, t.client_id as "clientId" from tasks t
    where t.id ${d.anyOf(ids(d))} and t.state in ('completed', 'failed', 'canceled') and t.finished_at <= ${bind('now')} and (select 1 from deliveries o where o.task_id = t.id and o.state in ('pending', 'running') limit 1) is null ${d.skipLocked}`,
)
const removeTasks = statement((d) => sql`delete from tasks where id ${d.anyOf(ids(d))}`)
/** Rows one statement removes. */
const MAX_REMOVED = 500
/** Roughly the rows of tasks that one transaction removes: deliveries with all their attempts. */
const MAX_TRACES = 5_000
const limitRemoved = sql.raw(`limit ${MAX_REMOVED}`)
const removeLabels = statement(
  (d) =>
    sql`delete from labels where ${d.rowId} ${d.anyOf(sql`select l.${d.rowId} from labels l where l.task_id ${d.anyOf(ids(d))} ${limitRemoved}`)}
    returning name as id`,
)
const removeAttempts = statement(
  (d) => sql`delete from attempts where ${d.rowId} ${d.anyOf(sql`select a.${d.rowId} from attempts a
    where a.delivery_id ${d.anyOf(sql`select o.id from deliveries o where o.task_id ${d.anyOf(ids(d))}`)} ${limitRemoved}`)}
    returning delivery_id as id`,
)
const removeDeliveries = statement(
  (d) =>
    sql`delete from deliveries where id ${d.anyOf(sql`select o.id from deliveries o where o.task_id ${d.anyOf(ids(d))} ${limitRemoved}`)} returning id`,
)
const removingEvents = (terminal: '0' | '1') =>
  statement(
    (d) =>
      sql`delete from events where id ${d.anyOf(sql`select e.id from events e
      where e.terminal = ${sql.raw(terminal)} and e.task_id ${d.anyOf(ids(d))} ${limitRemoved}`)} returning id`,
  )
const addTombstones = statement(
  (d) => sql`insert into tombstones (id, client_id, expires_at)
    select v.id, v.client_id, ${bind('until')} from ${d.records('tombstones', { id: 'text', client_id: 'text' })} v where true
    on conflict (id) do nothing`,
)
const tracesInOrder = [removeAttempts, removeDeliveries, removingEvents('1'), removingEvents('0'), removeLabels]
/** Removes all rows that refer to these tasks, attempts before the deliveries by which they are found. */
function* removeTraces(of: readonly { id: string }[]): Script<void> {
  for (const remove of tracesInOrder) while ((yield* rows(remove({ ids: of }))).length === MAX_REMOVED);
}
const countTraces = statement(
  (d) => sql`select task_id as id, count(*) + sum(tries) as n from deliveries where task_id ${d.anyOf(ids(d))} group by task_id`,
)
/** As many of these tasks, in order, as one transaction removes; at least one. */
function* limitToCommit<T extends { readonly id: string }>(of: readonly T[]): Script<readonly T[]> {
  const weights = new Map(
    (yield* rows<{ id: string; n: number | string }>(countTraces({ ids: of.map(({ id }) => ({ id })) }))).map(({ id, n }) => [
      id,
      Number(n),
    ]),
  )
  let some = 0
  for (let sum = 0; some < of.length; some++) {
    sum += 1 + (weights.get(of[some]!.id) ?? 0)
    if (sum > MAX_TRACES && some > 0) break
  }
  return of.slice(0, some)
}

/**
 * Reads the tasks created after `after`, oldest first, and removes those that ended longer ago than their type is kept and have no open delivery.
 * `next` is where to continue; null: the rest is too young, start from the beginning.
 */
export function* pruneTasks(after: string, limit: number, keepMs: (type: string) => Millis, leastMs: Millis): Script<PrunedPage> {
  const at = yield* now()
  const seen = yield* rows<{ id: string; type: string; state: State; finishedAt: Millis | null; createdAt: Millis }>(
    readNextTasks({ after, limit }),
  )
  const due = seen.filter(({ type, state, finishedAt }) => isTerminal(state) && finishedAt !== null && finishedAt + keepMs(type) <= at)
  const last = seen.at(-1)
  const beyond = seen.length === limit && last && last.createdAt + leastMs <= at ? last.id : null
  if (due.length === 0) return { removed: 0, next: beyond }
  const some = yield* limitToCommit(due)
  // The next transaction removes the rest.
  const next = some.length < due.length ? some.at(-1)!.id : beyond
  // A task that is being changed, or was retried meanwhile, stays.
  const ended = yield* rows<{ id: string; clientId: string }>(lockEnded({ ids: some.map(({ id }) => ({ id })), now: at - leastMs }))
  const gone = ended.map(({ id }) => ({ id }))
  if (gone.length > 0) {
    yield* removeTraces(gone)
    yield* execute([
      addTombstones({ tombstones: ended.map(({ id, clientId }) => ({ id, client_id: clientId })), until: at + TOMBSTONE_MS }),
      removeTasks({ ids: gone }),
    ])
  }
  return { removed: gone.length, next }
}

// Endpoint events belong to no task: pings, verifications, announcements.
const readEndedDeliveries = statement(
  (d) =>
    sql`select id from deliveries where task_id is null and state in ('completed', 'failed', 'canceled') and finished_at <= ${bind('before')}
      limit ${bind('limit')} ${d.skipLocked}`,
)
const removeAttemptsOf = statement((d) => sql`delete from attempts where delivery_id ${d.anyOf(ids(d))}`)
const removeDeliveriesById = statement((d) => sql`delete from deliveries where id ${d.anyOf(ids(d))}`)
// The joined text keeps planners from reading the events of all tasks in order of id. Locked, so that no event is redelivered meanwhile.
const lockOldEvents = statement(
  (d) =>
    sql`select id from events where task_id is null and terminal = 0 and created_at <= ${bind('before')} and id || '' > ${bind('after')}
      order by id || '' limit ${bind('limit')} ${d.skipLocked}`,
)
const readOwedEvents = statement(
  (d) => sql`select distinct event_id as id from deliveries where task_id is null and event_id ${d.anyOf(ids(d))}`,
)
const removeEvents = statement((d) => sql`delete from events where id ${d.anyOf(ids(d))}`)
const removeEndpoints = statement(
  (d) =>
    sql`delete from endpoints where id ${d.anyOf(
      sql`select e.id from endpoints e where e.deleted_at <= ${bind('before')} and (select 1 from deliveries x where x.endpoint_id = e.id limit 1) is null
      limit ${bind('limit')}`,
    )} returning id`,
)

/**
 * Removes endpoint events after `after` that are older than `keepMs` and have no open delivery, with their deliveries and attempts, and endpoints
 * deleted as long ago that have no rows left. `next` is where to continue; null: nothing more is due.
 */
export function* pruneEndpointEvents(after: string, limit: number, keepMs: Millis): Script<PrunedPage> {
  const before = (yield* now()) - keepMs
  const ended = yield* rows<{ id: string }>(readEndedDeliveries({ before, limit }))
  if (ended.length > 0) yield* execute([removeAttemptsOf({ ids: ended }), removeDeliveriesById({ ids: ended })])
  // Deliveries first: a later batch removes an event whose last delivery this one removes.
  if (ended.length === limit) return { removed: ended.length, next: after }
  const old = yield* rows<{ id: string }>(lockOldEvents({ before, after, limit }))
  const owed = new Set((yield* rows<{ id: string }>(readOwedEvents({ ids: old }))).map(({ id }) => id))
  const free = old.filter(({ id }) => !owed.has(id))
  if (free.length > 0) yield* execute([removeEvents({ ids: free })])
  const next = old.length === limit ? old.at(-1)!.id : null
  const gone = next === null ? yield* rows(removeEndpoints({ before, limit })) : []
  return { removed: ended.length + free.length + gone.length, next }
}

const removeIdempotencyKeys = statement(
  (d) =>
    sql`delete from idempotency where ${d.rowId} ${d.anyOf(
      sql`select x.${d.rowId} from idempotency x where x.expires_at <= ${bind('now')} order by x.expires_at limit ${bind('limit')} ${d.skipLocked}`,
    )} returning key`,
)
const readExpiredTombstones = statement(
  (d) => sql`select id from tombstones where expires_at <= ${bind('now')} order by expires_at limit ${bind('limit')} ${d.skipLocked}`,
)
const removeTombstones = statement((d) => sql`delete from tombstones where id ${d.anyOf(ids(d))}`)
/** Removes expired idempotency keys and tombstones, with the remains of erased tasks. True: there may be more. */
export function* pruneExpired(limit: number): Script<boolean> {
  const at = yield* now()
  const keys = yield* rows(removeIdempotencyKeys({ now: at, limit }))
  const over = yield* rows<{ id: string }>(readExpiredTombstones({ now: at, limit }))
  const removable = over.length === 0 ? over : yield* limitToCommit(over)
  if (removable.length > 0) {
    yield* removeTraces(removable)
    yield* execute([removeTombstones({ ids: removable.map(({ id }) => ({ id })) })])
  }
  return keys.length === limit || over.length === limit || removable.length < over.length
}

// Lanes of concurrency keys that are no longer used.

const readKeyLanes = statement(
  (d) =>
    sql`select l.id as id from lanes l where l.id > ${bind('after')} and l.cap is not null and l.id like 'client%' order by l.id limit ${bind('limit')} ${d.skipLocked}`,
)
// Subqueries for each lane: joins would be planned by statistics that may be older than most rows.
const removeIdle = statement(
  (d) => sql`delete from lanes where id ${d.anyOf(ids(d))} and (select 1 from turns t where t.lane_id = lanes.id limit 1) is null
    and (select 1 from tasks w where w.lane_id = lanes.id and w.state = 'pending' limit 1) is null
    and (select 1 from tasks w where w.lane_id = lanes.id and w.state = 'running' limit 1) is null`,
)
/**
 * Removes the idle lanes of concurrency keys among the next `limit` after `after`. Returns where to continue; null: that was the last page. Lanes
 * that a claim has locked are skipped. A lane that gets a task at this moment is created again by its claim.
 */
export function* sweepLanes(after: string, limit: number): Script<string | null> {
  const page = yield* rows<{ id: string }>(readKeyLanes({ after, limit }))
  if (page.length === 0) return null
  yield* execute([removeIdle({ ids: page.map(({ id }) => ({ id })) })])
  return page.length < limit ? null : page.at(-1)!.id
}
