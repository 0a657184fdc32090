/** The document of a task, and the headers of its replies. */
import type { CallbackStatus, WaitingFor } from '../../core/documents.ts'
import { isTerminal, type Millis, type Task } from '../../core/model.ts'
import { sanitizeStored } from '../../core/stored-json.ts'
import { type TaskDocumentContext, taskDocumentJson } from '../../core/wire.ts'
import type { AppContext } from '../context.ts'
import type { ApiReply } from '../request/problem.ts'
import { JSON_TYPE } from '../request/replies.ts'

/**
 * When a live task will end: estimated from the progress of its run, otherwise from the recent median duration of its type (`typicalMs`). Never in
 * the past. Null when both are unknown, or when the start is unknown.
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

/** Whole seconds until the next poll, 1 to 30: a quarter of the remaining time, or 1 plus a tenth of the age without an estimate. */
export function retryAfterSeconds(task: Task, estimatedAt: Millis | null, now: Millis): number {
  const seconds = estimatedAt === null ? 1 + Math.floor((now - task.createdAt) / 1_000) / 10 : (estimatedAt - now) / 4_000
  return Math.min(30, Math.max(1, Math.ceil(seconds)))
}

/** `status` applies once the task has ended, `waitingFor` while it is pending. */
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

/** Tasks as JSON text, with the status of their callbacks. */
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

/** The caller may cache a task, but must revalidate it. */
export const TASK_CACHE_HEADERS = { 'Cache-Control': 'private, no-cache', Vary: 'Authorization, Accept, Prefer' } as const

export const taskEtag = (task: Task): string => `W/"${task.revision}"`

/** The headers of one task. `Retry-After` only while it is live. */
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

export async function taskReply(context: AppContext, task: Task, status: number, now = context.clock.now()): Promise<ApiReply> {
  const waits = context.waitingReasons.ofTasks([task], now)
  const [[document], waiting] = await Promise.all([toTaskDocuments(context, [task], now, waits), waits])
  return { status, headers: taskHeaders(context, task, waiting.get(task.id) ?? null, now), body: document! }
}

/** 304, with the time of the next poll. */
export async function notModifiedReply(context: AppContext, task: Task): Promise<ApiReply> {
  const now = context.clock.now()
  const waiting = await context.waitingReasons.ofTasks([task], now)
  const { 'Content-Type': _, ...headers } = taskHeaders(context, task, waiting.get(task.id) ?? null, now)
  return { status: 304, headers, body: null }
}

/** A new task as a reply, without another query. */
export function newTaskReply(context: AppContext, task: Task, now: Millis): ApiReply {
  const waitingFor = context.waitingReasons.ofNewTask(task, now)
  return {
    status: 202,
    headers: taskHeaders(context, task, waitingFor, now),
    body: taskDocumentJson(task, viewOf(context, task, undefined, now, waitingFor)),
  }
}
