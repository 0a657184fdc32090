import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Config, loadDevelopmentSecrets, parseConfig, withPort } from '../../src/config/config.ts'
import { type Options, settings } from '../../src/config/settings.ts'
import { systemClock } from '../../src/core/clock.ts'
import { StartupError } from '../../src/core/errors.ts'

const KEY = Buffer.alloc(32, 7).toString('base64')
const OLD_KEY = Buffer.alloc(32, 8).toString('base64')
const production = {
  RINGBACK_ENV: 'production',
  RINGBACK_PUBLIC_URL: 'https://tasks.example.com',
  RINGBACK_ADMIN_TOKEN: 'a-token-of-23-characters',
  RINGBACK_MASTER_KEY: KEY,
}

const parse = (env: Record<string, string | undefined> = {}, options: Options = {}): Config =>
  parseConfig({ env, options, folder: '/srv/app' })

function refusal(env: Record<string, string | undefined>, options: Options = {}): string {
  try {
    parse(env, options)
  } catch (error) {
    expect(error).toBeInstanceOf(StartupError)
    return (error as StartupError).message
  }
  throw new Error('it was accepted')
}

describe('without any setting', () => {
  test('development is complete', () => {
    expect(parse()).toEqual({
      env: 'development',
      host: '127.0.0.1',
      port: 8484,
      database: { kind: 'sqlite', path: '/srv/app/data/ringback.db' },
      publicUrl: 'http://127.0.0.1:8484',
      adminToken: null,
      masterKey: null,
      masterKeyPrevious: null,
      leaseMs: 30_000,
      retrySchedule: [5, 30, 120, 600, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400],
      retentionMs: 7 * 86_400_000,
      auditRetentionMs: 400 * 86_400_000,
      holdMs: 14 * 86_400_000,
      endpointVerification: 'none',
      callbackAllow: ['127.0.0.0/8', '::1/128'],
      callbackHttp: true,
      callbackPorts: null,
      egressProxy: null,
      responseExcerpts: false,
      rateLimits: null,
      configFile: '/srv/app/ringback.config.ts',
      logLevel: 'info',
      concurrency: 50,
      threads: Math.max(1, availableParallelism() - 1),
      threadMemoryMb: 512,
      maxOpenTasks: 2_000_000,
      maxOpenTasksPerClient: 1_000_000,
      maxEndpointsPerClient: 1_000,
      maxSchedulesPerClient: 1_000,
      maxKeysPerClient: 1_000,
      dispatchConcurrency: 1024,
      shutdownMs: 25_000,
      bodyLimitBytes: 1_048_576,
      maxConnections: 16_384,
      corsOrigins: [],
      dataFolder: '/srv/app/data',
    })
  })

  test('an empty or blank variable counts as unset', () => {
    const blank = Object.fromEntries(Object.values(settings).map(({ variable }, i) => [variable, i % 2 ? '' : ' ']))
    expect(parse(blank)).toEqual(parse())
  })

  test('production refuses, and names its three required settings', () => {
    const said = refusal({ RINGBACK_ENV: 'production' })
    for (const name of ['RINGBACK_PUBLIC_URL', 'RINGBACK_ADMIN_TOKEN', 'RINGBACK_MASTER_KEY'])
      expect(said).toContain(`- ${name} is not set`)
  })
})

test('production listens on every address, requires ownership checks, and allows callbacks neither http nor this machine', () => {
  expect(parse(production)).toMatchObject({
    host: '0.0.0.0',
    publicUrl: 'https://tasks.example.com',
    endpointVerification: 'challenge',
    callbackHttp: false,
    callbackAllow: [],
    adminToken: production.RINGBACK_ADMIN_TOKEN,
    masterKey: KEY,
  })
})

test('the configuration is deeply frozen', () => {
  const config = parse({ RINGBACK_RATE_LIMITS: 'write=600/60' })
  const leaves = [
    config,
    config.database,
    config.retrySchedule,
    config.callbackAllow,
    config.corsOrigins,
    config.rateLimits,
    config.rateLimits?.write,
  ]
  for (const leaf of leaves) expect(Object.isFrozen(leaf)).toBe(true)
})

describe('what is accepted', () => {
  const accepted: readonly [Record<string, string>, Partial<Config>][] = [
    [{ RINGBACK_PORT: ' 65535 ' }, { port: 65_535 }],
    [{ RINGBACK_PORT: '0' }, { port: 0, publicUrl: null }],
    [{ RINGBACK_DATABASE_URL: 'file:x.db' }, { database: { kind: 'sqlite', path: '/srv/app/x.db' }, dataFolder: '/srv/app' }],
    [{ RINGBACK_DATABASE_URL: 'file:/var/lib/r.db' }, { database: { kind: 'sqlite', path: '/var/lib/r.db' }, dataFolder: '/var/lib' }],
    [{ RINGBACK_DATABASE_URL: 'file:///var/a%20b/r.db' }, { database: { kind: 'sqlite', path: '/var/a b/r.db' } }],
    [
      { RINGBACK_DATABASE_URL: 'postgresql://u:p@db:5432/r', RINGBACK_MASTER_KEY: KEY },
      { database: { kind: 'postgres', url: 'postgresql://u:p@db:5432/r' }, dataFolder: '/srv/app/data' },
    ],
    [{ RINGBACK_PUBLIC_URL: 'HTTPS://Tasks.example.com:443/ring/back' }, { publicUrl: 'https://tasks.example.com/ring/back' }],
    [{ RINGBACK_PUBLIC_URL: 'http://[::1]:8484' }, { publicUrl: 'http://[::1]:8484' }],
    [{ RINGBACK_LEASE_SECONDS: '3600' }, { leaseMs: 3_600_000 }],
    [{ RINGBACK_RETRY_SCHEDULE: '0, 86400' }, { retrySchedule: [0, 86_400] }],
    [{ RINGBACK_CALLBACK_ALLOW: '10.0.0.0/8, fd00:0::/8' }, { callbackAllow: ['10.0.0.0/8', 'fd00::/8', '127.0.0.0/8', '::1/128'] }],
    [{ RINGBACK_CALLBACK_ALLOW: '169.254.169.254/32' }, { callbackAllow: ['169.254.169.254/32', '127.0.0.0/8', '::1/128'] }],
    [{ RINGBACK_CALLBACK_HTTP: 'false' }, { callbackHttp: false }],
    [{ RINGBACK_RATE_LIMITS: 'off' }, { rateLimits: null }],
    [
      { RINGBACK_RATE_LIMITS: 'write=600/60,read=3000/60' },
      { rateLimits: { write: { limit: 600, windowSeconds: 60 }, read: { limit: 3000, windowSeconds: 60 } } },
    ],
    [{ RINGBACK_RATE_LIMITS: 'read=1/1' }, { rateLimits: { write: null, read: { limit: 1, windowSeconds: 1 } } }],
    [{ RINGBACK_SHUTDOWN_SECONDS: '0' }, { shutdownMs: 0 }],
    [{ RINGBACK_CORS_ORIGINS: 'https://a.example,http://localhost:3000' }, { corsOrigins: ['https://a.example', 'http://localhost:3000'] }],
    [{ RINGBACK_CORS_ORIGINS: '*' }, { corsOrigins: ['*'] }],
    [{ RINGBACK_CONFIG: 'tasks/all.ts' }, { configFile: '/srv/app/tasks/all.ts' }],
    [{ RINGBACK_TEST_POSTGRES_URL: 'anything' }, {}],
    [
      { RINGBACK_MASTER_KEY: KEY, RINGBACK_MASTER_KEY_PREVIOUS: OLD_KEY },
      { masterKey: KEY, masterKeyPrevious: OLD_KEY },
    ],
  ]
  test.each(accepted)('%o', (env, expected) => {
    expect(parse(env)).toMatchObject(expected)
  })
})

describe('what is refused, with a sentence that quotes it and says how to fix it', () => {
  const refused: readonly [Record<string, string>, string][] = [
    [{ RINGBACK_PORT: '65536' }, 'RINGBACK_PORT is "65536", but it must be a whole number from 0 to 65,535.'],
    [{ RINGBACK_PORT: '0x50' }, 'RINGBACK_PORT is "0x50", but it must be a whole number'],
    [{ RINGBACK_ENV: 'prod' }, 'RINGBACK_ENV is "prod", but it must be development or production.'],
    [{ RINGBACK_HOST: '0.0.0.0' }, 'RINGBACK_HOST is "0.0.0.0", but development listens on 127.0.0.1 alone'],
    [{ RINGBACK_HOST: '0.0.0.0' }, 'set RINGBACK_ENV=production'],
    [{ ...production, RINGBACK_HOST: 'http://x' }, 'RINGBACK_HOST is "http://x", but it must be an IP address or a host name'],
    [{ RINGBACK_DATABASE_URL: './x.db' }, 'RINGBACK_DATABASE_URL is "./x.db", but it must be file:… for SQLite'],
    [{ RINGBACK_DATABASE_URL: 'file::memory:' }, 'RINGBACK_DATABASE_URL is "file::memory:", but it must be file: and the path'],
    [{ RINGBACK_DATABASE_URL: 'file:' }, 'but it must be file: and the path'],
    [{ RINGBACK_DATABASE_URL: 'file:x.db?mode=ro' }, 'without "?" or "#"'],
    [{ RINGBACK_DATABASE_URL: 'file://server/x.db' }, 'the path of a file on this machine'],
    [{ RINGBACK_DATABASE_URL: 'file:///a%2Fb.db' }, 'the path of a file on this machine'],
    [{ RINGBACK_DATABASE_URL: 'postgres://u:p@db/r' }, 'RINGBACK_MASTER_KEY is not set, and PostgreSQL needs it'],
    [{ RINGBACK_PUBLIC_URL: 'https://t.example/' }, 'without the slash at its end: "https://t.example"'],
    [{ RINGBACK_PUBLIC_URL: 'https://t.example?' }, 'without query, fragment or user'],
    [
      { RINGBACK_PUBLIC_URL: 'tasks.example.com' },
      'RINGBACK_PUBLIC_URL is "tasks.example.com", but it must be an absolute http or https URL',
    ],
    [{ RINGBACK_PUBLIC_URL: 'ftp://t.example' }, 'absolute http or https URL'],
    [{ RINGBACK_LEASE_SECONDS: '0' }, 'from 1 to 3,600'],
    [{ RINGBACK_RETRY_SCHEDULE: '5,,30' }, 'RINGBACK_RETRY_SCHEDULE is "5,,30", but it must be 1 to 20 delays in seconds'],
    [{ RINGBACK_RETRY_SCHEDULE: '86401' }, '1 to 20 delays'],
    [{ RINGBACK_RETRY_SCHEDULE: Array(21).fill('1').join(',') }, '1 to 20 delays'],
    [{ RINGBACK_ENDPOINT_VERIFICATION: 'yes' }, 'RINGBACK_ENDPOINT_VERIFICATION is "yes", but it must be none or challenge.'],
    [{ RINGBACK_CALLBACK_ALLOW: '10.0.0.1' }, 'for that one address write 10.0.0.1/32'],
    [{ RINGBACK_CALLBACK_ALLOW: 'fd00::1' }, 'for that one address write fd00::1/128'],
    [{ RINGBACK_CALLBACK_ALLOW: '10.0.0.5/8' }, 'write 10.0.0.0/8'],
    [{ RINGBACK_CALLBACK_ALLOW: '10.0.0.0/33' }, 'holds "10.0.0.0/33", whose prefix length is not a whole number from 0 to 32'],
    [{ RINGBACK_CALLBACK_ALLOW: '0.0.0.0/0' }, 'holds "0.0.0.0/0", which is every address there is'],
    [{ RINGBACK_CALLBACK_ALLOW: '10.0.0.0/8,::/0' }, 'holds "::/0", which is every address there is'],
    [{ RINGBACK_CALLBACK_ALLOW: '127.1/8' }, 'holds "127.1/8", which is no address'],
    [{ RINGBACK_CALLBACK_ALLOW: '::ffff:10.0.0.0/104' }, 'write it as IPv4'],
    [{ RINGBACK_CALLBACK_ALLOW: 'internal' }, 'holds "internal", which is no address'],
    [{ RINGBACK_CALLBACK_HTTP: '1' }, 'RINGBACK_CALLBACK_HTTP is "1", but it must be true or false.'],
    [{ RINGBACK_RATE_LIMITS: 'write=600' }, 'RINGBACK_RATE_LIMITS is "write=600", but it must be off, or requests per seconds'],
    [{ RINGBACK_RATE_LIMITS: 'read=1/1,read=2/2' }, 'requests per seconds'],
    [{ RINGBACK_RATE_LIMITS: 'write=0/60' }, 'requests per seconds'],
    [{ RINGBACK_LOG_LEVEL: 'verbose' }, 'trace, debug, info, warn, error, fatal or silent'],
    [{ RINGBACK_BODY_LIMIT_BYTES: '1MiB' }, 'from 1,024 to 67,108,864'],
    [{ RINGBACK_CORS_ORIGINS: 'https://a.example/' }, 'RINGBACK_CORS_ORIGINS holds "https://a.example/", but it must be origins'],
    [{ RINGBACK_CORS_ORIGINS: '*,https://a.example' }, 'or * alone'],
    [{ RINGBACK_MASTER_KEY_PREVIOUS: KEY }, 'RINGBACK_MASTER_KEY is not'],
    [{ RINGBACK_MASTER_KEY: KEY, RINGBACK_MASTER_KEY_PREVIOUS: KEY }, 'are the same'],
  ]
  test.each(refused)('%o', (env, sentence) => {
    expect(refusal(env)).toContain(sentence)
  })

  test('all errors are reported at once', () => {
    const said = refusal({ RINGBACK_PORT: 'x', RINGBACK_LEASE_SECONDS: 'y', RINGBACK_PROT: '1' })
    expect(said.split('\n')).toEqual([
      '3 settings are wrong:',
      '- RINGBACK_PROT is no setting of Ringback: did you mean RINGBACK_PORT? Rename it or unset it.',
      expect.stringContaining('- RINGBACK_PORT is "x"'),
      expect.stringContaining('- RINGBACK_LEASE_SECONDS is "y"'),
    ])
  })

  test('missing settings are reported beside invalid ones, which do not count as missing', () => {
    const said = refusal({ RINGBACK_ENV: 'production', RINGBACK_PORT: 'x', RINGBACK_ADMIN_TOKEN: 'short' })
    expect(said.split('\n')).toEqual([
      '4 settings are wrong:',
      expect.stringContaining('- RINGBACK_PORT is "x"'),
      expect.stringContaining('- RINGBACK_ADMIN_TOKEN has 5 characters'),
      expect.stringContaining('- RINGBACK_PUBLIC_URL is not set'),
      expect.stringContaining('- RINGBACK_MASTER_KEY is not set'),
    ])
  })

  test('control characters are escaped and long values are cut', () => {
    expect(refusal({ RINGBACK_PORT: 'a\u001b[31m\nb' })).toContain(String.raw`is "a\u001b[31m\nb"`)
    expect(refusal({ RINGBACK_PORT: '9'.repeat(5000) }).length).toBeLessThan(250)
  })
})

describe('no refusal shows a secret', () => {
  const secret = 'hunter2hunter2'
  const leaky: readonly Record<string, string>[] = [
    { RINGBACK_ADMIN_TOKEN: secret },
    { RINGBACK_ADMIN_TOKEN: `${secret} with spaces in it` },
    { RINGBACK_MASTER_KEY: secret },
    { RINGBACK_MASTER_KEY_PREVIOUS: secret },
    { RINGBACK_MASTERKEY: secret },
    { RINGBACK_DATABASE_URL: `mysql://root:${secret}@db/r` },
    { RINGBACK_DATABASE_URL: `root:${secret}@db/r` },
    { RINGBACK_DATABASE_URL: `postgres://u:${secret}/x@db:port/r` },
    { RINGBACK_PUBLIC_URL: `https://u:${secret}@t.example` },
    { RINGBACK_CORS_ORIGINS: `https://u:${secret}@t.example` },
  ]
  test.each(leaky)('%o', (env) => {
    expect(refusal(env)).not.toContain('hunter2')
  })
})

describe('options of an application', () => {
  test('override the environment', () => {
    const options: Options = { port: 0, callbackAllow: ['10.0.0.0/8'], retrySchedule: [1, 2], callbackHttp: false, leaseSeconds: 5 }
    const env = { RINGBACK_PORT: '9000', RINGBACK_CALLBACK_HTTP: 'true' }
    expect(parse(env, options)).toMatchObject({ port: 0, retrySchedule: [1, 2], callbackHttp: false, leaseMs: 5000 })
    expect(parse(env, options).callbackAllow).toContain('10.0.0.0/8')
    expect(parse(env, { port: undefined }).port).toBe(9000)
  })

  test('are validated by the same rules, under their own names', () => {
    expect(refusal({}, { port: -1 })).toBe('the option port is "-1", but it must be a whole number from 0 to 65,535.')
    expect(refusal({}, { leaseSecond: 5 } as Options)).toContain('did you mean leaseSeconds?')
  })
})

test('once the server listens, the port chosen for 0 and the public URL are known', () => {
  const config = withPort(parse({ RINGBACK_PORT: '0' }), 40_123)
  expect(config).toMatchObject({ port: 40_123, publicUrl: 'http://127.0.0.1:40123' })
  expect(Object.isFrozen(config)).toBe(true)
  expect(withPort(parse({ RINGBACK_PORT: '0', RINGBACK_PUBLIC_URL: 'https://t.example' }), 40_123).publicUrl).toBe('https://t.example')
})

describe('the secrets of development', () => {
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ringback-config-'))
  })
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true })
  })
  const config = (env = {}): Config => parseConfig({ env, folder })

  test('are generated once, readable by their owner only, and read again later', () => {
    const first = loadDevelopmentSecrets(config(), systemClock())
    expect(Buffer.from(first.masterKey, 'base64')).toHaveLength(32)
    expect(first.adminToken.length).toBeGreaterThanOrEqual(16)
    expect(readdirSync(join(folder, 'data')).sort()).toEqual(['admin-token', 'master-key'])
    for (const name of ['admin-token', 'master-key']) expect(statSync(join(folder, 'data', name)).mode & 0o777).toBe(0o600)
    expect(loadDevelopmentSecrets(config(), systemClock())).toEqual(first)
  })

  test('are not generated when they are given', () => {
    const given = { RINGBACK_ADMIN_TOKEN: 'a-token-of-23-characters', RINGBACK_MASTER_KEY: KEY }
    expect(loadDevelopmentSecrets(config(given), systemClock())).toMatchObject({ adminToken: given.RINGBACK_ADMIN_TOKEN, masterKey: KEY })
    expect(readdirSync(folder)).toEqual([])
  })

  test('are refused when the file holds something else, without quoting it', () => {
    loadDevelopmentSecrets(config(), systemClock())
    writeFileSync(join(folder, 'data', 'master-key'), 'hunter2')
    expect(() => loadDevelopmentSecrets(config(), systemClock())).toThrow(StartupError)
    expect(() => loadDevelopmentSecrets(config(), systemClock())).toThrow(/master-key must be 32 bytes in base64(?!.*hunter2)/)
  })

  test('a folder that cannot be created gives an error sentence', () => {
    writeFileSync(join(folder, 'data'), 'a file where the folder should be')
    expect(() => loadDevelopmentSecrets(config(), systemClock())).toThrow(
      /cannot be stored .*make its folder writable, or set RINGBACK_MASTER_KEY/,
    )
  })

  test('many processes that start at once get the same secrets, and leave no drafts', async () => {
    const script = `
      import { loadDevelopmentSecrets, parseConfig } from ${JSON.stringify(new URL('../../src/config/config.ts', import.meta.url).href)}
      import { systemClock } from ${JSON.stringify(new URL('../../src/core/clock.ts', import.meta.url).href)}
      process.stdout.write('ready')
      process.stdin.once('data', () => {
        const { masterKey, adminToken } = loadDevelopmentSecrets(parseConfig({ env: {}, folder: ${JSON.stringify(folder)} }), systemClock())
        process.stdout.write('\\n' + masterKey + ' ' + adminToken)
        process.exit(0)
      })`
    const starts = Array.from({ length: 4 }, () => spawn(process.execPath, ['--input-type=module', '-e', script]))
    const said = starts.map(() => '')
    starts.forEach((start, i) => {
      start.stdout.on('data', (chunk) => {
        said[i] += chunk
      })
    })
    await Promise.all(starts.map((start) => once(start.stdout, 'data')))
    const ended = starts.map((start) => once(start, 'close'))
    for (const start of starts) start.stdin.write('go')
    await Promise.all(ended)
    expect(new Set(said).size).toBe(1)
    expect(said[0]).toMatch(/^ready\n\S{44} \S{48}$/)
    expect(readdirSync(join(folder, 'data')).sort()).toEqual(['admin-token', 'master-key'])
  })
})

describe('the reference', () => {
  const reference = readFileSync(fileURLToPath(new URL('../../docs/reference/config.md', import.meta.url)), 'utf8')
  const code = (text: string): string => `\`${text}\``
  const shown = ({ fallback, fallbackLabel: shown }: (typeof settings)[keyof typeof settings]): string => {
    if (shown) return shown
    if (typeof fallback === 'string') return code(fallback)
    if (fallback === null) return 'none'
    return `${code(fallback.development!)} in development, ${code(fallback.production!)} in production`
  }

  test('has one row for every setting, in the order of the table in the code, and no other', () => {
    const rows = Object.entries(settings).map(([option, it]) => `| ${code(it.variable)} | ${code(option)} | ${shown(it)} | ${it.meaning} |`)
    expect(reference.split('\n').filter((line) => line.startsWith('| `RINGBACK_'))).toEqual(rows)
  })
})
