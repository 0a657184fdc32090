/** The composition root: builds every part, starts them, stops them in reverse. The only file that sees everything. */
import { type Clock, systemClock } from './clock.ts'
import { type Config, listeningAt, loadDevelopmentSecrets, parseConfig, type SecuredConfig } from './config.ts'
import { createDispatcher } from './dispatcher.ts'
import { createApp } from './http/app.ts'
import { createWaits } from './http/waits.ts'
import { newId } from './id.ts'
import { createJanitor } from './janitor.ts'
import { attemptLine, type Log, openLog, runLine } from './observe.ts'
import { CANCEL_GRACE_MS, createScheduler } from './scheduler.ts'
import { createSealer, type Sealer } from './seal.ts'
import type { Options } from './settings.ts'
import { migrateStore, openStore } from './store/open.ts'
import type { Store } from './store/store.ts'
import { createRegistry, type TaskType } from './task.ts'
import { judgeUrl, parseAddressRules } from './webhook/address.ts'
import { createKeyRing } from './webhook/keys.ts'
import { generateSecret, secretHint } from './webhook/signer.ts'
import { createTransport } from './webhook/transport.ts'

export interface Ringback {
  /** A function from Request to Response: mount it in another Hono app, or serve it with any server that speaks Fetch. */
  readonly app: { fetch(request: Request, bindings?: object): Response | Promise<Response> }
  /** Begins to run tasks and to send webhooks. */
  start(): Promise<void>
  /** Answers waiting calls, lets running work finish for the shutdown's grace, gives back what has not, closes the store. Twice is fine. */
  stop(): Promise<void>
}

/** The settings of `docs/reference/config.md` as options, and the task types. Nothing is read from the environment. */
export interface RingbackOptions extends Options {
  readonly tasks: readonly TaskType[]
  readonly log?: Log
}

/**
 * The platform inside an application of your own.
 * @throws StartupError when settings do not fit together, the store cannot be opened, or the master key is not the store's.
 */
export async function createRingback({ tasks, log, ...options }: RingbackOptions): Promise<Ringback> {
  const clock = systemClock()
  const given = loadDevelopmentSecrets(parseConfig({ env: {}, options }), clock)
  const opened = log ? { log, close: async () => {} } : openLog({ level: given.logLevel, clock })
  const ringback = await openRingback({ config: listeningAt(given, given.port), tasks, log: opened.log, clock })
  return {
    ...ringback,
    async stop() {
      await ringback.stop()
      await opened.close()
    },
  }
}

export interface Parts {
  readonly config: SecuredConfig & { readonly publicUrl: string }
  readonly tasks: readonly TaskType[]
  readonly log: Log
  readonly clock?: Clock
  /** Whether this process listens where the configuration says: then callbacks may not go there. */
  readonly listens?: boolean
}

/** Pending and running tasks over which new ones are refused. */
const MOST_OPEN_TASKS = 2_000_000
/** A pump that has not claimed for this long is not well. */
const STALE_MS = 60_000
const KEYS_EVERY_MS = 30_000

/** The platform from a judged configuration. */
export async function openRingback({ config, tasks, log, clock = systemClock(), listens = false }: Parts): Promise<Ringback> {
  const boot = newId(clock, 'boot')
  const registry = createRegistry(tasks)
  const onError = (error: unknown): void => log.warn({ err: rooted(error) }, 'trouble')
  const publicUrl = (): string => config.publicUrl
  const sealer = createSealer({
    masterKey: config.masterKey,
    ...(config.masterKeyPrevious === null ? {} : { previousMasterKey: config.masterKeyPrevious }),
    clock,
  })
  const { retrySchedule, leaseMs } = config
  const store = await openStore({ url: databaseUrl(config), clock, publicUrl, retrySchedule, owner: true, onError })
  try {
    await checkMasterKey(store, sealer)
    const keys = createKeyRing({ store, sealer, clock })
    await keys.load()
    const rules = parseAddressRules({
      allow: config.callbackAllow,
      allowHttp: config.callbackHttp,
      listeners: listens ? [{ address: config.host, port: config.port }] : [],
    })
    const transport = createTransport({ rules, clock })
    const scheduler = createScheduler({
      store,
      registry,
      clock,
      boot,
      leaseMs,
      concurrency: config.concurrency,
      onError,
      log,
      onRun: ({ task, outcome, durationMs, waitMs, errorCode }) =>
        runLine(log, {
          taskId: task.id,
          type: task.type,
          clientId: task.clientId,
          try: task.tries,
          outcome,
          durationMs,
          waitMs,
          errorCode,
        }),
    })
    const dispatcher = createDispatcher({
      store,
      transport,
      keys,
      sealer,
      clock,
      boot,
      publicUrl,
      retrySchedule,
      leaseMs,
      concurrency: config.dispatchConcurrency,
      onError,
      onAttempt: ({ delivery, sent, nextDelayMs }) =>
        attemptLine(log, {
          deliveryId: delivery.id,
          eventId: delivery.eventId,
          eventType: delivery.eventType,
          endpointId: delivery.endpointId,
          try: delivery.tries,
          outcome: sent.outcome,
          httpStatus: sent.httpStatus,
          durationMs: sent.durationMs,
          nextDelayMs,
        }),
    })
    const renew = () => Promise.all([scheduler.renew(), dispatcher.renew()])
    const janitor = createJanitor({ store, clock, leaseMs, graceMs: CANCEL_GRACE_MS + 5_000, renew, onError })
    const waits = createWaits({ store, clock })
    let state: 'built' | 'started' | 'stopped' = 'built'
    let rereadKeys = (): void => {}

    const healthy = (pump: { lastClaimAt: number }): string =>
      state === 'started' && clock.now() - pump.lastClaimAt < STALE_MS
        ? 'ok'
        : state === 'started'
          ? 'has not claimed for a minute'
          : 'not started'
    const app = createApp({
      store,
      registry,
      clock,
      publicUrl,
      adminToken: config.adminToken,
      sealer,
      signingKeys: keys,
      judgeCallbackUrl: (url) => judgeUrl(url, rules),
      generateSecret: () => generateSecret(clock),
      secretHint,
      verificationDefault: config.endpointVerification,
      bodyLimitBytes: config.bodyLimitBytes,
      corsOrigins: config.corsOrigins,
      maxOpenTasks: MOST_OPEN_TASKS,
      waits,
      log,
      async health() {
        const answers = await store.now().then(
          () => 'ok',
          () => 'does not answer',
        )
        return { store: answers, scheduler: healthy(scheduler), dispatcher: healthy(dispatcher) }
      },
    })

    store.onWork((kind) => (kind === 'task' ? scheduler : dispatcher).wake())
    store.onCancelRequest((id) => scheduler.interrupt(id, 'canceled'))
    const readKeysAgain = (): void => {
      rereadKeys = clock.after(KEYS_EVERY_MS, () => {
        keys.load().catch(onError)
        readKeysAgain()
      })
    }

    return {
      app,
      async start() {
        if (state !== 'built') return
        state = 'started'
        // On SQLite this process owns the store: whatever another boot had leased is dead.
        await janitor.rescue(config.database.kind === 'sqlite' ? boot : null)
        scheduler.start()
        dispatcher.start()
        janitor.start()
        readKeysAgain()
      },
      async stop() {
        if (state === 'stopped') return
        state = 'stopped'
        // Timers of the clock keep no process alive; a drain must.
        const alive = setInterval(() => {}, 1_000)
        rereadKeys()
        waits.stop()
        janitor.stop()
        await Promise.all([scheduler.stop(config.shutdownMs), dispatcher.stop(config.shutdownMs)])
        await transport.close()
        await store.close()
        clearInterval(alive)
      },
    }
  } catch (error) {
    await store.close()
    throw error
  }
}

/** Brings the store up to this program's schema; answers how many migrations were applied. */
export async function migrate(config: Pick<Config, 'database'>): Promise<{ applied: number }> {
  return { applied: await migrateStore({ url: databaseUrl(config), clock: systemClock() }) }
}

const databaseUrl = ({ database }: Pick<Config, 'database'>): string =>
  database.kind === 'sqlite' ? `file:${database.path}` : database.url

/** @throws StartupError when the store was sealed with another master key: nothing is made anew that would hide it. */
async function checkMasterKey(store: Store, sealer: Sealer): Promise<void> {
  sealer.checkCanary(await store.keepSetting('canary', sealer.canary()))
}

/** The error that says what happened, under those that say what it means; without the row a database quotes, which holds clients' data. */
function rooted(error: unknown): unknown {
  const root = error instanceof Error && error.cause instanceof Error ? error.cause : error
  if (!(root instanceof Error) || !('detail' in root)) return root
  const { name, message, stack } = root
  return { name, message, stack, code: 'code' in root ? root.code : undefined }
}
