/**
 * Claims: the cost of a claim does not grow with the backlog of other clients.
 *
 * 1. Every change that makes a lane claimable (adds or returns a row, frees a slot of a full lane, ends a hold) adds a turn in the same commit.
 * 2. A visit of a lane first deletes its turns, then reads its rows, and adds one turn if work is left.
 * 3. Running rows are counted under the lane's row lock, by a statement that starts after the lock was taken.
 *
 * A full lane has no turn: it is marked filled, and the settlement that frees a slot adds one. A held lane has at most an alarm. So lanes without
 * claimable work cost a claim nothing. Lanes and clients that this node's slots refuse keep their turns, for other nodes and for later. A claim skips
 * them, at the cost of one row for each client.
 */
import { concurrencyLimitOf } from '../../core/circuit-breaker.ts'
import { type Allotment, type SlotRefusal, unlimitedAllotment } from '../../core/fair-share.ts'
import type { Millis, Work, WorkKind } from '../../core/model.ts'
import type { ClaimResult } from '../interfaces.ts'
import { bind, callFor, type Dialect, execute, type RecordColumns, rows, runAll, type Script, sql, statement } from '../script.ts'
import {
  countClients,
  type FairCursor,
  type LaneDemand,
  type LaneHead,
  type LaneRule,
  maxTurns,
  planStarts,
  type QueuedTurn,
  type QueueScan,
  shareSlots,
  splitStale,
} from './fair-order.ts'
import { addLanes, ids, KEY_CONCURRENCY, lockLanes } from './lane.ts'
import { putTurnsBack, type Turn } from './run-queue.ts'

// Scan: takes no locks, writes nothing. A minimum is written as `order by … limit 1`, because `min()` may read all rows.

const QUEUE: RecordColumns = { id: 'text', cap: 'int8', since: 'text' }
/** `past`: skips the turns of refused `clients`, at the cost of one row each, and of refused `lanes`. */
const scanning = (table: 'tasks' | 'deliveries', past = false) =>
  statement((d) => {
    const passed = past ? sql`passed_clients(id) as (${ids(d, 'clients')}), passed_lanes(id) as (${ids(d, 'lanes')}),` : sql``
    const step = past ? sql`case when l.client_id in (select id from passed_clients) then 0 else 1 end` : sql`1`
    const listed = sql`select x.seq from turns x where x.queue = c.queue and x.client_id = c.client_id and x.turn is not null
          ${past ? sql`and x.lane_id not in (select id from passed_lanes)` : sql``} order by x.turn, x.seq limit ${bind('depth')}`
    return sql`with recursive ${passed} line(queue, client_id, n) as (
        select q.id, (select t.client_id from turns t where t.queue = q.id and t.client_id > q.since and t.turn is not null order by t.client_id limit 1), 0
        from ${d.records('queues', QUEUE)} q
        where not exists (select 1 from queues g where g.id = q.id and g.paused_at is not null)
          and (q.cap is null or q.cap > (select count(*) from ${sql.raw(table)} r where r.state = 'running' and ${queueIs(table, sql`q.id`)}))
        union all
        select l.queue, (select t.client_id from turns t where t.queue = l.queue and t.client_id > l.client_id and t.turn is not null
          order by t.client_id limit 1), l.n + ${step}
        from line l where l.client_id is not null and l.n + ${step} < ${bind('limit')})
      select t.seq as seq, t.lane_id as "laneId", t.queue as queue, t.client_id as "clientId", t.turn as turn,
        l.id as known, l.cap as cap, l.filled as filled, l.held_until as "heldUntil", l.window_size as "windowSize", l.succeeded_at as "succeededAt",
        l.probe_ms as "probeMs", null as "alarmAt", null as now
      from ${past ? sql`(select * from line where client_id not in (select id from passed_clients))` : sql`line`} c
        ${d.join('turns', 't', sql`t.seq ${d.anyOf(listed)}`)} ${d.leftJoin('lanes', 'l', sql`l.id = t.lane_id`)}
      union all select null, null, null, null, null, null, null, null, null, null, null, null,
        (select a.alarm_at from turns a where a.alarm_at is not null order by a.alarm_at limit 1), ${d.now}`
  })
/** A task's queue is its type; all deliveries are in one queue. */
const queueIs = (table: 'tasks' | 'deliveries', queue: ReturnType<typeof sql>) =>
  table === 'tasks' ? sql`'task/' || r.type = ${queue}` : sql`true`
const scanTurns = { task: scanning('tasks'), delivery: scanning('deliveries') }
/** Only slots for deliveries are refused: task types have their own limits. */
const scanPast = scanning('deliveries', true)

const promoteDue = statement(
  (d) =>
    sql`update turns set turn = alarm_at, alarm_at = null where seq ${d.anyOf(
      sql`select x.seq from turns x where x.alarm_at <= ${bind('now')} order by x.alarm_at limit 500 ${d.skipLocked}`,
    )}`,
)
const sweepTurns = statement(
  (d) =>
    sql`delete from turns where seq ${d.anyOf(
      sql`select x.seq from turns x where x.seq ${d.anyOf(sql`select v.seq from ${d.records('stale', { seq: 'int8' })} v`)} ${d.skipLocked}`,
    )}`,
)
/** Turns deleted at once. More accumulate only while nothing claims, for example in a paused type; the next visits delete the rest. */
const MAX_CONSUMED = 5_000
/** Each task added to a full lane adds a turn. While nothing claims they accumulate, and would come before the client's other lanes. */
const sweepLanes = statement(
  (d) =>
    sql`delete from turns where seq ${d.anyOf(
      sql`select x.seq from turns x where x.turn is not null and x.lane_id ${d.anyOf(
        // Checked again under the lock: a change that opens the lane later adds its turn later.
        sql`select l.id from lanes l where l.id ${d.anyOf(ids(d, 'lanes'))} and (l.filled = 1 or l.held_until > ${d.now}) order by l.id ${d.skipLocked}`,
      )} limit ${sql.raw(String(MAX_CONSUMED))} ${d.skipLocked}`,
    )}`,
)

const readWaitingClients = statement(
  (d) => sql`select v.id as "clientId" from ${d.records('clients', { id: 'text' })} v
    where (select 1 from turns t where t.queue = 'delivery' and t.client_id = v.id and t.turn is not null limit 1) is not null`,
)
const countTurns = statement(
  (
    d,
  ) => sql`select v.id as "laneId", (select count(*) from (select 1 from turns t where t.lane_id = v.id and t.turn is not null limit ${bind('max')}) h0) as n
    from ${d.records('lanes', { id: 'text' })} v`,
)
/** Turns of one refused lane before they are merged into one: each scan reads them all. */
const MAX_PILED = 8

/** When to claim again after a lane was locked by another transaction. Its turn remains. */
const BUSY_MS: Millis = 4

/** When to visit a lane again after one of its rows was locked by another transaction. */
const MISSED_MS: Millis = 1_000

/** A lane of a concurrency key is created with its first task, and may since have been removed as idle. */
const isKeyed = ({ queue, clientId, laneId }: LaneDemand): boolean =>
  queue !== 'delivery' && laneId.startsWith(`${clientId}/${queue.slice('task/'.length)}/`)

// Visit: locks the lanes' rules, deletes their turns, counts what runs, reads the heads, takes rows, adds turns.

const addGates = statement(
  (d) => sql`insert into queues (id) select v.id from ${d.records('gates', { id: 'text' })} v where true on conflict (id) do nothing`,
)
const lockGates = statement((d) => sql`select id from queues where id ${d.anyOf(ids(d, 'gates'))} order by id ${d.skipLocked}`)
const consumeTurns = statement(
  (d) =>
    sql`delete from turns where seq ${d.anyOf(
      sql`select x.seq from turns x where x.lane_id ${d.anyOf(ids(d, 'lanes'))} limit ${sql.raw(String(MAX_CONSUMED))} ${d.skipLocked}`,
    )}`,
)
const counting = (table: 'tasks' | 'deliveries') =>
  statement(
    (d) =>
      sql`select lane_id as id, count(*) as n from ${sql.raw(table)} where state = 'running' and lane_id ${d.anyOf(ids(d, 'lanes'))} group by lane_id`,
  )
const countLanes = { task: counting('tasks'), delivery: counting('deliveries') }
/** Running tasks of each queue, on all nodes. */
export const countRunningByType = statement(
  () => sql`select 'task/' || type as id, count(*) as n from tasks where state = 'running' group by type`,
)
const heading = (table: 'tasks' | 'deliveries') =>
  statement((d) => {
    const head = (line: string) =>
      sql.raw(
        `select id from (select x.id from ${table} x where x.lane_id = v.id and x.state = 'pending' and x.line = ${line} order by x.rank, x.id limit `,
      )
    const heads = sql`w.id ${d.anyOf(sql`${head('0')}${bind('max')}) h0 union all ${head('1')}${bind('max')}) h1`)}`
    return sql`select v.id as "laneId", w.id as id, w.line as line, w.rank as rank from (${ids(d, 'lanes')}) v ${d.join(table, 'w', heads)}`
  })
const readHeads = { task: heading('tasks'), delivery: heading('deliveries') }
const markFilled = statement((d) => sql`update lanes set filled = 1 where id ${d.anyOf(ids(d, 'lanes'))}`)
const PACED: RecordColumns = { lane_id: 'text', at: 'int8' }
const markPaced = statement(
  (d) => sql`update lanes set paced_at = v.at from ${d.records('lanes', PACED)} v where lanes.id = v.lane_id
      ${d.restrictTo(sql`lanes.id`, sql`select y.lane_id from ${d.records('lanes', PACED)} y`)}`,
)

/** A row that a claim took: running, or ended because its deadline has passed. */
type ClaimedRow = Pick<Work, 'id' | 'laneId' | 'state'>
/** How the rows of one kind of work are claimed. */
export interface WorkTable<Taken extends ClaimedRow> {
  readonly kind: WorkKind
  /** Tasks of one client are claimed in their order; endpoints take turns. */
  readonly ordered: boolean
  /** Marks these rows as running. Returns those that were not locked. */
  take(ids: readonly string[], now: Millis): Script<readonly Taken[]>
}
export interface QueueLimit {
  readonly id: string
  /** Maximum running across nodes; null: no limit. */
  readonly cap: number | null
}

/** One claim: scan the turns, share the slots among clients, visit their lanes. */
export function* claim<Taken extends ClaimedRow>(
  work: WorkTable<Taken>,
  queues: readonly QueueLimit[],
  limit: number,
  cursor: FairCursor,
  allotment: Allotment = unlimitedAllotment,
): Script<Pick<ClaimResult<Taken>, 'nextInMs' | 'more'> & { readonly taken: readonly Taken[]; readonly refused: readonly SlotRefusal[] }> {
  const anyRefused = allotment.refused.length > 0
  const maxClients = Math.max(limit, 16)
  const depth = Math.max(4, Math.ceil(maxClients / 4))
  const scan = function* (): Script<QueueScan> {
    const values = { queues: queues.map((q) => ({ ...q, since: cursor.since })), limit: maxClients, depth }
    const found = yield* rows<QueuedTurn>(
      anyRefused ? scanPast({ ...values, ...passedBy(allotment.refused) }) : scanTurns[work.kind](values),
    )
    const last = found.at(-1)!
    return { turns: found.slice(0, -1), alarmAt: last.alarmAt, now: last.now! }
  }
  let scanned = yield* scan()
  if (scanned.alarmAt !== null && scanned.alarmAt <= scanned.now) {
    yield promoteDue({ now: scanned.now })
    scanned = yield* scan()
  }
  if (cursor.since !== '' && countClients(scanned.turns) < maxClients) {
    // The scan reached the last client: the remaining slots are for the first clients.
    cursor.since = ''
    const start = yield* scan()
    const known = new Set(start.turns.map((row) => row.seq))
    scanned = { ...start, turns: [...start.turns, ...scanned.turns.filter((row) => !known.has(row.seq))] }
  }
  const { lanes, stale } = splitStale(scanned.turns, scanned.now)
  if (stale.length > 0) yield* sweep(stale)
  const refused = anyRefused ? yield* findWaiting(allotment.refused, scanned.now, cursor) : []
  const demands = shareSlots(lanes, scanned.turns, limit, maxClients, cursor, allotment)
  const nextInMs = scanned.alarmAt === null ? null : Math.max(0, scanned.alarmAt - scanned.now)
  // Lanes without demand: they were refused because of work that started after the refused clients were listed.
  if (demands.length === 0) return { taken: [], nextInMs, more: stale.length > 0, refused: [...refused, ...lanes] }
  const { taken, more, alarmAt } = yield* visit(work, demands, queues, scanned.now, cursor)
  const alarms = [alarmAt, scanned.alarmAt].filter((at) => at !== null)
  // Lanes that got no slot, or that the scan did not show, are still claimable.
  const beyond = demands.length < lanes.length || countClients(scanned.turns) >= maxClients || maxTurns(scanned.turns) >= depth
  return { taken, refused, more: more || beyond, nextInMs: alarms.length === 0 ? null : Math.max(0, Math.min(...alarms) - scanned.now) }
}

const passedBy = (refused: readonly SlotRefusal[]) => ({
  clients: refused.filter(({ laneId }) => laneId === null).map(({ clientId }) => ({ id: clientId })),
  lanes: refused.flatMap(({ laneId }) => (laneId === null ? [] : [{ id: laneId }])),
})

/** The refused clients and lanes that have turns. Where many turns of a refused lane have accumulated, one replaces them, as after a visit. */
function* findWaiting(refused: readonly SlotRefusal[], now: Millis, cursor: FairCursor): Script<readonly SlotRefusal[]> {
  const { clients, lanes } = passedBy(refused)
  const [waiting, counts] = yield* runAll([readWaitingClients({ clients }), countTurns({ lanes, max: MAX_PILED + 1 })])
  const turnsOf = new Map((counts as { laneId: string; n: number }[]).map(({ laneId, n }) => [laneId, n]))
  const waitingLanes = refused.filter(({ laneId }) => laneId !== null && turnsOf.get(laneId)! > 0)
  const piled = waitingLanes.filter(({ laneId }) => turnsOf.get(laneId!)! > MAX_PILED).map(({ laneId }) => ({ id: laneId! }))
  if (piled.length > 0) {
    const locked = new Set((yield* rows<LaneRule>(lockLanes({ lanes: piled }))).map(({ id }) => id))
    cursor.clock = Math.max(now, cursor.clock + 1)
    yield* execute([
      consumeTurns({ lanes: piled.filter(({ id }) => locked.has(id)) }),
      ...putTurnsBack(
        waitingLanes
          .filter(({ laneId }) => locked.has(laneId!))
          .map(({ clientId, laneId }) => ({ queue: 'delivery', clientId, laneId: laneId!, turn: cursor.clock, alarmAt: null })),
      ),
    ])
  }
  return [...(waiting as { clientId: string }[]).map(({ clientId }) => ({ clientId, laneId: null })), ...waitingLanes]
}

function* sweep(stale: readonly QueuedTurn[]): Script<void> {
  const lanes = Map.groupBy(stale, ({ laneId }) => laneId)
  const piled = [...lanes].filter(([, turns]) => turns.length > 1).map(([id]) => ({ id }))
  yield* execute([sweepTurns({ stale: stale.map(({ seq }) => ({ seq })) }), ...callFor(sweepLanes, 'lanes', piled)])
}

function* visit<Taken extends ClaimedRow>(
  { kind, ordered, take }: WorkTable<Taken>,
  demands: readonly LaneDemand[],
  queues: readonly QueueLimit[],
  now: Millis,
  cursor: FairCursor,
): Script<{ taken: readonly Taken[]; more: boolean; alarmAt: Millis | null }> {
  const caps = new Map(queues.map((q) => [q.id, q.cap]))
  const gates = [...new Set(demands.map((w) => w.queue))].filter((id) => caps.get(id) != null).map((id) => ({ id }))
  const unknown = demands.filter((w) => !w.hasRule)
  yield* execute([
    ...addLanes(unknown.map((w) => ({ id: w.laneId, cap: isKeyed(w) ? KEY_CONCURRENCY : null }))),
    ...callFor(addGates, 'gates', gates),
  ])
  const locked = yield* runAll([lockLanes({ lanes: demands.map((w) => ({ id: w.laneId })) }), ...callFor(lockGates, 'gates', gates)])
  const rules = new Map((locked[0] as unknown as LaneRule[]).map((rule) => [rule.id, rule]))
  const open = new Set((locked[1] as { id: string }[] | undefined)?.map((gate) => gate.id))
  const visited = demands.filter((w) => rules.has(w.laneId) && (caps.get(w.queue) == null || open.has(w.queue)))
  if (visited.length === 0) return { taken: [], more: false, alarmAt: now + BUSY_MS }

  const list = visited.map((w) => ({ id: w.laneId }))
  const capped = visited.filter((w) => rules.get(w.laneId)!.cap !== null).map((w) => ({ id: w.laneId }))
  const max = Math.max(...visited.map((w) => w.slots)) + 1
  const [, heads, counts, types] = yield* runAll([
    consumeTurns({ lanes: list }),
    readHeads[kind]({ lanes: list, max }),
    ...(capped.length > 0 || gates.length > 0 ? [countLanes[kind]({ lanes: capped })] : []),
    ...(gates.length > 0 ? [countRunningByType()] : []),
  ])
  const running = new Map((counts as { id: string; n: number }[] | undefined)?.map((c) => [c.id, c.n]))
  const runningTypes = new Map((types as { id: string; n: number }[] | undefined)?.map((c) => [c.id, c.n]))
  const free = new Map(gates.map(({ id }) => [id, caps.get(id)! - (runningTypes.get(id) ?? 0)]))
  const headsOf = new Map<string, LaneHead[]>(list.map(({ id }) => [id, []]))
  for (const head of heads as unknown as (LaneHead & { laneId: string })[]) headsOf.get(head.laneId)!.push(head)

  cursor.clock = Math.max(now, cursor.clock + 1)
  const chosen: string[] = []
  const turns: Turn[] = []
  const filled: { id: string }[] = []
  const paced: { lane_id: string; at: number }[] = []
  let alarmAt: Millis | null = visited.length < demands.length ? now + BUSY_MS : null
  for (const demand of visited) {
    const rule = rules.get(demand.laneId)!
    const planned = planStarts(
      demand.slots,
      rule,
      running.get(demand.laneId) ?? 0,
      headsOf.get(demand.laneId)!,
      free.get(demand.queue) ?? Infinity,
      now,
    )
    chosen.push(...planned.take)
    if (free.has(demand.queue)) free.set(demand.queue, free.get(demand.queue)! - planned.take.length)
    if (planned.pacedAt !== null) paced.push({ lane_id: demand.laneId, at: planned.pacedAt })
    if (planned.filled) filled.push({ id: demand.laneId })
    const place = { queue: demand.queue, clientId: demand.clientId, laneId: demand.laneId }
    if (planned.nextVisit === 'now') turns.push({ ...place, turn: ordered ? planned.rank : cursor.clock, alarmAt: null })
    else if (planned.nextVisit !== null) {
      turns.push({ ...place, turn: null, alarmAt: planned.nextVisit })
      alarmAt = Math.min(alarmAt ?? planned.nextVisit, planned.nextVisit)
    }
  }
  const taken = chosen.length === 0 ? [] : yield* take(chosen, now)
  // Rows past their deadline have ended, and rows locked by another transaction (for example a cancel) were skipped: their lanes are not full.
  const ended = new Set(taken.filter((row) => row.state !== 'running').map((row) => row.laneId))
  const got = new Set(taken.map((row) => row.id))
  const missed = new Set<string>()
  if (taken.length < chosen.length)
    for (const [laneId, heads] of headsOf) if (heads.some(({ id }) => chosen.includes(id) && !got.has(id))) missed.add(laneId)
  for (const { queue, clientId, laneId } of visited) {
    if (ended.has(laneId)) turns.push({ queue, clientId, laneId, turn: now, alarmAt: null })
    else if (missed.has(laneId)) {
      turns.push({ queue, clientId, laneId, turn: null, alarmAt: now + MISSED_MS })
      alarmAt = Math.min(alarmAt ?? Infinity, now + MISSED_MS)
    }
  }
  const full = filled.filter(({ id }) => !ended.has(id) && !missed.has(id))
  yield* execute([...callFor(markFilled, 'lanes', full), ...callFor(markPaced, 'lanes', paced), ...putTurnsBack(turns)])
  return { taken, alarmAt, more: turns.some((turn) => turn.turn !== null) }
}

// Start without a claim.

/** Slots that a pump lends for one transaction. */
export interface LentSlots {
  readonly leasedBy: string
  readonly leaseMs: Millis
  readonly count: number
  readonly allot: () => Allotment
}
/** While any delivery waits, no new one may start before it. */
const readWaitingDelivery = statement(() => sql`select 1 as one from turns where queue = 'delivery' and turn is not null limit 1`)
/** As `readWaitingDelivery`, without the refused clients and lanes. `some`: clients with at least one refused lane. */
const readOtherWaiting = statement(
  (d) => sql`with recursive line(client_id) as (
      select (select t.client_id from turns t where t.queue = 'delivery' and t.turn is not null order by t.client_id limit 1)
      union all
      select (select t.client_id from turns t where t.queue = 'delivery' and t.client_id > l.client_id and t.turn is not null order by t.client_id limit 1)
      from line l where l.client_id in (${ids(d, 'some')}))
    select 1 as one from line c where c.client_id not in (${ids(d, 'clients')})
      and (select 1 from turns x where x.queue = 'delivery' and x.client_id = c.client_id and x.turn is not null
        and x.lane_id not in (${ids(d, 'lanes')}) limit 1) is not null limit 1`,
)

/** How many deliveries of a lane should start. */
export interface StartDemand {
  readonly clientId: string
  readonly count: number
}
/** How many deliveries of each lane may start now, within its rule and the lent slots. Lanes that become full are marked filled. */
export function* admitStarts(wanted: ReadonlyMap<string, StartDemand>, slots: LentSlots, now: Millis): Script<ReadonlyMap<string, number>> {
  const lanes = [...wanted.keys()].map((id) => ({ id }))
  const allotment = slots.allot()
  const { refused } = allotment
  const some = [...new Set(refused.map(({ clientId }) => clientId))].map((id) => ({ id }))
  const [waiting, locked] = yield* runAll([
    refused.length === 0 ? readWaitingDelivery() : readOtherWaiting({ ...passedBy(refused), some }),
    lockLanes({ lanes }),
  ])
  const rules = (locked as unknown as LaneRule[]).filter(
    (rule) => rule.heldUntil <= now && rule.filled === 0 && rule.paceMs === null && rule.probeMs === 0,
  )
  if (waiting!.length > 0 || rules.length === 0) return new Map()
  const counts = yield* rows<{ id: string; n: number }>(countLanes.delivery({ lanes: rules.map(({ id }) => ({ id })) }))
  const running = new Map(counts.map(({ id, n }) => [id, n]))
  const admitted = new Map<string, number>()
  const filled: { id: string }[] = []
  let left = slots.count
  for (const rule of rules) {
    const { id } = rule
    const free = (concurrencyLimitOf(rule, now) ?? Infinity) - (running.get(id) ?? 0)
    const { clientId, count } = wanted.get(id)!
    const n = allotment.take(clientId, id, Math.max(0, Math.min(count, free, left)))
    left -= n
    admitted.set(id, n)
    if (n > 0 && n >= free) filled.push({ id })
  }
  yield* execute(callFor(markFilled, 'lanes', filled))
  return admitted
}

// Repair.

const clearFilled = statement((d) => sql`update lanes set filled = 0 where id ${d.anyOf(ids(d, 'lanes'))}`)
/** A turn for each lane that has claimable rows and no turn, and is neither held nor full. A consistent store has no such lane. */
export const strandedLanes = (d: Dialect, table: 'tasks' | 'deliveries') => {
  const queue = table === 'tasks' ? sql`'task/' || w.type` : sql`'delivery'`
  return sql`with recursive lane(id) as (
        select (select p.lane_id from ${sql.raw(table)} p where p.state = 'pending' order by p.lane_id limit 1)
        union all select (select p.lane_id from ${sql.raw(table)} p where p.state = 'pending' and p.lane_id > lane.id order by p.lane_id limit 1)
        from lane where lane.id is not null)
      select ${queue}, w.client_id, w.lane_id, ${d.now}, null
      from lane ${d.leftJoin('lanes', 'l', sql`l.id = lane.id`)}
        ${d.join(table, 'w', sql`w.id = (select p.id from ${sql.raw(table)} p where p.lane_id = lane.id and p.state = 'pending' order by p.line, p.rank limit 1)`)}
      where (select 1 from turns t where t.lane_id = lane.id limit 1) is null
        and (l.id is null or l.held_until <= ${d.now} and (l.filled = 0 or (select 1 from ${sql.raw(table)} r where r.lane_id = lane.id and r.state = 'running' limit 1) is null))`
}
const repairing = (table: 'tasks' | 'deliveries') =>
  statement((d) => sql`insert into turns (queue, client_id, lane_id, turn, alarm_at) ${strandedLanes(d, table)} returning lane_id as id`)
const repairTurns = { task: repairing('tasks'), delivery: repairing('deliveries') }

/** Adds the turns of `strandedLanes`: a lost turn delays work by seconds. Returns how many. */
export function* repairLanes(kind: WorkKind): Script<number> {
  const repaired = yield* rows<{ id: string }>(repairTurns[kind]())
  if (repaired.length > 0) yield { ...clearFilled({ lanes: repaired.map(({ id }) => ({ id })) }), notifies: [kind] }
  return repaired.length
}
