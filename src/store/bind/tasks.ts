/** `store.tasks`: submit, read, run and end tasks. */
import type { Task } from '../../core/model.ts'
import { writePriority } from '../driver.ts'
import type { TaskStore } from '../interfaces.ts'
import { claim } from '../queue/claim.ts'
import { type FairCursor, newFairCursor } from '../queue/fair-order.ts'
import * as leases from '../queue/leases.ts'
import { queueOf } from '../queue/task-types.ts'
import { first, type Script } from '../script.ts'
import * as audit from '../scripts/audit-log.ts'
import * as bulk from '../scripts/bulk.ts'
import * as intake from '../scripts/intake.ts'
import * as lists from '../scripts/lists.ts'
import * as changes from '../scripts/tasks/change.ts'
import { taskTable } from '../scripts/tasks/claim.ts'
import * as progress from '../scripts/tasks/progress.ts'
import { readTask } from '../scripts/tasks/rows.ts'
import { settleTasks } from '../scripts/tasks/settle.ts'
import type {
  FindResult,
  OwedDelivery,
  Progress,
  ProgressReport,
  Settlement,
  SettleResult,
  TaskClaimOptions,
  TaskSubmission,
} from '../types.ts'
import { type Binding, CANCEL } from './binding.ts'
import type { LocalListeners } from './notifications.ts'

/** Submissions that may wait to be stored; one more is answered 503. */
const MAX_WAITING_INTAKE = 5_000

export function bindTasks(
  { read, write, audited, merged, starting, notify, notifyStopped, render }: Binding,
  local: LocalListeners,
): TaskStore {
  const cursorOf = taskCursors()
  const add = starting<TaskSubmission, Awaited<ReturnType<TaskStore['add']>>, Task>(
    () => local.taskLender,
    (items, slots) => intake.addTasks(items, render, slots, local.lentTypes),
    {
      priority: writePriority.intake,
      size: (item) => item.tasks.reduce((bytes, task) => bytes + task.input.length + 600, 0),
      maxWaiting: MAX_WAITING_INTAKE,
    },
  )
  const settle = starting<Settlement, SettleResult<Task>, OwedDelivery>(
    () => local.deliveryLender,
    (items, slots) => settleTasks(items, render, slots),
    { priority: writePriority.settlement, size: ({ outcome }) => 600 + (outcome.kind === 'complete' ? (outcome.result?.length ?? 0) : 0) },
  )
  const reportProgress = merged<Progress, ProgressReport | { readonly kind: 'stale' }>((items) => progress.reportProgress(items, render), {
    priority: writePriority.settlement,
    size: () => 200,
  })
  return {
    add,
    findSubmitted: (idempotency) => read(() => intake.findByIdempotencyKey(idempotency)),
    countOpen: (after, clientId) => read(() => lists.countOpenTasks(after, clientId)),
    find: (id, clientId) =>
      read(function* (): Script<FindResult<Task>> {
        const task = yield* first<Task>(readTask({ id, clientId }))
        if (task) return { kind: 'found', value: task }
        return { kind: (yield* changes.wasErased(id, clientId)) ? 'gone' : 'missing' }
      }),
    findMany: (ids) => read(() => intake.findTasks(ids)),
    list: (query) => read(() => lists.listTasks(query)),
    async cancel({ id, clientId, by }) {
      const cancel = () => changes.cancelTask(id, clientId, render)
      const answer = await audited(audit.operatorAuthor(by, clientId), cancel, audit.taskRecord('task.cancel'))
      if (answer.kind === 'changed') {
        notify(answer.task.id)
        if (answer.task.state === 'running') notify(CANCEL + id)
      }
      return answer
    },
    async redo({ id, clientId, by }) {
      const redo = () => changes.retryEndedTask(id, clientId)
      const answer = await audited(audit.operatorAuthor(by, clientId), redo, audit.taskRecord('task.retry'))
      if (answer.kind === 'changed') notify(answer.task.id)
      return answer
    },
    erase: ({ id, clientId, by }) =>
      audited(audit.operatorAuthor(by, clientId), () => changes.eraseTask(id, clientId), audit.taskRecord('task.delete')),
    async claim({ limit, leaseMs, leasedBy: by, types }) {
      const wanted = types.map(({ type, concurrency }) => ({ id: queueOf(type), cap: concurrency }))
      for (const { id, cap } of wanted) if (cap !== null) render.limitedQueues.add(id)
      const cursor = cursorOf(types)
      const { taken, ...rest } = await write(() => claim(taskTable(leaseMs, by, render), wanted, limit, cursor), writePriority.claim)
      const items = taken.filter((task) => task.state === 'running')
      // Other nodes are not notified: a claim does not justify a NOTIFY.
      for (const { id } of items) local.taskStarted(id)
      return { ...rest, items }
    },
    async settle(settlement) {
      const answer = await settle(settlement)
      if (answer.kind === 'settled') notify(answer.value.id)
      return answer
    },
    findEnded: (lease, as) => read(() => leases.findTaskByEndedLease(lease, as)),
    async reportProgress(progress) {
      const answer = await reportProgress(progress)
      if (answer.kind === 'settled') notify(answer.value.id)
      return answer
    },
    countBulk: (filter, after) => read(() => bulk.countBulk(filter, after)),
    async runBulkPage({ lease, filter }) {
      const page = await write(() => bulk.bulkPage(lease, filter, render))
      if (page === null) return null
      notifyStopped(page)
      return page.checkpoint
    },
  }
}

/** Sets of task types with a remembered fair order: those of the nodes, and those that workers name. */
const MAX_CURSORS = 100

/** A fair cursor for each set of types that is claimed together. With one cursor for all, a client's busy type would use up the turns of its other types. */
function taskCursors(): (types: TaskClaimOptions['types']) => FairCursor {
  const cursors = new Map<string, FairCursor>()
  return (types) => {
    const key = types.map(({ type }) => type).join(' ')
    const cursor = cursors.get(key) ?? newFairCursor()
    cursors.delete(key)
    cursors.set(key, cursor)
    if (cursors.size > MAX_CURSORS) for (const oldest of cursors.keys()) if (cursors.delete(oldest)) break
    return cursor
  }
}
