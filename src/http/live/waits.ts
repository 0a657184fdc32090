/** Who waits for a change: long-polls, streams, readers of feeds. However many they are, the store is asked once for all of them. */
import type { Clock } from '../../core/clock.ts'
import { isTerminal, type Json, type Millis, type Task } from '../../core/model.ts'
import type { StoreWith } from '../../store/interfaces.ts'

/** A task as it is, and once it has ended the envelope of its terminal event; null while it lives, and where that was erased. */
export interface TaskUpdate {
  readonly task: Task
  readonly terminalEvent: Json | null
}

export interface Watchers {
  /**
   * The task as soon as `enough` says so; null when `ms` are over, the caller hung up, the task is gone or the node stops.
   * What is true already is noticed too.
   */
  waitForTask(id: string, enough: (task: Task) => boolean, ms: Millis, hungUp: AbortSignal): Promise<Task | null>
  /**
   * Calls `hear` with the task as it is now, and again whenever it has changed; with null, for the last time, when it is gone or the node
   * stops. Of changes in quick succession the last is told. The answer ends it.
   */
  watchTask(id: string, hear: (news: TaskUpdate | null) => void): () => void
  /** Asks `check` when the feed of that client has grown, until it gives something; null as above. */
  waitForFeed<T>(clientId: string, check: () => Promise<T | null>, ms: Millis, hungUp: AbortSignal): Promise<T | null>
  /** Asks `check` when any task changes and every second, until it gives something; null as above. */
  pollUntil<T>(check: () => Promise<T | null>, ms: Millis, hungUp: AbortSignal): Promise<T | null>
  /** Answers every waiting call now, and every later one at once. */
  stop(): void
}

/** A change may go unheard (a start or the end of a deadline on another node, a lost connection): how far things have come is asked this often. */
const REPAIR_MS: Millis = 1_000
/** A busy node changes tasks all the time; who waits for anything at all looks this often at most. */
const LOOK_MS: Millis = 100
/** Ids in one query. */
const MAX_IDS = 500

type WatchersStore = StoreWith<{ tasks: 'findMany'; events: 'findRevisions' | 'findTerminal' | 'findSeqs'; notifications: 'onTask' }>

interface Watcher {
  readonly notify: (news: TaskUpdate | null) => void
  readonly wantsEnding: boolean
}
/** What is waited for: how far it had come when last told; null: it was gone; undefined: nobody was told yet. */
interface Topic<Waiting> {
  mark: number | null | undefined
  readonly waiting: Set<Waiting>
}

export function createWatchers(options: { store: WatchersStore; clock: Clock }): Watchers {
  const { store, clock } = options
  const tasks = new Map<string, Topic<Watcher>>()
  const feeds = new Map<string, Topic<() => void>>()
  const lookers = new Set<() => void>()
  const stops = new Set<() => void>()
  /** Tasks to be read anew. */
  const changed = new Set<string>()
  let stopped = false
  let cancelRepair: (() => void) | null = null
  let cancelLook: (() => void) | null = null

  const unsubscribe = store.notifications.onTask((id) => {
    if (tasks.has(id)) {
      changed.add(id)
      read()
    }
    if (lookers.size + feeds.size > 0) cancelLook ??= clock.after(LOOK_MS, look)
  })

  /** What changes while it reads is read by its next round. */
  const read = oneAtATime(async () => {
    // A turn of the event loop lets the changes of one commit come together.
    await new Promise(setImmediate)
    while (changed.size > 0) await readSome([...changed].slice(0, MAX_IDS))
  })

  async function readSome(ids: readonly string[]): Promise<void> {
    for (const id of ids) changed.delete(id)
    try {
      const found = new Map((await store.tasks.findMany(ids)).map((task) => [task.id, task]))
      const ended = [...found.values()].filter(({ id, state }) => isTerminal(state) && wantsEnding(id))
      const endings = ended.length === 0 ? null : await store.events.findTerminal(ended)
      for (const id of ids) {
        const topic = tasks.get(id)
        if (!topic) continue
        const task = found.get(id)
        topic.mark = task?.revision ?? null
        for (const { notify: hear } of [...topic.waiting]) hear(task ? { task, terminalEvent: endings?.get(id) ?? null } : null)
      }
    } catch {
      // The store is down: the repair asks again, and the calls end at their time.
      for (const id of ids) forgetMark(tasks.get(id))
    }
  }
  const wantsEnding = (id: string): boolean => {
    for (const each of tasks.get(id)?.waiting ?? []) if (each.wantsEnding) return true
    return false
  }

  const compareTasks = oneAtATime(async () => {
    for (const [id, mark] of await marks([...tasks.keys()], store.events.findRevisions)) if (tasks.get(id)?.mark !== mark) changed.add(id)
    if (changed.size > 0) read()
  })
  const compareFeeds = oneAtATime(async () => {
    for (const [id, mark] of await marks([...feeds.keys()], store.events.findSeqs)) {
      const topic = feeds.get(id)
      if (!topic || topic.mark === mark) continue
      topic.mark = mark
      for (const wake of [...topic.waiting]) wake()
    }
  })

  function look(): void {
    cancelLook = null
    for (const wake of [...lookers]) wake()
    if (feeds.size > 0) compareFeeds()
  }

  const armRepair = (): void => {
    cancelRepair ??= clock.after(REPAIR_MS, () => {
      cancelRepair = null
      if (tasks.size + feeds.size + lookers.size === 0) return
      if (tasks.size > 0) compareTasks()
      look()
      armRepair()
    })
  }

  function watch(id: string, watcher: Watcher): () => void {
    armRepair()
    const leave = join(tasks, id, watcher)
    // It may have changed between the caller's look and now.
    changed.add(id)
    read()
    return leave
  }

  /** Ends by `answer`, after `ms`, when the caller hangs up, or at the stop; whichever is first, once. */
  function wait<T>(ms: Millis, hungUp: AbortSignal, begin: (answer: (value: T | null) => void) => () => void): Promise<T | null> {
    if (stopped || hungUp.aborted) return Promise.resolve(null)
    armRepair()
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

  /** Asks `check` now and whenever the function that `register` takes is called. */
  function checking<T>(check: () => Promise<T | null>, answer: (value: T) => void, register: (wake: () => void) => () => void): () => void {
    let left = false
    const wake = oneAtATime(async () => {
      const value = left ? null : await check()
      if (value !== null && !left) answer(value)
    })
    const leave = register(wake)
    wake()
    return () => {
      left = true
      leave()
    }
  }

  return {
    waitForTask(id, enough, ms, hungUp) {
      return wait<Task>(ms, hungUp, (answer) =>
        watch(id, {
          wantsEnding: false,
          notify: (news) => {
            if (news === null) answer(null)
            else if (enough(news.task)) answer(news.task)
          },
        }),
      )
    },
    watchTask(id, hear) {
      if (stopped) {
        hear(null)
        return () => {}
      }
      const leave = watch(id, { wantsEnding: true, notify: hear })
      const stop = (): void => hear(null)
      stops.add(stop)
      return () => {
        stops.delete(stop)
        leave()
      }
    },
    waitForFeed(clientId, check, ms, hungUp) {
      return wait(ms, hungUp, (answer) => checking(check, answer, (wake) => join(feeds, clientId, wake)))
    },
    pollUntil(check, ms, hungUp) {
      return wait(ms, hungUp, (answer) =>
        checking(check, answer, (wake) => {
          lookers.add(wake)
          return () => lookers.delete(wake)
        }),
      )
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

function join<Waiting>(topics: Map<string, Topic<Waiting>>, id: string, one: Waiting): () => void {
  const topic = topics.get(id) ?? { mark: undefined, waiting: new Set() }
  topics.set(id, topic)
  topic.waiting.add(one)
  return () => {
    topic.waiting.delete(one)
    if (topic.waiting.size === 0 && topics.get(id) === topic) topics.delete(id)
  }
}

const forgetMark = (topic: Topic<unknown> | undefined): void => {
  if (topic) topic.mark = undefined
}

/** How far each has come; null: it is gone. */
async function marks(
  ids: readonly string[],
  find: (ids: readonly string[]) => Promise<ReadonlyMap<string, number>>,
): Promise<[string, number | null][]> {
  const found: [string, number | null][] = []
  for (let from = 0; from < ids.length; from += MAX_IDS) {
    const some = ids.slice(from, from + MAX_IDS)
    const known = await find(some)
    for (const id of some) found.push([id, known.get(id) ?? null])
  }
  return found
}

/** Runs `work`, which may fail; asked for while it runs, it runs once more. */
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
