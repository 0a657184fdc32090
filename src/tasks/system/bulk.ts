/** The task types `system.cancel` and `system.retry`: what a filter matches is canceled, or begins anew. */

import type { State } from '../../core/model.ts'
import type { BulkCheckpoint, BulkFilter, LeaseRef, StoreWith } from '../../store/interfaces.ts'
import { Postpone, type TaskType } from '../define.ts'
import { pagedJobType } from './paged-job.ts'

export const BULK_CANCEL = 'system.cancel'
export const BULK_RETRY = 'system.retry'

/** What such a task's input holds: the filter as it was asked, with its end fixed, so that it never meets tasks made after it. */
export interface BulkInput {
  readonly states: readonly State[]
  readonly type: string | null
  readonly metadata: Readonly<Record<string, string>> | null
  /** RFC 3339, as the other. Neither moment itself counts. */
  readonly createdAfter: string | null
  readonly createdBefore: string
}
export function toBulkFilter(clientId: string, { states, type, metadata, createdAfter, createdBefore }: BulkInput): BulkFilter {
  const [member] = Object.entries(metadata ?? {})
  return {
    clientId,
    states,
    createdBefore: Date.parse(createdBefore),
    ...(type === null ? {} : { type }),
    ...(member === undefined ? {} : { metadata: { key: member[0], value: member[1] } }),
    ...(createdAfter === null ? {} : { createdAfter: Date.parse(createdAfter) }),
  }
}

/** How many tasks may still be opened. */
export interface TaskBudget {
  /** Up to `wanted` more of the client's. Returns how many may be opened now; they count as open. */
  reserve(clientId: string, wanted: number): Promise<number>
}

type RunPage = (lease: LeaseRef, clientId: string, input: BulkInput) => Promise<BulkCheckpoint | null>
const bulkType = (
  page: RunPage,
  type: string,
  description: string,
  told: (changed: BulkCheckpoint) => string,
  result: (changed: BulkCheckpoint) => unknown,
): TaskType =>
  pagedJobType<BulkInput, BulkCheckpoint>({
    type,
    description,
    runPage: page,
    timeRange: ({ createdAfter, createdBefore }) => ({
      since: createdAfter === null ? 0 : Date.parse(createdAfter),
      until: Date.parse(createdBefore),
    }),
    progressMessage: told,
    resultOf: result,
  })

/** What one page begins anew, at most. */
const MAX_CHANGED = 500
/** A walk that has no room looks again so much later. */
const NO_ROOM_SECONDS = 10

export const createBulkTypes = (store: StoreWith<{ tasks: 'runBulkPage' }>, budget: TaskBudget): readonly TaskType[] => {
  const page: RunPage = (lease, clientId, input) => store.tasks.runBulkPage({ lease, filter: toBulkFilter(clientId, input) })
  /** What begins anew is open again. */
  const whileThereIsRoom: RunPage = async (lease, clientId, input) => {
    if ((await budget.reserve(clientId, MAX_CHANGED)) === 0) throw new Postpone(NO_ROOM_SECONDS)
    return page(lease, clientId, input)
  }
  return [
    bulkType(
      page,
      BULK_CANCEL,
      'Cancels tasks.',
      ({ changed }) => `${changed} canceled or asked to end`,
      ({ changed, asked }) => ({ canceled: changed - asked, requested: asked }),
    ),
    bulkType(
      whileThereIsRoom,
      BULK_RETRY,
      'Runs tasks again.',
      ({ changed }) => `${changed} begun anew`,
      ({ changed }) => ({ retried: changed }),
    ),
  ]
}
