/** Both databases have the same tables. Rows have the types of the model, otherwise `tsc` fails. */
import { getTableColumns, getTableName } from 'drizzle-orm'
import { type PgTable, getTableConfig as postgresConfig } from 'drizzle-orm/pg-core'
import { getTableConfig as sqliteConfig } from 'drizzle-orm/sqlite-core'
import { describe, expect, expectTypeOf, test } from 'vitest'
import type { ApiKey, Attempt, AuditEntry, Client, Delivery, Endpoint, Event, SigningKey, Task } from '../../src/core/model.ts'
import * as postgres from '../../src/store/schema.postgres.ts'
import * as sqlite from '../../src/store/schema.sqlite.ts'

type Tables<Schema extends Record<string, { $inferSelect: unknown }>> = { [Name in keyof Schema]: Schema[Name]['$inferSelect'] }
type Rows = Tables<typeof sqlite>

describe('the schemas', () => {
  test('have the same tables, and each kind of column has its PostgreSQL type', () => {
    expect(Object.keys(postgres).sort()).toEqual(Object.keys(sqlite).sort())
    const types = (table: PgTable) =>
      Object.fromEntries(Object.values(getTableColumns(table)).map((column) => [column.name, column.getSQLType()]))
    expect(types(postgres.tasks)).toMatchObject({
      id: 'text',
      due_at: 'bigint',
      rank: 'bigint',
      tries: 'integer',
      progress: 'double precision',
    })
    expect(types(postgres.turns)).toMatchObject({ seq: 'bigserial', turn: 'bigint', alarm_at: 'bigint' })
    expect(types(postgres.lanes)).toMatchObject({ succeeded_at: 'bigint', failures: 'integer' })
    const { succeededAt, failures } = getTableColumns(postgres.lanes)
    expect([succeededAt!.default, failures!.default]).toEqual([0, 0])
  })

  test('have the rows of the model', () => {
    expectTypeOf<Rows['tasks']>().toExtend<Task>()
    expectTypeOf<Rows['deliveries']>().toExtend<Delivery>()
    expectTypeOf<Rows['endpoints']>().toExtend<Endpoint>()
    expectTypeOf<Rows['events']>().toExtend<Event>()
    expectTypeOf<Rows['attempts']>().toExtend<Attempt>()
    expectTypeOf<Rows['keys']>().toExtend<ApiKey>()
    expectTypeOf<Rows['signingKeys']>().toExtend<SigningKey>()
    expectTypeOf<Rows['clients']>().toExtend<Client>()
    expectTypeOf<Rows['auditLog']>().toExtend<AuditEntry>()
  })

  const pairs = Object.entries(sqlite).map(
    ([name, table]) => [name, table, Object.entries(postgres).find(([other]) => other === name)![1]] as const,
  )
  test.each(pairs)('%s: the same columns in the same order, and the same indexes over them', (_name, inSqlite, inPostgres) => {
    const columns = (table: typeof inSqlite | typeof inPostgres) =>
      Object.entries(getTableColumns(table)).map(([member, column]) => [member, column.name, column.notNull, column.primary])
    expect(getTableName(inPostgres)).toBe(getTableName(inSqlite))
    expect(columns(inPostgres)).toEqual(columns(inSqlite))
    const named = (columns: readonly object[]) => columns.map((column) => ('name' in column ? column.name : null))
    const ofSqlite = sqliteConfig(inSqlite)
    const ofPostgres = postgresConfig(inPostgres)
    expect(ofPostgres.indexes.map(({ config }) => [config.name, config.unique, named(config.columns), config.where !== undefined])).toEqual(
      ofSqlite.indexes.map(({ config }) => [config.name, config.unique, named(config.columns), config.where !== undefined]),
    )
    expect(ofPostgres.primaryKeys.map((key) => named(key.columns))).toEqual(ofSqlite.primaryKeys.map((key) => named(key.columns)))
  })
})
