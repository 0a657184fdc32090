/** Ends tasks past their deadline. */
import type { Millis, Task } from '../../../core/model.ts'
import { taskColumns } from '../../columns.ts'
import { bind, now, type RecordColumns, rows, type Script, sql, statement } from '../../script.ts'
import type { RenderContext } from '../outbox.ts'
import { lateFailure } from './claim.ts'
import { settleTasks } from './settle.ts'

const readOverdue = statement(
  (d) =>
    sql`select ${taskColumns} from tasks where id ${d.anyOf(sql`
      select id from (select id from tasks where state = 'pending' and start_by is not null and start_by <= ${bind('now')} and fence = 0 order by start_by limit ${bind('limit')}) a
      union select id from (select id from tasks where state in ('pending', 'running') and deadline_at is not null and deadline_at <= ${bind('now')}
        and (state = 'pending' or deadline_at <= ${bind('late')}) order by deadline_at limit ${bind('limit')}) b
      union select id from (select id from tasks where state = 'running' and cancel_requested_at <= ${bind('late')} limit ${bind('limit')}) c`)}`,
)
const TAKEN: RecordColumns = { task_id: 'text', at_fence: 'int8' }
const takePending = statement(
  (d) => sql`update tasks set state = 'running', fence = tasks.fence + 1, tries = tasks.tries + 1
    from ${d.records('tasks', TAKEN)} v
    where tasks.id = v.task_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'pending'
      ${d.restrictTo(sql`tasks.id`, sql`select y.task_id from ${d.records('tasks', TAKEN)} y`)} returning tasks.id as id, tasks.fence as fence`,
)
/** Ends pending tasks past `startBy` or `deadlineAt`, and running ones that outlived a cancel or their deadline by `graceMs`. */
export function* endOverdue(limit: number, graceMs: Millis, view: RenderContext): Script<number> {
  const at = yield* now()
  const overdue = yield* rows<Task>(readOverdue({ limit, now: at, late: at - graceMs }))
  if (overdue.length === 0) return 0
  const pending = overdue.filter((task) => task.state === 'pending')
  const taken = yield* rows<{ id: string; fence: number }>(
    takePending({ tasks: pending.map((t) => ({ task_id: t.id, at_fence: t.fence })) }),
  )
  const fences = new Map(taken.map(({ id, fence }) => [id, fence]))
  const { answers } = yield* settleTasks(
    overdue.flatMap((task) => {
      const fence = task.state === 'running' ? task.fence : fences.get(task.id)
      if (fence === undefined) return []
      const canceled = task.state === 'running' && task.cancelRequestedAt !== null
      // At least the earlier of its times has passed.
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
