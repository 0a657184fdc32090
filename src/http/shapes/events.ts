/** Schemas of events: in webhooks, in the feed and in streams. */
import { z } from '@hono/zod-openapi'
import { type ChallengeData, disabledReasons, type endpointEventTypes, eventTypes, taskEventTypes } from '../../core/documents.ts'
import { clientId, cursor, type FieldsOf, id, listOf, pageOf, requiredJson, time, wait, wholeNumber } from './fields.ts'
import { task } from './tasks.ts'

export const taskEvent = z
  .strictObject({ type: z.enum(taskEventTypes), timestamp: time, id: id('event').nullable(), data: task.nullable() })
  .openapi('TaskEvent', { description: 'The content of webhooks, the feed and streams: the same bytes everywhere.' })
export const anyEvent = z
  .strictObject({ type: z.enum(eventTypes), timestamp: time, id: id('event').nullable(), data: requiredJson })
  .openapi('Event')

const failure = (reason: z.ZodType) =>
  z.strictObject({ endpointId: id('endpoint'), url: z.string(), reason, failingSince: time.nullable() })
const envelope = (type: (typeof endpointEventTypes)[number], data: z.ZodType) =>
  z.strictObject({ type: z.literal(type), timestamp: time, id: id('event'), data })
/** The webhooks about endpoints, by event type. */
export const endpointEvents = {
  'endpoint.verification': envelope(
    'endpoint.verification',
    z.strictObject({ endpointId: id('endpoint'), challenge: z.string(), expiresAt: time } satisfies FieldsOf<ChallengeData>),
  ),
  'endpoint.ping': envelope('endpoint.ping', z.strictObject({ endpointId: id('endpoint') })),
  'endpoint.failing': envelope('endpoint.failing', failure(z.null())),
  'endpoint.disabled': envelope('endpoint.disabled', failure(z.enum(disabledReasons))),
} satisfies Record<(typeof endpointEventTypes)[number], z.ZodType>
export const streamEvent = z
  .strictObject({ type: z.enum([...taskEventTypes, 'task.snapshot']), timestamp: time, id: id('event').nullable(), data: task })
  .openapi('StreamEvent', {
    description: '`data` of a frame of the stream. `id` is null but in the last frame, which is the terminal event itself.',
  })
export const eventList = pageOf(anyEvent).openapi('EventList')

export const feedQuery = z.strictObject({
  after: cursor.optional().openapi({ description: 'An event’s id, or `nextCursor`.' }),
  types: listOf(eventTypes).optional(),
  limit: wholeNumber(1, 200).default(100),
  wait: wait.optional(),
  clientId: clientId.optional(),
})
export const taskEventsQuery = z.strictObject({ after: cursor.optional(), limit: wholeNumber(1, 200).default(100) })
