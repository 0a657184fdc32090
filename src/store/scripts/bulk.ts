/** Cancel and retry by filter, page by page. A page and its checkpoint are one commit. */
import type { Millis, State, Task } from '../../core/model.ts'
import type { BulkCheckpoint, BulkFilter, LeaseRef, Position } from '../interfaces.ts'
import { type BoundStatement, execute, query, rows, type Script, type SQL, sql, statement } from '../script.ts'
import { loadCheckpoint, writeCheckpointCall } from './checkpoints.ts'
import { scanTasks } from './lists.ts'
import type { RenderContext } from './outbox.ts'
import { idRows, ids, isIn } from './shared.ts'
import { cancelTasks, retryEndedTasks } from './tasks/change.ts'

/** Rows one page reads, matching or not. */
const SCANNED = 2_000
/** Rows one commit changes, and bytes of their inputs: the event of a cancel holds the input. */
const MAX_CHANGED = 500
const MAX_BYTES = 8 * 1024 * 1024

interface BulkRow {
  readonly id: string
  readonly createdAt: Millis
  /** Bytes of the input; null: the task does not match. */
  readonly bytes: number | null
}

/** Leaves out the platform's own tasks, and tasks that were already asked to end. */
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

/** Where the next page starts after a page that was read to its end; null: there is none. */
const nextAfter = (found: readonly BulkRow[]): Position | null => {
  const last = found.at(-1)
  return last !== undefined && found.length === SCANNED ? { at: last.createdAt, id: last.id } : null
}

/** How many a page of the filter matches, and where the next one starts. */
export function* countBulk(
  filter: BulkFilter,
  after: Position | null,
): Script<{ readonly matched: number; readonly next: Position | null }> {
  const found = yield* rows<BulkRow>(scanning(filter, after))
  return { matched: found.filter(({ bytes }) => bytes !== null).length, next: nextAfter(found) }
}

/** As many of the found rows as one commit may change, and where the next page starts. */
function limitToCommit(found: readonly BulkRow[]): { readonly chosen: readonly string[]; readonly next: Position | null } {
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
  return { chosen, next: nextAfter(found) }
}

const lockTasks = statement((d) => sql`select id, state, fence from tasks where id ${d.anyOf(ids(d))} order by id ${d.lock}`)

/**
 * One page: pending tasks are canceled, running ones asked to end, ended ones retried, with the checkpoint in the same commit. So a page is neither
 * repeated nor left out after a crash. `asked` are the running ones. Null: the lease was lost and nothing was written.
 */
export function* bulkPage(
  lease: LeaseRef,
  filter: BulkFilter,
  view: RenderContext,
): Script<{ readonly checkpoint: BulkCheckpoint; readonly changed: readonly string[]; readonly asked: readonly string[] } | null> {
  const before = yield* loadCheckpoint<BulkCheckpoint>(lease, { after: null, done: false, changed: 0, asked: 0 }, { lock: false })
  if (before === null) return null
  if (before.done) return { checkpoint: before, changed: [], asked: [] }
  const { chosen, next } = limitToCommit(yield* rows<BulkRow>(scanning(filter, before.after)))
  // In the order of ids, together with the task of this job: renewals and settlements lock in that order too.
  const locked = yield* rows<Pick<Task, 'id' | 'state' | 'fence'>>(lockTasks({ ids: idRows([...chosen, lease.id]) }))
  if (!locked.some(({ id, fence, state }) => id === lease.id && fence === lease.fence && state === 'running')) return null
  const changing = locked.filter(({ id, state }) => id !== lease.id && filter.states.includes(state)).map(({ id }) => id)
  const { changed, asked } = yield* change(changing, filter, view)
  const checkpoint: BulkCheckpoint = {
    after: next,
    done: next === null,
    changed: before.changed + changed.length,
    asked: before.asked + asked.length,
  }
  yield* execute([writeCheckpointCall(lease, checkpoint)])
  return { checkpoint, changed, asked }
}

const OPEN_STATES: ReadonlySet<State> = new Set(['pending', 'running'])
/** Open tasks are canceled, ended ones are retried. The states of a filter are all of one kind. */
function* change(
  changing: readonly string[],
  { clientId, states }: BulkFilter,
  view: RenderContext,
): Script<{ readonly changed: readonly string[]; readonly asked: readonly string[] }> {
  if (changing.length === 0) return { changed: [], asked: [] }
  if (!states.every((state) => OPEN_STATES.has(state))) return { changed: yield* retryEndedTasks(changing, clientId), asked: [] }
  const canceled = yield* cancelTasks(changing, clientId, view)
  return { changed: canceled.map(({ id }) => id), asked: canceled.filter(({ state }) => state === 'running').map(({ id }) => id) }
}
