/** Why pending tasks have not started, read in one query for all tasks of a response. */
import type { WaitingFor } from '../../core/documents.ts'
import type { Millis, Task } from '../../core/model.ts'
import type { StoreWith, TaskHolds } from '../../store/interfaces.ts'
import type { TaskType } from '../../tasks/define.ts'
import type { Registry } from '../../tasks/registry.ts'

export interface WaitingReasons {
  /** The reason of a new task, without a query. */
  ofNewTask(task: Task, now: Millis): WaitingFor | null
  /** The reason of each task that has one. One query, and none when no task is due. */
  ofTasks(tasks: readonly Task[], now: Millis): Promise<ReadonlyMap<string, WaitingFor>>
}

export interface WaitingReasonsOptions {
  readonly store: StoreWith<{ schedules: 'listTaskTypes' | 'findHolds'; notifications: 'onTaskTypes' }>
  readonly registry: Registry
  /** Whether this node runs as many tasks of the type as it may. Left out: this node runs no tasks. */
  readonly isFull?: (type: TaskType) => boolean
}

/** Workers of a type report it more often than this. */
const SEEN_MS: Millis = 60_000
/** A node with free slots claims within milliseconds. If this node is full and a task is due for longer, the others are full too. */
const CLAIMED_WITHIN_MS: Millis = 1_000

export function createWaitingReasons({ store, registry, isFull = () => false }: WaitingReasonsOptions): WaitingReasons {
  let paused: ReadonlySet<string> = new Set()
  const readPaused = (): void => {
    store.schedules.listTaskTypes().then(
      (queues) => {
        paused = new Set(queues.filter(({ pausedAt }) => pausedAt !== null).map(({ type }) => type))
      },
      // The store is down. The next notification repeats the query.
      () => {},
    )
  }
  store.notifications.onTaskTypes(readPaused)
  readPaused()

  const byTime = (task: Task, now: Millis): WaitingFor | null => {
    // The row may have been written after the caller read the clock.
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
    return here && isFull(type) && task.dueAt <= now - CLAIMED_WITHIN_MS ? 'limit' : null
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
