/** Clients, their API keys, the signing keys and the installation's own settings. */
import { sql } from 'drizzle-orm'
import type { Client, ClientStatus, Key, SigningKey } from '../../model.ts'
import { keyColumns, signingKeyColumns } from '../columns.ts'
import { bind, first, query, rows, type Script, statement } from '../script.ts'
import type { Page, Position } from '../store.ts'

const clientColumns = sql.raw('id, name, status, created_at as "createdAt"')
const insertClient = statement(
  (d) =>
    sql`insert into clients (id, name, status, seq, created_at) values (${bind('id')}, ${bind('name')}, 'active', 0, ${d.now}) returning ${clientColumns}`,
)
export function* addClient(client: { id: string; name: string }): Script<Client> {
  return (yield* first<Client>(insertClient(client)))!
}
const readClient = statement(() => sql`select ${clientColumns} from clients where id = ${bind('id')} and status <> 'deleted'`)
export function* findClient(id: string): Script<Client | null> {
  return yield* first<Client>(readClient({ id }))
}
export function* listClients(limit: number, after: Position | null): Script<Page<Client>> {
  const beyond = after ? sql`and (created_at, id) > (${after.at}, ${after.id})` : sql``
  const found = yield* rows<Client>(
    query(() => sql`select ${clientColumns} from clients where status <> 'deleted' ${beyond} order by created_at, id limit ${limit + 1}`),
  )
  const items = found.slice(0, limit)
  const last = items.at(-1)
  return { items, next: found.length > limit && last ? { at: last.createdAt, id: last.id } : null }
}
const setStatus = statement(
  () => sql`update clients set status = ${bind('status')} where id = ${bind('id')} and status <> 'deleted' returning ${clientColumns}`,
)
export function* changeClient(id: string, status: ClientStatus): Script<Client | null> {
  return yield* first<Client>(setStatus({ id, status }))
}

const KEY = {
  id: 'text',
  client_id: 'text',
  name: 'text',
  hash: 'text',
  hint: 'text',
  scopes: 'text',
  expires_at: 'int8',
} as const
const keyNames = sql.raw(Object.keys(KEY).join(', '))
const insertKey = statement(
  (d) => sql`insert into keys (${keyNames}, created_at) select ${keyNames}, ${d.now} from ${d.records('keys', KEY)} v
    where v.client_id is null or exists (select 1 from clients c where c.id = v.client_id and c.status <> 'deleted') returning ${keyColumns}`,
)
/** Null: there is no such client. */
export function* addKey(key: Omit<Key, 'createdAt' | 'revokedAt' | 'lastUsedAt'>): Script<Key | null> {
  const { id, clientId: client_id, name, hash, hint, scopes, expiresAt: expires_at } = key
  return yield* first<Key>(insertKey({ keys: [{ id, client_id, name, hash, hint, scopes, expires_at }] }))
}
const readKey = statement(
  () => sql`select ${sql.raw('k.id as "id", k.client_id as "clientId", k.name as "name", k.hash as "hash", k.hint as "hint", k.scopes as "scopes", k.created_at as "createdAt", k.expires_at as "expiresAt", k.revoked_at as "revokedAt", k.last_used_at as "lastUsedAt"')},
    c.status as "clientStatus" from keys k left join clients c on c.id = k.client_id where k.hash = ${bind('hash')}`,
)
export function* findKey(hash: string): Script<(Key & { clientStatus: ClientStatus | null }) | null> {
  return yield* first<Key & { clientStatus: ClientStatus | null }>(readKey({ hash }))
}
const readKeys = statement(
  (d) =>
    sql`select ${keyColumns} from keys where ${d.name === 'postgres' ? sql`client_id is not distinct from ${bind('clientId')}` : sql`client_id is ${bind('clientId')}`} order by created_at, id`,
)
/** A client's keys; the operator's for null. */
export function* listKeys(clientId: string | null): Script<readonly Key[]> {
  return yield* rows<Key>(readKeys({ clientId }))
}
const revoke = statement(
  (d) =>
    sql`update keys set revoked_at = coalesce(revoked_at, ${d.now}) where id = ${bind('id')} and coalesce(client_id, '') = coalesce(${d.name === 'postgres' ? sql`${bind('clientId')}::text` : bind('clientId')}, '') returning ${keyColumns}`,
)
export function* revokeKey(id: string, clientId: string | null): Script<Key | null> {
  return yield* first<Key>(revoke({ id, clientId }))
}

const readSigningKeys = statement(() => sql`select ${signingKeyColumns} from signing_keys order by created_at, id`)
export function* listSigningKeys(): Script<SigningKey[]> {
  return [...(yield* rows<SigningKey>(readSigningKeys()))]
}
const SIGNING = {
  id: 'text',
  state: 'text',
  alg: 'text',
  public_jwk: 'text',
  private_jwk: 'text',
  created_at: 'int8',
  published_at: 'int8',
  activated_at: 'int8',
  retired_at: 'int8',
} as const
const signingNames = sql.raw(Object.keys(SIGNING).join(', '))
const insertSigningKeys = statement(
  (d) =>
    sql`insert into signing_keys (${signingNames}) select ${signingNames} from ${d.records('keys', SIGNING)} v where true order by v.state on conflict do nothing`,
)
/** Adds those whose slot (one active, one next) is free; answers all there are. Nodes that start at once end with one of each. */
export function* addSigningKeys(keys: readonly SigningKey[]): Script<SigningKey[]> {
  yield insertSigningKeys({
    keys: keys.map((key) => ({
      id: key.id,
      state: key.state,
      alg: key.alg,
      public_jwk: key.publicJwk,
      private_jwk: key.privateJwk,
      created_at: key.createdAt,
      published_at: key.publishedAt,
      activated_at: key.activatedAt,
      retired_at: key.retiredAt,
    })),
  })
  return yield* listSigningKeys()
}

const keep = statement(
  () => sql`insert into settings (name, value) values (${bind('name')}, ${bind('value')}) on conflict (name) do nothing`,
)
const readSetting = statement(() => sql`select value from settings where name = ${bind('name')}`)
/** Writes the value when there is none yet; answers what is there. */
export function* keepSetting(name: string, value: string): Script<string> {
  yield keep({ name, value })
  return (yield* first<{ value: string }>(readSetting({ name })))!.value
}
