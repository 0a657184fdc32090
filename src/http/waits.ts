/** Long-polls. However many calls wait, the store is asked once for all of them. */
import type { Clock } from '../clock.ts'
import type { Millis, Task } from '../model.ts'
import type { Store } from '../store/store.ts'

export interface Waits {
  /**
   * The task as soon as `enough` says so; null when `ms` are over, the caller hung up, the task is gone or the node stops.
   * What is true already is noticed too.
   */
  forTask(id: string, enough: (task: Task) => boolean, ms: Millis, hungUp: AbortSignal): Promise<Task | null>
  /** Asks `check` when any task changes and every second, until it gives something; null as above. */
  until<T>(check: () => Promise<T | null>, ms: Millis, hungUp: AbortSignal): Promise<T | null>
  /** Answers every waiting call now, and every later one at once. */
  stop(): void
}

/** A change heard of may be missed (another node's, a lost connection): everything waited for is read again this often. */
const REPAIR_MS: Millis = 1_000
/** A busy node changes tasks all the time; who waits for anything at all looks this often at most. */
const LOOK_MS: Millis = 100
/** Ids in one query. */
const MOST_IDS = 500

interface Waiting {
  readonly enough: (task: Task) => boolean
  readonly answer: (task: Task | null) => void
}

export function createWaits(options: { store: Pick<Store, 'onTask' | 'findTasks'>; clock: Clock }): Waits {
  const { store, clock } = options
  const waiting = new Map<string, Set<Waiting>>()
  const changed = new Set<string>()
  const lookers = new Set<() => void>()
  const stops = new Set<() => void>()
  let reading = false
  let stopped = false
  let cancelRepair: (() => void) | null = null
  let cancelLook: (() => void) | null = null

  const unsubscribe = store.onTask((id) => {
    if (waiting.has(id)) {
      changed.add(id)
      void read()
    }
    if (lookers.size > 0) cancelLook ??= clock.after(LOOK_MS, look)
  })

  function look(): void {
    cancelLook = null
    for (const wake of lookers) wake()
  }

  /** One query at a time; what changes meanwhile is read by the next. */
  async function read(): Promise<void> {
    if (reading) return
    reading = true
    try {
      // A turn of the event loop lets the changes of one commit come together.
      await new Promise(setImmediate)
      while (changed.size > 0) {
        const ids = [...changed].slice(0, MOST_IDS)
        for (const id of ids) changed.delete(id)
        const tasks = new Map((await store.findTasks(ids)).map((task) => [task.id, task]))
        for (const id of ids) tell(id, tasks.get(id) ?? null)
      }
    } catch {
      // The store is down: the repair asks again, and the calls end at their time.
    } finally {
      reading = false
    }
  }

  function tell(id: string, task: Task | null): void {
    for (const one of waiting.get(id) ?? []) if (task === null || one.enough(task)) one.answer(task)
  }

  function repair(): void {
    cancelRepair = null
    if (waiting.size === 0 && lookers.size === 0) return
    for (const id of waiting.keys()) changed.add(id)
    void read()
    look()
    cancelRepair = clock.after(REPAIR_MS, repair)
  }

  /** Ends by `answer`, after `ms`, when the caller hangs up, or at the stop; whichever is first, once. */
  function wait<T>(ms: Millis, hungUp: AbortSignal, begin: (answer: (value: T | null) => void) => () => void): Promise<T | null> {
    if (stopped || hungUp.aborted) return Promise.resolve(null)
    cancelRepair ??= clock.after(REPAIR_MS, repair)
    const { promise, resolve } = Promise.withResolvers<T | null>()
    const answer = (value: T | null): void => {
      forget()
      cancelTimer()
      stops.delete(stop)
      hungUp.removeEventListener('abort', stop)
      resolve(value)
    }
    const stop = (): void => answer(null)
    const forget = begin(answer)
    const cancelTimer = clock.after(ms, stop)
    stops.add(stop)
    hungUp.addEventListener('abort', stop, { once: true })
    return promise
  }

  return {
    forTask(id, enough, ms, hungUp) {
      return wait<Task>(ms, hungUp, (answer) => {
        const one: Waiting = { enough, answer }
        const those = waiting.get(id) ?? new Set()
        waiting.set(id, those.add(one))
        // It may have changed between the caller's look and now.
        changed.add(id)
        void read()
        return () => {
          those.delete(one)
          if (those.size === 0 && waiting.get(id) === those) waiting.delete(id)
        }
      })
    },
    until(check, ms, hungUp) {
      return wait(ms, hungUp, (answer) => {
        let checking = false
        let again = false
        const wake = async (): Promise<void> => {
          again = checking
          if (checking) return
          checking = true
          const value = await check().catch(() => null)
          checking = false
          if (value !== null) answer(value)
          else if (again && lookers.has(wake)) void wake()
        }
        lookers.add(wake)
        void wake()
        return () => lookers.delete(wake)
      })
    },
    stop() {
      stopped = true
      unsubscribe()
      cancelRepair?.()
      cancelLook?.()
      for (const stop of [...stops]) stop()
    },
  }
}
