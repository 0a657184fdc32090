/** A clock that moves only when a test advances it. */
import { createHash } from 'node:crypto'
import { type Clock, createStampCounter } from '../../src/core/clock.ts'
import type { Millis } from '../../src/core/model.ts'

export interface ManualClock extends Clock {
  /** Advances time and fires due timers in order. */
  advance(ms: Millis): void
  /** Timers armed and not yet fired. */
  readonly armed: number
}

export function manualClock(start: Millis = 1_800_000_000_000, seed = 'ringback'): ManualClock {
  let now = start
  let count = 0
  const timers = new Map<number, { at: Millis; wake: () => void }>()
  const chance = (): Buffer => createHash('sha256').update(`${seed} ${count++}`).digest()
  const nextDue = (until: Millis): [number, { at: Millis; wake: () => void }] | undefined =>
    [...timers].filter(([, { at }]) => at <= until).sort(([a, x], [b, y]) => x.at - y.at || a - b)[0]
  return {
    now: () => now,
    stamp: createStampCounter(() => now),
    wall: () => now,
    random: () => chance().readUInt32BE() / 2 ** 32,
    bytes: (n) => chance().subarray(0, n),
    after(ms, wake) {
      const id = count++
      timers.set(id, { at: now + ms, wake })
      return () => timers.delete(id)
    },
    advance(ms) {
      const end = now + ms
      for (let next = nextDue(end); next; next = nextDue(end)) {
        const [id, { at, wake }] = next
        timers.delete(id)
        now = Math.max(now, at)
        wake()
      }
      now = end
    },
    get armed() {
      return timers.size
    },
  }
}
