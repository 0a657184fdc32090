/** Turns: the run queue. Whoever makes a lane claimable leaves one in the same commit. */
import type { Millis, WorkKind } from '../../core/model.ts'
import { type BoundStatement, type RecordColumns, sql, statement } from '../script.ts'
import { FOREVER } from './fair-order.ts'

/** What a lane's place in the run queue is made of. */
export interface Turn extends LaneRef {
  /** Null: not in line before `alarmAt`. */
  readonly turn: number | null
  readonly alarmAt: Millis | null
  /** Its alarm goes off so late that the pumps' own polling learns of it in time. */
  readonly late?: boolean
}
/** Longer than a pump goes without looking. */
const LATE_MS: Millis = 20_000

const TURN: RecordColumns = { queue: 'text', client_id: 'text', lane_id: 'text', turn: 'int8', alarm_at: 'int8' }
const insertTurns = statement(
  (d) => sql`insert into turns (queue, client_id, lane_id, turn, alarm_at)
    select v.queue, v.client_id, v.lane_id, v.turn, v.alarm_at from ${d.records('turns', TURN)} v`,
)
/** Turns, and the notification that wakes the pumps. */
export const addTurns = (turns: readonly Turn[]): readonly BoundStatement[] => {
  const notifies = [...new Set(turns.filter(({ late }) => !late).map(({ queue }) => kindOf(queue)))]
  return putTurnsBack(turns).map((call) => ({ ...call, notifies }))
}
/** Turns of lanes that the very pump which claims them knows of. */
export const putTurnsBack = (turns: readonly Turn[]): readonly BoundStatement[] =>
  turns.length === 0
    ? []
    : [
        insertTurns({
          turns: turns.map((t) => ({ queue: t.queue, client_id: t.clientId, lane_id: t.laneId, turn: t.turn, alarm_at: t.alarmAt })),
        }),
      ]
const kindOf = (queue: string): WorkKind => (queue.startsWith('task/') ? 'task' : 'delivery')

/** Where a row waits, or waited. */
export interface LaneRef {
  readonly queue: string
  readonly clientId: string
  readonly laneId: string
}

/** A row that has become claimable, now or at its rank. */
export interface ClaimableLane extends LaneRef {
  readonly line: number
  readonly rank: Millis
}
/** One turn a lane, where its first row stands. */
export function turnsFor(ready: readonly ClaimableLane[], now: Millis): readonly Turn[] {
  const first = new Map<string, ClaimableLane>()
  for (const row of ready) {
    const known = first.get(row.laneId)
    if (!known || standing(row, now) < standing(known, now)) first.set(row.laneId, row)
  }
  return [...first.values()].map((row) => {
    const due = row.line === 0 || row.rank <= now
    return {
      queue: row.queue,
      clientId: row.clientId,
      laneId: row.laneId,
      turn: due ? row.rank : null,
      alarmAt: due ? null : row.rank,
      late: !due && row.rank > now + LATE_MS,
    }
  })
}
const standing = (row: ClaimableLane, now: Millis): number => (row.line === 0 || row.rank <= now ? row.rank - FOREVER : row.rank)
