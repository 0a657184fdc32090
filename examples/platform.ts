/** Starts a Ringback server on a free port, with a temporary database. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'

export interface Platform {
  readonly url: string
  /** An API key of a client that the start creates. */
  readonly key: string
  /** The database, for display. */
  readonly database: string
  /** Drains and stops the server and removes its data. */
  stop(): Promise<void>
}

const root = new URL('..', import.meta.url)

interface PlatformOptions {
  /** A PostgreSQL server where databases may be created. Default: SQLite. */
  readonly databaseUrl?: string
  /** The module with the task types. */
  readonly configFile?: string
  /** Its working folder and data. Default: a temporary folder. */
  readonly folder?: string
  readonly port?: number
}

/** Starts `ringback serve`, by default with the task types of `ringback.config.ts`. */
export async function startPlatform(options: PlatformOptions = {}): Promise<Platform> {
  const { databaseUrl = '', configFile = fileURLToPath(new URL('ringback.config.ts', root)), port = 0 } = options
  const database = databaseUrl.startsWith('postgres') ? await createDatabase(databaseUrl) : null
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'ringback-'))
  const cleanUp = async (): Promise<void> => {
    await database?.drop()
    if (!options.folder) rmSync(folder, { recursive: true, force: true })
  }
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('RINGBACK_')))
  const serving = spawn(process.execPath, [fileURLToPath(new URL('bin/ringback.cjs', root)), 'serve'], {
    cwd: folder,
    env: {
      ...env,
      RINGBACK_PORT: String(port),
      RINGBACK_LOG_LEVEL: 'warn',
      RINGBACK_CONFIG: configFile,
      ...(database && { RINGBACK_DATABASE_URL: database.url, RINGBACK_MASTER_KEY: randomBytes(32).toString('base64') }),
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(serving, 'exit')
  let said = ''
  const welcome = new Promise<{ url: string; key: string }>((resolve) => {
    serving.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text
      const [, url] = /ready at (\S+)/.exec(said) ?? []
      const [, key] = /KEY=(rb_\S+)\n/.exec(said) ?? []
      if (url && key) resolve({ url, key })
    })
  })
  const started = await Promise.race([welcome, ended])
  if (!('key' in started)) {
    await cleanUp()
    throw new Error(`ringback serve ended with code ${started[0]} before it was ready. ${said}`)
  }
  return {
    ...started,
    database: database ? `PostgreSQL, database ${database.name}` : `SQLite, in ${folder}`,
    async stop() {
      serving.kill('SIGTERM')
      await ended
      await cleanUp()
    },
  }
}

async function createDatabase(server: string): Promise<{ name: string; url: string; drop(): Promise<void> }> {
  const name = `ringback_${randomBytes(6).toString('hex')}`
  const command = async (sql: string): Promise<void> => {
    const client = new pg.Client({ connectionString: server })
    await client.connect()
    await client.query(sql).finally(() => client.end())
  }
  await command(`create database ${name}`)
  const url = new URL(server)
  url.pathname = `/${name}`
  return { name, url: url.href, drop: () => command(`drop database if exists ${name} with (force)`) }
}
