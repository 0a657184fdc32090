/** The objects that a filter matches: counted, or processed by a durable task page by page. */
import { newId } from '../../core/id.ts'
import type { Position } from '../../store/interfaces.ts'
import { newPagedJobTask } from '../../tasks/system/paged-job.ts'
import { type AppContext, requireClientId } from '../context.ts'
import type { ApiReply } from '../request/problem.ts'
import { jsonReply } from '../request/replies.ts'
import type { ApiCall } from '../request/route.ts'
import { newTaskReply } from './task-document.ts'

/** 202 with the task that does the work. */
export async function startPagedJob(context: AppContext, call: ApiCall, type: string, input: unknown): Promise<ApiReply> {
  const id = newId(context.clock, 'task')
  const submitted = await context.store.tasks.add({ tasks: [newPagedJobTask(id, requireClientId(call), type, input)], idempotency: null })
  if (submitted.kind !== 'added') throw new Error(`a task without a key was ${submitted.kind}`)
  const reply = newTaskReply(context, submitted.tasks[0]!, call.receivedAt)
  reply.headers.Location = `${context.publicUrl()}/v1/tasks/${id}`
  return reply
}

type MatchCount = { readonly matched: number; readonly next: Position | null }
/** 200 with the number of matches. Counts page by page until the caller disconnects. */
export async function countMatches(call: ApiCall, page: (after: Position | null) => Promise<MatchCount>): Promise<ApiReply> {
  let matched = 0
  let after: Position | null = null
  do {
    if (call.request.signal.aborted) break
    const counted: MatchCount = await page(after)
    matched += counted.matched
    after = counted.next
  } while (after !== null)
  return jsonReply(200, { matched })
}
