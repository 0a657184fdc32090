/** The columns of a table under the names of the model, for `returning` and `select`: `due_at as "dueAt"`. */
import { getTableColumns, type SQL, sql, type Table } from 'drizzle-orm'
import * as tables from './schema.sqlite.ts'

function named(table: Table, prefix = ''): SQL {
  const columns = Object.entries(getTableColumns(table))
  return sql.raw(columns.map(([name, column]) => `${prefix}${column.name} as "${name}"`).join(', '))
}

/** Names are the same in both schemas, so either serves. */
export const taskColumns: SQL = named(tables.tasks)
/** Where another row source stands beside the table. */
export const updatedTaskColumns: SQL = named(tables.tasks, 'tasks.')
export const deliveryColumns: SQL = named(tables.deliveries)
export const updatedDeliveryColumns: SQL = named(tables.deliveries, 'deliveries.')
export const endpointColumns: SQL = named(tables.endpoints)
export const eventColumns: SQL = named(tables.events)
export const attemptColumns: SQL = named(tables.attempts)
export const keyColumns: SQL = named(tables.keys)
export const signingKeyColumns: SQL = named(tables.signingKeys)
