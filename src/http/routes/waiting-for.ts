/** Why pending tasks have not started: read for all that are shown together, never guessed. */

import type { WaitingFor } from '../../core/documents.ts'
import type { Millis, Task } from '../../core/model.ts'
import type { StoreWith, TaskHolds } from '../../store/interfaces.ts'
import type { TaskType } from '../../tasks/define.ts'
import type { Registry } from '../../tasks/registry.ts'

export interface WaitingReasons {
  /** What is known without asking the store: of a task just taken in. */
  ofNewTask(task: Task, now: Millis): WaitingFor | null
  /** Of each of the tasks that waits for something, for what. One look at the store, and none when nothing among them is due. */
  ofTasks(tasks: readonly Task[], now: Millis): Promise<ReadonlyMap<string, WaitingFor>>
}

export interface WaitingReasonsOptions {
  readonly store: StoreWith<{ schedules: 'listTaskTypes' | 'findHolds'; notifications: 'onTaskTypes' }>
  readonly registry: Registry
  /** Whether as many tasks run on this node as may where that type runs; left out: it runs none. */
  readonly isFull?: (type: TaskType) => boolean
}

/** Somebody who runs a type says so more often than this. */
const SEEN_MS: Millis = 60_000
/** Nodes take what they have room for within some milliseconds: who has waited for longer found every one full, if this one is. */
const SURELY_SEEN_MS: Millis = 1_000

export function createWaitingReasons({ store, registry, isFull = () => false }: WaitingReasonsOptions): WaitingReasons {
  let paused: ReadonlySet<string> = new Set()
  const readPaused = (): void => {
    store.schedules.listTaskTypes().then(
      (queues) => {
        paused = new Set(queues.filter(({ pausedAt }) => pausedAt !== null).map(({ type }) => type))
      },
      // The store is down; it is read again with the next word.
      () => {},
    )
  }
  store.notifications.onTaskTypes(readPaused)
  readPaused()

  const byTime = (task: Task, now: Millis): WaitingFor | null => {
    // Its row may have been written after the caller looked at the clock.
    if (task.state !== 'pending' || task.dueAt <= Math.max(now, task.updatedAt)) return null
    return task.tries > 0 ? 'retryBackoff' : 'runAt'
  }
  const byHolds = (task: Task, { queues, filled, running }: TaskHolds, now: Millis): WaitingFor | null => {
    const queue = queues.get(task.type)
    const type = registry.get(task.type)
    if (queue?.pausedAt != null) return 'paused'
    const here = type !== undefined && type.where !== 'worker'
    if (!here && (queue?.workerSeenAt ?? 0) <= now - SEEN_MS) return 'noWorker'
    if (filled.has(task.laneId)) return 'limit'
    if (type?.concurrency != null && (running.get(task.type) ?? 0) >= type.concurrency) return 'limit'
    return here && isFull(type) && task.dueAt <= now - SURELY_SEEN_MS ? 'limit' : null
  }
  return {
    ofNewTask: (task, now) => byTime(task, now) ?? (task.state === 'pending' && paused.has(task.type) ? 'paused' : null),
    async ofTasks(tasks, now) {
      const waiting = new Map<string, WaitingFor>()
      const due: Task[] = []
      for (const task of tasks) {
        const time = byTime(task, now)
        if (time !== null) waiting.set(task.id, time)
        else if (task.state === 'pending') due.push(task)
      }
      if (due.length === 0) return waiting
      const holds = await store.schedules.findHolds(due)
      for (const task of due) {
        const why = byHolds(task, holds, now)
        if (why !== null) waiting.set(task.id, why)
      }
      return waiting
    },
  }
}
