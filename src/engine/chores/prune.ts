/** Removes what is past its retention. */
import type { Millis } from '../../core/model.ts'
import type { StoreWith } from '../../store/interfaces.ts'
import { type Chore, PAGE, repeatWhileFull } from './runner.ts'

/** Tasks looked at in one run; the next run continues there. At one run a minute 5,000 tasks a second can be pruned. */
const MAX_TASKS = 300_000

/** Ended tasks with their events and deliveries, expired idempotency keys, and tombstones. */
export function pruneTasks(store: StoreWith<{ maintenance: 'pruneTasks' | 'pruneRecords' }>, minKeptMs: Millis): Chore {
  let after = ''
  return {
    name: 'prune tasks',
    everyMs: 60_000,
    async run(signal) {
      let count = 0
      while (await store.maintenance.pruneRecords({ limit: PAGE }));
      for (let looked = 0; looked < MAX_TASKS && !signal.aborted; looked += PAGE) {
        const { removed, next } = await store.maintenance.pruneTasks({ after, limit: PAGE, minKeptMs })
        count += removed
        after = next ?? ''
        if (next === null) break
      }
      return count
    },
  }
}

/** Lanes of concurrency keys that no task uses. */
export const pruneLanes = (store: StoreWith<{ maintenance: 'pruneLanes' }>): Chore => ({
  name: 'prune lanes',
  everyMs: 600_000,
  async run(signal) {
    for (let after: string | null = ''; after !== null && !signal.aborted; )
      after = await store.maintenance.pruneLanes({ after, limit: PAGE })
    return 0
  },
})

/** Old endpoint events, and the rows of deleted endpoints. There are far fewer of them than tasks. */
export const pruneEndpointEvents = (store: StoreWith<{ maintenance: 'pruneEndpointEvents' }>, keptMs: Millis): Chore => ({
  name: 'prune endpoint events',
  everyMs: 3_600_000,
  async run(signal) {
    let count = 0
    for (let after: string | null = ''; after !== null && !signal.aborted; ) {
      const page: { removed: number; next: string | null } = await store.maintenance.pruneEndpointEvents({ after, limit: PAGE, keptMs })
      count += page.removed
      after = page.next
    }
    return count
  },
})

/** Rotated secrets past their overlap, old audit log entries, and ended keys. */
export const pruneRecords = (
  store: StoreWith<{ signing: 'erasePreviousSecrets'; maintenance: 'pruneAuditLog' | 'pruneKeys' }>,
  keptMs: Millis,
): Chore => ({
  name: 'prune records',
  everyMs: 3_600_000,
  run: async (signal) =>
    (await repeatWhileFull((limit) => store.signing.erasePreviousSecrets({ limit }), signal)) +
    (await repeatWhileFull((limit) => store.maintenance.pruneAuditLog({ limit, keptMs }), signal)) +
    (await repeatWhileFull((limit) => store.maintenance.pruneKeys({ limit, keptMs }), signal)),
})
