/**
 * Rate limits: reads and writes per client and window, with the headers of draft-ietf-httpapi-ratelimit-headers-10. A node that owns its store counts in
 * memory. Nodes that share a store share the counts in it.
 */
import { RateLimiterMemory, RateLimiterPostgres, RateLimiterRes } from 'rate-limiter-flexible'
import type { RateLimit, RateLimits } from '../../config/parsers.ts'
import type { Clock } from '../../core/clock.ts'
import { RingbackError } from '../../core/errors.ts'
import type { Millis } from '../../core/model.ts'
import type { EventSink } from '../../observe/events.ts'
import type { QuotaWindow, StoreWith } from '../../store/interfaces.ts'

export type RequestKind = keyof RateLimits
/** An admitted request, which cost 1. Call it once with the response status for the headers. A 304 is refunded. */
export type RateLimitGrant = (status: number) => Readonly<Record<string, string>>
/** Null: the caller is not limited. @throws RingbackError `quota_exceeded` */
export type RateLimiter = (caller: { readonly clientId: string | null }, kind: RequestKind) => Promise<RateLimitGrant> | null

export interface RateLimiterOptions {
  readonly limits: RateLimits
  /** Null: no other node counts the same clients. */
  readonly sharedStore: StoreWith<{ access: 'useQuota' }> | null
  readonly clock: Pick<Clock, 'now'>
  /** Reports failed counts. The requests are admitted. */
  readonly events: EventSink
}

/** Limits each client over all its keys. The operator and workers are not limited. */
export function createRateLimiter(options: RateLimiterOptions): RateLimiter {
  const { read, write } = options.limits
  const quotas = { read: read && createQuota('read', read, options), write: write && createQuota('write', write, options) }
  return ({ clientId }, kind) => (clientId === null ? null : (quotas[kind]?.(clientId) ?? null))
}

function createQuota(
  name: RequestKind,
  { limit, windowSeconds }: RateLimit,
  { sharedStore, clock, events }: RateLimiterOptions,
): (clientId: string) => Promise<RateLimitGrant> {
  const common = { keyPrefix: name, points: limit, duration: windowSeconds }
  const limiter = sharedStore ? new SharedLimiter(common, sharedStore) : new RateLimiterMemory(common)
  const policy = { 'RateLimit-Policy': `"${name}";q=${limit};w=${windowSeconds}` }
  const headersOf = (remaining: number, leftMs: Millis) => ({ ...policy, RateLimit: `"${name}";r=${remaining};t=${secondsOf(leftMs)}` })
  const refund = (clientId: string, window: RateLimiterRes): void =>
    void limiter.reward(clientId, 1, { window }).catch((error: unknown) => events.emit('trouble', { error }))

  return async (clientId) => {
    try {
      const taken = await limiter.consume(clientId)
      const takenAt = clock.now()
      return (status) => {
        const leftMs = taken.msBeforeNext - (clock.now() - takenAt)
        // The window is over, so there is nothing to refund or to report.
        if (leftMs <= 0) return policy
        if (status === 304) refund(clientId, taken)
        return headersOf(taken.remainingPoints + (status === 304 ? 1 : 0), leftMs)
      }
    } catch (refused) {
      if (!(refused instanceof RateLimiterRes)) {
        events.emit('trouble', { error: refused })
        return () => NO_HEADERS
      }
      // A refused request is not counted. The shared count already excludes it.
      if (limiter instanceof RateLimiterMemory) refund(clientId, refused)
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

/** Rounded up, so that a retry is never too early. */
const secondsOf = (ms: Millis): number => Math.max(1, Math.ceil(ms / 1000))

/** Unknown keys per address and window that are looked up in the store. */
const MAX_UNKNOWN_KEYS = 1_000
const UNKNOWN_KEYS_WINDOW_S = 60

/**
 * Counts a look-up of a key that is not cached. Call the returned function if the key was valid: it refunds the count.
 * @throws RingbackError `quota_exceeded`
 */
export type UnknownKeyLimiter = (address: string) => Promise<() => void>

export function createUnknownKeyLimiter(): UnknownKeyLimiter {
  const limiter = new RateLimiterMemory({ points: MAX_UNKNOWN_KEYS, duration: UNKNOWN_KEYS_WINDOW_S })
  return async (address) => {
    const network = networkOf(address)
    try {
      await limiter.consume(network)
      return () => void limiter.reward(network)
    } catch (refused) {
      if (!(refused instanceof RateLimiterRes)) throw refused
      const seconds = secondsOf(refused.msBeforeNext)
      throw new RingbackError(
        'quota_exceeded',
        `Your address has given ${MAX_UNKNOWN_KEYS} unknown keys within a minute; new keys are looked up again in ${seconds} s.`,
        { headers: { 'Retry-After': String(seconds) } },
      )
    }
  }
}

/** IPv6 addresses count by their /64, which one caller usually owns. */
function networkOf(address: string): string {
  if (!address.includes(':') || address.includes('.')) return address
  const [head = ''] = address.split('::')
  return head.split(':').slice(0, 4).join(':')
}

/**
 * The shared count. The store replaces the library's PostgreSQL queries: it uses its own clock, and batches concurrent calls into one statement. Clients
 * with an exhausted window are refused from memory until it ends.
 */
class SharedLimiter extends RateLimiterPostgres {
  readonly #store: StoreWith<{ access: 'useQuota' }>
  readonly #limit: number
  /** The window of each result, for refunds. */
  readonly #windows = new WeakMap<RateLimiterRes, QuotaWindow>()

  constructor(options: { keyPrefix: string; points: number; duration: number }, store: StoreWith<{ access: 'useQuota' }>) {
    const table = { tableName: 'rate_limits', tableCreated: true, clearExpiredByTimeout: false }
    super({ ...options, ...table, storeClient: store, storeType: 'client', inMemoryBlockOnConsumed: options.points + 1 })
    this.#store = store
    this.#limit = options.points
  }

  /** Called by the base class: adds a point for `consume`, and takes one back for `reward`, which names the window. */
  async _upsert(
    key: string,
    points: number,
    windowMs: Millis,
    _force: boolean,
    { window }: { window?: RateLimiterRes },
  ): Promise<QuotaWindow> {
    const refundWindow = points < 0 ? this.#windows.get(window!)!.expire : null
    const answer = await this.#store.access.useQuota({ key, limit: this.#limit, windowMs, refundWindow })
    // A refund may end the block of an exhausted window.
    if (refundWindow !== null) this.deleteInMemoryBlockedAll()
    return answer
  }

  _getRateLimiterRes(_key: string, _points: number, window: QuotaWindow): RateLimiterRes {
    const answer = new RateLimiterRes(Math.max(0, this.#limit - window.used), Math.max(1, window.leftMs), window.used, window.used === 1)
    this.#windows.set(answer, window)
    return answer
  }
}
