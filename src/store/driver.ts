/** Runs scripts on a database. */
// Only the parts of drizzle-orm that render SQL: all of it takes a second and 100 MB to load.
import { CasingCache } from 'drizzle-orm/casing'
import { is } from 'drizzle-orm/entity'
import { Placeholder } from 'drizzle-orm/sql/sql'
import type { BoundStatement, Dialect, Script, Statement } from './script.ts'

/** The order within one group commit. Renewals come first, so that a busy store loses no leases; intake comes last. */
export const writePriority = { renewal: 0, settlement: 1, claim: 2, other: 3, intake: 4 } as const
export type WritePriority = (typeof writePriority)[keyof typeof writePriority]

export interface Driver {
  readonly dialect: Dialect
  /** Concurrent commits of one kind. */
  readonly maxConcurrentWrites: number
  /** One transaction. `make` is called when it starts, and again when it is repeated. */
  write<R>(order: WritePriority, make: () => Script<R>): Promise<R>
  /** One consistent snapshot. */
  read<R>(script: Script<R>): Promise<R>
  /** Whether one item of a merged statement caused this error. */
  isItemError(error: unknown): boolean
  /** Whether the database did not answer, or could not: a lost connection, a server that shuts down, a full disk. A read may be repeated. */
  isUnavailable(error: unknown): boolean
  /** Why the last write failed, for the operator; null: it succeeded. */
  readonly writeError: string | null
  /** Notifies every node, this one too. Repeats are merged. */
  notify(channel: string): void
  /** Returns the function that unsubscribes. */
  onNotify(listener: (channel: string) => void): () => void
  close(): Promise<void>
}

/** One parameter of a statement: bound by name at each call, or a fixed value. */
export type StatementParameter = { readonly name: string } | { readonly value: unknown }
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
export function valueFor(call: BoundStatement, name: string): unknown {
  const value = call.values[name]
  if (value === undefined) throw new Error(`the call of a statement has no value for "${name}"`)
  return value
}
