/** Schemas of schedules. */
import { z } from '@hono/zod-openapi'
import { MAX_PATTERN_LENGTH } from '../../core/cron.ts'
import { catchUps, type ScheduleDocument } from '../../core/documents.ts'
import { type FieldsOf, id, pageOf, requiredJson, text, time, timeOrNull } from './fields.ts'
import { callback, createCallback, createTask, metadata, retrySchedule } from './tasks.ts'

const cron = text(MAX_PATTERN_LENGTH, 1).openapi({
  description:
    'Five fields (minute, hour, day of month, month, day of week), six with seconds first, or a nickname such as `@daily`. At most once a second.',
  example: '30 6 * * 1-5',
})
const timezone = text(100, 1).openapi({ description: 'An IANA name.', example: 'Europe/Berlin' })
const catchUp = z.enum(catchUps).openapi({
  description: 'What happens to ticks that an outage missed: skipped, one task for all of them, or one each.',
})
const templateFields = createTask.pick({ timeoutSeconds: true, maxTries: true, priority: true, concurrencyKey: true }).shape

export const createSchedule = z
  .strictObject({
    cron,
    timezone: timezone.nullish(),
    catchUp: catchUp.nullish(),
    paused: z.boolean().nullish(),
    type: createTask.shape.type,
    input: createTask.shape.input,
    callback: createCallback.nullish(),
    metadata: metadata.nullish(),
    ...templateFields,
  })
  .openapi('CreateSchedule')
export type CreateSchedule = z.output<typeof createSchedule>

/** A merge patch (RFC 7396): `input`, `metadata` and `callback` are merged; null removes a member. */
export const patchSchedule = z
  .strictObject({
    cron: cron.optional(),
    timezone: timezone.nullish(),
    catchUp: catchUp.nullish(),
    paused: z.boolean().nullish(),
    input: z
      .unknown()
      .refine((value) => value !== null, 'cannot be removed, which is what null means in a merge patch')
      .optional(),
    callback: z
      .strictObject({
        endpointId: z.string().max(100).nullable().optional(),
        url: z.string().nullable().optional(),
        events: createCallback.shape.events.nullable(),
        retrySchedule: retrySchedule.nullable().optional(),
      })
      .nullish(),
    metadata: z.record(text(100, 1), text(500).nullable()).nullish(),
    ...templateFields,
  })
  .openapi('PatchSchedule')
export type PatchSchedule = z.output<typeof patchSchedule>

export const schedule = z
  .strictObject({
    id: id('schedule'),
    type: z.string(),
    cron: z.string(),
    timezone: z.string(),
    catchUp: z.enum(catchUps),
    paused: z.boolean(),
    input: requiredJson,
    metadata: z.record(z.string(), z.string()),
    callback: callback.nullable(),
    timeoutSeconds: z.int().nullable(),
    maxTries: z.int().nullable(),
    priority: z.int(),
    concurrencyKey: z.string().nullable(),
    nextAt: timeOrNull.openapi({ description: 'Null: it is paused.' }),
    lastAt: timeOrNull.openapi({ description: 'The latest tick that made a task.' }),
    upcoming: z.array(time).max(5).openapi({ description: 'The next five ticks, `nextAt` first.' }),
    createdAt: time,
    updatedAt: time,
    revision: z.int(),
  } satisfies FieldsOf<ScheduleDocument>)
  .openapi('Schedule')
export const scheduleList = pageOf(schedule).openapi('ScheduleList')
