/** The shapes of endpoints: where a client’s webhooks go, and how. */
import { z } from '@hono/zod-openapi'
import { taskEventTypes } from '../../core/model.ts'
import { DISABLED_REASONS } from './events.ts'
import { id, pageOf, text, time, timeOrNull } from './fields.ts'
import { retrySchedule } from './tasks.ts'

const ENDPOINT_STATUSES = ['disabled', 'pendingVerification', 'paused', 'active'] as const
const SUBSCRIBABLE = [...taskEventTypes, 'endpoint.failing', 'endpoint.disabled'] as const

/** Hop-by-hop (RFC 9110 §7.6.1) and framing headers, and those that are ours: the transport would leave them out or replace them. */
const RESERVED_HEADER =
  /^(accept-encoding|connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|http2-settings|expect|host|content-.*|webhook-.*)$/i

const headerName = z
  .string()
  .regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$/, 'must be a header name of at most 100 characters')
  .refine((name) => !RESERVED_HEADER.test(name), 'is a header that cannot be set')
const headerValue = z
  .string()
  .min(1)
  .max(4_096)
  .regex(/^[\x20-\x7e]*$/, 'must be printable ASCII')
  .refine((value) => value !== '***', 'is the placeholder that hides the value; send the value itself, or leave the header out')
const fewHeaders = (record: Record<string, unknown>): boolean => Object.keys(record).length <= 20
const distinctHeaders = (record: Record<string, unknown>): boolean =>
  new Set(Object.keys(record).map((name) => name.toLowerCase())).size === Object.keys(record).length

const headers = z
  .record(headerName, headerValue)
  .refine(fewHeaders, 'must have at most 20 members')
  .refine(distinctHeaders, 'names a header twice')
const headerPatch = z
  .record(headerName, headerValue.nullable())
  .refine(fewHeaders, 'must have at most 20 members')
  .refine(distinctHeaders, 'names a header twice')

const endpointSettings = {
  description: text(500),
  events: z.array(z.enum(SUBSCRIBABLE)).min(1).max(20),
  taskTypes: z
    .array(
      z
        .string()
        .regex(/^(\*|[a-z0-9_-]+(\.[a-z0-9_-]+)*)$/, 'must be a task type or "*"')
        .max(128),
    )
    .min(1)
    .max(100),
  format: z.enum(['standard', 'cloudevents']),
  payload: z.enum(['full', 'thin']),
  maxPerMinute: z.int().min(1).max(1_000_000),
  maxInFlight: z.int().min(1).max(1_000),
  retrySchedule,
}
/** Its length is judged with the rest of it, so that whatever is wrong with a URL has one code. */
const url = z.string().openapi({ format: 'uri', maxLength: 2_048, example: 'https://app.example.net/hooks' })
const nullishSettings = {
  description: endpointSettings.description.nullish(),
  events: endpointSettings.events.nullish(),
  taskTypes: endpointSettings.taskTypes.nullish(),
  format: endpointSettings.format.nullish(),
  payload: endpointSettings.payload.nullish(),
  maxPerMinute: endpointSettings.maxPerMinute.nullish(),
  maxInFlight: endpointSettings.maxInFlight.nullish(),
  retrySchedule: endpointSettings.retrySchedule.nullish(),
}

export const createEndpoint = z
  .strictObject({ url, ...nullishSettings, headers: headers.nullish(), verification: z.enum(['challenge', 'cloudevents']).nullish() })
  .openapi('CreateEndpoint')
export type CreateEndpoint = z.output<typeof createEndpoint>
/** A merge patch (RFC 7396): `null` puts a member back to its default. */
export const patchEndpoint = z
  .strictObject({ url: url.optional(), ...nullishSettings, headers: headerPatch.nullish() })
  .openapi('PatchEndpoint')
export type PatchEndpoint = z.output<typeof patchEndpoint>
export const verifyEndpoint = z
  .strictObject({ challenge: text(100, 1).openapi({ description: 'What came in `data.challenge`.' }) })
  .openapi('VerifyEndpoint')
export const rotateSecret = z.strictObject({ overlapSeconds: z.int().min(0).max(2_592_000).default(86_400) }).openapi('RotateSecret')

export const endpoint = z
  .strictObject({
    id: id('endpoint'),
    url: z.string(),
    status: z.enum(ENDPOINT_STATUSES),
    disabledReason: z.enum(DISABLED_REASONS).nullable(),
    description: z.string(),
    events: z.array(z.string()),
    taskTypes: z.array(z.string()),
    headers: z.record(z.string(), z.literal('***')),
    format: z.enum(['standard', 'cloudevents']),
    payload: z.enum(['full', 'thin']),
    maxPerMinute: z.int().nullable(),
    maxInFlight: z.int(),
    retrySchedule: z.array(z.number()).nullable(),
    secret: z.string().startsWith('whsec_').nullable().openapi({ description: 'Shown by create and rotate-secret only.' }),
    secretHint: z.string(),
    jwksUrl: z.url(),
    audience: z.string(),
    verification: z.strictObject({
      method: z.enum(['challenge', 'cloudevents', 'none']),
      lastError: z.string().nullable(),
      expiresAt: timeOrNull,
    }),
    failingSince: timeOrNull,
    lastSuccessAt: timeOrNull,
    createdAt: time,
    updatedAt: time,
    revision: z.int(),
  })
  .openapi('Endpoint')
export const endpointList = pageOf(endpoint).openapi('EndpointList')
