/** Schemas of workers, which claim and run tasks over HTTP. */
import { z } from '@hono/zod-openapi'
import { taskStatuses } from '../../core/documents.ts'
import { id, MAX_DELAY_SECONDS, requiredJson, text, time, timeOrNull } from './fields.ts'

/** Names of task types. */
export const typeNames = z.array(text(128, 1)).min(1).max(100)
const lease = text(200, 1).openapi({ description: 'The `lease.token` of the claim.' })

export const claimTasks = z
  .strictObject({
    types: typeNames.openapi({ example: ['report.build'] }),
    limit: z.int().min(1).max(100).default(1),
    waitSeconds: z
      .number()
      .min(0)
      .transform((seconds) => Math.min(seconds, 60))
      .default(0)
      .openapi({ description: 'More than 60 counts as 60.' }),
  })
  .openapi('ClaimTasks')
export const claimedTasks = z
  .strictObject({
    tasks: z.array(
      z
        .strictObject({
          id: id('task'),
          type: z.string(),
          clientId: z.string(),
          try: z.int().openapi({ description: '1 on the first try.' }),
          maxTries: z.int(),
          generation: z.int(),
          fence: z.int().openapi({
            description: 'Grows with every start: pass it to the systems you write to, so that they can refuse an outdated run.',
          }),
          lease: z.strictObject({
            token: z.string(),
            expiresAt: time,
            seconds: z.number().openapi({ description: 'Its duration, for workers whose clock differs. Renew it every third of that.' }),
          }),
          deadlineAt: timeOrNull,
          timeoutSeconds: z.int(),
          traceparent: z.string().nullable(),
          tracestate: z.string().nullable(),
          input: requiredJson,
          metadata: z.record(z.string(), z.string()),
        })
        .openapi('ClaimedTask'),
    ),
  })
  .openapi('ClaimedTasks')
export const heartbeat = z
  .strictObject({
    lease,
    progress: z.number().min(0).nullish().openapi({ description: 'Percent, shown up to 99.9. Never falls within a try.' }),
    message: z.string().nullish().openapi({ description: 'Cut after 500 characters.' }),
  })
  .openapi('Heartbeat')
export const completeTask = z
  .strictObject({
    lease,
    result: requiredJson.openapi({ description: 'Any JSON that fits the result schema of the type; null where there is none.' }),
  })
  .openapi('CompleteTask')
export const failTask = z
  .strictObject({
    lease,
    error: z.strictObject({
      code: z
        .string()
        .regex(/^[a-z0-9_.]{1,64}$/, 'must be 1 to 64 of a-z, 0-9, "_" and "."')
        .nullish()
        .openapi({ description: '`handler_error` when left out.' }),
      message: z.string().openapi({ description: 'Cut after 2,000 characters.' }),
      details: z.unknown().optional(),
    }),
    retryable: z.boolean().nullish().openapi({ description: 'true when left out.' }),
    retryAfterSeconds: z.number().min(0).max(MAX_DELAY_SECONDS).nullish(),
  })
  .openapi('FailTask')
export const releaseTask = z
  .strictObject({
    lease,
    delaySeconds: z.number().min(0).max(MAX_DELAY_SECONDS).nullish().openapi({ description: 'Minimum wait; none when left out.' }),
  })
  .openapi('ReleaseTask')
export const leaseKept = z
  .strictObject({
    leaseExpiresAt: time,
    leaseSeconds: z.number(),
    cancelRequested: z
      .boolean()
      .openapi({ description: 'The client wants the run to end: unless a result is sent in time, the task ends canceled.' }),
  })
  .openapi('LeaseKept')
export const leaseEnded = z
  .strictObject({ status: z.enum(taskStatuses).openapi({ description: 'Of the task now.' }) })
  .openapi('LeaseEnded')
