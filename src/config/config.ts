/** Settings: the environment and an application's own options, judged together at the start and made one frozen value. */
import { closeSync, existsSync, fsyncSync, linkSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import type { Clock } from '../core/clock.ts'
import { StartupError } from '../core/errors.ts'
import type { Millis } from '../core/model.ts'
import {
  type Database,
  type EgressProxy,
  type Environment,
  type LogLevel,
  type Options,
  quoteInput,
  type RateLimits,
  type Setting,
  settings,
} from './settings.ts'

/** Everything Ringback is told from outside. Frozen, and complete but for the two secrets that {@link loadDevelopmentSecrets} adds. */
export interface Config {
  readonly env: Environment
  readonly host: string
  /** 0: any free port. See {@link withPort}. */
  readonly port: number
  /** A path in it is absolute. */
  readonly database: Database
  /** The base of every link and the `iss` of every signature: no trailing slash. Null: not known until the port is. */
  readonly publicUrl: string | null
  readonly adminToken: string | null
  /** 32 bytes in base64. */
  readonly masterKey: string | null
  readonly masterKeyPrevious: string | null
  readonly leaseMs: Millis
  /** Delays in seconds, one before each retry of a delivery; the first attempt is immediate. */
  readonly retrySchedule: readonly number[]
  /** How long an ended task is kept. */
  readonly retentionMs: Millis
  /** How long an entry of the audit log is kept. */
  readonly auditRetentionMs: Millis
  /** How long a delivery may stay open. */
  readonly holdMs: Millis
  readonly endpointVerification: 'none' | 'challenge'
  /** CIDRs that callbacks may reach although they are not public; in development the loopback is among them. */
  readonly callbackAllow: readonly string[]
  /** Whether callback URLs may be plain `http:`. */
  readonly callbackHttp: boolean
  /** Ports that callback URLs may name; null: any. */
  readonly callbackPorts: readonly number[] | null
  readonly egressProxy: EgressProxy | null
  /** Whether attempts keep the start of what receivers answer. */
  readonly responseExcerpts: boolean
  /** Null: off. */
  readonly rateLimits: RateLimits | null
  /** Absolute path of the module with the task types. */
  readonly configFile: string
  readonly logLevel: LogLevel
  /** Tasks running at once in the thread of this node. */
  readonly concurrency: number
  /** Threads of the pool at most. */
  readonly threads: number
  readonly threadMemoryMb: number
  /** Pending and running tasks over which new ones are refused. */
  readonly maxOpenTasks: number
  /** The same of one client, and what else one client may have. */
  readonly maxOpenTasksPerClient: number
  readonly maxEndpointsPerClient: number
  readonly maxSchedulesPerClient: number
  readonly maxKeysPerClient: number
  /** Deliveries in flight at once from this node. */
  readonly dispatchConcurrency: number
  /** How long a shutdown lets running work finish. */
  readonly shutdownMs: Millis
  readonly bodyLimitBytes: number
  /** Connections that may be open to the listener of `serve`. */
  readonly maxConnections: number
  /** Origins whose pages may call the API; `*` alone is all of them, none is off. */
  readonly corsOrigins: readonly string[]
  /** Where generated files of development live: beside the SQLite database, else `./data`. Absolute. */
  readonly dataFolder: string
}

/** A configuration with both its secrets: what the platform starts from. */
export type SecuredConfig = Config & { readonly adminToken: string; readonly masterKey: string }

type SettingName = keyof typeof settings
type Value<K extends SettingName> = ReturnType<(typeof settings)[K]['parse']>

/** What {@link parseConfig} judges. */
export interface ConfigInput {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly options?: Options | undefined
  /** Where relative paths start; the working folder when absent. */
  readonly folder?: string
}

/** The networks of this machine itself: where the receivers of a developer live. */
const LOOPBACK = ['127.0.0.0/8', '::1/128']

/**
 * One frozen configuration from the environment and the options, which overrule it. An empty variable counts as unset.
 * @throws StartupError that names everything wrong at once, quotes what was given (never a secret) and says how to mend it.
 */
export function parseConfig({ env, options = {}, folder = process.cwd() }: ConfigInput): Config {
  const problems = [...unknownVariables(env), ...unknownOptions(options)]
  const unread = new Set<SettingName>()
  const attempt = <K extends SettingName>(key: K, judge: () => Value<K> | null): Value<K> | null => {
    try {
      return judge()
    } catch (error) {
      if (!(error instanceof StartupError)) throw error
      problems.push(error.message)
      unread.add(key)
      return null
    }
  }
  const environment = attempt('env', () => read('env', { env, options }, 'development'))
  const values = Object.fromEntries(
    Object.keys(settings)
      .filter((key) => key !== 'env')
      .map((key) => [key, attempt(key as SettingName, () => read(key as SettingName, { env, options }, environment ?? 'development'))]),
  ) as { [K in Exclude<SettingName, 'env'>]: Value<K> | null }
  problems.push(...conflicts({ ...values, env: environment }, unread))
  if (problems.length > 0) throw new StartupError(together(problems))

  const { databaseUrl, leaseSeconds, shutdownSeconds, holdDays, retentionDays, auditRetentionDays, ...rest } = values as {
    [K in Exclude<SettingName, 'env'>]: Value<K>
  }
  const database: Database = databaseUrl.kind === 'sqlite' ? { kind: 'sqlite', path: resolve(folder, databaseUrl.path) } : databaseUrl
  const development = environment === 'development'
  const config: Config = {
    ...rest,
    env: environment!,
    database,
    publicUrl: rest.publicUrl ?? (rest.port === 0 ? null : localUrl(rest.port)),
    callbackAllow: [...new Set([...(values.callbackAllow ?? []), ...(development ? LOOPBACK : [])])],
    corsOrigins: values.corsOrigins ?? [],
    responseExcerpts: values.responseExcerpts === 'on',
    configFile: resolve(folder, rest.configFile),
    threads: values.threads ?? Math.max(1, availableParallelism() - 1),
    leaseMs: leaseSeconds * 1000,
    shutdownMs: shutdownSeconds * 1000,
    holdMs: holdDays * 86_400_000,
    retentionMs: retentionDays * 86_400_000,
    auditRetentionMs: auditRetentionDays * 86_400_000,
    dataFolder: database.kind === 'sqlite' ? dirname(database.path) : join(folder, 'data'),
  }
  return frozen(config)
}

/** The configuration once the server listens: a port of 0, and the public URL that waited for it, are known. */
export function withPort<C extends Config>(config: C, port: number): C & { readonly publicUrl: string } {
  return frozen({ ...config, port, publicUrl: config.publicUrl ?? localUrl(port) })
}

const localUrl = (port: number): string => `http://127.0.0.1:${port}`

/** The value of one setting; null where nothing is given and nothing stands in for it. */
function read<K extends SettingName>(
  key: K,
  { env, options }: { env: ConfigInput['env']; options: Options },
  environment: Environment,
): Value<K> | null {
  const { variable, fallback, parse } = settings[key] as Setting<Value<K>>
  const option = options[key]
  const text = (option === undefined ? (env[variable] ?? '') : String(option)).trim()
  if (text !== '') return parse(text, option === undefined ? variable : `the option ${key}`)
  const standing = typeof fallback === 'string' || fallback === null ? fallback : fallback[environment]
  return standing === null ? null : parse(standing, variable)
}

type ParsedSettings = { [K in SettingName]: Value<K> | null }

/** What settings want of each other, in the order of the reference. Of one that could not be read, nothing is known but that it was given. */
function conflicts(
  { env, host, databaseUrl, publicUrl, adminToken, masterKey, masterKeyPrevious }: ParsedSettings,
  unread: ReadonlySet<SettingName>,
): string[] {
  const found: string[] = []
  const isUnset = (key: SettingName, value: unknown): boolean => value === null && !unread.has(key)
  const production = env === 'production'
  if (env === 'development' && host !== null && host !== '127.0.0.1')
    found.push(
      `RINGBACK_HOST is ${quoteInput(host)}, but development listens on 127.0.0.1 alone: leave RINGBACK_HOST unset, or set RINGBACK_ENV=production to be reached from other machines.`,
    )
  if (production && isUnset('publicUrl', publicUrl))
    found.push(
      'RINGBACK_PUBLIC_URL is not set, and production needs it: give the URL that clients reach, such as https://tasks.example.com',
    )
  if (production && isUnset('adminToken', adminToken))
    found.push('RINGBACK_ADMIN_TOKEN is not set, and production needs it: make one with: openssl rand -hex 24')
  const isKeyless = isUnset('masterKey', masterKey)
  if (isKeyless && (production || databaseUrl?.kind === 'postgres'))
    found.push(
      `RINGBACK_MASTER_KEY is not set, and ${production ? 'production' : 'PostgreSQL'} needs it: make one with: openssl rand -base64 32`,
    )
  else if (isKeyless && masterKeyPrevious !== null)
    found.push('RINGBACK_MASTER_KEY_PREVIOUS is set but RINGBACK_MASTER_KEY is not: set the key that follows it too.')
  if (masterKey !== null && masterKey === masterKeyPrevious)
    found.push('RINGBACK_MASTER_KEY and RINGBACK_MASTER_KEY_PREVIOUS are the same: set the previous one only while a new key takes over.')
  return found
}

function together(problems: readonly string[]): string {
  if (problems.length === 1) return problems[0]!
  return `${problems.length} settings are wrong:\n${problems.map((problem) => `- ${problem}`).join('\n')}`
}

function unknownVariables(env: ConfigInput['env']): string[] {
  const known = Object.values(settings).map(({ variable }): string => variable)
  return Object.keys(env)
    .filter((name) => name.startsWith('RINGBACK_') && !name.startsWith('RINGBACK_TEST_') && !known.includes(name))
    .map((name) => `${name} is no setting of Ringback: did you mean ${nearest(name, known)}? Rename it or unset it.`)
}

function unknownOptions(options: Options): string[] {
  const known = Object.keys(settings)
  return Object.keys(options)
    .filter((name) => !known.includes(name))
    .map((name) => `the option ${name} is none of Ringback's: did you mean ${nearest(name, known)}? Rename it or leave it out.`)
}

function nearest(name: string, known: readonly string[]): string {
  return known.reduce((best, it) => (distance(name, it) < distance(name, best) ? it : best))
}

/** Levenshtein's: insertions, deletions and replacements between two words. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    row = next
  }
  return row[b.length]!
}

function frozen<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) Object.values(Object.freeze(value)).forEach(frozen)
  return value
}

/**
 * The configuration with both its secrets. In development those not given are made once and kept in `dataFolder`; many starting at once end with the same.
 * @throws StartupError when a kept secret cannot be read or written, or is none.
 */
export function loadDevelopmentSecrets(config: Config, clock: Pick<Clock, 'bytes'>): SecuredConfig {
  const kept = (name: string, setting: Setting<string>, make: () => string): string => {
    const path = join(config.dataFolder, name)
    try {
      return setting.parse(createFileOnce(path, make, clock).trim(), path)
    } catch (error) {
      if (error instanceof StartupError) throw error
      throw new StartupError(`${path} cannot be kept (${(error as Error).message}): make its folder writable, or set ${setting.variable}.`)
    }
  }
  if (
    config.masterKey === null &&
    config.database.kind === 'sqlite' &&
    existsSync(config.database.path) &&
    !existsSync(join(config.dataFolder, 'master-key'))
  )
    throw new StartupError(
      `The database ${config.database.path} was sealed with a master key that is not beside it any more: restore ${join(config.dataFolder, 'master-key')}, or set RINGBACK_MASTER_KEY.`,
    )
  const random = (bytes: number, encoding: 'base64' | 'hex'): string => Buffer.from(clock.bytes(bytes)).toString(encoding)
  return frozen({
    ...config,
    masterKey: config.masterKey ?? kept('master-key', settings.masterKey, () => random(32, 'base64')),
    adminToken: config.adminToken ?? kept('admin-token', settings.adminToken, () => random(24, 'hex')),
  })
}

/** What the file at `path` holds; made of `make()` when there is none. Never seen half written, never replaced, and safe on disk before it is used. */
function createFileOnce(path: string, make: () => string, clock: Pick<Clock, 'bytes'>): string {
  const present = readFileIfExists(path)
  if (present !== null) return present
  const draft = draftOf(path, clock)
  try {
    writeSafely(draft, make())
    claimName(draft, path)
  } finally {
    rmSync(draft, { force: true })
  }
  syncFolder(dirname(path))
  return readFileSync(path, 'utf8')
}

/** Leaves `text` in the file at `path`, in place of what was there: whoever reads it sees all of the old or all of the new. */
export function replaceFileAtomically(path: string, text: string, clock: Pick<Clock, 'bytes'>): void {
  const draft = draftOf(path, clock)
  try {
    writeSafely(draft, text)
    renameSync(draft, path)
  } finally {
    rmSync(draft, { force: true })
  }
}

function draftOf(path: string, clock: Pick<Clock, 'bytes'>): string {
  mkdirSync(dirname(path), { recursive: true })
  return `${path}.${Buffer.from(clock.bytes(6)).toString('hex')}`
}

/** Renames `draft` to `path` unless somebody else was faster. `rename` alone would replace a key that another process has begun to use. */
function claimName(draft: string, path: string): void {
  try {
    linkSync(draft, path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') return
    // No hard links on this file system.
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS') throw error
    renameSync(draft, path)
  }
}

export function readFileIfExists(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

function writeSafely(path: string, text: string): void {
  const file = openSync(path, 'wx', 0o600)
  try {
    writeSync(file, `${text}\n`)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

function syncFolder(folder: string): void {
  const handle = openSync(folder, 'r')
  try {
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

/** The URL that opens the store: `file:<path>` or `postgres://…`. */
export const storeUrl = ({ database }: Pick<Config, 'database'>): string =>
  database.kind === 'sqlite' ? `file:${database.path}` : database.url
