/** Fields that schemas share: text, times, ids, pages, parameters of queries. */
import { z } from '@hono/zod-openapi'

/** Text for a text column: no U+0000, no lone surrogate, `min` to `max` characters. */
export function text(max: number, min = 0): z.ZodType<string, string> {
  return z
    .string()
    .check((context) => {
      const { value, issues } = context
      const fault = textFault(value, max, min)
      if (fault !== null) issues.push({ code: 'custom', message: fault, input: value })
    })
    .openapi({ minLength: min, maxLength: max })
}

function textFault(value: string, max: number, min: number): string | null {
  if (value.includes('\0')) return 'must not hold U+0000'
  if (!value.isWellFormed()) return 'must not hold a lone surrogate'
  if (value.length < min) return min === 1 ? 'must not be empty' : `must have at least ${min} characters`
  if (value.length > max && Array.from(value).length > max) return `must have at most ${max} characters`
  return null
}

/** The first and the last moment that RFC 3339 can write in UTC. */
const [EARLIEST, LATEST] = [Date.parse('0000-01-01T00:00:00Z'), Date.parse('9999-12-31T23:59:59.999Z')]
/** An RFC 3339 time with an offset, read as epoch milliseconds. */
export const instant = z.iso
  .datetime({ offset: true })
  .transform((time) => Date.parse(time))
  .refine((at) => at >= EARLIEST && at <= LATEST, 'must be within the years 0000 to 9999 of UTC')
  .openapi({ type: 'string', format: 'date-time', example: '2026-11-22T10:00:00.000Z' })

/** Any JSON, also null. Required. */
export const requiredJson = z.unknown().refine((value) => value !== undefined, 'is required')

/** The fields of a document, one for each member: a missing or an additional one is a compile error. */
export type FieldsOf<Document> = { [Member in keyof Document]-?: z.ZodType<Document[Member]> }

export const time = z.iso.datetime({ precision: 3 }).openapi({ format: 'date-time', example: '2026-11-22T10:00:00.000Z' })
export const timeOrNull = time.nullable()
export const id = (prefix: string): z.ZodString =>
  z
    .string()
    .regex(new RegExp(`^${prefix}_[0-9a-hjkmnp-tv-z]{26}$`))
    .openapi({ example: `${prefix}_01jd7z3m0q8y3t6w9k2v5n4r1b` })

/** A query parameter: a number as text, capped at `max`. */
export const wholeNumber = (min: number, max: number): z.ZodType<number, string> =>
  z
    .string()
    .regex(/^-?\d{1,15}$/, 'must be a whole number')
    .transform(Number)
    .refine((n) => n >= min, `must be >= ${min}`)
    .transform((n) => Math.min(n, max))
    .openapi({ type: 'integer', minimum: min, description: `More than ${max} counts as ${max}.` })

export const listOf = <const T extends readonly [string, ...string[]]>(values: T) =>
  z
    .string()
    .transform((list) => list.split(',').map((item) => item.trim()))
    .pipe(z.array(z.enum(values)).min(1))
    .openapi({ type: 'string', example: values[0], description: `A comma-separated list of: ${values.join(', ')}.` })

export const wait = wholeNumber(0, 60)
export const limit = wholeNumber(1, 200).default(50)
export const clientId = text(100).openapi({ description: 'For the operator: only objects of this client.' })
export const cursor = text(2_048)

export const waitQuery = z.strictObject({ wait: wait.optional() })
export const pageQuery = z.strictObject({ limit, cursor: cursor.optional() })
export const clientPageQuery = z.strictObject({ limit, cursor: cursor.optional(), clientId: clientId.optional() })

/** A page of a list. */
export const pageOf = <T extends z.ZodType>(item: T) =>
  z.strictObject({ data: z.array(item), hasMore: z.boolean(), nextCursor: z.string().nullable() })

/** Ten years. */
export const MAX_DELAY_SECONDS = 315_360_000
