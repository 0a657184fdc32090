/** The clock of a real process, on a machine whose wall clock is set, and whose suspension stops the monotonic one. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Clock, systemClock } from '../../src/core/clock.ts'

const START = 1_800_000_000_000
const HOUR = 3_600_000
const DAY = 86_400_000
/** What Node refuses to wait in one timer. */
const LONGEST = 2 ** 31 - 1

let clock: Clock
beforeEach(() => {
  vi.useFakeTimers({ now: START, toFake: ['Date', 'performance', 'setTimeout', 'clearTimeout'] })
  clock = systemClock()
})
afterEach(() => {
  vi.useRealTimers()
})

/** Somebody sets the wall clock; no time passes. */
const step = (ms: number): void => void vi.setSystemTime(Date.now() + ms)

/** Time passes; the clock is looked at every `everyMs`, as a node does, and must neither stand still nor run away. */
function pass(ms: number, everyMs = 1_000): void {
  for (let left = ms; left > 0; left -= everyMs) {
    const before = clock.now()
    const passed = Math.min(everyMs, left)
    vi.advanceTimersByTime(passed)
    const seen = clock.now() - before
    expect(seen).toBeGreaterThanOrEqual(Math.floor(passed * 0.995) - 1)
    expect(seen).toBeLessThanOrEqual(Math.ceil(passed * 1.005) + 1)
  }
}

describe('a step of the wall clock', () => {
  test.each([
    ['forward', HOUR],
    ['back', -HOUR],
  ])('of an hour %s moves neither leases nor due times: the clock approaches it by 5 ms a second', (_, ms) => {
    pass(10_000)
    const before = clock.now()
    step(ms)
    expect(Math.abs(clock.now() - before)).toBeLessThanOrEqual(1)
    expect(Math.abs(clock.wall() - before - ms), 'what other machines compare with theirs follows at once').toBeLessThanOrEqual(5)
    // 30 s of lease after such a step are 30 s to within a sixth of a second.
    const leased = clock.now() + 30_000
    pass(29_800)
    expect(clock.now()).toBeLessThan(leased)
    pass(400)
    expect(clock.now()).toBeGreaterThanOrEqual(leased)
    pass(201 * HOUR, 60_000)
    expect(Math.abs(clock.now() - clock.wall())).toBeLessThanOrEqual(2)
  })

  test('and back again has no effect', () => {
    step(HOUR)
    pass(20_000)
    step(-HOUR)
    pass(60_000)
    expect(Math.abs(clock.now() - clock.wall())).toBeLessThanOrEqual(2)
  })

  test('in both directions never makes the clock go backwards', () => {
    let last = clock.now()
    for (let n = 0; n < 2_000; n++) {
      if (n % 7 === 0) step(n % 2 === 0 ? HOUR : -HOUR)
      vi.advanceTimersByTime(n % 5)
      const now = clock.now()
      expect(now).toBeGreaterThanOrEqual(last)
      last = now
    }
  })

  test('does not touch a timer', () => {
    let woken = 0
    clock.after(60_000, () => woken++)
    step(HOUR)
    vi.advanceTimersByTime(59_999)
    expect(woken).toBe(0)
    step(-2 * HOUR)
    vi.advanceTimersByTime(1)
    expect(woken).toBe(1)
  })
})

test('A suspend of 31 s, in which the monotonic clock stands still, ends no lease of 30 s', () => {
  const leased = clock.now() + 30_000
  pass(1_000)
  step(31_000)
  expect(clock.now()).toBeLessThan(leased)
  pass(10_000)
  expect(clock.now(), 'time enough to renew it').toBeLessThan(leased)
})

describe('a timer', () => {
  test.each([LONGEST - 1, LONGEST, LONGEST + 1, 25 * DAY, 60 * DAY, 3_650 * DAY])('of %i ms waits its full time', (ms) => {
    let woken = 0
    clock.after(ms, () => woken++)
    vi.advanceTimersByTime(ms - 1)
    expect(woken).toBe(0)
    vi.advanceTimersByTime(1)
    expect(woken).toBe(1)
    vi.advanceTimersByTime(ms)
    expect(woken).toBe(1)
  })

  test('longer than 24.8 days can be canceled in its first part and in its last', () => {
    let woken = 0
    const wake = (): void => void woken++
    const [early, late] = [clock.after(60 * DAY, wake), clock.after(60 * DAY, wake)]
    vi.advanceTimersByTime(DAY)
    early()
    vi.advanceTimersByTime(58 * DAY)
    late()
    vi.advanceTimersByTime(100 * DAY)
    expect(woken).toBe(0)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('does not fire a millisecond early', () => {
    vi.useRealTimers()
    const timers = vi.spyOn(globalThis, 'setTimeout')
    for (let i = 0; i < 100; i++) systemClock().after(250, () => {})()
    expect(new Set(timers.mock.calls.map(([, ms]) => ms))).toEqual(new Set([250]))
    timers.mockRestore()
  })

  test('of 0 ms or less fires at once, but not synchronously', () => {
    let woken = 0
    for (const ms of [0, -5]) clock.after(ms, () => woken++)
    expect(woken).toBe(0)
    vi.advanceTimersByTime(1)
    expect(woken).toBe(2)
  })
})
