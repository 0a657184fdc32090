/** Time and chance enter by this door alone, so that tests and simulations can own both. */
import { randomBytes } from 'node:crypto'
import type { Millis } from './model.ts'

export interface Clock {
  /** Epoch milliseconds of the monotonic clock, slewed towards the wall: it never runs backwards and never jumps. For due times and leases. */
  now(): Millis
  /** Epoch milliseconds of the wall clock. For what other machines compare with theirs: `iat`, `webhook-timestamp`. */
  wall(): Millis
  /** Now, and how many stamps this clock gave for that millisecond before: so that ids made here sort in the order they were made. */
  stamp(): { readonly at: Millis; readonly nth: number }
  /** A number in [0, 1). */
  random(): number
  /** `n` unpredictable bytes. */
  bytes(n: number): Uint8Array
  /** Calls `wake` once, `ms` from now, however long that is. The answer cancels it. An armed timer does not keep the process alive. */
  after(ms: Millis, wake: () => void): () => void
}

/** The longest delay a Node timer takes (2³¹ − 1 ms, 24.8 days); a longer one fires at once. */
const LONGEST_TIMER = 2_147_483_647

/** How far the slewed clock may move against the monotonic one: 5 ms a second, as NTP daemons do at most tenfold slower. */
const SLEW = 0.005

/** Random bytes fetched at once: asking the system for ten at a time costs more than an id. */
const CHANCE_BYTES = 8_192

/** Counts the stamps of each millisecond. */
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

/** `Clock.now` of a machine with that wall and that monotonic clock. */
export function slewedNow(wall: () => Millis, monotonic: () => Millis): () => Millis {
  const anchor = { wall: wall(), mono: monotonic() }
  let offset = 0
  let seen = anchor.mono
  return () => {
    const mono = monotonic()
    const steady = anchor.wall + (mono - anchor.mono)
    const drift = wall() - (steady + offset)
    // A suspended machine shows as drift too: the monotonic clock stood still, so the wall is right and is approached, not jumped to.
    const most = (mono - seen) * SLEW
    offset += Math.max(-most, Math.min(most, drift))
    seen = mono
    return Math.floor(steady + offset)
  }
}

/** The clock of a real process. */
export function systemClock(): Clock {
  const wall = (): Millis => Date.now()
  const now = slewedNow(wall, () => performance.now())
  const chance = { bytes: randomBytes(CHANCE_BYTES), used: 0 }
  return {
    now,
    stamp: createStampCounter(now),
    wall,
    random: () => Math.random(),
    bytes(n) {
      if (chance.used + n > CHANCE_BYTES) Object.assign(chance, { bytes: randomBytes(Math.max(n, CHANCE_BYTES)), used: 0 })
      chance.used += n
      return chance.bytes.subarray(chance.used - n, chance.used)
    },
    after(ms, wake) {
      const end = performance.now() + ms
      let timer: NodeJS.Timeout
      const arm = (): void => {
        const left = end - performance.now()
        // Node leaves out the fraction of a delay: what has passed since the line above would cost a whole millisecond.
        timer = setTimeout(left > LONGEST_TIMER ? arm : wake, Math.min(Math.max(Math.ceil(left), 0), LONGEST_TIMER))
        timer.unref()
      }
      arm()
      return () => clearTimeout(timer)
    },
  }
}
