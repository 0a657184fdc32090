/** The pool of threads for task types that compute: runs their tries, ends those that do not stop, and keeps the node out of their troubles. */
import { isMainThread, MessageChannel, receiveMessageOnPort, workerData } from 'node:worker_threads'
import type { Clock } from '../../core/clock.ts'
import { StartupError } from '../../core/errors.ts'
import type { TryResult } from '../../core/lifecycle.ts'
import type { Millis } from '../../core/model.ts'
import type { EventSink } from '../../observe/events.ts'
import type { RunContext, TaskType } from '../../tasks/define.ts'
import { Interrupted } from '../pump.ts'
import { abortGraceMs, resultOfAbort, type TryInput, TryTimeout } from '../run-try.ts'
import type { AbortMessage, ThreadJob, ThreadMessage } from './entry.ts'

export interface ThreadPool {
  /** How many there are: none before they are needed, none once they have been idle for a while. */
  readonly threadCount: number
  /** Runs one try up to its end, in a thread that was idle or is new. Never throws. When it resolves, the handler has ended or its thread is killed. */
  runTry(given: TryInput, type: TaskType, context: Omit<RunContext, 'task'>): Promise<TryResult>
  /** Ends all of them. */
  close(): Promise<void>
}

export interface ThreadPoolOptions {
  /** Those that run in threads. */
  readonly types: readonly TaskType[]
  /** The URL of the module that has those that name none; left out: each must name its own. */
  readonly defaultModule?: string | undefined
  /** At once. */
  readonly maxThreads: number
  /** The heap of one. */
  readonly memoryMb: number
  readonly clock: Clock
  readonly events: EventSink
  /** After how long an idle one ends. */
  readonly idleMs?: Millis
}

const IDLE_MS: Millis = 30_000
/** A module that has not loaded by then never will. */
const LOAD_MS: Millis = 30_000
/** After its signal fired, how long a handler has to clean up, where nothing it may return counts any more. */
const CLEANUP_MS: Millis = 1_000

/** What marks a thread as one of a pool of ours. */
const THREAD_MARKER = 'a thread of Ringback'
/** @throws StartupError in such a thread: who loads a module for its task types must not start a platform by that. */
export function assertMainThread(): void {
  if (!isMainThread && workerData === THREAD_MARKER)
    throw new StartupError(
      'a thread loads this module for the task types in it, and it starts a Ringback by that: put the task types into a module of their own',
    )
}

/**
 * Opens the pool, and has a thread load each module once, so that what is wrong shows at the start.
 * @throws StartupError when a module is not named, cannot be loaded, or does not export its task types.
 */
export async function openThreadPool({
  types,
  defaultModule: module,
  maxThreads: most,
  memoryMb,
  clock,
  events,
  idleMs = IDLE_MS,
}: ThreadPoolOptions): Promise<ThreadPool> {
  const modules = new Map(types.map((type) => [type.type, moduleOf(type, module)]))
  // Loaded where it is needed: most installations have no such type.
  const { Piscina } = await import('piscina')
  const pool = new Piscina({
    filename: new URL(`./entry${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url).href,
    minThreads: 0,
    maxThreads: most,
    idleTimeout: idleMs,
    // An idle thread goes on with what a handler left behind, its last lines of output say.
    atomics: 'disabled',
    recordTiming: false,
    workerData: THREAD_MARKER,
    resourceLimits: { maxOldGenerationSizeMb: memoryMb },
  })
  // A thread that breaks down between two runs costs itself alone.
  pool.on('error', (error) => events.emit('trouble', { error }))
  const crashed = (error: unknown): TryResult => ({
    kind: 'threw',
    error: { code: 'handler_error', message: threadErrorMessage(error, memoryMb), details: null },
  })

  const threads: ThreadPool = {
    get threadCount() {
      return pool.threads.length
    },
    async runTry(given, type, { signal, progress, log }) {
      const { port1: here, port2: port } = new MessageChannel()
      const kill = new AbortController()
      let disarm = (): void => {}
      const hear = (word: ThreadMessage): void =>
        word.kind === 'progress' ? progress(word.percent, word.message) : log[word.level](word.fields, word.message)
      const tell = (): void => {
        here.postMessage(toAbortMessage(signal.reason))
        disarm = clock.after(abortGraceMs(signal.reason) || CLEANUP_MS, () => kill.abort())
      }
      here.on('message', hear)
      if (signal.aborted) tell()
      else signal.addEventListener('abort', tell, { once: true })
      try {
        const order: ThreadJob = { kind: 'run', module: modules.get(type.type)!, tryInput: given, port }
        const ended = (await pool.run(order, { transferList: [port], signal: kill.signal })) as TryResult
        return signal.aborted && abortGraceMs(signal.reason) === 0 ? resultOfAbort(signal.reason) : ended
      } catch (error) {
        return signal.aborted ? resultOfAbort(signal.reason) : crashed(error)
      } finally {
        disarm()
        signal.removeEventListener('abort', tell)
        // What it said last comes by another way than how it ended, and may come later.
        for (let last = receiveMessageOnPort(here); last; last = receiveMessageOnPort(here)) hear(last.message)
        here.close()
      }
    },
    close: () => pool.destroy(),
  }

  const look = async (module: string): Promise<void> => {
    const expected = types.filter(({ type }) => modules.get(type) === module).map(({ type }) => type)
    const kill = new AbortController()
    const disarm = clock.after(LOAD_MS, () => kill.abort())
    const order: ThreadJob = { kind: 'look', module, types: expected }
    const names = expected.map((type) => JSON.stringify(type)).join(', ')
    const missing = await pool.run(order, { signal: kill.signal }).catch((error: unknown) => {
      const why = kill.signal.aborted ? `it had not loaded after ${LOAD_MS / 1000} s` : threadErrorMessage(error, memoryMb)
      throw new StartupError(`${module}, where the task types that run in a thread are (${names}), cannot be loaded there: ${why}`)
    })
    disarm()
    for (const type of missing as readonly string[])
      throw new StartupError(
        `the task type ${JSON.stringify(type)} runs in a thread, but ${module} does not export it: export it by any name, or give it module: import.meta.url in the module that does`,
      )
  }
  try {
    await Promise.all([...new Set(modules.values())].map(look))
  } catch (error) {
    await pool.destroy()
    throw error
  }
  return threads
}

function moduleOf({ type, module }: TaskType, otherwise: string | undefined): string {
  const url = module ?? otherwise
  if (url !== undefined) return url
  throw new StartupError(
    `the task type ${JSON.stringify(type)} runs in a thread, which has to load it: give it module: import.meta.url, in a module that exports it and starts nothing`,
  )
}

function toAbortMessage(reason: unknown): AbortMessage {
  if (reason instanceof TryTimeout) return { kind: 'expired', code: reason.code, message: reason.message }
  return { kind: 'interrupted', reason: reason instanceof Interrupted ? reason.reason : 'shutdown' }
}

function threadErrorMessage(error: unknown, memoryMb: number): string {
  const { code, message = String(error) } = (error ?? {}) as { code?: unknown; message?: string }
  if (code === 'ERR_WORKER_OUT_OF_MEMORY') return `The thread ran out of its ${memoryMb} MiB of memory.`
  const exit = /^worker exited with code: (\d+)$/.exec(message)
  return exit ? `The handler ended its thread with exit code ${exit[1]}.` : message
}
