/**
 * Follows a task until it has ended, by the best transport that works:
 *
 *   stream ──not served, buffered, or cut repeatedly──▶ long-poll ──not held, or cut──▶ poll
 *
 * Each transport is tried in turn; a task that is followed never goes back to an earlier one. A failure of streams is remembered for
 * {@link STREAMS_AGAIN_MS}, for other tasks too.
 */
import type { TaskDocument as Task } from '../core/documents.ts'
import { backoffMs, type Calls, isRetryable, RESPONSE_TIMEOUT_MS, retryAfterMsOf } from './calls.ts'
import { RingbackClientError } from './errors.ts'
import { openStream, Unstreamable } from './stream.ts'
import type { FollowOptions, WaitOptions } from './types.ts'

/** Consecutive tries without an answer: about two minutes, as long as a restart may take. */
const MAX_UNANSWERED = 12
/** Consecutive streams without news: whatever cuts them may let calls through. */
const MAX_IDLE_STREAMS = 3
/** Maximum wait of a long-poll; proxies cut idle calls after 30 or 60 s. */
const HOLD_SECONDS = 25
/** Consecutive long-polls that a proxy cut or did not hold. */
const MAX_UNHELD_CALLS = 3
const BETWEEN_REPORTS_MS = 250
/** How long no stream is tried after one failed. */
const STREAMS_AGAIN_MS = 300_000

export interface Follower {
  /** Yields each revision that is seen, from the given task to the last. */
  follow(given: Task | string, options: FollowOptions): AsyncGenerator<Task, void, undefined>
  /** Resolves when the task has ended. Without `onProgress` one long-poll is held until then. */
  wait(given: Task | string, options: WaitOptions): Promise<Task>
}

export function createFollower(calls: Calls): Follower {
  let streamsAgainAt = Number.NEGATIVE_INFINITY
  async function* follow(given: Task | string, options: FollowOptions): AsyncGenerator<Task, void, undefined> {
    const followed = startFollowing(calls, given, options)
    if (followed.known) yield followed.known
    if (!hasEnded(followed.known) && calls.clock.now() >= streamsAgainAt) {
      const useful = yield* stream(calls, followed)
      if (!useful) streamsAgainAt = calls.clock.now() + STREAMS_AGAIN_MS
    }
    if (!hasEnded(followed.known)) yield* poll(calls, followed, true)
  }
  return {
    follow,
    async wait(given, { onProgress, ...options }) {
      if (onProgress) {
        let last: Task | null = null
        for await (last of follow(given, options)) onProgress(last)
        return last as unknown as Task
      }
      const followed = startFollowing(calls, given, options)
      if (!hasEnded(followed.known)) for await (const _ of poll(calls, followed, false));
      return followed.known as Task
    },
  }
}

/** A task that is followed, and the time limit. */
interface Followed {
  readonly id: string
  readonly signal: AbortSignal | undefined
  /** Milliseconds left. @throws RingbackClientError `wait_timeout` when none are. */
  leftMs(): number
  /** Stores the task if it is newer than the known one; returns whether it is. */
  update(task: Task): boolean
  readonly known: Task | null
}

function startFollowing({ clock }: Calls, given: Task | string, { timeoutMs = Number.POSITIVE_INFINITY, signal }: FollowOptions): Followed {
  const id = typeof given === 'string' ? given : given.id
  const endAt = clock.now() + timeoutMs
  let known = typeof given === 'string' ? null : given
  return {
    id,
    signal,
    get known() {
      return known
    },
    leftMs() {
      signal?.throwIfAborted()
      const left = endAt - clock.now()
      if (left > 0) return left
      throw new RingbackClientError('wait_timeout', `${id} had not ended after ${timeoutMs} ms. It continues: wait again, or cancel it.`)
    },
    update(task) {
      if (known !== null && task.revision <= known.revision) return false
      known = task
      return true
    },
  }
}

/** Ends when the task has ended or streams do not help; returns whether streams come through at all. */
async function* stream(calls: Calls, followed: Followed): AsyncGenerator<Task, boolean, undefined> {
  const { clock, pause } = calls
  let resumeAfter: number | null = null
  let idle = 0
  while (idle < MAX_IDLE_STREAMS) {
    const leftMs = followed.leftMs()
    let waitMs: number | null = null
    idle++
    try {
      for await (const task of openStream(calls, taskPath(followed.id, '/events'), resumeAfter, leftMs, followed.signal)) {
        resumeAfter = task.revision
        if (!followed.update(task)) continue
        idle = 0
        yield task
        if (hasEnded(task)) return true
      }
    } catch (error) {
      followed.signal?.throwIfAborted()
      if (error instanceof Unstreamable) return false
      if (!(error instanceof RingbackClientError) || !isTransient(error)) throw error
      if (error.retryAfterSeconds !== null) waitMs = error.retryAfterSeconds * 1000
    }
    await pause(Math.min(waitMs ?? backoffMs(idle + 1, clock), followed.leftMs()), followed.signal)
  }
  return true
}

/** Long-polls, for every change or for the end. If calls are cut, it asks for shorter ones, and finally polls as often as `Retry-After` says. */
async function* poll({ send, pause, clock }: Calls, followed: Followed, everyChange: boolean): AsyncGenerator<Task, void, undefined> {
  let [early, unanswered, unheld, holdSeconds] = [0, 0, 0, HOLD_SECONDS]
  while (!hasEnded(followed.known)) {
    const leftMs = followed.leftMs()
    const sentAt = clock.now()
    const hold = unheld < MAX_UNHELD_CALLS
    const seconds = hold ? Math.max(1, Math.min(holdSeconds, Math.ceil(leftMs / 1000))) : 0
    const since = followed.known?.revision
    let pauseMs = 0
    try {
      const { status, headers, body } = await send({
        method: 'GET',
        path: taskPath(followed.id, hold ? `?wait=${seconds}` : ''),
        // With the header the call is held until any change, without it until the end.
        headers: (everyChange || !hold) && since !== undefined ? { 'If-None-Match': `W/"${since}"` } : {},
        signal: followed.signal,
        repeatable: true,
        timeoutMs: Math.min(leftMs, seconds * 1000 + RESPONSE_TIMEOUT_MS),
      })
      unanswered = 0
      const changed = status !== 304 && followed.update(body as Task)
      const heldMs = clock.now() - sentAt
      const wasHeld = hold && (heldMs >= seconds * 500 || (changed && everyChange))
      if (wasHeld) unheld = 0
      early = wasHeld ? 0 : early + 1
      if (changed && followed.known) yield followed.known
      if (!wasHeld) pauseMs = retryAfterMsOf(headers) ?? backoffMs(early + 1, clock)
      else if (everyChange) pauseMs = BETWEEN_REPORTS_MS - heldMs
    } catch (error) {
      followed.signal?.throwIfAborted()
      if (!(error instanceof RingbackClientError)) throw error
      const heldMs = clock.now() - sentAt
      const refused = hold && isFromProxy(error)
      if (!refused && !isTransient(error)) throw error
      if (heldMs < leftMs && ++unanswered >= MAX_UNANSWERED) throw error
      if (refused) unheld = MAX_UNHELD_CALLS
      if (hold && heldMs >= 1000) {
        unheld++
        holdSeconds = Math.max(1, Math.floor(Math.min(seconds, heldMs / 1000) * 0.8))
      }
      pauseMs = error.retryAfterSeconds === null ? backoffMs(unanswered, clock) : error.retryAfterSeconds * 1000
    }
    if (!hasEnded(followed.known)) await pause(Math.min(pauseMs, followed.leftMs()), followed.signal)
  }
}

const hasEnded = (task: Task | null): boolean => task !== null && task.status !== 'pending' && task.status !== 'running'

/** Whether a retry may help: a read has no effect, so it may follow any error of the server. */
const isTransient = (error: RingbackClientError): boolean => isRetryable(error, true) || (error.status ?? 0) >= 500

/** A proxy refused the call: a 4xx that is not Ringback's. */
const isFromProxy = ({ code, status }: RingbackClientError): boolean =>
  code === 'unexpected_answer' && status !== null && status >= 400 && status < 500

export const taskPath = (id: string, rest = ''): string => `/v1/tasks/${encodeURIComponent(id)}${rest}`
