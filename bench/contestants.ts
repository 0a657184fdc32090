import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import Database from 'better-sqlite3'
import pg from 'pg'
import { monotonicMs, waitUntil } from './clock.ts'
import type { PostgresServer } from './postgres.ts'
import { awaitReady, findFreePort, type Launched, launch, makeFolder, type Placement } from './process.ts'
import { findRedis, startRedis } from './redis.ts'

/** Where a contestant runs and whom it calls. */
export interface Site {
  readonly placement: Placement
  readonly receiverUrls: readonly string[]
  /** Starts the shared PostgreSQL at the first call. */
  readonly postgres: () => Promise<PostgresServer>
}

export interface Endpoint {
  readonly id: string
  readonly url: string
  readonly secret: string
}

/** A contestant, started on an empty store. */
export interface Running {
  readonly server: Launched
  /** Its database server; null: none, or none of ours. */
  readonly storePid: number | null
  readonly port: number
  /** What `POST /v1/tasks` needs. */
  readonly headers: Readonly<Record<string, string>>
  readonly endpoints: readonly Endpoint[]
  /** Deliveries (of a peer: tasks and deliveries) that have not ended. */
  hasOpenDeliveries(): Promise<boolean>
  stop(): Promise<void>
}

/** The product can hold deliveries back as well. */
export interface RunningProduct extends Running {
  hasOpenTasks(): Promise<boolean>
  pauseEndpoints(): Promise<void>
  resumeEndpoints(): Promise<void>
  addEndpoint(url: string): Promise<Endpoint>
  /** Calls the API with the client's key. */
  call<R>(method: string, path: string, body?: object): Promise<R>
  /** Calls the API with the key of a client of its own. */
  addClient(): Promise<RunningProduct['call']>
  /** Looks at the store, or changes it, behind the product's back. */
  query<R = unknown>(sql: string): Promise<readonly R[]>
  /** When its process was launched, on the monotonic clock. */
  readonly launchedAt: number
  /** Lets the store do now what it would do in the minutes after a bulk load. */
  tidy(): Promise<void>
}

/** A peer whose settings trade one for the other is given its best ones for each bench. */
export type Aim = 'throughput' | 'latency'

export interface Contestant<R extends Running = Running> {
  readonly name: string
  readonly title: string
  /** A sentence, when it cannot run on this machine. */
  readonly missing: () => string | null
  start(site: Site, aim: Aim): Promise<R>
}

const fileUrl = (name: string): string => new URL(name, import.meta.url).pathname
const root = fileUrl('..')
const node = (file: string): string[] => [process.execPath, fileUrl(file)]
const makeSecret = (): string => `whsec_${randomBytes(24).toString('base64')}`

/** Hono alone: the limit of intake. */
export const bareHono: Contestant = {
  name: 'bare-hono',
  title: 'bare Hono handler, nothing stored',
  missing: () => null,
  async start({ placement }) {
    const folder = makeFolder()
    const port = await findFreePort()
    const env = { NODE_ENV: 'production', BENCH_PORT: String(port) }
    const server = launch(node('limit-intake.ts'), { core: placement.server, env, logFile: `${folder.path}/log` })
    await awaitReady(server, port)
    const stop = async (): Promise<void> => {
      await server.stop()
      folder.remove()
    }
    return { server, storePid: null, port, headers: {}, endpoints: [], hasOpenDeliveries: async () => false, stop }
  },
}

function makePeer(file: string, title: string, missing: () => string | null, store: (site: Site) => Promise<PeerStore>): Contestant {
  const name = file.replace('.ts', '')
  return {
    name,
    title,
    missing: () =>
      existsSync(fileUrl('peers/node_modules')) ? missing() : 'the peers are not installed: run `npm ci --prefix bench/peers` first',
    async start(site, aim) {
      const { env: storeEnv, pid: storePid, stop: stopStore } = await store(site)
      const folder = makeFolder()
      const port = await findFreePort()
      const key = randomBytes(24).toString('base64url')
      const endpoints = site.receiverUrls.map((url, i) => ({ id: `endpoint_${i}`, url, secret: makeSecret() }))
      const env = {
        NODE_ENV: 'production',
        NO_LOG_SUCCESS: '1',
        BENCH_PORT: String(port),
        BENCH_KEY: key,
        BENCH_ENDPOINTS: JSON.stringify(endpoints),
        BENCH_AIM: aim,
        ...storeEnv,
      }
      const server = launch(node(`peers/${file}`), { core: site.placement.server, env, logFile: `${folder.path}/log` })
      const stop = async (): Promise<void> => {
        await server.stop()
        await stopStore()
        folder.remove()
      }
      await awaitReady(server, port).catch(async (error) => {
        await stop()
        throw error
      })
      const hasOpenDeliveries = async (): Promise<boolean> => {
        const { open } = (await (await fetch(`http://127.0.0.1:${port}/open`)).json()) as { open: number }
        return open > 0
      }
      return { server, storePid, port, headers: { authorization: `Bearer ${key}` }, endpoints, hasOpenDeliveries, stop }
    },
  }
}

interface PeerStore {
  readonly pid: number | null
  readonly env: Readonly<Record<string, string>>
  stop(): Promise<void>
}

async function useRedis({ placement }: Site): Promise<PeerStore> {
  const redis = await startRedis(placement.server)
  return { env: { BENCH_REDIS_PORT: String(redis.port) }, pid: redis.pid, stop: redis.stop }
}

const usePostgres =
  (name: string) =>
  async (site: Site): Promise<PeerStore> => {
    const postgres = await site.postgres()
    return { env: { BENCH_POSTGRES_URL: await postgres.createDatabase(name) }, pid: postgres.pid, stop: () => postgres.dropDatabase(name) }
  }

const redisMissing = (): string | null => (findRedis() === null ? 'there is no redis-server on the path' : null)

export const bullmq = makePeer('bullmq.ts', 'Hono + BullMQ 6 + Redis (everysec)', redisMissing, useRedis)
export const pgBoss = makePeer('pg-boss.ts', 'Hono + pg-boss 12 + PostgreSQL', () => null, usePostgres('pg-boss'))
export const graphileWorker = makePeer(
  'graphile-worker.ts',
  'Hono + graphile-worker 0.18 + PostgreSQL',
  () => null,
  usePostgres('graphile'),
)

interface ProductStore {
  readonly url: string
  readonly pid: number | null
  query<R = unknown>(sql: string): Promise<readonly R[]>
  tidy(): Promise<void>
  close(): Promise<void>
}

function makeProduct(name: string, title: string, openStore: (site: Site, folder: string) => Promise<ProductStore>) {
  const contestant: Contestant<RunningProduct> = {
    name,
    title,
    missing: () => (existsSync(`${root}bin/ringback.cjs`) ? null : 'bin/ringback.cjs is not there'),
    async start(site) {
      const folder = makeFolder()
      const store = await openStore(site, folder.path)
      const port = await findFreePort()
      const adminToken = randomBytes(24).toString('base64url')
      const env = {
        NODE_ENV: 'production',
        RINGBACK_ENV: 'development',
        RINGBACK_PORT: String(port),
        RINGBACK_PUBLIC_URL: `http://127.0.0.1:${port}`,
        RINGBACK_DATABASE_URL: store.url,
        RINGBACK_ADMIN_TOKEN: adminToken,
        RINGBACK_MASTER_KEY: randomBytes(32).toString('base64'),
        RINGBACK_CONFIG: fileUrl('ringback.config.ts'),
        // As many as the peers have, and no line in the log for each job, as they have none.
        RINGBACK_LOG_LEVEL: 'warn',
        RINGBACK_CONCURRENCY: '200',
      }
      const command = [process.execPath, 'bin/ringback.cjs', 'serve']
      const launchedAt = monotonicMs()
      const server = launch(command, { core: site.placement.server, env, logFile: `${folder.path}/log`, cwd: root })
      const stop = async (): Promise<void> => {
        await server.stop()
        await store.close()
        folder.remove()
      }
      try {
        await awaitReady(server, port)
        return {
          ...(await openAccount(server, port, adminToken, site.receiverUrls)),
          launchedAt,
          storePid: store.pid,
          query: store.query,
          tidy: store.tidy,
          stop,
        }
      } catch (error) {
        await stop()
        throw error
      }
    },
  }
  return contestant
}

/** One client with a key, and an endpoint for each URL. */
async function openAccount(
  server: Launched,
  port: number,
  adminToken: string,
  urls: readonly string[],
): Promise<Omit<RunningProduct, 'stop' | 'storePid' | 'launchedAt' | 'query' | 'tidy'>> {
  const call = async <R>(token: string, method: string, path: string, body?: object): Promise<R> => {
    const headers = { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
    })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path} answered ${answer.status}: ${text}\n${server.logTail()}`)
    return (text === '' ? null : JSON.parse(text)) as R
  }
  const newKey = async (): Promise<string> => {
    const client = await call<{ id: string }>(adminToken, 'POST', '/v1/clients', { name: 'bench' })
    return (await call<{ key: string }>(adminToken, 'POST', `/v1/clients/${client.id}/keys`, { name: 'bench' })).key
  }
  const key = await newKey()
  const addEndpoint = async (url: string): Promise<Endpoint> => {
    const { id, secret } = await call<Endpoint>(key, 'POST', '/v1/endpoints', { url, maxInFlight: 100 })
    return { id, url, secret }
  }
  const endpoints: Endpoint[] = []
  for (const url of urls) endpoints.push(await addEndpoint(url))
  const hasAny = async (path: string): Promise<boolean> => (await call<{ data: unknown[] }>(key, 'GET', path)).data.length > 0
  const setAll = async (verb: 'pause' | 'resume'): Promise<void> => {
    await Promise.all(endpoints.map(({ id }) => call(key, 'POST', `/v1/endpoints/${id}/${verb}`)))
  }
  return {
    server,
    port,
    endpoints,
    headers: { authorization: `Bearer ${key}` },
    hasOpenTasks: () => hasAny('/v1/tasks?status=pending,running&limit=1'),
    async hasOpenDeliveries() {
      for (const { id } of endpoints) if (await hasAny(`/v1/deliveries?endpointId=${id}&status=pending,sending&limit=1`)) return true
      return false
    },
    pauseEndpoints: () => setAll('pause'),
    resumeEndpoints: () => setAll('resume'),
    addEndpoint,
    call: (method, path, body) => call(key, method, path, body),
    async addClient() {
      const another = await newKey()
      return (method, path, body) => call(another, method, path, body)
    },
  }
}

export const ringbackSqlite = makeProduct('ringback-sqlite', 'Ringback on SQLite (synchronous=FULL)', async (_site, folder) => {
  const query = async <R>(sql: string): Promise<readonly R[]> => {
    const database = new Database(`${folder}/ringback.db`, { timeout: 10_000 })
    try {
      const statement = database.prepare<[], R>(sql)
      if (statement.reader) return statement.all()
      statement.run()
      return []
    } finally {
      database.close()
    }
  }
  return {
    url: `file:${folder}/ringback.db`,
    pid: null,
    query,
    tidy: async () => void (await query('pragma wal_checkpoint(truncate)')),
    close: async () => {},
  }
})

export const ringbackPostgres = makeProduct('ringback-postgres', 'Ringback on PostgreSQL', async (site) => {
  const postgres = await site.postgres()
  const url = await postgres.createDatabase('ringback')
  const query = async <R>(sql: string): Promise<readonly R[]> => {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    return (await client.query(sql).finally(() => client.end())).rows as R[]
  }
  const tidy = async (): Promise<void> => {
    await query('vacuum (analyze) deliveries')
    await query('vacuum (analyze) tasks')
    await query('checkpoint')
  }
  return { url, pid: postgres.pid, query, tidy, close: () => postgres.dropDatabase('ringback') }
})

/** Waits until nothing is owed any more. Asked only when the receiver has everything, so that asking costs the contestant nothing. */
export const awaitRecorded = (running: Running): Promise<void> =>
  waitUntil('All deliveries are recorded', async () => !(await running.hasOpenDeliveries()), 10, 20_000)
