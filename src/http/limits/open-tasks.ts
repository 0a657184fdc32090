/** Limits of open tasks, per client and for all clients. */
import { LRUCache } from 'lru-cache'
import type { Clock } from '../../core/clock.ts'
import { RingbackError } from '../../core/errors.ts'
import type { Millis } from '../../core/model.ts'
import { countOpenTasks } from '../../engine/open-tasks.ts'
import type { StoreWith } from '../../store/interfaces.ts'

/** Minimum and maximum time between counts while tasks arrive. */
const MIN_INTERVAL_MS: Millis = 1_000
const MAX_INTERVAL_MS: Millis = 60_000
/** More than all nodes together accept. The distance to the limit divided by this is how long a count stays valid. */
const MAX_PER_MS = 50
/** Clients with a count of their own. The least recently used count is dropped. */
const MAX_CLIENTS = 10_000

export interface OpenTaskLimitOptions {
  readonly store: StoreWith<{ tasks: 'countOpen' }>
  readonly clock: Clock
  readonly maxOpenTasks: number
  readonly maxPerClient: { readonly openTasks: number }
}

/**
 * Refuses new tasks above the limit of all clients with 503, and above the limit of one client with 429. Counts run in the background, less often when
 * the limit is far away. A limit is exceeded at most by the tasks that all nodes accept during a count and the second after it.
 */
export function createOpenTaskCheck(options: OpenTaskLimitOptions): (clientId: string, adding: number, now: Millis) => void {
  const { store, clock, maxOpenTasks } = options
  const maxPerClient = options.maxPerClient.openTasks
  const all = createCount(() => countOpenTasks(store, clock))
  const clients = new LRUCache<string, OpenTaskCount>({ max: MAX_CLIENTS })
  const countOf = (clientId: string): OpenTaskCount => {
    const known = clients.get(clientId) ?? createCount(() => countOpenTasks(store, clock, clientId))
    clients.set(clientId, known)
    return known
  }
  return (clientId, adding, now) => {
    // While all clients together are below the limit of one client, no client needs a count of its own.
    const crowded = all.openWith(0) + adding > maxPerClient
    const own = crowded ? countOf(clientId).add(adding, now, maxPerClient) : 0
    const total = all.add(adding, now, crowded ? maxOpenTasks : Math.min(maxOpenTasks, maxPerClient))
    if (own > maxPerClient)
      throw new RingbackError(
        'quota_exceeded',
        `You have ${maxPerClient} open tasks, the maximum for one client: wait until some have ended, or cancel some.`,
        { headers: RETRY_LATER },
      )
    if (total > maxOpenTasks)
      throw new RingbackError('temporary_reduced_capacity', `${maxOpenTasks} tasks are open, which is the limit; try again later.`, {
        headers: RETRY_LATER,
      })
  }
}

const RETRY_LATER = { 'Retry-After': '10' }

interface OpenTaskCount {
  /** Adds tasks, and starts a count when one is due. Returns the number of open tasks including the added ones. */
  add(adding: number, now: Millis, limit: number): number
  openWith(adding: number): number
}

function createCount(countTasks: () => Promise<number>): OpenTaskCount {
  let open = 0
  let countedAt = Number.NEGATIVE_INFINITY
  /** Accepted on this node since the last count began. */
  let added = 0
  let counting = false
  const count = async (): Promise<void> => {
    counting = true
    added = 0
    try {
      open = await countTasks()
    } catch {
      // The store is down, which adding the task reports.
    } finally {
      counting = false
    }
  }
  return {
    add(adding, now, limit) {
      added += adding
      const validMs = (limit - open - added) / MAX_PER_MS
      if (!counting && now - countedAt >= Math.min(MAX_INTERVAL_MS, Math.max(MIN_INTERVAL_MS, validMs))) {
        countedAt = now
        void count()
      }
      return open + adding
    },
    openWith: (adding) => open + adding,
  }
}
