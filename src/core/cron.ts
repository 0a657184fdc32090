/** The ticks of a cron pattern in a time zone, and which of them make tasks. Pure. */
import { Cron } from 'croner'
import { RingbackError } from './errors.ts'
import type { CatchUp, Millis } from './model.ts'

/** The ticks of a pattern in a zone. */
export interface Recurrence {
  /** The first tick later than `at`; null: there is none. */
  after(at: Millis): Millis | null
  /** The latest `count` ticks not later than `at`, in order. */
  latest(at: Millis, count: number): readonly Millis[]
}

export const MAX_PATTERN_LENGTH = 200
const NICKNAME = /^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$/i

/**
 * Parses a pattern of five fields, of six with seconds first, or a nickname such as `@daily`; at most {@link MAX_PATTERN_LENGTH} characters.
 *
 * Daylight saving: a fixed time of day inside the skipped hour ticks at the first moment after it; one that occurs twice ticks the first time.
 * A pattern with `*` or a step in its seconds, minutes or hours has no tick in the skipped hour and ticks in both passes of the repeated one.
 * @throws RingbackError `validation_failed`, pointing to `#/cron` or `#/timezone`
 */
export function parseCron(cron: string, timezone: string): Recurrence {
  checkZone(timezone)
  const pattern = parse(cron, timezone)
  const after = (at: Millis): Millis | null => {
    const next = pattern.nextRun(new Date(at))?.getTime() ?? null
    // Loops over ticks rely on progress.
    if (next !== null && next <= at) throw new Error(`"${cron}" in ${timezone} has no tick after ${at} but ${next}`)
    return next
  }
  return {
    after,
    latest: (at, count) =>
      pattern
        .previousRuns(count, new Date(at + 1))
        .map((time) => time.getTime())
        .reverse(),
  }
}

function checkZone(timezone: string): void {
  try {
    // Intl refuses an empty name, which croner takes for the zone of the machine.
    new Intl.DateTimeFormat('en', { timeZone: timezone })
  } catch {
    throw refused('timezone', `is "${timezone}", which is no time zone; give an IANA name such as "Europe/Berlin", or "UTC"`)
  }
}

function parse(cron: string, timezone: string): Cron {
  const count = cron.trim().split(/\s+/).length
  if (!NICKNAME.test(cron) && count !== 5 && count !== 6)
    throw refused(
      'cron',
      `is "${cron}"; give five fields (minute, hour, day of month, month, day of week), or six with seconds first, or a nickname such as "@daily"`,
    )
  // For croner "?" is the time of parsing, which differs between nodes.
  if (cron.includes('?')) throw refused('cron', `is "${cron}"; "?" has no meaning here, write "*"`)
  let pattern: Cron
  try {
    pattern = new Cron(cron, { timezone, mode: '5-or-6-parts', fixedTimeRule: 'no-wildcard', paused: true })
  } catch (error) {
    const why = (error as Error).message.replace(/^\w+: /, '').replace(/\.$/, '')
    throw refused('cron', `is "${cron}", which is no cron pattern: ${why}`)
  }
  if (pattern.nextRun(EPOCH) === null) throw refused('cron', `is "${cron}", which names no day that ever comes`)
  return pattern
}
const EPOCH = new Date(0)

const refused = (member: 'cron' | 'timezone', detail: string): RingbackError =>
  new RingbackError('validation_failed', `The ${member} ${detail}.`, { errors: [{ pointer: `#/${member}`, detail }] })

/** A tick that is at most this late is on time: restarts and deployments are no outage. */
export const ON_TIME_MS: Millis = 60_000
/** Maximum missed ticks that are made up one by one; earlier ones are skipped. */
export const MAX_CAUGHT_UP = 1_000

/**
 * The ticks that make tasks now that `nextAt` is due, and the tick after them. If the first one is later than {@link ON_TIME_MS}, there was an
 * outage, and `catchUp` decides about all that are due.
 */
export function planTicks(
  recurrence: Recurrence,
  { nextAt, catchUp }: { readonly nextAt: Millis; readonly catchUp: CatchUp },
  now: Millis,
): { readonly times: readonly Millis[]; readonly nextAt: Millis | null } {
  const outage = now - nextAt > ON_TIME_MS
  if (outage && catchUp === 'none') return { times: [], nextAt: recurrence.after(now) }
  if (outage && catchUp === 'one') {
    const [latest = nextAt] = recurrence.latest(now, 1)
    return { times: [Math.max(latest, nextAt)], nextAt: recurrence.after(now) }
  }
  const times: Millis[] = []
  let at: Millis | null = nextAt
  for (; at !== null && at <= now; at = recurrence.after(at)) {
    // Searching backwards is as expensive as the loop so far, so it is the exception.
    if (times.length === MAX_CAUGHT_UP) return { times: recurrence.latest(now, MAX_CAUGHT_UP), nextAt: recurrence.after(now) }
    times.push(at)
  }
  return { times, nextAt: at }
}
