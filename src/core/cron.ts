/** The times a cron pattern names in a time zone, and which of them are to be made. Pure. */
import { Cron } from 'croner'
import { RingbackError } from './errors.ts'
import type { CatchUp, Millis } from './model.ts'

/** The times of a pattern in a zone. */
export interface Recurrence {
  /** The first tick later than `at`; null: there is none. */
  after(at: Millis): Millis | null
  /** The latest `count` ticks not later than `at`, in their order. */
  latest(at: Millis, count: number): readonly Millis[]
}

export const MAX_PATTERN_LENGTH = 200
const NICKNAME = /^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$/i

/**
 * A pattern of five fields, of six with seconds before them, or a nickname such as `@daily`; at most {@link MAX_PATTERN_LENGTH} characters.
 *
 * Where clocks go forward, a time of day that is skipped ticks at the first moment after the gap; where they go back, a time of day that
 * occurs twice ticks the first time. A pattern with `*` or a step in its seconds, minutes or hours counts moments instead of naming
 * times of day: it has nothing in a gap and ticks in both passes of an overlap.
 * @throws RingbackError `validation_failed`, pointing to `#/cron` or `#/timezone`
 */
export function parseCron(cron: string, timezone: string): Recurrence {
  checkZone(timezone)
  const pattern = parse(cron, timezone)
  const after = (at: Millis): Millis | null => {
    const next = pattern.nextRun(new Date(at))?.getTime() ?? null
    // What walks along ticks relies on it.
    if (next !== null && next <= at) throw new Error(`"${cron}" in ${timezone} does not go on after ${at}`)
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
    // An empty name is the machine's own zone to some, and none to Intl.
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
  // "?" stands for the moment the pattern is read, which differs from node to node.
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

/** A tick made within this time of its own is on time: restarts and deploys are no outage. */
export const ON_TIME_MS: Millis = 60_000
/** Missed ticks made good one by one, at most; those before them are left out. */
export const MAX_CAUGHT_UP = 1_000

/**
 * Which ticks are to be made now that `nextAt` is due, and the tick after them. When the first of them is late beyond
 * {@link ON_TIME_MS} there was an outage, and `catchUp` says what becomes of all that are due.
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
    // Looking back costs as much as having walked here, so it is done only when it must be.
    if (times.length === MAX_CAUGHT_UP) return { times: recurrence.latest(now, MAX_CAUGHT_UP), nextAt: recurrence.after(now) }
    times.push(at)
  }
  return { times, nextAt: at }
}
