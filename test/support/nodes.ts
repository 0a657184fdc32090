/** Nodes with a real task runner each, on stores that share one database, on the system clock. */

import { onTestFinished } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import type { Task } from '../../src/core/model.ts'
import type { Pump } from '../../src/engine/pump.ts'
import { createTaskRunner } from '../../src/engine/task-runner.ts'
import type { Store } from '../../src/store/interfaces.ts'
import type { TaskType } from '../../src/tasks/define.ts'
import { createRegistry } from '../../src/tasks/registry.ts'
import { eventsWith } from './events.ts'

/** Starts it; stopped when the test is over. An error of its store fails the test, unless somebody asks for those. */
export function startNode(
  store: Store,
  boot: string,
  types: readonly TaskType[],
  concurrency = 10,
  onError: (error: unknown) => void = (error) => {
    throw error
  },
): Pump<Task> {
  const pump = createTaskRunner({
    store,
    registry: createRegistry(types),
    clock: systemClock(),
    bootId: boot,
    concurrency,
    leaseMs: 30_000,
    events: eventsWith({ trouble: ({ error }) => onError(error) }),
    log: { info() {}, warn() {} },
  })
  const deaf = [
    store.notifications.onWork((kind) => kind === 'task' && pump.wake()),
    store.notifications.onCancelRequest((id) => pump.interrupt(id, 'canceled')),
  ]
  pump.start()
  onTestFinished(async () => {
    for (const stop of deaf) stop()
    await pump.stop(0)
  })
  return pump
}
