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
  readonly taskLender: SlotLender<Task> | null
  readonly lentTypes: TypeLimits
  readonly deliveryLender: SlotLender<OwedDelivery> | null
  taskStarted(id: string): void
}

export function bindNotifications({ onNotify }: Pick<Driver, 'onNotify'>): { local: LocalListeners; notifications: Notifications } {
  let taskLender: SlotLender<Task> | null = null
  let lentTypes: TypeLimits = new Map()
  let deliveryLender: SlotLender<OwedDelivery> | null = null
  const taskListeners = new Set<(taskId: string) => void>()
  const onChannel = (name: string, listener: () => void) =>
    onNotify((channel) => {
      if (channel === name || channel === EVERYTHING) listener()
    })
  return {
    local: {
      get taskLender() {
        return taskLender
      },
      get lentTypes() {
        return lentTypes
      },
      get deliveryLender() {
        return deliveryLender
      },
      taskStarted(id) {
        for (const listener of taskListeners) listener(id)
      },
    },
    notifications: {
      lendTaskSlots(lender, types) {
        taskLender = lender
        lentTypes = new Map(types.map(({ type, concurrency }) => [type, concurrency]))
      },
      lendDeliverySlots(lender) {
        deliveryLender = lender
      },
      onWork: (listener) =>
        onNotify((channel) => {
          if (channel === 'task' || channel === EVERYTHING) listener('task')
          if (channel === 'delivery' || channel === EVERYTHING) listener('delivery')
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
