/** The only source of time and randomness, so that tests and simulations can replace both. */
import { randomBytes } from 'node:crypto'
import type { Millis } from './model.ts'

export interface Clock {
  /** Epoch milliseconds of the monotonic clock, slewed towards the wall clock: never backwards, no jumps. For due times and leases. */
  now(): Millis
  /** Epoch milliseconds of the wall clock, for times that other machines compare with theirs: `iat`, `webhook-timestamp`. */
  wall(): Millis
  /** The current millisecond, and how many stamps it has already given. Together they keep ids in creation order. */
  stamp(): { readonly at: Millis; readonly nth: number }
  /** A number in [0, 1). */
  random(): number
  /** `n` unpredictable bytes. */
  bytes(n: number): Uint8Array
  /** Calls `wake` once after `ms`, also beyond Node's limit of 24.8 days. The returned function cancels it. The timer does not keep the process alive. */
  after(ms: Millis, wake: () => void): () => void
}

/** The longest delay of a Node timer (2³¹ − 1 ms, 24.8 days); a longer one fires at once. */
const MAX_TIMER_MS = 2_147_483_647

/** `now()` runs at most 0.5 % faster or slower than the monotonic clock (ntpd slews at 0.05 %). */
const SLEW = 0.005

/** Random bytes fetched at once: a system call for ten bytes costs more than an id. */
const POOL_BYTES = 8_192

export function createStampCounter(now: () => Millis): Clock['stamp'] {
  let at = 0
  let nth = 0
  return () => {
    const time = now()
    nth = time === at ? nth + 1 : 0
    at = time
    return { at, nth }
  }
}

/** Makes `Clock.now` from a wall clock and a monotonic clock. */
export function slewedNow(wall: () => Millis, monotonic: () => Millis): () => Millis {
  const anchor = { wall: wall(), mono: monotonic() }
  let offset = 0
  let seen = anchor.mono
  return () => {
    const mono = monotonic()
    const steady = anchor.wall + (mono - anchor.mono)
    const drift = wall() - (steady + offset)
    // After a suspend the monotonic clock may have stood still. That looks like drift too, and is corrected without a jump.
    const max = (mono - seen) * SLEW
    offset += Math.max(-max, Math.min(max, drift))
    seen = mono
    return Math.floor(steady + offset)
  }
}

/** The clock of a real process. */
export function systemClock(): Clock {
  const wall = (): Millis => Date.now()
  const now = slewedNow(wall, () => performance.now())
  const pool = { bytes: randomBytes(POOL_BYTES), used: 0 }
  return {
    now,
    stamp: createStampCounter(now),
    wall,
    random: () => Math.random(),
    bytes(n) {
      if (pool.used + n > POOL_BYTES) Object.assign(pool, { bytes: randomBytes(Math.max(n, POOL_BYTES)), used: 0 })
      pool.used += n
      return pool.bytes.subarray(pool.used - n, pool.used)
    },
    after(ms, wake) {
      const end = performance.now() + ms
      let timer: NodeJS.Timeout
      const arm = (): void => {
        const left = end - performance.now()
        // Node drops the fraction of a delay, so it is rounded up: the timer must not fire early.
        timer = setTimeout(left > MAX_TIMER_MS ? arm : wake, Math.min(Math.max(Math.ceil(left), 0), MAX_TIMER_MS))
        timer.unref()
      }
      arm()
      return () => clearTimeout(timer)
    },
  }
}
