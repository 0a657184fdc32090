/** Submission: the task, the turn of its lane and its idempotency key in one commit. A conflict is a row of the answer, not an error. */
import type { Millis, Task } from '../../core/model.ts'
import { newTask, newTaskOptions, taskColumns } from '../columns.ts'
import type { Idempotency, NewTask, SubmitResult, TaskSubmission } from '../interfaces.ts'
import type { LentSlots } from '../queue/claim.ts'
import { addLanes, KEY_CONCURRENCY } from '../queue/lane.ts'
import { addTurns, turnsFor } from '../queue/run-queue.ts'
import { findPausedTypes, queueOf } from '../queue/task-types.ts'
import { type BoundStatement, bind, execute, first, type RecordColumns, rows, runAll, type Script, sql, statement } from '../script.ts'
import type { RenderContext } from './outbox.ts'
import { boundText, idRows, ids } from './shared.ts'
import { emitIfFollowed, taskLaneOf } from './tasks/rows.ts'

/** How long an idempotency key is kept. */
export const IDEMPOTENCY_MS: Millis = 86_400_000

const TASK: RecordColumns = { ...newTask.columns, start: 'int8', due: 'int8', ...newTaskOptions.columns }
const same = Object.keys(TASK).filter((name) => name !== 'due' && name !== 'start')
const insertTasks = statement(
  (d) => sql`insert into tasks (${sql.raw(same.join(', '))}, state, line, rank, due_at, tries, fence, generation, revision, progress,
      created_at, updated_at, leased_until, leased_by, started_at)
    select ${sql.raw(same.map((name) => `v.${name}`).join(', '))}, case when v.start = 1 then 'running' else 'pending' end,
      case when v.due is null then 0 else 1 end, coalesce(v.due, n.at - v.priority * 1000), coalesce(v.due, n.at),
      v.start, v.start, 1, 1 + v.start, 0, n.at, n.at, case when v.start = 1 then n.at + ${bind('leaseMs')} end,
      case when v.start = 1 then ${boundText(d, 'by')} end, case when v.start = 1 then n.at end
    from ${d.records('tasks', TASK)} v cross join (select ${d.now} as at) n
    returning id, due_at as "dueAt", rank, created_at as "createdAt"`,
)
const insertLabels = statement(
  (d) => sql`insert into labels (client_id, name, value, created_at, task_id)
    select v.client_id, v.name, v.value, v.created_at, v.task_id
    from ${d.records('labels', { client_id: 'text', name: 'text', value: 'text', created_at: 'int8', task_id: 'text' })} v`,
)

const KEY: RecordColumns = { client_id: 'text', scope: 'text', key: 'text', fingerprint: 'text', task_ids: 'text' }
const insertKeys = statement(
  (d) => sql`insert into idempotency (client_id, scope, key, fingerprint, task_ids, expires_at)
    select v.client_id, v.scope, v.key, v.fingerprint, v.task_ids, ${d.now} + ${bind('keepMs')} from ${d.records('keys', KEY)} v
    where true order by v.client_id, v.scope, v.key
    on conflict (client_id, scope, key) do update set fingerprint = excluded.fingerprint, task_ids = excluded.task_ids, expires_at = excluded.expires_at
      where idempotency.expires_at <= ${d.now}
    returning task_ids as "taskIds"`,
)
const readKey = statement(
  (d) => sql`select fingerprint, task_ids as "taskIds" from idempotency
    where client_id = ${bind('clientId')} and scope = ${bind('scope')} and key = ${bind('key')} and expires_at > ${d.now}`,
)
const readTasks = statement((d) => sql`select ${taskColumns} from tasks where id ${d.anyOf(ids(d))}`)

/** Tasks by id, in the given order. Unknown ids are left out. */
export function* findTasks(wanted: readonly string[]): Script<readonly Task[]> {
  const found = new Map((yield* rows<Task>(readTasks({ ids: idRows(wanted) }))).map((task) => [task.id, task]))
  return wanted.flatMap((id) => found.get(id) ?? [])
}

/** The answer to an earlier use of this key; null: it was not used, or was pruned. */
export function* findByIdempotencyKey({ clientId, scope, key, fingerprint }: Idempotency): Script<SubmitResult | null> {
  const found = yield* first<{ fingerprint: string; taskIds: string }>(readKey({ clientId, scope, key }))
  if (!found) return null
  if (found.fingerprint !== fingerprint) return { kind: 'reused' }
  const created = JSON.parse(found.taskIds) as string[]
  const tasks = yield* findTasks(created)
  return tasks.length < created.length ? { kind: 'gone' } : { kind: 'replayed', tasks }
}

/**
 * Submissions of many requests, each all or nothing. A used key is answered with its tasks. Tasks come back as accepted; `started` are those that
 * start at once in free slots of the node.
 */
export function* addTasks(
  intakes: readonly TaskSubmission[],
  view: RenderContext,
  slots: LentSlots | null,
  types: TypeLimits,
): Script<{ readonly answers: readonly SubmitResult[]; readonly started: readonly Task[] }> {
  const fresh = yield* claimKeys(intakes)
  const tasks = intakes.flatMap((intake) => (fresh(intake) ? intake.tasks : []))
  const { written, started } = tasks.length === 0 ? { written: [], started: [] } : yield* insert(tasks, view, slots, types)
  const byId = new Map(written.map((task) => [task.id, task]))
  const answers: SubmitResult[] = []
  for (const intake of intakes) {
    if (fresh(intake)) answers.push({ kind: 'added', tasks: intake.tasks.map((task) => byId.get(task.id)!) })
    // The key was written by another transaction, or earlier in this batch: only another statement sees it.
    else answers.push((yield* findByIdempotencyKey(intake.idempotency!)) ?? { kind: 'gone' })
  }
  return { answers, started }
}

const idsOf = (intake: TaskSubmission): string => JSON.stringify(intake.tasks.map((task) => task.id))
function* claimKeys(intakes: readonly TaskSubmission[]): Script<(intake: TaskSubmission) => boolean> {
  const firsts = new Map<string, TaskSubmission>()
  for (const intake of intakes) {
    if (!intake.idempotency) continue
    const { clientId, scope, key } = intake.idempotency
    const place = `${clientId} ${scope} ${key}`
    if (!firsts.has(place)) firsts.set(place, intake)
  }
  if (firsts.size === 0) return () => true
  const keys = [...firsts.values()].map((intake) => {
    const { clientId, scope, key, fingerprint } = intake.idempotency!
    return { client_id: clientId, scope, key, fingerprint, task_ids: idsOf(intake) }
  })
  const won = new Set((yield* rows<{ taskIds: string }>(insertKeys({ keys, keepMs: IDEMPOTENCY_MS }))).map(({ taskIds }) => taskIds))
  return (intake) => intake.idempotency === null || won.has(idsOf(intake))
}

function* insert(
  tasks: readonly NewTask[],
  view: RenderContext,
  slots: LentSlots | null,
  types: TypeLimits,
): Script<{ written: readonly Task[]; started: readonly Task[] }> {
  const placed = tasks.map((task) => ({ ...task, laneId: taskLaneOf(task), scheduleId: task.scheduleId ?? null }))
  const keyed = [...new Set(placed.filter((task) => task.concurrencyKey !== null).map((task) => task.laneId))]
  const starting = yield* chooseStarting(placed, slots, types)
  const given = yield* runAll([
    insertTasks({
      tasks: placed.map((task) => ({
        ...newTask.toRow(task),
        ...newTaskOptions.toRow(task),
        start: starting.has(task.id) ? 1 : 0,
        due: task.dueAt,
      })),
      leaseMs: slots?.leaseMs ?? 0,
      by: slots?.leasedBy ?? '',
    }),
    ...addLanes(keyed.map((id) => ({ id, cap: KEY_CONCURRENCY }))),
  ])
  const stamps = new Map(
    (given[0] as unknown as { id: string; dueAt: Millis; rank: Millis; createdAt: Millis }[]).map((row) => [row.id, row]),
  )
  const now = Math.max(...[...stamps.values()].map((stamp) => stamp.createdAt))
  const written = placed.map((task): Task => {
    const { dueAt, createdAt } = stamps.get(task.id)!
    return { ...task, ...UNTOUCHED, dueAt, createdAt, updatedAt: createdAt }
  })
  const started = written
    .filter(({ id }) => starting.has(id))
    .map(
      (task): Task => ({
        ...task,
        state: 'running',
        tries: 1,
        fence: 1,
        revision: 2,
        startedAt: task.createdAt,
        leasedUntil: task.createdAt + slots!.leaseMs,
        leasedBy: slots!.leasedBy,
      }),
    )
  const waiting = placed
    .filter(({ id }) => !starting.has(id))
    .map(({ id, type, clientId, laneId, dueAt }) => ({
      queue: queueOf(type),
      clientId,
      laneId,
      line: dueAt === null ? 0 : 1,
      rank: stamps.get(id)!.rank,
    }))
  yield* execute([...labels(written), ...addTurns(turnsFor(waiting, now))])
  yield* emitIfFollowed(
    [
      { tasks: written, type: 'task.created' },
      { tasks: started, type: 'task.started' },
    ],
    view,
  )
  return { written, started }
}

/** Task types that this node runs, with their limits across nodes; null: no limit. */
export type TypeLimits = ReadonlyMap<string, number | null>
/** Tasks that may start in the commit that adds them: due now, without a limit, not paused, and with no older claimable work. */
function* chooseStarting(
  tasks: readonly (NewTask & { laneId: string })[],
  slots: LentSlots | null,
  types: TypeLimits,
): Script<ReadonlySet<string>> {
  if (!slots || slots.count === 0) return new Set()
  const able = tasks.filter((task) => task.dueAt === null && task.concurrencyKey === null && types.get(task.type) === null)
  if (able.length === 0) return new Set()
  const { waiting, paused } = yield* findPausedTypes()
  for (const type of waiting) if (types.has(type) && !paused.has(type)) return new Set()
  return new Set(
    able
      .filter(({ type }) => !paused.has(type))
      .slice(0, slots.count)
      .map(({ id }) => id),
  )
}

const UNTOUCHED = {
  state: 'pending',
  tries: 0,
  fence: 0,
  leasedUntil: null,
  leasedBy: null,
  generation: 1,
  revision: 1,
  result: null,
  error: null,
  lastError: null,
  progress: 0,
  progressMessage: null,
  startedAt: null,
  finishedAt: null,
  cancelRequestedAt: null,
} as const satisfies Partial<Task>

function labels(tasks: readonly Task[]): readonly BoundStatement[] {
  const marked = tasks.filter((task) => task.metadata !== '{}')
  if (marked.length === 0) return []
  return [
    insertLabels({
      labels: marked.flatMap((task) =>
        Object.entries(JSON.parse(task.metadata) as Record<string, string>).map(([name, value]) => ({
          client_id: task.clientId,
          name,
          value,
          created_at: task.createdAt,
          task_id: task.id,
        })),
      ),
    }),
  ]
}
