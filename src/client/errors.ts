/** Errors of the client. */
import type { ErrorCode, Fault, TaskDocument as Task } from '../core/documents.ts'

/** An error of the API, or the reason why it did not answer. `message` is a sentence. */
export class RingbackClientError extends Error {
  override readonly name = 'RingbackClientError'
  /** The code of the API; `no_answer`: none came; `unexpected_answer`: not by Ringback; `wait_timeout`: the task had not ended in time. */
  readonly code: ErrorCode | 'no_answer' | 'unexpected_answer' | 'wait_timeout'
  /** The HTTP status; null without an answer. */
  readonly status: number | null
  /** The faults of the request, each with a JSON Pointer. */
  readonly errors: readonly Fault[]
  /** The id of the request in the server's log. */
  readonly requestId: string | null
  readonly retryAfterSeconds: number | null

  constructor(
    code: RingbackClientError['code'],
    message: string,
    about: Partial<Pick<RingbackClientError, 'status' | 'errors' | 'requestId' | 'retryAfterSeconds' | 'cause'>> = {},
  ) {
    super(message, about.cause === undefined ? undefined : { cause: about.cause })
    this.code = code
    this.status = about.status ?? null
    this.errors = about.errors ?? []
    this.requestId = about.requestId ?? null
    this.retryAfterSeconds = about.retryAfterSeconds ?? null
  }
}

/** A task failed or was canceled. */
export class TaskFailed extends Error {
  override readonly name = 'TaskFailed'
  readonly task: Task

  constructor(task: Task) {
    const why = task.error === null ? '' : `: ${task.error.code}: ${task.error.message}`
    super(`${task.id} (${task.type}) ${task.status === 'canceled' ? 'was canceled' : 'failed'}${why}`)
    this.task = task
  }
}
