import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { waitUntil } from './clock.ts'
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
      const server = launch(command, { core: site.placement.server, env, logFile: `${folder.path}/log`, cwd: root })
      const stop = async (): Promise<void> => {
        await server.stop()
        await store.close()
        folder.remove()
      }
      try {
        await awaitReady(server, port)
        return { ...(await openAccount(server, port, adminToken, site.receiverUrls)), storePid: store.pid, stop }
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
): Promise<Omit<RunningProduct, 'stop' | 'storePid'>> {
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
  const client = await call<{ id: string }>(adminToken, 'POST', '/v1/clients', { name: 'bench' })
  const { key } = await call<{ key: string }>(adminToken, 'POST', `/v1/clients/${client.id}/keys`, { name: 'bench' })
  const endpoints: Endpoint[] = []
  for (const url of urls) {
    const { id, secret } = await call<Endpoint>(key, 'POST', '/v1/endpoints', { url, maxInFlight: 100 })
    endpoints.push({ id, url, secret })
  }
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
    hasOpenDeliveries: () => hasAny('/v1/deliveries?status=pending,sending&limit=1'),
    pauseEndpoints: () => setAll('pause'),
    resumeEndpoints: () => setAll('resume'),
  }
}

export const ringbackSqlite = makeProduct('ringback-sqlite', 'Ringback on SQLite (synchronous=FULL)', async (_site, folder) => ({
  url: `file:${folder}/ringback.db`,
  pid: null,
  close: async () => {},
}))

export const ringbackPostgres = makeProduct('ringback-postgres', 'Ringback on PostgreSQL', async (site) => {
  const postgres = await site.postgres()
  return { url: await postgres.createDatabase('ringback'), pid: postgres.pid, close: () => postgres.dropDatabase('ringback') }
})

/** Waits until nothing is owed any more. Asked only when the receiver has everything, so that asking costs the contestant nothing. */
export const awaitRecorded = (running: Running): Promise<void> =>
  waitUntil('All deliveries are recorded', async () => !(await running.hasOpenDeliveries()), 10, 20_000)
