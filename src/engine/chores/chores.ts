/** The chores of a node, in one list. */
import type { Clock } from '../../core/clock.ts'
import type { Millis } from '../../core/model.ts'
import type { Store } from '../../store/interfaces.ts'
import type { Registry } from '../../tasks/registry.ts'
import { eraseClients } from './erase-clients.ts'
import { endOverdue, watchEndpoints } from './overdue.ts'
import { pruneEndpointEvents, pruneLanes, pruneRecords, pruneTasks } from './prune.ts'
import { type Reclaim, reclaimChore } from './reclaim.ts'
import { repairLanes } from './repair-lanes.ts'
import type { Chore } from './runner.ts'
import { touchTaskTypes } from './touch-task-types.ts'

export interface ChoreOptions {
  readonly store: Store
  readonly clock: Clock
  readonly registry: Pick<Registry, 'list'>
  readonly reclaim: Reclaim
  /** Renews every lease of this node. */
  readonly renew: () => Promise<unknown>
  readonly leaseMs: Millis
  /** How long a handler may outlive a cancel or its deadline before the task ends without it. */
  readonly graceMs: Millis
  /** The shortest time a task of any type is kept after its end. */
  readonly minRetentionMs: Millis
  /** How long endpoint events and the rows of deleted endpoints are kept. */
  readonly endpointEventRetentionMs: Millis
  /** How long audit log entries and ended keys are kept. */
  readonly auditRetentionMs: Millis
  /** How long a delivery may stay open. */
  readonly holdMs: Millis
}

export function createChores(options: ChoreOptions): readonly Chore[] {
  const { store, clock, registry, reclaim, renew, leaseMs } = options
  return [
    reclaimChore(reclaim, renew, leaseMs),
    endOverdue(store, options.graceMs),
    touchTaskTypes(store, registry),
    repairLanes(store),
    pruneTasks(store, options.minRetentionMs),
    eraseClients(store, clock),
    pruneLanes(store),
    pruneEndpointEvents(store, options.endpointEventRetentionMs),
    watchEndpoints(store, options.holdMs),
    pruneRecords(store, options.auditRetentionMs),
  ]
}
