/** Schemas of tasks and task types: submit, read, list, change by filter. */
import { z } from '@hono/zod-openapi'
import {
  callbackStatuses,
  type Failure,
  type LastFailure,
  type TaskDocument,
  taskEventTypes,
  taskStatuses,
  taskWaits,
} from '../../core/documents.ts'
import { MAX_JSON_DEPTH } from '../request/json.ts'
import {
  clientId,
  cursor,
  type FieldsOf,
  id,
  instant,
  limit,
  listOf,
  MAX_DELAY_SECONDS,
  pageOf,
  requiredJson,
  text,
  time,
  timeOrNull,
} from './fields.ts'

export const retrySchedule = z
  .array(z.number().min(0).max(86_400))
  .min(1)
  .max(20)
  .openapi({ description: 'Delays in seconds, one before each retry: the first attempt is at once.', example: [5, 30, 120, 600] })

export const metadata = z
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

export const createTask = z
  .strictObject({
    type: text(128, 1).openapi({ example: 'report.build' }),
    input: requiredJson.openapi({
      description: `Any JSON, at most ${MAX_JSON_DEPTH} levels deep, that fits the schema of the type.`,
      example: { month: '2026-10' },
    }),
    callback: createCallback.nullish(),
    metadata: metadata.nullish(),
    runAt: instant.nullish(),
    delaySeconds: z.number().min(0).max(MAX_DELAY_SECONDS).nullish(),
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

const failure = z.object({ code: z.string(), message: z.string(), details: requiredJson } satisfies FieldsOf<Failure>).openapi('Failure')
const lastFailure = z.object({ code: z.string(), message: z.string(), try: z.int(), at: time } satisfies FieldsOf<LastFailure>)
export const callback = z.strictObject({
  endpointId: z.string().nullable(),
  url: z.string().nullable(),
  events: z.array(z.string()).nullable(),
  retrySchedule: z.array(z.number()).nullable(),
})

export const task = z
  .strictObject({
    id: id('task'),
    type: z.string(),
    status: z.enum(taskStatuses),
    progress: z.number().min(0).max(100),
    progressMessage: z.string().nullable(),
    result: requiredJson,
    resultUrl: z.url().nullable(),
    error: failure.nullable(),
    lastError: lastFailure.nullable(),
    input: requiredJson,
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
    waitingFor: z.enum(taskWaits).nullable(),
    callback: callback.extend({ status: z.enum(callbackStatuses).nullable() }),
    links: z.strictObject({ self: z.url(), events: z.url(), cancel: z.url(), deliveries: z.url() }),
  } satisfies FieldsOf<TaskDocument>)
  .openapi('Task')

export const taskList = pageOf(task).openapi('TaskList')
export const batch = z.strictObject({ id: id('batch'), data: z.array(task) }).openapi('Batch')
export const anyJson = z.unknown().openapi({ description: 'Any JSON.' })

/** A filter by one member of the metadata. */
const oneMember = z.record(text(100, 1), text(500)).refine((record) => Object.keys(record).length === 1, 'must have exactly one member')

export const taskListQuery = z.strictObject({
  status: listOf(taskStatuses).optional(),
  type: text(128).optional(),
  batchId: text(100).optional(),
  metadata: oneMember.optional().openapi({ param: { style: 'deepObject', explode: true } }),
  createdAfter: instant.optional(),
  createdBefore: instant.optional(),
  order: z.enum(['asc', 'desc']).default('desc'),
  limit,
  cursor: cursor.optional(),
  clientId: clientId.optional(),
})
export type ListTasksQuery = z.output<typeof taskListQuery>

const bulk = {
  type: text(128, 1).nullish(),
  metadata: oneMember.nullish().openapi({ minProperties: 1, maxProperties: 1, example: { orderId: 'A-17' } }),
  createdAfter: instant.nullish(),
  createdBefore: instant.nullish(),
  dryRun: z.boolean().nullish().openapi({ description: 'Only counts.' }),
}
const statusOf = <const T extends readonly [string, ...string[]]>(statuses: T) => z.array(z.enum(statuses)).min(1).nullish()
export const bulkCancel = z.strictObject({ status: statusOf(['pending', 'running']), ...bulk }).openapi('CancelTasks')
export const bulkRetry = z.strictObject({ status: statusOf(['failed', 'canceled']), ...bulk }).openapi('RetryTasks')
export type BulkRequest = z.output<typeof bulkCancel> | z.output<typeof bulkRetry>

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
    pausedAt: timeOrNull.openapi({ description: 'Since when no node starts its tasks.' }),
  })
  .openapi('TaskType')
export const taskTypeList = pageOf(taskType).openapi('TaskTypeList')
