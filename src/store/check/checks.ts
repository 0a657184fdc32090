/**
 * What the consistency check shares: the checks by name, pages, and the rules of leased work. Pages follow the order of keys. Each page is one
 * consistent read, and every rule is decided within it, so servers may run meanwhile.
 */
import type { Millis, State, WorkKind } from '../../core/model.ts'
import { type BoundStatement, type Dialect, rows, type Script, type SQL, sql, statement } from '../script.ts'

/** What the consistency check proves, each check in a sentence. */
export const checks = {
  endings: 'Every ended generation of a task has exactly one terminal event, and no open task has one.',
  bodies: 'The body of every event is JSON and agrees with its task.',
  rows: 'The lease, tries, result and reason of every task and delivery fit its state.',
  leases: 'No expired lease is left unclaimed while a node is running.',
  owed: 'Every event owed to an endpoint has its delivery, and every delivery has its event and endpoint.',
  attempts: 'Every ended delivery has an attempt with its outcome, and every try is recorded.',
  feeds: 'The feed of every client has no gaps, except for pruned events.',
  lanes: 'Every lane with claimable work has a turn, and its holds and limits are those of its endpoint.',
  traces: 'Labels, attempts, idempotency keys and tombstones belong to rows that exist or existed.',
} as const
export type CheckName = keyof typeof checks
export interface Violation {
  readonly check: CheckName
  /** Quotes the ids of all rows concerned. */
  readonly sentence: string
}
export interface CheckPage<Mark> {
  readonly rowsChecked: number
  readonly violations: readonly Violation[]
  /** Where the next page starts; null: there is none. */
  readonly next: Mark | null
}

export const PAGE = 500
/** Characters of texts in memory at once. */
const MAX_BYTES = 4 * 1024 * 1024
/** A transaction that records an event does not see an endpoint that another open transaction is adding. No transaction lasts this long. */
export const SETTLED_MS: Millis = 60_000

export const idsOf = (d: Dialect, name = 'ids'): SQL => sql`select v.id from ${d.records(name, { id: 'text' })} v`
export const idRecords = (ids: Iterable<string | null>): { id: string }[] =>
  [...new Set(ids)].filter((id) => id !== null).map((id) => ({ id }))
export const nextMark = <T, Mark>(found: readonly T[], most: number, mark: (last: T) => Mark): Mark | null =>
  found.length < most ? null : mark(found.at(-1)!)

const readDoomed = statement(() => sql`select id from clients where status = 'deleted'`)
/** Leaves out the rows of deleted clients: they are erased page by page and are no longer consistent. */
export function* withoutDeletedClients<T extends { readonly clientId: string }>(found: readonly T[]): Script<readonly T[]> {
  const doomed = new Set((yield* rows<{ id: string }>(readDoomed())).map(({ id }) => id))
  return doomed.size === 0 ? found : found.filter(({ clientId }) => !doomed.has(clientId))
}

/** Reads texts of rows, some megabytes at a time. */
export function* inChunks(
  sized: readonly { readonly id: string; readonly bytes: number }[],
  read: (values: { ids: { id: string }[] }) => BoundStatement,
  see: (id: string, text: string) => void,
): Script<void> {
  for (let from = 0; from < sized.length; ) {
    let to = from
    for (let bytes = 0; to < sized.length && (to === from || bytes + sized[to]!.bytes <= MAX_BYTES); to++) bytes += sized[to]!.bytes
    const ids = sized.slice(from, to).map(({ id }) => ({ id }))
    for (const { id, text } of yield* rows<{ id: string; text: string }>(read({ ids }))) see(id, text)
    from = to
  }
}

/** How long a lease may have expired before a running node must have found it. */
export interface LeaseGrace {
  readonly withinMs: Millis
}
/** A node counts as running when it was seen within this time. Nodes report every 20 s. */
const SEEN_MS: Millis = 60_000
export const readSeen = statement(
  (d) => sql`select case when max(worker_seen_at) > ${d.now} - ${sql.raw(String(SEEN_MS))} then 1 else 0 end as served from queues`,
)

export interface LeasedRow {
  readonly id: string
  readonly state: State
  readonly tries: number
  readonly maxTries: number
  readonly fence: number
  readonly leasedUntil: Millis | null
  readonly leasedBy: string | null
}
/** The rules that hold for tasks and deliveries. */
export function judgeWork(kind: WorkKind, row: LeasedRow, at: Millis, served: boolean, { withinMs }: LeaseGrace): Violation[] {
  const it = `${kind === 'task' ? 'Task' : 'Delivery'} ${row.id}`
  const found: Violation[] = []
  const must = (holds: boolean, check: CheckName, sentence: string): void =>
    void (holds || found.push({ check, sentence: `${it} ${sentence}` }))
  const leased = row.leasedUntil !== null && row.leasedBy !== null
  if (row.state === 'running') {
    must(leased, 'rows', 'is running without a lease.')
    const late = at - (row.leasedUntil ?? at)
    must(!served || late <= withinMs, 'leases', `is running under a lease of ${row.leasedBy} that ended ${Math.round(late / 1000)} s ago.`)
  } else must(row.leasedUntil === null && row.leasedBy === null, 'rows', `is ${row.state} and holds a lease of ${row.leasedBy}.`)
  must(row.tries >= 0 && row.tries <= row.maxTries, 'rows', `counts ${row.tries} tries of ${row.maxTries}.`)
  must(row.fence >= row.tries, 'rows', `counts ${row.tries} tries under ${row.fence} fences.`)
  return found
}
