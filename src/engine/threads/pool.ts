/** The thread pool for CPU-bound task types: runs their tries, kills threads that do not stop, and isolates the node from their failures. */
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
  /** Threads now: 0 before the first run and after `idleMs` without one. */
  readonly threadCount: number
  /** Runs one try in an idle or new thread. Never throws. When it resolves, the handler has ended or its thread was killed. */
  runTry(tryInput: TryInput, type: TaskType, context: Omit<RunContext, 'task'>): Promise<TryResult>
  close(): Promise<void>
}

export interface ThreadPoolOptions {
  readonly types: readonly TaskType[]
  /** The URL of the module of types that name none. Default: each type must name one. */
  readonly defaultModule?: string | undefined
  readonly maxThreads: number
  /** The heap of one thread. */
  readonly memoryMb: number
  readonly clock: Clock
  readonly events: EventSink
  /** After which an idle thread ends. Default: 30 s. */
  readonly idleMs?: Millis
}

const IDLE_MS: Millis = 30_000
/** For loading one module at the start. */
const LOAD_MS: Millis = 30_000
/** How long a handler may clean up after a timeout or a lost lease, when its result no longer counts. */
const CLEANUP_MS: Millis = 1_000

const THREAD_MARKER = 'a thread of Ringback'
/** @throws StartupError in a thread of the pool: a module of task types must not start a platform. */
export function assertMainThread(): void {
  if (!isMainThread && workerData === THREAD_MARKER)
    throw new StartupError(
      'a thread imports this module for its task types, and the module starts Ringback: move the task types to a module of their own',
    )
}

/**
 * Opens the pool and loads each module once in a thread, so that faults appear at the start.
 * @throws StartupError when a module is not named, cannot be loaded, or does not export its task types.
 */
export async function openThreadPool({
  types,
  defaultModule,
  maxThreads,
  memoryMb,
  clock,
  events,
  idleMs = IDLE_MS,
}: ThreadPoolOptions): Promise<ThreadPool> {
  const modules = new Map(types.map((type) => [type.type, moduleOf(type, defaultModule)]))
  // Loaded on demand: most installations have no such type.
  const { Piscina } = await import('piscina')
  const pool = new Piscina({
    filename: new URL(`./entry${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url).href,
    minThreads: 0,
    maxThreads,
    idleTimeout: idleMs,
    // An idle thread keeps its event loop running, for example to write the last output of a handler.
    atomics: 'disabled',
    recordTiming: false,
    workerData: THREAD_MARKER,
    resourceLimits: { maxOldGenerationSizeMb: memoryMb },
  })
  // A thread that fails between two runs ends alone.
  pool.on('error', (error) => events.emit('trouble', { error }))
  const crashed = (error: unknown): TryResult => ({
    kind: 'threw',
    error: { code: 'handler_error', message: threadErrorMessage(error, memoryMb), details: null },
  })

  const threads: ThreadPool = {
    get threadCount() {
      return pool.threads.length
    },
    async runTry(tryInput, type, { signal, progress, log }) {
      const { port1: local, port2: port } = new MessageChannel()
      const kill = new AbortController()
      let cancelKill = (): void => {}
      const onMessage = (message: ThreadMessage): void =>
        message.kind === 'progress' ? progress(message.percent, message.message) : log[message.level](message.fields, message.message)
      const onAbort = (): void => {
        local.postMessage(toAbortMessage(signal.reason))
        cancelKill = clock.after(abortGraceMs(signal.reason) || CLEANUP_MS, () => kill.abort())
      }
      local.on('message', onMessage)
      if (signal.aborted) onAbort()
      else signal.addEventListener('abort', onAbort, { once: true })
      try {
        const job: ThreadJob = { kind: 'run', module: modules.get(type.type)!, tryInput, port }
        const result = (await pool.run(job, { transferList: [port], signal: kill.signal })) as TryResult
        return signal.aborted && abortGraceMs(signal.reason) === 0 ? resultOfAbort(signal.reason) : result
      } catch (error) {
        return signal.aborted ? resultOfAbort(signal.reason) : crashed(error)
      } finally {
        cancelKill()
        signal.removeEventListener('abort', onAbort)
        // The last messages come over another channel than the result and may be later.
        for (let last = receiveMessageOnPort(local); last; last = receiveMessageOnPort(local)) onMessage(last.message)
        local.close()
      }
    },
    close: () => pool.destroy(),
  }

  const check = async (module: string): Promise<void> => {
    const expected = types.filter(({ type }) => modules.get(type) === module).map(({ type }) => type)
    const kill = new AbortController()
    const cancelKill = clock.after(LOAD_MS, () => kill.abort())
    const job: ThreadJob = { kind: 'check', module, types: expected }
    const names = expected.map((type) => JSON.stringify(type)).join(', ')
    const missing = await pool.run(job, { signal: kill.signal }).catch((error: unknown) => {
      const why = kill.signal.aborted ? `it did not load within ${LOAD_MS / 1000} s` : threadErrorMessage(error, memoryMb)
      throw new StartupError(`the module ${module} with the task types ${names} cannot be loaded in a thread: ${why}`)
    })
    cancelKill()
    for (const type of missing as readonly string[])
      throw new StartupError(
        `the task type ${JSON.stringify(type)} runs in a thread, but ${module} does not export it: export it, or add module: import.meta.url to its definition in the module that does`,
      )
  }
  try {
    await Promise.all([...new Set(modules.values())].map(check))
  } catch (error) {
    await pool.destroy()
    throw error
  }
  return threads
}

function moduleOf({ type, module }: TaskType, defaultModule: string | undefined): string {
  const url = module ?? defaultModule
  if (url !== undefined) return url
  throw new StartupError(
    `the task type ${JSON.stringify(type)} runs in a thread, which has to import it: add module: import.meta.url to its definition, in a module that exports it and starts nothing`,
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
