/** What the consistency check reads beside tasks, events and deliveries: lanes and turns, feeds, labels, idempotency keys, tombstones. */
import { deliveryGateOf } from '../../core/circuit-breaker.ts'
import type { Endpoint, Millis } from '../../core/model.ts'
import { isJson } from '../../core/stored-json.ts'
import { strandedLanes } from '../queue/claim.ts'
import { FOREVER } from '../queue/fair-order.ts'
import { bind, now, rows, runAll, type Script, sql, statement } from '../script.ts'
import { TOMBSTONE_MS } from '../scripts/retention.ts'
import { type CheckName, type CheckPage, idRecords, idsOf, nextMark, type Violation, withoutDeletedClients } from './checks.ts'
import type { OpenReason } from './deliveries.ts'
import { findTaskFates } from './events.ts'

const PAGE = 2_000
const limit = sql.raw(`limit ${PAGE}`)

// Lanes and turns.

const stranded = { task: statement((d) => strandedLanes(d, 'tasks')), delivery: statement((d) => strandedLanes(d, 'deliveries')) }
/** Lanes with claimable work and no turn: without a repair, no claim would find them. */
export function* checkStrandedLanes(): Script<CheckPage<never>> {
  const [tasks, deliveries] = (yield* runAll([stranded.task(), stranded.delivery()])) as unknown as { lane_id: string }[][]
  const violations = [...tasks!, ...deliveries!].map(
    ({ lane_id }): Violation => ({
      check: 'lanes',
      sentence: `Lane ${lane_id} has something to do and no turn.`,
    }),
  )
  return { rowsChecked: 0, violations, next: null }
}

const readTurns = statement(
  () => sql`select seq, queue, client_id as "clientId", lane_id as "laneId", turn, alarm_at as "alarmAt" from turns
    where seq > ${bind('after')} order by seq ${limit}`,
)
export function* checkTurns(after: number): Script<CheckPage<number>> {
  const page = yield* rows<{ seq: number; queue: string; clientId: string; laneId: string; turn: Millis | null; alarmAt: Millis | null }>(
    readTurns({ after }),
  )
  const violations: Violation[] = []
  for (const { seq, queue, clientId, laneId, turn, alarmAt } of page) {
    const lane = queue === 'delivery' ? 'endpoint_' : `${clientId}/${queue.slice('task/'.length)}`
    if (!laneId.startsWith(lane))
      violations.push({ check: 'lanes', sentence: `Turn ${seq} of ${clientId} in queue ${queue} is for lane ${laneId}.` })
    if (turn === null && alarmAt === null)
      violations.push({ check: 'lanes', sentence: `Turn ${seq} of lane ${laneId} is for no time at all.` })
  }
  return { rowsChecked: page.length, violations, next: nextMark(page, PAGE, ({ seq }) => seq) }
}

const readLanes = statement(
  () => sql`select id, cap, held_until as "heldUntil", filled from lanes where id > ${bind('after')} order by id ${limit}`,
)
const countRunning = statement(
  (d) => sql`select lane_id as id, count(*) as n from tasks where state = 'running' and lane_id ${d.anyOf(idsOf(d))} group by lane_id
    union all select lane_id, count(*) from deliveries where state = 'running' and lane_id ${d.anyOf(idsOf(d))} group by lane_id`,
)
export function* checkLanes(after: string): Script<CheckPage<string>> {
  const page = yield* rows<{ id: string; cap: number | null; heldUntil: Millis; filled: number }>(readLanes({ after }))
  if (page.length === 0) return { rowsChecked: 0, violations: [], next: null }
  const counted = yield* rows<{ id: string; n: number }>(countRunning({ ids: page.map(({ id }) => ({ id })) }))
  const running = new Map(counted.map(({ id, n }) => [id, n]))
  const violations: Violation[] = []
  for (const { id, cap, filled } of page) {
    const n = running.get(id) ?? 0
    if (filled === 1 && n === 0) violations.push({ check: 'lanes', sentence: `Lane ${id} is marked full, and nothing of it runs.` })
    // The limit of an endpoint may have been lowered while more deliveries ran.
    if (cap !== null && n > cap && !id.startsWith('endpoint_'))
      violations.push({ check: 'lanes', sentence: `Lane ${id} lets ${cap} run at once, and ${n} run.` })
  }
  return { rowsChecked: page.length, violations, next: nextMark(page, PAGE, ({ id }) => id) }
}

const readEndpoints = statement(
  (
    d,
  ) => sql`select e.id as id, e.verified_at as "verifiedAt", e.paused_at as "pausedAt", e.disabled_at as "disabledAt", e.disabled_reason as "disabledReason",
      e.max_in_flight as "maxInFlight", e.events as events, e.task_types as "taskTypes", l.cap as cap, l.held_until as "heldUntil", c.id as owner
    from endpoints e ${d.leftJoin('lanes', 'l', sql`l.id = e.id`)} ${d.leftJoin('clients', 'c', sql`c.id = e.client_id`)}
    where e.id > ${bind('after')} and coalesce(e.deleted_at, 0) = 0 order by e.id ${limit}`,
)
type CheckedEndpoint = Pick<
  Endpoint,
  'id' | 'verifiedAt' | 'pausedAt' | 'disabledAt' | 'disabledReason' | 'maxInFlight' | 'events' | 'taskTypes'
> & {
  readonly cap: number | null
  readonly heldUntil: Millis | null
  readonly owner: string | null
}
export function* checkEndpoints(after: string): Script<CheckPage<string>> {
  const page = yield* rows<CheckedEndpoint>(readEndpoints({ after }))
  const violations: Violation[] = []
  for (const endpoint of page) {
    const { id, cap, heldUntil, maxInFlight, owner, events, taskTypes } = endpoint
    const must = (holds: boolean, check: CheckName, sentence: string): void =>
      void (holds || violations.push({ check, sentence: `Endpoint ${id} ${sentence}` }))
    must(owner !== null, 'traces', 'belongs to a client that is not there.')
    must(isJson(events) && isJson(taskTypes), 'rows', 'subscribes to what is not JSON.')
    if (heldUntil === null) {
      must(false, 'lanes', 'has no lane.')
      continue
    }
    const shut = deliveryGateOf(endpoint) === 'shut'
    must(
      shut === heldUntil >= FOREVER,
      'lanes',
      shut ? 'is sent nothing, and its lane is open.' : 'is sent to, and its lane is held for good.',
    )
    must(cap === maxInFlight, 'lanes', `takes ${maxInFlight} at once, and its lane ${cap}.`)
  }
  return { rowsChecked: page.length, violations, next: nextMark(page, PAGE, ({ id }) => id) }
}

const readSchedules = statement(
  (d) => sql`select s.id as id, s.template as template, s.paused_at as "pausedAt", s.next_at as "nextAt", c.id as owner
    from schedules s ${d.leftJoin('clients', 'c', sql`c.id = s.client_id`)} where s.id > ${bind('after')} order by s.id ${limit}`,
)
export function* checkSchedules(after: string): Script<CheckPage<string>> {
  const page = yield* rows<{ id: string; template: string; pausedAt: Millis | null; nextAt: Millis | null; owner: string | null }>(
    readSchedules({ after }),
  )
  const violations: Violation[] = []
  for (const { id, template, pausedAt, nextAt, owner } of page) {
    if (!isJson(template)) violations.push({ check: 'rows', sentence: `Schedule ${id} makes tasks of what is not JSON.` })
    if (pausedAt !== null && nextAt !== null)
      violations.push({ check: 'rows', sentence: `Schedule ${id} is paused, and its next tick has a time.` })
    if (owner === null) violations.push({ check: 'traces', sentence: `Schedule ${id} belongs to a client that is not there.` })
  }
  return { rowsChecked: page.length, violations, next: nextMark(page, PAGE, ({ id }) => id) }
}

// Feeds.

/** A position in a client's feed. */
export interface FeedMark {
  readonly clientId: string
  readonly seq: number
  readonly createdAt: Millis
}
const readFeed = statement(
  () => sql`select client_id as "clientId", seq, created_at as "createdAt" from events
    where (client_id, seq) > (${bind('clientId')}, ${bind('seq')}) order by client_id, seq ${limit}`,
)
const readClients = statement((d) => sql`select id, created_at as "createdAt", seq from clients where id ${d.anyOf(idsOf(d))}`)
const readCounts = statement(
  () => sql`select c.id as id, c.created_at as "createdAt", c.seq as seq, coalesce((select e.seq from events e where e.client_id = c.id order by e.seq desc limit 1), 0) as last,
      (select e.created_at from events e where e.client_id = c.id order by e.seq desc limit 1) as "lastAt"
    from clients c where c.id > ${bind('after')} and c.status in ('active', 'suspended') order by c.id ${limit}`,
)
const readAged = statement((d) => sql`select client_id as id from tombstones where client_id ${d.anyOf(idsOf(d))} group by client_id`)
/** Events get their numbers shortly after their timestamps. */
const SLACK_MS: Millis = 3_600_000

interface Gap extends FeedMark {
  readonly upTo: number
}
/**
 * The gaps without an explanation. Endpoint events older than `keptMs` are pruned, and a pruned task leaves a tombstone for a week. So a gap after
 * an event younger than both needs a tombstone of the client.
 */
function* unexplained(gaps: readonly Gap[], keptMs: Millis): Script<readonly Violation[]> {
  const at = yield* now()
  const young = gaps.filter(({ createdAt }) => createdAt > at - Math.min(keptMs, TOMBSTONE_MS) + SLACK_MS)
  if (young.length === 0) return []
  const aged = new Set(
    (yield* rows<{ id: string }>(readAged({ ids: idRecords(young.map(({ clientId }) => clientId)) }))).map(({ id }) => id),
  )
  return young
    .filter(({ clientId }) => !aged.has(clientId))
    .map(({ clientId, seq, upTo }) => ({
      check: 'feeds',
      sentence: `The feed of ${clientId} goes on with ${upTo} after ${seq}, and nothing of it has aged out.`,
    }))
}

/** `keptMs`: how long endpoint events are kept. */
export function* checkFeeds(after: FeedMark | null, keptMs: Millis): Script<CheckPage<FeedMark>> {
  const page = yield* rows<FeedMark>(readFeed({ clientId: after?.clientId ?? '', seq: after?.seq ?? 0 }))
  const clients = new Map(
    (yield* rows<{ id: string; createdAt: Millis; seq: number }>(
      readClients({ ids: idRecords(page.map(({ clientId }) => clientId)) }),
    )).map((c) => [c.id, c]),
  )
  const gaps: Gap[] = []
  const violations: Violation[] = []
  let before = after
  for (const mark of yield* withoutDeletedClients(page)) {
    const client = clients.get(mark.clientId)
    if (!client) violations.push({ check: 'feeds', sentence: `Event ${mark.seq} is in the feed of ${mark.clientId}, which is not there.` })
    else {
      if (mark.seq > client.seq)
        violations.push({ check: 'feeds', sentence: `The feed of ${client.id} has event ${mark.seq}, and has counted ${client.seq}.` })
      const last = before?.clientId === client.id ? before : { clientId: client.id, seq: 0, createdAt: client.createdAt }
      if (mark.seq > last.seq + 1) gaps.push({ ...last, upTo: mark.seq })
    }
    before = mark
  }
  violations.push(...(yield* unexplained(gaps, keptMs)))
  return { rowsChecked: page.length, violations, next: nextMark(page, PAGE, (last) => last) }
}

/** Checks the ends of feeds: the last event has the number of the client's counter. */
export function* checkClients(after: string, keptMs: Millis): Script<CheckPage<string>> {
  const page = yield* rows<{ id: string; createdAt: Millis; seq: number; last: number; lastAt: Millis | null }>(readCounts({ after }))
  const short = page
    .filter(({ seq, last }) => last < seq)
    .map(({ id, createdAt, seq, last, lastAt }): Gap => ({ clientId: id, seq: last, createdAt: lastAt ?? createdAt, upTo: seq + 1 }))
  return { rowsChecked: page.length, violations: yield* unexplained(short, keptMs), next: nextMark(page, PAGE, ({ id }) => id) }
}

// What names tasks and deliveries.

export interface LabelMark {
  readonly clientId: string
  readonly name: string
  readonly value: string
  readonly createdAt: Millis
  readonly taskId: string
}
const readLabels = statement(
  () => sql`select client_id as "clientId", name, value, created_at as "createdAt", task_id as "taskId" from labels
    where (client_id, name, value, created_at, task_id) > (${bind('clientId')}, ${bind('name')}, ${bind('value')}, ${bind('createdAt')}, ${bind('taskId')})
    order by client_id, name, value, created_at, task_id ${limit}`,
)
export function* checkLabels(after: LabelMark | null): Script<CheckPage<LabelMark>> {
  const page = yield* rows<LabelMark>(readLabels({ ...(after ?? { clientId: '', name: '', value: '', createdAt: 0, taskId: '' }) }))
  const { existing: there } = yield* findTaskFates(page.map(({ taskId }) => taskId))
  const violations = (yield* withoutDeletedClients(page))
    .filter(({ taskId }) => !there.has(taskId))
    .map(
      ({ name, taskId }): Violation => ({
        check: 'traces',
        sentence: `Label ${JSON.stringify(name)} names task ${taskId}, which is not there.`,
      }),
    )
  return { rowsChecked: page.length, violations, next: nextMark(page, PAGE, (last) => last) }
}

export interface AttemptMark {
  readonly deliveryId: string
  readonly fence: number
}
const readAttempts = statement(
  () => sql`select delivery_id as "deliveryId", fence from attempts where (delivery_id, fence) > (${bind('deliveryId')}, ${bind('fence')})
    order by delivery_id, fence ${limit}`,
)
const readDeliveries = statement((d) => sql`select id from deliveries where id ${d.anyOf(idsOf(d))}`)
export function* checkAttempts(after: AttemptMark | null): Script<CheckPage<AttemptMark>> {
  const page = yield* rows<AttemptMark>(readAttempts({ deliveryId: after?.deliveryId ?? '', fence: after?.fence ?? 0 }))
  const known = new Set(
    (yield* rows<{ id: string }>(readDeliveries({ ids: idRecords(page.map(({ deliveryId }) => deliveryId)) }))).map(({ id }) => id),
  )
  const violations = page
    .filter(({ deliveryId }) => !known.has(deliveryId))
    .map(
      ({ deliveryId, fence }): Violation => ({
        check: 'traces',
        sentence: `Attempt ${fence} is of delivery ${deliveryId}, which is not there.`,
      }),
    )
  return { rowsChecked: page.length, violations, next: nextMark(page, PAGE, (last) => last) }
}

export interface KeyMark {
  readonly clientId: string
  readonly scope: string
  readonly key: string
}
const readKeys = statement(
  (
    d,
  ) => sql`select client_id as "clientId", scope, key, task_ids as "taskIds", case when expires_at > ${d.now} then 1 else 0 end as valid from idempotency
    where (client_id, scope, key) > (${bind('clientId')}, ${bind('scope')}, ${bind('key')}) order by client_id, scope, key ${limit}`,
)
export function* checkIdempotencyKeys(after: KeyMark | null): Script<CheckPage<KeyMark>> {
  const page = yield* rows<KeyMark & { taskIds: string; valid: number }>(readKeys({ ...(after ?? { clientId: '', scope: '', key: '' }) }))
  const named = page.map((row) => ({ ...row, tasks: isJson(row.taskIds) ? (JSON.parse(row.taskIds) as string[]) : null }))
  const { existing: there, erased } = yield* findTaskFates(named.flatMap(({ tasks }) => tasks ?? []))
  const violations = (yield* withoutDeletedClients(named))
    .filter(({ valid }) => valid === 1)
    .flatMap(({ key, clientId, tasks }): Violation[] => {
      const it = `Idempotency key ${JSON.stringify(key)} of ${clientId}`
      if (tasks === null) return [{ check: 'traces', sentence: `${it} names tasks in what is not JSON.` }]
      return tasks
        .filter((id) => !there.has(id) && !erased.has(id))
        .map((id): Violation => ({ check: 'traces', sentence: `${it} made task ${id}, which is not there and was not erased.` }))
    })
  return { rowsChecked: page.length, violations, next: nextMark(page, PAGE, ({ clientId, scope, key }) => ({ clientId, scope, key })) }
}

const readTombstones = statement(() => sql`select id from tombstones where id > ${bind('after')} order by id ${limit}`)
export function* checkTombstones(after: string): Script<CheckPage<string>> {
  const page = yield* rows<{ id: string }>(readTombstones({ after }))
  const { existing: there } = yield* findTaskFates(page.map(({ id }) => id))
  const violations = page
    .filter(({ id }) => there.has(id))
    .map(({ id }): Violation => ({ check: 'traces', sentence: `Task ${id} has a tombstone, and is there.` }))
  return { rowsChecked: page.length, violations, next: nextMark(page, PAGE, ({ id }) => id) }
}

// Why an endpoint is sent nothing, or little.

/** Why an endpoint is sent nothing, or little. */
export type HoldReason = 'endpointDeleted' | 'endpointDisabled' | 'endpointUnverified' | 'endpointPaused' | 'breaker'
export interface OwedEndpoint {
  readonly id: string
  readonly clientId: string
  readonly url: string
  readonly hold: HoldReason | null
}
const readOwedEndpoints = statement(
  (
    d,
  ) => sql`select e.id as id, e.client_id as "clientId", e.url as url, e.deleted_at as "deletedAt", e.disabled_at as "disabledAt", e.verified_at as "verifiedAt",
      e.paused_at as "pausedAt", coalesce(l.probe_ms, 0) as "probeMs"
    from endpoints e ${d.leftJoin('lanes', 'l', sql`l.id = e.id`)} where e.id ${d.anyOf(idsOf(d))}`,
)
type OwedEndpointRow = Omit<OwedEndpoint, 'hold'> &
  Pick<Endpoint, 'disabledAt' | 'verifiedAt' | 'pausedAt'> & { readonly deletedAt: Millis | null; readonly probeMs: Millis }
/** These endpoints, and what holds them. */
export function* findOwedEndpoints(ids: readonly string[]): Script<readonly OwedEndpoint[]> {
  return (yield* rows<OwedEndpointRow>(readOwedEndpoints({ ids: ids.map((id) => ({ id })) }))).map(({ id, clientId, url, ...row }) => ({
    id,
    clientId,
    url,
    hold: holdOf(row),
  }))
}
function holdOf({
  deletedAt,
  disabledAt,
  verifiedAt,
  pausedAt,
  probeMs,
}: Omit<OwedEndpointRow, 'id' | 'clientId' | 'url'>): HoldReason | null {
  if (deletedAt !== null) return 'endpointDeleted'
  if (disabledAt !== null) return 'endpointDisabled'
  if (verifiedAt === null) return 'endpointUnverified'
  if (pausedAt !== null) return 'endpointPaused'
  return probeMs > 0 ? 'breaker' : null
}
export type OpenDeliveryReason = OpenReason | HoldReason
