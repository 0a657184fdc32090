/** Erases the rows of deleted clients, page by page. */
import type { Clock } from '../../core/clock.ts'
import type { Millis } from '../../core/model.ts'
import type { StoreWith } from '../../store/interfaces.ts'
import type { Chore } from './runner.ts'

/** Pages of one client in one run. */
const MAX_PAGES = 100
/** For this long after a deletion, a request that was authenticated before it may still write. */
const LATE_MS: Millis = 600_000

export function eraseClients(store: StoreWith<{ maintenance: 'findDeletedClient' | 'eraseClient' }>, clock: Pick<Clock, 'now'>): Chore {
  /** When this node first saw each deleted client. */
  let deletedAt = new Map<string, Millis>()
  return {
    name: 'erase deleted clients',
    everyMs: 20_000,
    async run(signal) {
      const now = clock.now()
      const seen: typeof deletedAt = new Map()
      let erased = 0
      let id = await store.maintenance.findDeletedClient('')
      for (; id !== null && !signal.aborted; id = await store.maintenance.findDeletedClient(id)) {
        const since = deletedAt.get(id) ?? now
        seen.set(id, since)
        const last = now - since >= LATE_MS
        for (let pages = 0; pages < MAX_PAGES && (await store.maintenance.eraseClient({ id, last })) === 'more'; pages++) erased++
      }
      deletedAt = seen
      return erased
    },
  }
}
