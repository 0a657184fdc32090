/** What carries scripts to a database. */
// Of the library only what renders SQL: its whole takes a second to load, and a hundred megabytes.
import { CasingCache } from 'drizzle-orm/casing'
import { is } from 'drizzle-orm/entity'
import { Placeholder } from 'drizzle-orm/sql/sql'
import type { BoundStatement, Dialect, Script, Statement } from './script.ts'

/** Within one group commit: renewals first, so that a busy store loses no leases; intake last. */
export const writePriority = { renewal: 0, settlement: 1, claim: 2, other: 3, intake: 4 } as const
export type WritePriority = (typeof writePriority)[keyof typeof writePriority]

export interface Driver {
  readonly dialect: Dialect
  /** Commits of one kind that may run side by side. */
  readonly maxConcurrentWrites: number
  /** One transaction. `make` is called when it starts, and again when it has to be repeated. */
  write<R>(order: WritePriority, make: () => Script<R>): Promise<R>
  /** Reads; nothing is written. */
  read<R>(script: Script<R>): Promise<R>
  /** Whether one item of a merged statement is to blame for this error. */
  isItemError(error: unknown): boolean
  /** Whether this error means that the database did not answer: a lost connection, a server that shuts down, a full disk. A read may be repeated. */
  isUnavailable(error: unknown): boolean
  /** Why the database took nothing when it was last written to, in words for the operator; null: it did. */
  readonly writeError: string | null
  /** Tells every node, this one included. Repeats are merged. */
  notify(word: string): void
  onNotify(listener: (word: string) => void): () => void
  close(): Promise<void>
}

/** What stands at one place of a statement's parameters. */
export type StatementParameter = { readonly name: string } | { readonly value: unknown }
/** A statement as its dialect renders it. */
export interface RenderedStatement {
  readonly text: string
  readonly parameters: readonly StatementParameter[]
}
export function render(dialect: Dialect, statement: Statement): RenderedStatement {
  const { sql, params } = statement.build(dialect).toQuery({
    casing: new CasingCache(),
    escapeName: (name) => `"${name.replaceAll('"', '""')}"`,
    escapeParam: dialect.parameter,
    escapeString: (text) => `'${text.replaceAll("'", "''")}'`,
  })
  return { text: sql, parameters: params.map((param) => (is(param, Placeholder) ? { name: param.name as string } : { value: param })) }
}
/** The value of a call for a name. */
export function valueFor(call: BoundStatement, name: string): unknown {
  const value = call.values[name]
  if (value === undefined) throw new Error(`no value was given for "${name}" of a statement`)
  return value
}
