/** Sending again by filter: counted, or done by a durable task. */
import type { EventType } from '../../core/model.ts'
import { REPLAY_TYPE, type ReplayInput, toReplayFilter } from '../../tasks/system/replay.ts'
import { type AppContext, requireClientId } from '../context.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { type ApiCall, type Route, route } from '../request/route.ts'
import * as shapes from '../shapes/deliveries.ts'
import * as taskShapes from '../shapes/tasks.ts'
import { countMatches, startPagedJob } from './paged-jobs.ts'

const ENDED = ['delivered', 'failed', 'canceled'] as const

export function replayRoute(context: AppContext): Route {
  return route(
    {
      tag: 'Deliveries',
      method: 'post',
      path: '/v1/deliveries/replay',
      name: 'replayDeliveries',
      summary: 'Send again whatever a filter matches, as a task of type system.replay',
      description:
        'Members left out narrow nothing. An event counts by its latest delivery to the endpoint; what is open already is left alone. `dryRun` only counts.',
      scope: 'deliveries:write',
      clientOnly: true,
      body: shapes.replay,
      bodyOptional: true,
      responses: {
        200: { description: 'How many a replay would send.', schema: shapes.matched },
        202: { description: 'The task that sends them.', schema: taskShapes.task, headers: ['Location', 'ETag', 'Retry-After'] },
      },
    },
    { handle: async (call, { body }) => replay(context, call, body ?? {}) },
  )
}

async function replay(context: AppContext, call: ApiCall, body: shapes.ReplayRequest): Promise<ApiReply> {
  const clientId = requireClientId(call)
  const input = await plan(context, clientId, body)
  if (body.dryRun !== true) {
    context.checkCapacity(clientId, 1, call.receivedAt)
    return startPagedJob(context, call, REPLAY_TYPE, input)
  }
  const filter = toReplayFilter(clientId, input)
  return countMatches(call, (after) => context.store.deliveries.countReplay(filter, after))
}

/** @throws RingbackError `validation_failed` for an endpoint that is not the client's, or times that contradict each other. */
async function plan(context: AppContext, clientId: string, body: shapes.ReplayRequest): Promise<ReplayInput> {
  const { endpointId = null, since = null, until = null, statuses, eventTypes } = body
  if (since !== null && until !== null && since > until)
    throw validationFailed([{ pointer: '#/until', detail: 'must not be before since' }])
  if (endpointId !== null && !(await context.store.endpoints.find(endpointId, clientId)))
    throw validationFailed([{ pointer: '#/endpointId', detail: 'names no endpoint of yours' }])
  const now = await context.store.now()
  return {
    endpointId,
    since: since === null ? null : new Date(since).toISOString(),
    until: new Date(Math.min(until ?? now, now)).toISOString(),
    asOf: new Date(now).toISOString(),
    states: [...new Set(statuses ?? ENDED)].map(shapes.toDeliveryState),
    eventTypes: eventTypes ? ([...new Set(eventTypes)] as EventType[]) : null,
  }
}
