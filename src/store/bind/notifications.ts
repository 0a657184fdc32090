/** `store.notifications`: the driver's channels as typed subscriptions, and the slots that pumps lend. `*` means: anything may have changed. */
import type { Task } from '../../core/model.ts'
import type { Driver } from '../driver.ts'
import type { Notifications } from '../interfaces.ts'
import { TASK_TYPES_CHANNEL } from '../queue/task-types.ts'
import { ACCESS_CHANNEL } from '../scripts/clients.ts'
import type { TypeLimits } from '../scripts/intake.ts'
import { SCHEDULES_CHANNEL } from '../scripts/schedules.ts'
import { SIGNING_KEYS_CHANNEL } from '../scripts/signing-keys.ts'
import type { OwedDelivery, SlotLender } from '../types.ts'
import { CANCEL } from './binding.ts'

const EVERYTHING = '*'

/** Local to this node: lent slots, and listeners to started tasks. */
export interface LocalListeners {
  taskLender: SlotLender<Task> | null
  lentTypes: TypeLimits
  deliveryLender: SlotLender<OwedDelivery> | null
  taskStarted(id: string): void
}

export function bindNotifications({ onNotify }: Pick<Driver, 'onNotify'>): { local: LocalListeners; notifications: Notifications } {
  const taskListeners = new Set<(taskId: string) => void>()
  const local: LocalListeners = {
    taskLender: null,
    lentTypes: new Map(),
    deliveryLender: null,
    taskStarted(id) {
      for (const listener of taskListeners) listener(id)
    },
  }
  const onChannel = (name: string, listener: () => void) =>
    onNotify((channel) => {
      if (channel === name || channel === EVERYTHING) listener()
    })
  return {
    local,
    notifications: {
      lendTaskSlots(lender, types) {
        local.taskLender = lender
        local.lentTypes = new Map(types.map(({ type, concurrency }) => [type, concurrency]))
      },
      lendDeliverySlots(lender) {
        local.deliveryLender = lender
      },
      onWork: (listener) =>
        onNotify((channel) => {
          for (const kind of ['task', 'delivery'] as const) if (channel === kind || channel === EVERYTHING) listener(kind)
        }),
      onCancelRequest: (listener) =>
        onNotify((channel) => {
          if (channel.startsWith(CANCEL)) listener(channel.slice(CANCEL.length))
        }),
      onTaskTypes: (listener) => onChannel(TASK_TYPES_CHANNEL, listener),
      onSchedules: (listener) => onChannel(SCHEDULES_CHANNEL, listener),
      onSigningKeys: (listener) => onChannel(SIGNING_KEYS_CHANNEL, listener),
      onAccess: (listener) =>
        onNotify((channel) => {
          if (channel === EVERYTHING) listener(null)
          else if (channel.startsWith(ACCESS_CHANNEL)) listener(channel.slice(ACCESS_CHANNEL.length))
        }),
      onTask(listener) {
        const off = onNotify((channel) => {
          if (channel.startsWith('task_')) listener(channel)
        })
        taskListeners.add(listener)
        return () => {
          taskListeners.delete(listener)
          off()
        }
      },
    },
  }
}
