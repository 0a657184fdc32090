/** Replay by filter. `dryRun` counts; otherwise a durable task sends the events again. */
import type { EventType } from '../../core/model.ts'
import { REPLAY_TYPE, type ReplayInput, toReplayFilter } from '../../tasks/system/replay.ts'
import { type AppContext, requireClientId } from '../context.ts'
import { deliveryExamples as examples } from '../openapi/examples/endpoints.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { type ApiCall, type Route, response, route } from '../request/route.ts'
import * as shapes from '../shapes/deliveries.ts'
import * as taskShapes from '../shapes/tasks.ts'
import { countMatches, startPagedJob } from './paged-jobs.ts'

const ENDED = ['delivered', 'failed', 'canceled'] as const

export function replayRoute(context: AppContext): Route {
  return route.post('/v1/deliveries/replay', 'replayDeliveries', {
    tag: 'Deliveries',
    summary: 'Send all matching events again, in a task of type system.replay',
    description:
      'Each member narrows the filter. The latest delivery of an event to the endpoint decides. Open deliveries are left alone. `dryRun` only counts.',
    scope: 'deliveries:write',
    clientOnly: true,
    body: shapes.replay,
    bodyExamples: [examples.replay],
    bodyOptional: true,
    responses: {
      200: response('With `dryRun`: how many events match.', shapes.matched, [examples.matched]),
      202: response('The task that sends the events.', taskShapes.task, [examples.replayTask], ['Location', 'ETag', 'Retry-After']),
    },
    handle: async (call, { body }) => replay(context, call, body ?? {}),
  })
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

/** @throws RingbackError `validation_failed` for an endpoint of another client, or contradictory times */
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
