/** PostgreSQL as a server that comes and goes. */

import { sql } from 'drizzle-orm'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../src/clock.ts'
import { order } from '../src/store/driver.ts'
import { openPostgres } from '../src/store/postgres.ts'
import { first, query, type Script } from '../src/store/script.ts'
import { freshPostgres } from './support/databases.ts'
import { until } from './support/engine.ts'

const one = function* (): Script<unknown> {
  return yield* first(query(() => sql`select 1 as one`))
}

test('a connection that breaks in the middle of a transaction fails that transaction, and nothing else', { timeout: 20_000 }, async () => {
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
    driver.write(order.other, function* (): Script<void> {
      yield query(() => sql`select pg_sleep(60)`)
    }),
  ).rejects.toThrow('terminat')
  await until(async () => (await behind.query(`select 1 ${sleeping}`)).rowCount === 1)
  await behind.query(`select pg_terminate_backend(pid) ${sleeping}`)
  await broken
  expect(await driver.write(order.other, one)).toEqual({ one: 1 })
})
