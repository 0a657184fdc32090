/** How many tasks are open: counted in portions with pauses between them, so that nothing else waits for it. */
import type { Clock } from '../core/clock.ts'
import type { Millis } from '../core/model.ts'
import type { OpenTaskCursor, StoreWith } from '../store/interfaces.ts'

/** Between two portions: a million open tasks are counted within some seconds, a few milliseconds at a time. */
const COUNT_PAUSE_MS: Millis = 10

/** Pending and running tasks of a client, or of all for null: right but for what came and went while it counted. */
export async function countOpenTasks(
  store: StoreWith<{ tasks: 'countOpen' }>,
  clock: Clock,
  clientId: string | null = null,
): Promise<number> {
  let counted = 0
  for (let after: OpenTaskCursor | null = null; ; ) {
    const portion: { n: number; next: OpenTaskCursor | null } = await store.tasks.countOpen(after, clientId)
    counted += portion.n
    after = portion.next
    if (after === null) return counted
    await new Promise<void>((resolve) => {
      clock.after(COUNT_PAUSE_MS, resolve)
    })
  }
}

/** Room for tasks that no request asks for: those of ticks, and those that a walk begins anew. Whoever opens them waits while there is none. */
export interface OpenTaskBudget {
  /** Up to so many more of the client's may be opened now; they count as open from here on. Right but for what is under way while it counts. */
  reserve(clientId: string, wanted: number): Promise<number>
  /** Whether there is none for anybody. */
  isFull(): Promise<boolean>
}
export interface OpenTaskBudgetOptions {
  readonly store: StoreWith<{ tasks: 'countOpen' }>
  readonly clock: Clock
  readonly maxOpenTasks: number
  readonly maxOpenTasksPerClient: number
}
/** How long a count is believed. */
export const COUNT_TTL_MS: Millis = 10_000

interface CountedTasks {
  readonly at: Millis
  readonly open: Promise<number>
  taken: number
}
export function createOpenTaskBudget({ store, clock, maxOpenTasks, maxOpenTasksPerClient }: OpenTaskBudgetOptions): OpenTaskBudget {
  const counts = new Map<string | null, CountedTasks>()
  const countOf = (clientId: string | null): CountedTasks => {
    const now = clock.now()
    for (const [id, { at }] of counts) if (now - at >= COUNT_TTL_MS) counts.delete(id)
    const known = counts.get(clientId)
    if (known) return known
    const fresh: CountedTasks = { at: now, open: countOpenTasks(store, clock, clientId), taken: 0 }
    counts.set(clientId, fresh)
    // What could not be counted is counted anew by the next who asks.
    fresh.open.catch(() => counts.delete(clientId))
    return fresh
  }
  return {
    async reserve(clientId, wanted) {
      const all = countOf(null)
      const open = await all.open
      // As long as all together have no more than one may have, nobody has to be counted alone.
      const own = open + all.taken + wanted > maxOpenTasksPerClient ? countOf(clientId) : all
      const ownOpen = await own.open
      const left = Math.min(maxOpenTasks - open - all.taken, maxOpenTasksPerClient - ownOpen - own.taken)
      const granted = Math.max(0, Math.min(wanted, left))
      for (const count of new Set([all, own, counts.get(clientId) ?? all])) count.taken += granted
      return granted
    },
    async isFull() {
      const all = countOf(null)
      return (await all.open) + all.taken >= maxOpenTasks
    },
  }
}
