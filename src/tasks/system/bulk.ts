/** The task types `system.cancel` and `system.retry`: cancel or retry the tasks that match a filter. */
import type { State } from '../../core/model.ts'
import type { BulkCheckpoint, BulkFilter, StoreWith } from '../../store/interfaces.ts'
import { Postpone, type TaskType } from '../define.ts'
import { type PagedJob, pagedJobType } from './paged-job.ts'

export const BULK_CANCEL = 'system.cancel'
export const BULK_RETRY = 'system.retry'

/** The input: the filter of the request. `createdBefore` is always set, so that tasks created later do not match. */
export interface BulkInput {
  readonly states: readonly State[]
  readonly type: string | null
  readonly metadata: Readonly<Record<string, string>> | null
  /** RFC 3339, exclusive, like `createdBefore`. */
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

/** Limits how many tasks are open. */
export interface TaskBudget {
  /** Returns how many of `wanted` tasks the client may open now. They count as open. */
  reserve(clientId: string, wanted: number): Promise<number>
}

type BulkJob = Pick<PagedJob<BulkInput, BulkCheckpoint>, 'type' | 'description' | 'runPage' | 'progressMessage' | 'resultOf'>
const bulkType = (job: BulkJob): TaskType =>
  pagedJobType<BulkInput, BulkCheckpoint>({
    ...job,
    timeRange: ({ createdAfter, createdBefore }) => ({
      since: createdAfter === null ? 0 : Date.parse(createdAfter),
      until: Date.parse(createdBefore),
    }),
  })

/** Tasks that one page retries at most. */
const MAX_CHANGED = 500
/** How long a retry waits when the budget is used up. */
const NO_ROOM_SECONDS = 10

export const createBulkTypes = (store: StoreWith<{ tasks: 'runBulkPage' }>, budget: TaskBudget): readonly TaskType[] => {
  const runPage: BulkJob['runPage'] = (lease, clientId, input) => store.tasks.runBulkPage({ lease, filter: toBulkFilter(clientId, input) })
  return [
    bulkType({
      type: BULK_CANCEL,
      description: 'Cancels tasks.',
      runPage,
      progressMessage: ({ changed }) => `${changed} canceled or being canceled`,
      resultOf: ({ changed, asked }) => ({ canceled: changed - asked, requested: asked }),
    }),
    bulkType({
      type: BULK_RETRY,
      description: 'Runs tasks again.',
      // A retried task is open again.
      async runPage(lease, clientId, input) {
        if ((await budget.reserve(clientId, MAX_CHANGED)) === 0) throw new Postpone(NO_ROOM_SECONDS)
        return runPage(lease, clientId, input)
      },
      progressMessage: ({ changed }) => `${changed} retried`,
      resultOf: ({ changed }) => ({ retried: changed }),
    }),
  ]
}
