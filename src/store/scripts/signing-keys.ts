/** Signing keys: created, rotated, revoked. Each change notifies the other nodes. */
import type { SigningKey, SigningKeyState } from '../../core/model.ts'
import { newSigningKey, signingKeyColumns } from '../columns.ts'
import type { SigningKeyRotation } from '../interfaces.ts'
import { bind, execute, first, rows, type Script, sql, statement } from '../script.ts'
import { idRows, ids } from './shared.ts'

export const SIGNING_KEYS_CHANNEL = 'keys'

const readSigningKeys = statement(
  () => sql`select ${signingKeyColumns} from signing_keys
    order by case state when 'active' then 0 when 'next' then 1 when 'retiring' then 2 else 3 end, created_at, id`,
)
export function* listSigningKeys(): Script<SigningKey[]> {
  return [...(yield* rows<SigningKey>(readSigningKeys()))]
}
const insertSigningKeys = statement(
  (d) =>
    sql`insert into signing_keys (${newSigningKey.names}) select ${newSigningKey.names} from ${d.records('keys', newSigningKey.columns)} v
      where true order by v.state on conflict do nothing`,
)
/** Adds the keys whose place is free (one active, one next). Returns all keys. Nodes that start at once end with one of each. */
export function* addSigningKeys(keys: readonly SigningKey[]): Script<SigningKey[]> {
  yield insertSigningKeys({ keys: keys.map(newSigningKey.toRow) })
  return yield* listSigningKeys()
}

/** Locked in the order in which a revocation locks them. */
const lockKeys = statement(
  (d) => sql`select id, state from signing_keys where id = ${bind('retire')} or id = ${bind('activate')} order by state ${d.lock}`,
)
const retire = statement(
  (d) => sql`update signing_keys set state = 'retiring', retired_at = ${d.now} where id = ${bind('id')} and state = 'active'`,
)
const activate = statement(
  (d) =>
    sql`update signing_keys set state = 'active', activated_at = ${d.now}, wanted_at = null where id = ${bind('id')} and state = 'next'
      and not exists (select 1 from signing_keys a where a.state = 'active')`,
)
const remove = statement((d) => sql`delete from signing_keys where state = 'retiring' and id ${d.anyOf(ids(d))}`)
const readClock = statement((d) => sql`select ${d.now} as now`)
const notifySigningKeys = () => ({ ...readClock(), notifies: [SIGNING_KEYS_CHANNEL] })

/** Applies the due steps unless another node did. Returns all keys, and whether the next key became active. */
export function* rotateSigningKeys(turn: SigningKeyRotation): Script<{ readonly keys: SigningKey[]; readonly rotated: boolean }> {
  let rotated = false
  if (turn.activate !== null) {
    const locked = yield* rows<Pick<SigningKey, 'id' | 'state'>>(lockKeys({ retire: turn.retire, activate: turn.activate }))
    const is = (id: string, state: SigningKeyState): boolean => locked.some((key) => key.id === id && key.state === state)
    // Both changes or none: no key retires without another that becomes active.
    if (is(turn.activate, 'next') && (turn.retire === null || is(turn.retire, 'active'))) {
      if (turn.retire !== null) yield retire({ id: turn.retire })
      yield activate({ id: turn.activate })
      rotated = true
    }
  }
  if (turn.remove.length > 0) yield remove({ ids: idRows(turn.remove) })
  yield* execute([notifySigningKeys()])
  return { keys: yield* listSigningKeys(), rotated }
}

const requestRotation = statement((d) => sql`update signing_keys set wanted_at = coalesce(wanted_at, ${d.now}) where state = 'next'`)
/** The next key becomes active as soon as it may. */
export function* requestSigningKeyRotation(): Script<SigningKey[]> {
  yield requestRotation()
  yield* execute([notifySigningKeys()])
  return yield* listSigningKeys()
}

const revoke = statement(
  (d) => sql`update signing_keys set state = 'revoked', private_jwk = '', retired_at = coalesce(retired_at, ${d.now}), wanted_at = null
    where id = ${bind('id')} and state <> 'revoked' returning id`,
)
const readKey = statement(() => sql`select ${signingKeyColumns} from signing_keys where id = ${bind('id')}`)
const promote = statement(
  (d) => sql`update signing_keys set state = 'active', activated_at = ${d.now}, wanted_at = null where state = 'next'
    and not exists (select 1 from signing_keys a where a.state = 'active')`,
)
/** Removes the key from the published set and erases its private part. If it was active, the next key signs at once. Null: there is no such key. */
export function* revokeSigningKey(id: string): Script<SigningKey[] | null> {
  yield revoke({ id })
  if (!(yield* first(readKey({ id })))) return null
  yield promote()
  yield* execute([notifySigningKeys()])
  return yield* listSigningKeys()
}
