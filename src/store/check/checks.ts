/**
 * What the consistency check shares: the checks by name, pages, and the rules of leased work. Pages follow the order of keys. Each page is one
 * consistent read, and every rule is decided within it, so servers may run meanwhile.
 */
import type { Millis, Work } from '../../core/model.ts'
import { type BoundStatement, rows, type Script, sql, statement } from '../script.ts'

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

/** The violations found so far. */
export class Findings {
  readonly violations: Violation[] = []
  add(check: CheckName, sentence: string): void {
    this.violations.push({ check, sentence })
  }
  /** Returns a function that adds a violation when a rule does not hold. `subject` begins its sentence. */
  about(subject: string): Rule {
    return (holds, check, sentence) => {
      if (!holds) this.add(check, `${subject} ${sentence}`)
    }
  }
  /** The result of a page of rows, of at most `max`. */
  page<T, Mark>(found: readonly T[], max: number, toMark: (last: T) => Mark): CheckPage<Mark> {
    return { rowsChecked: found.length, violations: this.violations, next: found.length < max ? null : toMark(found.at(-1)!) }
  }
}
export type Rule = (holds: boolean, check: CheckName, sentence: string) => void
export const lastId = ({ id }: { readonly id: string }): string => id

export const PAGE = 500
/** The page of small rows. */
export const LARGE_PAGE = 2_000
export const limitLarge = sql.raw(`limit ${LARGE_PAGE}`)
/** Characters of texts in memory at once. */
const MAX_BYTES = 4 * 1024 * 1024
/** A transaction that records an event does not see an endpoint that another open transaction is adding. No transaction lasts this long. */
export const SETTLED_MS: Millis = 60_000

const readDeletedClients = statement(() => sql`select id from clients where status = 'deleted'`)
/** Leaves out the rows of deleted clients: they are erased page by page and are no longer consistent. */
export function* withoutDeletedClients<T extends { readonly clientId: string }>(found: readonly T[]): Script<readonly T[]> {
  const deleted = new Set((yield* rows<{ id: string }>(readDeletedClients())).map(({ id }) => id))
  return deleted.size === 0 ? found : found.filter(({ clientId }) => !deleted.has(clientId))
}

/** Reads texts of rows, some megabytes at a time. */
export function* inChunks(
  sized: readonly { readonly id: string; readonly bytes: number }[],
  read: (values: { ids: { id: string }[] }) => BoundStatement,
  onText: (id: string, text: string) => void,
): Script<void> {
  for (let from = 0; from < sized.length; ) {
    let to = from
    for (let bytes = 0; to < sized.length && (to === from || bytes + sized[to]!.bytes <= MAX_BYTES); to++) bytes += sized[to]!.bytes
    const ids = sized.slice(from, to).map(({ id }) => ({ id }))
    for (const { id, text } of yield* rows<{ id: string; text: string }>(read({ ids }))) onText(id, text)
    from = to
  }
}

/** A node counts as running when it was seen within this time. Nodes report every 20 s. */
const SEEN_MS: Millis = 60_000
export const readNodeRunning = statement(
  (d) => sql`select case when max(worker_seen_at) > ${d.now} - ${sql.raw(String(SEEN_MS))} then 1 else 0 end as served from queues`,
)

export type LeasedRow = Pick<Work, 'id' | 'clientId' | 'laneId' | 'state' | 'tries' | 'maxTries' | 'fence' | 'leasedUntil' | 'leasedBy'>
/** What the rules of leases depend on: the time, whether a node is running, and how long after its end a node must have found a lease. */
export interface LeaseContext {
  readonly at: Millis
  readonly running: boolean
  readonly graceMs: Millis
}
/** The rules that hold for tasks and deliveries. */
export function checkLease(rule: Rule, row: LeasedRow, { at, running, graceMs }: LeaseContext): void {
  const { state, tries, maxTries, fence, leasedUntil, leasedBy } = row
  if (state === 'running') {
    rule(leasedUntil !== null && leasedBy !== null, 'rows', 'is running without a lease.')
    const lateMs = at - (leasedUntil ?? at)
    rule(
      !running || lateMs <= graceMs,
      'leases',
      `is running under a lease of ${leasedBy} that expired ${Math.round(lateMs / 1000)} s ago.`,
    )
  } else rule(leasedUntil === null && leasedBy === null, 'rows', `is ${state} but has a lease of ${leasedBy}.`)
  rule(tries >= 0 && tries <= maxTries, 'rows', `has ${tries} tries of at most ${maxTries}.`)
  rule(fence >= tries, 'rows', `has ${tries} tries but fence ${fence}.`)
}
/** Leases that expired while no node was running. */
export const countExpiredLeases = (page: readonly LeasedRow[], { at, running }: LeaseContext): number =>
  running ? 0 : page.filter(({ state, leasedUntil }) => state === 'running' && (leasedUntil ?? at) < at).length
