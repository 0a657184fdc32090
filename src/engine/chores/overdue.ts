/** Ends what is past its time, and announces endpoints that fail. */
import type { Millis } from '../../core/model.ts'
import type { StoreWith } from '../../store/interfaces.ts'
import { type Chore, repeatWhileFull } from './runner.ts'

/** Ends pending tasks past their deadline, and running ones whose cancel was requested over `graceMs` ago. */
export const endOverdue = (store: StoreWith<{ maintenance: 'endOverdue' }>, graceMs: Millis): Chore => ({
  name: 'end overdue tasks',
  everyMs: 5_000,
  run: (signal) => repeatWhileFull((limit) => store.maintenance.endOverdue({ limit, graceMs }), signal),
})

/** Announces endpoints that have failed for a day, and fails deliveries that were open for `holdMs`. */
export const watchEndpoints = (store: StoreWith<{ maintenance: 'announceFailing' | 'expireDeliveries' }>, holdMs: Millis): Chore => ({
  name: 'watch endpoints',
  everyMs: 60_000,
  run: async (signal) =>
    // One endpoint a commit: its announcement is owed to every other endpoint of its client, and those may be a thousand.
    (await repeatWhileFull((limit) => store.maintenance.announceFailing({ limit }), signal, 1)) +
    (await repeatWhileFull((limit) => store.maintenance.expireDeliveries({ limit, holdMs }), signal)),
})
