/** The columns of a table under the names of the model, for `returning` and `select`: `due_at as "dueAt"`. */
import { type SQL, sql } from 'drizzle-orm/sql/sql'
import type { Table } from 'drizzle-orm/table'
import { getTableColumns } from 'drizzle-orm/utils'
import * as tables from './schema.sqlite.ts'

function named(table: Table, prefix = '', without: readonly string[] = []): SQL {
  const columns = Object.entries(getTableColumns(table)).filter(([name]) => !without.includes(name))
  return sql.raw(columns.map(([name, column]) => `${prefix}${column.name} as "${name}"`).join(', '))
}

/** Not part of a document: the checkpoint belongs to its handler, and the expiry is computed. */
const NOT_SHOWN = ['checkpoint', 'expiresAt']

/** The names are the same on both databases. */
export const taskColumns: SQL = named(tables.tasks, '', NOT_SHOWN)
/** For statements with another row source. */
export const updatedTaskColumns: SQL = named(tables.tasks, 'tasks.', NOT_SHOWN)
export const deliveryColumns: SQL = named(tables.deliveries)
export const updatedDeliveryColumns: SQL = named(tables.deliveries, 'deliveries.')
export const endpointColumns: SQL = named(tables.endpoints)
export const eventColumns: SQL = named(tables.events)
export const attemptColumns: SQL = named(tables.attempts)
export const scheduleColumns: SQL = named(tables.schedules)
export const keyColumns: SQL = named(tables.keys)
export const auditColumns: SQL = named(tables.auditLog)
export const signingKeyColumns: SQL = named(tables.signingKeys)
