/** Waits for changes: long-polls, streams and readers of feeds. The store is asked once for all of them, however many wait. */
import type { Clock } from '../../core/clock.ts'
import { isTerminal, type Json, type Millis, type Task } from '../../core/model.ts'
import type { StoreWith } from '../../store/interfaces.ts'

/** A task as it is now, and the envelope of its terminal event. Null while the task is live, or when the event was erased. */
export interface TaskUpdate {
  readonly task: Task
  readonly terminalEvent: Json | null
}

export interface Watchers {
  /**
   * The task as soon as `done` holds, also if it holds already. Null after `ms`, when the caller disconnects, when the task is gone, or when the node
   * stops.
   */
  waitForTask(id: string, done: (task: Task) => boolean, ms: Millis, disconnected: AbortSignal): Promise<Task | null>
  /**
   * Calls `onUpdate` with the task as it is now and after each change. The last call has null: the task is gone or the node stops. Of quick changes only
   * the last is reported. Returns the function that unsubscribes.
   */
  watchTask(id: string, onUpdate: (update: TaskUpdate | null) => void): () => void
  /** Calls `check` whenever the feed of the client has grown, until it returns a value. Null as above. */
  waitForFeed<T>(clientId: string, check: () => Promise<T | null>, ms: Millis, disconnected: AbortSignal): Promise<T | null>
  /** Calls `check` when any task changes and every second, until it returns a value. Null as above. */
  pollUntil<T>(check: () => Promise<T | null>, ms: Millis, disconnected: AbortSignal): Promise<T | null>
  /** Answers every waiting call now, and every later call at once. */
  stop(): void
}

/** Notifications may be missing (a change on another node, a lost connection), so revisions are compared this often. */
const REPAIR_MS: Millis = 1_000
/** On a busy node tasks change all the time. Polls and feeds check at most this often. */
const POLL_MS: Millis = 100
/** Ids in one query. */
const MAX_IDS = 500

type WatchersStore = StoreWith<{ tasks: 'findMany'; events: 'findRevisions' | 'findTerminal' | 'findSeqs'; notifications: 'onTask' }>

/** What is waited for. `mark` is the revision that was last reported; null: the object was gone; undefined: nothing was reported yet. */
interface Topic<Watcher> {
  mark: number | null | undefined
  readonly watchers: Set<Watcher>
}

interface TaskWatcher {
  readonly notify: (update: TaskUpdate | null) => void
  readonly wantsTerminalEvent: boolean
}

/** Watchers of tasks. Changed tasks are read together. */
function createTaskWatchers(store: WatchersStore) {
  const topics = new Map<string, Topic<TaskWatcher>>()
  const changed = new Set<string>()

  /** A change during a read is read by the next round. */
  const read = oneAtATime(async () => {
    // One turn of the event loop collects the changes of one commit.
    await new Promise(setImmediate)
    while (changed.size > 0) await readSome([...changed].slice(0, MAX_IDS))
  })

  async function readSome(ids: readonly string[]): Promise<void> {
    for (const id of ids) changed.delete(id)
    try {
      const found = new Map((await store.tasks.findMany(ids)).map((task) => [task.id, task]))
      const ended = [...found.values()].filter(({ id, state }) => isTerminal(state) && wantsTerminalEvent(id))
      const terminalEvents = ended.length === 0 ? null : await store.events.findTerminal(ended)
      for (const id of ids) {
        const topic = topics.get(id)
        if (!topic) continue
        const task = found.get(id)
        topic.mark = task?.revision ?? null
        const update = task ? { task, terminalEvent: terminalEvents?.get(id) ?? null } : null
        for (const { notify } of [...topic.watchers]) notify(update)
      }
    } catch {
      // The store is down. The repair reads again, and calls end at their time.
      for (const topic of ids.map((id) => topics.get(id))) if (topic) topic.mark = undefined
    }
  }
  const wantsTerminalEvent = (id: string): boolean => {
    for (const watcher of topics.get(id)?.watchers ?? []) if (watcher.wantsTerminalEvent) return true
    return false
  }

  return {
    size: () => topics.size,
    onChange(id: string): void {
      if (!topics.has(id)) return
      changed.add(id)
      read()
    },
    repair: oneAtATime(async () => {
      for (const [id, mark] of await findMarks([...topics.keys()], store.events.findRevisions))
        if (topics.get(id)?.mark !== mark) changed.add(id)
      if (changed.size > 0) read()
    }),
    watch(id: string, watcher: TaskWatcher): () => void {
      const unsubscribe = subscribe(topics, id, watcher)
      // The task may have changed since the caller read it.
      changed.add(id)
      read()
      return unsubscribe
    },
  }
}

/** Watchers of feeds. Their positions are compared together. */
function createFeedWatchers(store: WatchersStore) {
  const topics = new Map<string, Topic<() => void>>()
  return {
    size: () => topics.size,
    compare: oneAtATime(async () => {
      for (const [id, mark] of await findMarks([...topics.keys()], store.events.findSeqs)) {
        const topic = topics.get(id)
        if (!topic || topic.mark === mark) continue
        topic.mark = mark
        for (const wake of [...topic.watchers]) wake()
      }
    }),
    watch: (clientId: string, wake: () => void): (() => void) => subscribe(topics, clientId, wake),
  }
}

export function createWatchers({ store, clock }: { store: WatchersStore; clock: Clock }): Watchers {
  const tasks = createTaskWatchers(store)
  const feeds = createFeedWatchers(store)
  const polls = new Set<() => void>()
  const stops = new Set<() => void>()
  let stopped = false
  let cancelRepair: (() => void) | null = null
  let cancelPoll: (() => void) | null = null

  const unsubscribe = store.notifications.onTask((id) => {
    tasks.onChange(id)
    if (polls.size + feeds.size() > 0) cancelPoll ??= clock.after(POLL_MS, poll)
  })

  function poll(): void {
    cancelPoll = null
    for (const wake of [...polls]) wake()
    if (feeds.size() > 0) feeds.compare()
  }

  const scheduleRepair = (): void => {
    cancelRepair ??= clock.after(REPAIR_MS, () => {
      cancelRepair = null
      if (tasks.size() + feeds.size() + polls.size === 0) return
      if (tasks.size() > 0) tasks.repair()
      poll()
      scheduleRepair()
    })
  }

  /** Ends with the first of: `answer`, the time, a disconnect, the stop. */
  function wait<T>(ms: Millis, disconnected: AbortSignal, begin: (answer: (value: T | null) => void) => () => void): Promise<T | null> {
    if (stopped || disconnected.aborted) return Promise.resolve(null)
    scheduleRepair()
    const { promise, resolve } = Promise.withResolvers<T | null>()
    const answer = (value: T | null): void => {
      end()
      cancelTimer()
      stops.delete(stop)
      disconnected.removeEventListener('abort', stop)
      resolve(value)
    }
    const stop = (): void => answer(null)
    const end = begin(answer)
    const cancelTimer = clock.after(ms, stop)
    stops.add(stop)
    disconnected.addEventListener('abort', stop, { once: true })
    return promise
  }

  return {
    waitForTask(id, done, ms, disconnected) {
      return wait<Task>(ms, disconnected, (answer) => {
        const notify = (update: TaskUpdate | null): void => {
          if (update === null) answer(null)
          else if (done(update.task)) answer(update.task)
        }
        return tasks.watch(id, { wantsTerminalEvent: false, notify })
      })
    },
    watchTask(id, onUpdate) {
      if (stopped) {
        onUpdate(null)
        return () => {}
      }
      scheduleRepair()
      const unwatch = tasks.watch(id, { wantsTerminalEvent: true, notify: onUpdate })
      const stop = (): void => onUpdate(null)
      stops.add(stop)
      return () => {
        stops.delete(stop)
        unwatch()
      }
    },
    waitForFeed(clientId, check, ms, disconnected) {
      return wait(ms, disconnected, (answer) => checkOnWake(check, answer, (wake) => feeds.watch(clientId, wake)))
    },
    pollUntil(check, ms, disconnected) {
      return wait(ms, disconnected, (answer) =>
        checkOnWake(check, answer, (wake) => {
          polls.add(wake)
          return () => polls.delete(wake)
        }),
      )
    },
    stop() {
      stopped = true
      unsubscribe()
      cancelRepair?.()
      cancelPoll?.()
      for (const stop of [...stops]) stop()
    },
  }
}

function subscribe<Watcher>(topics: Map<string, Topic<Watcher>>, id: string, watcher: Watcher): () => void {
  const topic = topics.get(id) ?? { mark: undefined, watchers: new Set() }
  topics.set(id, topic)
  topic.watchers.add(watcher)
  return () => {
    topic.watchers.delete(watcher)
    if (topic.watchers.size === 0 && topics.get(id) === topic) topics.delete(id)
  }
}

/** The current mark of each id. Null: the object is gone. */
async function findMarks(
  ids: readonly string[],
  find: (ids: readonly string[]) => Promise<ReadonlyMap<string, number>>,
): Promise<[string, number | null][]> {
  const marks: [string, number | null][] = []
  for (let from = 0; from < ids.length; from += MAX_IDS) {
    const some = ids.slice(from, from + MAX_IDS)
    const known = await find(some)
    for (const id of some) marks.push([id, known.get(id) ?? null])
  }
  return marks
}

/** Calls `check` now and at each wake. `register` subscribes the wake function. Returns the function that ends it. */
function checkOnWake<T>(
  check: () => Promise<T | null>,
  answer: (value: T) => void,
  register: (wake: () => void) => () => void,
): () => void {
  let ended = false
  const wake = oneAtATime(async () => {
    const value = ended ? null : await check()
    if (value !== null && !ended) answer(value)
  })
  const unregister = register(wake)
  wake()
  return () => {
    ended = true
    unregister()
  }
}

/** Runs `work`, ignoring its errors. If called during a run, `work` runs once more. */
function oneAtATime(work: () => Promise<void>): () => void {
  let running = false
  let again = false
  const run = async (): Promise<void> => {
    running = true
    while (again) {
      again = false
      await work().catch(() => {})
    }
    running = false
  }
  return () => {
    again = true
    if (!running) void run()
  }
}
