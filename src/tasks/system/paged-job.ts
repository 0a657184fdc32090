/** Tasks of Ringback's own that walk along a client's rows, a page a commit: they go on where they stopped, on whichever node. */
import type { Millis } from '../../core/model.ts'
import type { LeaseRef, NewTask, PageCheckpoint } from '../../store/interfaces.ts'
import { defineTask, exponential, type TaskType } from '../define.ts'

/** A crash spends a try, and none is the walk's fault. */
const TRIES = 100
const TIMEOUT_SECONDS = 604_800

export interface PagedJob<Input, Checkpoint extends PageCheckpoint> {
  readonly type: string
  readonly description: string
  /** Does the next page in one commit; null: another node has taken the task over. */
  runPage(lease: LeaseRef, clientId: string, input: Input): Promise<Checkpoint | null>
  /** The times the rows are of, first and last. */
  timeRange(input: Input): { readonly since: Millis; readonly until: Millis }
  /** What it reports on its way. */
  progressMessage(checkpoint: Checkpoint): string
  resultOf(checkpoint: Checkpoint): unknown
}

export function pagedJobType<Input, Checkpoint extends PageCheckpoint>(walk: PagedJob<Input, Checkpoint>): TaskType {
  return defineTask({
    type: walk.type,
    description: walk.description,
    timeoutSeconds: TIMEOUT_SECONDS,
    retry: exponential({ tries: TRIES }),
    async run(given, { task, signal, progress }) {
      const input = given as Input
      const { since, until } = walk.timeRange(input)
      let from: number | null = null
      for (;;) {
        signal.throwIfAborted()
        const page = await walk.runPage({ id: task.id, fence: task.fence }, task.clientId, input)
        if (page === null) throw new Error('another node has taken this over')
        if (page.done) return walk.resultOf(page)
        // Rows stand in the order they were made: how far the time has come is how far the work has.
        const { at } = page.after!
        from ??= Math.max(since, at)
        progress((100 * (at - from)) / Math.max(1, until - from), walk.progressMessage(page))
      }
    },
  })
}

/** A task of such a type, to be written. */
export const newPagedJobTask = (id: string, clientId: string, type: string, input: unknown): NewTask => ({
  id,
  clientId,
  type,
  input: JSON.stringify(input),
  metadata: '{}',
  callback: '{}',
  dueAt: null,
  startBy: null,
  deadlineAt: null,
  timeoutSeconds: TIMEOUT_SECONDS,
  maxTries: TRIES,
  priority: 0,
  concurrencyKey: null,
  batchId: null,
  traceparent: null,
  tracestate: null,
})
