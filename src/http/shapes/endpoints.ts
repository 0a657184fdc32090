/** Schemas of endpoints. */
import { z } from '@hono/zod-openapi'
import {
  disabledReasons,
  type EndpointDocument,
  endpointFormats,
  endpointPayloads,
  endpointStatuses,
  taskEventTypes,
} from '../../core/documents.ts'
import { type FieldsOf, id, pageOf, text, time, timeOrNull } from './fields.ts'
import { retrySchedule } from './tasks.ts'

const SUBSCRIBABLE = [...taskEventTypes, 'endpoint.failing', 'endpoint.disabled'] as const

/** Hop-by-hop (RFC 9110 §7.6.1) and framing headers, and those of Ringback: the transport drops or replaces them. */
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
const headersOf = <T extends z.ZodType>(value: T) =>
  z
    .record(headerName, value)
    .refine((record) => Object.keys(record).length <= 20, 'must have at most 20 members')
    .refine(
      (record) => new Set(Object.keys(record).map((name) => name.toLowerCase())).size === Object.keys(record).length,
      'names a header twice',
    )

/** Left out or null: the default. */
const settings = {
  description: text(500).nullish(),
  events: z.array(z.enum(SUBSCRIBABLE)).min(1).max(20).nullish(),
  taskTypes: z
    .array(
      z
        .string()
        .regex(/^(\*|[a-z0-9_-]+(\.[a-z0-9_-]+)*)$/, 'must be a task type or "*"')
        .max(128),
    )
    .min(1)
    .max(100)
    .nullish(),
  format: z.enum(endpointFormats).nullish(),
  payload: z.enum(endpointPayloads).nullish(),
  maxPerMinute: z.int().min(1).max(1_000_000).nullish(),
  maxInFlight: z.int().min(1).max(1_000).nullish(),
  retrySchedule: retrySchedule.nullish(),
}
/** Its length is checked with the rest of the URL, so that every fault of a URL has one code. */
const url = z.string().openapi({ format: 'uri', maxLength: 2_048, example: 'https://app.example.net/hooks' })
export const createEndpoint = z
  .strictObject({
    url,
    ...settings,
    headers: headersOf(headerValue).nullish(),
    verification: z.enum(['challenge', 'cloudevents']).nullish(),
  })
  .openapi('CreateEndpoint')
export type CreateEndpoint = z.output<typeof createEndpoint>
/** A merge patch (RFC 7396): `null` sets a member to its default. */
export const patchEndpoint = z
  .strictObject({ url: url.optional(), ...settings, headers: headersOf(headerValue.nullable()).nullish() })
  .openapi('PatchEndpoint')
export type PatchEndpoint = z.output<typeof patchEndpoint>
export const verifyEndpoint = z
  .strictObject({ challenge: text(100, 1).openapi({ description: 'The `data.challenge` of the webhook.' }) })
  .openapi('VerifyEndpoint')
export const rotateSecret = z.strictObject({ overlapSeconds: z.int().min(0).max(2_592_000).default(86_400) }).openapi('RotateSecret')

export const endpoint = z
  .strictObject({
    id: id('endpoint'),
    url: z.string(),
    status: z.enum(endpointStatuses),
    disabledReason: z.enum(disabledReasons).nullable(),
    description: z.string(),
    events: z.array(z.string()),
    taskTypes: z.array(z.string()),
    headers: z.record(z.string(), z.literal('***')),
    format: z.enum(endpointFormats),
    payload: z.enum(endpointPayloads),
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
  } satisfies FieldsOf<EndpointDocument>)
  .openapi('Endpoint')
export const endpointList = pageOf(endpoint).openapi('EndpointList')
