/** Cancel and retry by filter: counted, or done by a durable task. */

import type { State } from '../../core/model.ts'
import { BULK_CANCEL, BULK_RETRY, type BulkInput, toBulkFilter } from '../../tasks/system/bulk.ts'
import { type AppContext, requireClientId } from '../context.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { type ApiCall, type Route, route } from '../request/route.ts'
import * as deliveryShapes from '../shapes/deliveries.ts'
import * as shapes from '../shapes/tasks.ts'
import { countMatches, startPagedJob } from './paged-jobs.ts'

export function bulkRoutes(context: AppContext): Route[] {
  const common = {
    tag: 'Tasks',
    method: 'post',
    scope: 'tasks:write',
    clientOnly: true,
    responses: {
      200: { description: 'How many tasks match, when `dryRun` asked.', schema: deliveryShapes.matched },
      202: { description: 'The task that does it.', schema: shapes.task, headers: ['Location', 'ETag', 'Retry-After'] },
    },
  } as const
  return [
    route(
      {
        ...common,
        path: '/v1/tasks/cancel',
        name: 'cancelTasks',
        summary: 'Cancel whatever a filter matches, as a task of type system.cancel',
        description:
          'Members left out narrow nothing: `{}` is every pending and running task there is now. Pending ones are canceled, running ones asked to stop.',
        body: shapes.bulkCancel,
      },
      { handle: (call, { body }) => begin(context, call, BULK_CANCEL, body, ['pending', 'running']) },
    ),
    route(
      {
        ...common,
        path: '/v1/tasks/retry',
        name: 'retryTasks',
        summary: 'Run whatever a filter matches again, as a task of type system.retry',
        description: 'Members left out narrow nothing: `{}` is every failed and canceled task there is now.',
        body: shapes.bulkRetry,
      },
      { handle: (call, { body }) => begin(context, call, BULK_RETRY, body, ['failed', 'canceled']) },
    ),
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
    // Who has too many open tasks is helped by canceling some.
    if (type !== BULK_CANCEL) context.checkCapacity(requireClientId(call), 1, call.receivedAt)
    return startPagedJob(context, call, type, input)
  }
  const filter = toBulkFilter(requireClientId(call), input)
  return countMatches(call, (after) => context.store.tasks.countBulk(filter, after))
}

/** @throws RingbackError `validation_failed` for times that contradict each other. */
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
