/** `ringback serve` as a child process, its database, and helpers to call it. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text as readAll } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import pg from 'pg'
import { freshPostgres, freshSqlite } from './databases.ts'

const bin = fileURLToPath(new URL('../../bin/ringback.cjs', import.meta.url))
/** Halves what a start costs. */
const compileCache = join(tmpdir(), 'ringback-tests-compile-cache')
const taskTypes = fileURLToPath(new URL('./tasktypes.ts', import.meta.url))
const ADMIN_TOKEN = 'operator-of-the-tests-0123456789'

/** What a home needs of each database. */
export const databases = ['SQLite', 'PostgreSQL'] as const
export type DatabaseName = (typeof databases)[number]

/** A database, a folder to work in, and the servers that were started there. */
export interface Home {
  readonly databaseUrl: string
  /** Starts a server; it may be killed before it listens. */
  spawn(env?: Readonly<Record<string, string>>): Server
  /** Starts a server and waits until it listens. */
  start(env?: Readonly<Record<string, string>>): Promise<Server>
  /** Looks at the database itself, or changes it, past the server. */
  query<Row>(sql: string): Promise<readonly Row[]>
  /** Runs another command of `ringback` on the same database, as its operator would. */
  command(...args: readonly string[]): Promise<Ended>
  /** Every start of a handler so far. */
  runs(): readonly Run[]
  /** Kills what still runs and drops everything. */
  close(): Promise<void>
}
export interface Run {
  readonly taskId: string
  readonly generation: number
  readonly try: number
  readonly pid: number
}

/** How a command ended, and what it said. */
export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Server {
  readonly pid: number
  /** Where it listens; rejects when it ends before. */
  readonly listening: Promise<string>
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>
  kill(signal: NodeJS.Signals): void
  /** Whether {@link kill} was called while it ran. */
  isKilled(): boolean
  /** Everything it has said. */
  said(): string
  /** The lines of its log with that message. */
  // biome-ignore lint/suspicious/noExplicitAny: log lines have many shapes
  lines(message: string): any[]
}

export async function openHome(name: DatabaseName): Promise<Home> {
  const database = name === 'SQLite' ? freshSqlite() : await freshPostgres()
  const folder = mkdtempSync(join(tmpdir(), 'ringback-home-'))
  const ledger = join(folder, 'runs')
  const masterKey = randomBytes(32).toString('base64')
  const servers: Server[] = []
  const settings = {
    RINGBACK_CONFIG: taskTypes,
    RINGBACK_DATABASE_URL: database.url,
    RINGBACK_MASTER_KEY: masterKey,
    RINGBACK_ADMIN_TOKEN: ADMIN_TOKEN,
    RINGBACK_TEST_RUNS: ledger,
  }
  const home: Home = {
    databaseUrl: database.url,
    spawn(env = {}) {
      const server = spawnServer(folder, { ...settings, ...env })
      servers.push(server)
      return server
    },
    async start(env) {
      const server = home.spawn(env)
      await server.listening
      return server
    },
    query: (sql) => query(database.url, sql),
    command: (...args) => command(folder, settings, args),
    runs: () =>
      existsSync(ledger)
        ? readFileSync(ledger, 'utf8')
            .split('\n')
            .filter((line) => line !== '')
            .map((line): Run => {
              const [taskId, generation, tried, pid] = line.split(' ')
              return { taskId: taskId!, generation: Number(generation), try: Number(tried), pid: Number(pid) }
            })
        : [],
    async close() {
      for (const server of servers) server.kill('SIGKILL')
      await Promise.all(servers.map((server) => server.ended))
      if ('drop' in database) await database.drop()
      else database.remove()
      rmSync(folder, { recursive: true, force: true })
    },
  }
  return home
}

function spawnRingback(cwd: string, env: Readonly<Record<string, string>>, args: readonly string[]) {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('RINGBACK_'))
  return spawn(process.execPath, [bin, ...args], {
    cwd,
    env: { ...Object.fromEntries(inherited), NODE_COMPILE_CACHE: compileCache, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

async function command(cwd: string, env: Readonly<Record<string, string>>, args: readonly string[]): Promise<Ended> {
  const child = spawnRingback(cwd, env, args)
  const [stdout, stderr, code] = await Promise.all([
    readAll(child.stdout),
    readAll(child.stderr),
    new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve)),
  ])
  return { code, stdout, stderr }
}

function spawnServer(cwd: string, env: Readonly<Record<string, string>>): Server {
  const child = spawnRingback(cwd, env, ['serve', ...('RINGBACK_PORT' in env ? [] : ['--port', '0'])])
  const chunks: string[] = []
  const said = (): string => chunks.join('')
  let killed = false
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.once('error', reject)
    // Not `exit`: the last output must have been read.
    child.once('close', (code, signal) => resolve({ code, signal }))
  })
  const listening = new Promise<string>((resolve, reject) => {
    let unread = ''
    const look = (chunk: string): void => {
      unread += chunk
      const line = linesOf(unread).find((it) => it.includes('"msg":"listening"') && it.endsWith('}'))
      if (line === undefined) return
      child.stdout.removeListener('data', look)
      resolve(`http://127.0.0.1:${(JSON.parse(line) as { port: number }).port}`)
    }
    child.stdout.setEncoding('utf8').on('data', look)
    ended.then(() => reject(new Error(`the server ended before it listened: ${said()}`)), reject)
  })
  listening.catch(() => {})
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk))
  return {
    pid: child.pid!,
    listening,
    ended,
    kill(signal) {
      killed = child.kill(signal) || killed
    },
    isKilled: () => killed,
    said,
    lines: (message) =>
      linesOf(said())
        .filter((line) => line.endsWith('}') && line.includes(`"msg":${JSON.stringify(message)}`))
        .map((line) => JSON.parse(line)),
  }
}

/** Complete lines only: a truncated line may look complete. */
export const linesOf = (text: string): readonly string[] => text.split('\n').slice(0, -1)

async function query<Row>(url: string, sql: string): Promise<readonly Row[]> {
  if (url.startsWith('file:')) {
    const db = new Database(url.slice('file:'.length))
    try {
      const statement = db.prepare<[], Row>(sql)
      if (statement.reader) return statement.all()
      statement.run()
      return []
    } finally {
      db.close()
    }
  }
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query(sql)).rows as Row[]
  } finally {
    await client.end()
  }
}

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
  readonly json: any
}
export type Call = (method: string, path: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>

/** Calls a server with a key. `base` may change between calls: servers come and go. */
export function calling(base: string | (() => string), key: string, timeoutMs = 30_000): Call {
  return async (method, path, body, headers = {}) => {
    const response = await fetch((typeof base === 'string' ? base : base()) + path, {
      method,
      headers: { authorization: `Bearer ${key}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(timeoutMs),
    })
    const text = await response.text()
    const json = /json/.test(response.headers.get('content-type') ?? '') && text !== '' ? JSON.parse(text) : undefined
    return { status: response.status, headers: response.headers, text, json }
  }
}

/** A new client of the server at `base`, with a key. */
export async function newClient(base: string): Promise<{ readonly id: string; readonly key: string; readonly call: Call }> {
  const operator = calling(base, ADMIN_TOKEN)
  const { id } = (await ok(operator('POST', '/v1/clients', { name: 'test' }))).json
  const { key } = (await ok(operator('POST', `/v1/clients/${id}/keys`, {}))).json
  return { id, key, call: calling(base, key) }
}

/** A new key for workers of the server at `base`. */
export async function newWorkerKey(base: string, taskTypes?: readonly string[]): Promise<string> {
  const body = { name: 'worker', scopes: ['worker'], ...(taskTypes && { taskTypes }) }
  return (await ok(calling(base, ADMIN_TOKEN)('POST', '/v1/operator-keys', body))).json.key
}

/** The response. @throws when its status is 300 or above. */
export async function ok(answer: Promise<Answer>): Promise<Answer> {
  const given = await answer
  if (given.status >= 300) throw new Error(`answered ${given.status}: ${given.text}`)
  return given
}

/** What `look` gives as soon as it gives something; asked every `everyMs`, an error after `withinMs` that says what was last seen. */
export async function eventually<T>(
  what: string,
  look: () => T | null | undefined | false | Promise<T | null | undefined | false>,
  { withinMs = 45_000, everyMs = 25 } = {},
): Promise<T> {
  const end = performance.now() + withinMs
  for (;;) {
    const seen = await look()
    if (seen !== null && seen !== undefined && seen !== false) return seen
    if (performance.now() > end) throw new Error(`${what}: not within ${withinMs} ms`)
    await sleep(everyMs)
  }
}
