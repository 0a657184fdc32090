/** Where sealed values live, how they are replaced by the same values under another key, and how those that serve no more are erased. */
import type { Millis } from '../../core/model.ts'
import type { EncryptedValue } from '../interfaces.ts'
import { type BoundStatement, bind, execute, rows, type Script, sql, statement } from '../script.ts'

/** Every column that holds sealed values, and the column that names its rows. The canary's place is called `meta`: it is no value among others. */
const places = [
  ['endpoints', 'secret', 'id'],
  ['endpoints', 'previous_secret', 'id'],
  ['endpoints', 'headers', 'id'],
  ['signing_keys', 'private_jwk', 'id'],
  ['settings', 'value', 'name'],
] as const

const known = places.map(([table, column, name]) => ({
  table,
  column,
  find: statement(
    () => sql`select ${sql.raw(name)} as id, ${sql.raw(column)} as sealed from ${sql.raw(table)}
      where ${sql.raw(column)} like 'v1.%' and substr(${sql.raw(column)}, 1, length(${bind('prefix')})) <> ${bind('prefix')}
      and ${sql.raw(name)} <> 'canary' limit ${bind('limit')}`,
  ),
  replace: statement(
    () =>
      sql`update ${sql.raw(table)} set ${sql.raw(column)} = ${bind('fresh')} where ${sql.raw(name)} = ${bind('id')} and ${sql.raw(column)} = ${bind('sealed')}`,
  ),
}))

/** Values that do not begin with `prefix`, at most `limit` of each place. */
export function* findEncrypted(prefix: string, limit: number): Script<readonly EncryptedValue[]> {
  const found: EncryptedValue[] = []
  for (const { table, column, find } of known)
    for (const { id, sealed } of yield* rows<{ id: string; sealed: string }>(find({ prefix, limit })))
      found.push({ place: { table, id, column }, encrypted: sealed })
  return found
}

/** Replaces values, each unless it changed meanwhile. */
export function* replaceEncrypted(values: readonly (EncryptedValue & { readonly fresh: string })[]): Script<void> {
  yield* execute(
    values.map(({ place, encrypted: sealed, fresh }): BoundStatement => {
      const { replace } = known.find(({ table, column }) => table === place.table && column === place.column)!
      return replace({ id: place.id, sealed, fresh })
    }),
  )
}

/** Signing compares with a node's wall clock and this with the store's: an hour is more than they differ. */
const GRACE_MS: Millis = 3_600_000

const eraseOverlapped = statement((d) => {
  const ended = sql`previous_secret is not null and previous_secret_until < ${d.now} - ${sql.raw(String(GRACE_MS))}`
  return sql`update endpoints set previous_secret = null, previous_secret_until = null
    where id ${d.anyOf(sql`select id from endpoints where ${ended} limit ${bind('limit')}`)} and ${ended} returning id`
})
/** Erases secrets that were rotated away and whose overlap ended over an hour ago; answers how many. */
export function* erasePreviousSecrets(limit: number): Script<number> {
  return (yield* rows(eraseOverlapped({ limit }))).length
}
