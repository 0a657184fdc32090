/**
 * Follows a task until it has ended, by what works between here and the server:
 *
 *   stream ──not served, held back, or cut again and again──▶ long-poll ──calls are not held, or are cut──▶ poll
 *
 * Nobody asks beforehand what works: each way is tried, and left for the next one for as long as this task is followed. That streams do not
 * come through is remembered for a while, for what is followed next.
 */
import type { TaskDocument as Task } from '../core/documents.ts'
import { ANSWER_MS, backOff, type Calls, isWorthRepeating, retryAfter } from './calls.ts'
import { RingbackClientError } from './errors.ts'
import { openStream, Unstreamable } from './stream.ts'
import type { FollowOptions, WaitOptions } from './types.ts'

/** Tries in a row without an answer: about two minutes, as long as a restart may take. */
const MAX_BLIND_TRIES = 12
/** Streams in a row that tell nothing new: what cuts them may let calls through. */
const MAX_IDLE_STREAMS = 3
/** How long a call is held at most; proxies cut idle ones after 30 or 60 s. */
const HOLD_SECONDS = 25
/** Held calls in a row that something between here and the server did not let be. */
const MAX_UNHELD_CALLS = 3
const BETWEEN_REPORTS_MS = 250
/** Streams did not come through: how long none is tried. */
const STREAMS_AGAIN_MS = 300_000

export interface Follower {
  /** Each revision that is seen, from what was given to the last. */
  follow(given: Task | string, options: FollowOptions): AsyncGenerator<Task, void, undefined>
  /** The task once it has ended. Who wants no news of it meanwhile makes one call that is held until then. */
  wait(given: Task | string, options: WaitOptions): Promise<Task>
}

export function createFollower(calls: Calls): Follower {
  let streamsAgainAt = Number.NEGATIVE_INFINITY
  async function* follow(given: Task | string, options: FollowOptions): AsyncGenerator<Task, void, undefined> {
    const course = embark(calls, given, options)
    if (course.known) yield course.known
    if (!hasEnded(course.known) && calls.clock.now() >= streamsAgainAt) {
      const useful = yield* stream(calls, course)
      if (!useful) streamsAgainAt = calls.clock.now() + STREAMS_AGAIN_MS
    }
    if (!hasEnded(course.known)) yield* poll(calls, course, true)
  }
  return {
    follow,
    async wait(given, { onProgress, ...options }) {
      if (onProgress) {
        let last: Task | null = null
        for await (last of follow(given, options)) onProgress(last)
        return last as unknown as Task
      }
      const course = embark(calls, given, options)
      if (!hasEnded(course.known)) for await (const _ of poll(calls, course, false));
      return course.known as Task
    },
  }
}

/** What is followed, and until when. */
interface Course {
  readonly id: string
  readonly signal: AbortSignal | undefined
  /** Milliseconds that are left. @throws RingbackClientError `wait_timeout` when none are. */
  leftMs(): number
  /** Whether what the server says is newer than what is known; then it is known. */
  learn(task: Task): boolean
  readonly known: Task | null
}

function embark({ clock }: Calls, given: Task | string, { timeoutMs = Number.POSITIVE_INFINITY, signal }: FollowOptions): Course {
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
      throw new RingbackClientError('wait_timeout', `${id} had not ended after ${timeoutMs} ms. It goes on: wait again, or cancel it.`)
    },
    learn(task) {
      if (known !== null && task.revision <= known.revision) return false
      known = task
      return true
    },
  }
}

/** Ends when the task has, or when streams are of no use; answers whether they come through at all. */
async function* stream(calls: Calls, course: Course): AsyncGenerator<Task, boolean, undefined> {
  const { clock, pause } = calls
  let resumeAfter: number | null = null
  let idle = 0
  while (idle < MAX_IDLE_STREAMS) {
    const leftMs = course.leftMs()
    let waitMs: number | null = null
    idle++
    try {
      for await (const task of openStream(calls, taskPath(course.id, '/events'), resumeAfter, leftMs, course.signal)) {
        resumeAfter = task.revision
        if (!course.learn(task)) continue
        idle = 0
        yield task
        if (hasEnded(task)) return true
      }
    } catch (error) {
      course.signal?.throwIfAborted()
      if (error instanceof Unstreamable) return false
      if (!(error instanceof RingbackClientError) || !isPassing(error)) throw error
      if (error.retryAfterSeconds !== null) waitMs = error.retryAfterSeconds * 1000
    }
    await pause(Math.min(waitMs ?? backOff(idle + 1, clock), course.leftMs()), course.signal)
  }
  return true
}

/**
 * Long-polls: until anything changes, or until the end. Where calls are cut it asks for shorter ones, and then for none that are held;
 * those it repeats as often as `Retry-After` says.
 */
async function* poll({ send, pause, clock }: Calls, course: Course, everyChange: boolean): AsyncGenerator<Task, void, undefined> {
  let [quick, blind, unheld, holdSeconds] = [0, 0, 0, HOLD_SECONDS]
  while (!hasEnded(course.known)) {
    const leftMs = course.leftMs()
    const askedAt = clock.now()
    const hold = unheld < MAX_UNHELD_CALLS
    const seconds = hold ? Math.max(1, Math.min(holdSeconds, Math.ceil(leftMs / 1000))) : 0
    const since = course.known?.revision
    let pauseMs = 0
    try {
      const { status, headers, body } = await send({
        method: 'GET',
        path: taskPath(course.id, hold ? `?wait=${seconds}` : ''),
        // Without it the call is held until the task has ended; with it, until anything changes.
        headers: (everyChange || !hold) && since !== undefined ? { 'If-None-Match': `W/"${since}"` } : {},
        signal: course.signal,
        repeatable: true,
        timeoutMs: Math.min(leftMs, seconds * 1000 + ANSWER_MS),
      })
      blind = 0
      const changed = status !== 304 && course.learn(body as Task)
      const heldMs = clock.now() - askedAt
      const wasHeld = hold && (heldMs >= seconds * 500 || (changed && everyChange))
      if (wasHeld) unheld = 0
      quick = wasHeld ? 0 : quick + 1
      if (changed && course.known) yield course.known
      if (!wasHeld) pauseMs = retryAfter(headers) ?? backOff(quick + 1, clock)
      else if (everyChange) pauseMs = BETWEEN_REPORTS_MS - heldMs
    } catch (error) {
      course.signal?.throwIfAborted()
      if (!(error instanceof RingbackClientError)) throw error
      const heldMs = clock.now() - askedAt
      const refused = hold && isOfAProxy(error)
      if (!refused && !isPassing(error)) throw error
      if (heldMs < leftMs && ++blind >= MAX_BLIND_TRIES) throw error
      if (refused) unheld = MAX_UNHELD_CALLS
      if (hold && heldMs >= 1000) {
        unheld++
        holdSeconds = Math.max(1, Math.floor(Math.min(seconds, heldMs / 1000) * 0.8))
      }
      pauseMs = error.retryAfterSeconds === null ? backOff(blind, clock) : error.retryAfterSeconds * 1000
    }
    if (!hasEnded(course.known)) await pause(Math.min(pauseMs, course.leftMs()), course.signal)
  }
}

const hasEnded = (task: Task | null): boolean => task !== null && task.status !== 'pending' && task.status !== 'running'

/** Whether to ask again may help: reading does nothing, so whatever went wrong over there may be asked about again. */
const isPassing = (error: RingbackClientError): boolean => isWorthRepeating(error, true) || (error.status ?? 0) >= 500

/** Something on the way will not have a call of this kind, and says it in a way that is not Ringback's. */
const isOfAProxy = ({ code, status }: RingbackClientError): boolean =>
  code === 'unexpected_answer' && status !== null && status >= 400 && status < 500

export const taskPath = (id: string, rest = ''): string => `/v1/tasks/${encodeURIComponent(id)}${rest}`
