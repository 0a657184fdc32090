/** Who gets the free slots: pure, on what a look saw. */
import { concurrencyLimitOf, type LaneHealth } from '../../core/circuit-breaker.ts'
import type { Allotment } from '../../core/fair-share.ts'
import type { Millis } from '../../core/model.ts'

/** A turn in line, with its lane's rule. */
export interface QueuedTurn {
  readonly seq: number
  readonly laneId: string
  readonly queue: string
  readonly clientId: string
  readonly turn: number
  /** The lane's id when it has a row. */
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
/** A lane worth a visit, and how many rows of it. */
export interface LaneDemand {
  readonly laneId: string
  readonly queue: string
  readonly clientId: string
  /** How many of it may run at once now; null: any number. */
  readonly most: number | null
  readonly hasRule: boolean
  readonly turn: number
  readonly slots: number
}
/** A node's memory of one kind of work: whose turn it is. */
export interface FairCursor {
  /** The client after which the next look starts, when more wait than a look shows. */
  since: string
  /** The client that was served last: the one after it is served first. */
  last: string
  /** Orders lanes that take turns: never stands still. */
  clock: number
}
export const newFairCursor = (): FairCursor => ({ since: '', last: '', clock: 0 })

/** What was seen → lanes worth a visit, and turns not worth keeping: their lane is full or held, and whoever opens it leaves another. */
export function splitStale(seen: readonly QueuedTurn[], now: Millis): { lanes: readonly LaneDemand[]; stale: readonly QueuedTurn[] } {
  const lanes = new Map<string, LaneDemand>()
  const stale: QueuedTurn[] = []
  for (const row of seen) {
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
        most: concurrencyLimitOf(
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

/** Clients in sight. */
export const countClients = (seen: readonly QueuedTurn[]): number => new Set(seen.map((row) => row.clientId)).size
/** Turns in sight of the client that shows most of them in one queue. */
export function maxTurns(seen: readonly QueuedTurn[]): number {
  const counts = new Map<string, number>()
  for (const { queue, clientId } of seen) counts.set(`${queue} ${clientId}`, (counts.get(`${queue} ${clientId}`) ?? 0) + 1)
  return Math.max(0, ...counts.values())
}

/**
 * Shares `limit` slots: clients take turns, and within a client its lanes, the one that stands first beginning. When a look showed
 * as many clients as it can (`wide`), the next one goes on behind the last client served. No lane gets more than the allotment lets it have.
 */
export function shareSlots(
  lanes: readonly LaneDemand[],
  seen: readonly QueuedTurn[],
  limit: number,
  wide: number,
  round: FairCursor,
  allotment: Allotment,
): readonly LaneDemand[] {
  const byClient = new Map<string, LaneDemand[]>()
  for (const lane of lanes) {
    const own = byClient.get(lane.clientId)
    if (own) own.push(lane)
    else byClient.set(lane.clientId, [lane])
  }
  const order = [...byClient.keys()].sort()
  const start = Math.max(
    0,
    order.findIndex((id) => id > round.last),
  )
  const circle = [...order.slice(start), ...order.slice(0, start)].map((id) => ({
    id,
    at: 0,
    lanes: byClient
      .get(id)!
      .sort((a, b) => a.turn - b.turn || (a.laneId < b.laneId ? -1 : 1))
      .map((lane) => ({ lane, want: 0, most: lane.most ?? Infinity })),
  }))
  const all = circle
  let open = circle
  for (let left = limit; left > 0 && open.length > 0; ) {
    const still: typeof circle = []
    for (const client of open) {
      if (left === 0) {
        still.push(client)
        continue
      }
      const lane = nextOpen(client, allotment)
      if (!lane) continue
      lane.want++
      left--
      round.last = client.id
      still.push(client)
    }
    open = still
  }
  round.since = countClients(seen) >= wide ? round.last : ''
  return all.flatMap((client) => client.lanes.filter(({ want }) => want > 0).map(({ lane, want }) => ({ ...lane, slots: want })))
}

function nextOpen<L extends { lane: LaneDemand; want: number; most: number }>(
  client: { id: string; at: number; lanes: L[] },
  allotment: Allotment,
): L | null {
  for (let tried = 0; tried < client.lanes.length; tried++) {
    const lane = client.lanes[client.at]!
    client.at = (client.at + 1) % client.lanes.length
    if (lane.want < lane.most && allotment.take(client.id, lane.lane.laneId, 1) > 0) return lane
  }
  return null
}

/** Held until somebody ends the hold: no alarm. */
export const FOREVER: Millis = 8_000_000_000_000_000

/** What a lane allows, and what it remembers. */
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
  /** Full by what it takes now: the settlement that frees a slot leaves the turn. */
  readonly filled: boolean
  /** When to look again: now, at a time, or null when somebody else will say so. */
  readonly nextLook: 'now' | Millis | null
  /** Where the first row left stands. */
  readonly rank: Millis
}

/** What a lane may catch up on when nobody looked in time: of less, lanes with a fast pace would lose what each look comes late by. */
export const PACE_BURST_MS: Millis = 500
/** A lane with a fast pace is looked at this often, for several rows at a time. */
const PACED_LOOK_MS: Millis = 20

/** One lane: its rule, what runs, what waits → what to take, and when to look again. First tries and others alternate. */
export function planStarts(
  want: number,
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
  const room = held ? 0 : Math.max(0, Math.min(want, free, pace, gate))
  const take: string[] = []
  let i = 0
  let j = 0
  while (take.length < room) {
    const first = firsts[i]
    const other = others[j] && others[j]!.rank <= now ? others[j] : undefined
    // A probe is the longest due, so that an old delivery is not overtaken for as long as the endpoint is down.
    const turn = rule.probeMs > 0 && first && other ? first.rank <= other.rank : i <= j
    const chosen = first && (turn || !other) ? first : other
    if (!chosen) break
    if (chosen === first) i++
    else j++
    take.push(chosen.id)
  }
  const pacedAt = rule.paceMs !== null && take.length > 0 ? since + take.length * rule.paceMs : null
  // Whatever filled it, those that run will settle, and the settlement sees the mark.
  const filled = take.length >= free && running + take.length > 0
  const due = Math.min(firsts[i] ? now : Infinity, others[j]?.rank ?? Infinity)
  const rank = Math.min(firsts[i]?.rank ?? Infinity, others[j]?.rank ?? Infinity)
  const waits = (): 'now' | Millis | null => {
    if (due === Infinity || (held && rule.heldUntil >= FOREVER)) return null
    // A settlement that frees a slot while the lane is held leaves a turn that the next look sweeps: only this alarm ends the hold.
    if (held) return Math.max(due, rule.heldUntil)
    if (filled) return null
    const at = Math.max(
      due,
      rule.paceMs !== null && take.length >= pace
        ? Math.max((pacedAt ?? since) + rule.paceMs, now + Math.min(rule.paceMs, PACED_LOOK_MS))
        : 0,
      // The type is full across nodes.
      gate <= take.length ? now + 100 : 0,
    )
    return at <= now ? 'now' : at
  }
  return { take, pacedAt, filled, nextLook: waits(), rank: Math.min(rank, now) }
}
