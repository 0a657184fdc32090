/** Memories of handled events: one promise, kept in this process and in both databases. */
import { readFileSync } from 'node:fs'
import Database from 'better-sqlite3'
import pg from 'pg'
import { afterEach, describe, expect, test } from 'vitest'
import { memorySeen, type SeenIds, sqlSeen } from '../../src/receiver/index.ts'
import { freshPostgres, freshSqlite } from '../support/databases.ts'

/** The statements of the how-to, as they stand. */
const [UPSERT, TABLE] = [
  ...readFileSync(new URL('../../docs/how-to/verify-a-webhook.md', import.meta.url), 'utf8').matchAll(/```sql\n([\s\S]*?)```/g),
].map(([, sql]) => sql!) as [string, string]

const endings: (() => unknown)[] = []
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end()
})

function openPool(url: string, max = 10): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max })
  // The pool ends before its sockets do: dropping the database may still cut one.
  pool.on('error', () => {})
  return pool
}

const memories: Record<string, () => Promise<SeenIds>> = {
  'in this process': async () => memorySeen(),
  'in SQLite': async () => {
    const { url, remove } = freshSqlite()
    const db = new Database(url.slice('file:'.length))
    endings.push(remove, () => db.close())
    db.exec(TABLE)
    return sqlSeen((sql, values) => db.prepare(sql).all(...values), { placeholders: '?' })
  },
  'in PostgreSQL': async () => {
    const { url, drop } = await freshPostgres()
    const pool = openPool(url, 8)
    endings.push(drop, () => pool.end())
    await pool.query(TABLE)
    return sqlSeen(async (sql, values) => (await pool.query(sql, values)).rows)
  },
}

describe.each(Object.entries(memories))('a memory %s', (_where, open) => {
  test('gives an id to one claim, is busy until it ends, and then reports it as handled', async () => {
    const seen = await open()
    expect(await seen.claim('event_1', 1_000, 1_060)).toBe('new')
    expect(await seen.claim('event_1', 1_001, 1_061)).toBe('busy')
    expect(await seen.claim('event_2', 1_001, 1_061)).toBe('new')
    await seen.commit('event_1', 3_000_000)
    expect(await seen.claim('event_1', 1_002, 1_062)).toBe('handled')
    expect(await seen.claim('event_2', 1_002, 1_062)).toBe('busy')
  })

  test('gives a released id to the next claim', async () => {
    const seen = await open()
    await seen.claim('event_1', 1_000, 1_060)
    await seen.release('event_1', 1_060)
    expect(await seen.claim('event_1', 1_001, 1_061)).toBe('new')
  })

  test('gives an id with an expired claim to the next, which the former claim cannot release or undo', async () => {
    const seen = await open()
    await seen.claim('event_1', 1_000, 1_060)
    expect(await seen.claim('event_1', 1_059, 1_119)).toBe('busy')
    expect(await seen.claim('event_1', 1_060, 1_120)).toBe('new')
    await seen.release('event_1', 1_060)
    expect(await seen.claim('event_1', 1_061, 1_121)).toBe('busy')
    await seen.commit('event_1', 5_000)
    await seen.release('event_1', 1_120)
    await seen.release('event_1', 5_000)
    expect(await seen.claim('event_1', 1_062, 1_122)).toBe('handled')
  })

  test('drops expired ids', async () => {
    const seen = await open()
    await seen.claim('event_1', 1_000, 1_060)
    await seen.commit('event_1', 2_000)
    expect(await seen.claim('event_1', 1_999, 2_059)).toBe('handled')
    expect(await seen.claim('event_1', 2_000, 2_060)).toBe('new')
  })

  test('stores a handled id whose claim was lost meanwhile', async () => {
    const seen = await open()
    await seen.commit('event_1', 5_000)
    expect(await seen.claim('event_1', 1_000, 1_060)).toBe('handled')
  })

  test('gives an id to one of many concurrent claims', async () => {
    const seen = await open()
    for (let round = 0; round < 5; round++) {
      const claims = await Promise.all(Array.from({ length: 20 }, () => seen.claim(`event_${round}`, 1_000, 1_060)))
      expect(claims.sort()).toEqual([...Array(19).fill('busy'), 'new'])
    }
  })
})

test('memorySeen stores at most its limit of ids, and drops the oldest first', async () => {
  const seen = memorySeen({ most: 2 })
  for (const id of ['event_1', 'event_2', 'event_3']) {
    await seen.claim(id, 1_000, 1_060)
    await seen.commit(id, 5_000)
  }
  expect(await seen.claim('event_3', 1_001, 1_061)).toBe('handled')
  expect(await seen.claim('event_2', 1_001, 1_061)).toBe('handled')
  expect(await seen.claim('event_1', 1_001, 1_061)).toBe('new')
  for (const most of [0, -1, 1.5, Number.NaN]) expect(() => memorySeen({ most })).toThrow(/whole number of ids/)
})

test('a table in a schema is used, and a name that is not plain is refused', async () => {
  const { url, drop } = await freshPostgres()
  const pool = openPool(url)
  endings.push(drop, () => pool.end())
  await pool.query(`create schema mine; ${TABLE.replace('webhooks_seen', 'mine.ids')}`)
  const seen = sqlSeen(async (sql, values) => (await pool.query(sql, values)).rows, { table: 'mine.ids' })
  expect(await seen.claim('event_1', 1_000, 1_060)).toBe('new')
  await seen.commit('event_1', 5_000)
  await seen.release('event_1', 5_000)
  expect((await pool.query('select * from mine.ids')).rows).toEqual([{ id: 'event_1', handled: 1, until_seconds: '5000' }])
  expect(() => sqlSeen(() => [], { table: 'ids; drop table tasks' })).toThrow(/plain name/)
})

describe('without seen ids, the statement of the how-to applies the highest revision of each generation once', () => {
  const TASKS = 'create table tasks_of_mine (id text, generation integer, revision integer, status text, primary key (id, generation))'
  const ROWS = 'select generation, revision, status from tasks_of_mine order by generation'
  /** As webhooks may come: late, twice, and from an earlier life of the task. */
  const events = [
    ['task_1', 1, 2, 'running'],
    ['task_1', 1, 5, 'failed'],
    ['task_1', 1, 3, 'running'],
    ['task_1', 2, 9, 'completed'],
    ['task_1', 1, 5, 'failed'],
    ['task_1', 2, 7, 'running'],
  ]
  const changes = [1, 1, 0, 1, 0, 0]
  const rows = [
    { generation: 1, revision: 5, status: 'failed' },
    { generation: 2, revision: 9, status: 'completed' },
  ]

  test('in SQLite', () => {
    const db = new Database(':memory:')
    endings.push(() => db.close())
    db.exec(TASKS)
    const upsert = db.prepare(UPSERT.replace(/\$\d/g, '?'))
    expect(events.map((event) => upsert.run(...event).changes)).toEqual(changes)
    expect(db.prepare(ROWS).all()).toEqual(rows)
  })

  test('in PostgreSQL', async () => {
    const { url, drop } = await freshPostgres()
    const pool = openPool(url)
    endings.push(drop, () => pool.end())
    await pool.query(TASKS)
    const changed: (number | null)[] = []
    for (const event of events) changed.push((await pool.query(UPSERT, event)).rowCount)
    expect(changed).toEqual(changes)
    expect((await pool.query(ROWS)).rows).toEqual(rows)
  })
})
