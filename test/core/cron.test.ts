/** Which moments a pattern names, above all where clocks are put forward and back; and which of them are made after an outage. */
import { describe, expect, test } from 'vitest'
import { MAX_CAUGHT_UP, ON_TIME_MS, parseCron, planTicks } from '../../src/core/cron.ts'
import type { RingbackError } from '../../src/core/errors.ts'

const ms = (time: string): number => Date.parse(time)
function ticks(cron: string, timezone: string, after: string, count: number): string[] {
  const recurrence = parseCron(cron, timezone)
  const times: string[] = []
  for (let at: number | null = ms(after); times.length < count && at !== null; ) {
    at = recurrence.after(at)
    if (at !== null) times.push(new Date(at).toISOString().slice(0, 19))
  }
  return times
}

describe('a pattern', () => {
  test('of five fields ticks on the minute, of six on the second, in the time of its zone', () => {
    expect(ticks('30 9 * * 1-5', 'Europe/Berlin', '2026-11-27T12:00:00Z', 2)).toEqual(['2026-11-30T08:30:00', '2026-12-01T08:30:00'])
    expect(ticks('*/20 30 9 * * *', 'UTC', '2026-11-27T09:30:00.500Z', 3)).toEqual([
      '2026-11-27T09:30:20',
      '2026-11-27T09:30:40',
      '2026-11-28T09:30:00',
    ])
    expect(ticks('@monthly', 'Asia/Kolkata', '2026-11-27T00:00:00Z', 1)).toEqual(['2026-11-30T18:30:00'])
    expect(ticks('0 0 29 2 *', 'UTC', '2026-11-27T00:00:00Z', 2)).toEqual(['2028-02-29T00:00:00', '2032-02-29T00:00:00'])
  })

  test.each([
    ['0 0 L * *', '2026-11-30'],
    ['0 0 15W * *', '2026-12-15'],
    ['0 0 * * FRI#2', '2026-12-11'],
    ['0 0 1 JAN *', '2027-01-01'],
    ['0 0 1 * MON', '2026-11-30'],
    ['0 0 10-25/5 * *', '2026-11-25'],
    ['0 0 26,28 * *', '2026-11-26'],
    ['@weekly', '2026-11-29'],
    ['@yearly', '2027-01-01'],
  ])('%j comes next on %s', (cron, day) => {
    expect(ticks(cron, 'UTC', '2026-11-24T12:00:00Z', 1)).toEqual([`${day}T00:00:00`])
  })

  test('with a time of day in the skipped hour ticks at the first moment after it', () => {
    // Berlin, 29 March 2026: 02:00 is followed by 03:00, which is 01:00 UTC.
    expect(ticks('30 2 * * *', 'Europe/Berlin', '2026-03-28T00:00:00Z', 3)).toEqual([
      '2026-03-28T01:30:00',
      '2026-03-29T01:00:00',
      '2026-03-30T00:30:00',
    ])
    expect(ticks('0,30 2,3 * * *', 'Europe/Berlin', '2026-03-29T00:00:00Z', 3), 'and no moment ticks twice').toEqual([
      '2026-03-29T01:00:00',
      '2026-03-29T01:30:00',
      '2026-03-30T00:00:00',
    ])
  })

  test('with a time of day that occurs twice ticks the first time', () => {
    // Berlin, 25 October 2026: 03:00 is followed by 02:00, which is 01:00 UTC.
    expect(ticks('30 2 * * *', 'Europe/Berlin', '2026-10-24T12:00:00Z', 2)).toEqual(['2026-10-25T00:30:00', '2026-10-26T01:30:00'])
    expect(ticks('30 2,14 * * *', 'Europe/Berlin', '2026-10-24T20:00:00Z', 2)).toEqual(['2026-10-25T00:30:00', '2026-10-25T13:30:00'])
  })

  test('with a wildcard has no tick in the skipped hour, and ticks in both passes of the repeated one', () => {
    expect(ticks('*/30 * * * *', 'Europe/Berlin', '2026-03-29T00:00:00Z', 4)).toEqual([
      '2026-03-29T00:30:00',
      '2026-03-29T01:00:00',
      '2026-03-29T01:30:00',
      '2026-03-29T02:00:00',
    ])
    expect(ticks('*/30 2 * * *', 'Europe/Berlin', '2026-03-29T00:00:00Z', 1)).toEqual(['2026-03-30T00:00:00'])
    expect(ticks('*/30 2 * * *', 'Europe/Berlin', '2026-10-24T12:00:00Z', 5)).toEqual([
      '2026-10-25T00:00:00',
      '2026-10-25T00:30:00',
      '2026-10-25T01:00:00',
      '2026-10-25T01:30:00',
      '2026-10-26T01:00:00',
    ])
  })

  test('only moves forward through every clock change; the backward search finds the same ticks', () => {
    const patterns = ['*/15 * * * *', '30 2 * * *', '0,30 1,2,3 * * *', '0 */2 * * *', '@hourly', '59 59 23 * * *', '0 0 1 * 1']
    const zones = [
      'UTC',
      'Europe/Berlin',
      'America/New_York',
      'Australia/Lord_Howe',
      'America/St_Johns',
      'Africa/Casablanca',
      'Asia/Kathmandu',
    ]
    for (const zone of zones)
      for (const pattern of patterns)
        for (const start of [
          '2026-02-14',
          '2026-03-07',
          '2026-03-21',
          '2026-03-28',
          '2026-04-04',
          '2026-10-03',
          '2026-10-24',
          '2026-10-31',
        ]) {
          const recurrence = parseCron(pattern, zone)
          const found: number[] = []
          const end = ms(`${start}T00:00:00Z`) + 3 * 86_400_000
          for (let at = recurrence.after(ms(`${start}T00:00:00Z`)); at !== null && at <= end; at = recurrence.after(at)) found.push(at)
          const name = `${pattern} ${zone} ${start}`
          expect(new Set(found).size, name).toBe(found.length)
          expect(recurrence.latest(end, found.length), name).toEqual(found)
        }
  })

  test.each([
    ['', 'UTC', '#/cron', 'give five fields'],
    ['* * * *', 'UTC', '#/cron', 'is "* * * *"; give five fields'],
    ['0 0 0 1 1 * 2027', 'UTC', '#/cron', 'or six with seconds first'],
    ['2027-01-01T00:00:00', 'UTC', '#/cron', 'give five fields'],
    ['@reboot', 'UTC', '#/cron', 'a nickname such as "@daily"'],
    ['61 * * * *', 'UTC', '#/cron', 'which is no cron pattern: Invalid value for minute: 61'],
    ['a * * * *', 'UTC', '#/cron', 'illegal characters'],
    ['? * * * *', 'UTC', '#/cron', '"?" has no meaning here'],
    ['0 0 30 2 *', 'UTC', '#/cron', 'is "0 0 30 2 *", which names no day that ever comes'],
    ['0 0 * * *', 'Europe/Berlni', '#/timezone', 'is "Europe/Berlni", which is no time zone'],
    ['0 0 * * *', '', '#/timezone', 'give an IANA name'],
  ])('%j in %j is refused with a sentence', (cron, timezone, pointer, words) => {
    let refusal: RingbackError | undefined
    try {
      parseCron(cron, timezone)
    } catch (error) {
      refusal = error as RingbackError
    }
    expect(refusal).toMatchObject({ code: 'validation_failed', errors: [{ pointer, detail: expect.stringContaining(words) }] })
  })
})

describe('the ticks that make tasks when', () => {
  const hourly = parseCron('0 * * * *', 'UTC')
  const T = ms('2026-11-24T00:00:00Z')
  const HOUR = 3_600_000
  const at = (catchUp: 'none' | 'one' | 'all', nextAt: number, now: number, recurrence = hourly) =>
    planTicks(recurrence, { nextAt, catchUp }, now)

  test('a tick is due: that one, for every catch-up', () => {
    for (const mode of ['none', 'one', 'all'] as const) expect(at(mode, T, T + 20)).toEqual({ times: [T], nextAt: T + HOUR })
  })

  test('a tick is up to a minute late, as after a restart: this is no outage', () => {
    const often = parseCron('*/20 * * * * *', 'UTC')
    for (const mode of ['none', 'one', 'all'] as const) {
      expect(at(mode, T, T + ON_TIME_MS)).toEqual({ times: [T], nextAt: T + HOUR })
      expect(at(mode, T, T + 50_000, often)).toEqual({ times: [T, T + 20_000, T + 40_000], nextAt: T + 60_000 })
    }
  })

  test('an outage lasted five hours: none skips to the next tick, one makes the latest, all makes each', () => {
    const now = T + 5 * HOUR + 1_000
    expect(at('none', T, now)).toEqual({ times: [], nextAt: T + 6 * HOUR })
    expect(at('one', T, now)).toEqual({ times: [T + 5 * HOUR], nextAt: T + 6 * HOUR })
    expect(at('all', T, now)).toEqual({ times: [0, 1, 2, 3, 4, 5].map((n) => T + n * HOUR), nextAt: T + 6 * HOUR })
  })

  test('an outage lasted a year of seconds: all makes the latest 1,000, and finds them quickly', () => {
    const now = T + 365 * 24 * HOUR
    const { times, nextAt } = at('all', T, now, parseCron('* * * * * *', 'Europe/Berlin'))
    expect(times).toEqual(Array.from({ length: MAX_CAUGHT_UP }, (_, n) => now - (MAX_CAUGHT_UP - 1 - n) * 1_000))
    expect(nextAt).toBe(now + 1_000)
  })

  test('the pattern no longer has the due tick: it is made once, and the pattern continues', () => {
    const odd = T + 30 * 60_000
    expect(at('all', odd, odd + 10)).toEqual({ times: [odd], nextAt: T + HOUR })
    expect(at('one', odd, odd + 10 + 61_000)).toEqual({ times: [odd], nextAt: T + HOUR })
  })
})
