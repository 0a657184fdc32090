/** The life cycle of leased work: its transitions, and what happens after a try or an attempt. Pure. */
import type { Clock } from './clock.ts'
import {
  type AttemptOutcome,
  type DisabledReason,
  type Failure,
  type HealthSignal,
  type Json,
  type Millis,
  type State,
  type Task,
  type TryOutcome,
  WORKER_PREFIX,
} from './model.ts'

/** Operation → from → to. Code, SQL, documentation and tests are checked against this table. */
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
export type TransitionName = keyof typeof transitions

/** How a try ended. */
export type TryResult =
  | { readonly kind: 'returned'; readonly result: Json | null }
  /** `notBeforeMs`: the least wait that the receiver asked for. `stack`: of what the handler threw, for the operator's log, never for a client. */
  | {
      readonly kind: 'threw'
      readonly error: Failure
      readonly permanent?: boolean
      readonly notBeforeMs?: Millis | null
      readonly stack?: string
    }
  | { readonly kind: 'postponed'; readonly delayMs: Millis }
  /** Aborted by the shutdown of this node: the try does not count. */
  | { readonly kind: 'interrupted' }
  /** The client requested a cancel, and the run returned no result. */
  | { readonly kind: 'canceled' }

/** The largest result, as JSON. */
export const RESULT_LIMIT_BYTES = 8 * 1024 * 1024
/** The end of a try with a larger result. */
export const resultTooLarge: TryResult = {
  kind: 'threw',
  permanent: true,
  error: { code: 'result_too_large', message: `The result is over ${RESULT_LIMIT_BYTES} bytes of JSON.`, details: null },
}

/**
 * The end of a running task whose deadline or `timeoutSeconds` has passed; null: neither has. A node enforces the limits of its own tries with timers.
 * For HTTP workers, each of their calls and a chore call this function. `now` is the store's clock.
 */
export function evaluateTimeLimits(
  { startedAt, timeoutSeconds, deadlineAt }: Task,
  now: Millis,
): (TryResult & { readonly kind: 'threw' }) | null {
  if (deadlineAt !== null && deadlineAt <= now) {
    const message = `The task had not ended by ${new Date(deadlineAt).toISOString()}.`
    return { kind: 'threw', permanent: true, error: { code: 'deadline_exceeded', message, details: null } }
  }
  if (startedAt === null || startedAt + timeoutSeconds * 1000 > now) return null
  return { kind: 'threw', error: { code: 'timeout', message: `The try took longer than its ${timeoutSeconds} s.`, details: null } }
}
/** Whether a worker over HTTP holds the lease. */
export const isHeldByWorker = ({ leasedBy }: Pick<Task, 'leasedBy'>): boolean => leasedBy?.startsWith(WORKER_PREFIX) ?? false

/** One try of a task that has ended. */
export interface RunRecord {
  readonly task: Task
  /** The task's state after the try; `stale`: its lease was lost. */
  readonly outcome: State | 'stale'
  readonly durationMs: Millis
  readonly waitMs: Millis
  readonly errorCode: string | null
}

export interface WorkToDecide {
  readonly tries: number
  readonly maxTries: number
  readonly deadlineAt?: Millis | null
}
/** Delay before the next try after `tries` of them; `random` in [0, 1) adds jitter. */
export type Backoff = (tries: number, random: number) => Millis

/** What happens after a try, for tasks and deliveries alike. */
export function decideOutcome(work: WorkToDecide, ended: TryResult, delays: Backoff, clock: Pick<Clock, 'now' | 'random'>): TryOutcome {
  switch (ended.kind) {
    case 'returned':
      return { kind: 'complete', result: ended.result }
    case 'postponed':
      return { kind: 'release', delayMs: wholeMs(ended.delayMs) }
    case 'interrupted':
      return { kind: 'release', delayMs: 0 }
    case 'canceled':
      return { kind: 'cancel' }
    case 'threw': {
      const { error } = ended
      if (ended.permanent || work.tries >= work.maxTries) return { kind: 'fail', error }
      const delayMs = wholeMs(Math.max(delays(work.tries, clock.random()), ended.notBeforeMs ?? 0))
      const now = clock.now()
      // The next try would start after the deadline, so the work fails now, with the error of this try.
      if (work.deadlineAt != null && now + delayMs >= work.deadlineAt) return { kind: 'fail', error }
      return {
        kind: 'retry',
        delayMs,
        error: { code: error.code, message: error.message, try: work.tries, at: new Date(now).toISOString() },
      }
    }
  }
}

/** 100 years. Now plus this is still a valid date. */
const MAX_DELAY_MS = 3_155_760_000_000
/** Rounds and bounds a delay so that both databases can add it to a timestamp. NaN becomes 0. */
const wholeMs = (ms: Millis): Millis => Math.min(Math.max(0, Math.round(ms) || 0), MAX_DELAY_MS)

/** Backoff from delays in seconds, one before each retry, the last repeated; each delayed by up to 20 % jitter. */
export function backoffFromSchedule(seconds: readonly number[]): Backoff {
  return (tries, random) => Math.round((seconds[Math.min(tries, seconds.length) - 1] ?? 0) * 1000 * (1 + random / 5))
}

/** Limits of the wait that a receiver may ask for. */
const MAX_RETRY_AFTER_MS = 86_400_000
const MAX_503_HOLD_MS = 3_600_000

/** The three date formats of RFC 9110 §5.6.7; the last one has no zone and means GMT. */
const DATED = /^[A-Z][a-z]{2,8}, .* GMT$/
const ASCTIME = /^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}$/

/** `Retry-After` (RFC 9110 §10.2.3) as milliseconds from `now`, at most 24 h; null when it is absent, malformed, negative or past. */
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
  return ms > 0 ? Math.min(ms, MAX_RETRY_AFTER_MS) : null
}

/** The consequences of a receiver's response for the delivery and its endpoint. */
export interface ReceiverVerdict {
  readonly tryResult: TryResult
  /** What the lane's breaker and slow start learn; null: nothing. */
  readonly signal: HealthSignal | null
  /** Success ends an episode of failure, failure begins one, null does neither. */
  readonly succeeded: boolean | null
  readonly disable: DisabledReason | null
  /** How long the whole lane waits. */
  readonly holdMs: Millis | null
}

/** Evaluates one attempt by its outcome, its status and its `Retry-After`. */
export function evaluateResponse(
  sent: { outcome: AttemptOutcome; httpStatus: number | null; error: string | null },
  retryAfterMs: Millis | null,
): ReceiverVerdict {
  const nothing = { signal: null, succeeded: null, disable: null, holdMs: null }
  if (sent.outcome === 'success') return { ...nothing, tryResult: { kind: 'returned', result: null }, signal: 'success', succeeded: true }
  if (sent.outcome === 'aborted') return { ...nothing, tryResult: { kind: 'interrupted' } }
  const error: Failure = { code: sent.outcome, message: sent.error ?? `HTTP status ${sent.httpStatus}`, details: null }
  const failed = { ...nothing, tryResult: { kind: 'threw', error }, signal: 'failure', succeeded: false } as const
  const { httpStatus } = sent
  if (httpStatus === 410) return { ...failed, tryResult: { kind: 'threw', error, permanent: true }, disable: 'gone' }
  if (httpStatus === 429 || (httpStatus === 503 && retryAfterMs !== null)) {
    const holdMs = retryAfterMs !== null && httpStatus === 503 ? Math.min(retryAfterMs, MAX_503_HOLD_MS) : retryAfterMs
    // The endpoint is up, so this does not count towards opening the breaker. The try counts: after the last one the delivery fails.
    return {
      ...failed,
      tryResult: { kind: 'threw', error, notBeforeMs: retryAfterMs },
      signal: 'neutral',
      succeeded: httpStatus === 429 ? null : false,
      holdMs,
    }
  }
  if (sent.outcome === 'redirect') return { ...failed, signal: 'neutral', succeeded: null }
  return { ...failed, signal: sent.outcome === 'timeout' || sent.outcome === 'blocked' ? sent.outcome : 'failure' }
}

/** Evaluates one attempt of a verification. It changes neither health nor status: an unverified endpoint owes no answer, so not even 410 disables it. */
export function evaluateVerification(
  sent: { outcome: AttemptOutcome; httpStatus: number | null; error: string | null },
  retryAfterMs: Millis | null,
): ReceiverVerdict {
  const { tryResult } = evaluateResponse(sent, retryAfterMs)
  return {
    tryResult: tryResult.kind === 'threw' ? { ...tryResult, permanent: false } : tryResult,
    signal: null,
    succeeded: null,
    disable: null,
    holdMs: null,
  }
}
