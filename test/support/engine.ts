/** A task runner on a SQLite store, both on a manual clock. */

import Database from 'better-sqlite3'
import { onTestFinished } from 'vitest'
import type { RunRecord } from '../../src/core/lifecycle.ts'
import type { Millis, Task } from '../../src/core/model.ts'
import type { Pump } from '../../src/engine/pump.ts'
import { createTaskRunner } from '../../src/engine/task-runner.ts'
import type { ThreadPool } from '../../src/engine/threads/pool.ts'
import type { EventFacts } from '../../src/observe/events.ts'
import type { Store } from '../../src/store/interfaces.ts'
import { openStore } from '../../src/store/open.ts'
import type { TaskType } from '../../src/tasks/define.ts'
import { createRegistry } from '../../src/tasks/registry.ts'
import { freshSqlite } from './databases.ts'
import { eventsWith } from './events.ts'
import { type ManualClock, manualClock } from './manual-clock.ts'

export const LEASE_MS = 30_000

export interface Engine {
  readonly store: Store
  readonly clock: ManualClock
  readonly pump: Pump<Task>
  /** One for each run that ended. */
  readonly runs: readonly RunRecord[]
  readonly errors: readonly unknown[]
  /** What handlers threw, with its stack. */
  readonly threw: readonly EventFacts['task.threw'][]
  /** What handlers logged: fields and message of each line. */
  readonly lines: readonly (readonly unknown[])[]
  /** Changes the database behind the store's back. */
  sql(text: string): void
  /** Another node on the same store. */
  another(types: readonly TaskType[], concurrency?: number): Pump<Task>
  /** Lets time pass in steps, and everything that follows from each. */
  pass(ms: Millis, stepMs?: Millis): Promise<void>
  /** Lets what was begun come to rest: commits are waited for, however long they take. */
  rest(): Promise<void>
}

/** Starts it; stopped and removed when the test is over. */
export async function startEngine(
  types: readonly TaskType[],
  { concurrency = 10, threads }: { concurrency?: number; threads?: ThreadPool } = {},
): Promise<Engine> {
  const { url, remove } = freshSqlite()
  const clock = manualClock()
  const store = await openStore({ url, clock, publicUrl: () => 'https://tasks.example', retrySchedule: [5], exclusive: true })
  const behind = new Database(url.slice('file:'.length))
  const runs: RunRecord[] = []
  const errors: unknown[] = []
  const threw: EventFacts['task.threw'][] = []
  const lines: unknown[][] = []
  const pumps: Pump<Task>[] = []
  const another = (known: readonly TaskType[], most = concurrency): Pump<Task> => {
    const pump = createTaskRunner({
      store,
      registry: createRegistry(known),
      clock,
      bootId: `boot_${pumps.length}`,
      concurrency: most,
      leaseMs: LEASE_MS,
      events: eventsWith({
        'task.run': (record) => runs.push(record),
        'task.threw': (facts) => threw.push(facts),
        trouble: ({ error }) => errors.push(error),
      }),
      log: { info: (...line) => lines.push(line), warn: (...line) => lines.push(line) },
      ...(threads && { threadPool: threads }),
    })
    pumps.push(pump)
    return pump
  }
  const pump = another(types)
  store.notifications.onWork((kind) => {
    if (kind === 'task') for (const each of pumps) each.wake()
  })
  store.notifications.onCancelRequest((id) => {
    for (const each of pumps) each.interrupt(id, 'canceled')
  })
  const rest = async (): Promise<void> => {
    for (let i = 0; i < 4; i++) {
      await turn()
      // Answered once everything that was asked of the store before is committed.
      await store.signing.putSettingIfAbsent({ name: 'rest', value: '' })
    }
  }
  pump.start()
  onTestFinished(async () => {
    const stopped = Promise.all(pumps.map((each) => each.stop(0)))
    let done = false
    void stopped.then(() => {
      done = true
    })
    while (!done) {
      clock.advance(1_000)
      await turn()
    }
    behind.close()
    await store.close()
    remove()
  })
  return {
    store,
    clock,
    pump,
    runs,
    errors,
    threw,
    lines,
    another,
    sql: (text) => void behind.exec(text),
    async pass(ms, stepMs = ms) {
      for (let left = ms; left > 0; left -= stepMs) {
        clock.advance(Math.min(stepMs, left))
        await rest()
      }
    },
    rest,
  }
}

/** The event loop goes round once. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
/** As often as told. */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn()
}
/** Goes on as soon as it holds. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await turn()
}
