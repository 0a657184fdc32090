/**
 * Rate limits: so many reads and writes of a client in a window, and what the fields of draft-ietf-httpapi-ratelimit-headers-10 say of it.
 * Where a process owns its store the count is its memory; where nodes share one, so do they the count.
 */
import { RateLimiterMemory, RateLimiterPostgres, RateLimiterRes } from 'rate-limiter-flexible'
import type { RateLimit, RateLimits } from '../../config/parsers.ts'
import type { Clock } from '../../core/clock.ts'
import { RingbackError } from '../../core/errors.ts'
import type { Millis } from '../../core/model.ts'
import type { EventSink } from '../../observe/events.ts'
import type { QuotaWindow, StoreWith } from '../../store/interfaces.ts'

export type RequestKind = keyof RateLimits
/**
 * A request that was let in, at the cost of one of its quota. Given the status of its answer, once, it tells the headers that belong there;
 * a 304 gives back what it cost.
 */
export type RateLimitGrant = (status: number) => Readonly<Record<string, string>>
/**
 * Null: this caller is not limited.
 * @throws RingbackError `quota_exceeded`
 */
export type RateLimiter = (caller: { readonly clientId: string | null }, kind: RequestKind) => Promise<RateLimitGrant> | null

export interface RateLimiterOptions {
  readonly limits: RateLimits
  /** Null: nobody else counts the same clients. */
  readonly sharedStore: StoreWith<{ access: 'useQuota' }> | null
  readonly clock: Pick<Clock, 'now'>
  /** Told when the count cannot be kept: requests pass then. */
  readonly events: EventSink
}

/** Clients are limited, each over all its keys. The operator and workers are the installation's own. */
export function createRateLimiter(options: RateLimiterOptions): RateLimiter {
  const { read, write } = options.limits
  const quotas = { read: read && createQuota('read', read, options), write: write && createQuota('write', write, options) }
  return ({ clientId }, kind) => (clientId === null ? null : (quotas[kind]?.(clientId) ?? null))
}

function createQuota(
  name: RequestKind,
  { limit, windowSeconds }: RateLimit,
  { sharedStore: shared, clock, events }: RateLimiterOptions,
): (clientId: string) => Promise<RateLimitGrant> {
  const common = { keyPrefix: name, points: limit, duration: windowSeconds }
  const limiter = shared ? new SharedLimiter(common, shared) : new RateLimiterMemory(common)
  const policy = { 'RateLimit-Policy': `"${name}";q=${limit};w=${windowSeconds}` }
  const headersOf = (remaining: number, leftMs: Millis) => ({ ...policy, RateLimit: `"${name}";r=${remaining};t=${secondsOf(leftMs)}` })
  const giveBack = (clientId: string, window: RateLimiterRes): void =>
    void limiter.reward(clientId, 1, { window }).catch((error: unknown) => events.emit('trouble', { error }))

  return async (clientId) => {
    try {
      const taken = await limiter.consume(clientId)
      const takenAt = clock.now()
      return (status) => {
        const leftMs = taken.msBeforeNext - (clock.now() - takenAt)
        // It waited until its window was over: there is nothing left of that to give back, or to tell of.
        if (leftMs <= 0) return policy
        if (status === 304) giveBack(clientId, taken)
        return headersOf(taken.remainingPoints + (status === 304 ? 1 : 0), leftMs)
      }
    } catch (refused) {
      if (!(refused instanceof RateLimiterRes)) {
        events.emit('trouble', { error: refused })
        return () => NO_HEADERS
      }
      // What is refused is not counted; the store's count knows that by itself.
      if (limiter instanceof RateLimiterMemory) giveBack(clientId, refused)
      const seconds = secondsOf(refused.msBeforeNext)
      throw new RingbackError(
        'quota_exceeded',
        `All ${limit} ${name} requests of ${windowSeconds} s are used up; there are more in ${seconds} s.`,
        { headers: { ...headersOf(0, refused.msBeforeNext), 'Retry-After': String(seconds) } },
      )
    }
  }
}

const NO_HEADERS = {}

/** Rounded up: whoever comes then does not come too early. */
const secondsOf = (ms: Millis): number => Math.max(1, Math.ceil(ms / 1000))

/** Keys that are nobody's, of one address in a minute, for which the store is asked. */
const MAX_STRANGERS = 1_000
const STRANGERS_WINDOW_S = 60

/**
 * Lets a caller in whose key this node has not met: it costs a look at the store, so an address has so many of them. The answer is to be
 * called when the key was somebody's: then it cost nothing.
 * @throws RingbackError `quota_exceeded`
 */
export type UnknownKeyLimiter = (address: string) => Promise<() => void>

export function createUnknownKeyLimiter(): UnknownKeyLimiter {
  const limiter = new RateLimiterMemory({ points: MAX_STRANGERS, duration: STRANGERS_WINDOW_S })
  return async (address) => {
    const who = networkOf(address)
    try {
      await limiter.consume(who)
      return () => void limiter.reward(who)
    } catch (refused) {
      if (!(refused instanceof RateLimiterRes)) throw refused
      const seconds = secondsOf(refused.msBeforeNext)
      throw new RingbackError(
        'quota_exceeded',
        `Your address has given ${MAX_STRANGERS} unknown keys within a minute; new keys are looked up again in ${seconds} s.`,
        { headers: { 'Retry-After': String(seconds) } },
      )
    }
  }
}

/** Who has one IPv6 address has its whole /64. */
function networkOf(address: string): string {
  if (!address.includes(':') || address.includes('.')) return address
  const [head = ''] = address.split('::')
  return head.split(':').slice(0, 4).join(':')
}

/**
 * The count of all nodes, in the store: what the library would ask of PostgreSQL the store does, by its own clock, and in one statement for
 * all who ask while the last one runs. Who has used a window up is told so from memory until it ends.
 */
class SharedLimiter extends RateLimiterPostgres {
  readonly #store: StoreWith<{ access: 'useQuota' }>
  readonly #limit: number
  /** The window of each answer, for who gives it back. */
  readonly #windows = new WeakMap<RateLimiterRes, QuotaWindow>()

  constructor(options: { keyPrefix: string; points: number; duration: number }, store: StoreWith<{ access: 'useQuota' }>) {
    const table = { tableName: 'rate_limits', tableCreated: true, clearExpiredByTimeout: false }
    super({ ...options, ...table, storeClient: store, storeType: 'client', inMemoryBlockOnConsumed: options.points + 1 })
    this.#store = store
    this.#limit = options.points
  }

  /** Asked by the base class for its row: one point more for `consume`; one less for `reward`, which names the window that it is given back to. */
  async _upsert(
    key: string,
    points: number,
    windowMs: Millis,
    _force: boolean,
    { window }: { window?: RateLimiterRes },
  ): Promise<QuotaWindow> {
    const back = points < 0 ? this.#windows.get(window!)!.expire : null
    const answer = await this.#store.access.useQuota({ key, limit: this.#limit, windowMs, refundWindow: back })
    // There may be some again for whoever was told that there are none.
    if (back !== null) this.deleteInMemoryBlockedAll()
    return answer
  }

  _getRateLimiterRes(_key: string, _points: number, window: QuotaWindow): RateLimiterRes {
    const answer = new RateLimiterRes(Math.max(0, this.#limit - window.used), Math.max(1, window.leftMs), window.used, window.used === 1)
    this.#windows.set(answer, window)
    return answer
  }
}
