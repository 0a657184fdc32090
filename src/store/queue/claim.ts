/**
 * Lanes: a claim whose cost does not grow with the backlog of others.
 *
 * 1. Whoever makes a lane claimable (adds a row, gives one back, frees a slot of a full lane, ends a hold) leaves a turn in the same commit.
 * 2. A visit eats the lane's turns first, looks second, and leaves one turn if something is left to do.
 * 3. Slots are counted under the lane's row lock, by a statement that starts after the lock was got.
 *
 * A full lane leaves no turn: it is marked filled, and the settlement that frees a slot leaves one. A held lane leaves an alarm at most.
 * So lanes that can give nothing cost a claim nothing, whatever waits in them. What this node's slots refuse keeps its turns, for other nodes
 * and for later, and is passed by: a client at the cost of one row.
 */
import { concurrencyLimitOf } from '../../core/circuit-breaker.ts'
import { type Allotment, type SlotRefusal, unlimitedAllotment } from '../../core/fair-share.ts'
import type { Millis, Work, WorkKind } from '../../core/model.ts'
import type { ClaimResult } from '../interfaces.ts'
import { bind, type Dialect, execute, type RecordColumns, rows, runAll, type Script, sql, statement } from '../script.ts'
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
import { addLanes, KEY_CONCURRENCY, lockLanes } from './lane.ts'
import { putTurnsBack, type Turn } from './run-queue.ts'

const ids = (d: Dialect, name: string) => sql`select v.id from ${d.records(name, { id: 'text' })} v`

// Looking: locks nothing, writes nothing. The least of many is asked for as the first of them: as their minimum it may be made by reading them all.

const QUEUE: RecordColumns = { id: 'text', cap: 'int8', since: 'text' }
/** `past`: passes by the turns of refused `clients`, each at the cost of one row, and of refused `lanes`. */
const looking = (table: 'tasks' | 'deliveries', past = false) =>
  statement((d) => {
    const passed = past ? sql`passed_clients(id) as (${ids(d, 'clients')}), passed_lanes(id) as (${ids(d, 'lanes')}),` : sql``
    const step = past ? sql`case when l.client_id in (select id from passed_clients) then 0 else 1 end` : sql`1`
    const shown = sql`select x.seq from turns x where x.queue = c.queue and x.client_id = c.client_id and x.turn is not null
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
        ${d.join('turns', 't', sql`t.seq ${d.anyOf(shown)}`)} ${d.leftJoin('lanes', 'l', sql`l.id = t.lane_id`)}
      union all select null, null, null, null, null, null, null, null, null, null, null, null,
        (select a.alarm_at from turns a where a.alarm_at is not null order by a.alarm_at limit 1), ${d.now}`
  })
/** A task's queue is its type; all deliveries stand in one. */
const queueIs = (table: 'tasks' | 'deliveries', queue: ReturnType<typeof sql>) =>
  table === 'tasks' ? sql`'task/' || r.type = ${queue}` : sql`true`
const look = { task: looking('tasks'), delivery: looking('deliveries') }
/** Of slots for tasks nobody is refused any: who runs when is the matter of their types. */
const lookPast = looking('deliveries', true)

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
/** More than that pile up only while nobody looks, say in a paused type. Those left are eaten by the next visits. */
const MAX_EATEN = 5_000
/** Each task added to a full lane leaves a turn: while nobody looks they pile up, and would stand before the other lanes of their client. */
const sweepLanes = statement(
  (d) =>
    sql`delete from turns where seq ${d.anyOf(
      sql`select x.seq from turns x where x.turn is not null and x.lane_id ${d.anyOf(
        // Locked and judged anew: whoever opens the lane later leaves its turn later.
        sql`select l.id from lanes l where l.id ${d.anyOf(ids(d, 'lanes'))} and (l.filled = 1 or l.held_until > ${d.now}) order by l.id ${d.skipLocked}`,
      )} limit ${sql.raw(String(MAX_EATEN))} ${d.skipLocked}`,
    )}`,
)

const standingClients = statement(
  (d) => sql`select v.id as "clientId" from ${d.records('clients', { id: 'text' })} v
    where (select 1 from turns t where t.queue = 'delivery' and t.client_id = v.id and t.turn is not null limit 1) is not null`,
)
const countTurns = statement(
  (
    d,
  ) => sql`select v.id as "laneId", (select count(*) from (select 1 from turns t where t.lane_id = v.id and t.turn is not null limit ${bind('most')}) h0) as n
    from ${d.records('lanes', { id: 'text' })} v`,
)
/** Of one refused lane: each look passes them by one after another. */
const MAX_PILED = 8

/** A lane that somebody else visits or settles is looked at again this soon: its turn stands. */
const BUSY_MS: Millis = 4

/** A row that somebody was changing is looked for again this soon. */
const MISSED_MS: Millis = 1_000

/** A lane of a concurrency key was made with its first task, and may have been removed since as idle. */
const isKeyed = ({ queue, clientId, laneId }: LaneDemand): boolean =>
  queue !== 'delivery' && laneId.startsWith(`${clientId}/${queue.slice('task/'.length)}/`)

// Visiting: locks the lanes' rules, eats their turns, counts, reads the heads, takes, leaves turns.

const addGates = statement(
  (d) => sql`insert into queues (id) select v.id from ${d.records('gates', { id: 'text' })} v where true on conflict (id) do nothing`,
)
const lockGates = statement((d) => sql`select id from queues where id ${d.anyOf(ids(d, 'gates'))} order by id ${d.skipLocked}`)
const consumeTurns = statement(
  (d) =>
    sql`delete from turns where seq ${d.anyOf(
      sql`select x.seq from turns x where x.lane_id ${d.anyOf(ids(d, 'lanes'))} limit ${sql.raw(String(MAX_EATEN))} ${d.skipLocked}`,
    )}`,
)
const counting = (table: 'tasks' | 'deliveries') =>
  statement(
    (d) =>
      sql`select lane_id as id, count(*) as n from ${sql.raw(table)} where state = 'running' and lane_id ${d.anyOf(ids(d, 'lanes'))} group by lane_id`,
  )
const countLanes = { task: counting('tasks'), delivery: counting('deliveries') }
/** How many run of each queue, on all nodes. */
export const countRunningByType = statement(
  () => sql`select 'task/' || type as id, count(*) as n from tasks where state = 'running' group by type`,
)
const heading = (table: 'tasks' | 'deliveries') =>
  statement((d) => {
    const head = (line: string) =>
      sql.raw(
        `select id from (select x.id from ${table} x where x.lane_id = v.id and x.state = 'pending' and x.line = ${line} order by x.rank, x.id limit `,
      )
    const heads = sql`w.id ${d.anyOf(sql`${head('0')}${bind('most')}) h0 union all ${head('1')}${bind('most')}) h1`)}`
    return sql`select v.id as "laneId", w.id as id, w.line as line, w.rank as rank from (${ids(d, 'lanes')}) v ${d.join(table, 'w', heads)}`
  })
const readHeads = { task: heading('tasks'), delivery: heading('deliveries') }
const markFilled = statement((d) => sql`update lanes set filled = 1 where id ${d.anyOf(ids(d, 'lanes'))}`)
const PACED: RecordColumns = { lane_id: 'text', at: 'int8' }
const markPaced = statement(
  (d) => sql`update lanes set paced_at = v.at from ${d.records('lanes', PACED)} v where lanes.id = v.lane_id
      ${d.restrictTo(sql`lanes.id`, sql`select y.lane_id from ${d.records('lanes', PACED)} y`)}`,
)

/** A row as a claim brings it: running, or ended because it came too late. */
type ClaimedRow = Pick<Work, 'id' | 'laneId' | 'state'>
/** What claiming one kind of work takes beside lanes: how its rows are taken, and what comes back. */
export interface WorkTable<Taken extends ClaimedRow> {
  readonly kind: WorkKind
  /** Tasks of one client are served in the order they stand in; endpoints take turns. */
  readonly ordered: boolean
  /** Marks the chosen rows running and returns those it got. */
  take(ids: readonly string[], now: Millis): Script<readonly Taken[]>
}
export interface QueueLimit {
  readonly id: string
  /** At most this many running across nodes. */
  readonly cap: number | null
}

/** One claim: look, share the slots out, visit. `round` is the node's own memory of whose turn it is. */
export function* claim<Taken extends ClaimedRow>(
  taking: WorkTable<Taken>,
  queues: readonly QueueLimit[],
  limit: number,
  round: FairCursor,
  allotment: Allotment = unlimitedAllotment,
): Script<Pick<ClaimResult<Taken>, 'nextInMs' | 'more'> & { readonly taken: readonly Taken[]; readonly refused: readonly SlotRefusal[] }> {
  const anyRefused = allotment.refused.length > 0
  const wide = Math.max(limit, 16)
  const depth = Math.max(4, Math.ceil(wide / 4))
  const ask = function* (): Script<QueueScan> {
    const asked = { queues: queues.map((q) => ({ ...q, since: round.since })), limit: wide, depth }
    const found = yield* rows<QueuedTurn>(anyRefused ? lookPast({ ...asked, ...passedBy(allotment.refused) }) : look[taking.kind](asked))
    const tail = found.at(-1)!
    return { turns: found.slice(0, -1), alarmAt: tail.alarmAt, now: tail.now! }
  }
  let looked = yield* ask()
  if (looked.alarmAt !== null && looked.alarmAt <= looked.now) {
    yield promoteDue({ now: looked.now })
    looked = yield* ask()
  }
  if (round.since !== '' && countClients(looked.turns) < wide) {
    // The end of the circle: the slots left are for those at its beginning.
    round.since = ''
    const begun = yield* ask()
    const known = new Set(begun.turns.map((row) => row.seq))
    looked = { ...begun, turns: [...begun.turns, ...looked.turns.filter((row) => !known.has(row.seq))] }
  }
  const { lanes, stale } = splitStale(looked.turns, looked.now)
  if (stale.length > 0) yield* sweep(stale)
  const refused = anyRefused ? yield* findStanding(allotment.refused, looked.now, round) : []
  const wants = shareSlots(lanes, looked.turns, limit, wide, round, allotment)
  const nextInMs = looked.alarmAt === null ? null : Math.max(0, looked.alarmAt - looked.now)
  // None though there are lanes: what runs began since those who are refused were listed.
  if (wants.length === 0) return { taken: [], nextInMs, more: stale.length > 0, refused: [...refused, ...lanes] }
  const { taken, more, alarmAt } = yield* visit(taking, wants, queues, looked.now, round)
  const alarms = [alarmAt, looked.alarmAt].filter((at) => at !== null)
  // Lanes that were seen and got nothing, or that a look could not show, are claimable still.
  const beyond = wants.length < lanes.length || countClients(looked.turns) >= wide || maxTurns(looked.turns) >= depth
  return { taken, refused, more: more || beyond, nextInMs: alarms.length === 0 ? null : Math.max(0, Math.min(...alarms) - looked.now) }
}

const passedBy = (refused: readonly SlotRefusal[]) => ({
  clients: refused.filter(({ laneId }) => laneId === null).map(({ clientId }) => ({ id: clientId })),
  lanes: refused.flatMap(({ laneId }) => (laneId === null ? [] : [{ id: laneId }])),
})

/** Those refused who stand in line. Where turns of a refused lane have piled up, one is left in their place, as by a visit. */
function* findStanding(refused: readonly SlotRefusal[], now: Millis, round: FairCursor): Script<readonly SlotRefusal[]> {
  const { clients, lanes } = passedBy(refused)
  const [standing, counts] = yield* runAll([standingClients({ clients }), countTurns({ lanes, most: MAX_PILED + 1 })])
  const turnsOf = new Map((counts as { laneId: string; n: number }[]).map(({ laneId, n }) => [laneId, n]))
  const inLine = refused.filter(({ laneId }) => laneId !== null && turnsOf.get(laneId)! > 0)
  const piled = inLine.filter(({ laneId }) => turnsOf.get(laneId!)! > MAX_PILED).map(({ laneId }) => ({ id: laneId! }))
  if (piled.length > 0) {
    const locked = new Set((yield* rows<LaneRule>(lockLanes({ lanes: piled }))).map(({ id }) => id))
    round.clock = Math.max(now, round.clock + 1)
    yield* execute([
      consumeTurns({ lanes: piled.filter(({ id }) => locked.has(id)) }),
      ...putTurnsBack(
        inLine
          .filter(({ laneId }) => locked.has(laneId!))
          .map(({ clientId, laneId }) => ({ queue: 'delivery', clientId, laneId: laneId!, turn: round.clock, alarmAt: null })),
      ),
    ])
  }
  return [...(standing as { clientId: string }[]).map(({ clientId }) => ({ clientId, laneId: null })), ...inLine]
}

function* sweep(stale: readonly QueuedTurn[]): Script<void> {
  const lanes = Map.groupBy(stale, ({ laneId }) => laneId)
  const piled = [...lanes].filter(([, turns]) => turns.length > 1).map(([id]) => ({ id }))
  yield* execute([sweepTurns({ stale: stale.map(({ seq }) => ({ seq })) }), ...(piled.length > 0 ? [sweepLanes({ lanes: piled })] : [])])
}

function* visit<Taken extends ClaimedRow>(
  { kind, ordered, take }: WorkTable<Taken>,
  wants: readonly LaneDemand[],
  queues: readonly QueueLimit[],
  now: Millis,
  round: FairCursor,
): Script<{ taken: readonly Taken[]; more: boolean; alarmAt: Millis | null }> {
  const caps = new Map(queues.map((q) => [q.id, q.cap]))
  const gates = [...new Set(wants.map((w) => w.queue))].filter((id) => caps.get(id) != null).map((id) => ({ id }))
  const unknown = wants.filter((w) => !w.hasRule)
  yield* execute([
    ...addLanes(unknown.map((w) => ({ id: w.laneId, cap: isKeyed(w) ? KEY_CONCURRENCY : null }))),
    ...(gates.length > 0 ? [addGates({ gates })] : []),
  ])
  const locked = yield* runAll([
    lockLanes({ lanes: wants.map((w) => ({ id: w.laneId })) }),
    ...(gates.length > 0 ? [lockGates({ gates })] : []),
  ])
  const rules = new Map((locked[0] as unknown as LaneRule[]).map((rule) => [rule.id, rule]))
  const open = new Set((locked[1] as { id: string }[] | undefined)?.map((gate) => gate.id))
  const mine = wants.filter((w) => rules.has(w.laneId) && (caps.get(w.queue) == null || open.has(w.queue)))
  if (mine.length === 0) return { taken: [], more: false, alarmAt: now + BUSY_MS }

  const list = mine.map((w) => ({ id: w.laneId }))
  const capped = mine.filter((w) => rules.get(w.laneId)!.cap !== null).map((w) => ({ id: w.laneId }))
  const most = Math.max(...mine.map((w) => w.slots)) + 1
  const [, heads, counts, types] = yield* runAll([
    consumeTurns({ lanes: list }),
    readHeads[kind]({ lanes: list, most }),
    ...(capped.length > 0 || gates.length > 0 ? [countLanes[kind]({ lanes: capped })] : []),
    ...(gates.length > 0 ? [countRunningByType()] : []),
  ])
  const running = new Map((counts as { id: string; n: number }[] | undefined)?.map((c) => [c.id, c.n]))
  const runningTypes = new Map((types as { id: string; n: number }[] | undefined)?.map((c) => [c.id, c.n]))
  const room = new Map(gates.map(({ id }) => [id, caps.get(id)! - (runningTypes.get(id) ?? 0)]))
  const standing = new Map<string, LaneHead[]>(list.map(({ id }) => [id, []]))
  for (const head of heads as unknown as (LaneHead & { laneId: string })[]) standing.get(head.laneId)!.push(head)

  round.clock = Math.max(now, round.clock + 1)
  const chosen: string[] = []
  const turns: Turn[] = []
  const filled: { id: string }[] = []
  const paced: { lane_id: string; at: number }[] = []
  let alarmAt: Millis | null = mine.length < wants.length ? now + BUSY_MS : null
  for (const want of mine) {
    const rule = rules.get(want.laneId)!
    const planned = planStarts(
      want.slots,
      rule,
      running.get(want.laneId) ?? 0,
      standing.get(want.laneId)!,
      room.get(want.queue) ?? Infinity,
      now,
    )
    chosen.push(...planned.take)
    if (room.has(want.queue)) room.set(want.queue, room.get(want.queue)! - planned.take.length)
    if (planned.pacedAt !== null) paced.push({ lane_id: want.laneId, at: planned.pacedAt })
    if (planned.filled) filled.push({ id: want.laneId })
    const place = { queue: want.queue, clientId: want.clientId, laneId: want.laneId }
    if (planned.nextLook === 'now') turns.push({ ...place, turn: ordered ? planned.rank : round.clock, alarmAt: null })
    else if (planned.nextLook !== null) {
      turns.push({ ...place, turn: null, alarmAt: planned.nextLook })
      alarmAt = Math.min(alarmAt ?? planned.nextLook, planned.nextLook)
    }
  }
  const taken = chosen.length === 0 ? [] : yield* take(chosen, now)
  // Rows that came too late have ended, and rows that somebody is changing (a cancel, say) were passed by: their lanes are not full.
  const ended = new Set(taken.filter((row) => row.state !== 'running').map((row) => row.laneId))
  const got = new Set(taken.map((row) => row.id))
  const missed = new Set<string>()
  if (taken.length < chosen.length)
    for (const [laneId, heads] of standing) if (heads.some(({ id }) => chosen.includes(id) && !got.has(id))) missed.add(laneId)
  for (const { queue, clientId, laneId } of mine) {
    if (ended.has(laneId)) turns.push({ queue, clientId, laneId, turn: now, alarmAt: null })
    else if (missed.has(laneId)) {
      turns.push({ queue, clientId, laneId, turn: null, alarmAt: now + MISSED_MS })
      alarmAt = Math.min(alarmAt ?? Infinity, now + MISSED_MS)
    }
  }
  const full = filled.filter(({ id }) => !ended.has(id) && !missed.has(id))
  yield* execute([
    ...(full.length > 0 ? [markFilled({ lanes: full })] : []),
    ...(paced.length > 0 ? [markPaced({ lanes: paced })] : []),
    ...putTurnsBack(turns),
  ])
  return { taken, alarmAt, more: turns.some((turn) => turn.turn !== null) }
}

// Starting without a claim.

/** Slots a pump lent for the time of one transaction. */
export interface LentSlots {
  readonly leasedBy: string
  readonly leaseMs: Millis
  readonly count: number
  readonly allot: () => Allotment
}
/** While a delivery stands in line nothing new may start before it. */
const deliveryInLine = statement(() => sql`select 1 as one from turns where queue = 'delivery' and turn is not null limit 1`)
/** As `deliveryInLine`, but for those refused: of `some` at least one lane is. */
const othersInLine = statement(
  (d) => sql`with recursive line(client_id) as (
      select (select t.client_id from turns t where t.queue = 'delivery' and t.turn is not null order by t.client_id limit 1)
      union all
      select (select t.client_id from turns t where t.queue = 'delivery' and t.client_id > l.client_id and t.turn is not null order by t.client_id limit 1)
      from line l where l.client_id in (${ids(d, 'some')}))
    select 1 as one from line c where c.client_id not in (${ids(d, 'clients')})
      and (select 1 from turns x where x.queue = 'delivery' and x.client_id = c.client_id and x.turn is not null
        and x.lane_id not in (${ids(d, 'lanes')}) limit 1) is not null limit 1`,
)

/** How many deliveries of a lane are to start. */
export interface StartDemand {
  readonly clientId: string
  readonly count: number
}
/** How many deliveries of each lane may start now, under its rule and of the slots lent; lanes that are thereby full are marked so. */
export function* admitStarts(wanted: ReadonlyMap<string, StartDemand>, slots: LentSlots, now: Millis): Script<ReadonlyMap<string, number>> {
  const lanes = [...wanted.keys()].map((id) => ({ id }))
  const allotment = slots.allot()
  const { refused } = allotment
  const some = [...new Set(refused.map(({ clientId }) => clientId))].map((id) => ({ id }))
  const [waits, locked] = yield* runAll([
    refused.length === 0 ? deliveryInLine() : othersInLine({ ...passedBy(refused), some }),
    lockLanes({ lanes }),
  ])
  const rules = (locked as unknown as LaneRule[]).filter(
    (rule) => rule.heldUntil <= now && rule.filled === 0 && rule.paceMs === null && rule.probeMs === 0,
  )
  if (waits!.length > 0 || rules.length === 0) return new Map()
  const counts = yield* rows<{ id: string; n: number }>(countLanes.delivery({ lanes: rules.map(({ id }) => ({ id })) }))
  const running = new Map(counts.map(({ id, n }) => [id, n]))
  const admitted = new Map<string, number>()
  const filled: { id: string }[] = []
  let left = slots.count
  for (const known of rules) {
    const { id } = known
    const room = (concurrencyLimitOf(known, now) ?? Infinity) - (running.get(id) ?? 0)
    const { clientId, count: asked } = wanted.get(id)!
    const n = allotment.take(clientId, id, Math.max(0, Math.min(asked, room, left)))
    left -= n
    admitted.set(id, n)
    if (n > 0 && n >= room) filled.push({ id })
  }
  if (filled.length > 0) yield* execute([markFilled({ lanes: filled })])
  return admitted
}

// Mending.

const clearFilled = statement((d) => sql`update lanes set filled = 0 where id ${d.anyOf(ids(d, 'lanes'))}`)
/** A turn for each lane that has rows and none, and is neither held nor full. In a sound store there is no such lane. */
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

/** A turn for every lane that has rows and none, and is neither held nor full: a lost turn costs seconds, not work. */
export function* repairLanes(kind: WorkKind): Script<number> {
  const mended = yield* rows<{ id: string }>(repairTurns[kind]())
  if (mended.length > 0) yield { ...clearFilled({ lanes: mended.map(({ id }) => ({ id })) }), notifies: [kind] }
  return mended.length
}
