/**
 * The shapes of requests and answers: what validates is what the OpenAPI document says. The words of the wire that differ from the
 * words of the house (a delivery's `running` is `sending`, its `completed` is `delivered`) are mapped here.
 */
import { z } from '@hono/zod-openapi'
import { clientScopes, type State, taskEventTypes } from '../model.ts'
import { DEEPEST } from './json.ts'

/** Length as people and JSON Schema count it: in code points. */
const codePoints = (text: string): number => {
  let count = 0
  for (const _ of text) count++
  return count
}

/** Plain text that ends up in a text column: no U+0000, no lone surrogate, at most `most` characters. */
function text(most: number, least = 0): z.ZodType<string, string> {
  return z
    .string()
    .check((context) => {
      const { value, issues } = context
      const fault = plainTextFault(value, most, least)
      if (fault !== null) issues.push({ code: 'custom', message: fault, input: value })
    })
    .openapi({ minLength: least, maxLength: most })
}

function plainTextFault(value: string, most: number, least: number): string | null {
  if (value.includes('\0')) return 'must not hold U+0000'
  if (!value.isWellFormed()) return 'must not hold a lone surrogate'
  if (value.length < least) return least === 1 ? 'must not be empty' : `must have at least ${least} characters`
  if (value.length > most && codePoints(value) > most) return `must have at most ${most} characters`
  return null
}

/** An RFC 3339 time with an offset, read as epoch milliseconds. */
const instant = z.iso
  .datetime({ offset: true })
  .transform((time) => Date.parse(time))
  .openapi({ type: 'string', format: 'date-time', example: '2026-11-22T10:00:00.000Z' })

/** Any JSON, null too; but it must be there. */
const present = z.unknown().refine((value) => value !== undefined, 'is required')

const time = z.iso.datetime({ precision: 3 }).openapi({ format: 'date-time', example: '2026-11-22T10:00:00.000Z' })
const timeOrNull = time.nullable()
const id = (prefix: string): z.ZodString =>
  z
    .string()
    .regex(new RegExp(`^${prefix}_[0-9a-hjkmnp-tv-z]{26}$`))
    .openapi({ example: `${prefix}_01jd7z3m0q8y3t6w9k2v5n4r1b` })

// Query parameters come as text.

const wholeNumber = (least: number, most: number): z.ZodType<number, string> =>
  z
    .string()
    .regex(/^-?\d{1,15}$/, 'must be a whole number')
    .transform(Number)
    .refine((n) => n >= least, `must be >= ${least}`)
    .transform((n) => Math.min(n, most))
    .openapi({ type: 'integer', minimum: least, description: `More than ${most} counts as ${most}.` })

const listOf = <const T extends readonly [string, ...string[]]>(values: T) =>
  z
    .string()
    .transform((list) => list.split(',').map((item) => item.trim()))
    .pipe(z.array(z.enum(values)).min(1))
    .openapi({ type: 'string', example: values[0], description: `A comma-separated list of: ${values.join(', ')}.` })

export const wait = wholeNumber(0, 60)
export const limit = wholeNumber(1, 200).default(50)
export const clientId = text(100).openapi({ description: 'For the operator: only this client’s.' })
const cursor = text(2_048)
const queryTime = instant

export const waitQuery = z.strictObject({ wait: wait.optional() })
export const pageQuery = z.strictObject({ limit, cursor: cursor.optional() })
export const ownedPageQuery = z.strictObject({ limit, cursor: cursor.optional(), clientId: clientId.optional() })

// Tasks

export const TASK_STATUSES = ['pending', 'running', 'completed', 'failed', 'canceled'] as const
const WAITING_FOR = ['runAt', 'retryBackoff', 'limit', 'noWorker', 'paused'] as const
const CALLBACK_STATUSES = ['none', 'pending', 'delivered', 'failed'] as const

export const retrySchedule = z
  .array(z.number().min(0).max(86_400))
  .min(1)
  .max(20)
  .openapi({ description: 'Delays in seconds, one before each retry: the first attempt is at once.', example: [5, 30, 120, 600] })

const metadata = z
  .record(text(100, 1), text(500))
  .refine((record) => Object.keys(record).length <= 16, 'must have at most 16 members')
  .openapi({ maxProperties: 16, example: { orderId: 'A-17' } })

export const createCallback = z
  .strictObject({
    endpointId: z.string().max(100).optional(),
    url: z.string().optional(),
    events: z.array(z.enum(taskEventTypes)).min(1).max(20).optional(),
    retrySchedule: retrySchedule.optional(),
  })
  .openapi('CreateCallback', {
    description: 'Left out: every endpoint of the client that subscribes. `null`: none. `url` must be under one of its verified endpoints.',
  })

/** Ten years: beyond any plan, and far from the end of time. */
const LONGEST_DELAY_SECONDS = 315_360_000

export const createTask = z
  .strictObject({
    type: text(128, 1).openapi({ example: 'report.build' }),
    input: present.openapi({
      description: `Any JSON, at most ${DEEPEST} levels deep, that fits the schema of the type.`,
      example: { month: '2026-10' },
    }),
    callback: createCallback.nullish(),
    metadata: metadata.nullish(),
    runAt: instant.nullish(),
    delaySeconds: z.number().min(0).max(LONGEST_DELAY_SECONDS).nullish(),
    startBy: instant.nullish(),
    deadlineAt: instant.nullish(),
    timeoutSeconds: z.int().min(1).max(604_800).nullish(),
    maxTries: z.int().min(1).max(100).nullish(),
    priority: z.int().min(-3_600).max(3_600).nullish().openapi({ description: 'Seconds of head start over the client’s other tasks.' }),
    concurrencyKey: text(255, 1).nullish(),
  })
  .openapi('CreateTask')
export type CreateTask = z.output<typeof createTask>

export const createBatch = z.strictObject({ tasks: z.array(createTask).min(1).max(100) }).openapi('CreateBatch')

const failure = z.object({ code: z.string(), message: z.string(), details: present }).openapi('Failure')

export const task = z
  .strictObject({
    id: id('task'),
    type: z.string(),
    status: z.enum(TASK_STATUSES),
    progress: z.number().min(0).max(100),
    progressMessage: z.string().nullable(),
    result: present,
    resultUrl: z.url().nullable(),
    error: failure.nullable(),
    lastError: z.object({ code: z.string(), message: z.string(), try: z.int(), at: time }).nullable(),
    input: present,
    inputUrl: z.url().nullable(),
    metadata: z.record(z.string(), z.string()).nullable(),
    priority: z.int(),
    concurrencyKey: z.string().nullable(),
    tries: z.int(),
    maxTries: z.int(),
    generation: z.int(),
    revision: z.int(),
    batchId: z.string().nullable(),
    scheduleId: z.string().nullable(),
    createdAt: time,
    runAt: time,
    startedAt: timeOrNull,
    updatedAt: time,
    finishedAt: timeOrNull,
    startBy: timeOrNull,
    deadlineAt: timeOrNull,
    timeoutSeconds: z.int(),
    cancelRequestedAt: timeOrNull,
    expiresAt: timeOrNull,
    estimatedCompletionAt: timeOrNull,
    waitingFor: z.enum(WAITING_FOR).nullable(),
    callback: z.strictObject({
      endpointId: z.string().nullable(),
      url: z.string().nullable(),
      events: z.array(z.string()).nullable(),
      retrySchedule: z.array(z.number()).nullable(),
      status: z.enum(CALLBACK_STATUSES).nullable(),
    }),
    links: z.strictObject({ self: z.url(), events: z.url(), cancel: z.url(), deliveries: z.url() }),
  })
  .openapi('Task')

/** A page of a list. */
const pageOf = <T extends z.ZodType>(item: T) =>
  z.strictObject({ data: z.array(item), hasMore: z.boolean(), nextCursor: z.string().nullable() })

export const taskList = pageOf(task).openapi('TaskList')
export const batch = z.strictObject({ id: id('batch'), data: z.array(task) }).openapi('Batch')
export const anyJson = z.unknown().openapi({ description: 'Any JSON.' })

export const taskListQuery = z.strictObject({
  status: listOf(TASK_STATUSES).optional(),
  type: text(128).optional(),
  batchId: text(100).optional(),
  metadata: z
    .record(text(100, 1), text(500))
    .refine((record) => Object.keys(record).length === 1, 'one metadata member may be asked for at a time')
    .optional()
    .openapi({ param: { style: 'deepObject', explode: true } }),
  createdAfter: queryTime.optional(),
  createdBefore: queryTime.optional(),
  order: z.enum(['asc', 'desc']).default('desc'),
  limit,
  cursor: cursor.optional(),
  clientId: clientId.optional(),
})
export type TaskListQuery = z.output<typeof taskListQuery>

export const taskType = z
  .strictObject({
    name: z.string(),
    description: z.string(),
    inputSchema: z.record(z.string(), z.unknown()),
    resultSchema: z.record(z.string(), z.unknown()).nullable(),
    timeoutSeconds: z.int(),
    maxTries: z.int(),
    concurrency: z.int().nullable(),
    typicalDurationMs: z.number().nullable(),
  })
  .openapi('TaskType')
export const taskTypeList = pageOf(taskType).openapi('TaskTypeList')

// Events

const EVENT_TYPES = [...taskEventTypes, 'endpoint.verification', 'endpoint.ping', 'endpoint.failing', 'endpoint.disabled'] as const

export const taskEvent = z
  .strictObject({ type: z.enum(taskEventTypes), timestamp: time, id: id('event').nullable(), data: task.nullable() })
  .openapi('TaskEvent', { description: 'What a webhook carries, the feed lists and a stream sends: the same bytes everywhere.' })
export const anyEvent = z
  .strictObject({ type: z.enum(EVENT_TYPES), timestamp: time, id: id('event').nullable(), data: present })
  .openapi('Event')
export const eventList = pageOf(anyEvent).openapi('EventList')

export const feedQuery = z.strictObject({
  after: cursor.optional().openapi({ description: 'An event’s id, or `nextCursor`.' }),
  types: listOf(EVENT_TYPES).optional(),
  limit: wholeNumber(1, 200).default(100),
  wait: wait.optional(),
  clientId: clientId.optional(),
})
export const taskEventsQuery = z.strictObject({ after: cursor.optional(), limit: wholeNumber(1, 200).default(100) })

// Endpoints

const ENDPOINT_STATUSES = ['disabled', 'pendingVerification', 'paused', 'active'] as const
const SUBSCRIBABLE = [...taskEventTypes, 'endpoint.failing', 'endpoint.disabled'] as const

/** Hop-by-hop (RFC 9110 §7.6.1) and framing headers, and those that are ours. */
const RESERVED_HEADER = /^(connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|expect|host|content-.*|webhook-.*)$/i

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
export const rotateSecret = z.strictObject({ overlapSeconds: z.int().min(0).max(2_592_000).default(86_400) }).openapi('RotateSecret')

export const endpoint = z
  .strictObject({
    id: id('endpoint'),
    url: z.string(),
    status: z.enum(ENDPOINT_STATUSES),
    disabledReason: z.enum(['gone', 'failing', 'forbiddenAddress']).nullable(),
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

// Deliveries

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
  since: queryTime.optional(),
  until: queryTime.optional(),
  limit,
  cursor: cursor.optional(),
  clientId: clientId.optional(),
})
export type DeliveryListQuery = z.output<typeof deliveryListQuery>

// Clients and keys

export const createClient = z.strictObject({ name: text(200, 1) }).openapi('CreateClient')
export const client = z
  .strictObject({ id: id('client'), name: z.string(), status: z.enum(['active', 'suspended']), createdAt: time })
  .openapi('Client')
export const clientList = pageOf(client).openapi('ClientList')

export const createKey = z
  .strictObject({
    name: text(200).nullish(),
    scopes: z.array(z.enum(clientScopes)).min(1).nullish(),
    expiresAt: instant.nullish(),
  })
  .openapi('CreateKey')
export const createOperatorKey = z
  .strictObject({ name: text(200, 1), scopes: z.array(z.enum(['worker', 'admin'])).min(1), expiresAt: instant.nullish() })
  .openapi('CreateOperatorKey')
const keyMembers = {
  id: id('key'),
  clientId: z.string().nullable(),
  name: z.string(),
  scopes: z.array(z.string()),
  hint: z.string(),
  createdAt: time,
  expiresAt: timeOrNull,
  revokedAt: timeOrNull,
  lastUsedAt: timeOrNull,
}
export const key = z.strictObject(keyMembers).openapi('Key')
export const createdKey = z
  .strictObject({ ...keyMembers, key: z.string().startsWith('rb_').openapi({ description: 'Shown once, here.' }) })
  .openapi('CreatedKey')
export const keyList = pageOf(key).openapi('KeyList')

// Operations and problems

export const health = z.strictObject({ status: z.literal('ok') }).openapi('Health')
export const readiness = z.strictObject({ status: z.literal('ok'), checks: z.record(z.string(), z.string()) }).openapi('Readiness')
export const jwks = z.object({ keys: z.array(z.record(z.string(), z.unknown())) }).openapi('Jwks')

export const problem = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    instance: z.string(),
    code: z.string(),
    requestId: z.string(),
    errors: z.array(z.strictObject({ pointer: z.string(), detail: z.string() })),
  })
  .openapi('Problem', { description: 'RFC 9457. `code` is for programs, `detail` for people.' })
