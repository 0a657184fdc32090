/** Errors as a closed union of codes: the same codes the HTTP contract documents, and the status each one answers with. */

/** Every problem Ringback can answer with, and its HTTP status. */
export const errorStatuses = {
  malformed_json: 400,
  malformed_header: 400,
  idempotency_key_invalid: 400,
  unauthenticated: 401,
  insufficient_scope: 403,
  not_found: 404,
  method_not_allowed: 405,
  not_acceptable: 406,
  task_not_cancelable: 409,
  task_not_completed: 409,
  task_not_terminal: 409,
  task_not_retryable: 409,
  endpoint_exists: 409,
  endpoint_not_verified: 409,
  lease_lost: 409,
  task_expired: 410,
  precondition_failed: 412,
  payload_too_large: 413,
  unsupported_media_type: 415,
  validation_failed: 422,
  task_type_not_found: 422,
  idempotency_key_reused: 422,
  invalid_cursor: 422,
  invalid_callback_url: 422,
  callback_url_forbidden: 422,
  callback_url_not_verified: 422,
  challenge_mismatch: 422,
  quota_exceeded: 429,
  internal: 500,
  temporary_reduced_capacity: 503,
} as const

export type ErrorCode = keyof typeof errorStatuses

/** One thing wrong with a document: a JSON Pointer fragment to the place (`#/input/width`) and a sentence. */
export interface Fault {
  readonly pointer: string
  readonly detail: string
}

/** What a `RingbackError` may carry beside its code and its sentence. */
export interface ErrorDetails {
  readonly errors?: readonly Fault[]
  /** Response headers that belong to the answer: `Allow`, `Retry-After`, `WWW-Authenticate`. */
  readonly headers?: Readonly<Record<string, string>>
  readonly cause?: unknown
}

/** A refusal that a caller can act on. `message` is one sentence for people; `code` is for programs. */
export class RingbackError extends Error {
  override readonly name = 'RingbackError'
  readonly code: ErrorCode
  readonly errors: readonly Fault[]
  readonly headers: Readonly<Record<string, string>>

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.errors = details.errors ?? []
    this.headers = details.headers ?? {}
  }

  /** The HTTP status this code answers with. */
  get status(): number {
    return errorStatuses[this.code]
  }
}

/** A start that cannot happen: wrong settings, a wrong key, a store that someone else owns. Printed as its sentence, without a stack. */
export class StartupError extends Error {
  override readonly name = 'StartupError'
}

/** What is shown of an error in a log. */
export interface ErrorLog {
  readonly type: string
  readonly message: string
  readonly stack: string
  readonly code?: string | number
  readonly cause?: unknown
}

/** Causes are followed this far. */
const DEEPEST_CAUSE = 4
/** PostgreSQL's class 22, data exceptions: the sentence quotes the value behind its first colon. */
const QUOTES_VALUES = /^22[0-9A-Z]{3}$/

/** An error as it may be logged: what it is and where it arose, without the row that a database quotes beside it, which holds data of clients. */
export function toErrorLog(error: Error, depth = 0): ErrorLog {
  const { code } = error as { code?: unknown }
  const known = typeof code === 'string' || typeof code === 'number'
  const quotes = typeof code === 'string' && QUOTES_VALUES.test(code)
  return {
    type: error.constructor?.name ?? error.name,
    message: quotes ? error.message.replace(/:.*$/s, '') : error.message,
    // The frames alone: what stands above them is the message again.
    stack: (error.stack ?? '').match(/^ +at .*$/gm)?.join('\n') ?? '',
    ...(known && { code }),
    ...(error.cause instanceof Error && depth < DEEPEST_CAUSE && { cause: toErrorLog(error.cause, depth + 1) }),
  }
}

/** The database did not take a write or did not answer a read: 503 with `Retry-After: 5`. `sentence` says what became of the call. */
export function storeUnavailable(cause: unknown, sentence: string): RingbackError {
  return new RingbackError('temporary_reduced_capacity', sentence, { headers: { 'retry-after': '5' }, cause })
}
