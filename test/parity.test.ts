/** The two schemas hold the same rows, and the rows are those of the model: `tsc` fails where they are not. */
import { getTableColumns, getTableName } from 'drizzle-orm'
import { getTableConfig as postgresConfig } from 'drizzle-orm/pg-core'
import { getTableConfig as sqliteConfig } from 'drizzle-orm/sqlite-core'
import { describe, expect, expectTypeOf, test } from 'vitest'
import type { Attempt, Client, Delivery, Endpoint, Event, Key, SigningKey, Task } from '../src/model.ts'
import * as postgres from '../src/store/schema.postgres.ts'
import * as sqlite from '../src/store/schema.sqlite.ts'

type Tables<Schema extends Record<string, { $inferSelect: unknown }>> = { [Name in keyof Schema]: Schema[Name]['$inferSelect'] }
type Rows = Tables<typeof sqlite>
/** Columns of leased work that no one outside the store sees. */
type Hidden = 'line' | 'rank'

describe('the schemas', () => {
  test('have the same tables with the same rows', () => {
    expectTypeOf<Tables<typeof postgres>>().toEqualTypeOf<Rows>()
    expect(Object.keys(postgres).sort()).toEqual(Object.keys(sqlite).sort())
  })

  test('hold what the model says', () => {
    expectTypeOf<Omit<Rows['tasks'], Hidden>>().toEqualTypeOf<{ -readonly [M in keyof Task]: Task[M] }>()
    expectTypeOf<Omit<Rows['deliveries'], Hidden>>().toEqualTypeOf<{ -readonly [M in keyof Delivery]: Delivery[M] }>()
    expectTypeOf<Omit<Rows['endpoints'], 'deletedAt'>>().toEqualTypeOf<{ -readonly [M in keyof Endpoint]: Endpoint[M] }>()
    expectTypeOf<Omit<Rows['events'], 'terminal'>>().toEqualTypeOf<{ -readonly [M in keyof Event]: Event[M] }>()
    expectTypeOf<Rows['attempts']>().toEqualTypeOf<{ -readonly [M in keyof Attempt]: Attempt[M] }>()
    expectTypeOf<Rows['keys']>().toEqualTypeOf<{ -readonly [M in keyof Key]: Key[M] }>()
    expectTypeOf<Rows['signingKeys']>().toEqualTypeOf<{ -readonly [M in keyof SigningKey]: SigningKey[M] }>()
    expectTypeOf<Omit<Rows['clients'], 'seq'>>().toEqualTypeOf<{ -readonly [M in keyof Client]: Client[M] }>()
  })

  const names = Object.keys(sqlite) as (keyof typeof sqlite)[]
  test.each(names)('%s: the same columns in the same order, and the same indexes over them', (name) => {
    const columns = (table: (typeof sqlite)[typeof name] | (typeof postgres)[typeof name]) =>
      Object.entries(getTableColumns(table)).map(([member, column]) => [member, column.name, column.notNull, column.primary])
    expect(getTableName(postgres[name])).toBe(getTableName(sqlite[name]))
    expect(columns(postgres[name])).toEqual(columns(sqlite[name]))
    const named = (columns: readonly object[]) => columns.map((column) => ('name' in column ? column.name : null))
    const ofSqlite = sqliteConfig(sqlite[name])
    const ofPostgres = postgresConfig(postgres[name])
    expect(ofPostgres.indexes.map(({ config }) => [config.name, config.unique, named(config.columns), config.where !== undefined])).toEqual(
      ofSqlite.indexes.map(({ config }) => [config.name, config.unique, named(config.columns), config.where !== undefined]),
    )
    expect(ofPostgres.primaryKeys.map((key) => named(key.columns))).toEqual(ofSqlite.primaryKeys.map((key) => named(key.columns)))
  })
})
