/** The engine of a node: runs tasks, sends deliveries, ticks schedules and runs chores. */
import type { SecuredConfig } from '../config/config.ts'
import type { Clock } from '../core/clock.ts'
import type { Encryptor } from '../core/encryption.ts'
import type { Millis } from '../core/model.ts'
import type { EventSink } from '../observe/events.ts'
import type { Log } from '../observe/log.ts'
import type { Store } from '../store/interfaces.ts'
import type { TaskType } from '../tasks/define.ts'
import { createRegistry, type Registry } from '../tasks/registry.ts'
import { createBulkTypes } from '../tasks/system/bulk.ts'
import { createReplayType } from '../tasks/system/replay.ts'
import type { KeyRing } from '../webhook/keys.ts'
import type { Transport } from '../webhook/transport.ts'
import { createChores } from './chores/chores.ts'
import { createReclaim } from './chores/reclaim.ts'
import { type Chore, createChoreRunner } from './chores/runner.ts'
import { createCronTicker } from './cron-ticker.ts'
import { createDispatcher } from './dispatcher.ts'
import { createOpenTaskBudget } from './open-tasks.ts'
import { CANCEL_GRACE_MS } from './run-try.ts'
import { createTaskRunner, type TaskRunnerOptions } from './task-runner.ts'
import { openThreadPool } from './threads/pool.ts'

export interface EngineOptions {
  readonly config: SecuredConfig
  readonly tasks: readonly TaskType[]
  readonly store: Store
  readonly clock: Clock
  readonly events: EventSink
  readonly log: Log
  readonly bootId: string
  readonly keys: KeyRing
  readonly encryptor: Encryptor
  readonly transport: Transport
  readonly publicUrl: () => string
  /** How long an ended task of that type is kept. */
  readonly retentionMs: (type: string) => Millis
  /** The URL of the module with the task types, which threads import. */
  readonly module: string | undefined
}
export interface Engine {
  readonly registry: Registry
  /** Whether every slot for tasks of this type is taken. */
  isFull(type: TaskType): boolean
  /** `ok`, or why not, for the readiness check. */
  health(): { readonly scheduler: string; readonly dispatcher: string }
  start(): Promise<void>
  /** Lets running work finish for `shutdownMs`, then releases it. */
  stop(): Promise<void>
}

/** A pump that has not claimed for this long is not healthy. */
const STALE_MS = 60_000
const RELOAD_KEYS_MS = 30_000

/** @throws StartupError when a thread cannot load a task type. */
export async function createEngine(options: EngineOptions): Promise<Engine> {
  const { config, tasks, store, clock, events, log, bootId, keys, encryptor, transport, publicUrl, retentionMs, module } = options
  const { leaseMs } = config
  const budget = createOpenTaskBudget({ store, clock, ...config })
  const registry = createRegistry([...tasks, createReplayType(store), ...createBulkTypes(store, budget)])
  const threaded = tasks.filter(({ where }) => where === 'thread')
  const threads =
    threaded.length === 0
      ? null
      : await openThreadPool({
          types: threaded,
          defaultModule: module,
          maxThreads: config.threads,
          memoryMb: config.threadMemoryMb,
          clock,
          events,
        })
  const running: TaskRunnerOptions = { store, registry, clock, bootId, leaseMs, concurrency: config.concurrency, events, log }
  const inProcess = createTaskRunner(running)
  const inThreads = threads && createTaskRunner({ ...running, threadPool: threads, concurrency: config.threads })
  const runners = inThreads ? [inProcess, inThreads] : [inProcess]
  const dispatcher = createDispatcher({
    store,
    transport,
    keyRing: keys,
    encryptor,
    clock,
    bootId,
    publicUrl,
    retrySchedule: config.retrySchedule,
    storeExcerpts: config.responseExcerpts,
    leaseMs,
    concurrency: config.dispatchConcurrency,
    events,
  })
  const pumps = [...runners, dispatcher]
  const reclaim = createReclaim({ store, registry, clock })
  const chores = createChores({
    store,
    clock,
    registry,
    reclaim,
    renew: () => Promise.all(pumps.map((pump) => pump.renew())),
    leaseMs,
    graceMs: CANCEL_GRACE_MS + 5_000,
    minRetentionMs: Math.min(config.retentionMs, ...tasks.map(({ type }) => retentionMs(type))),
    endpointEventRetentionMs: config.retentionMs,
    auditRetentionMs: config.auditRetentionMs,
    holdMs: config.holdMs,
  })
  const choreRunner = createChoreRunner([...chores, reloadKeys(keys)], clock, events)
  const ticker = createCronTicker({ store, registry, clock, budget, events })
  let started = false

  store.notifications.onSigningKeys(() => void keys.load().catch((error: unknown) => events.emit('trouble', { error })))
  store.notifications.onWork((kind) => {
    for (const pump of kind === 'task' ? runners : [dispatcher]) pump.wake()
  })
  store.notifications.onSchedules(() => ticker.wake())
  store.notifications.onCancelRequest((id) => {
    for (const pump of runners) pump.interrupt(id, 'canceled')
  })

  const healthOf = (...of: readonly { lastClaimAt: number }[]): string => {
    if (!started) return 'not started'
    return of.every((pump) => clock.now() - pump.lastClaimAt < STALE_MS) ? 'ok' : 'has not claimed for a minute'
  }
  return {
    registry,
    isFull: (type) => (type.where === 'thread' && inThreads ? inThreads : inProcess).full,
    health: () => ({ scheduler: healthOf(...runners), dispatcher: healthOf(dispatcher) }),
    async start() {
      started = true
      // On SQLite this process owns the store, so leases of other boots are dead.
      await reclaim(config.database.kind === 'sqlite' ? bootId : null)
      for (const pump of pumps) pump.start()
      choreRunner.start()
      ticker.start()
    },
    async stop() {
      started = false
      choreRunner.stop()
      await ticker.stop()
      await Promise.all(pumps.map((pump) => pump.stop(config.shutdownMs)))
      await threads?.close()
    },
  }
}

/** Repairs lost notifications of other nodes' changes, and applies rotations that are due. */
const reloadKeys = (keys: Pick<KeyRing, 'load'>): Chore => ({
  name: 'reload signing keys',
  everyMs: RELOAD_KEYS_MS,
  async run() {
    await keys.load()
    return 0
  },
})
