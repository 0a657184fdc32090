/** Rate limits shared by all nodes: windows of fixed length. A crash loses at most one window. */
import type { Millis } from '../../core/model.ts'
import type { QuotaUse, QuotaWindow } from '../interfaces.ts'
import { type BoundStatement, bind, execute, type RecordColumns, runAll, type Script, sql, statement } from '../script.ts'

/** A window has ended when a new one, begun now, would end a whole window later. So one reading of the clock decides both columns. */
const use = statement(
  (d) => sql`insert into rate_limits (key, points, expire)
    select v.key, v.points, ${d.now} + ${bind('windowMs')} from ${d.records('uses', { key: 'text', points: 'int8' })} v where true order by v.key
    on conflict (key) do update set
      points = case when rate_limits.expire + ${bind('windowMs')} <= excluded.expire then excluded.points else rate_limits.points + excluded.points end,
      expire = case when rate_limits.expire + ${bind('windowMs')} <= excluded.expire then excluded.expire else rate_limits.expire end
    returning key, points, expire, expire - ${d.now} as "leftMs"`,
)
/** All rows of a call are locked in one order, so that nodes do not deadlock. */
const lock = statement(
  (d) =>
    sql`select key from rate_limits where key ${d.anyOf(sql`select v.key from ${d.records('locked', { key: 'text' })} v`)} order by key ${d.lock}`,
)
const OVER: RecordColumns = { key: 'text', most: 'int8' }
const BACK: RecordColumns = { key: 'text', points: 'int8', expire: 'int8' }
const trim = statement(
  (d) => sql`update rate_limits set points = v.most from ${d.records('over', OVER)} v
    where rate_limits.key = v.key and rate_limits.points > v.most
      ${d.restrictTo(sql`rate_limits.key`, sql`select y.key from ${d.records('over', OVER)} y`)}`,
)
const giveBack = statement(
  (d) => sql`update rate_limits set points = rate_limits.points - v.points from ${d.records('back', BACK)} v
    where rate_limits.key = v.key and rate_limits.expire = v.expire and rate_limits.points >= v.points
      ${d.restrictTo(sql`rate_limits.key`, sql`select y.key from ${d.records('back', BACK)} y`)}`,
)
/** No wait for the disk: a crash of the server loses only the last moment of a window. */
const skipDiskWait = statement((d) => (d.name === 'postgres' ? sql`set local synchronous_commit = off` : sql`select 1`))

/**
 * Takes one use of each quota, or finds it exhausted: `used` is then over the limit and was not counted. Uses of the same quota in one call are
 * served in order. A use is returned only to its own window.
 */
export function* consumeQuotas(uses: readonly QuotaUse[]): Script<readonly QuotaWindow[]> {
  const groups = new Map<string, QuotaUse[]>()
  for (const one of uses) if (one.refundWindow === null) groups.set(one.key, [...(groups.get(one.key) ?? []), one])
  const returned = uses.flatMap(({ key, refundWindow: back }) => (back === null ? [] : [{ key, points: 1, expire: back }]))
  const early: BoundStatement[] = [skipDiskWait(), lock({ locked: [...new Set(uses.map(({ key }) => key))].map((key) => ({ key })) })]
  if (returned.length > 0) early.push(giveBack({ back: merged(returned) }))
  yield* execute(early)

  const byWindow = Map.groupBy(groups.values(), ([first]) => first!.windowMs)
  const calls = [...byWindow].map(([windowMs, sameWindow]) =>
    use({ windowMs, uses: sameWindow.map((group) => ({ key: group[0]!.key, points: group.length })) }),
  )
  const found = (yield* runAll(calls)).flat() as unknown as (QuotaCount & { key: string })[]
  const counts = new Map(found.map((row) => [row.key, row]))
  const over = [...groups.values()].filter((group) => counts.get(group[0]!.key)!.points > group[0]!.limit)
  if (over.length > 0) yield* execute([trim({ over: over.map(([first]) => ({ key: first!.key, most: first!.limit })) })])

  const served = new Map<string, number>()
  return uses.map(({ key, refundWindow: back }) => {
    if (back !== null) return NOTHING
    const { points, expire, leftMs } = counts.get(key)!
    const order = (served.get(key) ?? 0) + 1
    served.set(key, order)
    return { used: points - groups.get(key)!.length + order, expire, leftMs }
  })
}
interface QuotaCount {
  readonly points: number
  readonly expire: Millis
  readonly leftMs: Millis
}
const NOTHING: QuotaWindow = { used: 0, expire: 0, leftMs: 0 }

/** Merges uses of the same row: a statement updates a row only once. */
function merged(back: readonly { key: string; points: number; expire: Millis }[]): typeof back {
  const sums = new Map<string, { key: string; points: number; expire: Millis }>()
  for (const one of back) {
    const name = `${one.key} ${one.expire}`
    sums.set(name, { ...one, points: (sums.get(name)?.points ?? 0) + one.points })
  }
  return [...sums.values()]
}

/** Removes the quotas of a deleted client. */
export const deleteQuotas = statement(
  (d) => sql`delete from rate_limits where key ${d.anyOf(sql`select v.key from ${d.records('quotas', { key: 'text' })} v`)}`,
)
