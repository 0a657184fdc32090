/** What the client throws. */
import type { ErrorCode, Fault, TaskDocument as Task } from '../core/documents.ts'

/** What the server refused, or why there is no answer of it. `message` is a sentence. */
export class RingbackClientError extends Error {
  override readonly name = 'RingbackClientError'
  /** The server's code; `no_answer` when none came, `unexpected_answer` when something else than Ringback answered, `wait_timeout` when the wait was too short. */
  readonly code: ErrorCode | 'no_answer' | 'unexpected_answer' | 'wait_timeout'
  /** The HTTP status; null when there is no answer. */
  readonly status: number | null
  /** Each thing wrong with the request, with a JSON pointer to it. */
  readonly errors: readonly Fault[]
  /** What the server's log calls the request. */
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

/** A task that ended without a result. */
export class TaskFailed extends Error {
  override readonly name = 'TaskFailed'
  readonly task: Task

  constructor(task: Task) {
    const why = task.error === null ? '' : `: ${task.error.code}: ${task.error.message}`
    super(`${task.id} (${task.type}) ${task.status === 'canceled' ? 'was canceled' : 'failed'}${why}`)
    this.task = task
  }
}
