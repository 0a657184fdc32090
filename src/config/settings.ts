/** The table of settings: each one's variable, what stands where nothing is given, what it means, and who judges it. */
import { isIP } from 'node:net'
import { fileURLToPath } from 'node:url'
import ipaddr from 'ipaddr.js'
import { parseMasterKey } from '../core/encryption.ts'
import { StartupError } from '../core/errors.ts'

export type Environment = 'development' | 'production'
export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent'

/** Where everything is kept. A `path` is as given: relative ones start at the working folder. */
export type Database = { readonly kind: 'sqlite'; readonly path: string } | { readonly kind: 'postgres'; readonly url: string }

/** `limit` requests in `windowSeconds`. */
export interface RateLimit {
  readonly limit: number
  readonly windowSeconds: number
}
/** Null: that kind of request is not limited. */
export interface RateLimits {
  readonly write: RateLimit | null
  readonly read: RateLimit | null
}

/** The proxy of the installation. Its own address is the operator's business: no rule judges it. */
export interface EgressProxy {
  /** Over TLS. */
  readonly secure: boolean
  /** A name or an address, without brackets. */
  readonly host: string
  readonly port: number
  /** The value of `Proxy-Authorization`; null: none is sent. */
  readonly authorization: string | null
}

/** The same settings as an application gives them to `createRingback`. Each overrules its variable. */
export interface Options {
  readonly env?: Environment | undefined
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly databaseUrl?: string | undefined
  readonly publicUrl?: string | undefined
  readonly adminToken?: string | undefined
  readonly masterKey?: string | undefined
  readonly masterKeyPrevious?: string | undefined
  readonly leaseSeconds?: number | undefined
  readonly retrySchedule?: readonly number[] | undefined
  readonly holdDays?: number | undefined
  readonly retentionDays?: number | undefined
  readonly auditRetentionDays?: number | undefined
  readonly endpointVerification?: 'none' | 'challenge' | undefined
  readonly callbackAllow?: readonly string[] | undefined
  readonly callbackHttp?: boolean | undefined
  readonly callbackPorts?: readonly number[] | undefined
  readonly egressProxy?: string | undefined
  readonly responseExcerpts?: 'on' | 'off' | undefined
  readonly rateLimits?: string | undefined
  readonly configFile?: string | undefined
  readonly logLevel?: LogLevel | undefined
  readonly concurrency?: number | undefined
  readonly threads?: number | undefined
  readonly threadMemoryMb?: number | undefined
  readonly maxOpenTasks?: number | undefined
  readonly maxOpenTasksPerClient?: number | undefined
  readonly maxEndpointsPerClient?: number | undefined
  readonly maxSchedulesPerClient?: number | undefined
  readonly maxKeysPerClient?: number | undefined
  readonly dispatchConcurrency?: number | undefined
  readonly shutdownSeconds?: number | undefined
  readonly bodyLimitBytes?: number | undefined
  readonly maxConnections?: number | undefined
  readonly corsOrigins?: readonly string[] | undefined
}

/** One row of the table of settings. */
export interface Setting<T = unknown> {
  readonly variable: `RINGBACK_${string}`
  /** What stands where nothing is given, as text that `parse` takes; null: nothing. */
  readonly fallback: string | null | Readonly<Record<Environment, string | null>>
  /** The fallback as the reference shows it, where it is no text that could be given. */
  readonly fallbackLabel?: string
  /** For the reference, in Markdown. */
  readonly meaning: string
  /** Turns what was given into its value. Throws a StartupError whose sentence begins with `label`, the name of the setting. */
  parse(text: string, label: string): T
}
const setting = <T>(it: Setting<T>): Setting<T> => it

/** Every setting, by its option; the reference in `docs/` shows this table. */
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
      'How the world reaches this installation: the base of every link and the `iss` of every signature. May have a path; ends without a slash.',
    parse: parsePublicUrl,
  }),
  adminToken: setting({
    variable: 'RINGBACK_ADMIN_TOKEN',
    fallback: null,
    fallbackLabel: 'made once in development',
    meaning: "The operator's bearer token: 16 characters or more.",
    parse: parseToken,
  }),
  masterKey: setting({
    variable: 'RINGBACK_MASTER_KEY',
    fallback: null,
    fallbackLabel: 'made once in development',
    meaning: 'Seals secrets at rest: 32 bytes in base64. PostgreSQL wants it in development too, since nodes share it.',
    parse: parseKey,
  }),
  masterKeyPrevious: setting({
    variable: 'RINGBACK_MASTER_KEY_PREVIOUS',
    fallback: null,
    meaning: 'The master key before this one: opens what was sealed with it.',
    parse: parseKey,
  }),
  leaseSeconds: setting({
    variable: 'RINGBACK_LEASE_SECONDS',
    fallback: '30',
    meaning: 'How long a claim is believed without being renewed, 1 to 3,600; the work of a dead node is back after that.',
    parse: wholeNumber(1, 3600),
  }),
  retrySchedule: setting({
    variable: 'RINGBACK_RETRY_SCHEDULE',
    fallback: '5,30,120,600,1800,7200,18000,36000,50400,72000,86400',
    meaning: 'Seconds before each retry of a delivery, after a first attempt at once: 1 to 20 of them, each 0 to 86,400.',
    parse: parseSchedule,
  }),
  holdDays: setting({
    variable: 'RINGBACK_HOLD_DAYS',
    fallback: '14',
    meaning: 'After how many days a delivery that is still open fails as `expired`, 1 to 365.',
    parse: wholeNumber(1, 365),
  }),
  retentionDays: setting({
    variable: 'RINGBACK_RETENTION_DAYS',
    fallback: '7',
    meaning:
      'How many days an ended task is kept, with its events, deliveries and attempts, 1 to 3,650; a task type may say otherwise. Never less than its deliveries take. As long are events of endpoints kept (pings, proofs, failures), and what is left of a deleted endpoint.',
    parse: wholeNumber(1, 3650),
  }),
  auditRetentionDays: setting({
    variable: 'RINGBACK_AUDIT_RETENTION_DAYS',
    fallback: '400',
    meaning: 'How many days an entry of the audit log is kept, and a key that was revoked or has expired, 1 to 3,650.',
    parse: wholeNumber(1, 3650),
  }),
  endpointVerification: setting({
    variable: 'RINGBACK_ENDPOINT_VERIFICATION',
    fallback: { development: 'none', production: 'challenge' },
    meaning: '`challenge`: a new endpoint proves that it wants webhooks before it gets any; `none`: it is active at once.',
    parse: oneOf('none', 'challenge'),
  }),
  callbackAllow: setting({
    variable: 'RINGBACK_CALLBACK_ALLOW',
    fallback: null,
    meaning:
      'Networks that are not public and that callbacks may reach nevertheless: CIDRs, separated by commas. Development adds the loopback.',
    parse: list(parseCidr),
  }),
  callbackHttp: setting({
    variable: 'RINGBACK_CALLBACK_HTTP',
    fallback: { development: 'true', production: 'false' },
    meaning: 'Whether callbacks may go over plain `http:`.',
    parse: (text: string, label: string): boolean => oneOf('true', 'false')(text, label) === 'true',
  }),
  callbackPorts: setting({
    variable: 'RINGBACK_CALLBACK_PORTS',
    fallback: null,
    fallbackLabel: '80, 443, and from 1024 on',
    meaning: 'The ports that callback URLs may name, separated by commas, and no others: `443,8443`.',
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
    meaning: 'The module whose default export holds the task types: `{ tasks: […] }`.',
    parse: (text: string): string => text,
  }),
  logLevel: setting({
    variable: 'RINGBACK_LOG_LEVEL',
    fallback: 'info',
    meaning: '`trace`, `debug`, `info`, `warn`, `error`, `fatal` or `silent`. Runs and attempts are logged at `info`, one line each.',
    parse: oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'),
  }),
  concurrency: setting({
    variable: 'RINGBACK_CONCURRENCY',
    fallback: '50',
    meaning: 'Tasks running at once in the thread of this node, 1 to 10,000.',
    parse: wholeNumber(1, 10_000),
  }),
  threads: setting({
    variable: 'RINGBACK_THREADS',
    fallback: null,
    fallbackLabel: 'the cores less one, at least 1',
    meaning:
      "Threads, and so tasks running in one at once, of the types with `where: 'thread'`: 1 to 256. None is started without such a type.",
    parse: wholeNumber(1, 256),
  }),
  threadMemoryMb: setting({
    variable: 'RINGBACK_THREAD_MEMORY_MB',
    fallback: '512',
    meaning:
      'The heap of such a thread in MiB, 32 to 65,536. One that needs more is ended, and its try has failed. Buffers are not counted.',
    parse: wholeNumber(32, 65_536),
  }),
  maxOpenTasks: setting({
    variable: 'RINGBACK_MAX_OPEN_TASKS',
    fallback: '2000000',
    meaning: 'Pending and running tasks of all clients over which new ones are refused with 503, 1 to 1,000,000,000.',
    parse: wholeNumber(1, 1_000_000_000),
  }),
  maxOpenTasksPerClient: setting({
    variable: 'RINGBACK_MAX_OPEN_TASKS_PER_CLIENT',
    fallback: '1000000',
    meaning: 'Pending and running tasks of one client over which more of its own are refused with 429, 1 to 1,000,000,000.',
    parse: wholeNumber(1, 1_000_000_000),
  }),
  maxEndpointsPerClient: setting({
    variable: 'RINGBACK_MAX_ENDPOINTS_PER_CLIENT',
    fallback: '1000',
    meaning: 'Endpoints that one client may have, 1 to 1,000,000.',
    parse: wholeNumber(1, 1_000_000),
  }),
  maxSchedulesPerClient: setting({
    variable: 'RINGBACK_MAX_SCHEDULES_PER_CLIENT',
    fallback: '1000',
    meaning: 'Schedules that one client may have, 1 to 1,000,000.',
    parse: wholeNumber(1, 1_000_000),
  }),
  maxKeysPerClient: setting({
    variable: 'RINGBACK_MAX_KEYS_PER_CLIENT',
    fallback: '1000',
    meaning: 'Keys that work which one client may have, 1 to 1,000,000.',
    parse: wholeNumber(1, 1_000_000),
  }),
  dispatchConcurrency: setting({
    variable: 'RINGBACK_DISPATCH_CONCURRENCY',
    fallback: '1024',
    meaning: 'Deliveries in flight at once from this node, 1 to 16,384; of more than one, a client has three quarters at most.',
    parse: wholeNumber(1, 16_384),
  }),
  shutdownSeconds: setting({
    variable: 'RINGBACK_SHUTDOWN_SECONDS',
    fallback: '25',
    meaning: 'How long a shutdown lets running work finish before it is given back, 0 to 3,600.',
    parse: wholeNumber(0, 3600),
  }),
  bodyLimitBytes: setting({
    variable: 'RINGBACK_BODY_LIMIT_BYTES',
    fallback: '1048576',
    meaning: 'The longest request body, 1,024 to 67,108,864 bytes.',
    parse: wholeNumber(1024, 67_108_864),
  }),
  maxConnections: setting({
    variable: 'RINGBACK_MAX_CONNECTIONS',
    fallback: '16384',
    meaning:
      'Connections that may be open to this node, 10 to 1,000,000. For one more, the one of its address that has been idle for longest gives way, else the one of all.',
    parse: wholeNumber(10, 1_000_000),
  }),
  corsOrigins: setting({
    variable: 'RINGBACK_CORS_ORIGINS',
    fallback: null,
    meaning: 'Origins whose pages may call the API, separated by commas, or `*`. None: CORS is off.',
    parse: parseOrigins,
  }),
} satisfies { [K in keyof Required<Options>]: Setting }

/** What was given, fit to be shown: passwords starred, control characters escaped, long ones cut. */
export function quoteInput(text: string): string {
  const open = text.replace(/\/\/[^/?#]*@/, '//***@')
  return JSON.stringify(open.length > 120 ? `${open.slice(0, 119)}…` : open)
}

function refusal(label: string, text: string, must: string): StartupError {
  return new StartupError(`${label} is ${quoteInput(text)}, but it must be ${must}.`)
}

function oneOf<const T extends string>(...words: readonly T[]): (text: string, label: string) => T {
  return (text, label) => {
    const word = words.find((it) => it === text)
    if (word === undefined) throw refusal(label, text, `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`)
    return word
  }
}

function within(text: string, least: number, most: number): boolean {
  return /^\d{1,15}$/.test(text) && Number(text) >= least && Number(text) <= most
}

const shownNumber = (n: number): string => n.toLocaleString('en-US')

function wholeNumber(least: number, most: number): (text: string, label: string) => number {
  return (text, label) => {
    if (!within(text, least, most)) throw refusal(label, text, `a whole number from ${shownNumber(least)} to ${shownNumber(most)}`)
    return Number(text)
  }
}

const items = (text: string): readonly string[] => text.split(',').map((item) => item.trim())

function list<T>(parse: (item: string, label: string) => T): (text: string, label: string) => readonly T[] {
  return (text, label) => items(text).map((item) => parse(item, label))
}

function parseHost(text: string, label: string): string {
  if (isIP(text) === 0 && !/^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(text))
    throw refusal(label, text, 'an IP address or a host name, without scheme, port or brackets')
  return text
}

function parseDatabase(text: string, label: string): Database {
  if (/^postgres(ql)?:\/\//i.test(text)) {
    // Never quoted: what cannot be read may hold the password anywhere.
    if (!URL.canParse(text))
      throw new StartupError(
        `${label} begins like a PostgreSQL URL but cannot be read as one: write postgres://user:password@host:5432/database, with "@ : / ? #" in the password percent-encoded.`,
      )
    return { kind: 'postgres', url: text }
  }
  if (text.startsWith('file:')) return { kind: 'sqlite', path: parseFile(text, label) }
  const scheme = /^([^:/]*):/.exec(text)?.[1]
  const start = scheme === undefined ? `is ${quoteInput(text)}` : `begins with ${quoteInput(`${scheme}:`)}`
  throw new StartupError(`${label} ${start}, but it must be file:… for SQLite (file:./data/ringback.db) or postgres://… for PostgreSQL.`)
}

function parseFile(text: string, label: string): string {
  const must = 'file: and the path of a file on this machine, such as file:./data/ringback.db or file:/var/lib/ringback/ringback.db'
  if (/[?#]/.test(text)) throw refusal(label, text, `${must}, without "?" or "#"`)
  if (!text.startsWith('file://')) {
    const path = text.slice('file:'.length)
    if (path === '' || path.endsWith('/') || path.startsWith(':memory:')) throw refusal(label, text, must)
    return path
  }
  try {
    const url = new URL(text)
    if (url.host === '' && !url.pathname.endsWith('/')) return fileURLToPath(url)
  } catch {
    // Told below: not a URL, or with escapes that no path can hold.
  }
  throw refusal(label, text, must)
}

function parsePublicUrl(text: string, label: string): string {
  const must = 'an absolute http or https URL without query, fragment or user, such as https://tasks.example.com'
  const url = URL.canParse(text) ? new URL(text) : null
  if (!url || !/^https?:$/.test(url.protocol) || /[?#]/.test(text) || url.username !== '' || url.password !== '')
    throw refusal(label, text, must)
  // Receivers compare `iss` as text, so there is one spelling of it.
  if (text.endsWith('/')) throw refusal(label, text, `without the slash at its end: ${quoteInput(text.replace(/\/+$/, ''))}`)
  return url.origin + (url.pathname === '/' ? '' : url.pathname)
}

function parseToken(text: string, label: string): string {
  const mend = 'make one with: openssl rand -hex 24'
  if (text.length < 16) throw new StartupError(`${label} has ${text.length} characters, but it must have 16 or more: ${mend}`)
  // RFC 6750 §2.1, `b64token`.
  if (!/^[A-Za-z0-9._~+/-]+=*$/.test(text))
    throw new StartupError(`${label} holds characters that a bearer token cannot have (letters, digits and "-._~+/" can be used): ${mend}`)
  return text
}

function parseKey(text: string, label: string): string {
  parseMasterKey(text, label)
  return text
}

function parseSchedule(text: string, label: string): readonly number[] {
  const delays = items(text)
  if (delays.length > 20 || !delays.every((delay) => within(delay, 0, 86_400)))
    throw refusal(label, text, '1 to 20 delays in seconds, each a whole number from 0 to 86,400, separated by commas')
  return delays.map(Number)
}

function parseCidr(text: string, label: string): string {
  const must = 'networks in CIDR form, separated by commas, such as 10.0.0.0/8,fd00::/8'
  const bad = (why: string): StartupError => new StartupError(`${label} holds ${quoteInput(text)}, ${why}. It must be ${must}.`)
  const [address = '', bits] = text.split('/')
  const v4 = ipaddr.IPv4.isValidFourPartDecimal(address)
  if (!v4 && !(ipaddr.IPv6.isValid(address) && !address.includes('%'))) throw bad('which is no address')
  const length = v4 ? 32 : 128
  if (bits === undefined) throw bad(`which has no prefix length; for that one address write ${address}/${length}`)
  if (!within(bits, 0, length) || text.split('/').length > 2) throw bad(`whose prefix length is not a whole number from 0 to ${length}`)
  if (!v4 && ipaddr.IPv6.parse(address).isIPv4MappedAddress()) throw bad('an IPv4 network in IPv6 clothes; write it as IPv4')
  if (Number(bits) === 0) throw bad('which is every address there is; name the networks that callbacks may reach')
  const network = (v4 ? ipaddr.IPv4 : ipaddr.IPv6).networkAddressFromCIDR(`${address}/${bits}`).toString()
  if (network !== ipaddr.parse(address).toString()) throw bad(`which has bits set beyond its prefix; write ${network}/${bits}`)
  return `${network}/${bits}`
}

function parseProxy(text: string, label: string): EgressProxy {
  const url = URL.parse(text)
  const secure = url?.protocol === 'https:'
  try {
    if (!url || !/^https?:$/.test(url.protocol) || url.hostname === '' || url.pathname !== '/' || url.search !== '' || url.hash !== '')
      throw url
    const credentials = [url.username, url.password].map(decodeURIComponent).join(':')
    return {
      secure,
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
      authorization: credentials === ':' ? null : `Basic ${Buffer.from(credentials).toString('base64')}`,
    }
  } catch {
    // Never quoted: what cannot be read may hold the password anywhere.
    throw new StartupError(
      `${label} cannot be read as a proxy: write http://host:port or http://user:password@host:port, with "@ : / ? # %" in the password percent-encoded.`,
    )
  }
}

function parseRateLimits(text: string, label: string): RateLimits | null {
  if (text === 'off') return null
  const limits: { write: RateLimit | null; read: RateLimit | null } = { write: null, read: null }
  for (const item of items(text)) {
    const [, kind, limit, windowSeconds] = /^(write|read)=(\d+)\/(\d+)$/.exec(item) ?? []
    if ((kind !== 'write' && kind !== 'read') || limits[kind] || !within(limit!, 1, 1_000_000) || !within(windowSeconds!, 1, 86_400))
      throw refusal(label, text, 'off, or requests per seconds for "write", "read" or both, such as write=600/60,read=3000/60')
    limits[kind] = { limit: Number(limit), windowSeconds: Number(windowSeconds) }
  }
  return limits
}

function parseOrigins(text: string, label: string): readonly string[] {
  if (text === '*') return ['*']
  return items(text).map((item) => {
    const origin = URL.canParse(item) ? new URL(item).origin : 'null'
    if (origin === 'null' || item !== origin)
      throw new StartupError(
        `${label} holds ${quoteInput(item)}, but it must be origins separated by commas, such as https://app.example.com, or * alone.`,
      )
    return origin
  })
}
