/** A simulated machine that starts, stops, stalls and kills the product's task runner, dispatcher, chores and API. */

import type { Encryptor } from '../../src/core/encryption.ts'
import { newId } from '../../src/core/id.ts'
import type { Millis } from '../../src/core/model.ts'
import { createChores } from '../../src/engine/chores/chores.ts'
import { createReclaim } from '../../src/engine/chores/reclaim.ts'
import { createChoreRunner } from '../../src/engine/chores/runner.ts'
import { createDispatcher } from '../../src/engine/dispatcher.ts'
import { CANCEL_GRACE_MS } from '../../src/engine/run-try.ts'
import { createTaskRunner } from '../../src/engine/task-runner.ts'
import { createApp } from '../../src/http/app.ts'
import { createWorkerClaims } from '../../src/http/live/claims.ts'
import { createWatchers } from '../../src/http/live/waits.ts'
import type { Store } from '../../src/store/interfaces.ts'
import { bindStore } from '../../src/store/open.ts'
import { createRegistry } from '../../src/tasks/registry.ts'
import type { ActiveKey } from '../../src/webhook/keys.ts'
import type { Transport } from '../../src/webhook/transport.ts'
import { eventsWith } from '../support/events.ts'
import { isStoreFailure, type Sabotage, type Shared, type Weather } from './database.ts'
import { createLife, type Life, type Machine } from './machine.ts'
import { taskTypes } from './tasktypes.ts'
import type { World } from './world.ts'

/** The delays before the retries of a delivery, in seconds. */
export const RETRY_SCHEDULE = [1, 5, 20, 60]
/** What the janitor gives a cancel beyond the handler's own grace. */
export const OVERDUE_GRACE_MS: Millis = CANCEL_GRACE_MS + 5_000
export const PUBLIC_URL = 'https://tasks.example'
const SHUTDOWN_MS: Millis = 25_000

const unreached = (): never => {
  throw new Error('a worker’s call went farther than it should')
}
/** What routes are given that workers do not call. */
const UNREACHED = {
  signingKeys: { jwks: unreached, load: unreached, keyTransitionTimes: unreached },
  validateCallbackUrl: unreached,
  generateSecret: unreached,
  secretHint: unreached,
  verificationDefault: 'none',
  typicalDurationMs: unreached,
  maxOpenTasks: 0,
  maxPerClient: { openTasks: 0, endpoints: 0, schedules: 0, keys: 0 },
  streamLimits: { node: 0, client: 0 },
  waitLimits: { node: 0, client: 0 },
  health: unreached,
} as const

export interface Setup {
  readonly world: World
  readonly shared: Shared
  readonly leaseMs: Millis
  readonly concurrency: number
  readonly dispatchConcurrency: number
  /** How long ended tasks are kept. */
  readonly keepMs: Millis
  /** How long a delivery may stay open. */
  readonly holdMs: Millis
  readonly encryptor: Encryptor
  readonly key: ActiveKey
  /** One node owns the store: at its start it takes back at once what an earlier one had leased. */
  readonly alone: boolean
  readonly weather: () => Weather
  readonly transport: (life: Life) => Transport
  readonly sabotage: Sabotage | null
}

/** One process from its start to its end. */
export interface Boot {
  readonly name: string
  readonly life: Life
  readonly store: Store
  /** Whether it takes requests. */
  serves(): boolean
  /** A request, through its routes. */
  fetch(request: Request): Response | Promise<Response>
  /** Slots of its pumps that are neither used nor lent. */
  freeSlots(): { readonly tasks: number; readonly deliveries: number }
  /** Resolves when it has drained; it is dead then. */
  stop(): Promise<void>
}

export function startBoot(setup: Setup, machine: Machine, name: string): Boot {
  const { world, shared, leaseMs, weather } = setup
  const life = createLife(world, machine)
  const { clock } = life
  const publicUrl = (): string => PUBLIC_URL
  const onError = (error: unknown): void => {
    if (!isStoreFailure(error)) world.violated(`${name} met an error nobody caused: ${(error as Error)?.stack ?? error}`)
  }
  const events = eventsWith({
    trouble: ({ error }) => onError(error),
    'http.failed': ({ code, fields }) => code === 'internal' && world.violated(`${name}: a request failed: ${JSON.stringify(fields)}`),
  })
  const keepMs = (): Millis => setup.keepMs
  const bound = bindStore(shared.driver(name, life, weather), { clock, publicUrl, retrySchedule: RETRY_SCHEDULE, keepMs }, () => {})
  const store: Store = {
    ...bound,
    maintenance: {
      ...bound.maintenance,
      async repairLanes({ kind }) {
        const repaired = await bound.maintenance.repairLanes({ kind })
        if (repaired > 0) world.violated(`the turns of ${repaired} lanes of ${kind}s were lost`)
        return repaired
      },
    },
  }
  const boot = newId(clock, 'boot')
  const common = { store, clock, bootId: boot, leaseMs, events }
  const log = { info() {}, warn() {} }
  const registry = createRegistry(taskTypes(clock, (run) => shared.auditor.started(name, run)))
  const scheduler = createTaskRunner({
    ...common,
    registry,
    concurrency: setup.concurrency,
    log,
  })
  const dispatcher = createDispatcher({
    ...common,
    transport: setup.transport(life),
    keyRing: { active: async () => setup.key },
    encryptor: setup.encryptor,
    publicUrl,
    retrySchedule: RETRY_SCHEDULE,
    storeExcerpts: false,
    concurrency: setup.dispatchConcurrency,
  })
  const reclaim = createReclaim({ store, clock, registry })
  const chores = createChores({
    store,
    clock,
    leaseMs,
    reclaim,
    graceMs: OVERDUE_GRACE_MS,
    renew: () => Promise.all([scheduler.renew(), dispatcher.renew()]),
    registry,
    holdMs: setup.holdMs,
    auditRetentionMs: 400 * 86_400_000,
    minRetentionMs: setup.keepMs,
    endpointEventRetentionMs: setup.keepMs,
  })
  const choreRunner = createChoreRunner(chores, clock, events)
  const waits = createWatchers({ store, clock })
  const claims = createWorkerClaims({ store, clock, leaseMs, events })
  const app = createApp({
    store: setup.sabotage?.store?.(store) ?? store,
    registry,
    clock,
    publicUrl,
    adminToken: null,
    encryptor: setup.encryptor,
    retentionMs: keepMs,
    leaseMs,
    watchers: waits,
    claims,
    bodyLimitBytes: 1024 * 1024,
    corsOrigins: [],
    events,
    ...UNREACHED,
  })
  let isStopping = false
  store.notifications.onWork((kind) => (kind === 'task' ? scheduler : dispatcher).wake())
  store.notifications.onCancelRequest((id) => scheduler.interrupt(id, 'canceled'))
  const start = async (): Promise<void> => {
    await reclaim(setup.alone ? boot : null)
    scheduler.start()
    dispatcher.start()
    choreRunner.start()
  }
  // A process whose store fails it at the start ends, and is started again by whoever keeps it.
  const again = (): void => {
    start().catch((error) => {
      onError(error)
      clock.after(1_000, again)
    })
  }
  again()

  const countFree = (pump: typeof scheduler | typeof dispatcher): number => {
    const free = pump.reserve(Infinity)
    pump.release(free)
    return free
  }
  return {
    name,
    life,
    store,
    freeSlots: () => ({ tasks: countFree(scheduler), deliveries: countFree(dispatcher) }),
    serves: () => life.alive && !isStopping,
    fetch: (request) => app.fetch(request),
    async stop() {
      isStopping = true
      waits.stop()
      const claimed = claims.stop()
      choreRunner.stop()
      await Promise.all([scheduler.stop(SHUTDOWN_MS), dispatcher.stop(SHUTDOWN_MS)])
      await claimed
      await store.close()
      life.alive = false
    },
  }
}
