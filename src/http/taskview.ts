/** What an answer shows of a task beyond its row, and the headers that come with it. */
import { isTerminal, type Millis, type Task } from '../model.ts'
import { type TaskView, taskJson, type WaitingFor } from '../representation.ts'
import type { CallbackStatus } from '../store/store.ts'
import { type House, JSON_TYPE } from './house.ts'
import type { Reply } from './problem.ts'

/** Why a pending task has not started, as far as its row and this node tell. */
function waitingFor(house: House, task: Task, now: Millis): WaitingFor | null {
  if (task.state !== 'pending') return null
  if (task.dueAt > now) return task.tries > 0 ? 'retryBackoff' : 'runAt'
  return house.registry.get(task.type) === undefined ? 'noWorker' : null
}

/** From the slope of what the run has reported; never in the past. */
export function estimate(task: Task, now: Millis): Millis | null {
  if (task.state !== 'running' || task.startedAt === null || task.progress <= 0) return null
  const reportedAt = Math.max(task.updatedAt, task.startedAt + 1)
  return Math.max(now, Math.round(task.startedAt + ((reportedAt - task.startedAt) * 100) / task.progress))
}

/** Whole seconds to wait before asking again: a quarter of what remains, or one and a tenth of the age in seconds; 1 to 30. */
export function retryAfterSeconds(task: Task, estimatedAt: Millis | null, now: Millis): number {
  const seconds = estimatedAt === null ? 1 + Math.floor((now - task.createdAt) / 1_000) / 10 : (estimatedAt - now) / 4_000
  return Math.min(30, Math.max(1, Math.ceil(seconds)))
}

/** The view of a task; `status` counts only once the task has ended. */
export function viewOf(house: House, task: Task, status: CallbackStatus | undefined, now: Millis): TaskView {
  return {
    publicUrl: house.publicUrl(),
    callbackStatus: task.callback === null ? 'none' : isTerminal(task.state) ? (status ?? 'none') : 'pending',
    waitingFor: waitingFor(house, task, now),
    estimatedCompletionAt: estimate(task, now),
  }
}

/** Tasks as JSON text, with what became of their callbacks. */
export async function showTasks(house: House, tasks: readonly Task[]): Promise<string[]> {
  const ended = tasks.filter((task) => task.callback !== null && isTerminal(task.state))
  const statuses = ended.length > 0 ? await house.store.callbackStatuses(ended) : null
  const now = house.clock.now()
  return tasks.map((task) => taskJson(task, viewOf(house, task, statuses?.get(task.id), now)))
}

/** Every read of a task may be kept, and must be asked for again: what it shows is one caller's, and changes. */
export const TASK_CACHE = { 'Cache-Control': 'private, no-cache', Vary: 'Authorization, Accept, Prefer' } as const

export const taskTag = (task: Task): string => `W/"${task.revision}"`

/** The headers of one task. `Retry-After` only while it lives. */
export function taskHeaders(task: Task, now: Millis): Record<string, string> {
  const headers: Record<string, string> = {
    'Content-Type': JSON_TYPE,
    'Cache-Control': TASK_CACHE['Cache-Control'],
    Vary: TASK_CACHE.Vary,
    ETag: taskTag(task),
  }
  if (!isTerminal(task.state)) headers['Retry-After'] = String(retryAfterSeconds(task, estimate(task, now), now))
  return headers
}

/** One task as an answer: at once while it lives. */
export function taskReply(house: House, task: Task, status: number): Reply | Promise<Reply> {
  if (task.callback === null || !isTerminal(task.state)) return replyWith(house, task, status, undefined)
  return house.store.callbackStatuses([task]).then((statuses) => replyWith(house, task, status, statuses.get(task.id)))
}

function replyWith(house: House, task: Task, status: number, callbackStatus: CallbackStatus | undefined): Reply {
  const now = house.clock.now()
  return { status, headers: taskHeaders(task, now), body: taskJson(task, viewOf(house, task, callbackStatus, now)) }
}
