/** The depth limits: over so many open tasks, of a client or of all, new ones are refused. */
import type { Clock } from '../../core/clock.ts'
import { RingbackError } from '../../core/errors.ts'
import type { Millis } from '../../core/model.ts'
import { countOpenTasks } from '../../engine/open-tasks.ts'
import type { StoreWith } from '../../store/interfaces.ts'

/** Counted anew at most this often, and at least that often while tasks come in. */
const SOONEST_MS: Millis = 1_000
const LATEST_MS: Millis = 60_000
/** More than all nodes together take in: how long the room there is lasts at least. */
const MAX_PER_MS = 50
/** Clients whose tasks are counted; of more than these the one that has sent none for longest is counted anew. */
const MAX_CLIENTS = 10_000

export interface OpenTaskLimitOptions {
  readonly store: StoreWith<{ tasks: 'countOpen' }>
  readonly clock: Clock
  readonly maxOpenTasks: number
  readonly maxPerClient: { readonly openTasks: number }
}

/**
 * Refuses new tasks over the limit of all with 503, and over that of their client with 429. Counts are made behind the callers' backs, the
 * more seldom the farther the limit is; nobody waits for them. A limit is passed at most by what all nodes take in during a count and the
 * second after it.
 */
export function createOpenTaskCheck(options: OpenTaskLimitOptions): (clientId: string, adding: number, now: Millis) => void {
  const { store, clock, maxOpenTasks } = options
  const most = options.maxPerClient.openTasks
  const all = createCount(() => countOpenTasks(store, clock))
  const clients = new Map<string, OpenTaskCount>()
  const countOf = (clientId: string): OpenTaskCount => {
    const known = clients.get(clientId) ?? createCount(() => countOpenTasks(store, clock, clientId))
    clients.delete(clientId)
    if (clients.size >= MAX_CLIENTS) for (const oldest of clients.keys()) if (clients.delete(oldest)) break
    clients.set(clientId, known)
    return known
  }
  return (clientId, adding, now) => {
    // As long as all together have no more than one may have, nobody has to be looked at alone.
    const crowded = all.openWith(0) + adding > most
    const own = crowded ? countOf(clientId).add(adding, now, most) : 0
    const total = all.add(adding, now, crowded ? maxOpenTasks : Math.min(maxOpenTasks, most))
    if (own > most)
      throw new RingbackError(
        'quota_exceeded',
        `You have ${most} open tasks, as many as a client may have here: wait until some have ended, or cancel some.`,
        { headers: COME_AGAIN },
      )
    if (total > maxOpenTasks)
      throw new RingbackError('temporary_reduced_capacity', `${maxOpenTasks} tasks are open, which is the limit; try again later.`, {
        headers: COME_AGAIN,
      })
  }
}

const COME_AGAIN = { 'Retry-After': '10' }

interface OpenTaskCount {
  /** Has it counted when that is due, by the distance to `limit`. Answers how many are open with those that are added. */
  add(adding: number, now: Millis, limit: number): number
  openWith(adding: number): number
}

function createCount(counted: () => Promise<number>): OpenTaskCount {
  let open = 0
  let countedAt = Number.NEGATIVE_INFINITY
  /** Taken in here since the count began. */
  let added = 0
  let counting = false
  const count = async (): Promise<void> => {
    counting = true
    added = 0
    try {
      open = await counted()
    } catch {
      // The store is down: adding the task says so.
    } finally {
      counting = false
    }
  }
  return {
    add(adding, now, limit) {
      added += adding
      const lastsMs = (limit - open - added) / MAX_PER_MS
      if (!counting && now - countedAt >= Math.min(LATEST_MS, Math.max(SOONEST_MS, lastsMs))) {
        countedAt = now
        void count()
      }
      return open + adding
    },
    openWith: (adding) => open + adding,
  }
}
