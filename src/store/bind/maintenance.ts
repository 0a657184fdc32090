/** `store.maintenance`: what the chores of a node call. */
import { writePriority } from '../driver.ts'
import type { MaintenanceStore } from '../interfaces.ts'
import { repairLanes } from '../queue/claim.ts'
import * as leases from '../queue/leases.ts'
import * as keys from '../scripts/api-keys.ts'
import * as audit from '../scripts/audit-log.ts'
import * as erasure from '../scripts/erasure.ts'
import * as health from '../scripts/health.ts'
import * as retention from '../scripts/retention.ts'
import { endOverdue } from '../scripts/tasks/overdue.ts'
import type { Binding } from './binding.ts'

export function bindMaintenance({ read, write, audited, notifyStopped, render }: Binding): MaintenanceStore {
  return {
    renew: ({ kind, leases: held, leaseMs }) => write(() => leases.renew(kind, held, leaseMs), writePriority.renewal),
    findExpired: (limit, boot) => read(() => leases.findExpired(limit, boot)),
    endOverdue: ({ limit, graceMs }) => write(() => endOverdue(limit, graceMs, render)),
    pruneTasks: ({ after, limit, minKeptMs }) => write(() => retention.pruneTasks(after, limit, render.retentionMs, minKeptMs)),
    pruneEndpointEvents: ({ after, limit, keptMs }) => write(() => retention.pruneEndpointEvents(after, limit, keptMs)),
    pruneRecords: ({ limit }) => write(() => retention.pruneExpired(limit)),
    pruneLanes: ({ after, limit }) => write(() => retention.sweepLanes(after, limit)),
    repairLanes: ({ kind }) => write(() => repairLanes(kind)),
    announceFailing: ({ limit }) => write(() => health.announceFailing(limit, render)),
    expireDeliveries: ({ limit, holdMs }) => write(() => health.expireDeliveries(limit, holdMs)),
    findDeletedClient: (after) => read(() => erasure.findDeletedClient(after)),
    async eraseClient({ id, last }) {
      const erase = () => erasure.eraseClient(id, last, render)
      const erased = await audited(audit.SYSTEM_AUTHOR, erase, ({ client }) => audit.clientRecord('client.erase')(client))
      notifyStopped(erased)
      return erased.remaining
    },
    pruneKeys: ({ limit, keptMs }) => write(() => keys.pruneKeys(limit, keptMs)),
    pruneAuditLog: ({ limit, keptMs }) => write(() => audit.pruneAuditLog(limit, keptMs)),
  }
}
