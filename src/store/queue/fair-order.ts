/** Which lanes get the free slots. Pure functions of what a scan read. */
import { concurrencyLimitOf, type LaneHealth } from '../../core/circuit-breaker.ts'
import type { Allotment } from '../../core/fair-share.ts'
import type { Millis } from '../../core/model.ts'

/** A turn with its lane's rule. */
export interface QueuedTurn {
  readonly seq: number
  readonly laneId: string
  readonly queue: string
  readonly clientId: string
  readonly turn: number
  /** The lane's id if it has a row. */
  readonly known: string | null
  readonly cap: number | null
  readonly filled: number | null
  readonly heldUntil: Millis | null
  readonly windowSize: number | null
  readonly succeededAt: Millis | null
  readonly probeMs: Millis | null
  /** Only on the last row. */
  readonly alarmAt: Millis | null
  readonly now: Millis | null
}
export interface QueueScan {
  readonly turns: readonly QueuedTurn[]
  readonly alarmAt: Millis | null
  readonly now: Millis
}
/** A lane to visit, and how many of its rows to take. */
export interface LaneDemand {
  readonly laneId: string
  readonly queue: string
  readonly clientId: string
  /** Its concurrency limit now; null: none. */
  readonly max: number | null
  readonly hasRule: boolean
  readonly turn: number
  readonly slots: number
}
/** A node's position in the fair order of one kind of work. */
export interface FairCursor {
  /** The client after which the next scan starts, when more clients wait than one scan reads. */
  since: string
  /** The client served last: the next one is served first. */
  last: string
  /** Increases with each visit, to order lanes that take turns. */
  clock: number
}
export const newFairCursor = (): FairCursor => ({ since: '', last: '', clock: 0 })

/** Splits scanned turns into lanes to visit and stale turns to delete. The lane of a stale turn is full or held; the change that opens it adds a turn. */
export function splitStale(scanned: readonly QueuedTurn[], now: Millis): { lanes: readonly LaneDemand[]; stale: readonly QueuedTurn[] } {
  const lanes = new Map<string, LaneDemand>()
  const stale: QueuedTurn[] = []
  for (const row of scanned) {
    if (row.filled === 1 || (row.heldUntil ?? 0) > now) {
      stale.push(row)
      continue
    }
    const lane = lanes.get(row.laneId)
    if (!lane || row.turn < lane.turn)
      lanes.set(row.laneId, {
        laneId: row.laneId,
        queue: row.queue,
        clientId: row.clientId,
        max: concurrencyLimitOf(
          { cap: row.cap, windowSize: row.windowSize, succeededAt: row.succeededAt ?? 0, probeMs: row.probeMs ?? 0 },
          now,
        ),
        hasRule: row.known !== null,
        turn: row.turn,
        slots: 0,
      })
  }
  return { lanes: [...lanes.values()], stale }
}

export const countClients = (scanned: readonly QueuedTurn[]): number => new Set(scanned.map((row) => row.clientId)).size
/** The highest number of turns of one client in one queue. */
export function maxTurns(scanned: readonly QueuedTurn[]): number {
  const counts = new Map<string, number>()
  for (const { queue, clientId } of scanned) counts.set(`${queue} ${clientId}`, (counts.get(`${queue} ${clientId}`) ?? 0) + 1)
  return Math.max(0, ...counts.values())
}

/**
 * Shares `limit` slots: clients take turns, and within a client its lanes, the one with the first turn first. If the scan showed `maxClients` clients,
 * the next scan continues after the last client served. No lane gets more than the allotment permits.
 */
export function shareSlots(
  lanes: readonly LaneDemand[],
  scanned: readonly QueuedTurn[],
  limit: number,
  maxClients: number,
  cursor: FairCursor,
  allotment: Allotment,
): readonly LaneDemand[] {
  const byClient = Map.groupBy(lanes, ({ clientId }) => clientId)
  const ids = [...byClient.keys()].sort()
  const start = Math.max(
    0,
    ids.findIndex((id) => id > cursor.last),
  )
  const clients = [...ids.slice(start), ...ids.slice(0, start)].map((id) => ({
    id,
    index: 0,
    lanes: byClient
      .get(id)!
      .sort((a, b) => a.turn - b.turn || (a.laneId < b.laneId ? -1 : 1))
      .map((lane) => ({ lane, slots: 0, max: lane.max ?? Infinity })),
  }))
  let open = clients
  for (let left = limit; left > 0 && open.length > 0; ) {
    open = open.filter((client) => {
      if (left === 0) return true
      const lane = nextOpenLane(client, allotment)
      if (!lane) return false
      lane.slots++
      left--
      cursor.last = client.id
      return true
    })
  }
  cursor.since = countClients(scanned) >= maxClients ? cursor.last : ''
  return clients.flatMap((client) => client.lanes.filter(({ slots }) => slots > 0).map(({ lane, slots }) => ({ ...lane, slots })))
}

function nextOpenLane<L extends { lane: LaneDemand; slots: number; max: number }>(
  client: { id: string; index: number; lanes: L[] },
  allotment: Allotment,
): L | null {
  for (let tried = 0; tried < client.lanes.length; tried++) {
    const lane = client.lanes[client.index]!
    client.index = (client.index + 1) % client.lanes.length
    if (lane.slots < lane.max && allotment.take(client.id, lane.lane.laneId, 1) > 0) return lane
  }
  return null
}

/** Held without an end: no alarm. */
export const FOREVER: Millis = 8_000_000_000_000_000

/** The limits of a lane, and the state of its breaker and slow start. */
export interface LaneRule extends LaneHealth {
  readonly id: string
  readonly cap: number | null
  readonly paceMs: Millis | null
  readonly pacedAt: Millis
  readonly filled: number
}
/** A row at the head of a lane. */
export interface LaneHead {
  readonly id: string
  readonly line: number
  readonly rank: Millis
}
export interface StartPlan {
  readonly take: readonly string[]
  readonly pacedAt: Millis | null
  /** The lane becomes full: the settlement that frees a slot adds its turn. */
  readonly filled: boolean
  /** When to visit again: now, at a time, or null when another change adds the turn. */
  readonly nextVisit: 'now' | Millis | null
  /** The rank of the first row that is left. */
  readonly rank: Millis
}

/** How much a lane may catch up after late visits. With less, a fast lane would lose the delay of each visit. */
export const PACE_BURST_MS: Millis = 500
/** A fast lane is visited at most this often, for several rows at a time. */
const PACED_VISIT_MS: Millis = 20

/** Which rows of a lane to start now, and when to visit it again. First tries and later tries alternate. */
export function planStarts(
  slots: number,
  rule: LaneRule,
  running: number,
  heads: readonly LaneHead[],
  gate: number,
  now: Millis,
): StartPlan {
  const by = (a: LaneHead, b: LaneHead): number => a.rank - b.rank || (a.id < b.id ? -1 : 1)
  const firsts = heads.filter((row) => row.line === 0).sort(by)
  const others = heads.filter((row) => row.line !== 0).sort(by)
  const held = rule.heldUntil > now
  const limit = concurrencyLimitOf(rule, now)
  const free = limit === null ? Infinity : limit - running
  const since = rule.paceMs === null ? 0 : Math.max(rule.pacedAt, now - Math.max(rule.paceMs, PACE_BURST_MS))
  const pace = rule.paceMs === null ? Infinity : Math.floor((now - since) / rule.paceMs)
  const count = held ? 0 : Math.max(0, Math.min(slots, free, pace, gate))
  const take: string[] = []
  let i = 0
  let j = 0
  while (take.length < count) {
    const first = firsts[i]
    const other = others[j] && others[j]!.rank <= now ? others[j] : undefined
    // A probe is the row that is due longest, so that an old delivery is not overtaken while the endpoint is down.
    const turn = rule.probeMs > 0 && first && other ? first.rank <= other.rank : i <= j
    const chosen = first && (turn || !other) ? first : other
    if (!chosen) break
    if (chosen === first) i++
    else j++
    take.push(chosen.id)
  }
  const pacedAt = rule.paceMs !== null && take.length > 0 ? since + take.length * rule.paceMs : null
  // The settlement of a running row sees the mark.
  const filled = take.length >= free && running + take.length > 0
  const due = Math.min(firsts[i] ? now : Infinity, others[j]?.rank ?? Infinity)
  const rank = Math.min(firsts[i]?.rank ?? Infinity, others[j]?.rank ?? Infinity)
  const nextVisit = (): 'now' | Millis | null => {
    if (due === Infinity || (held && rule.heldUntil >= FOREVER)) return null
    // A settlement that frees a slot of a held lane adds a turn, which the next scan deletes as stale. Only this alarm ends the hold.
    if (held) return Math.max(due, rule.heldUntil)
    if (filled) return null
    const at = Math.max(
      due,
      rule.paceMs !== null && take.length >= pace
        ? Math.max((pacedAt ?? since) + rule.paceMs, now + Math.min(rule.paceMs, PACED_VISIT_MS))
        : 0,
      // The type is at its limit across nodes.
      gate <= take.length ? now + 100 : 0,
    )
    return at <= now ? 'now' : at
  }
  return { take, pacedAt, filled, nextVisit: nextVisit(), rank: Math.min(rank, now) }
}
