/** What scripts share: rows of ids, conditions, pages, and the outcomes of tries. */
import type { Millis, State, TryOutcome } from '../../core/model.ts'
import type { Page, Position } from '../interfaces.ts'
import { bind, type Dialect, type SQL, sql } from '../script.ts'

/** A subquery of the ids bound as `name`. */
export const ids = (d: Dialect, name = 'ids'): SQL => sql`select v.id from ${d.records(name, { id: 'text' })} v`
/** The rows of {@link ids}: each id once, without nulls. */
export const idRows = (of: Iterable<string | null>): { id: string }[] => [...new Set(of)].flatMap((id) => (id === null ? [] : [{ id }]))

/** The client's own rows; all rows for the operator. */
export const clientMatches = (d: Dialect): SQL => sql`coalesce(${boundText(d, 'clientId')}, client_id)`
/** A bound text where PostgreSQL cannot infer its type. */
export const boundText = (d: Dialect, name: string): SQL => (d.name === 'postgres' ? sql`${bind(name)}::text` : bind(name))
export const all = (conditions: readonly SQL[]): SQL => (conditions.length === 0 ? sql`true` : sql.join([...conditions], sql` and `))
export const isIn = (column: SQL, values: readonly string[]): SQL =>
  sql`${column} in (${sql.join(
    values.map((value) => sql`${value}`),
    sql`, `,
  )})`

/** One row more than the limit shows whether there is a next page. */
export function toPage<T extends { readonly id: string; readonly createdAt: Millis }>(found: readonly T[], limit: number): Page<T> {
  const items = found.slice(0, limit)
  const last = items.at(-1)
  return { items, next: found.length > limit && last ? { at: last.createdAt, id: last.id } : null }
}
/** The rows behind a position, oldest first. */
export const isAfter = ({ at, id }: Position): SQL => sql`(created_at, id) > (${at}, ${id})`

export const DELIVERY_QUEUE = 'delivery'

/** The state that an outcome asks for. */
export const targetStates = {
  complete: 'completed',
  retry: 'pending',
  release: 'pending',
  fail: 'failed',
  cancel: 'canceled',
} as const satisfies Record<TryOutcome['kind'], State>
