/** Changes by clients and operators: cancel, retry, erase. */
import type { Millis, Task } from '../../../core/model.ts'
import { taskColumns } from '../../columns.ts'
import type { TaskChange } from '../../interfaces.ts'
import { leaveLanes } from '../../queue/lane.ts'
import { addTurns, turnsFor } from '../../queue/run-queue.ts'
import { bind, execute, first, rows, runAll, type Script, sql, statement } from '../../script.ts'
import type { RenderContext } from '../outbox.ts'
import { TOMBSTONE_MS } from '../retention.ts'
import { clientMatches, idRows, ids } from '../shared.ts'
import { afterwards, readTask, ready } from './rows.ts'

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
  const changed = yield* rows<Task>(cancel({ ids: idRows(chosen), clientId }))
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
  (d) => sql`update tasks set state = 'pending', generation = generation + 1, revision = revision + 1, tries = 0,
      progress = 0, progress_message = null, result = null, error = null, last_error = null, started_at = null, finished_at = null, cancel_requested_at = null, start_by = null, deadline_at = null,
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
    redo({ ids: idRows(chosen), clientId }),
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

/** Whether a task of that id was erased within the last week. */
export function* wasErased(id: string, clientId: string | null): Script<boolean> {
  return (yield* first(readTombstone({ id, clientId }))) !== null
}
