/** The table of settings: variable, default, meaning and parser of each. The types of options and of the configuration are inferred from it. */
import {
  list,
  oneOf,
  type Parser,
  parseBoolean,
  parseCidr,
  parseDatabase,
  parseHost,
  parseKey,
  parseOrigins,
  parseProxy,
  parsePublicUrl,
  parseRateLimits,
  parseSchedule,
  parseToken,
  wholeNumber,
} from './parsers.ts'

type Fallback = string | null | { readonly development: string; readonly production: string }

/** One row of the table of settings. */
export interface Setting<T = unknown, F extends Fallback = Fallback> {
  readonly variable: `RINGBACK_${string}`
  /** The default, as text that `parse` takes; null: none. */
  readonly fallback: F
  /** The default as the reference shows it, where it is not a text that `parse` takes. */
  readonly fallbackLabel?: string
  /** For the reference, in Markdown. */
  readonly meaning: string
  readonly parse: Parser<T>
}
const setting = <T, F extends Fallback>(it: Setting<T, F>): Setting<T, F> => it

/** Every setting under the name of its option. `docs/reference/config.md` shows the same table. */
export const settings = {
  env: setting({
    variable: 'RINGBACK_ENV',
    fallback: 'development',
    meaning: '`development` or `production`.',
    parse: oneOf('development', 'production'),
  }),
  host: setting({
    variable: 'RINGBACK_HOST',
    fallback: { development: '127.0.0.1', production: '0.0.0.0' },
    meaning: 'Address to listen on; in development only 127.0.0.1.',
    parse: parseHost,
  }),
  port: setting({
    variable: 'RINGBACK_PORT',
    fallback: '8484',
    meaning: 'Port to listen on; 0 picks a free one.',
    parse: wholeNumber(0, 65_535),
  }),
  databaseUrl: setting({
    variable: 'RINGBACK_DATABASE_URL',
    fallback: 'file:./data/ringback.db',
    meaning: '`file:<path>` is SQLite, for one machine; `postgres://…` is PostgreSQL 15 or later, for any number of machines.',
    parse: parseDatabase,
  }),
  publicUrl: setting({
    variable: 'RINGBACK_PUBLIC_URL',
    fallback: null,
    fallbackLabel: '`http://127.0.0.1:<port>` in development',
    meaning:
      'URL at which clients reach this installation: base of every link and `iss` of every signature. May have a path, but no trailing slash.',
    parse: parsePublicUrl,
  }),
  adminToken: setting({
    variable: 'RINGBACK_ADMIN_TOKEN',
    fallback: null,
    fallbackLabel: 'made once in development',
    meaning: "The operator's bearer token, at least 16 characters.",
    parse: parseToken,
  }),
  masterKey: setting({
    variable: 'RINGBACK_MASTER_KEY',
    fallback: null,
    fallbackLabel: 'made once in development',
    meaning: 'Encrypts stored secrets: 32 bytes in base64. Always required on PostgreSQL, where nodes share it.',
    parse: parseKey,
  }),
  masterKeyPrevious: setting({
    variable: 'RINGBACK_MASTER_KEY_PREVIOUS',
    fallback: null,
    meaning: 'The former master key: decrypts what it encrypted.',
    parse: parseKey,
  }),
  leaseSeconds: setting({
    variable: 'RINGBACK_LEASE_SECONDS',
    fallback: '30',
    meaning: "How long a claim is valid without renewal, 1 to 3,600. A dead node's work is claimed again after that.",
    parse: wholeNumber(1, 3600),
  }),
  retrySchedule: setting({
    variable: 'RINGBACK_RETRY_SCHEDULE',
    fallback: '5,30,120,600,1800,7200,18000,36000,50400,72000,86400',
    meaning: 'Seconds before each retry of a delivery: 1 to 20 numbers, each 0 to 86,400. The first attempt is immediate.',
    parse: parseSchedule,
  }),
  holdDays: setting({
    variable: 'RINGBACK_HOLD_DAYS',
    fallback: '14',
    meaning: 'Days until an open delivery fails as `expired`, 1 to 365.',
    parse: wholeNumber(1, 365),
  }),
  retentionDays: setting({
    variable: 'RINGBACK_RETENTION_DAYS',
    fallback: '7',
    meaning:
      'Days to keep an ended task with its events, deliveries and attempts, 1 to 3,650, and at least until its deliveries end; a task type can override it. Endpoint events (pings, proofs, failures) and remains of deleted endpoints are kept as long.',
    parse: wholeNumber(1, 3650),
  }),
  auditRetentionDays: setting({
    variable: 'RINGBACK_AUDIT_RETENTION_DAYS',
    fallback: '400',
    meaning: 'Days to keep audit log entries and revoked or expired keys, 1 to 3,650.',
    parse: wholeNumber(1, 3650),
  }),
  endpointVerification: setting({
    variable: 'RINGBACK_ENDPOINT_VERIFICATION',
    fallback: { development: 'none', production: 'challenge' },
    meaning: '`challenge`: a new endpoint must prove ownership before it gets webhooks; `none`: it is active at once.',
    parse: oneOf('none', 'challenge'),
  }),
  callbackAllow: setting({
    variable: 'RINGBACK_CALLBACK_ALLOW',
    fallback: null,
    meaning: 'Non-public networks that callbacks may reach: CIDRs, comma-separated. Development adds the loopback.',
    parse: list(parseCidr),
  }),
  callbackHttp: setting({
    variable: 'RINGBACK_CALLBACK_HTTP',
    fallback: { development: 'true', production: 'false' },
    meaning: 'Whether callbacks may use plain `http:`.',
    parse: parseBoolean,
  }),
  callbackPorts: setting({
    variable: 'RINGBACK_CALLBACK_PORTS',
    fallback: null,
    fallbackLabel: '80, 443, and from 1024 on',
    meaning: 'The only ports that callback URLs may name, comma-separated: `443,8443`.',
    parse: list(wholeNumber(1, 65_535)),
  }),
  egressProxy: setting({
    variable: 'RINGBACK_EGRESS_PROXY',
    fallback: null,
    fallbackLabel: 'none',
    meaning:
      'Proxy for all webhooks, `http://user:password@host:port` or `https://…`. It gets a CONNECT to the address that Ringback resolved and checked. `HTTP_PROXY` and similar variables are ignored.',
    parse: parseProxy,
  }),
  responseExcerpts: setting({
    variable: 'RINGBACK_RESPONSE_EXCERPTS',
    fallback: 'off',
    meaning: "`on` stores the first 4 KiB of receivers' responses and shows them with each attempt; they may contain user data.",
    parse: oneOf('on', 'off'),
  }),
  rateLimits: setting({
    variable: 'RINGBACK_RATE_LIMITS',
    fallback: 'off',
    meaning: '`off`, or requests per seconds for each client: `write=600/60,read=3000/60`.',
    parse: parseRateLimits,
  }),
  configFile: setting({
    variable: 'RINGBACK_CONFIG',
    fallback: './ringback.config.ts',
    meaning: 'Module whose default export holds the task types: `{ tasks: […] }`.',
    parse: (text: string): string => text,
  }),
  logLevel: setting({
    variable: 'RINGBACK_LOG_LEVEL',
    fallback: 'info',
    meaning: '`trace`, `debug`, `info`, `warn`, `error`, `fatal` or `silent`. Each run and attempt logs one line at `info`.',
    parse: oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'),
  }),
  concurrency: setting({
    variable: 'RINGBACK_CONCURRENCY',
    fallback: '50',
    meaning: "Concurrent tasks in this node's main thread, 1 to 10,000.",
    parse: wholeNumber(1, 10_000),
  }),
  threads: setting({
    variable: 'RINGBACK_THREADS',
    fallback: null,
    fallbackLabel: 'the cores less one, at least 1',
    meaning: "Threads, each running one task, for types with `where: 'thread'`, 1 to 256. Without such types none starts.",
    parse: wholeNumber(1, 256),
  }),
  threadMemoryMb: setting({
    variable: 'RINGBACK_THREAD_MEMORY_MB',
    fallback: '512',
    meaning: 'Heap of each such thread in MiB without buffers, 32 to 65,536. A thread that exceeds it is ended and its try fails.',
    parse: wholeNumber(32, 65_536),
  }),
  maxOpenTasks: setting({
    variable: 'RINGBACK_MAX_OPEN_TASKS',
    fallback: '2000000',
    meaning: 'Maximum pending and running tasks of all clients, 1 to 1,000,000,000; new ones are then refused with 503.',
    parse: wholeNumber(1, 1_000_000_000),
  }),
  maxOpenTasksPerClient: setting({
    variable: 'RINGBACK_MAX_OPEN_TASKS_PER_CLIENT',
    fallback: '1000000',
    meaning: 'Maximum pending and running tasks per client, 1 to 1,000,000,000; its new ones are then refused with 429.',
    parse: wholeNumber(1, 1_000_000_000),
  }),
  maxEndpointsPerClient: setting({
    variable: 'RINGBACK_MAX_ENDPOINTS_PER_CLIENT',
    fallback: '1000',
    meaning: 'Maximum endpoints per client, 1 to 1,000,000.',
    parse: wholeNumber(1, 1_000_000),
  }),
  maxSchedulesPerClient: setting({
    variable: 'RINGBACK_MAX_SCHEDULES_PER_CLIENT',
    fallback: '1000',
    meaning: 'Maximum schedules per client, 1 to 1,000,000.',
    parse: wholeNumber(1, 1_000_000),
  }),
  maxKeysPerClient: setting({
    variable: 'RINGBACK_MAX_KEYS_PER_CLIENT',
    fallback: '1000',
    meaning: 'Maximum active keys per client, 1 to 1,000,000.',
    parse: wholeNumber(1, 1_000_000),
  }),
  dispatchConcurrency: setting({
    variable: 'RINGBACK_DISPATCH_CONCURRENCY',
    fallback: '1024',
    meaning: 'Concurrent deliveries from this node, 1 to 16,384. One client may use at most 75 % of them.',
    parse: wholeNumber(1, 16_384),
  }),
  shutdownSeconds: setting({
    variable: 'RINGBACK_SHUTDOWN_SECONDS',
    fallback: '25',
    meaning: 'How long a shutdown waits for running work before releasing it, 0 to 3,600.',
    parse: wholeNumber(0, 3600),
  }),
  bodyLimitBytes: setting({
    variable: 'RINGBACK_BODY_LIMIT_BYTES',
    fallback: '1048576',
    meaning: 'Maximum request body in bytes, 1,024 to 67,108,864.',
    parse: wholeNumber(1024, 67_108_864),
  }),
  maxConnections: setting({
    variable: 'RINGBACK_MAX_CONNECTIONS',
    fallback: '16384',
    meaning:
      'Maximum open connections to this node, 10 to 1,000,000. At the limit, the server closes the longest-idle connection from the same IP, otherwise the longest-idle overall.',
    parse: wholeNumber(10, 1_000_000),
  }),
  corsOrigins: setting({
    variable: 'RINGBACK_CORS_ORIGINS',
    fallback: null,
    meaning: 'Origins that may call the API from browsers, comma-separated, or `*`. None: CORS is off.',
    parse: parseOrigins,
  }),
}

export type SettingName = keyof typeof settings
/** What the parser of the setting returns. */
export type Parsed<K extends SettingName> = ReturnType<(typeof settings)[K]['parse']>
/** Every setting, parsed: null where the table has no default. */
export type Settings = { readonly [K in SettingName]: Parsed<K> | ((typeof settings)[K]['fallback'] extends null ? null : never) }
export type Environment = Settings['env']
export type LogLevel = Settings['logLevel']

/** A setting as an application gives it: a value that is an object is given as text. */
type Given<T> = T extends string | number | boolean | readonly unknown[] ? T : string
/** The settings as options of `createRingback`. An option overrides its variable. */
export type Options = { readonly [K in SettingName]?: Given<Parsed<K>> | undefined }
