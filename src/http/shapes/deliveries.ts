/** Schemas of deliveries and attempts. Documents write a delivery's state `running` as `sending` and `completed` as `delivered`. */
import { z } from '@hono/zod-openapi'
import {
  type AttemptDocument,
  attemptOutcomes,
  canceledReasons,
  type DeliveryDocument,
  type DeliveryStatus,
  deliveryStatuses,
  deliveryWaits,
  eventTypes,
  type Timings,
  triggers,
} from '../../core/documents.ts'
import type { State } from '../../core/model.ts'
import { clientId, cursor, type FieldsOf, id, instant, limit, listOf, pageOf, text, time, timeOrNull } from './fields.ts'

export const toDeliveryStatus = (state: State): DeliveryStatus =>
  state === 'running' ? 'sending' : state === 'completed' ? 'delivered' : state
export const toDeliveryState = (status: DeliveryStatus): State =>
  status === 'sending' ? 'running' : status === 'delivered' ? 'completed' : status

const attempt = z
  .strictObject({
    number: z.int(),
    startedAt: time,
    durationMs: z.number(),
    outcome: z.enum(attemptOutcomes),
    httpStatus: z.int().nullable(),
    error: z.string().nullable(),
    timings: z.object({
      dnsMs: z.number().nullable(),
      connectMs: z.number().nullable(),
      tlsMs: z.number().nullable(),
      firstByteMs: z.number().nullable(),
    } satisfies FieldsOf<Timings>),
    keyId: z.string().nullable(),
    retryAfterSeconds: z.number().nullable(),
    responseHeaders: z.record(z.string(), z.string()),
    responseExcerpt: z.string().nullable(),
    remoteAddress: z.string().nullable().openapi({ description: 'Shown to the operator only.' }),
  } satisfies FieldsOf<AttemptDocument>)
  .openapi('Attempt')

export const delivery = z
  .strictObject({
    id: id('delivery'),
    eventId: id('event'),
    eventType: z.enum(eventTypes),
    taskId: z.string().nullable(),
    endpointId: id('endpoint'),
    url: z.string().nullable(),
    status: z.enum(deliveryStatuses),
    tries: z.int(),
    maxTries: z.int(),
    nextAttemptAt: timeOrNull,
    waitingFor: z.enum(deliveryWaits).nullable(),
    canceledReason: z.enum(canceledReasons).nullable(),
    deliveredAt: timeOrNull,
    trigger: z.enum(triggers),
    createdAt: time,
    attempts: z.array(attempt),
  } satisfies FieldsOf<DeliveryDocument>)
  .openapi('Delivery')
export const deliveryList = pageOf(delivery).openapi('DeliveryList')

export const deliveryListQuery = z.strictObject({
  endpointId: text(100).optional(),
  taskId: text(100).optional(),
  status: listOf(deliveryStatuses).optional(),
  eventType: z.enum(eventTypes).optional(),
  since: instant.optional(),
  until: instant.optional(),
  limit,
  cursor: cursor.optional(),
  clientId: clientId.optional(),
})
export type DeliveryListQuery = z.output<typeof deliveryListQuery>

export const replay = z
  .strictObject({
    endpointId: text(100).nullish(),
    since: instant.nullish(),
    until: instant.nullish(),
    statuses: z
      .array(z.enum(['delivered', 'failed', 'canceled']))
      .min(1)
      .nullish(),
    eventTypes: z.array(z.enum(eventTypes)).min(1).nullish(),
    dryRun: z.boolean().nullish(),
  })
  .openapi('Replay')
export type ReplayRequest = z.output<typeof replay>
export const matched = z.strictObject({ matched: z.int() }).openapi('Matched')
