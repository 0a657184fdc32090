/** The configuration: the environment and the options of an application, validated together at the start, as one frozen object. */
import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import type { Clock } from '../core/clock.ts'
import { StartupError } from '../core/errors.ts'
import type { Millis } from '../core/model.ts'
import { createFileOnce } from './files.ts'
import { type Database, quoteInput } from './parsers.ts'
import { type Environment, type Options, type Parsed, type Setting, type SettingName, type Settings, settings } from './settings.ts'

/** Settings that the configuration holds under another name, in another unit or with a default that depends on the machine. */
type Converted = 'databaseUrl' | 'responseExcerpts' | 'callbackAllow' | 'corsOrigins' | 'threads' | `${string}Seconds` | `${string}Days`

/** The configuration: frozen, and complete except for the two secrets that {@link loadDevelopmentSecrets} adds. */
export interface Config extends Omit<Settings, Converted> {
  /** A path in it is absolute. */
  readonly database: Database
  readonly leaseMs: Millis
  readonly holdMs: Millis
  readonly retentionMs: Millis
  readonly auditRetentionMs: Millis
  readonly shutdownMs: Millis
  /** In development the loopback networks are among them. */
  readonly callbackAllow: readonly string[]
  readonly responseExcerpts: boolean
  readonly threads: number
  /** `*` alone is every origin; an empty list turns CORS off. */
  readonly corsOrigins: readonly string[]
  /** Folder of the files that development generates: that of the SQLite database, otherwise `./data`. Absolute. */
  readonly dataFolder: string
}

/** A configuration with both its secrets: what the platform starts from. */
export type SecuredConfig = Config & { readonly adminToken: string; readonly masterKey: string }

/** The input of {@link parseConfig}. */
export interface ConfigInput {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly options?: Options | undefined
  /** Base of relative paths. Default: the working folder. */
  readonly folder?: string
}

/** The networks of this machine: the receivers of a developer run there. */
const LOOPBACK = ['127.0.0.0/8', '::1/128']

/**
 * Makes the configuration of the environment and the options. An option overrides its variable; an empty variable counts as unset.
 * @throws StartupError that lists every error, quotes each value (never a secret) and says how to fix it.
 */
export function parseConfig({ env, options = {}, folder = process.cwd() }: ConfigInput): Config {
  const problems = [...unknownVariables(env), ...unknownOptions(options)]
  const unread = new Set<SettingName>()
  const tryRead = <K extends SettingName>(key: K, environment: Environment): Parsed<K> | null => {
    try {
      return readSetting(key, { env, options }, environment)
    } catch (error) {
      if (!(error instanceof StartupError)) throw error
      problems.push(error.message)
      unread.add(key)
      return null
    }
  }
  const environment = tryRead('env', 'development')
  const { env: _, ...others } = settings
  const entries = Object.keys(others).map((key) => [key, tryRead(key as SettingName, environment ?? 'development')])
  const values = { ...Object.fromEntries(entries), env: environment } as ParsedSettings
  problems.push(...conflicts(values, unread))
  if (problems.length > 0) throw new StartupError(joinProblems(problems))

  const { databaseUrl, leaseSeconds, shutdownSeconds, holdDays, retentionDays, auditRetentionDays, ...rest } = values as Settings
  const database: Database = databaseUrl.kind === 'sqlite' ? { kind: 'sqlite', path: resolve(folder, databaseUrl.path) } : databaseUrl
  return deepFreeze<Config>({
    ...rest,
    database,
    publicUrl: rest.publicUrl ?? (rest.port === 0 ? null : localUrl(rest.port)),
    callbackAllow: [...new Set([...(rest.callbackAllow ?? []), ...(environment === 'development' ? LOOPBACK : [])])],
    corsOrigins: rest.corsOrigins ?? [],
    responseExcerpts: rest.responseExcerpts === 'on',
    configFile: resolve(folder, rest.configFile),
    threads: rest.threads ?? Math.max(1, availableParallelism() - 1),
    leaseMs: leaseSeconds * 1000,
    shutdownMs: shutdownSeconds * 1000,
    holdMs: holdDays * 86_400_000,
    retentionMs: retentionDays * 86_400_000,
    auditRetentionMs: auditRetentionDays * 86_400_000,
    dataFolder: database.kind === 'sqlite' ? dirname(database.path) : join(folder, 'data'),
  })
}

/** The configuration once the server listens: with the port that the system chose for 0, and the public URL that depends on it. */
export function withPort<C extends Config>(config: C, port: number): C & { readonly publicUrl: string } {
  return deepFreeze({ ...config, port, publicUrl: config.publicUrl ?? localUrl(port) })
}

const localUrl = (port: number): string => `http://127.0.0.1:${port}`

/** The value of one setting; null where it is not given and has no default. */
function readSetting<K extends SettingName>(
  key: K,
  { env, options }: { env: ConfigInput['env']; options: Options },
  environment: Environment,
): Parsed<K> | null {
  const { variable, fallback, parse } = settings[key] as Setting<Parsed<K>>
  const option = options[key]
  const text = (option === undefined ? (env[variable] ?? '') : String(option)).trim()
  if (text !== '') return parse(text, option === undefined ? variable : `the option ${key}`)
  const standing = typeof fallback === 'object' ? (fallback?.[environment] ?? null) : fallback
  return standing === null ? null : parse(standing, variable)
}

/** Null: not given, or not readable. */
type ParsedSettings = { readonly [K in SettingName]: Parsed<K> | null }

/** Errors between settings, in the order of the reference. A setting that could not be read counts as given. */
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

function joinProblems(problems: readonly string[]): string {
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
    .map((name) => `the option ${name} does not exist: did you mean ${nearest(name, known)}? Rename it or leave it out.`)
}

function nearest(name: string, known: readonly string[]): string {
  return known.reduce((best, it) => (distance(name, it) < distance(name, best) ? it : best))
}

/** The Levenshtein distance: insertions, deletions and replacements. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    row = next
  }
  return row[b.length]!
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) Object.values(Object.freeze(value)).forEach(deepFreeze)
  return value
}

/**
 * Adds both secrets. In development a missing one is generated once and stored in `dataFolder`; processes that start at the same time get the same one.
 * @throws StartupError when a stored secret cannot be read or written, or is not valid.
 */
export function loadDevelopmentSecrets(config: Config, clock: Pick<Clock, 'bytes'>): SecuredConfig {
  const stored = (name: string, setting: Setting<string>, make: () => string): string => {
    const path = join(config.dataFolder, name)
    try {
      return setting.parse(createFileOnce(path, make, clock).trim(), path)
    } catch (error) {
      if (error instanceof StartupError) throw error
      throw new StartupError(
        `${path} cannot be stored (${(error as Error).message}): make its folder writable, or set ${setting.variable}.`,
      )
    }
  }
  const { database, masterKey, adminToken } = config
  const keyFile = join(config.dataFolder, 'master-key')
  if (masterKey === null && database.kind === 'sqlite' && existsSync(database.path) && !existsSync(keyFile))
    throw new StartupError(
      `The database ${database.path} was encrypted with a master key whose file is missing: restore ${keyFile}, or set RINGBACK_MASTER_KEY.`,
    )
  const random = (bytes: number, encoding: 'base64' | 'hex'): string => Buffer.from(clock.bytes(bytes)).toString(encoding)
  return deepFreeze({
    ...config,
    masterKey: masterKey ?? stored('master-key', settings.masterKey, () => random(32, 'base64')),
    adminToken: adminToken ?? stored('admin-token', settings.adminToken, () => random(24, 'hex')),
  })
}

/** The URL that opens the store: `file:<path>` or `postgres://…`. */
export const storeUrl = ({ database }: Pick<Config, 'database'>): string =>
  database.kind === 'sqlite' ? `file:${database.path}` : database.url
