/** The tables on PostgreSQL, derived from `schema.sqlite.ts`: the same columns, keys and indexes. Only drizzle-kit reads it, to write migrations. */
import { getTableColumns, getTableName, is } from 'drizzle-orm'
import {
  type AnyPgColumn,
  bigint,
  bigserial,
  doublePrecision,
  index,
  integer,
  type PgColumnBuilderBase,
  pgTable,
  primaryKey,
  text,
  uniqueIndex,
} from 'drizzle-orm/pg-core'
import { getTableConfig, SQLiteCustomColumn, SQLiteInteger, SQLiteReal, type SQLiteTable } from 'drizzle-orm/sqlite-core'
import * as sqlite from './schema.sqlite.ts'

type Column = ReturnType<typeof getTableColumns<SQLiteTable>>[string]

/** A counter that the database assigns is the only integer primary key. Custom columns are times: 8 bytes, as `millis` says. */
function columnOf(column: Column): PgColumnBuilderBase {
  const { name, notNull, primary, hasDefault } = column
  if (primary && is(column, SQLiteInteger)) return bigserial(name, { mode: 'number' }).primaryKey()
  const typed = is(column, SQLiteCustomColumn)
    ? bigint(name, { mode: 'number' })
    : is(column, SQLiteInteger)
      ? integer(name)
      : is(column, SQLiteReal)
        ? doublePrecision(name)
        : text(name)
  if (hasDefault) typed.default(column.default as never)
  if (primary) return typed.primaryKey()
  return notNull ? typed.notNull() : typed
}

function toPostgres<Table extends SQLiteTable>(table: Table) {
  const { indexes, primaryKeys } = getTableConfig(table)
  const columns = Object.fromEntries(Object.entries(getTableColumns(table)).map(([member, column]) => [member, columnOf(column)]))
  return pgTable(getTableName(table), columns, (own) => {
    const byName = new Map(Object.values(own).map((column) => [column.name, column as AnyPgColumn]))
    const named = (list: readonly object[]) => list.map((column) => byName.get((column as Column).name)!) as [AnyPgColumn, ...AnyPgColumn[]]
    return [
      ...primaryKeys.map((key) => primaryKey({ columns: named(key.columns) })),
      ...indexes.map(({ config }) => {
        const made = (config.unique ? uniqueIndex : index)(config.name).on(...named(config.columns))
        return config.where ? made.where(config.where) : made
      }),
    ]
  })
}

export const clients = toPostgres(sqlite.clients)
export const keys = toPostgres(sqlite.keys)
export const tasks = toPostgres(sqlite.tasks)
export const labels = toPostgres(sqlite.labels)
export const events = toPostgres(sqlite.events)
export const deliveries = toPostgres(sqlite.deliveries)
export const attempts = toPostgres(sqlite.attempts)
export const endpoints = toPostgres(sqlite.endpoints)
export const lanes = toPostgres(sqlite.lanes)
export const turns = toPostgres(sqlite.turns)
export const queues = toPostgres(sqlite.queues)
export const schedules = toPostgres(sqlite.schedules)
export const idempotency = toPostgres(sqlite.idempotency)
export const tombstones = toPostgres(sqlite.tombstones)
export const signingKeys = toPostgres(sqlite.signingKeys)
export const auditLog = toPostgres(sqlite.auditLog)
export const rateLimits = toPostgres(sqlite.rateLimits)
export const settings = toPostgres(sqlite.settings)
