/** The composition root: builds every part, starts them, stops them in reverse. The only file that knows every part. */
import { type Config, loadDevelopmentSecrets, parseConfig, type SecuredConfig, storeUrl, withPort } from './config/config.ts'
import type { Options } from './config/settings.ts'
import { type Clock, systemClock } from './core/clock.ts'
import { newId } from './core/id.ts'
import type { Millis } from './core/model.ts'
import { createDurations } from './engine/durations.ts'
import { createEngine } from './engine/engine.ts'
import { openEncryptor, reencrypt, verifyMasterKey } from './engine/reencrypt.ts'
import { assertMainThread } from './engine/threads/pool.ts'
import { createApp } from './http/app.ts'
import { createRateLimiter } from './http/limits/rate-limit.ts'
import { createWorkerClaims } from './http/live/claims.ts'
import { createWatchers } from './http/live/waits.ts'
import { createEventSink, type EventSink } from './observe/events.ts'
import { type Log, logEvents, openLog } from './observe/log.ts'
import type { Store } from './store/interfaces.ts'
import { openStore } from './store/open.ts'
import type { TaskType } from './tasks/define.ts'
import { parseAddressRules, parseCallbackUrl } from './webhook/address.ts'
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
  /** The URL of the module with the task types, for the threads that load it. Left out: each type that runs in a thread names its own. */
  readonly taskTypesModule?: string
  /** Whether this process listens where the configuration says. Callbacks may then not go there. */
  readonly isListening?: boolean
}

/** Open streams, and as many calls that wait. Each costs some kilobytes and a connection. */
const MAX_OPEN_CALLS = { node: 10_000, client: 1_000 }

/** The platform from a checked configuration. */
export async function openRingback({
  config,
  tasks,
  log,
  clock = systemClock(),
  taskTypesModule: module,
  isListening: listens = false,
}: PlatformParts): Promise<Ringback> {
  assertMainThread()
  const bootId = newId(clock, 'boot')
  const events = createEventSink()
  logEvents(log, events)
  const publicUrl = (): string => config.publicUrl
  const encryptor = openEncryptor(config, clock)
  const retentionMs = retentionByType(config.retentionMs, tasks)
  const store = await openStore({
    url: storeUrl(config),
    clock,
    publicUrl,
    retrySchedule: config.retrySchedule,
    keepMs: retentionMs,
    limitedTypes: tasks.flatMap(({ type, concurrency }) => (concurrency === null ? [] : [type])),
    exclusive: true,
    events,
  })
  try {
    await verifyMasterKey(store, encryptor)
    const keys = createKeyRing({ store, encryptor, clock })
    await keys.load()
    const rules = parseAddressRules({
      allow: config.callbackAllow,
      allowHttp: config.callbackHttp,
      ports: config.callbackPorts,
      listeners: listens ? [{ address: config.host, port: config.port }] : [],
    })
    const transport = createTransport({ rules, clock, events, proxy: config.egressProxy })
    // The last step that takes time and may fail: a failure after it would leave threads behind.
    const engine = await createEngine({
      config,
      tasks,
      store,
      clock,
      events,
      log,
      bootId,
      keys,
      encryptor,
      transport,
      publicUrl,
      retentionMs,
      module,
    })
    const waits = createWatchers({ store, clock })
    const claims = createWorkerClaims({ store, clock, leaseMs: config.leaseMs, events })
    const durations = createDurations()
    events.on('task.run', ({ task, outcome, durationMs }) => {
      if (outcome === 'completed') durations.record(task.type, durationMs)
    })
    const app = createApp({
      store,
      registry: engine.registry,
      clock,
      publicUrl,
      adminToken: config.adminToken,
      encryptor,
      signingKeys: keys,
      validateCallbackUrl: (url) => parseCallbackUrl(url, rules),
      generateSecret: () => generateSecret(clock),
      secretHint,
      verificationDefault: config.endpointVerification,
      bodyLimitBytes: config.bodyLimitBytes,
      corsOrigins: config.corsOrigins,
      typicalDurationMs: durations.median,
      maxOpenTasks: config.maxOpenTasks,
      maxPerClient: {
        openTasks: config.maxOpenTasksPerClient,
        endpoints: config.maxEndpointsPerClient,
        schedules: config.maxSchedulesPerClient,
        keys: config.maxKeysPerClient,
      },
      isFull: engine.isFull,
      streamLimits: MAX_OPEN_CALLS,
      waitLimits: MAX_OPEN_CALLS,
      retentionMs: retentionMs,
      watchers: waits,
      claims,
      leaseMs: config.leaseMs,
      ...rateLimits(config, store, clock, events),
      events,
      health: async () => ({ store: await storeHealth(store), ...engine.health() }),
    })
    const reencryption = new AbortController()
    let reencrypted: Promise<void> = Promise.resolve()
    let state: 'built' | 'started' | 'stopped' = 'built'
    return {
      app,
      async start() {
        if (state !== 'built') return
        state = 'started'
        await engine.start()
        if (config.masterKeyPrevious !== null)
          reencrypted = reencrypt(store, encryptor, reencryption.signal).then(
            (count) => void (count !== null && events.emit('secrets.reencrypted', { count })),
            (error: unknown) => events.emit('trouble', { error }),
          )
      },
      async stop() {
        if (state === 'stopped') return
        state = 'stopped'
        // Timers of the clock keep no process alive; a drain must.
        const alive = setInterval(() => {}, 1_000)
        reencryption.abort()
        waits.stop()
        const claimed = claims.stop()
        await engine.stop()
        await claimed
        await transport.close()
        await reencrypted
        await store.close()
        clearInterval(alive)
      },
    }
  } catch (error) {
    await store.close()
    throw error
  }
}

/** Only when rates are limited. Nodes on PostgreSQL count together; a SQLite store has one process, which counts in memory. */
function rateLimits({ rateLimits: limits, database }: Config, store: Store, clock: Clock, events: EventSink) {
  return limits && { rateLimiter: createRateLimiter({ limits, sharedStore: database.kind === 'postgres' ? store : null, clock, events }) }
}

const storeHealth = (store: Store): Promise<string> =>
  store.now().then(
    () => store.refusal ?? 'ok',
    () => 'does not answer',
  )

/** How long ended tasks are kept, by type. */
function retentionByType(retentionMs: Millis, tasks: readonly TaskType[]): (type: string) => Millis {
  const own = new Map(tasks.flatMap(({ type, retentionSeconds }) => (retentionSeconds === null ? [] : [[type, retentionSeconds * 1000]])))
  return (type) => own.get(type) ?? retentionMs
}
