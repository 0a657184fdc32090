/** What the scripts of tasks share: lanes, followers, and the effects of a change of state. */
import { isTerminal, type Millis, type Task } from '../../../core/model.ts'
import { taskColumns } from '../../columns.ts'
import type { OwedDelivery } from '../../interfaces.ts'
import type { LentSlots } from '../../queue/claim.ts'
import { leaveLanes } from '../../queue/lane.ts'
import { addTurns, type ClaimableLane, turnsFor } from '../../queue/run-queue.ts'
import { queueOf } from '../../queue/task-types.ts'
import { bind, execute, rows, type Script, sql, statement } from '../../script.ts'
import { emit, type RenderContext, type TaskFact, terminalFact } from '../outbox.ts'
import { clientMatches, idRows, ids } from '../shared.ts'

export const taskLaneOf = (task: { clientId: string; type: string; concurrencyKey: string | null }): string =>
  task.concurrencyKey === null ? `${task.clientId}/${task.type}` : `${task.clientId}/${task.type}/${task.concurrencyKey}`
export const ready = (task: Pick<Task, 'type' | 'clientId' | 'laneId'>, line: number, rank: Millis): ClaimableLane => ({
  queue: queueOf(task.type),
  clientId: task.clientId,
  laneId: task.laneId,
  line,
  rank,
})

const readFollowers = statement(
  (d) => sql`select distinct client_id as id from endpoints where client_id ${d.anyOf(ids(d))} and follows = 1`,
)

/** Events that are not terminal are rendered only where an endpoint subscribes to them. */
export function* emitIfFollowed(
  news: readonly { tasks: readonly Task[]; type: 'task.created' | 'task.started' }[],
  view: RenderContext,
): Script<void> {
  const followed = news.flatMap(({ tasks, type }) =>
    tasks.filter((task) => task.callback !== null).map((task): TaskFact => ({ task, type, at: task.updatedAt })),
  )
  const clients = yield* followers(followed.map(({ task }) => task))
  yield* emit(
    followed.filter(({ task }) => clients.has(task.clientId)),
    view,
  )
}
/** The clients of these tasks that have an endpoint with a subscription to more than terminal events. */
export function* followers(tasks: readonly Task[]): Script<ReadonlySet<string>> {
  const clientIds = new Set(tasks.filter(({ callback }) => callback !== null).map(({ clientId }) => clientId))
  if (clientIds.size === 0) return clientIds
  return new Set((yield* rows<{ id: string }>(readFollowers({ ids: idRows(clientIds) }))).map(({ id }) => id))
}

/** After tasks left `running`, or `pending` for good: slots are freed, turns added, terminal events recorded. */
export function* afterwards(
  changed: readonly Task[],
  view: RenderContext,
  slots: LentSlots | null = null,
): Script<readonly OwedDelivery[]> {
  if (changed.length === 0) return []
  const now = changed[0]!.updatedAt
  const opened = yield* leaveLanes(
    changed.map((task) => ({ queue: queueOf(task.type), clientId: task.clientId, laneId: task.laneId })),
    now,
  )
  const waiting = changed.flatMap((task) => {
    if (task.state === 'pending') return [ready(task, 1, task.dueAt)]
    // The type has a free slot again, so its waiting work gets a turn.
    return view.limitedQueues.has(queueOf(task.type)) ? [ready(task, 0, now)] : []
  })
  yield* execute(addTurns([...opened, ...turnsFor(waiting, now)]))
  return yield* emit(changed.filter((task) => isTerminal(task.state)).map(terminalFact), view, slots)
}

export const readTask = statement((d) => sql`select ${taskColumns} from tasks where id = ${bind('id')} and client_id = ${clientMatches(d)}`)
