/** Counts open tasks in pages with pauses between them, so that no other statement waits for it. */
import type { Clock } from '../core/clock.ts'
import type { Millis } from '../core/model.ts'
import type { OpenTaskCursor, StoreWith } from '../store/interfaces.ts'

/** Between two pages. A count of a million tasks takes some seconds, a few milliseconds at a time. */
const COUNT_PAUSE_MS: Millis = 10

/** Pending and running tasks of a client, or of all clients for null. Tasks that open or end during the count may be missed. */
export async function countOpenTasks(
  store: StoreWith<{ tasks: 'countOpen' }>,
  clock: Clock,
  clientId: string | null = null,
): Promise<number> {
  let counted = 0
  for (let after: OpenTaskCursor | null = null; ; ) {
    const page: { n: number; next: OpenTaskCursor | null } = await store.tasks.countOpen(after, clientId)
    counted += page.n
    after = page.next
    if (after === null) return counted
    await new Promise<void>((resolve) => {
      clock.after(COUNT_PAUSE_MS, resolve)
    })
  }
}

/** The limit on open tasks, for tasks that no request creates: those of schedules and of bulk retries. They wait until it allows more. */
export interface OpenTaskBudget {
  /** Returns how many of `wanted` tasks the client may open now. They count as open. Approximate: see {@link countOpenTasks}. */
  reserve(clientId: string, wanted: number): Promise<number>
  /** Whether no client may open more. */
  isFull(): Promise<boolean>
}
export interface OpenTaskBudgetOptions {
  readonly store: StoreWith<{ tasks: 'countOpen' }>
  readonly clock: Clock
  readonly maxOpenTasks: number
  readonly maxOpenTasksPerClient: number
}
/** How long a count is reused. */
export const COUNT_TTL_MS: Millis = 10_000

interface CountedTasks {
  readonly at: Millis
  readonly open: Promise<number>
  reserved: number
}
export function createOpenTaskBudget({ store, clock, maxOpenTasks, maxOpenTasksPerClient }: OpenTaskBudgetOptions): OpenTaskBudget {
  const counts = new Map<string | null, CountedTasks>()
  const countOf = (clientId: string | null): CountedTasks => {
    const now = clock.now()
    for (const [id, { at }] of counts) if (now - at >= COUNT_TTL_MS) counts.delete(id)
    const known = counts.get(clientId)
    if (known) return known
    const fresh: CountedTasks = { at: now, open: countOpenTasks(store, clock, clientId), reserved: 0 }
    counts.set(clientId, fresh)
    // After a failed count the next call counts again.
    fresh.open.catch(() => counts.delete(clientId))
    return fresh
  }
  return {
    async reserve(clientId, wanted) {
      const all = countOf(null)
      const open = await all.open
      // While all clients together are below the limit of one client, no client is counted alone.
      const own = open + all.reserved + wanted > maxOpenTasksPerClient ? countOf(clientId) : all
      const ownOpen = await own.open
      const left = Math.min(maxOpenTasks - open - all.reserved, maxOpenTasksPerClient - ownOpen - own.reserved)
      const granted = Math.max(0, Math.min(wanted, left))
      for (const count of new Set([all, own, counts.get(clientId) ?? all])) count.reserved += granted
      return granted
    },
    async isFull() {
      const all = countOf(null)
      return (await all.open) + all.reserved >= maxOpenTasks
    },
  }
}
