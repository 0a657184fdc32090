/** The state changes of tasks: claim, settle, progress, cancel, redo, erase. */
import { isTerminal, type Millis, type Task, type TryOutcome } from '../../core/model.ts'
import { taskColumns, updatedTaskColumns } from '../columns.ts'
import type { OwedDelivery, Progress, ProgressReport, Settlement, SettleResult, TaskChange } from '../interfaces.ts'
import type { LentSlots, WorkTable } from '../queue/claim.ts'
import { leaveLanes } from '../queue/lane.ts'
import { byLease, leaseKey, recordEndedLeases } from '../queue/leases.ts'
import { addTurns, type ClaimableLane, turnsFor } from '../queue/run-queue.ts'
import { queueOf } from '../queue/task-types.ts'
import {
  bind,
  type Dialect,
  execute,
  first,
  now,
  type RecordColumns,
  rows,
  runAll,
  type Script,
  type SQL,
  sql,
  statement,
} from '../script.ts'
import { emit, type RenderContext, type TaskFact, terminalFact } from './outbox.ts'
import { TOMBSTONE_MS } from './retention.ts'

export const taskLaneOf = (task: { clientId: string; type: string; concurrencyKey: string | null }): string =>
  task.concurrencyKey === null ? `${task.clientId}/${task.type}` : `${task.clientId}/${task.type}/${task.concurrencyKey}`
const ready = (task: Pick<Task, 'type' | 'clientId' | 'laneId'>, line: number, rank: Millis): ClaimableLane => ({
  queue: queueOf(task.type),
  clientId: task.clientId,
  laneId: task.laneId,
  line,
  rank,
})

// Claim.

const ids = (d: Dialect) => sql`select v.id from ${d.records('ids', { id: 'text' })} v`
const takeTasks = statement(
  // coalesce: with a plain state = 'pending' the planner could use the partial index instead of the key.
  (
    d,
  ) => sql`update tasks set state = 'running', fence = fence + 1, tries = tries + 1, revision = revision + 1, leased_until = ${d.now} + ${bind('leaseMs')},
      leased_by = ${bind('by')}, started_at = ${d.now}, updated_at = ${d.now}, progress = 0, progress_message = null
    where id ${d.anyOf(sql`select x.id from tasks x where x.id ${d.anyOf(ids(d))} and coalesce(x.state, '') = 'pending' ${d.skipLocked}`)}
    returning ${taskColumns}`,
)
const readFollowers = statement(
  (d) => sql`select distinct client_id as id from endpoints where client_id ${d.anyOf(ids(d))} and follows = 1`,
)

/** How a claim takes tasks. Those past their time end here and come back as failed. */
export const taskTable = (leaseMs: Millis, by: string, view: RenderContext): WorkTable<Task> => ({
  kind: 'task',
  ordered: true,
  *take(chosen, now): Script<readonly Task[]> {
    const taken = yield* rows<Task>(takeTasks({ ids: chosen.map((id) => ({ id })), leaseMs, by }))
    const late = taken.filter((task) => lateness(task, now) !== null)
    if (late.length > 0) yield* endLate(late, now, view)
    if (late.length === 0) {
      yield* emitIfFollowed([{ tasks: taken, type: 'task.started' }], view)
      return taken
    }
    yield* emitIfFollowed([{ tasks: taken.filter((task) => !late.includes(task)), type: 'task.started' }], view)
    return taken.map((task) => (late.includes(task) ? { ...task, state: 'failed' } : task))
  },
})
/** Why a task that was just claimed may no longer start. `startBy` does not apply after the first try began, even when that try was given back. */
const lateness = (task: Task, now: Millis): 'start_expired' | 'deadline_exceeded' | null =>
  task.deadlineAt !== null && task.deadlineAt <= now
    ? 'deadline_exceeded'
    : task.startBy !== null && task.startBy <= now && task.fence <= 1
      ? 'start_expired'
      : null
const lateFailure = (task: Task, now: Millis): TryOutcome => {
  const code = lateness(task, now)
  const error =
    code === 'start_expired'
      ? { code, message: `The task had not started by ${new Date(task.startBy!).toISOString()}.`, details: null }
      : {
          code: 'deadline_exceeded',
          message: `The task had not ended by ${new Date(task.deadlineAt ?? now).toISOString()}.`,
          details: null,
        }
  return { kind: 'fail', error }
}
function* endLate(late: readonly Task[], now: Millis, view: RenderContext): Script<void> {
  yield* settleTasks(
    late.map((task) => ({ id: task.id, fence: task.fence, outcome: lateFailure(task, now), back: 1 })),
    view,
  )
}

/** Events that are not terminal are rendered only where an endpoint subscribes to them. */
export function* emitIfFollowed(
  news: readonly { tasks: readonly Task[]; type: 'task.created' | 'task.started' }[],
  view: RenderContext,
): Script<void> {
  const heard = news.flatMap(({ tasks, type }) =>
    tasks.filter((task) => task.callback !== null).map((task): TaskFact => ({ task, type, at: task.updatedAt })),
  )
  const clients = yield* followers(heard.map(({ task }) => task))
  yield* emit(
    heard.filter(({ task }) => clients.has(task.clientId)),
    view,
  )
}
/** The clients among theirs with an endpoint that subscribes to more than terminal events. */
function* followers(tasks: readonly Task[]): Script<ReadonlySet<string>> {
  const clientIds = new Set(tasks.filter(({ callback }) => callback !== null).map(({ clientId }) => clientId))
  if (clientIds.size === 0) return clientIds
  return new Set((yield* rows<{ id: string }>(readFollowers({ ids: [...clientIds].map((id) => ({ id })) }))).map(({ id }) => id))
}

// Settle.

const SETTLEMENT: RecordColumns = {
  task_id: 'text',
  at_fence: 'int8',
  wish: 'text',
  delay_ms: 'int8',
  back: 'int8',
  result: 'text',
  error: 'text',
}
/** A throw after a cancel request ends in `canceled`. A returned result stands. */
const ended = (task: string): SQL =>
  sql.raw(`case when ${task}.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end`)
const updateTasks = statement((d) => {
  const state = ended('tasks')
  return sql`update tasks set state = ${state}, revision = tasks.revision + 1, updated_at = ${d.now}, leased_until = null, leased_by = null,
      fence = tasks.fence + case when ${state} = 'canceled' then 1 else 0 end,
      tries = tasks.tries - v.back,
      started_at = case when ${state} = 'failed' and v.back = tasks.tries then null else tasks.started_at end,
      line = case when ${state} = 'pending' then 1 else tasks.line end,
      rank = case when ${state} = 'pending' then ${d.now} + v.delay_ms else tasks.rank end,
      due_at = case when ${state} = 'pending' then ${d.now} + v.delay_ms else tasks.due_at end,
      finished_at = case when ${state} = 'pending' then null else ${d.now} end,
      progress = case when ${state} = 'completed' then 100 else tasks.progress end,
      result = case when ${state} = 'completed' then v.result else null end,
      error = case when ${state} = 'failed' then v.error else null end,
      last_error = case when ${state} = 'pending' and v.error is not null then v.error else tasks.last_error end
    from ${d.records('settlements', SETTLEMENT)} v
    where tasks.id = v.task_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'running'
      ${d.restrictTo(
        sql`tasks.id`,
        sql`select k.id from tasks k where k.id ${d.anyOf(
          sql`select y.task_id from ${d.records('settlements', SETTLEMENT)} y`,
        )} order by k.id ${d.lock}`,
      )}
    returning ${updatedTaskColumns}`
})

const targetStates = {
  complete: 'completed',
  retry: 'pending',
  release: 'pending',
  fail: 'failed',
  cancel: 'canceled',
} as const satisfies Record<TryOutcome['kind'], Task['state']>

/** The only way out of `running`: state, event and owed deliveries in one transaction. A stale fence changes nothing, and the answer says so. */
export function* settleTasks(
  settlements: readonly (Settlement & { readonly back?: number })[],
  view: RenderContext,
  slots: LentSlots | null = null,
): Script<{ readonly answers: readonly SettleResult<Task>[]; readonly started: readonly OwedDelivery[] }> {
  const won = yield* rows<Task>(
    updateTasks({
      settlements: [...byLease(settlements).values()].map(({ id, fence, outcome, back }) => ({
        task_id: id,
        at_fence: fence,
        wish: targetStates[outcome.kind],
        delay_ms: 'delayMs' in outcome ? outcome.delayMs : 0,
        back: back ?? (outcome.kind === 'release' ? 1 : 0),
        result: outcome.kind === 'complete' ? (outcome.result ?? 'null') : null,
        error: 'error' in outcome && outcome.error !== null ? JSON.stringify(outcome.error) : null,
      })),
    }),
  )
  const started = yield* afterwards(won, view, slots)
  // A cancel raised the fence.
  const held = byLease(won.map((task) => ({ id: task.id, fence: task.state === 'canceled' ? task.fence - 1 : task.fence, task })))
  const told: Parameters<typeof recordEndedLeases>[0][number][] = []
  const answers = settlements.map((settlement): SettleResult<Task> => {
    const lease = leaseKey(settlement)
    const value = held.get(lease)?.task
    if (!held.delete(lease)) return { kind: 'stale' }
    const { id, fence, endedAs: as } = settlement
    if (as !== undefined && value!.state !== 'completed') told.push({ id, fence, clientId: value!.clientId, endedAs: as })
    return { kind: 'settled', value: value! }
  })
  yield* recordEndedLeases(told)
  return { answers, started }
}
/** After tasks left `running`, or `pending` for good: slots are freed, turns added, terminal events recorded. */
function* afterwards(changed: readonly Task[], view: RenderContext, slots: LentSlots | null = null): Script<readonly OwedDelivery[]> {
  if (changed.length === 0) return []
  const now = changed[0]!.updatedAt
  const opened = yield* leaveLanes(
    changed.map((task) => ({ queue: queueOf(task.type), clientId: task.clientId, laneId: task.laneId })),
    now,
  )
  const waiting = changed.flatMap((task) => {
    if (task.state === 'pending') return [ready(task, 1, task.dueAt)]
    // The type has a free slot again, so its waiting work gets a turn.
    return view.limitedQueues.has(queueOf(task.type)) ? [ready(task, 0, now)] : []
  })
  yield* execute(addTurns([...opened, ...turnsFor(waiting, now)]))
  return yield* emit(changed.filter((task) => isTerminal(task.state)).map(terminalFact), view, slots)
}

// Progress.

const REPORT: RecordColumns = { task_id: 'text', at_fence: 'int8', progress: 'float8', message: 'text' }
const updateProgress = statement(
  (d) => sql`update tasks set progress = case when v.progress > tasks.progress then v.progress else tasks.progress end,
      progress_message = v.message, revision = tasks.revision + 1, updated_at = ${d.now}
    from ${d.records('reports', REPORT)} v
    where tasks.id = v.task_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'running'
      ${d.restrictTo(sql`tasks.id`, sql`select k.id from tasks k where k.id ${d.anyOf(sql`select y.task_id from ${d.records('reports', REPORT)} y`)} order by k.id ${d.lock}`)}
    returning ${updatedTaskColumns}`,
)
/** Progress webhooks of one task are at least this far apart. */
const PROGRESS_EVERY_MS: Millis = 1_000
// Few deliveries were created in the last second, however many reports a long task has made: coalesce keeps the planner off those.
const readLastProgress = statement(
  (
    d,
  ) => sql`select distinct w.task_id as id from deliveries w where w.client_id ${d.anyOf(sql`select v.id from ${d.records('clients', { id: 'text' })} v`)}
    and w.created_at > ${bind('since')} and w.event_type = 'task.progress' and w.trigger = 'event' and coalesce(w.task_id, '') ${d.anyOf(ids(d))}`,
)
/** Emits progress events for subscribers, at most one a second for each task. */
function* emitProgress(tasks: readonly Task[], view: RenderContext): Script<ReadonlyMap<string, ProgressReport['notified']>> {
  const clients = yield* followers(tasks)
  const followed = tasks.filter((task) => task.callback !== null && clients.has(task.clientId))
  if (followed.length === 0) return new Map()
  const since = followed[0]!.updatedAt - PROGRESS_EVERY_MS
  const lately = yield* rows<{ id: string }>(
    readLastProgress({
      clients: [...new Set(followed.map(({ clientId }) => clientId))].map((id) => ({ id })),
      ids: followed.map(({ id }) => ({ id })),
      since,
    }),
  )
  const early = new Set(lately.map(({ id }) => id))
  yield* emit(
    followed.filter(({ id }) => !early.has(id)).map((task) => ({ task, type: 'task.progress', at: task.updatedAt })),
    view,
  )
  return new Map(followed.map(({ id }) => [id, early.has(id) ? 'early' : 'told']))
}
/** Reports of running tasks, the last one of each. Progress never falls within one try. */
export function* reportProgress(
  reports: readonly Progress[],
  view: RenderContext,
): Script<readonly (ProgressReport | { readonly kind: 'stale' })[]> {
  const last = new Map(reports.map((report) => [leaseKey(report), report]))
  const written = yield* rows<Task>(
    updateProgress({
      reports: [...last.values()].map((r) => ({ task_id: r.id, at_fence: r.fence, progress: r.progress, message: r.message })),
    }),
  )
  const loud = new Set(reports.filter((report) => report.notify).map(leaseKey))
  const notified = yield* emitProgress(
    written.filter((task) => loud.has(leaseKey(task))),
    view,
  )
  const held = byLease(written)
  return reports.map((report) => {
    const lease = leaseKey(report)
    const task = held.get(lease)
    if (!task) return { kind: 'stale' }
    return { kind: 'settled', value: task, notified: loud.has(lease) ? (notified.get(task.id) ?? 'nobody') : 'early' }
  })
}

// Cancel, redo, erase.

export const readTask = statement((d) => sql`select ${taskColumns} from tasks where id = ${bind('id')} and client_id = ${clientMatches(d)}`)
/** The client's own rows; all rows for the operator. */
export const clientMatches = (d: Dialect): SQL =>
  d.name === 'postgres' ? sql`coalesce(${bind('clientId')}::text, client_id)` : sql`coalesce(${bind('clientId')}, client_id)`
const readTombstone = statement(
  (d) => sql`select id from tombstones where id = ${bind('id')} and client_id = ${clientMatches(d)} and expires_at > ${d.now}`,
)

const cancel = statement(
  (d) => sql`update tasks set
      fence = fence + case when state = 'pending' then 1 else 0 end,
      cancel_requested_at = case when state = 'running' then ${d.now} else cancel_requested_at end,
      finished_at = case when state = 'pending' then ${d.now} else finished_at end,
      state = case when state = 'pending' then 'canceled' else state end,
      revision = revision + 1, updated_at = ${d.now}
    where id ${d.anyOf(ids(d))} and client_id = ${clientMatches(d)} and (state = 'pending' or state = 'running' and cancel_requested_at is null)
    returning ${taskColumns}`,
)
/** A pending task is canceled now. A running one is asked to end; the first settlement wins. */
export function* cancelTask(id: string, clientId: string | null, view: RenderContext): Script<TaskChange> {
  const [changed] = yield* cancelTasks([id], clientId, view)
  if (!changed) return yield* unchanged(id, clientId, (task) => task.state === 'canceled' || task.state === 'running')
  return { kind: 'changed', task: changed }
}
/** The tasks that were canceled or asked to end. */
export function* cancelTasks(chosen: readonly string[], clientId: string | null, view: RenderContext): Script<readonly Task[]> {
  const changed = yield* rows<Task>(cancel({ ids: chosen.map((id) => ({ id })), clientId }))
  yield* afterwards(
    changed.filter(({ state }) => state === 'canceled'),
    view,
  )
  return changed
}
function* unchanged(id: string, clientId: string | null, fine: (task: Task) => boolean): Script<TaskChange> {
  const task = yield* first<Task>(readTask({ id, clientId }))
  if (task) return { kind: fine(task) ? 'unchanged' : 'refused', task }
  return { kind: (yield* first(readTombstone({ id, clientId }))) ? 'gone' : 'missing' }
}

const redo = statement(
  (
    d,
  ) => sql`update tasks set state = 'pending', generation = generation + 1, revision = revision + 1, tries = 0, progress = 0, progress_message = null,
      result = null, error = null, last_error = null, started_at = null, finished_at = null, cancel_requested_at = null, start_by = null, deadline_at = null,
      due_at = ${d.now}, line = 0, rank = ${d.now} - priority * 1000, updated_at = ${d.now}
    where id ${d.anyOf(ids(d))} and client_id = ${clientMatches(d)} and state in ('failed', 'canceled')
    returning id, client_id as "clientId", lane_id as "laneId", type, rank, updated_at as "updatedAt"`,
)
/** A new generation of a task that failed or was canceled. */
export function* retryEndedTask(id: string, clientId: string | null): Script<TaskChange> {
  const [redone] = yield* retryEndedTasks([id], clientId)
  if (redone === undefined) return yield* unchanged(id, clientId, () => false)
  return { kind: 'changed', task: (yield* first<Task>(readTask({ id, clientId })))! }
}
/** The ids of the tasks that start a new generation. */
export function* retryEndedTasks(chosen: readonly string[], clientId: string | null): Script<readonly string[]> {
  const redone = yield* rows<Pick<Task, 'id' | 'type' | 'clientId' | 'laneId' | 'updatedAt'> & { rank: Millis }>(
    redo({ ids: chosen.map((id) => ({ id })), clientId }),
  )
  if (redone.length === 0) return []
  yield* execute(
    addTurns(
      turnsFor(
        redone.map((task) => ready(task, 0, task.rank)),
        redone[0]!.updatedAt,
      ),
    ),
  )
  return redone.map(({ id }) => id)
}

const removeTask = statement(
  (d) =>
    sql`delete from tasks where id = ${bind('id')} and client_id = ${clientMatches(d)} and state in ('completed', 'failed', 'canceled') returning ${taskColumns}`,
)
// By the two indexes of events by task: no other index begins with the task.
const eraseEvents = statement(
  (d) =>
    sql`update events set body = '' where id ${d.anyOf(sql`
      select e.id from events e where e.task_id = ${bind('id')} and e.terminal = 1
      union all select e.id from events e where e.task_id = ${bind('id')} and e.terminal = 0`)}`,
)
const eraseDeliveries = statement(
  (d) => sql`update deliveries set body = case when body is null then null else '' end, updated_at = ${d.now},
      fence = fence + case when state in ('pending', 'running') then 1 else 0 end,
      canceled_reason = case when state in ('pending', 'running') then 'taskDeleted' else canceled_reason end,
      finished_at = case when state in ('pending', 'running') then ${d.now} else finished_at end, leased_until = null, leased_by = null,
      state = case when state in ('pending', 'running') then 'canceled' else state end
    where task_id = ${bind('id')} returning client_id as "clientId", lane_id as "laneId"`,
)
const eraseLabels = statement(() => sql`delete from labels where task_id = ${bind('id')}`)
const addTombstone = statement(
  (d) => sql`insert into tombstones (id, client_id, expires_at) values (${bind('id')}, ${bind('clientId')}, ${d.now} + ${bind('keepMs')})`,
)
/** Erases an ended task: input, result, metadata and event bodies go, open deliveries are canceled, a tombstone stays. */
export function* eraseTask(id: string, clientId: string | null): Script<TaskChange> {
  const task = yield* first<Task>(removeTask({ id, clientId }))
  if (!task) return yield* unchanged(id, clientId, () => false)
  const [, closed] = yield* runAll([
    eraseEvents({ id }),
    eraseDeliveries({ id }),
    eraseLabels({ id }),
    addTombstone({ id, clientId: task.clientId, keepMs: TOMBSTONE_MS }),
  ])
  const lanes = (closed as { clientId: string; laneId: string }[]).map((row) => ({ queue: 'delivery', ...row }))
  yield* execute(addTurns(yield* leaveLanes(lanes, task.updatedAt)))
  return { kind: 'changed', task }
}

// Overdue.

const readOverdue = statement(
  (d) =>
    sql`select ${taskColumns} from tasks where id ${d.anyOf(sql`
      select id from (select id from tasks where state = 'pending' and start_by is not null and start_by <= ${bind('now')} and fence = 0 order by start_by limit ${bind('limit')}) a
      union select id from (select id from tasks where state in ('pending', 'running') and deadline_at is not null and deadline_at <= ${bind('now')}
        and (state = 'pending' or deadline_at <= ${bind('late')}) order by deadline_at limit ${bind('limit')}) b
      union select id from (select id from tasks where state = 'running' and cancel_requested_at <= ${bind('late')} limit ${bind('limit')}) c`)}`,
)
const SEIZED: RecordColumns = { task_id: 'text', at_fence: 'int8' }
const seize = statement(
  (d) => sql`update tasks set state = 'running', fence = tasks.fence + 1, tries = tasks.tries + 1
    from ${d.records('tasks', SEIZED)} v
    where tasks.id = v.task_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'pending'
      ${d.restrictTo(sql`tasks.id`, sql`select y.task_id from ${d.records('tasks', SEIZED)} y`)} returning tasks.id as id, tasks.fence as fence`,
)
/** Ends pending tasks past `startBy` or `deadlineAt`, and running ones that outlived a cancel or their deadline by `graceMs`. */
export function* endOverdue(limit: number, graceMs: Millis, view: RenderContext): Script<number> {
  const at = yield* now()
  const overdue = yield* rows<Task>(readOverdue({ limit, now: at, late: at - graceMs }))
  if (overdue.length === 0) return 0
  const pending = overdue.filter((task) => task.state === 'pending')
  const seized = yield* rows<{ id: string; fence: number }>(seize({ tasks: pending.map((t) => ({ task_id: t.id, at_fence: t.fence })) }))
  const fences = new Map(seized.map(({ id, fence }) => [id, fence]))
  const { answers } = yield* settleTasks(
    overdue.flatMap((task) => {
      const fence = task.state === 'running' ? task.fence : fences.get(task.id)
      if (fence === undefined) return []
      const canceled = task.state === 'running' && task.cancelRequestedAt !== null
      // The earlier of its times has passed; the later one may not have.
      const now = Math.min(task.deadlineAt ?? Infinity, (task.fence === 0 ? task.startBy : null) ?? Infinity)
      return [
        {
          id: task.id,
          fence,
          back: task.state === 'pending' ? 1 : 0,
          outcome: canceled ? { kind: 'cancel' as const } : lateFailure(task, now),
        },
      ]
    }),
    view,
  )
  return answers.filter(({ kind }) => kind === 'settled').length
}

/** Whether a task of that id was erased within the last week. */
export function* wasErased(id: string, clientId: string | null): Script<boolean> {
  return (yield* first(readTombstone({ id, clientId }))) !== null
}
