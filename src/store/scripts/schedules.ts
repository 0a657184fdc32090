/** Schedules: a tick moves its schedule on and creates its task in one commit, so that no tick is lost or made twice. */
import type { Millis, Schedule, TaskTemplate } from '../../core/model.ts'
import { newSchedule, scheduleColumns, scheduleSettings } from '../columns.ts'
import type { AddResult, ChangeResult, DueSchedule, NewSchedule, NewTask, Page, Position, SchedulePatch, Tick } from '../interfaces.ts'
import { bind, execute, first, now, query, type RecordColumns, rows, type Script, sql, statement } from '../script.ts'
import { lockClient } from './clients.ts'
import { addTasks } from './intake.ts'
import type { RenderContext } from './outbox.ts'
import { clientMatches, idRows, isAfter, toPage } from './shared.ts'

/** The channel that the next tick may have come nearer. */
export const SCHEDULES_CHANNEL = 'schedule'

const insertSchedule = statement(
  (d) => sql`insert into schedules (${newSchedule.names}, paused_at, created_at, updated_at, revision)
    select ${newSchedule.names}, case when ${bind('paused')} = 1 then ${d.now} else null end, ${d.now}, ${d.now}, 1
    from ${d.records('schedules', newSchedule.columns)} v returning ${scheduleColumns}`,
)
const countSchedules = statement(() => sql`select count(*) as n from schedules where client_id = ${bind('clientId')}`)
/** At most `max` for each client, however many are added at once. */
export function* addSchedule(schedule: NewSchedule, max: number): Script<AddResult<Schedule>> {
  const { clientId } = schedule
  yield* execute([lockClient({ id: clientId })])
  if ((yield* first<{ n: number }>(countSchedules({ clientId })))!.n >= max) return { kind: 'full' }
  const made = yield* first<Schedule>({
    ...insertSchedule({ schedules: [newSchedule.toRow(schedule)], paused: schedule.paused ? 1 : 0 }),
    notifies: [SCHEDULES_CHANNEL],
  })
  return { kind: 'added', value: made! }
}

export const readSchedule = statement(
  (d) => sql`select ${scheduleColumns} from schedules where id = ${bind('id')} and client_id = ${clientMatches(d)}`,
)
const lockSchedule = statement(
  (d) => sql`select ${scheduleColumns} from schedules where id = ${bind('id')} and client_id = ${clientMatches(d)} ${d.lock}`,
)

export function* listSchedules(clientId: string | null, limit: number, after: Position | null): Script<Page<Schedule>> {
  const own = clientId === null ? sql`true` : sql`client_id = ${clientId}`
  const beyond = after ? isAfter(after) : sql`true`
  const found = yield* rows<Schedule>(
    query(() => sql`select ${scheduleColumns} from schedules where ${own} and ${beyond} order by created_at, id limit ${limit + 1}`),
  )
  return toPage(found, limit)
}

/** A patch that moves the next tick was planned on the tick it saw: a tick made meanwhile would be planned again. */
export function* changeSchedule(
  id: string,
  clientId: string | null,
  patch: SchedulePatch,
  seen: Pick<Schedule, 'revision' | 'nextAt'>,
): Script<ChangeResult<Schedule>> {
  const known = yield* first<Schedule>(lockSchedule({ id, clientId }))
  if (!known) return { kind: 'missing' }
  if (known.revision !== seen.revision || (patch.nextAt !== undefined && known.nextAt !== seen.nextAt)) return { kind: 'stale' }
  const changed = yield* first<Schedule>({
    ...query((d) => {
      const sets = scheduleSettings.assignments(patch)
      if (patch.paused !== undefined) sets.push(patch.paused ? sql`paused_at = coalesce(paused_at, ${d.now})` : sql`paused_at = null`)
      return sql`update schedules set ${sql.join([...sets, sql`revision = revision + 1`, sql`updated_at = ${d.now}`], sql`, `)}
        where id = ${id} returning ${scheduleColumns}`
    }),
    notifies: [SCHEDULES_CHANNEL],
  })
  return { kind: 'changed', value: changed! }
}

const removeRow = statement(
  (d) => sql`delete from schedules where id = ${bind('id')} and client_id = ${clientMatches(d)} returning client_id as "clientId"`,
)
/** Returns the id of its client; null: there is no such schedule. */
export function* removeSchedule(id: string, clientId: string | null): Script<string | null> {
  return (yield* first<{ clientId: string }>(removeRow({ id, clientId })))?.clientId ?? null
}

// The status is read by a subquery: with a join the planner could start from the clients and read every schedule.
const readDue = statement(
  (d) => sql`select s.id as "id", s.client_id as "clientId", s.type as "type", s.cron as "cron", s.timezone as "timezone",
      s.catch_up as "catchUp", s.next_at as "nextAt", s.revision as "revision", length(s.template) as "size"
    from schedules s where s.next_at is not null and s.paused_at is null
      and s.type ${d.anyOf(sql`select v.type from ${d.records('types', { type: 'text' })} v`)}
      and (select c.status from clients c where c.id = s.client_id) = 'active'
      and s.client_id not in (select x.id from ${d.records('except', { id: 'text' })} x)
    order by s.next_at limit ${bind('limit')}`,
)
/** Due schedules, except those of some clients, and the store's time. */
export function* findDueSchedules(
  types: readonly string[],
  limit: number,
  except: readonly string[] = [],
): Script<{ now: Millis; items: readonly DueSchedule[] }> {
  const items = yield* rows<DueSchedule>(readDue({ types: types.map((type) => ({ type })), except: idRows(except), limit }))
  return { now: yield* now(), items }
}

const TICK: RecordColumns = { schedule_id: 'text', known_at: 'int8', known_revision: 'int8', upcoming_at: 'int8', latest_at: 'int8' }
// coalesce keeps the planner from reading every schedule.
const moveOn = statement(
  (d) => sql`update schedules set next_at = v.upcoming_at, last_at = coalesce(v.latest_at, schedules.last_at)
    from ${d.records('ticks', TICK)} v
    where schedules.id = v.schedule_id and schedules.next_at = v.known_at and schedules.revision = v.known_revision and coalesce(schedules.paused_at, 0) = 0
      ${d.restrictTo(sql`schedules.id`, sql`select k.id from schedules k where k.id ${d.anyOf(sql`select y.schedule_id from ${d.records('ticks', TICK)} y`)} order by k.id ${d.lock}`)}
    returning schedules.id as "id", schedules.client_id as "clientId", schedules.type as "type", schedules.template as "template"`,
)
type Moved = Pick<Schedule, 'id' | 'clientId' | 'type' | 'template'>

/** Compares and sets the next tick: of many nodes one wins, and its commit holds the tasks. */
export function* tick(ticks: readonly Tick[], view: RenderContext): Script<readonly boolean[]> {
  const distinct = new Map(ticks.map((one) => [one.due.id, one]))
  const moved = yield* rows<Moved>(
    moveOn({
      ticks: [...distinct.values()].map(({ due, times, nextAt }) => ({
        schedule_id: due.id,
        known_at: due.nextAt,
        known_revision: due.revision,
        upcoming_at: nextAt,
        latest_at: times.at(-1) ?? null,
      })),
    }),
  )
  const tasks = moved.flatMap((schedule) => tasksOf(schedule, distinct.get(schedule.id)!, view))
  if (tasks.length > 0) yield* addTasks([{ tasks, idempotency: null }], view, null, new Map())
  const won = new Set(moved.map(({ id }) => id))
  return ticks.map((one) => won.has(one.due.id) && distinct.get(one.due.id) === one)
}

function tasksOf({ id: scheduleId, clientId, type, template }: Moved, tick: Tick, view: RenderContext): readonly NewTask[] {
  const { timeoutSeconds, maxTries, ...rest } = JSON.parse(template) as TaskTemplate
  return tick.times.map((dueAt) => ({
    ...rest,
    id: view.newId('task'),
    clientId,
    type,
    dueAt,
    startBy: null,
    deadlineAt: null,
    timeoutSeconds: timeoutSeconds ?? tick.timeoutSeconds,
    maxTries: maxTries ?? tick.maxTries,
    batchId: null,
    scheduleId,
    traceparent: null,
    tracestate: null,
  }))
}
