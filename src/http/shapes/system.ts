/** Schemas of the node itself: health, keys, texts and problems. */
import { z } from '@hono/zod-openapi'

export const health = z.strictObject({ status: z.literal('ok') }).openapi('Health')
export const readiness = z.strictObject({ status: z.literal('ok'), checks: z.record(z.string(), z.string()) }).openapi('Readiness')
export const jwks = z.object({ keys: z.array(z.record(z.string(), z.unknown())) }).openapi('Jwks')

/** Text for a browser. */
export const browserText = z.string().openapi({ description: 'A text.' })
/** A JSON Schema (2020-12). */
export const jsonSchema = z.record(z.string(), z.unknown()).openapi('JsonSchema')

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
