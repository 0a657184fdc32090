/** Adds the turns that lanes with claimable work lack. */
import type { StoreWith } from '../../store/interfaces.ts'
import type { Chore } from './runner.ts'

export const repairLanes = (store: StoreWith<{ maintenance: 'repairLanes' }>): Chore => ({
  name: 'repair lanes',
  everyMs: 60_000,
  run: async () => (await store.maintenance.repairLanes({ kind: 'task' })) + (await store.maintenance.repairLanes({ kind: 'delivery' })),
})
