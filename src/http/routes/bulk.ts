/** Cancel and retry by filter. `dryRun` counts; otherwise a durable task does the work. */
import type { State } from '../../core/model.ts'
import { BULK_CANCEL, BULK_RETRY, type BulkInput, toBulkFilter } from '../../tasks/system/bulk.ts'
import { type AppContext, requireClientId } from '../context.ts'
import { taskExamples as examples } from '../openapi/examples/tasks.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { type ApiCall, type Route, response, route } from '../request/route.ts'
import * as deliveryShapes from '../shapes/deliveries.ts'
import * as shapes from '../shapes/tasks.ts'
import { countMatches, startPagedJob } from './paged-jobs.ts'

export function bulkRoutes(context: AppContext): Route[] {
  const common = {
    tag: 'Tasks',
    scope: 'tasks:write',
    clientOnly: true,
    responses: {
      200: response('With `dryRun`: how many tasks match.', deliveryShapes.matched, [examples.matched]),
      202: response('The task that does the work.', shapes.task, [examples.bulkTask], ['Location', 'ETag', 'Retry-After']),
    },
  } as const
  return [
    route.post('/v1/tasks/cancel', 'cancelTasks', {
      ...common,
      summary: 'Cancel all matching tasks, in a task of type system.cancel',
      description:
        'Each member narrows the filter: `{}` matches every pending and running task. Pending tasks are canceled; running tasks are asked to stop.',
      body: shapes.bulkCancel,
      bodyExamples: [examples.cancelTasks],
      handle: (call, { body }) => begin(context, call, BULK_CANCEL, body, ['pending', 'running']),
    }),
    route.post('/v1/tasks/retry', 'retryTasks', {
      ...common,
      summary: 'Retry all matching tasks, in a task of type system.retry',
      description: 'Each member narrows the filter: `{}` matches every failed and canceled task.',
      body: shapes.bulkRetry,
      bodyExamples: [examples.retryTasks],
      handle: (call, { body }) => begin(context, call, BULK_RETRY, body, ['failed', 'canceled']),
    }),
  ]
}

async function begin(
  context: AppContext,
  call: ApiCall,
  type: string,
  body: shapes.BulkRequest,
  every: readonly State[],
): Promise<ApiReply> {
  const input = await plan(context, body, every)
  if (body.dryRun !== true) {
    // A client above its limit of open tasks must still be able to cancel tasks.
    if (type !== BULK_CANCEL) context.checkCapacity(requireClientId(call), 1, call.receivedAt)
    return startPagedJob(context, call, type, input)
  }
  const filter = toBulkFilter(requireClientId(call), input)
  return countMatches(call, (after) => context.store.tasks.countBulk(filter, after))
}

/** @throws RingbackError `validation_failed` for contradictory times */
async function plan(context: AppContext, body: shapes.BulkRequest, every: readonly State[]): Promise<BulkInput> {
  const { status, type = null, metadata = null, createdAfter = null, createdBefore = null } = body
  if (createdAfter !== null && createdBefore !== null && createdAfter >= createdBefore)
    throw validationFailed([{ pointer: '#/createdBefore', detail: 'must be after createdAfter' }])
  const now = await context.store.now()
  return {
    states: [...new Set(status ?? every)],
    type,
    metadata,
    createdAfter: createdAfter === null ? null : new Date(createdAfter).toISOString(),
    createdBefore: new Date(Math.min(createdBefore ?? now, now)).toISOString(),
  }
}
