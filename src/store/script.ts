/**
 * One body, two databases: a storage operation is a generator that yields SQL and receives rows. better-sqlite3 runs it without
 * a pause, `pg` runs it with await. What differs between the two is named here, and nowhere else.
 */
import { type SQL, sql } from 'drizzle-orm/sql/sql'

// Scripts write their SQL with this, and with nothing else of drizzle-orm: each import of it costs a start the reading of all its exports.
export { type SQL, sql }

/** Rows come back under the names the statement gave them. */
export type Row = Record<string, unknown>
/** One statement to run. An array of them runs in order; on PostgreSQL they travel together. */
export interface BoundStatement {
  readonly statement: Statement
  readonly values: Values
  /** Its rows are not wanted: on PostgreSQL nobody waits for it before the commit. */
  readonly discardRows?: boolean
  /** Words for every node, said once the transaction has committed. */
  readonly notifies?: readonly string[]
}
export type Values = Readonly<Record<string, unknown>>
export type Script<R> = Generator<BoundStatement | readonly BoundStatement[], R, never>

/** SQL whose text never varies: rendered and prepared once per database, its values bound by name. */
export interface Statement {
  readonly build: (dialect: Dialect) => SQL
  /** Rendered anew at each call: for filters that come and go. */
  readonly dynamic?: boolean
}

/** SQL types of the columns of records that serve as a row source. The first is never null. */
export type RecordColumns = Readonly<Record<string, 'text' | 'int8' | 'float8'>>

/** The holes in which the databases differ. */
export interface Dialect {
  readonly name: 'sqlite' | 'postgres'
  /** How the parameter at that place, from 0, is written. */
  parameter(place: number): string
  /** Epoch milliseconds by the clock that leases live on: the database's own, or the node's where the node owns the store. */
  readonly now: SQL
  /** Claimers pass one another by. A single writer needs no locks. */
  readonly skipLocked: SQL
  /** Locks rows against other writers, waiting for them. */
  readonly lock: SQL
  /** The records bound as `name`, as a row source. */
  records(name: string, columns: RecordColumns): SQL
  /** The place of a row, for tables whose key has many columns: what finds rows by it finds them by nothing else. Within one statement only, for it may move. */
  readonly rowId: SQL
  /** Members of a subquery, in the form that keeps the planner on the index of what stands before it. */
  anyOf(query: SQL): SQL
  /**
   * What `update … from` adds on PostgreSQL so that its rows are found by that column, whatever is known of the table; and locked in the order
   * of the query, where that locks them.
   */
  restrictTo(column: SQL, query: SQL): SQL
  /**
   * Joins the rows of a table that fit, looked up for each row before them. PostgreSQL plans a plain join by what it knows of the table, which
   * may be older than most of its rows: then it compares each with each, or reads the table from end to end.
   */
  join(table: string, alias: string, on: SQL): SQL
  /** The same, and rows before them that none fits. */
  leftJoin(table: string, alias: string, on: SQL): SQL
}

/** A statement with its text fixed once. The answer makes a call of it: values by name, arrays as records. */
export function statement(build: (dialect: Dialect) => SQL): (values?: Values) => BoundStatement {
  const fixed: Statement = { build }
  return (values = {}) => ({ statement: fixed, values })
}

/** A statement whose text depends on what is asked. */
export function query(build: (dialect: Dialect) => SQL, values: Values = {}): BoundStatement {
  return { statement: { build, dynamic: true }, values }
}

/** Runs one statement and receives its rows. */
export function* rows<T>(call: BoundStatement): Script<readonly T[]> {
  return (yield call) as readonly T[]
}
/** Runs one statement and receives its first row, or null. */
export function* first<T>(call: BoundStatement): Script<T | null> {
  return ((yield call) as readonly T[])[0] ?? null
}
/** Runs statements that need nothing of each other. */
export function* runAll(calls: readonly BoundStatement[]): Script<readonly (readonly Row[])[]> {
  return calls.length === 0 ? [] : ((yield calls) as readonly (readonly Row[])[])
}

/** Runs statements whose rows nobody wants. */
export function* execute(calls: readonly BoundStatement[]): Script<void> {
  if (calls.length > 0) yield calls.map((call) => ({ ...call, discardRows: true }))
}

const readNow = statement((d) => sql`select ${d.now} as now`)
/** The store's clock, in epoch milliseconds. As a value it serves an index; PostgreSQL would compare its own with row after row. */
export function* now(): Script<number> {
  return (yield* first<{ now: number }>(readNow()))!.now
}

/** A value bound by name. */
export const bind = (name: string): SQL => sql`${sql.placeholder(name)}`

/** Where a row source stands in a statement for SQLite: the driver writes as many rows of parameters there as it is given. */
export interface RowSource {
  readonly rows: string
  readonly columns: readonly string[]
}
const ROW_SOURCE = 'rows:'
/** The row source a placeholder stands for; null: it is a plain value. */
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
  // Measured: rows of parameters cost a third of the same rows taken out of one JSON text. The driver pads their number with nulls,
  // so that few texts are prepared; the first column of a record is never null.
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
  // The offset keeps the planner from making a plain join of it.
  join: (table, alias, on) =>
    sql`cross join lateral (select * from ${sql.raw(`${table} ${alias}`)} where ${on} offset 0) ${sql.raw(alias)}`,
  leftJoin: (table, alias, on) =>
    sql`left join lateral (select * from ${sql.raw(`${table} ${alias}`)} where ${on} offset 0) ${sql.raw(alias)} on true`,
}
