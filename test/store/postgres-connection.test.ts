/** PostgreSQL as a server that comes and goes. */

import { sql } from 'drizzle-orm'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import { writePriority } from '../../src/store/driver.ts'
import { openPostgres } from '../../src/store/postgres.ts'
import { first, query, type Script } from '../../src/store/script.ts'
import { freshPostgres } from '../support/databases.ts'
import { until } from '../support/engine.ts'
import { openGround } from '../support/stores.ts'
import { addClient, addEndpoint, addTask, claimTasks, completed } from '../support/work.ts'

const one = function* (): Script<unknown> {
  return yield* first(query(() => sql`select 1 as one`))
}

test('a connection that breaks in the middle of a transaction fails that transaction, and nothing else', async () => {
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
  // The commit of the first stands still once its event is written and has its place.
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
  expect(seen, 'nothing is shown that something may yet come before').toEqual([])
  expect(isSecondDone).toBe(false)
  const third = await ground.anotherNode()
  expect((await third.tasks.settle(completed(foreign!))).kind, 'nobody else waits for them').toBe('settled')
  expect(await store.events.list({ clientId: other, after: 0, limit: 10 })).toHaveLength(1)

  await gate.query(`select pg_advisory_unlock(${LOCK})`)
  for (const settled of await Promise.all([first, second])) expect(settled.kind).toBe('settled')
  await read()
  expect(seen).toEqual([
    { seq: 1, taskId: slow!.id },
    { seq: 2, taskId: quick!.id },
  ])
})

test('a page of deliveries takes no minute where PostgreSQL looked at the table while most of its rows were being written', async () => {
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
