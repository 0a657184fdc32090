/** Claims of tasks. */
import type { Millis, Task, TryOutcome } from '../../../core/model.ts'
import { taskColumns } from '../../columns.ts'
import type { WorkTable } from '../../queue/claim.ts'
import { bind, rows, type Script, sql, statement } from '../../script.ts'
import type { RenderContext } from '../outbox.ts'
import { idRows, ids } from '../shared.ts'
import { emitIfFollowed } from './rows.ts'
import { settleTasks } from './settle.ts'

const takeTasks = statement(
  // coalesce: with a plain state = 'pending' the planner could use the partial index instead of the key.
  (d) => sql`update tasks set state = 'running', fence = fence + 1, tries = tries + 1, revision = revision + 1,
      leased_until = ${d.now} + ${bind('leaseMs')}, leased_by = ${bind('by')}, started_at = ${d.now}, updated_at = ${d.now}, progress = 0, progress_message = null
    where id ${d.anyOf(sql`select x.id from tasks x where x.id ${d.anyOf(ids(d))} and coalesce(x.state, '') = 'pending' ${d.skipLocked}`)}
    returning ${taskColumns}`,
)

/** How a claim takes tasks. Those past their time end here and come back as failed. */
export const taskTable = (leaseMs: Millis, by: string, view: RenderContext): WorkTable<Task> => ({
  kind: 'task',
  ordered: true,
  *take(chosen, now): Script<readonly Task[]> {
    const taken = yield* rows<Task>(takeTasks({ ids: idRows(chosen), leaseMs, by }))
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
export const lateness = (task: Task, now: Millis): 'start_expired' | 'deadline_exceeded' | null =>
  task.deadlineAt !== null && task.deadlineAt <= now
    ? 'deadline_exceeded'
    : task.startBy !== null && task.startBy <= now && task.fence <= 1
      ? 'start_expired'
      : null
export const lateFailure = (task: Task, now: Millis): TryOutcome => {
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
