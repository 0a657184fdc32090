/** The composition root: builds every part, starts them, stops them in reverse. The only file that sees everything. */

import { type Config, loadDevelopmentSecrets, parseConfig, type SecuredConfig, withPort } from './config/config.ts'
import type { Options } from './config/settings.ts'
import { generateApiKey } from './core/api-key.ts'
import { type Clock, systemClock } from './core/clock.ts'
import { createEncryptor, type Encryptor } from './core/encryption.ts'
import { StartupError, toErrorLog } from './core/errors.ts'
import { newId } from './core/id.ts'
import type { RunRecord } from './core/lifecycle.ts'
import { type Author, actors, type Client, clientScopes, type Millis, type SigningKey } from './core/model.ts'
import { createJanitor } from './engine/chores/janitor.ts'
import { createCronTicker } from './engine/cron-ticker.ts'
import { createDispatcher } from './engine/dispatcher.ts'
import { createDurations } from './engine/durations.ts'
import { createOpenTaskBudget } from './engine/open-tasks.ts'
import { checkEncrypted, reencrypt } from './engine/reencrypt.ts'
import { CANCEL_GRACE_MS } from './engine/run-try.ts'
import { createTaskRunner, type TaskRunnerOptions } from './engine/task-runner.ts'
import { assertMainThread, openThreadPool } from './engine/threads/pool.ts'
import { createApp } from './http/app.ts'
import { createQuotas } from './http/limits/rate-limit.ts'
import { createClaims } from './http/live/claims.ts'
import { createWaits } from './http/live/waits.ts'
import { createEventSink } from './observe/events.ts'
import { type Log, logAttempt, logRun, openLog } from './observe/log.ts'
import type { Store } from './store/interfaces.ts'
import { migrateStore, openStore } from './store/open.ts'
import { createRegistry, type TaskType } from './tasks/define.ts'
import { createBulkTypes } from './tasks/system/bulk.ts'
import { createReplayType } from './tasks/system/replay.ts'
import { judgeUrl, parseAddressRules } from './webhook/address.ts'
import { createKeyRing, outlook } from './webhook/keys.ts'
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
  const ringback = await openRingback({ config: withPort(given, given.port), tasks, log: opened.log, clock })
  return {
    ...ringback,
    async stop() {
      await ringback.stop()
      await opened.close()
    },
  }
}

export interface PlatformParts {
  readonly config: SecuredConfig & { readonly publicUrl: string }
  readonly tasks: readonly TaskType[]
  readonly log: Log
  readonly clock?: Clock
  /** The URL of the module with the task types, for the threads that load it; left out: each that runs in a thread names its own. */
  readonly module?: string
  /** Whether this process listens where the configuration says: then callbacks may not go there. */
  readonly listens?: boolean
}

/** Open streams, and as many calls that wait: each costs some kilobytes and a connection. */
const MAX_SEATS = { node: 10_000, client: 1_000 }
/** A pump that has not claimed for this long is not well. */
const STALE_MS = 60_000
const KEYS_EVERY_MS = 30_000

/** The platform from a judged configuration. */
export async function openRingback({
  config,
  tasks,
  log,
  clock = systemClock(),
  module,
  listens = false,
}: PlatformParts): Promise<Ringback> {
  assertMainThread()
  const boot = newId(clock, 'boot')
  const events = createEventSink()
  events.on('trouble', ({ error }) => log.warn({ err: rooted(error) }, 'trouble'))
  const onError = (error: unknown): void => events.emit('trouble', { error })
  const publicUrl = (): string => config.publicUrl
  const encryptor = createEncryptor({
    masterKey: config.masterKey,
    ...(config.masterKeyPrevious === null ? {} : { previousMasterKey: config.masterKeyPrevious }),
    clock,
  })
  const { retrySchedule, leaseMs } = config
  const keepMs = retentionByType(config.retentionMs, tasks)
  const limitedTypes = tasks.flatMap(({ type, concurrency }) => (concurrency === null ? [] : [type]))
  const url = databaseUrl(config)
  const store = await openStore({ url, clock, publicUrl, retrySchedule, keepMs, limitedTypes, exclusive: true, events })
  try {
    const budget = createOpenTaskBudget({ store, clock, ...config })
    const registry = createRegistry([...tasks, createReplayType(store), ...createBulkTypes(store, budget)])
    await checkMasterKey(store, encryptor)
    const keys = createKeyRing({ store, encryptor, clock })
    await keys.load()
    const rules = parseAddressRules({
      allow: config.callbackAllow,
      allowHttp: config.callbackHttp,
      ports: config.callbackPorts,
      listeners: listens ? [{ address: config.host, port: config.port }] : [],
    })
    const durations = createDurations()
    const transport = createTransport({ rules, clock, proxy: config.egressProxy })
    const threaded = tasks.filter(({ where }) => where === 'thread')
    // The last thing here that takes its time and may fail: what follows cannot leave threads behind.
    const threads =
      threaded.length === 0
        ? null
        : await openThreadPool({ types: threaded, module, maxThreads: config.threads, memoryMb: config.threadMemoryMb, clock, onError })
    const onRun = ({ task, outcome, durationMs, waitMs, errorCode }: RunRecord): void => {
      if (outcome === 'completed') durations.record(task.type, durationMs)
      logRun(log, {
        taskId: task.id,
        type: task.type,
        clientId: task.clientId,
        try: task.tries,
        outcome,
        durationMs,
        waitMs,
        errorCode,
      })
    }
    const scheduling: TaskRunnerOptions = {
      store,
      registry,
      clock,
      bootId: boot,
      leaseMs,
      concurrency: config.concurrency,
      onError,
      log,
      onRun,
    }
    const inProcess = createTaskRunner(scheduling)
    const inThreads = threads && createTaskRunner({ ...scheduling, threads, concurrency: config.threads })
    const schedulers = inThreads ? [inProcess, inThreads] : [inProcess]
    const dispatcher = createDispatcher({
      store,
      transport,
      keys,
      encryptor,
      clock,
      bootId: boot,
      publicUrl,
      retrySchedule,
      excerpts: config.responseExcerpts,
      leaseMs,
      concurrency: config.dispatchConcurrency,
      onError,
      onAttempt: ({ delivery, sent, nextDelayMs }) =>
        logAttempt(log, {
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
    const renew = () => Promise.all([...schedulers, dispatcher].map((pump) => pump.renew()))
    const janitor = createJanitor({
      store,
      clock,
      leaseMs,
      graceMs: CANCEL_GRACE_MS + 5_000,
      renew,
      registry,
      holdMs: config.holdMs,
      auditRetentionMs: config.auditRetentionMs,
      minRetentionMs: Math.min(config.retentionMs, ...tasks.map(({ type }) => keepMs(type))),
      endpointEventRetentionMs: config.retentionMs,
      onError,
    })
    const ticker = createCronTicker({ store, registry, clock, budget, onError })
    const waits = createWaits({ store, clock })
    const claims = createClaims({ store, clock, leaseMs, onError })
    let state: 'built' | 'started' | 'stopped' = 'built'
    let rereadKeys = (): void => {}
    const resealing = new AbortController()
    let resealed: Promise<void> = Promise.resolve()

    const healthy = (...pumps: readonly { lastClaimAt: number }[]): string =>
      state === 'started' && pumps.every((pump) => clock.now() - pump.lastClaimAt < STALE_MS)
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
      encryptor,
      signingKeys: keys,
      judgeCallbackUrl: (url) => judgeUrl(url, rules),
      generateSecret: () => generateSecret(clock),
      secretHint,
      verificationDefault: config.endpointVerification,
      bodyLimitBytes: config.bodyLimitBytes,
      corsOrigins: config.corsOrigins,
      typicalMs: durations.median,
      maxOpenTasks: config.maxOpenTasks,
      mostOfClient: {
        openTasks: config.maxOpenTasksPerClient,
        endpoints: config.maxEndpointsPerClient,
        schedules: config.maxSchedulesPerClient,
        keys: config.maxKeysPerClient,
      },
      isFull: (type) => (type.where === 'thread' && inThreads ? inThreads : inProcess).full,
      mostStreams: MAX_SEATS,
      mostWaits: MAX_SEATS,
      keepMs,
      waits,
      claims,
      leaseMs,
      onRun,
      ...(config.rateLimits && {
        admit: createQuotas({
          limits: config.rateLimits,
          // One process owns a SQLite store.
          shared: config.database.kind === 'postgres' ? store : null,
          clock,
          onError,
        }),
      }),
      log,
      async health() {
        const answers = await store.now().then(
          () => store.refusal ?? 'ok',
          () => 'does not answer',
        )
        return { store: answers, scheduler: healthy(...schedulers), dispatcher: healthy(dispatcher) }
      },
    })

    store.notifications.onSigningKeys(() => void keys.load().catch(onError))
    store.notifications.onWork((kind) => {
      for (const pump of kind === 'task' ? schedulers : [dispatcher]) pump.wake()
    })
    store.notifications.onSchedules(() => ticker.wake())
    store.notifications.onCancelRequest((id) => {
      for (const pump of schedulers) pump.interrupt(id, 'canceled')
    })
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
        await janitor.reclaim(config.database.kind === 'sqlite' ? boot : null)
        for (const pump of [...schedulers, dispatcher]) pump.start()
        janitor.start()
        ticker.start()
        readKeysAgain()
        if (config.masterKeyPrevious !== null)
          resealed = reencrypt(store, encryptor, resealing.signal).then((sealedAnew) => {
            if (sealedAnew !== null)
              log.info({ sealedAnew }, 'everything is sealed with the present master key: the previous one may be dropped')
          }, onError)
      },
      async stop() {
        if (state === 'stopped') return
        state = 'stopped'
        // Timers of the clock keep no process alive; a drain must.
        const alive = setInterval(() => {}, 1_000)
        rereadKeys()
        resealing.abort()
        waits.stop()
        const claimed = claims.stop()
        janitor.stop()
        await ticker.stop()
        await Promise.all([...schedulers, dispatcher].map((pump) => pump.stop(config.shutdownMs)))
        await claimed
        await threads?.close()
        await transport.close()
        await resealed
        await store.close()
        clearInterval(alive)
      },
    }
  } catch (error) {
    await store.close()
    throw error
  }
}

/** How long ended tasks are kept, type by type. */
function retentionByType(retentionMs: Millis, tasks: readonly TaskType[]): (type: string) => Millis {
  const own = new Map(tasks.flatMap(({ type, retentionSeconds }) => (retentionSeconds === null ? [] : [[type, retentionSeconds * 1000]])))
  return (type) => own.get(type) ?? retentionMs
}

/** Brings the store up to this program's schema; answers how many migrations were applied. */
export async function migrate(config: Pick<Config, 'database'>): Promise<{ applied: number }> {
  return { applied: await migrateStore({ url: databaseUrl(config), clock: systemClock() }) }
}

const databaseUrl = ({ database }: Pick<Config, 'database'>): string =>
  database.kind === 'sqlite' ? `file:${database.path}` : database.url

/** @throws StartupError when the store was sealed with another master key: nothing is made anew that would hide it. */
async function checkMasterKey(store: Store, encryptor: Encryptor): Promise<void> {
  encryptor.verifyKeyCheck(await store.signing.putSettingIfAbsent({ name: 'canary', value: encryptor.keyCheck() }))
  await checkEncrypted(store, encryptor)
}

/** What `ringback keys` does, beside whatever servers run on the same store. */
export interface SigningKeyAdmin {
  list(): Promise<readonly (SigningKey & ReturnType<typeof outlook>)[]>
  rotate(): Promise<void>
  /** @throws StartupError when there is no such key. */
  revoke(id: string): Promise<void>
  close(): Promise<void>
}
const CLI_AUTHOR: Author = { actor: actors.cli, requestId: null, remoteAddress: null }
/** @throws StartupError when the store cannot be opened, or the master key is not the store's. */
export async function openSigningKeyAdmin(config: SecuredConfig): Promise<SigningKeyAdmin> {
  const clock = systemClock()
  const store = await openStore({ url: databaseUrl(config), clock, publicUrl: () => '', retrySchedule: [] })
  try {
    const previous = config.masterKeyPrevious === null ? {} : { previousMasterKey: config.masterKeyPrevious }
    const encryptor = createEncryptor({ masterKey: config.masterKey, ...previous, clock })
    await checkMasterKey(store, encryptor)
    const ring = createKeyRing({ store, encryptor, clock })
    return {
      async list() {
        return (await store.signing.listKeys()).map((key) => ({ ...key, ...outlook(key) }))
      },
      async rotate() {
        await store.signing.requestRotation({ by: CLI_AUTHOR })
        await ring.load()
      },
      async revoke(id) {
        if ((await store.signing.revokeKey({ id, by: CLI_AUTHOR })) === null)
          throw new StartupError(`there is no signing key "${id}": ringback keys list shows those there are`)
        await ring.load()
      },
      close: () => store.close(),
    }
  } catch (error) {
    await store.close()
    throw error
  }
}

/** What `ringback clients` does, beside whatever servers run on the same store. */
export interface ClientAdmin {
  /** A client, and a key with every scope of one. */
  create(name: string): Promise<{ readonly client: Client; readonly key: string }>
  list(): AsyncIterable<Client>
  close(): Promise<void>
}
/** @throws StartupError when the store cannot be opened. */
export async function openClientAdmin(config: Pick<Config, 'database'>): Promise<ClientAdmin> {
  const clock = systemClock()
  const store = await openStore({ url: databaseUrl(config), clock, publicUrl: () => '', retrySchedule: [] })
  return {
    async create(name) {
      const client = await store.access.addClient({ client: { id: newId(clock, 'client'), name }, by: CLI_AUTHOR })
      const { key, hash, hint } = generateApiKey(clock)
      const made = { id: newId(clock, 'key'), clientId: client.id, name: '', hash, hint, taskTypes: null, expiresAt: null }
      await store.access.addKey({ key: { ...made, scopes: JSON.stringify(clientScopes) }, by: CLI_AUTHOR })
      return { client, key }
    },
    async *list() {
      for (let page = await store.access.listClients(200, null); ; page = await store.access.listClients(200, page.next)) {
        yield* page.items
        if (page.next === null) return
      }
    },
    close: () => store.close(),
  }
}

/** The error that says what happened, under those that say what it means. */
function rooted(error: unknown): unknown {
  const root = error instanceof Error && error.cause instanceof Error ? error.cause : error
  return root instanceof Error ? toErrorLog(root) : root
}
