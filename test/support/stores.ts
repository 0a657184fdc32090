/** Stores for tests: a SQLite file with a manual clock, or a PostgreSQL database whose stored times can be shifted. */
import Database from 'better-sqlite3'
import { getTableColumns, getTableName } from 'drizzle-orm'
import pg from 'pg'
import { type Clock, systemClock } from '../../src/core/clock.ts'
import type { Millis } from '../../src/core/model.ts'
import type { Store } from '../../src/store/interfaces.ts'
import { migrate } from '../../src/store/migrate.ts'
import { bindStore, openStore } from '../../src/store/open.ts'
import { openPostgres } from '../../src/store/postgres.ts'
import { FOREVER } from '../../src/store/queue/fair-order.ts'
import * as tables from '../../src/store/schema.postgres.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { freshPostgres, freshSqlite } from './databases.ts'
import { manualClock } from './manual-clock.ts'
import { recordingDriver } from './statements.ts'

export type Engine = 'sqlite' | 'postgres'
export const engines = ['sqlite', 'postgres'] as const satisfies readonly Engine[]

/** A database, and the stores opened on it. */
export interface Ground {
  readonly engine: Engine
  readonly url: string
  readonly store: Store
  /** Another node on the same database. On SQLite, which has one owner, it is the same store. */
  anotherNode(): Promise<Store>
  /** Reads or changes the database directly, without the store. */
  sql<T = Record<string, unknown>>(text: string): Promise<T[]>
  /** Lets time pass for everything that is stored. */
  pass(ms: Millis): Promise<void>
  /** Empties the database, for the next test. */
  clear(): Promise<void>
  close(): Promise<void>
}

/** Delays before the retries of a delivery, in seconds. */
export const RETRY_SCHEDULE = [5, 30, 120]
const common = { publicUrl: () => 'https://tasks.example', retrySchedule: RETRY_SCHEDULE }

export interface GroundOptions {
  /** Lanes of deliveries begin with two in flight, as in production. Default: as many as their cap. */
  readonly slowStart?: boolean
  /** Receives the text of every statement that the stores run. */
  readonly texts?: Set<string> | undefined
}
export async function openGround(engine: Engine, { slowStart = false, texts }: GroundOptions = {}): Promise<Ground> {
  const ground = await (engine === 'sqlite' ? onSqlite(texts) : onPostgres(texts))
  if (!slowStart) for (const text of WARM[engine]) await ground.sql(text)
  return ground
}

const WARM = {
  sqlite: ['create trigger warm after insert on lanes begin update lanes set window_size = null where id = new.id; end'],
  postgres: [
    'create function warm() returns trigger language plpgsql as $$ begin new.window_size := null; return new; end $$',
    'create trigger warm before insert on lanes for each row execute function warm()',
  ],
} as const

/** Disables autovacuum: new statistics would change the plans in the middle of a test that compares them. */
export async function disableAutovacuum({ engine, sql }: Ground): Promise<void> {
  if (engine !== 'postgres') return
  for (const table of Object.values(tables)) await sql(`alter table ${getTableName(table)} set (autovacuum_enabled = false)`)
}

/** Gives PostgreSQL the statistics of tables that it analyzed while all rows except one were uncommitted: all pages, and one row. */
export async function analyzeMidWrite({ sql }: Ground): Promise<void> {
  await sql('analyze')
  await sql(`update pg_class set reltuples = 1 where relkind in ('r', 'i') and relnamespace = 'public'::regnamespace and relpages > 1`)
}

async function open(url: string, clock: Clock, texts: Set<string> | undefined): Promise<Store> {
  if (!texts) return await openStore({ ...common, url, clock })
  const driver = url.startsWith('file:') ? openSqlite(url.slice('file:'.length), clock) : await openPostgres(url, clock, () => {})
  await migrate(driver)
  return bindStore(recordingDriver(driver, texts), { ...common, clock }, () => {})
}

async function onSqlite(texts: GroundOptions['texts']): Promise<Ground> {
  const { url, remove } = freshSqlite()
  const clock = manualClock()
  const store = await open(url, clock, texts)
  const behind = new Database(url.slice('file:'.length))
  return {
    engine: 'sqlite',
    url,
    store,
    anotherNode: async () => store,
    async sql<T>(text: string) {
      const prepared = behind.prepare(text)
      if (prepared.reader) return prepared.all() as T[]
      prepared.run()
      return []
    },
    async pass(ms) {
      clock.advance(ms)
    },
    async clear() {
      behind.exec(EMPTY)
    },
    async close() {
      behind.close()
      await store.close()
      remove()
    },
  }
}

async function onPostgres(texts: GroundOptions['texts']): Promise<Ground> {
  const { url, drop } = await freshPostgres()
  const nodes: Store[] = []
  let given = 0
  const node = async (): Promise<Store> => {
    nodes[given] ??= await open(url, systemClock(), texts)
    return nodes[given++]!
  }
  const store = await node()
  // A pool of one queues statements itself: tests send several at once.
  const behind = new pg.Pool({ connectionString: url, max: 1, idleTimeoutMillis: 0 })
  return {
    engine: 'postgres',
    url,
    store,
    anotherNode: node,
    sql: async <T>(text: string) => (await behind.query(text)).rows as T[],
    async pass(ms) {
      await behind.query(shift(ms))
    },
    async clear() {
      await behind.query(EMPTY)
      given = 1
    },
    async close() {
      await Promise.all(nodes.map((each) => each.close()))
      await behind.end()
      await drop()
    },
  }
}

const EMPTY = Object.values(tables)
  .map((table) => `delete from ${getTableName(table)};`)
  .join('\n')

/** Moves every stored time into the past, as if time had passed. */
function shift(ms: Millis): string {
  const moments = Object.values(tables).map((table) => {
    const columns = Object.values(getTableColumns(table)).filter(
      (column) => column.dataType === 'number' && /(_at|_until|_by|_since)$|^(rank|turn|expire)$/.test(column.name),
    )
    const sets = columns.map(({ name }) => `${name} = case when ${name} between 1 and ${FOREVER - 1} then ${name} - ${ms} else ${name} end`)
    return sets.length === 0 ? '' : `update ${getTableName(table)} set ${sets.join(', ')};`
  })
  return moments.join('\n')
}
