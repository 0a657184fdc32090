/** API keys: created, found, rotated, revoked. Nodes cache keys for some seconds, so the end of a key is notified to them. */
import type { ApiKey, ClientStatus, Millis } from '../../core/model.ts'
import { joinedKeyColumns, keyColumns, newKey } from '../columns.ts'
import type { AddKeyResult, KeyRotation, NewKey } from '../interfaces.ts'
import { bind, type Dialect, execute, first, rows, type Script, type SQL, sql, statement } from '../script.ts'
import { lockClient, notifyAccess } from './clients.ts'
import { idRows, ids } from './shared.ts'

const insertKey = statement(
  (d) => sql`insert into keys (${newKey.names}, created_at) select ${newKey.names}, ${d.now} from ${d.records('keys', newKey.columns)} v
    where v.client_id is null or (select c.status from clients c where c.id = v.client_id) in ('active', 'suspended') returning ${keyColumns}`,
)
const countActive = statement(
  (d) => sql`select count(*) as n from keys where client_id = ${bind('clientId')} and revoked_at is null
    and (expires_at is null or expires_at > ${d.now})`,
)
/** At most `max` active keys of a client, however many are added at once: its row stays locked until the commit. */
export function* addKey(key: NewKey, max: number): Script<AddKeyResult> {
  const { clientId } = key
  if (clientId !== null) {
    yield* execute([lockClient({ id: clientId })])
    const active = (yield* first<{ n: number }>(countActive({ clientId })))!.n
    if (active >= max) return { kind: 'full', active }
  }
  const added = yield* first<ApiKey>(insertKey({ keys: [newKey.toRow(key)] }))
  return added ? { kind: 'added', value: added } : { kind: 'missing' }
}

const readKey = statement(
  () =>
    sql`select ${joinedKeyColumns}, (select c.status from clients c where c.id = k.client_id) as "clientStatus" from keys k where k.hash = ${bind('hash')}`,
)
export function* findKey(hash: string): Script<(ApiKey & { clientStatus: ClientStatus | null }) | null> {
  return yield* first<ApiKey & { clientStatus: ClientStatus | null }>(readKey({ hash }))
}

/** The keys of a client; for null those of the operator. */
const owned = (d: Dialect): SQL =>
  d.name === 'postgres' ? sql`client_id is not distinct from ${bind('clientId')}` : sql`client_id is ${bind('clientId')}`
const readKeys = statement((d) => sql`select ${keyColumns} from keys where ${owned(d)} order by created_at, id`)
export function* listKeys(clientId: string | null): Script<readonly ApiKey[]> {
  return yield* rows<ApiKey>(readKeys({ clientId }))
}

const revoke = statement(
  (d) => sql`update keys set revoked_at = coalesce(revoked_at, ${d.now}) where id = ${bind('id')} and ${owned(d)} returning ${keyColumns}`,
)
export function* revokeKey(id: string, clientId: string | null): Script<ApiKey | null> {
  return yield* first<ApiKey>(notifyAccess(revoke({ id, clientId }), id))
}

const lockActive = statement(
  (d) => sql`select ${keyColumns} from keys where id = ${bind('id')} and ${owned(d)} and revoked_at is null
    and (expires_at is null or expires_at > ${d.now}) ${d.lock}`,
)
const shorten = statement(
  (d) => sql`update keys
    set expires_at = case when expires_at < ${d.now} + ${bind('overlapMs')} then expires_at else ${d.now} + ${bind('overlapMs')} end where id = ${bind('id')}`,
)
/** The last time that RFC 3339 can write. */
const LATEST: Millis = Date.UTC(9999, 11, 31, 23, 59, 59, 999)
/** Replaces a key, which ends after the overlap. The new one has the same permissions and lifetime. `missing`: the old one has ended. */
export function* rotateKey({ id, clientId, fresh, overlapMs, max }: KeyRotation): Script<AddKeyResult> {
  const known = yield* first<ApiKey>(lockActive({ id, clientId }))
  if (!known) return { kind: 'missing' }
  const { name, scopes, taskTypes } = known
  // Without an overlap the number of active keys stays the same.
  const added = yield* addKey({ ...fresh, clientId, name, scopes, taskTypes, expiresAt: null }, overlapMs > 0 ? max : Infinity)
  if (added.kind !== 'added') return added
  yield notifyAccess(shorten({ id, overlapMs }), id)
  if (known.expiresAt === null) return added
  const at = Math.min(LATEST, added.value.createdAt + known.expiresAt - known.createdAt)
  return { kind: 'added', value: (yield* first<ApiKey>(expire({ id: added.value.id, at })))! }
}
const expire = statement(() => sql`update keys set expires_at = ${bind('at')} where id = ${bind('id')} returning ${keyColumns}`)

// There are few keys, and they are written far more often than pruned, so no index serves this.
const prune = statement(
  (d) =>
    sql`delete from keys where id ${d.anyOf(
      sql`select x.id from keys x where coalesce(x.revoked_at, x.expires_at) <= ${d.now} - ${bind('keepMs')} limit ${bind('limit')} ${d.skipLocked}`,
    )} returning id`,
)
/** Removes keys that were revoked or expired longer ago than `keepMs`. Returns how many. */
export function* pruneKeys(limit: number, keepMs: Millis): Script<number> {
  return (yield* rows(prune({ keepMs, limit }))).length
}

/** The use of a key is recorded at most this often. */
const USED_EVERY_MS: Millis = 60_000
// A row that another node is writing is skipped: that node records the use.
const use = statement(
  (d) =>
    sql`update keys set last_used_at = ${d.now} where id ${d.anyOf(
      sql`select x.id from keys x where x.id ${d.anyOf(ids(d))}
      and coalesce(x.last_used_at, 0) <= ${d.now} - ${USED_EVERY_MS} ${d.skipLocked}`,
    )}`,
)
export function* touchKeys(used: readonly string[]): Script<readonly null[]> {
  yield use({ ids: idRows(used) })
  return used.map(() => null)
}
