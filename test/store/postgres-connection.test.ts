/** A PostgreSQL server that ends connections, or does not answer. */
import { sql } from 'drizzle-orm'
import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import { writePriority } from '../../src/store/driver.ts'
import type { Store } from '../../src/store/interfaces.ts'
import { openStore } from '../../src/store/open.ts'
import { openPostgres } from '../../src/store/postgres.ts'
import { first, query, type Script } from '../../src/store/script.ts'
import { type Cable, openCable } from '../support/cable.ts'
import { freshPostgres } from '../support/databases.ts'
import { until } from '../support/engine.ts'
import { startPostgres } from '../support/postgres.ts'
import { openGround } from '../support/stores.ts'
import { addClient, addEndpoint, addTask, claimTasks, completed } from '../support/work.ts'

const one = function* (): Script<unknown> {
  return yield* first(query(() => sql`select 1 as one`))
}

test('a connection that is lost in the middle of a transaction fails that transaction only', async () => {
  const { url, drop } = await freshPostgres()
  const driver = await openPostgres(url, systemClock(), () => {})
  const behind = new pg.Client({ connectionString: url })
  await behind.connect()
  onTestFinished(async () => {
    await driver.close()
    await behind.end()
    await drop()
  })
  const sleeping = `from pg_stat_activity where datname = current_database() and query like '%pg_sleep(60)%' and pid <> pg_backend_pid()`
  const broken = expect(
    driver.write(writePriority.other, function* (): Script<void> {
      yield query(() => sql`select pg_sleep(60)`)
    }),
  ).rejects.toThrow('terminat')
  await until(async () => (await behind.query(`select 1 ${sleeping}`)).rowCount === 1)
  await behind.query(`select pg_terminate_backend(pid) ${sleeping}`)
  await broken
  expect(await driver.write(writePriority.other, one)).toEqual({ one: 1 })
})

const UNAVAILABLE = { name: 'RingbackError', code: 'temporary_reduced_capacity', status: 503, headers: { 'retry-after': '5' } }

/** A client that stays connected while others lose their connections. */
async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  onTestFinished(() => client.end().catch(() => {}))
  return client
}
async function openThrough(url: string): Promise<Store> {
  const store = await openStore({ url, clock: systemClock(), publicUrl: () => '', retrySchedule: [] })
  onTestFinished(() => store.close().catch(() => {}))
  return store
}

describe('a read whose connection is lost in the middle', () => {
  /** A read that waits for a lock on the table of tasks, and the client that holds the lock. */
  async function startRead() {
    const { url, drop } = await freshPostgres()
    onTestFinished(drop)
    const cable = await openCable(url)
    onTestFinished(() => cable.close())
    const store = await openThrough(cable.url)
    const { id } = await addTask(store, { clientId: await addClient(store) })
    // Fills the pool: its idle connections are lost together with that of the read.
    await Promise.all(Array.from({ length: 10 }, () => store.tasks.find(id, null)))
    const locker = await connected(url)
    await locker.query('begin; lock table tasks in access exclusive mode')
    // Outside the transaction, which would see one snapshot of the activity only.
    const behind = await connected(url)
    const read = store.tasks.find(id, null)
    read.catch(() => {})
    const waiting = `from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    await until(async () => (await behind.query(`select 1 ${waiting}`)).rowCount === 1)
    return { id, cable, behind, read, waiting, unlock: () => locker.query('rollback') }
  }
  type Loss = (given: { cable: Cable; behind: pg.Client; waiting: string }) => unknown
  const losses: readonly (readonly [string, Loss])[] = [
    ['closed', ({ cable }) => cable.cut('end')],
    ['reset', ({ cable }) => cable.cut('reset')],
    ['terminated by an administrator', ({ behind, waiting }) => behind.query(`select pg_terminate_backend(pid) ${waiting}`)],
    ['canceled by the server', ({ behind, waiting }) => behind.query(`select pg_cancel_backend(pid) ${waiting}`)],
  ]

  test.each(losses)('is repeated once and succeeds: %s', async (_, lose) => {
    const { id, cable, behind, read, waiting, unlock } = await startRead()
    await lose({ cable, behind, waiting })
    cable.repair()
    await unlock()
    expect(await read).toMatchObject({ kind: 'found', value: { id } })
  })

  test('is repeated no second time: it answers 503', async () => {
    const { behind, read, waiting, unlock } = await startRead()
    const [first] = (await behind.query(`select pid, pg_terminate_backend(pid) ${waiting}`)).rows
    await until(async () => (await behind.query(`select 1 ${waiting} and pid <> ${first.pid}`)).rowCount === 1)
    await behind.query(`select pg_terminate_backend(pid) ${waiting}`)
    await expect(read).rejects.toMatchObject(UNAVAILABLE)
    await unlock()
  })
})

test('a read answers 503 while no connection can be opened, and reads succeed again afterwards', async () => {
  const { url, drop } = await freshPostgres()
  onTestFinished(drop)
  const cable = await openCable(url)
  onTestFinished(() => cable.close())
  const store = await openThrough(cable.url)
  const clientId = await addClient(store)
  cable.cut()
  for (let n = 0; n < 3; n++) await expect(store.access.findClient(clientId)).rejects.toMatchObject(UNAVAILABLE)
  await expect(addTask(store, { clientId }), 'a write').rejects.toMatchObject(UNAVAILABLE)
  cable.repair()
  expect(await store.access.findClient(clientId)).toMatchObject({ id: clientId })
})

test('a read answers 503 when the server refuses connections, and when it is gone', async () => {
  const server = await startPostgres()
  let stopped: Promise<void> | undefined
  const stop = () => (stopped ??= server.stop())
  onTestFinished(stop)
  const admin = await connected(server.url)
  await admin.query('create database app')
  await admin.query('create role node login')
  await admin.query('alter database app owner to node')
  const url = new URL(server.url)
  url.pathname = '/app'
  url.username = 'node'
  const store = await openThrough(url.href)
  const clientId = await addClient(store)
  const read = () => store.access.findClient(clientId)
  const disconnect = () => admin.query(`select pg_terminate_backend(pid) from pg_stat_activity where datname = 'app'`)
  const refusals = [
    ['alter database app connection limit 0', 'alter database app connection limit -1'],
    ['alter database app allow_connections false', 'alter database app allow_connections true'],
    ['alter role node nologin', 'alter role node login'],
    ['alter database app rename to other', 'alter database other rename to app'],
  ] as const
  for (const [refuse, allow] of refusals) {
    // No connection may be opened between the two.
    if (refuse.includes('rename')) await admin.query('alter role node nologin').then(disconnect)
    await until(async () => (await admin.query(refuse).catch(() => null)) !== null)
    if (refuse.includes('rename')) await admin.query('alter role node login')
    await disconnect()
    await expect(read(), refuse).rejects.toMatchObject(UNAVAILABLE)
    await admin.query(allow)
    expect(await read(), allow).toMatchObject({ id: clientId })
  }
  const reads = Promise.allSettled(Array.from({ length: 20 }, read))
  await stop()
  for (const answer of await reads)
    if (answer.status === 'rejected') expect(answer.reason).toMatchObject(UNAVAILABLE)
    else expect(answer.value).toMatchObject({ id: clientId })
  for (let n = 0; n < 3; n++) await expect(read()).rejects.toMatchObject(UNAVAILABLE)
})

test('only errors of the connection or the server mean that the database is unavailable', async () => {
  const { url, drop } = await freshPostgres()
  const driver = await openPostgres(url, systemClock(), () => {})
  onTestFinished(async () => {
    await driver.close()
    await drop()
  })
  const client = new pg.Client({ connectionString: url, query_timeout: 100, ...{ pipeline: true } })
  client.on('error', () => {})
  await client.connect()
  const errorOf = async (promise: Promise<unknown>): Promise<unknown> => await promise.then(() => null).catch((error: unknown) => error)
  for (const text of ['select', 'select 1 / 0', 'select * from nothing', `select 'a'::int`])
    expect(driver.isUnavailable(await errorOf(client.query(text))), text).toBe(false)
  const timeout = await errorOf(client.query('select pg_sleep(10)'))
  expect([driver.isUnavailable(timeout), String(timeout)]).toEqual([true, expect.stringContaining('Query read timeout')])
  expect(driver.isUnavailable(await errorOf(client.query('select 1'))), 'the connection has ended').toBe(true)
  const refused = await errorOf(new pg.Client('postgres://127.0.0.1:1/none').connect())
  expect(driver.isUnavailable(refused), String(refused)).toBe(true)
  for (const fault of [new TypeError('no function'), new SyntaxError('timeout'), new Error('no value'), null])
    expect(driver.isUnavailable(fault), String(fault)).toBe(false)
})

test('a feed reader skips nothing while a transaction that has its place in the feed is still open', async () => {
  const ground = await openGround('postgres')
  const { store, sql } = ground
  const node = await ground.anotherNode()
  const gate = new pg.Client({ connectionString: ground.url })
  await gate.connect()
  onTestFinished(async () => {
    await gate.end()
    await ground.close()
  })
  const [clientId, other] = [await addClient(store), await addClient(store)]
  const made = [await addTask(store, { clientId }), await addTask(store, { clientId }), await addTask(store, { clientId: other })]
  const claimed = new Map((await claimTasks(store)).map((task) => [task.id, task]))
  const [slow, quick, foreign] = made.map(({ id }) => claimed.get(id)!)
  // The first transaction waits after its event has its position.
  const LOCK = 4_711
  await gate.query(`select pg_advisory_lock(${LOCK})`)
  await sql(
    `create function hold() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(${LOCK}); return null; end $$`,
  )
  await sql(`create trigger hold after insert on events for each row when (new.task_id = '${slow!.id}') execute function hold()`)
  const waiting = async (kind: string): Promise<boolean> =>
    (await sql(`select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and ${kind}`)).length === 1
  const first = store.tasks.settle(completed(slow!))
  await until(() => waiting(`wait_event = 'advisory'`))
  // Another node ends another task of the same client, and one of another client.
  let isSecondDone = false
  const second = node.tasks.settle(completed(quick!)).finally(() => {
    isSecondDone = true
  })
  await until(() => waiting(`wait_event <> 'advisory'`))

  const seen: { readonly seq: number; readonly taskId: string | null }[] = []
  const read = async (): Promise<void> => {
    const events = await store.events.list({ clientId, after: seen.at(-1)?.seq ?? 0, limit: 10 })
    seen.push(...events.map(({ seq, taskId }) => ({ seq, taskId })))
  }
  await read()
  expect(seen, 'no event is shown before one that may still get an earlier position').toEqual([])
  expect(isSecondDone).toBe(false)
  const third = await ground.anotherNode()
  expect((await third.tasks.settle(completed(foreign!))).kind, 'other clients do not wait for them').toBe('settled')
  expect(await store.events.list({ clientId: other, after: 0, limit: 10 })).toHaveLength(1)

  await gate.query(`select pg_advisory_unlock(${LOCK})`)
  for (const settled of await Promise.all([first, second])) expect(settled.kind).toBe('settled')
  await read()
  expect(seen).toEqual([
    { seq: 1, taskId: slow!.id },
    { seq: 2, taskId: quick!.id },
  ])
})

test('a page of deliveries is quick although PostgreSQL analyzed the table before most of its rows were committed', async () => {
  const ground = await openGround('postgres')
  const { store, sql } = ground
  const writer = new pg.Client({ connectionString: ground.url })
  await writer.connect()
  onTestFinished(async () => {
    await writer.end()
    await ground.close()
  })
  const clientId = await addClient(store)
  const endpointId = await addEndpoint(store, { clientId })
  await addTask(store, { clientId })
  await store.tasks.settle(completed((await claimTasks(store, { limit: 1 }))[0]!))
  const columns =
    'client_id, lane_id, line, rank, due_at, tries, max_tries, fence, event_id, event_type, task_id, endpoint_id, trigger, updated_at'
  await writer.query('begin')
  await writer.query(`insert into deliveries (id, state, created_at, ${columns})
    select 'delivery_hay_' || n, 'completed', created_at + n, ${columns} from deliveries, generate_series(100001, 110500) s(n)`)
  await sql('analyze deliveries')
  await writer.query('commit')
  const wanted = { clientId, states: ['pending'], limit: 10 } as const
  for (const place of [{}, { endpointId }]) {
    const { items, next } = await store.deliveries.list({ ...wanted, ...place, after: null })
    expect([items, next]).toEqual([[], expect.anything()])
    expect((await store.deliveries.list({ ...wanted, ...place, after: next })).items).toHaveLength(1)
  }
}, 20_000)
