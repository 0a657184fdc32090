/** The run queue. Every change that makes a lane claimable adds a turn in the same commit. */
import type { Millis, WorkKind } from '../../core/model.ts'
import { type BoundStatement, callFor, type RecordColumns, sql, statement } from '../script.ts'
import { FOREVER } from './fair-order.ts'

/** A lane's entry in the run queue. */
export interface Turn extends LaneRef {
  /** Null: not claimable before `alarmAt`. */
  readonly turn: number | null
  readonly alarmAt: Millis | null
  /** Its alarm is so far off that the pumps' polling finds it in time. */
  readonly late?: boolean
}
/** Longer than the polling interval of a pump. */
const LATE_MS: Millis = 20_000

const TURN: RecordColumns = { queue: 'text', client_id: 'text', lane_id: 'text', turn: 'int8', alarm_at: 'int8' }
const insertTurns = statement(
  (d) => sql`insert into turns (queue, client_id, lane_id, turn, alarm_at)
    select v.queue, v.client_id, v.lane_id, v.turn, v.alarm_at from ${d.records('turns', TURN)} v`,
)
/** Adds turns and notifies the pumps. */
export const addTurns = (turns: readonly Turn[]): readonly BoundStatement[] => {
  const notifies = [...new Set(turns.filter(({ late }) => !late).map(({ queue }) => kindOf(queue)))]
  return putTurnsBack(turns).map((call) => ({ ...call, notifies }))
}
/** Adds turns of which the claiming pump already knows. */
export const putTurnsBack = (turns: readonly Turn[]): readonly BoundStatement[] =>
  callFor(
    insertTurns,
    'turns',
    turns.map((t) => ({ queue: t.queue, client_id: t.clientId, lane_id: t.laneId, turn: t.turn, alarm_at: t.alarmAt })),
  )
const kindOf = (queue: string): WorkKind => (queue.startsWith('task/') ? 'task' : 'delivery')

/** The lane of a row. */
export interface LaneRef {
  readonly queue: string
  readonly clientId: string
  readonly laneId: string
}

/** A row that is claimable now, or at its rank. */
export interface ClaimableLane extends LaneRef {
  readonly line: number
  readonly rank: Millis
}
/** One turn for each lane, at the position of its first row. */
export function turnsFor(claimable: readonly ClaimableLane[], now: Millis): readonly Turn[] {
  const first = new Map<string, ClaimableLane>()
  for (const row of claimable) {
    const known = first.get(row.laneId)
    if (!known || positionOf(row, now) < positionOf(known, now)) first.set(row.laneId, row)
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
const positionOf = (row: ClaimableLane, now: Millis): number => (row.line === 0 || row.rank <= now ? row.rank - FOREVER : row.rank)
