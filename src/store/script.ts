/**
 * A storage operation is a script: a generator that yields SQL and receives rows. better-sqlite3 runs it synchronously, `pg` runs it with await.
 * Everything in which the two databases differ is in `Dialect`.
 */
import { type SQL, sql } from 'drizzle-orm/sql/sql'

// Scripts use nothing else of drizzle-orm: each further import would load all its exports at every start.
export { type SQL, sql }

/** A row by the column names of its statement. */
export type Row = Record<string, unknown>
/** One statement to run. An array of them runs in order; on PostgreSQL it is one round trip. */
export interface BoundStatement {
  readonly statement: Statement
  readonly values: Values
  /** Its rows are not used: on PostgreSQL the script does not wait for it. */
  readonly discardRows?: boolean
  /** Channels to notify after the commit. */
  readonly notifies?: readonly string[]
}
export type Values = Readonly<Record<string, unknown>>
export type Script<R> = Generator<BoundStatement | readonly BoundStatement[], R, never>

/** SQL with a fixed text: rendered and prepared once per database, its values bound by name. */
export interface Statement {
  readonly build: (dialect: Dialect) => SQL
  /** Rendered at each call, for optional filters. */
  readonly dynamic?: boolean
}

/** SQL types of the columns of records that serve as a row source. The first is never null. */
export type RecordColumns = Readonly<Record<string, 'text' | 'int8' | 'float8'>>

/** What differs between the databases. */
export interface Dialect {
  readonly name: 'sqlite' | 'postgres'
  /** The placeholder of the parameter at that index, from 0. */
  parameter(place: number): string
  /** Epoch milliseconds by the clock of the leases: the server's on PostgreSQL, the node's on SQLite. */
  readonly now: SQL
  /** Locks rows and skips locked ones. SQLite has one writer and needs no locks. */
  readonly skipLocked: SQL
  /** Locks rows against other writers and waits for locked ones. */
  readonly lock: SQL
  /** The records bound as `name`, as a row source. */
  records(name: string, columns: RecordColumns): SQL
  /** The physical place of a row, for tables whose key has many columns. Valid within one statement only. */
  readonly rowId: SQL
  /** Membership in a subquery, in the form for which the planner uses the index of the column before it. */
  anyOf(query: SQL): SQL
  /** On PostgreSQL, makes `update … from` find its rows by that column, whatever the table's statistics, and lock them in the order of a locking query. */
  restrictTo(column: SQL, query: SQL): SQL
  /**
   * Joins the matching rows of a table, looked up for each row before. PostgreSQL plans an ordinary join by the table's statistics. When these are
   * old, it compares every row with every row, or reads the whole table.
   */
  join(table: string, alias: string, on: SQL): SQL
  /** The same as a left join. */
  leftJoin(table: string, alias: string, on: SQL): SQL
}

/** A statement with a fixed text. Returns the function that binds values to it: by name, arrays as records. */
export function statement(build: (dialect: Dialect) => SQL): (values?: Values) => BoundStatement {
  const fixed: Statement = { build }
  return (values = {}) => ({ statement: fixed, values })
}

/** A statement whose text depends on its filters. */
export function query(build: (dialect: Dialect) => SQL, values: Values = {}): BoundStatement {
  return { statement: { build, dynamic: true }, values }
}

export function* rows<T>(call: BoundStatement): Script<readonly T[]> {
  return (yield call) as readonly T[]
}
/** The first row of one statement, or null. */
export function* first<T>(call: BoundStatement): Script<T | null> {
  return ((yield call) as readonly T[])[0] ?? null
}
/** Runs statements that do not depend on each other. */
export function* runAll(calls: readonly BoundStatement[]): Script<readonly (readonly Row[])[]> {
  return calls.length === 0 ? [] : ((yield calls) as readonly (readonly Row[])[])
}

/** A call with these records, or none where there are no records. */
export const callFor = (make: (values: Values) => BoundStatement, name: string, records: readonly object[]): readonly BoundStatement[] =>
  records.length === 0 ? [] : [make({ [name]: records })]

/** Runs statements whose rows are not used. */
export function* execute(calls: readonly BoundStatement[]): Script<void> {
  if (calls.length > 0) yield calls.map((call) => ({ ...call, discardRows: true }))
}

const readNow = statement((d) => sql`select ${d.now} as now`)
/** The store's clock, in epoch milliseconds. As a bound value it can use an index; PostgreSQL's function would be called for every row. */
export function* now(): Script<number> {
  return (yield* first<{ now: number }>(readNow()))!.now
}

export const bind = (name: string): SQL => sql`${sql.placeholder(name)}`

/** A place in a SQLite statement where the driver writes a row of parameters for each record. */
export interface RowSource {
  readonly rows: string
  readonly columns: readonly string[]
}
const ROW_SOURCE = 'rows:'
/** The row source of a placeholder; null: it is a single value. */
export function rowSource(placeholder: string): RowSource | null {
  if (!placeholder.startsWith(ROW_SOURCE)) return null
  const [rows, columns] = placeholder.slice(ROW_SOURCE.length).split(':') as [string, string]
  return { rows, columns: columns.split(',') }
}

export const sqliteDialect: Dialect = {
  name: 'sqlite',
  parameter: () => '?',
  now: bind('now'),
  skipLocked: sql``,
  lock: sql``,
  // Measured: rows of parameters take a third of the time of the same rows in one JSON text. The driver pads their number with nulls, so that few texts
  // are prepared. The first column of a record is never null.
  records: (name, columns) => {
    const names = Object.keys(columns)
    const picked = sql.raw(names.map((column, i) => `column${i + 1} as ${column}`).join(', '))
    return sql`(select ${picked} from (values ${bind(`${ROW_SOURCE}${name}:${names.join(',')}`)}) where column1 is not null)`
  },
  rowId: sql.raw('rowid'),
  anyOf: (subquery) => sql`in (${subquery})`,
  restrictTo: () => sql``,
  join: (table, alias, on) => sql`join ${sql.raw(`${table} ${alias}`)} on ${on}`,
  leftJoin: (table, alias, on) => sql`left join ${sql.raw(`${table} ${alias}`)} on ${on}`,
}

export const postgresDialect: Dialect = {
  name: 'postgres',
  parameter: (place) => `$${place + 1}`,
  now: sql`(extract(epoch from clock_timestamp()) * 1000)::int8`,
  skipLocked: sql`for no key update skip locked`,
  lock: sql`for no key update`,
  records: (name, columns) => {
    const typed = Object.entries(columns).map(([column, type]) => `${column} ${type}`)
    return sql`(select * from json_to_recordset(${bind(name)}::json) as j(${sql.raw(typed.join(', '))}))`
  },
  rowId: sql.raw('ctid'),
  anyOf: (subquery) => sql`= any(array(${subquery}))`,
  restrictTo: (column, subquery) => sql`and ${column} = any(array(${subquery}))`,
  // The offset keeps the planner from turning it into an ordinary join.
  join: (table, alias, on) =>
    sql`cross join lateral (select * from ${sql.raw(`${table} ${alias}`)} where ${on} offset 0) ${sql.raw(alias)}`,
  leftJoin: (table, alias, on) =>
    sql`left join lateral (select * from ${sql.raw(`${table} ${alias}`)} where ${on} offset 0) ${sql.raw(alias)} on true`,
}
