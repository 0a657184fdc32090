/** Clients, and the installation's own settings. */
import type { Client } from '../../core/model.ts'
import type { Page, Position } from '../interfaces.ts'
import { type BoundStatement, bind, first, query, rows, type Script, sql, statement } from '../script.ts'
import { isAfter, toPage } from './shared.ts'

/** Prefix of the notification that a key, or every key of a client, may have changed. The id follows. */
export const ACCESS_CHANNEL = 'access:'
export const notifyAccess = (call: BoundStatement, id: string): BoundStatement => ({ ...call, notifies: [ACCESS_CHANNEL + id] })

/** Serializes additions to a client that are limited in number or must be unique. */
export const lockClient = statement((d) => sql`select id from clients where id = ${bind('id')} ${d.lock}`)

export const clientColumns = sql.raw('id, name, status, created_at as "createdAt"')
/** Deleted clients are not listed. */
export const IS_LISTED = sql.raw(`status in ('active', 'suspended')`)
const insertClient = statement(
  (d) =>
    sql`insert into clients (id, name, status, seq, created_at) values (${bind('id')}, ${bind('name')}, 'active', 0, ${d.now}) returning ${clientColumns}`,
)
export function* addClient(client: { id: string; name: string }): Script<Client> {
  return (yield* first<Client>(insertClient(client)))!
}
const readClient = statement(() => sql`select ${clientColumns} from clients where id = ${bind('id')} and ${IS_LISTED}`)
export function* findClient(id: string): Script<Client | null> {
  return yield* first<Client>(readClient({ id }))
}
export function* listClients(limit: number, after: Position | null): Script<Page<Client>> {
  const beyond = after ? sql`and ${isAfter(after)}` : sql``
  const found = yield* rows<Client>(
    query(() => sql`select ${clientColumns} from clients where ${IS_LISTED} ${beyond} order by created_at, id limit ${limit + 1}`),
  )
  return toPage(found, limit)
}
const setStatus = statement(
  () => sql`update clients set status = ${bind('status')} where id = ${bind('id')} and ${IS_LISTED} returning ${clientColumns}`,
)
export function* changeClient(id: string, status: 'active' | 'suspended'): Script<Client | null> {
  return yield* first<Client>(notifyAccess(setStatus({ id, status }), id))
}

const insertSetting = statement(
  () => sql`insert into settings (name, value) values (${bind('name')}, ${bind('value')}) on conflict (name) do nothing`,
)
const readSetting = statement(() => sql`select value from settings where name = ${bind('name')}`)
/** Writes the value when it is absent. Returns the stored value. */
export function* putSettingIfAbsent(name: string, value: string): Script<string> {
  yield insertSetting({ name, value })
  return (yield* first<{ value: string }>(readSetting({ name })))!.value
}

const updateSetting = statement(
  () => sql`update settings set value = ${bind('value')} where name = ${bind('name')} and value = ${bind('known')} returning name`,
)
/** Replaces a value that is still `known`. Returns whether it did. */
export function* compareAndSetSetting(name: string, known: string, value: string): Script<boolean> {
  return (yield* first(updateSetting({ name, known, value }))) !== null
}
