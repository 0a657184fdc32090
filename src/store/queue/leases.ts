/** Leases of both tables of work: renewed by whoever holds them, found by the janitor when they have ended. */
import { type Delivery, type Millis, type Task, WORKER_PREFIX, type WorkKind } from '../../core/model.ts'
import { deliveryColumns, taskColumns } from '../columns.ts'
import type { ExpiredWork, LeaseEnd, LeaseRef, Renewal } from '../interfaces.ts'
import { bind, execute, first, rows, runAll, type Script, sql, statement } from '../script.ts'

const tables = { task: 'tasks', delivery: 'deliveries' } as const

/** Names a lease: one claim of one row. */
export const leaseKey = ({ id, fence }: LeaseRef): string => `${id} ${fence}`
/** By lease, the first that presents it: a lease ends once, also when two who hold it share a batch. */
export function byLease<P extends LeaseRef>(presented: readonly P[]): Map<string, P> {
  const first = new Map<string, P>()
  for (const each of presented) if (!first.has(leaseKey(each))) first.set(leaseKey(each), each)
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

/** Renews what is still held under its fence; the rest was lost. */
export function* renew(kind: WorkKind, held: readonly LeaseRef[], leaseMs: Millis): Script<readonly Renewal[]> {
  const kept = yield* rows<{ id: string; cancelRequestedAt: Millis | null }>(
    renewals[kind]({ held: held.map(({ id, fence }) => ({ work_id: id, at_fence: fence })), leaseMs }),
  )
  const byId = new Map(kept.map((row) => [row.id, row]))
  return held.map(({ id }) => ({ id, renewed: byId.has(id), cancelRequested: byId.get(id)?.cancelRequestedAt != null }))
}

/** How long it is known how a lease was ended by its holder. */
const REMEMBERED_MS: Millis = 3_600_000
const remember = statement(
  (d) => sql`insert into idempotency (client_id, scope, key, fingerprint, task_ids, expires_at)
    select v.client_id, 'lease', v.key, v.fingerprint, '[]', ${d.now} + ${bind('keepMs')}
    from ${d.records('ended', { client_id: 'text', key: 'text', fingerprint: 'text' })} v
    where true order by v.client_id, v.key on conflict (client_id, scope, key) do nothing`,
)
/** Keeps how leases were ended by their holders. A result that was taken is not kept: its task shows under which fence it completed. */
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
/** The task as it is now, if the holder of that lease ended it so. */
export function* findTaskByEndedLease(lease: LeaseRef, as: LeaseEnd): Script<Task | null> {
  return yield* first<Task>(readEnded({ id: lease.id, fence: lease.fence, lease: leaseKey(lease), as }))
}

const expiring = (kind: WorkKind) =>
  statement((d) => {
    const columns = kind === 'task' ? taskColumns : deliveryColumns
    const byWorker = sql.raw(`like '${WORKER_PREFIX}%'`)
    // A worker's own times are kept here: it may renew its lease for as long as it likes.
    const late =
      kind === 'task'
        ? sql`or leased_by ${byWorker} and (started_at + timeout_seconds * 1000 <= ${d.now} or deadline_at <= ${d.now})`
        : sql``
    // Workers over HTTP keep their leases over a restart of the node.
    return sql`select ${columns} from ${sql.raw(tables[kind])} where state = 'running'
      and (leased_until <= ${d.now} or leased_by <> coalesce(${bind('boot')}, leased_by) and leased_by not ${byWorker} ${late}) limit ${bind('limit')}`
  })
const expired = { task: expiring('task'), delivery: expiring('delivery') }

/** Running work whose lease has ended, or that another boot than `boot` holds (null: by lease alone). */
export function* findExpired(limit: number, boot: string | null): Script<ExpiredWork> {
  const [tasks, deliveries] = yield* runAll([expired.task({ limit, boot }), expired.delivery({ limit, boot })])
  return { tasks: tasks as unknown as readonly Task[], deliveries: deliveries as unknown as readonly Delivery[] }
}
