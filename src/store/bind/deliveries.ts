/** `store.deliveries`: claim, settle and read deliveries; send them again. */
import type { Delivery } from '../../core/model.ts'
import { writePriority } from '../driver.ts'
import type { DeliveryStore } from '../interfaces.ts'
import { claim } from '../queue/claim.ts'
import { newFairCursor } from '../queue/fair-order.ts'
import { first } from '../script.ts'
import * as audit from '../scripts/audit-log.ts'
import * as deliveries from '../scripts/deliveries.ts'
import * as lists from '../scripts/lists.ts'
import * as replay from '../scripts/replay.ts'
import { DELIVERY_QUEUE } from '../scripts/shared.ts'
import type { DeliverySettlement, SettleResult } from '../types.ts'
import type { Binding } from './binding.ts'

export function bindDeliveries({ read, write, audited, merged, render }: Binding): DeliveryStore {
  const cursor = newFairCursor()
  const queues = [{ id: DELIVERY_QUEUE, cap: null }]
  return {
    async claim({ limit, leaseMs, leasedBy, allot }) {
      const { taken, ...rest } = await write(
        () => claim(deliveries.deliveryTable(leaseMs, leasedBy, render), queues, limit, cursor, allot?.()),
        writePriority.claim,
      )
      return { ...rest, items: taken.filter((delivery) => delivery.state === 'running') }
    },
    settle: merged<DeliverySettlement, SettleResult<Delivery>>((items) => deliveries.settleDeliveries(items, render), {
      priority: writePriority.settlement,
      size: ({ attempt }) => 600 + (attempt?.responseHeaders.length ?? 0) + (attempt?.responseExcerpt?.length ?? 0),
    }),
    find: (id, clientId) => read(() => first<Delivery>(deliveries.readDelivery({ id, clientId }))),
    list: (query) => read(() => lists.listDeliveries(query)),
    listAttempts: (ids) => read(() => deliveries.listAttempts(ids)),
    redeliver: ({ id, newId, clientId, by }) =>
      audited(
        audit.operatorAuthor(by, clientId),
        () => deliveries.redeliver(id, newId, clientId, render),
        audit.deliveryRecord('delivery.redeliver', id),
      ),
    countReplay: (filter, after) => read(() => replay.countReplay(filter, after)),
    runReplayPage: ({ lease, filter }) => write(() => replay.replayPage(lease, filter, render)),
    findCallbackStatuses: (tasks) => read(() => lists.callbackStatuses(tasks)),
    findLanes: (ids) => read(() => lists.findLanes(ids)),
  }
}
