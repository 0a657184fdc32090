/** What the examples of all subjects share. They tell one story: the client "The shop" lets a monthly report be built. */
import type { NamedExample } from '../../request/route.ts'

export const BASE = 'https://tasks.example.com'
export const TASK = 'task_01m82a2cmhfzn9hav3yz5hh6je'
export const ENDPOINT = 'endpoint_01m82a2cn5e849zvhez4f4tdy4'
export const ENDPOINT_URL = 'https://app.example.net/hooks'
export const EVENT = 'event_01m82a2cn5e849zvhez4f4tdy5'
export const CLIENT = 'client_01m82a2cn5e849zvhez4f4tdy7'
export const KEY = 'key_01m82a2cn5e849zvhez4f4tdy8'
export const SIGNING_KEY = 'oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U'
export const CHALLENGE = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo'
export const REQUEST = 'request_1YUS1JXtq1N2000005'

/** The time so many seconds after the story begins. */
export const at = (second: number): string => `2026-11-22T10:00:${String(second).padStart(2, '0')}.000Z`

export const page = (...data: unknown[]) => ({ data, hasMore: false, nextCursor: null as string | null })

/** Names each example after its member. An example is its summary and its value. */
export const named = <Names extends string>(examples: Record<Names, readonly [summary: string, value: unknown]>) => {
  const entries = Object.entries<readonly [string, unknown]>(examples)
  return Object.fromEntries(entries.map(([name, [summary, value]]) => [name, { name, summary, value }])) as Record<Names, NamedExample>
}
