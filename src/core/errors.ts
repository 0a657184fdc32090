/** Errors of the platform. Their codes are those of the API. */
import { type ErrorCode, errorStatuses, type Fault } from './documents.ts'

export { type ErrorCode, errorStatuses, type Fault } from './documents.ts'

/** What a `RingbackError` may hold beside its code and its sentence. */
export interface ErrorDetails {
  readonly errors?: readonly Fault[]
  /** Headers of the response: `Allow`, `Retry-After`, `WWW-Authenticate`. */
  readonly headers?: Readonly<Record<string, string>>
  readonly cause?: unknown
}

/** An error that the caller can act on. `message` is one sentence for people; `code` is for programs. */
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

  /** The HTTP status of the code. */
  get status(): number {
    return errorStatuses[this.code]
  }
}

/** Ringback cannot start: wrong settings, a wrong key, a store in use elsewhere. Printed as its sentence, without a stack. */
export class StartupError extends Error {
  override readonly name = 'StartupError'
}

/** An error as the log holds it. */
export interface ErrorLog {
  readonly type: string
  readonly message: string
  readonly stack: string
  readonly code?: string | number
  readonly cause?: unknown
}

/** Causes of causes that are logged. */
const MAX_CAUSES = 4
/** PostgreSQL's class 22, data exceptions: the message quotes the value after its first colon. */
const QUOTES_VALUES = /^22[0-9A-Z]{3}$/

/** An error as it may be logged: without the row that a database quotes, which holds data of clients. */
export function toErrorLog(error: Error, depth = 0): ErrorLog {
  const { code } = error as { code?: unknown }
  const known = typeof code === 'string' || typeof code === 'number'
  const quotes = typeof code === 'string' && QUOTES_VALUES.test(code)
  return {
    type: error.constructor?.name ?? error.name,
    message: quotes ? error.message.replace(/:.*$/s, '') : error.message,
    // Only the frames: the lines above them repeat the message.
    stack: (error.stack ?? '').match(/^ +at .*$/gm)?.join('\n') ?? '',
    ...(known && { code }),
    ...(error.cause instanceof Error && depth < MAX_CAUSES && { cause: toErrorLog(error.cause, depth + 1) }),
  }
}

/** The database failed a read or a write: 503 with `Retry-After: 5`. `sentence` says what happened to the call. */
export function storeUnavailable(cause: unknown, sentence: string): RingbackError {
  return new RingbackError('temporary_reduced_capacity', sentence, { headers: { 'retry-after': '5' }, cause })
}
