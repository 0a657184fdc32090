/** What the routes are given: injected once, so that the app is a function of it and of the request. */
import type { Clock } from '../core/clock.ts'
import type { Encryptor } from '../core/encryption.ts'
import { RingbackError } from '../core/errors.ts'
import type { Millis, Scope, SigningKey } from '../core/model.ts'
import type { EventSink } from '../observe/events.ts'
import type { FindResult, Page, Position, Store } from '../store/interfaces.ts'
import type { TaskType } from '../tasks/define.ts'
import type { Registry } from '../tasks/registry.ts'
import type { OpenCallLimiter, OpenCallLimits } from './limits/open-calls.ts'
import type { WorkerClaims } from './live/claims.ts'
import type { EndpointOwners } from './live/endpoint-owners.ts'
import type { Watchers } from './live/waits.ts'
import type { Authenticator, Caller } from './request/auth.ts'
import type { CursorCodec } from './request/cursor.ts'
import { type ApiReply, validationFailed } from './request/problem.ts'
import type { ApiCall, RoutePipeline } from './request/route.ts'
import type { WaitingReasons } from './routes/waiting-for.ts'

export interface AppOptions {
  readonly store: Store
  readonly registry: Registry
  readonly clock: Clock
  /** The base of every link, without a trailing slash. Asked at each use: a port may be known only after listening. */
  readonly publicUrl: () => string
  /** Null: there is no admin token, operators use keys. */
  readonly adminToken: string | null
  readonly encryptor: Pick<Encryptor, 'encrypt' | 'decrypt'>
  readonly signingKeys: {
    jwks(): { readonly body: string; readonly etag: string }
    /** Reads the keys anew, and does what is due in their lives. */
    load(): Promise<void>
    /** When a wanted next key will sign, and when a retiring one will be gone. */
    keyTransitionTimes(key: SigningKey): { readonly signsFrom: Millis | null; readonly leavesAt: Millis | null }
  }
  /** @throws RingbackError `invalid_callback_url`, `callback_url_forbidden` */
  readonly validateCallbackUrl: (url: string) => URL
  /** `whsec_…` */
  readonly generateSecret: () => string
  /** What may be shown of a secret. */
  readonly secretHint: (secret: string) => string
  /** `none`: a new endpoint is active at once. */
  readonly verificationDefault: 'none' | 'challenge'
  readonly bodyLimitBytes: number
  /** Origins whose pages may call, or `*`; none: CORS is off. */
  readonly corsOrigins: readonly string[]
  /** How long a task of that type is kept after its end. */
  readonly retentionMs: (type: string) => Millis
  /** How long runs of that type lately took; null: nobody knows. */
  readonly typicalDurationMs: (type: string) => Millis | null
  /** Pending and running tasks over which new ones are refused with 503. */
  readonly maxOpenTasks: number
  /** What one client may have: over that, more are refused with 429. */
  readonly maxPerClient: { readonly openTasks: number; readonly endpoints: number; readonly schedules: number; readonly keys: number }
  /** Whether as many tasks run on this node as may where that type runs; left out: it runs none. */
  readonly isFull?: (type: TaskType) => boolean
  readonly streamLimits: OpenCallLimits
  /** Calls that wait: for a task, a feed, a ping. */
  readonly waitLimits: OpenCallLimits
  /** Every part of the node that must work: `ok`, or what is wrong. */
  readonly health: () => Promise<Readonly<Record<string, string>>>
  readonly watchers: Watchers
  readonly claims: WorkerClaims
  /** How long a worker's lease lasts. */
  readonly leaseMs: Millis
  /** Rate limits; left out: there are none. */
  readonly rateLimiter?: RoutePipeline['rateLimiter']
  readonly events: EventSink
}

export interface AppContext extends AppOptions {
  readonly authenticator: Authenticator
  readonly cursors: CursorCodec
  readonly endpointOwners: EndpointOwners
  readonly waitingReasons: WaitingReasons
  /** Refuses new tasks of a client over the limits of open ones. Throws `quota_exceeded`, `temporary_reduced_capacity`. */
  readonly checkCapacity: (clientId: string, adding: number, now: Millis) => void
  readonly streamLimiter: OpenCallLimiter
  readonly waitLimiter: OpenCallLimiter
}

export const JSON_TYPE = 'application/json'

export const jsonReply = (status: number, body: unknown, headers: Record<string, string> = {}): ApiReply => ({
  status,
  headers: { 'Content-Type': JSON_TYPE, 'Cache-Control': 'no-store', ...headers },
  body: JSON.stringify(body),
})

export const emptyReply = (status = 204): ApiReply => ({ status, headers: {}, body: null })

/** Epoch milliseconds as RFC 3339. */
export const toTimestamp = (at: number): string => new Date(at).toISOString()
export const toTimestampOrNull = (at: number | null): string | null => (at === null ? null : toTimestamp(at))

export const notFound = (what: string): RingbackError => new RingbackError('not_found', `There is no such ${what}.`)

/** @throws RingbackError `not_found`, or `task_expired` for what was erased and is remembered. */
export function unwrapFound<T>(found: FindResult<T>, what: string): T {
  if (found.kind === 'found') return found.value
  if (found.kind === 'gone') throw taskExpired()
  throw notFound(what)
}

export const taskExpired = (): RingbackError => new RingbackError('task_expired', 'The task was erased, by its client or by age.')

/** A client has as many as it may have; what there is stays. */
export const quotaExceeded = (most: number, what: string): RingbackError =>
  new RingbackError('quota_exceeded', `You have ${most} ${what}, as many as a client may have here: delete some that you no longer need.`)

const ID = /^[a-z]+_[0-9a-z]{26}$/

/**
 * An id from the path. What cannot be an id of that kind is no object's name.
 * @throws RingbackError `not_found`
 */
export function idParam(call: ApiCall, prefix: string, name = 'id'): string {
  const id = call.param(name)
  if (!ID.test(id) || !id.startsWith(`${prefix}_`)) throw notFound(prefix)
  return id
}

/** Whose objects a list shows: a client's own; every client's, or one's, for the operator. */
export function clientFilter(caller: Caller, clientId: string | undefined): string | null {
  if (caller.clientId === null) return clientId ?? null
  if (clientId !== undefined) throw validationFailed([{ pointer: '#/query/clientId', detail: 'is the operator’s to give' }])
  return caller.clientId
}

/** The client a `clientOnly` route acts for. */
export function requireClientId(call: ApiCall): string {
  if (call.caller.clientId === null) throw new Error('a route for clients was reached by the operator')
  return call.caller.clientId
}

/** What a list's cursor is bound to: who asks, the list and its filters. */
export function cursorScope(call: ApiCall, list: string, filters: object): string {
  return JSON.stringify([call.caller.clientId, list, Object.entries(filters).sort(([a], [b]) => (a < b ? -1 : 1))])
}

/** @throws RingbackError `invalid_cursor` */
export async function startPosition(context: AppContext, bound: string, cursor: string | undefined): Promise<Position | null> {
  if (cursor === undefined) return null
  const [at, id] = await context.cursors.decode(bound, cursor)
  return { at: Number(at), id: String(id) }
}

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>
}

/** Without the members that are undefined. */
export const omitUndefined = <T extends object>(value: T): Defined<T> =>
  Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as Defined<T>

/** A list's answer ends early at this many characters, so that no page takes the memory of a node. */
const MAX_PAGE_CHARS = 4 * 1024 * 1024

/** A page as the contract shows it, with `Link: …; rel="next"`. `items` are JSON text. */
export async function pageReply<T>(
  context: AppContext,
  call: ApiCall,
  bound: string,
  page: Page<T>,
  show: (item: T, index: number) => string,
  positionOf: (item: T) => Position,
  headers: Record<string, string> = {},
): Promise<ApiReply> {
  const shown: string[] = []
  let size = 0
  let next = page.next
  for (const [index, item] of page.items.entries()) {
    const text = show(item, index)
    size += text.length
    if (size > MAX_PAGE_CHARS && shown.length > 0) {
      next = positionOf(page.items[index - 1] as T)
      break
    }
    shown.push(text)
  }
  const cursor = next === null ? null : await context.cursors.encode(bound, [next.at, next.id])
  return listReply(context, call, shown, next !== null, cursor, headers)
}

export function listReply(
  context: AppContext,
  call: ApiCall,
  shown: readonly string[],
  hasMore: boolean,
  cursor: string | null,
  headers: Record<string, string> = {},
  parameter = 'cursor',
): ApiReply {
  const link: Record<string, string> = {}
  if (hasMore && cursor !== null) {
    const query = new URLSearchParams(call.request.url.split('?')[1] ?? '')
    query.set(parameter, cursor)
    // Where the app is mounted under a path, the public URL has that path.
    link.Link = `<${context.publicUrl()}${call.path.slice(call.path.indexOf('/v1/'))}?${query}>; rel="next"`
  }
  return {
    status: 200,
    headers: { 'Content-Type': JSON_TYPE, 'Cache-Control': 'private, no-cache', ...headers, ...link },
    body: `{"data":[${shown.join(',')}],"hasMore":${hasMore},"nextCursor":${JSON.stringify(cursor)}}`,
  }
}

/**
 * For who has waited: what is known now is told to nobody whose key was revoked, or whose client was suspended, meanwhile.
 * @throws RingbackError `unauthenticated`, `insufficient_scope`
 */
export async function recheckScope({ authenticator: gate, clock }: AppContext, call: ApiCall, scope: Scope): Promise<void> {
  gate.authorize(await gate.authenticate(call.header('authorization'), clock.now()), scope, false)
}

export const OPERATOR_SCOPE: Scope = 'admin'
