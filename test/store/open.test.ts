/** Opening a store: migrations, the owner, and a full disk. */
import { statSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import { sql } from 'drizzle-orm'
import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import { writePriority } from '../../src/store/driver.ts'
import type { Store } from '../../src/store/interfaces.ts'
import { migrateStore, openStore } from '../../src/store/open.ts'
import { query, type Script } from '../../src/store/script.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { freshPostgres, freshSqlite } from '../support/databases.ts'
import { manualClock } from '../support/manual-clock.ts'
import { startProcess } from '../support/process.ts'
import { openReceiver } from '../support/receiver.ts'
import { type Engine, engines } from '../support/stores.ts'
import { addClient, addTask, findTask } from '../support/work.ts'

const HOLDER = new URL('../support/holder.ts', import.meta.url)
const STARVED = new URL('../support/starved.ts', import.meta.url)
const FILLER = new URL('../support/filler.ts', import.meta.url)

async function freshUrl(engine: Engine): Promise<string> {
  if (engine === 'sqlite') {
    const { url, remove } = freshSqlite()
    onTestFinished(remove)
    return url
  }
  const { url, drop } = await freshPostgres()
  onTestFinished(drop)
  return url
}
async function open(url: string, owner = false): Promise<Store> {
  const store = await openStore({ url, clock: systemClock(), publicUrl: () => '', retrySchedule: [], exclusive: owner })
  onTestFinished(() => store.close().catch(() => {}))
  return store
}
test('a new database file and the files beside it are readable by their user only', async () => {
  const url = await freshUrl('sqlite')
  await addClient(await open(url))
  for (const beside of ['', '-wal', '-shm']) expect(statSync(`${url.slice('file:'.length)}${beside}`).mode & 0o777, beside).toBe(0o600)
})
async function run(url: string, text: string): Promise<void> {
  if (url.startsWith('file:')) {
    const db = new Database(url.slice('file:'.length))
    db.exec(text)
    db.close()
    return
  }
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(text)
  await client.end()
}

describe.each(engines)('opening a store on %s', (engine) => {
  test.runIf(engine === 'sqlite')('four processes that start at once on an empty database migrate it once', async () => {
    const url = await freshUrl(engine)
    const started = Array.from({ length: 4 }, () => startProcess(HOLDER, [url, 'guest']))
    expect(await Promise.all(started.map((each) => each.line()))).toEqual(Array(4).fill({ opened: true, keys: 0 }))
    for (const { child } of started) child.stdin!.end()
    await Promise.all(started.map(({ ended }) => ended))
    expect(await migrateStore({ url, clock: systemClock() }), 'nothing is left to apply').toBe(0)
  })

  test('four stores that start at once in one process migrate it once, and each reads what another writes', async () => {
    const url = await freshUrl(engine)
    const [first, ...others] = await Promise.all([open(url), open(url), open(url), open(url)])
    const { id } = await addTask(first!, { clientId: await addClient(first!) })
    for (const store of others) expect((await findTask(store, id)).state).toBe('pending')
  })

  test('a store migrated by a newer program is refused with a sentence and does not change', async () => {
    const url = await freshUrl(engine)
    expect(await migrateStore({ url, clock: systemClock() })).toBeGreaterThan(0)
    await run(url, `insert into migrations (hash, made_at) values ('of a newer version', 9000000000000)`)
    await expect(open(url)).rejects.toMatchObject({
      name: 'StartupError',
      message: expect.stringMatching(/newer version of Ringback.*upgrade/),
    })
    await run(url, `delete from migrations where hash = 'of a newer version'`)
    await open(url)
  })

  test('a closed store answers every read and write with 503', async () => {
    const store = await open(await freshUrl(engine))
    const clientId = await addClient(store)
    await store.close()
    const unavailable = { code: 'temporary_reduced_capacity', status: 503 }
    await expect(addTask(store, { clientId })).rejects.toMatchObject(unavailable)
    await expect(store.access.findClient(clientId)).rejects.toMatchObject(unavailable)
  })
})

describe('opening a store', () => {
  test.each([
    ['mysql://localhost/x', /neither file:<path> nor postgres/],
    ['postgres://nobody:x@127.0.0.1:1/none', /does not answer/],
    [`file:${fileURLToPath(import.meta.url)}/under/a/file.db`, /cannot be created/],
  ])('%s is refused with a sentence', async (url, message) => {
    await expect(open(url)).rejects.toMatchObject({ name: 'StartupError', message: expect.stringMatching(message) })
  })

  test('a file that is not a database is refused with a sentence, and the lock is released', async () => {
    const url = await freshUrl('sqlite')
    writeFileSync(url.slice('file:'.length), 'this is not a database'.repeat(100))
    await expect(open(url, true)).rejects.toMatchObject({ name: 'StartupError', message: expect.stringContaining('cannot be opened') })
    await expect(open(url, true)).rejects.toMatchObject({ message: expect.stringContaining('cannot be opened') })
  })
})

describe('the owner of a SQLite store', () => {
  test('is the only one, in this process and in others; other stores may open it without owning it', async () => {
    const url = await freshUrl('sqlite')
    const owner = await open(url, true)
    await expect(open(url, true)).rejects.toMatchObject({
      name: 'StartupError',
      message: expect.stringContaining('another process serves'),
    })
    expect(await startProcess(HOLDER, [url, 'owner']).line()).toMatchObject({ opened: false, name: 'StartupError' })
    expect(await startProcess(HOLDER, [url, 'guest']).line()).toMatchObject({ opened: true })
    await owner.close()
    await open(url, true)
  })

  test('that is killed releases the store', async () => {
    const url = await freshUrl('sqlite')
    const { child, line, ended } = startProcess(HOLDER, [url, 'owner'])
    expect(await line()).toMatchObject({ opened: true })
    await expect(open(url, true)).rejects.toMatchObject({ name: 'StartupError' })
    child.kill('SIGKILL')
    await ended
    await open(url, true)
  })
})

describe('a full disk under SQLite', () => {
  test.runIf(process.platform === 'linux')('is answered with 503; nothing is half done, and it goes on when there is room', async () => {
    const url = await freshUrl('sqlite')
    const { line } = startProcess(FILLER, [url, String(2 * 1024 * 1024)])
    const told = (await line()) as { stored: string[]; refused: string[]; reasons: string[]; storedAgain: number; settled: string }
    expect(told.reasons).toEqual(['503 temporary_reduced_capacity'])
    expect(told.stored.length).toBeGreaterThan(10)
    expect(told.storedAgain).toBe(4)
    expect(told.settled).toBe('settled')
    const store = await open(url)
    expect((await store.tasks.findMany(told.stored)).map(({ id }) => id)).toEqual(told.stored)
    expect(await store.tasks.findMany(told.refused), 'what was refused is not there').toEqual([])
    const db = new Database(url.slice('file:'.length), { readonly: true })
    expect(db.pragma('integrity_check', { simple: true })).toBe('ok')
    db.close()
  })

  test.runIf(process.platform === 'linux')(
    'keeps what ends meanwhile: it is settled once there is room, no try is lost, nothing is sent twice, and readyz says so',
    async () => {
      const receiver = await openReceiver()
      onTestFinished(() => receiver.close())
      receiver.answer(() => ({ status: 200, afterMs: receiver.arrivals.length === 1 ? 2_000 : 0 }))
      const url = await freshUrl('sqlite')
      const told = await startProcess(STARVED, [url, `${receiver.url}/hooks`]).line()
      expect(told).toEqual({
        statuses: [202, 503],
        full: {
          status: 503,
          checks: { store: expect.stringContaining('takes no writes'), scheduler: 'ok', dispatcher: 'ok' },
          task: 'running',
        },
        again: 200,
        lost: 0,
        tasks: [
          { status: 'completed', tries: 1 },
          { status: 'completed', tries: 1 },
        ],
        deliveries: [
          { status: 'delivered', tries: 1, attempts: 1 },
          { status: 'delivered', tries: 1, attempts: 1 },
        ],
        runs: 2,
      })
      expect(receiver.arrivals).toHaveLength(2)
    },
  )

  test('between two operations of one group: each is done and acknowledged, or not done and refused', async () => {
    const { url, remove } = freshSqlite()
    onTestFinished(remove)
    const driver = openSqlite(url.slice('file:'.length), manualClock())
    onTestFinished(() => driver.close())
    const write = (text: () => ReturnType<typeof sql>) =>
      driver.write(writePriority.other, function* (): Script<void> {
        yield query(text)
      })
    const most = (pages: number) => write(() => sql.raw(`pragma max_page_count = ${pages}`))
    await write(() => sql`create table things (name text, body blob)`)
    await most(40)
    const put = (name: string, bytes: number) => write(() => sql`insert into things values (${name}, zeroblob(${bytes}))`)
    const names = ['small', 'too large', 'small again', 'half', 'one byte']
    const sizes = [10, 1_000_000, 10, 60_000, 1]
    const answers = await Promise.allSettled(names.map((name, i) => put(name, sizes[i]!)))
    const kept = new Set(
      await driver.read(
        (function* () {
          return ((yield query(() => sql`select name from things`)) as unknown as { name: string }[]).map(({ name }) => name)
        })(),
      ),
    )
    expect(kept.has('too large')).toBe(false)
    for (const [i, { status }] of answers.entries())
      expect([names[i], status]).toEqual([names[i], kept.has(names[i]!) ? 'fulfilled' : 'rejected'])
    await most(1_000)
    await put('too large', 1_000_000)
  })
})
