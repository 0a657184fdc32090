/**
 * Ticks: makes the tasks of schedules as they fall due. Every node does it, without a leader: whoever moves a schedule on first has
 * made the tick. One timer, armed for the next tick; other nodes' changes are told, and polling repairs what is not heard.
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
  /** Schedules of types it does not know are left to other nodes. */
  readonly registry: Pick<Registry, 'get' | 'list'>
  readonly clock: Clock
  /** While there is none ticks wait; what they miss meanwhile is caught up as after any outage. */
  readonly budget: OpenTaskBudget
  readonly events: EventSink
}
export interface CronTicker {
  start(): void
  /** A next tick may have come nearer. Cheap; repeats are merged. */
  wake(): void
  /** Waits for the ticks under way. */
  stop(): Promise<void>
}

/** How often an idle ticker looks although nobody woke it. */
const POLL_MS = 15_000
/** How soon a look that failed is repeated. */
const REPEAT_MS = 5_000
/** Schedules one look asks for. */
const MAX_DUE = 100
/** Schedules ticked side by side: planning a thousand ticks takes a tenth of a second of the event loop, which has other work. */
const MAX_AT_ONCE = 8
/** Ticks of one schedule, and characters of their tasks, in one commit. */
const MAX_TIMES = 100
const MAX_CHARACTERS = 4 * 1024 * 1024

export function createCronTicker({ store, registry, clock, budget, events }: CronTickerOptions): CronTicker {
  const types = registry.list().map(({ type }) => type)
  let running = false
  let again = false
  let looking: Promise<void> | null = null
  let cancelTimer = (): void => {}

  /** Page by page, each moving the schedule on by what it made: whatever stops it, the rest is still due. False: its client has no room for more. */
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

  /** Until nothing is due. Answers when to look again. */
  const look = async (): Promise<Millis> => {
    /** Clients whose ticks wait: those of the others must not wait behind them. */
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
      await Promise.all(Array.from({ length: MAX_AT_ONCE }, work))
      if (failed === due.length) return REPEAT_MS
    }
    return POLL_MS
  }

  const lookOn = async (): Promise<void> => {
    let waitMs = 0
    do {
      again = false
      waitMs = await look().catch((error) => {
        events.emit('trouble', { error })
        return REPEAT_MS
      })
    } while (again && running)
    looking = null
    cancelTimer()
    if (running) cancelTimer = clock.after(waitMs, wake)
  }

  function wake(): void {
    if (!running) return
    again = true
    looking ??= lookOn()
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
      await looking
    },
  }
}
