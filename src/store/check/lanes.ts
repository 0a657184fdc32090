/** What must hold for lanes, turns and endpoints; and what holds the deliveries of an endpoint. */
import { deliveryGateOf } from '../../core/circuit-breaker.ts'
import type { Endpoint, Millis } from '../../core/model.ts'
import { isJson } from '../../core/stored-json.ts'
import { strandedLanes } from '../queue/claim.ts'
import { FOREVER } from '../queue/fair-order.ts'
import { bind, rows, runAll, type Script, sql, statement } from '../script.ts'
import { DELIVERY_QUEUE, ids } from '../scripts/shared.ts'
import { type CheckPage, Findings, LARGE_PAGE, lastId, limitLarge as limit } from './checks.ts'

const stranded = { task: statement((d) => strandedLanes(d, 'tasks')), delivery: statement((d) => strandedLanes(d, 'deliveries')) }
/** Lanes with claimable work and no turn: without a repair, no claim would find them. */
export function* checkStrandedLanes(): Script<CheckPage<never>> {
  const [tasks, deliveries] = (yield* runAll([stranded.task(), stranded.delivery()])) as unknown as { lane_id: string }[][]
  const findings = new Findings()
  for (const { lane_id } of [...tasks!, ...deliveries!]) findings.add('lanes', `Lane ${lane_id} has claimable work but no turn.`)
  return { rowsChecked: 0, violations: findings.violations, next: null }
}

const readTurns = statement(
  () => sql`select seq, queue, client_id as "clientId", lane_id as "laneId", turn, alarm_at as "alarmAt" from turns
    where seq > ${bind('after')} order by seq ${limit}`,
)
export function* checkTurns(after: number): Script<CheckPage<number>> {
  const page = yield* rows<{ seq: number; queue: string; clientId: string; laneId: string; turn: Millis | null; alarmAt: Millis | null }>(
    readTurns({ after }),
  )
  const findings = new Findings()
  for (const { seq, queue, clientId, laneId, turn, alarmAt } of page) {
    const prefix = queue === DELIVERY_QUEUE ? 'endpoint_' : `${clientId}/${queue.slice('task/'.length)}`
    const rule = findings.about(`Turn ${seq} of`)
    rule(laneId.startsWith(prefix), 'lanes', `${clientId} in queue ${queue} is for lane ${laneId}.`)
    rule(turn !== null || alarmAt !== null, 'lanes', `lane ${laneId} has no time.`)
  }
  return findings.page(page, LARGE_PAGE, ({ seq }) => seq)
}

const readLanes = statement(
  () => sql`select id, cap, held_until as "heldUntil", filled from lanes where id > ${bind('after')} order by id ${limit}`,
)
const countRunning = statement(
  (d) => sql`select lane_id as id, count(*) as n from tasks where state = 'running' and lane_id ${d.anyOf(ids(d))} group by lane_id
    union all select lane_id, count(*) from deliveries where state = 'running' and lane_id ${d.anyOf(ids(d))} group by lane_id`,
)
export function* checkLanes(after: string): Script<CheckPage<string>> {
  const page = yield* rows<{ id: string; cap: number | null; heldUntil: Millis; filled: number }>(readLanes({ after }))
  const findings = new Findings()
  if (page.length === 0) return findings.page(page, LARGE_PAGE, lastId)
  const counted = yield* rows<{ id: string; n: number }>(countRunning({ ids: page.map(({ id }) => ({ id })) }))
  const running = new Map(counted.map(({ id, n }) => [id, n]))
  for (const { id, cap, filled } of page) {
    const n = running.get(id) ?? 0
    const rule = findings.about(`Lane ${id}`)
    rule(filled !== 1 || n > 0, 'lanes', 'is marked full but has no running work.')
    // The limit of an endpoint may have been lowered while more deliveries ran.
    rule(cap === null || n <= cap || id.startsWith('endpoint_'), 'lanes', `has a limit of ${cap} but ${n} running.`)
  }
  return findings.page(page, LARGE_PAGE, lastId)
}

const readEndpoints = statement(
  (d) => sql`select e.id as id, e.verified_at as "verifiedAt", e.paused_at as "pausedAt",
      e.disabled_at as "disabledAt", e.disabled_reason as "disabledReason", e.max_in_flight as "maxInFlight", e.events as events, e.task_types as "taskTypes", l.cap as cap, l.held_until as "heldUntil", c.id as owner
    from endpoints e ${d.leftJoin('lanes', 'l', sql`l.id = e.id`)} ${d.leftJoin('clients', 'c', sql`c.id = e.client_id`)}
    where e.id > ${bind('after')} and coalesce(e.deleted_at, 0) = 0 order by e.id ${limit}`,
)
type CheckedEndpoint = Pick<
  Endpoint,
  'id' | 'verifiedAt' | 'pausedAt' | 'disabledAt' | 'disabledReason' | 'maxInFlight' | 'events' | 'taskTypes'
> & { readonly cap: number | null; readonly heldUntil: Millis | null; readonly owner: string | null }
export function* checkEndpoints(after: string): Script<CheckPage<string>> {
  const page = yield* rows<CheckedEndpoint>(readEndpoints({ after }))
  const findings = new Findings()
  for (const endpoint of page) {
    const { id, cap, heldUntil, maxInFlight, owner, events, taskTypes } = endpoint
    const rule = findings.about(`Endpoint ${id}`)
    rule(owner !== null, 'traces', 'belongs to a client that does not exist.')
    rule(isJson(events) && isJson(taskTypes), 'rows', 'has event or task types that are not JSON.')
    rule(heldUntil !== null, 'lanes', 'has no lane.')
    if (heldUntil === null) continue
    const held = heldUntil >= FOREVER
    const shut = deliveryGateOf(endpoint) === 'shut'
    rule(shut === held, 'lanes', `may ${shut ? 'not ' : ''}be sent webhooks, but its lane is ${held ? 'held forever' : 'open'}.`)
    rule(cap === maxInFlight, 'lanes', `allows ${maxInFlight} in flight, but its lane allows ${cap}.`)
  }
  return findings.page(page, LARGE_PAGE, lastId)
}

/** Why an endpoint is sent nothing, or little. */
export type HoldReason = 'endpointDeleted' | 'endpointDisabled' | 'endpointUnverified' | 'endpointPaused' | 'breaker'
export interface OwedEndpoint {
  readonly id: string
  readonly clientId: string
  readonly url: string
  readonly hold: HoldReason | null
}
const readOwedEndpoints = statement(
  (d) => sql`select e.id as id, e.client_id as "clientId", e.url as url, e.deleted_at as "deletedAt",
      e.disabled_at as "disabledAt", e.verified_at as "verifiedAt", e.paused_at as "pausedAt", coalesce(l.probe_ms, 0) as "probeMs"
    from endpoints e ${d.leftJoin('lanes', 'l', sql`l.id = e.id`)} where e.id ${d.anyOf(ids(d))}`,
)
type OwedEndpointRow = Omit<OwedEndpoint, 'hold'> &
  Pick<Endpoint, 'disabledAt' | 'verifiedAt' | 'pausedAt'> & { readonly deletedAt: Millis | null; readonly probeMs: Millis }
/** These endpoints, and what holds them. */
export function* findOwedEndpoints(of: readonly string[]): Script<readonly OwedEndpoint[]> {
  const found = yield* rows<OwedEndpointRow>(readOwedEndpoints({ ids: of.map((id) => ({ id })) }))
  return found.map(({ id, clientId, url, ...row }) => ({ id, clientId, url, hold: holdOf(row) }))
}
function holdOf(row: Omit<OwedEndpointRow, 'id' | 'clientId' | 'url'>): HoldReason | null {
  if (row.deletedAt !== null) return 'endpointDeleted'
  if (row.disabledAt !== null) return 'endpointDisabled'
  if (row.verifiedAt === null) return 'endpointUnverified'
  if (row.pausedAt !== null) return 'endpointPaused'
  return row.probeMs > 0 ? 'breaker' : null
}
