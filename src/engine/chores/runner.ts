/** Chores: work that every node repeats. All of it is idempotent and fenced, so no node has to be the leader. */
import type { Clock } from '../../core/clock.ts'
import type { Millis } from '../../core/model.ts'
import type { EventSink } from '../../observe/events.ts'

export interface Chore {
  readonly name: string
  readonly everyMs: Millis
  /** Also runs when the runner starts. Default: false. */
  readonly atStart?: boolean
  /** Does what is due and returns how many rows it changed. `signal` fires when the node stops: long chores end early. */
  run(signal: AbortSignal): Promise<number>
}
export interface ChoreRunner {
  start(): void
  stop(): void
}

/** Runs each chore again `everyMs` after it ended, with 10 % jitter either way so that nodes started together spread out. */
export function createChoreRunner(chores: readonly Chore[], clock: Clock, events: EventSink): ChoreRunner {
  const stopping = new AbortController()
  const timers = new Map<string, () => void>()
  const schedule = (chore: Chore): void => {
    timers.set(
      chore.name,
      clock.after(chore.everyMs * (0.9 + clock.random() / 5), () => {
        runChore(chore, stopping.signal, clock, events).then(() => {
          if (!stopping.signal.aborted) schedule(chore)
        })
      }),
    )
  }
  return {
    start() {
      for (const chore of chores) {
        if (chore.atStart) void runChore(chore, stopping.signal, clock, events)
        schedule(chore)
      }
    },
    stop() {
      stopping.abort()
      for (const cancel of timers.values()) cancel()
    },
  }
}

async function runChore({ name, run }: Chore, signal: AbortSignal, clock: Clock, events: EventSink): Promise<void> {
  const startedAt = clock.now()
  try {
    const count = await run(signal)
    events.emit('chore.ran', { chore: name, count, durationMs: clock.now() - startedAt })
  } catch (error) {
    events.emit('trouble', { error })
  }
}

/** Rows of one page. */
export const PAGE = 500

/** Calls `page` until it changes fewer rows than it may. Returns how many it changed in all. */
export async function repeatWhileFull(page: (limit: number) => Promise<number>, signal: AbortSignal, limit = PAGE): Promise<number> {
  let count = 0
  for (let changed = limit; changed >= limit && !signal.aborted; count += changed) changed = await page(limit)
  return count
}
