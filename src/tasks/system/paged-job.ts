/** System tasks that process a client's rows, one page per commit. After a crash they continue with the next page, on any node. */
import type { Millis } from '../../core/model.ts'
import type { LeaseRef, NewTask, PageCheckpoint } from '../../store/interfaces.ts'
import { defineTask, exponential, type TaskType } from '../define.ts'

/** Every crash of a node spends a try. */
const TRIES = 100
const TIMEOUT_SECONDS = 604_800

export interface PagedJob<Input, Checkpoint extends PageCheckpoint> {
  readonly type: string
  readonly description: string
  /** Processes the next page in one commit. Null: another node has taken over the task. */
  runPage(lease: LeaseRef, clientId: string, input: Input): Promise<Checkpoint | null>
  /** Creation times of the first and the last row. */
  timeRange(input: Input): { readonly since: Millis; readonly until: Millis }
  progressMessage(checkpoint: Checkpoint): string
  resultOf(checkpoint: Checkpoint): unknown
}

export function pagedJobType<Input, Checkpoint extends PageCheckpoint>(job: PagedJob<Input, Checkpoint>): TaskType {
  return defineTask({
    type: job.type,
    description: job.description,
    timeoutSeconds: TIMEOUT_SECONDS,
    retry: exponential({ tries: TRIES }),
    async run(given, { task, signal, progress }) {
      const input = given as Input
      const { since, until } = job.timeRange(input)
      let from: number | null = null
      for (;;) {
        signal.throwIfAborted()
        const page = await job.runPage({ id: task.id, fence: task.fence }, task.clientId, input)
        if (page === null) throw new Error('Another node has taken over the task.')
        if (page.done) return job.resultOf(page)
        // Rows are in order of creation, so the time of the last row measures the progress.
        const { at } = page.after!
        from ??= Math.max(since, at)
        progress((100 * (at - from)) / Math.max(1, until - from), job.progressMessage(page))
      }
    },
  })
}

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
