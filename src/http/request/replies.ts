/** Replies and errors that many routes share. */
import { RingbackError } from '../../core/errors.ts'
import type { FindResult } from '../../store/interfaces.ts'
import type { ApiReply } from './problem.ts'

export const JSON_TYPE = 'application/json'

export const jsonReply = (status: number, body: unknown, headers: Record<string, string> = {}): ApiReply => ({
  status,
  headers: { 'Content-Type': JSON_TYPE, 'Cache-Control': 'no-store', ...headers },
  body: JSON.stringify(body),
})

export const emptyReply = (status = 204): ApiReply => ({ status, headers: {}, body: null })

/** Epoch milliseconds as RFC 3339. */
export const toTimestamp = (at: number): string => new Date(at).toISOString()
export const toTimestampOrNull = (at: number | null): string | null => (at === null ? null : toTimestamp(at))

export const notFound = (what: string): RingbackError => new RingbackError('not_found', `There is no such ${what}.`)

/** @throws RingbackError `not_found`, or `task_expired` when the id is known to have been erased */
export function unwrapFound<T>(found: FindResult<T>, what: string): T {
  if (found.kind === 'found') return found.value
  if (found.kind === 'gone') throw taskExpired()
  throw notFound(what)
}

export const taskExpired = (): RingbackError => new RingbackError('task_expired', 'The task was erased, by its client or by age.')

export const quotaExceeded = (max: number, what: string): RingbackError =>
  new RingbackError('quota_exceeded', `You have ${max} ${what}, the maximum for one client: delete some that you no longer need.`)
