/** The columns of tables under the names of the model, for `returning`, `select` and `insert`: `due_at as "dueAt"`. */
import { type SQL, sql } from 'drizzle-orm/sql/sql'
import type { Table } from 'drizzle-orm/table'
import { getTableColumns } from 'drizzle-orm/utils'
import * as tables from './schema.sqlite.ts'
import type { RecordColumns } from './script.ts'

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
export const joinedKeyColumns: SQL = named(tables.keys, 'k.')
export const auditColumns: SQL = named(tables.auditLog)
export const signingKeyColumns: SQL = named(tables.signingKeys)

/** Some columns of a table, as rows for statements that insert or change. */
export interface TableRecord<Row> {
  readonly columns: RecordColumns
  readonly names: SQL
  /** An object's members under the names of their columns. */
  toRow(object: Row): Readonly<Record<string, unknown>>
  /** An assignment for each member that the object has. */
  assignments(object: Partial<Row>): SQL[]
}
export type RowOf<R> = R extends TableRecord<infer Row> ? Row : never
type Words<List extends string> = List extends `${infer Word} ${infer Rest}` ? Word | Words<Rest> : List

/** `members` are separated by spaces, in the order of the statements. */
function recordOf<T extends Table, const List extends string>(
  table: T,
  members: List,
): TableRecord<Pick<T['$inferSelect'], Words<List> & keyof T['$inferSelect']>> {
  const all = getTableColumns(table)
  const chosen = members.split(' ').map((member) => ({ member, name: all[member]!.name, type: all[member]!.getSQLType() }))
  return {
    columns: Object.fromEntries(chosen.map(({ name, type }) => [name, type === 'text' ? 'text' : 'int8'])),
    names: sql.raw(chosen.map(({ name }) => name).join(', ')),
    // A loop: Object.fromEntries takes four times as long, and this runs for each delivery.
    toRow(object: Readonly<Record<string, unknown>>) {
      const row: Record<string, unknown> = {}
      for (const { member, name } of chosen) row[name] = object[member] ?? null
      return row
    },
    assignments: (object: Readonly<Record<string, unknown>>) =>
      chosen.flatMap(({ member, name }) => (object[member] === undefined ? [] : [sql`${sql.raw(name)} = ${object[member]}`])),
  }
}

export const newKey = recordOf(tables.keys, 'id clientId name hash hint scopes taskTypes expiresAt')
export const newEndpoint = recordOf(
  tables.endpoints,
  'id clientId url description events taskTypes follows headers headerNames format payload maxPerMinute maxInFlight retrySchedule secret secretHint verification',
)
export const endpointSettings = recordOf(
  tables.endpoints,
  'url description events taskTypes headers headerNames format payload maxPerMinute maxInFlight retrySchedule secret secretHint previousSecret previousSecretUntil',
)
export const newSchedule = recordOf(tables.schedules, 'id clientId type cron timezone catchUp template nextAt')
export const scheduleSettings = recordOf(tables.schedules, 'cron timezone catchUp template nextAt')
export const newSigningKey = recordOf(
  tables.signingKeys,
  'id state alg publicJwk privateJwk createdAt publishedAt activatedAt retiredAt wantedAt',
)
export const newEvent = recordOf(tables.events, 'id clientId taskId endpointId type terminal generation revision seq body createdAt')
export const newDelivery = recordOf(
  tables.deliveries,
  'id laneId clientId endpointId eventId eventType taskId url body retrySchedule trigger maxTries createdAt',
)
export const newAttempt = recordOf(
  tables.attempts,
  'deliveryId fence startedAt durationMs outcome httpStatus error timings keyId retryAfterSeconds responseHeaders responseExcerpt remoteAddress',
)
/** In two parts: the statement that inserts tasks has more columns between them. */
export const newTask = recordOf(tables.tasks, 'id clientId laneId type input metadata callback')
export const newTaskOptions = recordOf(
  tables.tasks,
  'startBy deadlineAt timeoutSeconds maxTries priority concurrencyKey batchId scheduleId traceparent tracestate',
)
