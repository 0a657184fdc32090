/** Leases of both tables of work: renewed by whoever holds them, found by the janitor when they have ended. */
import { sql } from 'drizzle-orm'
import type { Delivery, Kind, Millis, Task } from '../../model.ts'
import { deliveryColumns, taskColumns } from '../columns.ts'
import { bind, rows, type Script, statement } from '../script.ts'
import type { Held, Renewal } from '../store.ts'

const tables = { task: 'tasks', delivery: 'deliveries' } as const

/** Names a lease: one claim of one row. */
export const leaseOf = ({ id, fence }: Held): string => `${id} ${fence}`
/** By lease, the first that presents it: a lease ends once, also when two who hold it share a batch. */
export function byLease<P extends Held>(presented: readonly P[]): Map<string, P> {
  const first = new Map<string, P>()
  for (const each of presented) if (!first.has(leaseOf(each))) first.set(leaseOf(each), each)
  return first
}

const renewing = (kind: Kind) =>
  statement((d) => {
    const table = sql.raw(tables[kind])
    return sql`update ${table} set leased_until = ${d.now} + ${bind('leaseMs')}
      from ${d.records('held', { work_id: 'text', at_fence: 'int8' })} v
      where ${table}.id = v.work_id and ${table}.fence = v.at_fence and ${table}.state = 'running'
        ${d.inOrder(
          sql`${table}.id`,
          sql`select k.id from ${table} k where k.id ${d.anyOf(
            sql`select y.work_id from ${d.records('held', { work_id: 'text', at_fence: 'int8' })} y`,
          )} order by k.id ${d.lock}`,
        )}
      returning ${table}.id as id, ${kind === 'task' ? sql.raw('tasks.cancel_requested_at') : sql`null`} as "cancelRequestedAt"`
  })
const renewals = { task: renewing('task'), delivery: renewing('delivery') }

/** Renews what is still held under its fence; the rest was lost. */
export function* renew(kind: Kind, held: readonly Held[], leaseMs: Millis): Script<readonly Renewal[]> {
  const kept = yield* rows<{ id: string; cancelRequestedAt: Millis | null }>(
    renewals[kind]({ held: held.map(({ id, fence }) => ({ work_id: id, at_fence: fence })), leaseMs }),
  )
  const byId = new Map(kept.map((row) => [row.id, row]))
  return held.map(({ id }) => ({ id, kept: byId.has(id), cancelRequested: byId.get(id)?.cancelRequestedAt != null }))
}

const expiring = (kind: Kind) =>
  statement((d) => {
    const columns = kind === 'task' ? taskColumns : deliveryColumns
    // Workers over HTTP keep their leases over a restart of the node: theirs begin with "worker:".
    return sql`select ${columns} from ${sql.raw(tables[kind])} where state = 'running'
      and (leased_until <= ${d.now} or leased_by <> coalesce(${bind('boot')}, leased_by) and leased_by not like 'worker:%') limit ${bind('limit')}`
  })
const expired = { task: expiring('task'), delivery: expiring('delivery') }

/** Running work whose lease has ended, or that another boot than `boot` holds (null: by lease alone). */
export function* findExpired(kind: Kind, limit: number, boot: string | null): Script<readonly Task[] | readonly Delivery[]> {
  return yield* rows<never>(expired[kind]({ limit, boot }))
}
