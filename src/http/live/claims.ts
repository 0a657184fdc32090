/**
 * Claims of workers over HTTP, and claims that wait. Waiting claims for the same types under the same key form a group. A group asks the store once
 * for all its claims: when work arrives, when the next task falls due, and every {@link POLL_MS} in case a notification was lost.
 */
import type { Clock } from '../../core/clock.ts'
import { RingbackError } from '../../core/errors.ts'
import { decideOutcome } from '../../core/lifecycle.ts'
import type { Millis, Task } from '../../core/model.ts'
import type { EventSink } from '../../observe/events.ts'
import type { StoreWith, TaskClaimOptions } from '../../store/interfaces.ts'

export interface WaitingClaim {
  /** Sorted, without duplicates. */
  readonly types: TaskClaimOptions['types']
  readonly limit: number
  /** The holder of the leases. */
  readonly leasedBy: string
}
export interface WorkerClaims {
  /**
   * Up to `limit` tasks, as soon as there is one. None after `ms`, when the caller disconnects, or when the node stops.
   * @throws RingbackError `temporary_reduced_capacity` when too many claims wait, or the store is down
   */
  claim(request: WaitingClaim, ms: Millis, disconnected: AbortSignal): Promise<readonly Task[]>
  /** Releases tasks that did not reach their worker. Their tries do not count. */
  release(tasks: readonly Task[]): void
  /** Stores that a worker for these types is present. */
  touchTypes(types: readonly string[]): void
  /** Answers every waiting call now, and every later call at once. Resolves when all work in progress has ended. */
  stop(): Promise<void>
}
export interface WorkerClaimsOptions {
  readonly store: StoreWith<{ tasks: 'claim' | 'settle'; schedules: 'touchTaskTypes'; notifications: 'onWork' }>
  readonly clock: Clock
  readonly leaseMs: Millis
  readonly events: EventSink
}

/** Rows of one claim. */
const MAX_CLAIMED = 500
/** Characters of input in one response. The first task may be larger. */
const MAX_RESPONSE_CHARS = 8 * 1024 * 1024
/** Claims that wait on this node. */
const MAX_WAITING = 10_000
const POLL_MS: Millis = 15_000
/** Minimum time after an empty claim: on a busy node, notifications of work never stop. */
const SPACING_MS: Millis = 50
/** How often the presence of a worker is stored per type. After one minute without it, the type counts as having no worker. */
const TOUCH_EVERY_MS: Millis = 20_000

interface Waiter {
  readonly limit: number
  readonly tasks: Task[]
  /** Characters of input in `tasks`. */
  size: number
  /** Whether a claim that began after this waiter came has ended. */
  served: boolean
  /** Whether its time is over. */
  expired: boolean
  resolve(): void
  reject(error: unknown): void
}

/** What all groups of a node share. */
interface GroupContext extends WorkerClaimsOptions {
  readonly stopped: boolean
  /** Runs work that must end before the store closes. */
  track(work: Promise<unknown>): void
  release(tasks: readonly Task[]): void
  touchTypes(types: readonly string[]): void
  /** Removes a group without waiters. */
  remove(group: ClaimGroup): void
}

/** Waiting claims for the same types under the same key. */
class ClaimGroup {
  readonly key: string
  readonly waiters = new Set<Waiter>()
  readonly #context: GroupContext
  readonly #request: Omit<WaitingClaim, 'limit'>
  #claiming = false
  /** Whether a waiter or work arrived since the last claim began. */
  #again = false
  #emptyAt: Millis = Number.NEGATIVE_INFINITY
  #cancelTimer = (): void => {}

  constructor(context: GroupContext, key: string, { types, leasedBy }: WaitingClaim) {
    this.key = key
    this.#context = context
    this.#request = { types, leasedBy }
  }

  wait(limit: number, ms: Millis, disconnected: AbortSignal): Promise<readonly Task[]> {
    const { promise, resolve, reject } = Promise.withResolvers<readonly Task[]>()
    const settle = (answer: () => void): void => {
      if (!this.waiters.delete(waiter)) return
      cancelTimer()
      disconnected.removeEventListener('abort', waiter.resolve)
      answer()
    }
    const waiter: Waiter = {
      limit,
      tasks: [],
      size: 0,
      served: false,
      expired: ms <= 0,
      resolve: () => settle(() => resolve(waiter.tasks)),
      reject: (error) => settle(() => reject(error)),
    }
    this.waiters.add(waiter)
    disconnected.addEventListener('abort', waiter.resolve, { once: true })
    const cancelTimer = this.#context.clock.after(ms, () => {
      waiter.expired = true
      // A claim in progress may still bring tasks for it.
      if (waiter.served && !this.#claiming) waiter.resolve()
    })
    this.wake()
    return promise
  }

  wake(): void {
    this.#again = true
    if (this.#claiming) return
    const waitMs = this.#spacingLeft()
    if (waitMs > 0) this.#wakeAfter(waitMs)
    else this.#context.track(this.#claim())
  }

  #spacingLeft(): Millis {
    return this.#emptyAt + SPACING_MS - this.#context.clock.now()
  }

  #wakeAfter(ms: Millis): void {
    this.#cancelTimer()
    this.#cancelTimer = this.#context.clock.after(ms, () => {
      if (!this.#claiming) this.#context.track(this.#claim())
    })
  }

  async #claim(): Promise<void> {
    this.#cancelTimer()
    const { store, clock, leaseMs } = this.#context
    const asking = [...this.waiters]
    if (asking.length === 0 || this.#context.stopped) return this.#rest(null)
    this.#claiming = true
    this.#again = false
    this.#context.touchTypes(this.#request.types.map(({ type }) => type))
    let nextInMs: Millis | null = null
    try {
      const wanted = asking.reduce((sum, waiter) => sum + waiter.limit, 0)
      const claimed = await store.tasks.claim({ ...this.#request, limit: Math.min(MAX_CLAIMED, wanted), leaseMs })
      for (const waiter of asking) waiter.served = true
      this.#context.release(this.#distribute(claimed.items))
      this.#emptyAt = claimed.items.length === 0 ? clock.now() : Number.NEGATIVE_INFINITY
      if (claimed.more) this.#again = true
      nextInMs = claimed.nextInMs
    } catch (error) {
      for (const waiter of asking) waiter.reject(error)
    }
    this.#claiming = false
    for (const waiter of [...this.waiters]) if (waiter.tasks.length > 0 || (waiter.expired && waiter.served)) waiter.resolve()
    this.#rest(nextInMs)
  }

  /** Plans the next claim. */
  #rest(nextInMs: Millis | null): void {
    if (this.waiters.size === 0 || this.#context.stopped) {
      this.#cancelTimer()
      this.#context.remove(this)
    } else if (this.#again) this.wake()
    else this.#wakeAfter(Math.max(Math.min(nextInMs ?? POLL_MS, POLL_MS), this.#spacingLeft()))
  }

  /** Deals one task to each waiter in turn until all are full. Returns the rest. */
  #distribute(items: readonly Task[]): readonly Task[] {
    const left = [...items]
    for (let open = [...this.waiters]; open.length > 0 && left.length > 0; )
      open = open.filter((waiter) => {
        const fits = waiter.tasks.length < waiter.limit && waiter.size < MAX_RESPONSE_CHARS
        const task = fits ? left.shift() : undefined
        if (!task) return false
        waiter.tasks.push(task)
        waiter.size += task.input.length
        return true
      })
    return left
  }
}

export function createWorkerClaims(options: WorkerClaimsOptions): WorkerClaims {
  const { store, clock, events } = options
  const groups = new Map<string, ClaimGroup>()
  const touchedAt = new Map<string, Millis>()
  const busy = new Set<Promise<unknown>>()
  let waiting = 0
  let stopped = false

  const track = (work: Promise<unknown>): void => {
    const ended = work.catch((error: unknown) => events.emit('trouble', { error })).finally(() => busy.delete(ended))
    busy.add(ended)
  }
  const release = (tasks: readonly Task[]): void => {
    for (const task of tasks)
      track(store.tasks.settle({ id: task.id, fence: task.fence, outcome: decideOutcome(task, { kind: 'interrupted' }, () => 0, clock) }))
  }
  const touchTypes = (types: readonly string[]): void => {
    const now = clock.now()
    const due = types.filter((type) => now - (touchedAt.get(type) ?? Number.NEGATIVE_INFINITY) >= TOUCH_EVERY_MS)
    if (due.length === 0 || stopped) return
    for (const type of due) touchedAt.set(type, now)
    track(store.schedules.touchTaskTypes({ types: due }))
  }
  const context: GroupContext = {
    ...options,
    get stopped() {
      return stopped
    },
    track,
    release,
    touchTypes,
    remove: (group) => void (groups.get(group.key) === group && groups.delete(group.key)),
  }
  const groupFor = (request: WaitingClaim): ClaimGroup => {
    const key = JSON.stringify([request.leasedBy, request.types.map(({ type }) => type)])
    const group = groups.get(key) ?? new ClaimGroup(context, key, request)
    groups.set(key, group)
    return group
  }
  const unsubscribe = store.notifications.onWork((kind) => {
    if (kind === 'task') for (const group of groups.values()) group.wake()
  })

  return {
    release,
    touchTypes,
    claim(request, ms, disconnected) {
      if (stopped || disconnected.aborted) return Promise.resolve([])
      if (waiting >= MAX_WAITING)
        throw new RingbackError('temporary_reduced_capacity', `${MAX_WAITING} claims wait on this node, the maximum; try again later.`, {
          headers: { 'Retry-After': '5' },
        })
      waiting++
      return groupFor(request)
        .wait(request.limit, ms, disconnected)
        .finally(() => waiting--)
    },
    async stop() {
      stopped = true
      unsubscribe()
      for (const group of groups.values()) for (const waiter of [...group.waiters]) waiter.resolve()
      while (busy.size > 0) await Promise.all(busy)
    },
  }
}
