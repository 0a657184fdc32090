/** Validation issues as faults: a sentence and a pointer. */
import type { z } from '@hono/zod-openapi'
import type { Fault } from '../../core/errors.ts'

type ZodIssue = z.core.$ZodIssue

/** Faults in one response. */
const MAX_FAULTS = 50

/** `root` is the pointer of `value`: `#` or `#/query`. */
export function toFaults(issues: readonly ZodIssue[], value: unknown, root: string): Fault[] {
  return issues.flatMap((issue) => faults(issue, value, root)).slice(0, MAX_FAULTS)
}

/** A JSON Pointer fragment (RFC 6901 §6, without percent-encoding). */
export function toJsonPointer(root: string, path: readonly PropertyKey[]): string {
  return [root, ...path.map((step) => String(step).replaceAll('~', '~0').replaceAll('/', '~1'))].join('/')
}

function faults(issue: ZodIssue, value: unknown, root: string): Fault[] {
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => ({ pointer: toJsonPointer(root, [...issue.path, key]), detail: 'is not known here' }))
  return [{ pointer: toJsonPointer(root, issue.path), detail: describe(issue, at(value, issue.path)) }]
}

function at(value: unknown, path: readonly PropertyKey[]): unknown {
  let place: unknown = value
  for (const step of path) place = (place as Record<PropertyKey, unknown> | null | undefined)?.[step]
  return place
}

const units: Readonly<Record<string, string>> = { string: ' characters', array: ' items', object: ' members', record: ' members' }

function describe(issue: ZodIssue, value: unknown): string {
  switch (issue.code) {
    case 'invalid_type':
      return value === undefined ? 'is required' : `must be ${article(issue.expected)}`
    case 'too_small':
      return bound(issue.origin, issue.inclusive ? 'at least' : 'more than', issue.inclusive ? '>=' : '>', issue.minimum)
    case 'too_big':
      return bound(issue.origin, issue.inclusive ? 'at most' : 'less than', issue.inclusive ? '<=' : '<', issue.maximum)
    case 'invalid_value':
      return value === undefined
        ? 'is required'
        : `must be ${issue.values.length > 1 ? 'one of ' : ''}${issue.values.map(String).join(', ')}`
    case 'invalid_format':
      return issue.format === 'datetime' ? 'must be an RFC 3339 time with an offset, such as 2026-11-22T10:00:00Z' : issue.message
    case 'invalid_key':
      return issue.issues[0]?.message ?? 'is not a valid name'
    default:
      return issue.message
  }
}

const bound = (origin: string, words: string, sign: string, limit: number | bigint): string =>
  origin in units ? `must have ${words} ${limit}${units[origin]}` : `must be ${sign} ${limit}`

const article = (expected: string): string => {
  const name = expected === 'int' ? 'integer' : expected === 'record' ? 'object' : expected
  return /^[aeiou]/.test(name) ? `an ${name}` : `a ${name}`
}
