/**
 * Claims of workers over HTTP, and those that wait. Who waits for the same types under the same key stands in one line, and each line asks the
 * store once for all of them: when work arrives, when the next falls due, and now and then, to repair words that were lost.
 */

import type { Clock } from '../../core/clock.ts'
import { RingbackError } from '../../core/errors.ts'
import { decideOutcome } from '../../core/lifecycle.ts'
import type { Millis, Task } from '../../core/model.ts'
import type { EventSink } from '../../observe/events.ts'
import type { StoreWith, TaskClaimOptions } from '../../store/interfaces.ts'

export interface WaitingClaim {
  /** Sorted, each once. */
  readonly types: TaskClaimOptions['types']
  readonly limit: number
  /** Who will hold the leases. */
  readonly leasedBy: string
}
export interface WorkerClaims {
  /**
   * Up to `limit` tasks as soon as there is one; none when `ms` are over, the caller hung up, or the node stops.
   * @throws RingbackError `temporary_reduced_capacity` when too many wait, or the store is down.
   */
  claim(asked: WaitingClaim, ms: Millis, hungUp: AbortSignal): Promise<readonly Task[]>
  /** Tasks whose worker was gone before it heard of them: their tries are given back. */
  release(tasks: readonly Task[]): void
  /** Somebody who runs these types is there. */
  touchTypes(types: readonly string[]): void
  /** Answers every waiting call now, and every later one at once; resolves when what is under way has ended. */
  stop(): Promise<void>
}
export interface WorkerClaimsOptions {
  readonly store: StoreWith<{ tasks: 'claim' | 'settle'; schedules: 'touchTaskTypes'; notifications: 'onWork' }>
  readonly clock: Clock
  readonly leaseMs: Millis
  readonly events: EventSink
}

/** Rows one claim asks for at most. */
const MAX_CLAIMED = 500
/** Characters of input in one answer; the first task is given whatever its size. */
const MAX_RESPONSE_CHARS = 8 * 1024 * 1024
/** Claims that wait at once on this node. */
const MAX_WAITING = 10_000
/** How often a line looks although nobody woke it. */
const POLL_MS: Millis = 15_000
/** A claim that found nothing is not repeated sooner: on a busy node there is always some word of work. */
const SPACING_MS: Millis = 50
/** How often a type is said to be run, well within the minute after which nobody is believed to run it. */
const SEEN_EVERY_MS: Millis = 20_000

interface Waiter {
  readonly limit: number
  readonly got: Task[]
  size: number
  /** A claim that began after it came has ended. */
  looked: boolean
  /** Its time is over. */
  over: boolean
  answer(): void
  refuse(error: unknown): void
}

export function createWorkerClaims({ store, clock, leaseMs, events }: WorkerClaimsOptions): WorkerClaims {
  const lines = new Map<string, Line>()
  const seenAt = new Map<string, Millis>()
  /** What is under way and must end before the store closes. */
  const busy = new Set<Promise<unknown>>()
  let waiting = 0
  let stopped = false

  const track = (work: Promise<unknown>): void => {
    const ended = work.catch((error: unknown) => events.emit('trouble', { error })).finally(() => busy.delete(ended))
    busy.add(ended)
  }
  const giveBack = (tasks: readonly Task[]): void => {
    for (const task of tasks)
      track(store.tasks.settle({ id: task.id, fence: task.fence, outcome: decideOutcome(task, { kind: 'interrupted' }, () => 0, clock) }))
  }
  const see = (types: readonly string[]): void => {
    const now = clock.now()
    const unseen = types.filter((type) => now - (seenAt.get(type) ?? Number.NEGATIVE_INFINITY) >= SEEN_EVERY_MS)
    if (unseen.length === 0 || stopped) return
    for (const type of unseen) seenAt.set(type, now)
    track(store.schedules.touchTaskTypes({ types: unseen }))
  }

  class Line {
    readonly waiters = new Set<Waiter>()
    readonly #key: string
    readonly #asked: Omit<WaitingClaim, 'limit'>
    #claiming = false
    /** Somebody came, or work did, since the last claim began. */
    #again = false
    #emptyAt: Millis = Number.NEGATIVE_INFINITY
    #cancelTimer = (): void => {}

    constructor(key: string, { types, leasedBy: by }: Omit<WaitingClaim, 'limit'>) {
      this.#key = key
      this.#asked = { types, leasedBy: by }
    }

    get claiming(): boolean {
      return this.#claiming
    }

    wake(): void {
      this.#again = true
      if (this.#claiming) return
      const waitMs = this.#emptyAt + SPACING_MS - clock.now()
      if (waitMs > 0) this.#later(waitMs)
      else track(this.#claim())
    }

    #later(ms: Millis): void {
      this.#cancelTimer()
      this.#cancelTimer = clock.after(ms, () => {
        if (!this.#claiming) track(this.#claim())
      })
    }

    async #claim(): Promise<void> {
      this.#cancelTimer()
      const asking = [...this.waiters]
      if (asking.length === 0 || stopped) return this.#rest(null)
      this.#claiming = true
      this.#again = false
      see(this.#asked.types.map(({ type }) => type))
      let nextInMs: Millis | null = null
      try {
        const limit = Math.min(
          MAX_CLAIMED,
          asking.reduce((sum, waiter) => sum + waiter.limit, 0),
        )
        const claimed = await store.tasks.claim({ ...this.#asked, limit, leaseMs })
        for (const waiter of asking) waiter.looked = true
        giveBack(this.#deal(claimed.items))
        this.#emptyAt = claimed.items.length === 0 ? clock.now() : Number.NEGATIVE_INFINITY
        if (claimed.more) this.#again = true
        nextInMs = claimed.nextInMs
      } catch (error) {
        for (const waiter of asking) waiter.refuse(error)
      }
      this.#claiming = false
      for (const waiter of [...this.waiters]) if (waiter.got.length > 0 || (waiter.over && waiter.looked)) waiter.answer()
      this.#rest(nextInMs)
    }

    #rest(nextInMs: Millis | null): void {
      if (this.waiters.size === 0 || stopped) {
        this.#cancelTimer()
        if (lines.get(this.#key) === this) lines.delete(this.#key)
      } else if (this.#again) this.wake()
      else this.#later(Math.max(Math.min(nextInMs ?? POLL_MS, POLL_MS), this.#emptyAt + SPACING_MS - clock.now()))
    }

    /** One to each in turn, until nobody has room; gives what is left. */
    #deal(items: readonly Task[]): readonly Task[] {
      const left = [...items]
      for (let open = [...this.waiters]; open.length > 0 && left.length > 0; )
        open = open.filter((waiter) => {
          const fits = waiter.got.length < waiter.limit && waiter.size < MAX_RESPONSE_CHARS
          const task = fits ? left.shift() : undefined
          if (!task) return false
          waiter.got.push(task)
          waiter.size += task.input.length
          return true
        })
      return left
    }
  }

  const unsubscribe = store.notifications.onWork((kind) => {
    if (kind === 'task') for (const line of lines.values()) line.wake()
  })

  return {
    release: giveBack,
    touchTypes: see,
    claim(asked, ms, hungUp) {
      if (stopped || hungUp.aborted) return Promise.resolve([])
      if (waiting >= MAX_WAITING)
        throw new RingbackError(
          'temporary_reduced_capacity',
          `${MAX_WAITING} claims wait on this node, which is the most; ask again later.`,
          {
            headers: { 'Retry-After': '5' },
          },
        )
      const key = JSON.stringify([asked.leasedBy, asked.types.map(({ type }) => type)])
      const line = lines.get(key) ?? new Line(key, asked)
      lines.set(key, line)
      const { promise, resolve, reject } = Promise.withResolvers<readonly Task[]>()
      const leave = (): void => {
        line.waiters.delete(waiter)
        waiting--
        cancelTimer()
        hungUp.removeEventListener('abort', waiter.answer)
      }
      const waiter: Waiter = {
        limit: asked.limit,
        got: [],
        size: 0,
        looked: false,
        over: ms <= 0,
        answer() {
          if (!line.waiters.has(waiter)) return
          leave()
          resolve(waiter.got)
        },
        refuse(error) {
          if (!line.waiters.has(waiter)) return
          leave()
          reject(error)
        },
      }
      waiting++
      line.waiters.add(waiter)
      hungUp.addEventListener('abort', waiter.answer, { once: true })
      const cancelTimer = clock.after(ms, () => {
        waiter.over = true
        // What a claim under way brings may be for it.
        if (waiter.looked && !line.claiming) waiter.answer()
      })
      line.wake()
      return promise
    },
    async stop() {
      stopped = true
      unsubscribe()
      for (const line of lines.values()) for (const waiter of [...line.waiters]) waiter.answer()
      while (busy.size > 0) await Promise.all(busy)
    },
  }
}
