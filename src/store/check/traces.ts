/** What must hold for rows that belong to others: labels, attempts, idempotency keys, tombstones, schedules. */
import type { Attempt, Millis } from '../../core/model.ts'
import { isJson } from '../../core/stored-json.ts'
import { bind, rows, type Script, sql, statement } from '../script.ts'
import { idRows, ids } from '../scripts/shared.ts'
import type { Idempotency } from '../types.ts'
import { type CheckPage, Findings, LARGE_PAGE, lastId, limitLarge as limit, withoutDeletedClients } from './checks.ts'
import { findTaskFates } from './events.ts'

const readSchedules = statement(
  (d) => sql`select s.id as id, s.template as template, s.paused_at as "pausedAt", s.next_at as "nextAt", c.id as owner
    from schedules s ${d.leftJoin('clients', 'c', sql`c.id = s.client_id`)} where s.id > ${bind('after')} order by s.id ${limit}`,
)
export function* checkSchedules(after: string): Script<CheckPage<string>> {
  const page = yield* rows<{ id: string; template: string; pausedAt: Millis | null; nextAt: Millis | null; owner: string | null }>(
    readSchedules({ after }),
  )
  const findings = new Findings()
  for (const { id, template, pausedAt, nextAt, owner } of page) {
    const rule = findings.about(`Schedule ${id}`)
    rule(isJson(template), 'rows', 'has a template that is not JSON.')
    rule(pausedAt === null || nextAt === null, 'rows', 'is paused but has a next tick.')
    rule(owner !== null, 'traces', 'belongs to a client that does not exist.')
  }
  return findings.page(page, LARGE_PAGE, lastId)
}

export interface LabelMark {
  readonly clientId: string
  readonly name: string
  readonly value: string
  readonly createdAt: Millis
  readonly taskId: string
}
const FIRST_LABEL: LabelMark = { clientId: '', name: '', value: '', createdAt: 0, taskId: '' }
const readLabels = statement(
  () => sql`select client_id as "clientId", name, value, created_at as "createdAt", task_id as "taskId" from labels
    where (client_id, name, value, created_at, task_id) > (${bind('clientId')}, ${bind('name')}, ${bind('value')}, ${bind('createdAt')}, ${bind('taskId')})
    order by client_id, name, value, created_at, task_id ${limit}`,
)
export function* checkLabels(after: LabelMark | null): Script<CheckPage<LabelMark>> {
  const page = yield* rows<LabelMark>(readLabels({ ...(after ?? FIRST_LABEL) }))
  const { existing } = yield* findTaskFates(page.map(({ taskId }) => taskId))
  const findings = new Findings()
  for (const { name, taskId } of yield* withoutDeletedClients(page))
    findings.about(`Label ${JSON.stringify(name)}`)(existing.has(taskId), 'traces', `belongs to task ${taskId}, which does not exist.`)
  return findings.page(page, LARGE_PAGE, (last) => last)
}

export type AttemptMark = Pick<Attempt, 'deliveryId' | 'fence'>
const readAttempts = statement(
  () => sql`select delivery_id as "deliveryId", fence from attempts where (delivery_id, fence) > (${bind('deliveryId')}, ${bind('fence')})
    order by delivery_id, fence ${limit}`,
)
const readDeliveries = statement((d) => sql`select id from deliveries where id ${d.anyOf(ids(d))}`)
export function* checkAttempts(after: AttemptMark | null): Script<CheckPage<AttemptMark>> {
  const page = yield* rows<AttemptMark>(readAttempts({ deliveryId: after?.deliveryId ?? '', fence: after?.fence ?? 0 }))
  const found = yield* rows<{ id: string }>(readDeliveries({ ids: idRows(page.map(({ deliveryId }) => deliveryId)) }))
  const known = new Set(found.map(lastId))
  const findings = new Findings()
  for (const { deliveryId, fence } of page)
    findings.about(`Attempt ${fence}`)(known.has(deliveryId), 'traces', `belongs to delivery ${deliveryId}, which does not exist.`)
  return findings.page(page, LARGE_PAGE, (last) => last)
}

export type KeyMark = Pick<Idempotency, 'clientId' | 'scope' | 'key'>
const readKeys = statement(
  (d) => sql`select client_id as "clientId", scope, key, task_ids as "taskIds", case when expires_at > ${d.now} then 1 else 0 end as valid
    from idempotency where (client_id, scope, key) > (${bind('clientId')}, ${bind('scope')}, ${bind('key')}) order by client_id, scope, key ${limit}`,
)
export function* checkIdempotencyKeys(after: KeyMark | null): Script<CheckPage<KeyMark>> {
  const page = yield* rows<KeyMark & { taskIds: string; valid: number }>(readKeys({ ...(after ?? { clientId: '', scope: '', key: '' }) }))
  const named = page.map((row) => ({ ...row, tasks: isJson(row.taskIds) ? (JSON.parse(row.taskIds) as string[]) : null }))
  const { existing, erased } = yield* findTaskFates(named.flatMap(({ tasks }) => tasks ?? []))
  const findings = new Findings()
  for (const { key, clientId, tasks, valid } of yield* withoutDeletedClients(named)) {
    if (valid !== 1) continue
    const rule = findings.about(`Idempotency key ${JSON.stringify(key)} of ${clientId}`)
    rule(tasks !== null, 'traces', 'has task ids that are not JSON.')
    for (const id of tasks ?? [])
      rule(existing.has(id) || erased.has(id), 'traces', `created task ${id}, which neither exists nor was erased.`)
  }
  return findings.page(page, LARGE_PAGE, ({ clientId, scope, key }) => ({ clientId, scope, key }))
}

const readTombstones = statement(() => sql`select id from tombstones where id > ${bind('after')} order by id ${limit}`)
export function* checkTombstones(after: string): Script<CheckPage<string>> {
  const page = yield* rows<{ id: string }>(readTombstones({ after }))
  const { existing } = yield* findTaskFates(page.map(lastId))
  const findings = new Findings()
  for (const { id } of page) findings.about(`Task ${id}`)(!existing.has(id), 'traces', 'has a tombstone but exists.')
  return findings.page(page, LARGE_PAGE, lastId)
}
