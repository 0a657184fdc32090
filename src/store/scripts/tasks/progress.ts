/** Progress reports of running tasks. */
import type { Millis, Task } from '../../../core/model.ts'
import { updatedTaskColumns } from '../../columns.ts'
import type { Progress, ProgressReport } from '../../interfaces.ts'
import { byLease, leaseKey } from '../../queue/leases.ts'
import { bind, type RecordColumns, rows, type Script, sql, statement } from '../../script.ts'
import { emit, type RenderContext } from '../outbox.ts'
import { idRows, ids } from '../shared.ts'
import { followers } from './rows.ts'

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
// Few deliveries are younger than a second, but a long task may have many: coalesce keeps the planner off the index of the task.
const readLastProgress = statement(
  (d) => sql`select distinct w.task_id as id from deliveries w where w.client_id ${d.anyOf(ids(d, 'clients'))}
    and w.created_at > ${bind('since')} and w.event_type = 'task.progress' and w.trigger = 'event' and coalesce(w.task_id, '') ${d.anyOf(ids(d))}`,
)
/** Emits progress events for subscribers, at most one a second for each task. */
function* emitProgress(tasks: readonly Task[], view: RenderContext): Script<ReadonlyMap<string, ProgressReport['notified']>> {
  const clients = yield* followers(tasks)
  const followed = tasks.filter((task) => task.callback !== null && clients.has(task.clientId))
  if (followed.length === 0) return new Map()
  const since = followed[0]!.updatedAt - PROGRESS_EVERY_MS
  const recent = yield* rows<{ id: string }>(
    readLastProgress({ clients: idRows(followed.map(({ clientId }) => clientId)), ids: idRows(followed.map(({ id }) => id)), since }),
  )
  const early = new Set(recent.map(({ id }) => id))
  yield* emit(
    followed.filter(({ id }) => !early.has(id)).map((task) => ({ task, type: 'task.progress', at: task.updatedAt })),
    view,
  )
  return new Map(followed.map(({ id }) => [id, early.has(id) ? 'early' : 'sent']))
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
  const notifying = new Set(reports.filter((report) => report.notify).map(leaseKey))
  const notified = yield* emitProgress(
    written.filter((task) => notifying.has(leaseKey(task))),
    view,
  )
  const held = byLease(written)
  return reports.map((report) => {
    const lease = leaseKey(report)
    const task = held.get(lease)
    if (!task) return { kind: 'stale' }
    return { kind: 'settled', value: task, notified: notifying.has(lease) ? (notified.get(task.id) ?? 'nobody') : 'early' }
  })
}
