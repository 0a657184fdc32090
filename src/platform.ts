/** The composition root: builds, starts and stops every part of a node. */
import { type Config, loadDevelopmentSecrets, parseConfig, type SecuredConfig, storeUrl, withPort } from './config/config.ts'
import type { Options } from './config/settings.ts'
import { type Clock, systemClock } from './core/clock.ts'
import type { Encryptor } from './core/encryption.ts'
import { newId } from './core/id.ts'
import type { Millis } from './core/model.ts'
import { createDurations } from './engine/durations.ts'
import { createEngine, type Engine } from './engine/engine.ts'
import { openEncryptor, reencrypt, verifyMasterKey } from './engine/reencrypt.ts'
import { assertMainThread } from './engine/threads/pool.ts'
import { createApp } from './http/app.ts'
import { createRateLimiter } from './http/limits/rate-limit.ts'
import { createWorkerClaims, type WorkerClaims } from './http/live/claims.ts'
import { createWatchers, type Watchers } from './http/live/waits.ts'
import { createEventSink, type EventSink } from './observe/events.ts'
import { type Log, logEvents, openLog } from './observe/log.ts'
import type { Store } from './store/interfaces.ts'
import { openStore } from './store/open.ts'
import type { TaskType } from './tasks/define.ts'
import { type AddressRules, parseAddressRules, parseCallbackUrl } from './webhook/address.ts'
import { createKeyRing, type KeyRing } from './webhook/keys.ts'
import { generateSecret, secretHint } from './webhook/signer.ts'
import { createTransport, type Transport } from './webhook/transport.ts'

export interface Ringback {
  /** Maps a Request to a Response: mount it in another Hono app, or serve it with any Fetch server. */
  readonly app: { fetch(request: Request, bindings?: object): Response | Promise<Response> }
  /** Starts to run tasks and send webhooks. */
  start(): Promise<void>
  /** Answers waiting calls, lets work finish for `shutdownSeconds`, releases the rest, closes the store. Idempotent. */
  stop(): Promise<void>
}

/** The settings of `docs/reference/config.md` as options, and the task types. Reads no environment variables. */
export interface RingbackOptions extends Options {
  readonly tasks: readonly TaskType[]
  readonly log?: Log
}

/** See `createRingback` in index.ts. */
export async function createRingback({ tasks, log, ...options }: RingbackOptions): Promise<Ringback> {
  const clock = systemClock()
  const config = loadDevelopmentSecrets(parseConfig({ env: {}, options }), clock)
  const opened = log ? { log, close: async () => {} } : openLog({ level: config.logLevel, clock })
  const ringback = await openRingback({ config: withPort(config, config.port), tasks, log: opened.log, clock })
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
  /** The URL of the module with the task types, which threads import. Default: each type that runs in a thread names its own. */
  readonly taskTypesModule?: string
  /** Whether this process listens on the configured address, which callbacks must not reach. Default: false. */
  readonly isListening?: boolean
}

/** Of streams, and of waiting calls. Each costs some kilobytes and a connection. */
const MAX_OPEN_CALLS = { node: 10_000, client: 1_000 }

/** The platform of a validated configuration. @throws as `createRingback`. */
export async function openRingback({
  config,
  tasks,
  log,
  clock = systemClock(),
  taskTypesModule,
  isListening,
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
      listeners: isListening ? [{ address: config.host, port: config.port }] : [],
    })
    const transport = createTransport({ rules, clock, events, proxy: config.egressProxy })
    const node = { config, tasks, store, clock, events, log, bootId, keys, encryptor, transport, publicUrl, retentionMs }
    // Last of the steps that may fail: a later failure would leave threads behind.
    const engine = await createEngine({ ...node, module: taskTypesModule })
    const watchers = createWatchers({ store, clock })
    const claims = createWorkerClaims({ store, clock, leaseMs: config.leaseMs, events })
    return {
      app: createNodeApp({ ...node, rules, engine, watchers, claims }),
      ...lifecycle({ ...node, engine, watchers, claims }),
    }
  } catch (error) {
    await store.close()
    throw error
  }
}

interface NodeParts {
  readonly config: PlatformParts['config']
  readonly store: Store
  readonly clock: Clock
  readonly events: EventSink
  readonly encryptor: Encryptor
  readonly transport: Transport
  readonly engine: Engine
  readonly watchers: Watchers
  readonly claims: WorkerClaims
}

type AppParts = NodeParts & {
  readonly keys: KeyRing
  readonly rules: AddressRules
  readonly publicUrl: () => string
  readonly retentionMs: (type: string) => Millis
}
function createNodeApp(parts: AppParts): Ringback['app'] {
  const { config, store, clock, events, encryptor, engine, keys, rules, publicUrl, retentionMs, watchers, claims } = parts
  const durations = createDurations()
  events.on('task.run', ({ task, outcome, durationMs }) => {
    if (outcome === 'completed') durations.record(task.type, durationMs)
  })
  return createApp({
    store,
    registry: engine.registry,
    clock,
    publicUrl,
    encryptor,
    retentionMs,
    watchers,
    claims,
    events,
    adminToken: config.adminToken,
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
    leaseMs: config.leaseMs,
    ...rateLimits(config, store, clock, events),
    health: async () => ({ store: await storeHealth(store), ...engine.health() }),
  })
}

function lifecycle({ config, store, events, encryptor, transport, engine, watchers, claims }: NodeParts): Pick<Ringback, 'start' | 'stop'> {
  const reencryption = new AbortController()
  let reencrypted: Promise<void> = Promise.resolve()
  let state: 'built' | 'started' | 'stopped' = 'built'
  return {
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
      // The clock's timers do not keep the process alive; a drain must.
      const keepAlive = setInterval(() => {}, 1_000)
      reencryption.abort()
      watchers.stop()
      const claimsStopped = claims.stop()
      await engine.stop()
      await claimsStopped
      await transport.close()
      await reencrypted
      await store.close()
      clearInterval(keepAlive)
    },
  }
}

/** Nodes on PostgreSQL share their counts. A SQLite store has one process, which counts in memory. */
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
  const byType = new Map(
    tasks.flatMap(({ type, retentionSeconds }) => (retentionSeconds === null ? [] : [[type, retentionSeconds * 1000]])),
  )
  return (type) => byType.get(type) ?? retentionMs
}
