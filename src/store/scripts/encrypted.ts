/** Encrypted values: where they are stored, how they are re-encrypted, and when rotated secrets are erased. */
import type { Millis } from '../../core/model.ts'
import type { EncryptedValue } from '../interfaces.ts'
import { type BoundStatement, bind, execute, rows, type Script, sql, statement } from '../script.ts'

/** Every column with encrypted values, and the column that identifies its rows. The key check is not among them. */
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

/** Values that do not begin with `prefix`, at most `limit` of each column. */
export function* findEncrypted(prefix: string, limit: number): Script<readonly EncryptedValue[]> {
  const found: EncryptedValue[] = []
  for (const { table, column, find } of known)
    for (const { id, sealed: encrypted } of yield* rows<{ id: string; sealed: string }>(find({ prefix, limit })))
      found.push({ place: { table, id, column }, encrypted })
  return found
}

/** Replaces each value unless it changed. */
export function* replaceEncrypted(values: readonly (EncryptedValue & { readonly fresh: string })[]): Script<void> {
  yield* execute(
    values.map(({ place, encrypted, fresh }): BoundStatement => {
      const { replace } = known.find(({ table, column }) => table === place.table && column === place.column)!
      return replace({ id: place.id, sealed: encrypted, fresh })
    }),
  )
}

/** Signing uses the clock of a node, and this the store's: they differ by less than an hour. */
const GRACE_MS: Millis = 3_600_000

const eraseOverlapped = statement((d) => {
  const ended = sql`previous_secret is not null and previous_secret_until < ${d.now} - ${sql.raw(String(GRACE_MS))}`
  return sql`update endpoints set previous_secret = null, previous_secret_until = null
    where id ${d.anyOf(sql`select id from endpoints where ${ended} limit ${bind('limit')}`)} and ${ended} returning id`
})
/** Erases rotated secrets whose overlap ended over an hour ago. Returns how many. */
export function* erasePreviousSecrets(limit: number): Script<number> {
  return (yield* rows(eraseOverlapped({ limit }))).length
}
