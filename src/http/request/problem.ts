/** Problem documents (RFC 9457): the body of every 4xx and 5xx. */
import { type ErrorCode, errorStatuses, type Fault, RingbackError } from '../../core/errors.ts'

const titles: Readonly<Record<ErrorCode, string>> = {
  malformed_json: 'The body is not JSON',
  malformed_header: 'A request header is malformed',
  idempotency_key_invalid: 'The Idempotency-Key is malformed',
  unauthenticated: 'No valid key was given',
  insufficient_scope: 'The key does not allow this',
  not_found: 'There is no such thing',
  method_not_allowed: 'The method is not offered here',
  not_acceptable: 'No representation fits the Accept header',
  task_not_cancelable: 'The task has ended',
  task_not_completed: 'The task has no result yet',
  task_not_terminal: 'The task has not ended',
  task_not_retryable: 'The task did not fail',
  endpoint_exists: 'An endpoint with this URL exists',
  endpoint_not_verified: 'The endpoint is not verified',
  lease_lost: 'The lease was lost',
  task_expired: 'The task was erased',
  precondition_failed: 'The object has changed',
  payload_too_large: 'The body is too large',
  unsupported_media_type: 'The media type is not supported',
  validation_failed: 'The request does not fit its schema',
  task_type_not_found: 'There is no such task type',
  idempotency_key_reused: 'The Idempotency-Key was used with another body',
  invalid_cursor: 'The cursor is not valid here',
  invalid_callback_url: 'The callback URL is not valid',
  callback_url_forbidden: 'The callback URL is forbidden',
  callback_url_not_verified: 'The callback URL is under no verified endpoint',
  challenge_mismatch: 'The challenge does not match',
  quota_exceeded: 'The quota is used up',
  internal: 'Something went wrong here',
  temporary_reduced_capacity: 'There is no capacity right now',
}

/** The result of a handler. The pipeline adds the common headers. */
export interface ApiReply {
  readonly status: number
  readonly headers: Record<string, string>
  readonly body: string | ReadableStream<Uint8Array> | null
}

/** Browser protection of every response, unless the route overrides it: no sniffing, caching, loading, framing or referrer. */
const HARDENED: Readonly<Record<string, string>> = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
}
export function addSecurityHeaders(headers: Record<string, string>): void {
  for (const name in HARDENED) headers[name] ??= HARDENED[name] as string
}

export interface RequestRef {
  /** The path of the request. */
  readonly instance: string
  readonly requestId: string
}

/** The path is decoded, but `instance` is a URI reference (RFC 9457 §3.1.5). */
const encoded = (path: string): string =>
  path.replaceAll(/[^\x21-\x7e]|["<>\\^`{|}]/gu, (character) => encodeURIComponent(character.toWellFormed()))

/** An error as a problem document. `more` has extension members. */
export function problemReply(
  error: RingbackError,
  request: RequestRef,
  more: Readonly<Record<string, unknown>> = {},
): ApiReply & { readonly body: string } {
  const { code, status } = error
  const body = JSON.stringify({
    type: `urn:ringback:problem:${code}`,
    title: titles[code],
    status,
    detail: error.message,
    instance: encoded(request.instance),
    code,
    requestId: request.requestId,
    errors: error.errors,
    ...more,
  })
  return { status, headers: { 'Content-Type': 'application/problem+json', 'Cache-Control': 'no-store', ...error.headers }, body }
}

/** The error for a thrown value: 503 when the store is down or full, otherwise 500 without the message, which may contain secrets or addresses. */
export function toRingbackError(thrown: unknown): RingbackError {
  if (thrown instanceof RingbackError) return thrown
  if (isOutage(thrown))
    return new RingbackError('temporary_reduced_capacity', 'The store cannot be reached or is full; try again soon.', {
      headers: { 'Retry-After': '5' },
      cause: thrown,
    })
  return new RingbackError('internal', 'Something went wrong here; the log has the details under the request id.', { cause: thrown })
}

/** SQLite's disk and lock errors, connection errors, and PostgreSQL's classes 08 (connection), 53 (resources), 57 (shutdown), 58 (system). */
const OUTAGE =
  /^(SQLITE_(FULL|IOERR|BUSY|CANTOPEN|READONLY|NOMEM)\w*|ENOSPC|EDQUOT|EIO|ECONN\w+|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|(08|53|57|58)[0-9A-Z]{3})$/

function isOutage(thrown: unknown): boolean {
  for (let error = thrown, depth = 0; error instanceof Error && depth < 4; error = error.cause, depth++)
    if ('code' in error && typeof error.code === 'string' && OUTAGE.test(error.code)) return true
  return false
}

export function validationFailed(faults: readonly Fault[]): RingbackError {
  const [first] = faults
  const message =
    faults.length === 1 && first ? `${first.pointer} ${first.detail}.` : `The request has ${faults.length} faults; see errors.`
  return new RingbackError('validation_failed', message, { errors: faults })
}

export const statusOf = (code: ErrorCode): number => errorStatuses[code]
export const titleOf = (code: ErrorCode): string => titles[code]
