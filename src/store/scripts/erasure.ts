/** Deletion of a client. One commit revokes its keys and stops its work; then its rows are erased, page by page. */
import type { Client } from '../../core/model.ts'
import { bind, execute, first, rows, type Script, sql, statement } from '../script.ts'
import { clientColumns, IS_LISTED, notifyAccess } from './clients.ts'
import { removeEndpoint } from './endpoints.ts'
import type { RenderContext } from './outbox.ts'
import { deleteQuotas } from './quotas.ts'
import { ids } from './shared.ts'
import { cancelTasks } from './tasks/change.ts'

/** Rows one commit removes: endpoints, each with up to 10,000 canceled deliveries, and rows of every other kind. */
const MAX_ENDPOINTS = 10
const MAX_ROWS = 500
/** Bytes of inputs in one commit: the event of a cancel holds the input. */
const MAX_BYTES = 8 * 1024 * 1024

const setDeleted = statement(
  () => sql`update clients set status = 'deleted' where id = ${bind('id')} and ${IS_LISTED} returning ${clientColumns}`,
)
const dropKeys = statement(() => sql`delete from keys where client_id = ${bind('id')}`)
const dropSchedules = statement(() => sql`delete from schedules where client_id = ${bind('id')}`)

/** From now on the client is not found and its keys do not work. {@link eraseClient} erases the rest. Null: there is no such client. */
export function* removeClient(id: string, view: RenderContext): Script<{ readonly client: Client; readonly stopped: StoppedWork } | null> {
  const client = yield* first<Client>(notifyAccess(setDeleted({ id }), id))
  if (!client) return null
  return { client, stopped: yield* stop(id, view) }
}

/** Tasks that were canceled or asked to end, for the notifications. */
export interface StoppedWork {
  readonly changed: readonly string[]
  readonly asked: readonly string[]
  readonly more: boolean
}
const readEndpoints = statement(
  () => sql`select id from endpoints where client_id = ${bind('id')} and deleted_at is null order by created_at, id limit ${bind('limit')}`,
)
// By lane, which begins with the client's id: ended tasks are not in these indexes.
const inLanes = sql`lane_id >= ${bind('from')} and lane_id < ${bind('to')}`
const readOpen = statement(
  () => sql`select id, octet_length(input) as bytes from (
      select * from (select id, input from tasks where state = 'pending' and ${inLanes} order by lane_id, line, rank, id limit ${bind('limit')}) p
      union all
      select * from (select id, input from tasks where state = 'running' and ${inLanes} and cancel_requested_at is null limit ${bind('limit')}) q) x`,
)
const lanesOf = (id: string) => ({ from: `${id}/`, to: `${id}0` })
/** Endpoints first, so that nothing more is sent; then open tasks, each with its terminal event. */
function* stop(id: string, view: RenderContext): Script<StoppedWork> {
  yield* execute([dropKeys({ id }), dropSchedules({ id })])
  const endpoints = yield* rows<{ id: string }>(readEndpoints({ id, limit: MAX_ENDPOINTS }))
  for (const endpoint of endpoints) yield* removeEndpoint(endpoint.id, id)
  const open = yield* rows<{ id: string; bytes: number }>(readOpen({ ...lanesOf(id), limit: MAX_ROWS }))
  const chosen: string[] = []
  let size = 0
  for (const task of open.slice(0, MAX_ROWS)) {
    size += task.bytes
    if (chosen.length > 0 && size > MAX_BYTES) break
    chosen.push(task.id)
  }
  const changed = chosen.length === 0 ? [] : yield* cancelTasks(chosen, id, view)
  return {
    changed: changed.map((task) => task.id),
    asked: changed.filter(({ state }) => state === 'running').map((task) => task.id),
    more: endpoints.length === MAX_ENDPOINTS || open.length > chosen.length || open.length >= MAX_ROWS,
  }
}

const readDeleted = statement(() => sql`select id from clients where status = 'deleted' and id > ${bind('after')} order by id limit 1`)
/** The next deleted client that may still have rows. */
export function* findDeletedClient(after: string): Script<string | null> {
  return (yield* first<{ id: string }>(readDeleted({ after })))?.id ?? null
}

/** Removes a page of a client's rows along an index that begins with the client. */
const removing = (table: string, order: string, which = '1 = 1') =>
  statement(
    (d) =>
      sql`delete from ${sql.raw(table)} where ${d.rowId} ${d.anyOf(
        sql`select x.${d.rowId} from ${sql.raw(table)} x where x.client_id = ${bind('id')} and ${sql.raw(which)}
      order by ${sql.raw(order)} limit ${bind('limit')} ${d.skipLocked}`,
      )} returning 1 as one`,
  )
const removeRest = [
  removing('tasks', 'x.created_at, x.id', `x.state not in ('pending', 'running')`),
  removing('events', 'x.seq'),
  removing('labels', 'x.name, x.value, x.created_at, x.task_id'),
  removing('idempotency', 'x.scope, x.key'),
]
const readDeliveries = statement(
  (d) =>
    sql`select id from deliveries where client_id = ${bind('id')} and state <> 'running' order by created_at, id limit ${bind('limit')} ${d.skipLocked}`,
)
const removeDeliveries = statement((d) => sql`delete from deliveries where id ${d.anyOf(ids(d))}`)
const removeAttempts = statement((d) => sql`delete from attempts where delivery_id ${d.anyOf(ids(d))}`)
const removeEndpoints = statement(
  (d) =>
    sql`delete from endpoints where id ${d.anyOf(
      sql`select e.id from endpoints e where e.client_id = ${bind('id')} and e.deleted_at is not null limit ${bind('limit')}`,
    )} returning id`,
)
const readOpenDelivery = statement(() => sql`select id from deliveries where client_id = ${bind('id')} limit 1`)
const clientTables = ['tasks', 'deliveries', 'endpoints', 'events', 'labels', 'idempotency', 'schedules', 'keys']
const readAnyLeft = statement(
  () =>
    sql`select ${sql.join(
      clientTables.map((table) => sql`exists (select 1 from ${sql.raw(table)} where client_id = ${bind('id')})`),
      sql` or `,
    )} as rest`,
)
const dropLanes = statement(() => sql`delete from lanes where id >= ${bind('from')} and id < ${bind('to')}`)
const setErased = statement(
  () => sql`update clients set status = 'erased', name = '' where id = ${bind('id')} and status = 'deleted' returning ${clientColumns}`,
)

export interface ErasedPage extends StoppedWork {
  /** `more`: call again at once. `open`: the rest has not ended. `nothing`: no row is left. */
  readonly remaining: 'more' | 'open' | 'nothing'
  /** Set by the commit that found nothing left and marked the client as erased. */
  readonly client: Client | null
}
/**
 * Stops and erases the next page of a deleted client, in one commit. With `last`, a client without rows is marked as erased and not looked at
 * again.
 */
export function* eraseClient(id: string, last: boolean, view: RenderContext): Script<ErasedPage> {
  const stopped = yield* stop(id, view)
  const at = (rest: ErasedPage['remaining'], client: Client | null = null): ErasedPage => ({ ...stopped, remaining: rest, client })
  if (stopped.more) return at('more')
  // Sending a delivery reads its event and endpoint, so those are removed after it.
  const ended = yield* rows<{ id: string }>(readDeliveries({ id, limit: MAX_ROWS }))
  if (ended.length > 0) yield* execute([removeAttempts({ ids: ended }), removeDeliveries({ ids: ended })])
  if (ended.length === MAX_ROWS) return at('more')
  if (yield* first(readOpenDelivery({ id }))) return at('open')
  let max = 0
  for (const remove of removeRest) max = Math.max(max, (yield* rows(remove({ id, limit: MAX_ROWS }))).length)
  max = Math.max(max, (yield* rows(removeEndpoints({ id, limit: MAX_ROWS }))).length)
  if (max === MAX_ROWS) return at('more')
  if ((yield* first<{ rest: number | boolean }>(readAnyLeft({ id })))!.rest) return at('open')
  yield* execute([dropLanes(lanesOf(id)), deleteQuotas({ quotas: ['read', 'write'].map((kind) => ({ key: `${kind}:${id}` })) })])
  return at('nothing', last ? yield* first<Client>(setErased({ id })) : null)
}
