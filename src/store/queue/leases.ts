/** Leases of tasks and deliveries: renewal, expiry, and how workers ended them. */
import { type Delivery, type Millis, type Task, WORKER_PREFIX, type WorkKind } from '../../core/model.ts'
import { deliveryColumns, taskColumns } from '../columns.ts'
import type { ExpiredWork, LeaseEnd, LeaseRef, Renewal } from '../interfaces.ts'
import { bind, execute, first, rows, runAll, type Script, sql, statement } from '../script.ts'

const tables = { task: 'tasks', delivery: 'deliveries' } as const

export const leaseKey = ({ id, fence }: LeaseRef): string => `${id} ${fence}`
/** The first item of each lease: a lease ends once, even when one batch settles it twice. */
export function byLease<P extends LeaseRef>(items: readonly P[]): Map<string, P> {
  const first = new Map<string, P>()
  for (const item of items) if (!first.has(leaseKey(item))) first.set(leaseKey(item), item)
  return first
}

const renewing = (kind: WorkKind) =>
  statement((d) => {
    const table = sql.raw(tables[kind])
    return sql`update ${table} set leased_until = ${d.now} + ${bind('leaseMs')}
      from ${d.records('held', { work_id: 'text', at_fence: 'int8' })} v
      where ${table}.id = v.work_id and ${table}.fence = v.at_fence and coalesce(${table}.state, '') = 'running'
        ${d.restrictTo(
          sql`${table}.id`,
          sql`select k.id from ${table} k where k.id ${d.anyOf(
            sql`select y.work_id from ${d.records('held', { work_id: 'text', at_fence: 'int8' })} y`,
          )} order by k.id ${d.lock}`,
        )}
      returning ${table}.id as id, ${kind === 'task' ? sql.raw('tasks.cancel_requested_at') : sql`null`} as "cancelRequestedAt"`
  })
const renewals = { task: renewing('task'), delivery: renewing('delivery') }

/** Renews the leases that are still held under their fence; the others are lost. */
export function* renew(kind: WorkKind, held: readonly LeaseRef[], leaseMs: Millis): Script<readonly Renewal[]> {
  const renewed = yield* rows<{ id: string; cancelRequestedAt: Millis | null }>(
    renewals[kind]({ held: held.map(({ id, fence }) => ({ work_id: id, at_fence: fence })), leaseMs }),
  )
  const byId = new Map(renewed.map((row) => [row.id, row]))
  return held.map(({ id }) => ({ id, renewed: byId.has(id), cancelRequested: byId.get(id)?.cancelRequestedAt != null }))
}

/** How long the store remembers how a worker ended a lease. */
const REMEMBERED_MS: Millis = 3_600_000
const remember = statement(
  (d) => sql`insert into idempotency (client_id, scope, key, fingerprint, task_ids, expires_at)
    select v.client_id, 'lease', v.key, v.fingerprint, '[]', ${d.now} + ${bind('keepMs')}
    from ${d.records('ended', { client_id: 'text', key: 'text', fingerprint: 'text' })} v
    where true order by v.client_id, v.key on conflict (client_id, scope, key) do nothing`,
)
/** Remembers how workers ended leases. A completed task needs no record: it has the fence under which it completed. */
export function* recordEndedLeases(ended: readonly (LeaseRef & { readonly clientId: string; readonly endedAs: LeaseEnd })[]): Script<void> {
  if (ended.length === 0) return
  const rows = ended.map((each) => ({ client_id: each.clientId, key: leaseKey(each), fingerprint: each.endedAs }))
  yield* execute([remember({ ended: rows, keepMs: REMEMBERED_MS })])
}
const readEnded = statement(
  (d) => sql`select ${taskColumns} from tasks where id = ${bind('id')}
    and (state = 'completed' and fence = ${bind('fence')} and 'complete' = ${bind('as')}
      or exists (select 1 from idempotency i where i.client_id = tasks.client_id and i.scope = 'lease' and i.key = ${bind('lease')}
        and i.fingerprint = ${bind('as')} and i.expires_at > ${d.now}))`,
)
/** The task as it is now, if its worker ended this lease this way. */
export function* findTaskByEndedLease(lease: LeaseRef, as: LeaseEnd): Script<Task | null> {
  return yield* first<Task>(readEnded({ id: lease.id, fence: lease.fence, lease: leaseKey(lease), as }))
}

const expiring = (kind: WorkKind) =>
  statement((d) => {
    const columns = kind === 'task' ? taskColumns : deliveryColumns
    const byWorker = sql.raw(`like '${WORKER_PREFIX}%'`)
    // A worker may renew its lease without end, so the task's own timeout and deadline count too.
    const late =
      kind === 'task'
        ? sql`or leased_by ${byWorker} and (started_at + timeout_seconds * 1000 <= ${d.now} or deadline_at <= ${d.now})`
        : sql``
    // Workers over HTTP keep their leases when the node restarts.
    return sql`select ${columns} from ${sql.raw(tables[kind])} where state = 'running'
      and (leased_until <= ${d.now} or leased_by <> coalesce(${bind('boot')}, leased_by) and leased_by not ${byWorker} ${late}) limit ${bind('limit')}`
  })
const expired = { task: expiring('task'), delivery: expiring('delivery') }

/** Running work whose lease has ended, or that a boot other than `boot` holds (null: only ended leases). */
export function* findExpired(limit: number, boot: string | null): Script<ExpiredWork> {
  const [tasks, deliveries] = yield* runAll([expired.task({ limit, boot }), expired.delivery({ limit, boot })])
  return { tasks: tasks as unknown as readonly Task[], deliveries: deliveries as unknown as readonly Delivery[] }
}
