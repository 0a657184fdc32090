/** Cancel and retry by filter, page by page, each page with the mark of how far it came, in one commit. */
import type { Millis, State, Task } from '../../core/model.ts'
import type { BulkCheckpoint, BulkFilter, LeaseRef, Position } from '../interfaces.ts'
import { type BoundStatement, type Dialect, execute, query, rows, type Script, type SQL, sql, statement } from '../script.ts'
import { loadCheckpoint, writeCheckpointCall } from './checkpoints.ts'
import { isIn, scanTasks } from './lists.ts'
import type { RenderContext } from './outbox.ts'
import { cancelTasks, retryEndedTasks } from './tasks.ts'

/** Rows that one page looks at, whether they match or not. */
const SCANNED = 2_000
/** Rows that one commit changes, and the bytes of their inputs: each cancel is told with its input. */
const MAX_CHANGED = 500
const MAX_BYTES = 8 * 1024 * 1024

interface BulkRow {
  readonly id: string
  readonly createdAt: Millis
  /** Bytes of the input; null: the task does not match. */
  readonly bytes: number | null
}

/** The platform's own tasks are nobody's to change in bulk, and who was asked to end is not asked again. */
function scanning({ states, type, ...place }: BulkFilter, after: Position | null): BoundStatement {
  const conditions: SQL[] = [
    isIn(sql`x.state`, states),
    sql`x.type not like 'system.%'`,
    sql`(x.state <> 'running' or x.cancel_requested_at is null)`,
    ...(type === undefined ? [] : [sql`x.type = ${type}`]),
  ]
  return query(
    (d) => sql`with scanned as (${scanTasks({ ...place, order: 'asc', after }, SCANNED)})
      select p.id as id, p.created_at as "createdAt", case when ${sql.join(conditions, sql` and `)} then octet_length(x.input) end as bytes
      from scanned p ${d.leftJoin('tasks', 'x', sql`x.id = p.id`)} order by p.created_at, p.id`,
  )
}

/** Where the walk goes on behind a page that was looked at whole; null: nothing is left. */
const behind = (found: readonly BulkRow[]): Position | null => {
  const last = found.at(-1)
  return last !== undefined && found.length === SCANNED ? { at: last.createdAt, id: last.id } : null
}

/** How many a page of the filter matches, and where the next one starts. */
export function* countBulk(
  filter: BulkFilter,
  after: Position | null,
): Script<{ readonly matched: number; readonly next: Position | null }> {
  const found = yield* rows<BulkRow>(scanning(filter, after))
  return { matched: found.filter(({ bytes }) => bytes !== null).length, next: behind(found) }
}

/** As many of those found as one commit may change, and where the next page starts. */
function cut(found: readonly BulkRow[]): { readonly chosen: readonly string[]; readonly next: Position | null } {
  const chosen: string[] = []
  let size = 0
  let passed: Position | null = null
  for (const { id, createdAt, bytes } of found) {
    if (bytes !== null) {
      size += bytes
      if (chosen.length === MAX_CHANGED || (chosen.length > 0 && size > MAX_BYTES)) return { chosen, next: passed }
      chosen.push(id)
    }
    passed = { at: createdAt, id }
  }
  return { chosen, next: behind(found) }
}

const ids = (d: Dialect): SQL => sql`select v.id from ${d.records('ids', { id: 'text' })} v`
const lockTasks = statement((d) => sql`select id, state, fence from tasks where id ${d.anyOf(ids(d))} order by id ${d.lock}`)

/**
 * One page: pending tasks are canceled, running ones asked to end, ended ones begin anew; and the mark of how far it came, in one commit.
 * Whoever goes on after a crash repeats nothing and leaves out nothing. `asked` are the running ones. Null: the task is not this claim's
 * any more; nothing was written.
 */
export function* bulkPage(
  lease: LeaseRef,
  filter: BulkFilter,
  view: RenderContext,
): Script<{ readonly checkpoint: BulkCheckpoint; readonly changed: readonly string[]; readonly asked: readonly string[] } | null> {
  const before = yield* loadCheckpoint<BulkCheckpoint>(lease, { after: null, done: false, changed: 0, asked: 0 }, { lock: false })
  if (before === null) return null
  if (before.done) return { checkpoint: before, changed: [], asked: [] }
  const { chosen, next } = cut(yield* rows<BulkRow>(scanning(filter, before.after)))
  // In the order of ids, the walk's own task among them: renewals and settlements lock so too, and may hold both.
  const locked = yield* rows<Pick<Task, 'id' | 'state' | 'fence'>>(lockTasks({ ids: [...chosen, lease.id].map((id) => ({ id })) }))
  if (!locked.some(({ id, fence, state }) => id === lease.id && fence === lease.fence && state === 'running')) return null
  const going = locked.filter(({ id, state }) => id !== lease.id && filter.states.includes(state)).map(({ id }) => id)
  const { changed, asked } = yield* change(going, filter, view)
  const checkpoint: BulkCheckpoint = {
    after: next,
    done: next === null,
    changed: before.changed + changed.length,
    asked: before.asked + asked.length,
  }
  yield* execute([writeCheckpointCall(lease, checkpoint)])
  return { checkpoint, changed, asked }
}

const LIVE: ReadonlySet<State> = new Set(['pending', 'running'])
/** Live tasks end, ended ones live again: what a filter's states have in common says which. */
function* change(
  going: readonly string[],
  { clientId, states }: BulkFilter,
  view: RenderContext,
): Script<{ readonly changed: readonly string[]; readonly asked: readonly string[] }> {
  if (going.length === 0) return { changed: [], asked: [] }
  if (!states.every((state) => LIVE.has(state))) return { changed: yield* retryEndedTasks(going, clientId), asked: [] }
  const canceled = yield* cancelTasks(going, clientId, view)
  return { changed: canceled.map(({ id }) => id), asked: canceled.filter(({ state }) => state === 'running').map(({ id }) => id) }
}
