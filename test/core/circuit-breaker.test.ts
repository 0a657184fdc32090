/** The health of a lane: slow start, breaker, probes, the receiver's own pause. Pure. */

import { describe, expect, test } from 'vitest'
import {
  applySignals,
  concurrencyLimitOf,
  DISABLED_PROBE_MS,
  deliveryGateOf,
  isAddressForbidden,
  type LaneHealth,
} from '../../src/core/circuit-breaker.ts'
import type { HealthSignal, Millis } from '../../src/core/model.ts'
import { fc } from '../support/chance.ts'

type Lane = LaneHealth & { readonly cap: number | null }
const NOW = 1_800_000_000_000
const fresh: Lane = { cap: 20, windowSize: 2, succeededAt: 0, failures: 0, probeMs: 0, blocked: 0, blockedSince: null, heldUntil: 0 }
const say = (lane: Lane, signals: readonly HealthSignal[], now: Millis = NOW): Lane =>
  applySignals(
    lane,
    signals.map((signal) => ({ signal, retryAfterMs: null, durationMs: 0 })),
    now,
  )
const times = (n: number, signal: HealthSignal): HealthSignal[] => Array.from({ length: n }, () => signal)
const tripped = say(fresh, times(10, 'failure'))

describe('slow start', () => {
  test('a lane starts at 2 in flight and doubles on each success up to its cap', () => {
    let lane = fresh
    const seen = [concurrencyLimitOf(lane, NOW)]
    for (let i = 0; i < 5; i++) {
      lane = say(lane, ['success'])
      seen.push(concurrencyLimitOf(lane, NOW))
    }
    expect(seen).toEqual([2, 4, 8, 16, 20, 20])
  })

  test('a timeout halves it, never below 1', () => {
    const wide = say(fresh, times(4, 'success'))
    expect(concurrencyLimitOf(say(wide, ['timeout']), NOW)).toBe(10)
    expect(concurrencyLimitOf(say(wide, times(6, 'timeout')), NOW)).toBe(1)
  })

  test('with no success in its last 10 s it holds at most 2, and a success opens it again', () => {
    const wide = say(fresh, times(4, 'success'))
    expect(concurrencyLimitOf(wide, NOW + 10_000)).toBe(20)
    expect(concurrencyLimitOf(wide, NOW + 10_001)).toBe(2)
    expect(concurrencyLimitOf(say(wide, ['success'], NOW + 60_000), NOW + 60_000)).toBe(20)
  })

  test('a lowered cap counts at once', () => {
    expect(concurrencyLimitOf({ ...say(fresh, times(4, 'success')), cap: 3 }, NOW)).toBe(3)
  })

  test('a lane of tasks has no such limit', () => {
    expect(concurrencyLimitOf({ ...fresh, windowSize: null, cap: 7 }, NOW)).toBe(7)
    expect(concurrencyLimitOf({ ...fresh, windowSize: null, cap: null }, NOW)).toBe(null)
  })
})

describe('the breaker', () => {
  test('opens after ten consecutive failed attempts, not after nine or with a success between', () => {
    expect(say(fresh, times(9, 'failure'))).toMatchObject({ probeMs: 0, heldUntil: 0 })
    expect(say(fresh, [...times(9, 'failure'), 'success', ...times(9, 'failure')]).probeMs).toBe(0)
    expect(tripped).toMatchObject({ probeMs: 5_000, heldUntil: NOW + 5_000 })
    expect(concurrencyLimitOf(tripped, NOW)).toBe(1)
  })

  test('redirects, 429 and forbidden addresses do not open it', () => {
    expect(say(fresh, [...times(20, 'neutral'), ...times(20, 'blocked')]).probeMs).toBe(0)
  })

  test('the pause between probes doubles from 5 s to 60 s, and no further', () => {
    let lane = tripped
    const pauses = []
    for (let i = 0; i < 6; i++) {
      lane = say(lane, ['failure'], lane.heldUntil)
      pauses.push(lane.probeMs)
    }
    expect(pauses).toEqual([10_000, 20_000, 40_000, 60_000, 60_000, 60_000])
  })

  test('attempts in flight when it opened do not lengthen the pause', () => {
    expect(say(tripped, times(10, 'timeout'), NOW + 4_999)).toMatchObject({ probeMs: 5_000, heldUntil: NOW + 5_000 })
  })

  test('a probe that gets a redirect keeps it open for the same pause', () => {
    expect(say(tripped, ['neutral'], NOW + 5_000)).toMatchObject({ probeMs: 5_000, heldUntil: NOW + 10_000 })
  })

  test('a success closes it, with 1 in flight, doubling', () => {
    const opened = say(tripped, ['success'], NOW + 5_000)
    expect(opened).toMatchObject({ probeMs: 0, failures: 0, windowSize: 1 })
    expect(concurrencyLimitOf(opened, NOW + 5_000)).toBe(1)
    expect(concurrencyLimitOf(say(opened, ['success'], NOW + 5_000), NOW + 5_000)).toBe(2)
  })

  test('a disabled endpoint is probed once an hour, however often that fails', () => {
    const lane = { ...tripped, probeMs: DISABLED_PROBE_MS, heldUntil: NOW }
    expect(say(lane, ['failure'])).toMatchObject({ probeMs: DISABLED_PROBE_MS, heldUntil: NOW + DISABLED_PROBE_MS })
  })
})

describe('a wait that the receiver asks for', () => {
  test('a Retry-After holds the lane, never shortens a hold, and the lane restarts at 1', () => {
    const wide = say(fresh, times(4, 'success'))
    const asked = applySignals(
      wide,
      [
        { signal: 'neutral', retryAfterMs: 30_000, durationMs: 0 },
        { signal: 'neutral', retryAfterMs: 10_000, durationMs: 0 },
      ],
      NOW,
    )
    expect(asked).toMatchObject({ heldUntil: NOW + 30_000, windowSize: 1, probeMs: 0 })
    expect(concurrencyLimitOf(asked, NOW + 30_000)).toBe(1)
  })
})

describe('a forbidden address', () => {
  test('three in a row over ten minutes are enough, fewer or faster are not, and any other answer starts anew', () => {
    const twice = say(fresh, times(2, 'blocked'))
    const later = NOW + 600_000
    expect(isAddressForbidden(say(twice, ['blocked'], later), later)).toBe(true)
    expect(isAddressForbidden(twice, later)).toBe(false)
    expect(isAddressForbidden(say(twice, ['blocked'], later - 1), later - 1)).toBe(false)
    expect(isAddressForbidden(say(twice, ['failure', 'blocked'], later), later)).toBe(false)
  })
})

test('for any signals, the limit stays between 1 and the cap, no pause ends early, and a success closes the breaker', () => {
  const signal = fc.constantFrom<HealthSignal>('success', 'failure', 'timeout', 'blocked', 'neutral')
  const step = fc.record({
    signal,
    retryAfterMs: fc.option(fc.nat({ max: 90_000 })),
    durationMs: fc.nat({ max: 20_000 }),
    passMs: fc.nat({ max: 20_000 }),
  })
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1_000 }), fc.array(step, { maxLength: 80 }), (cap, steps) => {
      let lane: Lane = { ...fresh, cap }
      let now = NOW
      for (const { passMs, ...said } of steps) {
        now += passMs
        const before = lane
        lane = applySignals(lane, [said], now)
        const limit = concurrencyLimitOf(lane, now)!
        expect(limit).toBeGreaterThanOrEqual(1)
        expect(limit).toBeLessThanOrEqual(cap)
        expect(lane.heldUntil).toBeGreaterThanOrEqual(before.heldUntil)
        expect(lane.probeMs > 0 && said.signal === 'success').toBe(false)
        if (said.retryAfterMs !== null) expect(lane.heldUntil).toBeGreaterThanOrEqual(now + said.retryAfterMs)
      }
    }),
  )
})

test('the gate of each status: shut while unverified or paused, probes when disabled for failing, shut when disabled otherwise', () => {
  const active = { verifiedAt: 1, pausedAt: null, disabledAt: null, disabledReason: null }
  expect(deliveryGateOf(active)).toBe('open')
  expect(deliveryGateOf({ ...active, verifiedAt: null })).toBe('shut')
  expect(deliveryGateOf({ ...active, pausedAt: 1 })).toBe('shut')
  expect(deliveryGateOf({ ...active, disabledAt: 1, disabledReason: 'failing' })).toBe('probing')
  expect(deliveryGateOf({ ...active, disabledAt: 1, disabledReason: 'failing', pausedAt: 1 })).toBe('shut')
  expect(deliveryGateOf({ ...active, disabledAt: 1, disabledReason: 'gone' })).toBe('shut')
})
