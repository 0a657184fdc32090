/** The rules of lanes: created and changed with their endpoint, and changed by the results of its attempts. */
import { applySignals } from '../../core/circuit-breaker.ts'
import type { Endpoint, HealthSignal, Millis } from '../../core/model.ts'
import { type BoundStatement, callFor, type Dialect, execute, type RecordColumns, rows, type Script, sql, statement } from '../script.ts'
import { FOREVER, type LaneRule, PACE_BURST_MS } from './fair-order.ts'
import { addTurns, type LaneRef, type Turn } from './run-queue.ts'

/** Concurrent tasks of one client, type and `concurrencyKey`. */
export const KEY_CONCURRENCY = 1

const insertLanes = statement(
  (d) => sql`insert into lanes (id, cap, pace_ms, paced_at, held_until, filled, window_size)
    select v.id, v.cap, v.pace_ms, 0, v.held_until, 0, v.window_size
    from ${d.records('lanes', { id: 'text', cap: 'int8', pace_ms: 'int8', held_until: 'int8', window_size: 'int8' })} v
    where true order by v.id on conflict (id) do nothing`,
)
/** `windowSize`: where slow start begins. Default: no slow start, the lane runs as many as its cap. */
export const addLanes = (
  lanes: readonly { id: string; cap: number | null; paceMs?: Millis | null; heldUntil?: Millis; windowSize?: number }[],
): readonly BoundStatement[] =>
  callFor(
    insertLanes,
    'lanes',
    lanes.map(({ id, cap, paceMs = null, heldUntil = 0, windowSize = null }) => ({
      id,
      cap,
      pace_ms: paceMs,
      held_until: heldUntil,
      window_size: windowSize,
    })),
  )

/** Average milliseconds between attempts, from the lower of the owner's and the receiver's limit. No minute exceeds it, even when a fast lane catches up. */
export function paceOf({ maxPerMinute, allowedRate }: Pick<Endpoint, 'maxPerMinute' | 'allowedRate'>): Millis | null {
  const rate = Math.min(maxPerMinute ?? Infinity, allowedRate ?? Infinity)
  if (rate === Infinity) return null
  const paceMs = Math.ceil(60_000 / rate)
  return paceMs < PACE_BURST_MS ? Math.ceil((60_000 + PACE_BURST_MS) / rate) : paceMs
}

/** The ids bound as records `name`. */
export const ids = (d: Dialect, name: string) => sql`select v.id from ${d.records(name, { id: 'text' })} v`
/** The columns of a rule that change, and their names in `LaneRule`. */
const COLUMNS = {
  cap: 'cap',
  pace_ms: 'paceMs',
  held_until: 'heldUntil',
  window_size: 'windowSize',
  succeeded_at: 'succeededAt',
  failures: 'failures',
  probe_ms: 'probeMs',
  blocked: 'blocked',
  blocked_since: 'blockedSince',
} as const satisfies Record<string, keyof LaneRule>
const columnNames = Object.keys(COLUMNS) as (keyof typeof COLUMNS)[]
const rule = sql.raw(`id, cap, pace_ms as "paceMs", paced_at as "pacedAt", held_until as "heldUntil", filled, window_size as "windowSize",
  succeeded_at as "succeededAt", failures, probe_ms as "probeMs", blocked, blocked_since as "blockedSince"`)
/** Claims skip locked lanes. */
export const lockLanes = statement(
  (d) => sql`select ${rule} from lanes
    where id ${d.anyOf(ids(d, 'lanes'))} order by id ${d.skipLocked}`,
)
const lockCapped = statement(
  (d) => sql`select ${rule} from lanes where id ${d.anyOf(ids(d, 'lanes'))} and cap is not null order by id ${d.lock}`,
)
const RULE: RecordColumns = { lane_id: 'text', ...Object.fromEntries(columnNames.map((name) => [name, 'int8'])) }
const ruleSets = sql.raw(columnNames.map((name) => `${name} = v.${name}`).join(', '))
const updateLanes = statement(
  (d) => sql`update lanes set filled = 0, ${ruleSets} from ${d.records('lanes', RULE)} v where lanes.id = v.lane_id
    ${d.restrictTo(sql`lanes.id`, sql`select y.lane_id from ${d.records('lanes', RULE)} y`)}`,
)
/** Writes rules and clears `filled`. */
const putRules = (rules: readonly LaneRule[]): readonly BoundStatement[] =>
  callFor(
    updateLanes,
    'lanes',
    rules.map((rule) => {
      const record: Record<string, unknown> = { lane_id: rule.id }
      for (const name of columnNames) record[name] = rule[COLUMNS[name]]
      return record
    }),
  )

/** What an attempt showed about the endpoint of a lane. */
export interface LaneSignal extends LaneRef {
  readonly signal: HealthSignal | null
  /** How long the receiver asked to wait; null: it did not ask. */
  readonly retryAfterMs: Millis | null
  /** How long the attempt lasted. */
  readonly durationMs: Millis
}

/** After rows have left `running`: their lanes that were full get a turn. */
export function* leaveLanes(left: readonly LaneRef[], now: Millis): Script<readonly Turn[]> {
  return (yield* releaseSlots(left, [], now)).turns
}

/**
 * As `leaveLanes`, and applies the signals of attempts to the lanes: breaker, slow start, `Retry-After`. Returns the lanes of both before and after.
 */
export function* releaseSlots(
  left: readonly LaneRef[],
  signals: readonly LaneSignal[],
  now: Millis,
): Script<{ readonly turns: readonly Turn[]; readonly lanes: readonly { readonly before: LaneRule; readonly after: LaneRule }[] }> {
  const places = new Map([...signals, ...left].map((row) => [row.laneId, row]))
  if (places.size === 0) return { turns: [], lanes: [] }
  // Locked before it is read: a visit that counted this row as running has then set `filled`.
  const locked = yield* rows<LaneRule>(lockCapped({ lanes: [...places.keys()].map((id) => ({ id })) }))
  const freed = new Set(left.map(({ laneId }) => laneId))
  const signalsOf = Map.groupBy(signals, ({ laneId }) => laneId)
  const lanes = locked.map((before) => ({ before, after: applySignals(before, signalsOf.get(before.id) ?? [], now) }))
  const changed = lanes.filter(({ before, after }) => differs(before, after) || (before.filled === 1 && freed.has(before.id)))
  yield* execute(putRules(changed.map(({ after }) => after)))
  const turns = changed.flatMap(({ before, after }): Turn[] => {
    const { queue, clientId, laneId } = places.get(after.id)!
    const opened = before.filled === 1 ? [{ queue, clientId, laneId, turn: now, alarmAt: null }] : []
    const held = after.heldUntil > before.heldUntil && after.heldUntil < FOREVER
    return held ? [...opened, { queue, clientId, laneId, turn: null, alarmAt: after.heldUntil }] : opened
  })
  return { turns, lanes }
}
const differs = (before: LaneRule, after: LaneRule): boolean =>
  before !== after && (Object.keys(after) as (keyof LaneRule)[]).some((name) => before[name] !== after[name])

/** Changes the rule of a lane and adds its turn, or an alarm at the end of a hold. */
export function* changeLane(place: LaneRef, change: (rule: LaneRule) => LaneRule, now: Millis): Script<void> {
  const [current] = yield* rows<LaneRule>(lockCapped({ lanes: [{ id: place.laneId }] }))
  if (!current) return
  const rule = change(current)
  const held = rule.heldUntil > now
  const turns = held && rule.heldUntil >= FOREVER ? [] : [{ ...place, turn: held ? null : now, alarmAt: held ? rule.heldUntil : null }]
  yield* execute([...putRules([rule]), ...addTurns(turns)])
}
