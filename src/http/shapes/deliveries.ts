/**
 * The shapes of deliveries and their attempts. The words of the wire that differ from the words of the context (a delivery's `running` is `sending`,
 * its `completed` is `delivered`) are mapped here.
 */
import { z } from '@hono/zod-openapi'
import type { State } from '../../core/model.ts'
import { EVENT_TYPES } from './events.ts'
import { clientId, cursor, id, instant, limit, listOf, pageOf, text, time, timeOrNull } from './fields.ts'

export const DELIVERY_STATUSES = ['pending', 'sending', 'delivered', 'failed', 'canceled'] as const
type DeliveryStatus = (typeof DELIVERY_STATUSES)[number]

const shownStates: Readonly<Record<State, DeliveryStatus>> = {
  pending: 'pending',
  running: 'sending',
  completed: 'delivered',
  failed: 'failed',
  canceled: 'canceled',
}
export const shownState = (state: State): DeliveryStatus => shownStates[state]
export const stateShownAs = (status: DeliveryStatus): State =>
  status === 'sending' ? 'running' : status === 'delivered' ? 'completed' : status

const attempt = z
  .strictObject({
    number: z.int(),
    startedAt: time,
    durationMs: z.number(),
    outcome: z.enum(['success', 'http_error', 'redirect', 'timeout', 'dns', 'tls', 'connect', 'blocked', 'aborted', 'expired']),
    httpStatus: z.int().nullable(),
    error: z.string().nullable(),
    timings: z.object({
      dnsMs: z.number().nullable(),
      connectMs: z.number().nullable(),
      tlsMs: z.number().nullable(),
      firstByteMs: z.number().nullable(),
    }),
    keyId: z.string().nullable(),
    retryAfterSeconds: z.number().nullable(),
    responseHeaders: z.record(z.string(), z.string()),
    responseExcerpt: z.string().nullable(),
    remoteAddress: z.string().nullable().openapi({ description: 'Shown to the operator only.' }),
  })
  .openapi('Attempt')

export const delivery = z
  .strictObject({
    id: id('delivery'),
    eventId: id('event'),
    eventType: z.enum(EVENT_TYPES),
    taskId: z.string().nullable(),
    endpointId: id('endpoint'),
    url: z.string().nullable(),
    status: z.enum(DELIVERY_STATUSES),
    tries: z.int(),
    maxTries: z.int(),
    nextAttemptAt: timeOrNull,
    waitingFor: z
      .enum(['retryBackoff', 'retryAfter', 'endpointPaused', 'endpointDisabled', 'endpointUnverified', 'breaker', 'rate', 'inFlight'])
      .nullable(),
    canceledReason: z.enum(['superseded', 'endpointDeleted', 'taskDeleted']).nullable(),
    deliveredAt: timeOrNull,
    trigger: z.enum(['event', 'redelivery', 'replay', 'ping']),
    createdAt: time,
    attempts: z.array(attempt),
  })
  .openapi('Delivery')
export const deliveryList = pageOf(delivery).openapi('DeliveryList')

export const deliveryListQuery = z.strictObject({
  endpointId: text(100).optional(),
  taskId: text(100).optional(),
  status: listOf(DELIVERY_STATUSES).optional(),
  eventType: z.enum(EVENT_TYPES).optional(),
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
    eventTypes: z.array(z.enum(EVENT_TYPES)).min(1).nullish(),
    dryRun: z.boolean().nullish(),
  })
  .openapi('Replay')
export type Replay = z.output<typeof replay>
export const matched = z.strictObject({ matched: z.int() }).openapi('Matched')
