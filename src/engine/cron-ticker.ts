/**
 * Creates the tasks of schedules when they fall due. Every node does so without a leader: the node that first advances a schedule has made the
 * tick. One timer waits for the next tick. Other nodes notify of changes; polling repairs lost notifications.
 */
import type { Clock } from '../core/clock.ts'
import { parseCron, planTicks } from '../core/cron.ts'
import type { Millis } from '../core/model.ts'
import type { EventSink } from '../observe/events.ts'
import type { DueSchedule, StoreWith } from '../store/interfaces.ts'
import type { Registry } from '../tasks/registry.ts'
import { COUNT_TTL_MS, type OpenTaskBudget } from './open-tasks.ts'

export interface CronTickerOptions {
  readonly store: StoreWith<{ schedules: 'findDue' | 'tick' }>
  /** Schedules of other types are left to other nodes. */
  readonly registry: Pick<Registry, 'get' | 'list'>
  readonly clock: Clock
  /** While it is used up ticks wait. They catch up as after an outage. */
  readonly budget: OpenTaskBudget
  readonly events: EventSink
}
export interface CronTicker {
  start(): void
  /** The next tick may be earlier than the timer. Repeated calls are merged. */
  wake(): void
  /** Waits for the current ticks. */
  stop(): Promise<void>
}

/** How often an idle ticker polls. */
const POLL_MS = 15_000
/** After a poll that failed. */
const RETRY_MS = 5_000
/** Schedules per query. */
const MAX_DUE = 100
/** Schedules that tick concurrently. Planning a thousand ticks would block the event loop for 100 ms. */
const MAX_CONCURRENT = 8
/** Ticks of one schedule in one commit, and characters of their tasks. */
const MAX_TIMES = 100
const MAX_CHARACTERS = 4 * 1024 * 1024

export function createCronTicker({ store, registry, clock, budget, events }: CronTickerOptions): CronTicker {
  const types = registry.list().map(({ type }) => type)
  let running = false
  let mustRepeat = false
  let polling: Promise<void> | null = null
  let cancelTimer = (): void => {}

  /** In pages, each of which advances the schedule past its ticks: when it stops, the rest is still due. False: the client's budget is used up. */
  const tick = async (schedule: DueSchedule, now: Millis): Promise<boolean> => {
    const { timeoutSeconds, retry } = registry.get(schedule.type)!
    const plan = planTicks(parseCron(schedule.cron, schedule.timezone), schedule, now)
    const page = Math.max(1, Math.min(MAX_TIMES, Math.floor(MAX_CHARACTERS / schedule.size)))
    let { nextAt } = schedule
    for (let done = 0; ; ) {
      const wanted = Math.min(page, plan.times.length - done)
      const granted = wanted === 0 ? 0 : await budget.reserve(schedule.clientId, wanted)
      if (granted === 0 && wanted > 0) return false
      const times = plan.times.slice(done, done + granted)
      done += granted
      const next = plan.times[done] ?? plan.nextAt
      const due = { ...schedule, nextAt }
      const moved = await store.schedules.tick({ due, times, nextAt: next, timeoutSeconds, maxTries: retry.tries })
      if (moved && times.length > 0)
        events.emit('schedule.ticked', { scheduleId: schedule.id, tasks: times.length, lagMs: now - times[0]! })
      if (!moved || done >= plan.times.length || !running) return true
      nextAt = next!
    }
  }

  /** Ticks until nothing is due. Returns the delay until the next poll. */
  const tickAllDue = async (): Promise<Millis> => {
    /** Clients whose budget is used up: their schedules must not delay those of others. */
    const full = new Set<string>()
    while (running) {
      const { now, items } = await store.schedules.findDue(types, MAX_DUE, [...full])
      const due = items.filter(({ nextAt }) => nextAt <= now)
      if (due.length === 0) return Math.min(full.size > 0 ? COUNT_TTL_MS : POLL_MS, (items[0]?.nextAt ?? Infinity) - now)
      if (await budget.isFull()) return COUNT_TTL_MS
      let failed = 0
      const waiting = due.values()
      const work = async (): Promise<void> => {
        for (const schedule of waiting)
          await tick(schedule, now).then(
            (fits) => {
              if (!fits) full.add(schedule.clientId)
            },
            (error) => {
              failed++
              events.emit('trouble', { error })
            },
          )
      }
      await Promise.all(Array.from({ length: MAX_CONCURRENT }, work))
      if (failed === due.length) return RETRY_MS
    }
    return POLL_MS
  }

  const poll = async (): Promise<void> => {
    let waitMs = 0
    do {
      mustRepeat = false
      waitMs = await tickAllDue().catch((error) => {
        events.emit('trouble', { error })
        return RETRY_MS
      })
    } while (mustRepeat && running)
    polling = null
    cancelTimer()
    if (running) cancelTimer = clock.after(waitMs, wake)
  }

  function wake(): void {
    if (!running) return
    mustRepeat = true
    polling ??= poll()
  }

  return {
    start() {
      running = true
      wake()
    },
    wake,
    async stop() {
      running = false
      cancelTimer()
      await polling
    },
  }
}
