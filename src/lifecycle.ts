/** The life of leased work: the transitions as data, and the one judge of how a try ended. Pure. */
import type { Clock } from './clock.ts'
import type { AttemptOutcome, DisabledReason, Failure, Json, Millis, Outcome, State } from './model.ts'

/** verb → from → to. Code, SQL guards, documentation and tests are checked against this table. */
export const transitions = {
  claim: { pending: 'running' },
  complete: { running: 'completed' },
  retry: { running: 'pending' },
  release: { running: 'pending' },
  fail: { running: 'failed', pending: 'failed' },
  requestCancel: { running: 'running' },
  cancel: { pending: 'canceled', running: 'canceled' },
  redo: { failed: 'pending', canceled: 'pending' },
} as const satisfies Record<string, Partial<Record<State, State>>>
export type Verb = keyof typeof transitions

/** How a try ended, before it is judged. */
export type Ended =
  | { readonly kind: 'returned'; readonly result: Json | null }
  /** `notBeforeMs`: what the other side asked to wait at least. */
  | { readonly kind: 'threw'; readonly error: Failure; readonly permanent?: boolean; readonly notBeforeMs?: Millis | null }
  | { readonly kind: 'postponed'; readonly delayMs: Millis }
  /** Cut by our own shutdown: the try is given back. */
  | { readonly kind: 'interrupted' }
  /** The client asked to cancel, and it did not return a result. */
  | { readonly kind: 'canceled' }

/** What judging needs of the work. */
export interface Judged {
  readonly tries: number
  readonly maxTries: number
  readonly deadlineAt?: Millis | null
}
/** Delay before the next try, after `tries` were spent; `random` in [0, 1) spreads it. */
export type Delays = (tries: number, random: number) => Millis

/** The only judge, for tasks and deliveries alike. */
export function decide(work: Judged, ended: Ended, delays: Delays, clock: Pick<Clock, 'now' | 'random'>): Outcome {
  switch (ended.kind) {
    case 'returned':
      return { kind: 'complete', result: ended.result }
    case 'postponed':
      return { kind: 'release', delayMs: whole(ended.delayMs) }
    case 'interrupted':
      return { kind: 'release', delayMs: 0 }
    case 'canceled':
      return { kind: 'cancel' }
    case 'threw': {
      const { error } = ended
      if (ended.permanent || work.tries >= work.maxTries) return { kind: 'fail', error }
      const delayMs = whole(Math.max(delays(work.tries, clock.random()), ended.notBeforeMs ?? 0))
      const now = clock.now()
      // A retry that could not start in time is no retry: it fails now, with what went wrong.
      if (work.deadlineAt != null && now + delayMs >= work.deadlineAt) return { kind: 'fail', error }
      return {
        kind: 'retry',
        delayMs,
        error: { code: error.code, message: error.message, try: work.tries, at: new Date(now).toISOString() },
      }
    }
  }
}

/** A hundred years: a moment that far away is still a date. */
const MOST_DELAY_MS = 3_155_760_000_000
/** What a handler or its policy asks to wait, as a number every store can add to its clock; nonsense is no delay. */
const whole = (ms: Millis): Millis => Math.min(Math.max(0, Math.round(ms) || 0), MOST_DELAY_MS)

/** A list of delays in seconds, one before each retry, the last repeated; each lengthened by up to a fifth, never shortened. */
export function scheduled(seconds: readonly number[]): Delays {
  return (tries, random) => Math.round((seconds[Math.min(tries, seconds.length) - 1] ?? 0) * 1000 * (1 + random / 5))
}

/** Ceilings on what a receiver may ask us to wait. */
const MOST_RETRY_AFTER_MS = 86_400_000
const MOST_503_HOLD_MS = 3_600_000

/** The three forms of a date (RFC 9110 §5.6.7); the last one names no zone and means GMT. */
const DATED = /^[A-Z][a-z]{2,8}, .* GMT$/
const ASCTIME = /^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}$/

/**
 * `Retry-After` (RFC 9110 §10.2.3) as milliseconds from `now`, at most 24 h; null when it is absent, malformed, negative or past.
 */
export function parseRetryAfter(value: string | undefined, now: Millis): Millis | null {
  const text = value?.trim()
  if (!text) return null
  const ms = /^\d+$/.test(text)
    ? Number(text) * 1000
    : DATED.test(text)
      ? Date.parse(text) - now
      : ASCTIME.test(text)
        ? Date.parse(`${text} GMT`) - now
        : Number.NaN
  return ms > 0 ? Math.min(ms, MOST_RETRY_AFTER_MS) : null
}

/** What a receiver's answer means: for the delivery, and for its endpoint. */
export interface Verdict {
  readonly ended: Ended
  /** Null: it says nothing about the endpoint's health. */
  readonly succeeded: boolean | null
  readonly disable: DisabledReason | null
  /** The whole lane waits this long. */
  readonly holdMs: Millis | null
}

/** Judges one attempt by its outcome, its status and what the receiver asked to wait. */
export function judgeAnswer(
  sent: { outcome: AttemptOutcome; httpStatus: number | null; error: string | null },
  retryAfterMs: Millis | null,
): Verdict {
  if (sent.outcome === 'success') return { ended: { kind: 'returned', result: null }, succeeded: true, disable: null, holdMs: null }
  if (sent.outcome === 'aborted') return { ended: { kind: 'interrupted' }, succeeded: null, disable: null, holdMs: null }
  const error: Failure = { code: sent.outcome, message: sent.error ?? `HTTP status ${sent.httpStatus}`, details: null }
  const status = sent.httpStatus
  if (status === 410) return { ended: { kind: 'threw', error, permanent: true }, succeeded: false, disable: 'gone', holdMs: null }
  const asked = status === 429 || status === 503 ? retryAfterMs : null
  return {
    ended: { kind: 'threw', error, notBeforeMs: asked },
    // A redirect and a 429 are answers of an endpoint that lives.
    succeeded: status === 429 || sent.outcome === 'redirect' ? null : false,
    disable: null,
    holdMs: asked === null ? null : status === 503 ? Math.min(asked, MOST_503_HOLD_MS) : asked,
  }
}
