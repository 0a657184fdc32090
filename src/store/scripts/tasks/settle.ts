/** Settlements of tasks: the only way out of `running`. */
import type { Task } from '../../../core/model.ts'
import { updatedTaskColumns } from '../../columns.ts'
import type { OwedDelivery, Settlement, SettleResult } from '../../interfaces.ts'
import type { LentSlots } from '../../queue/claim.ts'
import { byLease, leaseKey, recordEndedLeases } from '../../queue/leases.ts'
import { type RecordColumns, rows, type Script, type SQL, sql, statement } from '../../script.ts'
import type { RenderContext } from '../outbox.ts'
import { targetStates } from '../shared.ts'
import { afterwards } from './rows.ts'

const SETTLEMENT: RecordColumns = {
  task_id: 'text',
  at_fence: 'int8',
  wish: 'text',
  delay_ms: 'int8',
  back: 'int8',
  result: 'text',
  error: 'text',
}
/** A throw after a cancel request ends in `canceled`. A returned result stands. */
const ended = (task: string): SQL =>
  sql.raw(`case when ${task}.cancel_requested_at is not null and v.wish <> 'completed' then 'canceled' else v.wish end`)
const updateTasks = statement((d) => {
  const state = ended('tasks')
  return sql`update tasks set state = ${state}, revision = tasks.revision + 1, updated_at = ${d.now}, leased_until = null, leased_by = null,
      fence = tasks.fence + case when ${state} = 'canceled' then 1 else 0 end,
      tries = tasks.tries - v.back,
      started_at = case when ${state} = 'failed' and v.back = tasks.tries then null else tasks.started_at end,
      line = case when ${state} = 'pending' then 1 else tasks.line end,
      rank = case when ${state} = 'pending' then ${d.now} + v.delay_ms else tasks.rank end,
      due_at = case when ${state} = 'pending' then ${d.now} + v.delay_ms else tasks.due_at end,
      finished_at = case when ${state} = 'pending' then null else ${d.now} end,
      progress = case when ${state} = 'completed' then 100 else tasks.progress end,
      result = case when ${state} = 'completed' then v.result else null end,
      error = case when ${state} = 'failed' then v.error else null end,
      last_error = case when ${state} = 'pending' and v.error is not null then v.error else tasks.last_error end
    from ${d.records('settlements', SETTLEMENT)} v
    where tasks.id = v.task_id and tasks.fence = v.at_fence and coalesce(tasks.state, '') = 'running'
      ${d.restrictTo(
        sql`tasks.id`,
        sql`select k.id from tasks k where k.id ${d.anyOf(
          sql`select y.task_id from ${d.records('settlements', SETTLEMENT)} y`,
        )} order by k.id ${d.lock}`,
      )}
    returning ${updatedTaskColumns}`
})

/** The only way out of `running`: state, event and owed deliveries in one transaction. A stale fence changes nothing and is answered `stale`. */
export function* settleTasks(
  settlements: readonly (Settlement & { readonly back?: number })[],
  view: RenderContext,
  slots: LentSlots | null = null,
): Script<{ readonly answers: readonly SettleResult<Task>[]; readonly started: readonly OwedDelivery[] }> {
  const won = yield* rows<Task>(
    updateTasks({
      settlements: [...byLease(settlements).values()].map(({ id, fence, outcome, back }) => ({
        task_id: id,
        at_fence: fence,
        wish: targetStates[outcome.kind],
        delay_ms: 'delayMs' in outcome ? outcome.delayMs : 0,
        back: back ?? (outcome.kind === 'release' ? 1 : 0),
        result: outcome.kind === 'complete' ? (outcome.result ?? 'null') : null,
        error: 'error' in outcome && outcome.error !== null ? JSON.stringify(outcome.error) : null,
      })),
    }),
  )
  const started = yield* afterwards(won, view, slots)
  // A cancel raised the fence.
  const held = byLease(won.map((task) => ({ id: task.id, fence: task.state === 'canceled' ? task.fence - 1 : task.fence, task })))
  const endedByHolder: Parameters<typeof recordEndedLeases>[0][number][] = []
  const answers = settlements.map((settlement): SettleResult<Task> => {
    const lease = leaseKey(settlement)
    const value = held.get(lease)?.task
    if (!held.delete(lease)) return { kind: 'stale' }
    const { id, fence, endedAs: as } = settlement
    if (as !== undefined && value!.state !== 'completed') endedByHolder.push({ id, fence, clientId: value!.clientId, endedAs: as })
    return { kind: 'settled', value: value! }
  })
  yield* recordEndedLeases(endedByHolder)
  return { answers, started }
}
