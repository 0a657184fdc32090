/** The audit log. An entry is written in the transaction of the change it records. */
import { minIdAt } from '../../core/id.ts'
import {
  type ApiKey,
  type AuditAction,
  type AuditEntry,
  type Author,
  actors,
  type Client,
  type Delivery,
  type Endpoint,
  type Millis,
  type Schedule,
} from '../../core/model.ts'
import { auditColumns } from '../columns.ts'
import type {
  AuditQuery,
  ChangeResult,
  EndpointPatch,
  Page,
  Position,
  SchedulePatch,
  SigningKeyRotation,
  TaskChange,
} from '../interfaces.ts'
import { bind, execute, first, now, query, rows, type Script, sql, statement } from '../script.ts'
import { all } from './shared.ts'

export interface AuditRecord {
  readonly action: AuditAction
  readonly target: string | null
  readonly clientId: string | null
  readonly details?: object
}

/** The author of what the platform does by itself. */
export const SYSTEM_AUTHOR: Author = { actor: actors.system, requestId: null, remoteAddress: null }

/** An id that holds this time of the store's clock. */
export type NewAuditId = (at: Millis) => string

const insertEntry = statement(
  () => sql`insert into audit_log (id, at, actor, action, target, client_id, details, request_id, remote_address)
    values (${bind('id')}, ${bind('at')}, ${bind('actor')}, ${bind('action')}, ${bind('target')}, ${bind('clientId')}, ${bind('details')}, ${bind('requestId')}, ${bind('remoteAddress')})`,
)
/** The id holds the time of the entry by the store's clock, so the log has one order. */
function* append({ actor, requestId, remoteAddress }: Author, record: AuditRecord, newId: NewAuditId): Script<void> {
  const at = yield* now()
  const { action, target, clientId, details = {} } = record
  const id = newId(at)
  yield* execute([insertEntry({ id, at, actor, action, target, clientId, details: JSON.stringify(details), requestId, remoteAddress })])
}
/** Runs a script and writes the entry made from its answer. Null: nothing was changed, and there is no entry. */
export function* withAuditRecord<R>(
  by: Author,
  script: Script<R>,
  toRecord: (answer: R) => AuditRecord | null,
  newId: NewAuditId,
): Script<R> {
  const answer = yield* script
  const done = toRecord(answer)
  if (done) yield* append(by, done, newId)
  return answer
}

type RecordOf<R> = (answer: R) => AuditRecord | null
/** The author when the operator acts on a client's object. What a client does to its own objects makes no entry. */
export const operatorAuthor = (by: Author | undefined, clientId: string | null): Author | undefined => (clientId === null ? by : undefined)

export const clientRecord =
  (action: AuditAction): RecordOf<Client | null> =>
  (client) =>
    client && { action, target: client.id, clientId: client.id, details: client.name === '' ? {} : { name: client.name } }
export const keyRecord =
  (action: AuditAction, details: object = {}): RecordOf<ApiKey | null> =>
  (key) =>
    key && { action, target: key.id, clientId: key.clientId, details: { name: key.name, scopes: JSON.parse(key.scopes), ...details } }
export const taskRecord =
  (action: AuditAction): RecordOf<TaskChange> =>
  (change) =>
    change.kind !== 'changed'
      ? null
      : { action, target: change.task.id, clientId: change.task.clientId, details: { type: change.task.type } }
export const taskTypeRecord = (type: string, paused: boolean) => (): AuditRecord => ({
  action: paused ? 'taskType.pause' : 'taskType.resume',
  target: type,
  clientId: null,
})
export const deliveryRecord =
  (action: AuditAction, target: string): RecordOf<Delivery | null> =>
  (sent) =>
    sent && { action, target, clientId: sent.clientId, details: { deliveryId: sent.id, endpointId: sent.endpointId } }
export const scheduleRecord =
  (patch: SchedulePatch): RecordOf<ChangeResult<Schedule>> =>
  (changed) =>
    changed.kind !== 'changed'
      ? null
      : { action: 'schedule.change', target: changed.value.id, clientId: changed.value.clientId, details: { members: Object.keys(patch) } }
export const signingKeyRecord =
  (action: AuditAction, target: string | null): RecordOf<unknown> =>
  (keys) =>
    keys === null ? null : { action, target, clientId: null }

export const keyRotationRecord =
  ({ activate, retire }: SigningKeyRotation): RecordOf<{ readonly rotated: boolean }> =>
  ({ rotated }) =>
    rotated ? { action: 'signingKey.rotate', target: activate, clientId: null, details: retire === null ? {} : { retired: retire } } : null

/** Only the origin of a URL: its path may hold a token. */
export const endpointRecord =
  (action: AuditAction): RecordOf<Endpoint | null> =>
  (endpoint) =>
    endpoint && { action, target: endpoint.id, clientId: endpoint.clientId, details: { origin: new URL(endpoint.url).origin } }
export const endpointChangeRecord =
  (patch: EndpointPatch): RecordOf<ChangeResult<Endpoint>> =>
  (changed) => {
    if (changed.kind !== 'changed') return null
    const record = endpointRecord(actionOf(patch))(changed.value)!
    return record.action === 'endpoint.change' ? { ...record, details: { ...record.details, members: Object.keys(patch) } } : record
  }
const actionOf = ({ url, secret, paused, disabled, verified }: EndpointPatch): AuditAction => {
  if (url !== undefined) return 'endpoint.change'
  if (secret !== undefined) return 'endpoint.rotateSecret'
  if (paused === true) return 'endpoint.pause'
  if (paused === false || disabled === false) return 'endpoint.resume'
  return verified === undefined ? 'endpoint.change' : 'endpoint.verify'
}
/** The answer is the id of the client that owned the object. */
export const removalRecord =
  (action: AuditAction, target: string): RecordOf<string | null> =>
  (clientId) =>
    clientId === null ? null : { action, target, clientId }

/** Rows one page reads, matching or not. A page of a filter that matches nothing ends early; `next` is where to continue. */
const SCANNED = 10_000

/** Newest first. */
export function* listAuditLog({ clientId, actor, action, since, until, limit, after }: AuditQuery): Script<Page<AuditEntry>> {
  const place = [
    ...(clientId === undefined ? [] : [sql`client_id = ${clientId}`]),
    ...(since === undefined ? [] : [sql`id >= ${minIdAt('audit', since)}`]),
    ...(until === undefined ? [] : [sql`id < ${minIdAt('audit', until)}`]),
    ...(after === null ? [] : [sql`id < ${after.id}`]),
  ]
  const wanted = [...(actor === undefined ? [] : [sql`actor = ${actor}`]), ...(action === undefined ? [] : [sql`action = ${action}`])]
  const scanned = sql`select * from audit_log where ${all(place)} order by id desc limit ${wanted.length === 0 ? limit + 1 : SCANNED}`
  const found = yield* rows<AuditEntry>(
    query(() => sql`select ${auditColumns} from (${scanned}) scanned where ${all(wanted)} order by id desc limit ${limit + 1}`),
  )
  const items = found.slice(0, limit)
  if (found.length > limit) return { items, next: { at: items.at(-1)!.at, id: items.at(-1)!.id } }
  if (wanted.length === 0) return { items, next: null }
  const next = yield* first<Position>(
    query(() => sql`select at, id from audit_log where ${all(place)} order by id desc limit 1 offset ${SCANNED - 1}`),
  )
  return { items, next }
}
const prune = statement(
  (d) =>
    sql`delete from audit_log where id ${d.anyOf(
      sql`select x.id from audit_log x where x.id < ${bind('floor')} order by x.id limit ${bind('limit')} ${d.skipLocked}`,
    )} returning id`,
)
/** Removes entries older than `keepMs`. Returns how many. */
export function* pruneAuditLog(limit: number, keepMs: Millis): Script<number> {
  const at = yield* now()
  return (yield* rows(prune({ floor: minIdAt('audit', at - keepMs), limit }))).length
}
