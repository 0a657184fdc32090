/** What an answer shows of a task beyond its row, and the headers that come with it. */

import type { CallbackStatus, WaitingFor } from '../../core/documents.ts'
import { isTerminal, type Millis, type Task } from '../../core/model.ts'
import { sanitizeStored } from '../../core/stored-json.ts'
import { type TaskDocumentContext, taskDocumentJson } from '../../core/wire.ts'
import { type AppContext, JSON_TYPE } from '../context.ts'
import type { ApiReply } from '../request/problem.ts'

/**
 * When a live task will have ended: from the slope of what its run has reported, else from how long runs of its type lately took
 * (`typicalMs`). Never in the past; null when neither is known, or when nobody can say how long the task will still wait.
 */
export function estimateCompletion(task: Task, typicalMs: Millis | null, waitingFor: WaitingFor | null, now: Millis): Millis | null {
  if (task.state === 'running' && task.startedAt !== null && task.progress > 0) {
    const reportedAt = Math.max(task.updatedAt, task.startedAt + 1)
    return Math.max(now, Math.round(task.startedAt + ((reportedAt - task.startedAt) * 100) / task.progress))
  }
  if (typicalMs === null) return null
  if (task.state === 'running') return Math.max(now, (task.startedAt ?? now) + typicalMs)
  const startsByItself = waitingFor === null || waitingFor === 'runAt' || waitingFor === 'retryBackoff'
  return task.state === 'pending' && startsByItself ? Math.max(now, task.dueAt) + typicalMs : null
}

/** Whole seconds to wait before asking again: a quarter of what remains, or one and a tenth of the age in seconds; 1 to 30. */
export function retryAfterSeconds(task: Task, estimatedAt: Millis | null, now: Millis): number {
  const seconds = estimatedAt === null ? 1 + Math.floor((now - task.createdAt) / 1_000) / 10 : (estimatedAt - now) / 4_000
  return Math.min(30, Math.max(1, Math.ceil(seconds)))
}

/** The view of a task; `status` counts only once the task has ended, `waitingFor` while it is pending. */
function viewOf(
  context: AppContext,
  task: Task,
  status: CallbackStatus | undefined,
  now: Millis,
  waitingFor: WaitingFor | null,
): TaskDocumentContext {
  return {
    publicUrl: context.publicUrl(),
    callbackStatus: task.callback === null ? 'none' : isTerminal(task.state) ? (status ?? 'none') : 'pending',
    retentionMs: context.retentionMs(task.type),
    waitingFor,
    estimatedCompletionAt: estimateCompletion(task, context.typicalDurationMs(task.type), waitingFor, now),
  }
}

/** Tasks as JSON text, with what became of their callbacks. */
export async function toTaskDocuments(
  context: AppContext,
  tasks: readonly Task[],
  now: Millis = context.clock.now(),
  waits = context.waitingReasons.ofTasks(tasks, now),
): Promise<string[]> {
  const ended = tasks.filter((task) => task.callback !== null && isTerminal(task.state))
  const [statuses, waiting] = await Promise.all([ended.length > 0 ? context.store.deliveries.findCallbackStatuses(ended) : null, waits])
  return tasks
    .map(sanitizeStored)
    .map((task) => taskDocumentJson(task, viewOf(context, task, statuses?.get(task.id), now, waiting.get(task.id) ?? null)))
}

/** Every read of a task may be kept, and must be asked for again: what it shows is one caller's, and changes. */
export const TASK_CACHE_HEADERS = { 'Cache-Control': 'private, no-cache', Vary: 'Authorization, Accept, Prefer' } as const

export const taskEtag = (task: Task): string => `W/"${task.revision}"`

/** The headers of one task. `Retry-After` only while it lives. */
function taskHeaders(context: AppContext, task: Task, waitingFor: WaitingFor | null, now: Millis): Record<string, string> {
  const headers: Record<string, string> = {
    'Content-Type': JSON_TYPE,
    'Cache-Control': TASK_CACHE_HEADERS['Cache-Control'],
    Vary: TASK_CACHE_HEADERS.Vary,
    ETag: taskEtag(task),
  }
  if (!isTerminal(task.state)) {
    const estimatedAt = estimateCompletion(task, context.typicalDurationMs(task.type), waitingFor, now)
    headers['Retry-After'] = String(retryAfterSeconds(task, estimatedAt, now))
  }
  return headers
}

/** One task as an answer. */
export async function taskReply(context: AppContext, task: Task, status: number, now = context.clock.now()): Promise<ApiReply> {
  const waits = context.waitingReasons.ofTasks([task], now)
  const [[shown], waiting] = await Promise.all([toTaskDocuments(context, [task], now, waits), waits])
  return { status, headers: taskHeaders(context, task, waiting.get(task.id) ?? null, now), body: shown! }
}

/** 304: the task as the caller knows it, and when to ask again. */
export async function notModifiedReply(context: AppContext, task: Task): Promise<ApiReply> {
  const now = context.clock.now()
  const waiting = await context.waitingReasons.ofTasks([task], now)
  const { 'Content-Type': _, ...headers } = taskHeaders(context, task, waiting.get(task.id) ?? null, now)
  return { status: 304, headers, body: null }
}

/** A task just taken in as an answer, with what is known of it without another look at the store. */
export function newTaskReply(context: AppContext, task: Task, now: Millis): ApiReply {
  const waitingFor = context.waitingReasons.ofNewTask(task, now)
  return {
    status: 202,
    headers: taskHeaders(context, task, waitingFor, now),
    body: taskDocumentJson(task, viewOf(context, task, undefined, now, waitingFor)),
  }
}
