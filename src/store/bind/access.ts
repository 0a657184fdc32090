/** `store.access`: clients, their keys, their quotas, and the audit log. */
import type { ApiKey } from '../../core/model.ts'
import { writePriority } from '../driver.ts'
import type { AccessStore } from '../interfaces.ts'
import * as keys from '../scripts/api-keys.ts'
import * as audit from '../scripts/audit-log.ts'
import * as clients from '../scripts/clients.ts'
import * as erasure from '../scripts/erasure.ts'
import { consumeQuotas } from '../scripts/quotas.ts'
import type { AddKeyResult, QuotaUse, QuotaWindow } from '../types.ts'
import type { Binding } from './binding.ts'

export function bindAccess({ read, audited, merged, notifyStopped, render }: Binding): AccessStore {
  const touchKey = merged<string, null>(keys.touchKeys, { priority: writePriority.other, size: () => 50 })
  return {
    addClient: ({ client, by }) => audited(by, () => clients.addClient(client), audit.clientRecord('client.create')),
    findClient: (id) => read(() => clients.findClient(id)),
    listClients: (limit, after) => read(() => clients.listClients(limit, after)),
    changeClient: ({ id, status, by }) =>
      audited(by, () => clients.changeClient(id, status), audit.clientRecord(status === 'active' ? 'client.resume' : 'client.suspend')),
    async removeClient({ id, by }) {
      const remove = () => erasure.removeClient(id, render)
      const removed = await audited(by, remove, (answer) => audit.clientRecord('client.delete')(answer?.client ?? null))
      if (removed) notifyStopped(removed.stopped)
      return removed?.client ?? null
    },
    addKey: ({ key, max, by }) =>
      audited(
        by,
        () => keys.addKey(key, max),
        (answer) => audit.keyRecord('key.create')(addedKey(answer)),
      ),
    findKey: (hash) => read(() => keys.findKey(hash)),
    listKeys: (clientId) => read(() => keys.listKeys(clientId)),
    revokeKey: ({ id, clientId, by }) => audited(by, () => keys.revokeKey(id, clientId), audit.keyRecord('key.revoke')),
    rotateKey: ({ by, ...rotation }) =>
      audited(
        by,
        () => keys.rotateKey(rotation),
        (answer) => audit.keyRecord('key.rotate', { replaces: rotation.id, overlapSeconds: rotation.overlapMs / 1000 })(addedKey(answer)),
      ),
    async touchKey({ id }) {
      await touchKey(id)
    },
    useQuota: merged<QuotaUse, QuotaWindow>(consumeQuotas, { priority: writePriority.other, size: () => 100 }),
    listAuditLog: (query) => read(() => audit.listAuditLog(query)),
  }
}

const addedKey = (answer: AddKeyResult): ApiKey | null => (answer.kind === 'added' ? answer.value : null)
