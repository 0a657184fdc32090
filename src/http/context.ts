/** What routes depend on, and the replies they share. The app is a function of the context and the request. */
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
  /** The base of every link, without a trailing slash. A function, because the port may be known only after listening. */
  readonly publicUrl: () => string
  /** Null: there is no admin token. Operators use keys. */
  readonly adminToken: string | null
  readonly encryptor: Pick<Encryptor, 'encrypt' | 'decrypt'>
  readonly signingKeys: {
    jwks(): { readonly body: string; readonly etag: string }
    /** Reads the keys again, and makes the state changes that are due. */
    load(): Promise<void>
    /** When the next key will sign after a requested rotation, and when a retiring key will be removed. */
    keyTransitionTimes(key: SigningKey): { readonly signsFrom: Millis | null; readonly leavesAt: Millis | null }
  }
  /** @throws RingbackError `invalid_callback_url`, `callback_url_forbidden` */
  readonly validateCallbackUrl: (url: string) => URL
  /** `whsec_…` */
  readonly generateSecret: () => string
  /** The part of a secret that may be shown. */
  readonly secretHint: (secret: string) => string
  /** `none`: a new endpoint is active at once. */
  readonly verificationDefault: 'none' | 'challenge'
  readonly bodyLimitBytes: number
  /** Origins whose pages may call, or `*`. Empty: CORS is off. */
  readonly corsOrigins: readonly string[]
  /** How long a task of the type is kept after its end. */
  readonly retentionMs: (type: string) => Millis
  /** The recent median duration of the type. Null: unknown. */
  readonly typicalDurationMs: (type: string) => Millis | null
  /** Pending and running tasks of all clients. Above it, new tasks are refused with 503. */
  readonly maxOpenTasks: number
  /** Limits of one client. Above them, new objects are refused with 429. */
  readonly maxPerClient: { readonly openTasks: number; readonly endpoints: number; readonly schedules: number; readonly keys: number }
  /** Whether this node runs as many tasks of the type as it may. Left out: this node runs no tasks. */
  readonly isFull?: (type: TaskType) => boolean
  readonly streamLimits: OpenCallLimits
  /** Calls that wait for a task, a feed or a ping. */
  readonly waitLimits: OpenCallLimits
  /** Each part of the node: `ok`, or what is wrong. */
  readonly health: () => Promise<Readonly<Record<string, string>>>
  readonly watchers: Watchers
  readonly claims: WorkerClaims
  readonly leaseMs: Millis
  /** Left out: there are no rate limits. */
  readonly rateLimiter?: RoutePipeline['rateLimiter']
  readonly events: EventSink
}

export interface AppContext extends AppOptions {
  readonly authenticator: Authenticator
  readonly cursors: CursorCodec
  readonly endpointOwners: EndpointOwners
  readonly waitingReasons: WaitingReasons
  /** Refuses new tasks above the limits of open tasks. Throws `quota_exceeded`, `temporary_reduced_capacity`. */
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

/** @throws RingbackError `not_found`, or `task_expired` when the id is known to have been erased */
export function unwrapFound<T>(found: FindResult<T>, what: string): T {
  if (found.kind === 'found') return found.value
  if (found.kind === 'gone') throw taskExpired()
  throw notFound(what)
}

export const taskExpired = (): RingbackError => new RingbackError('task_expired', 'The task was erased, by its client or by age.')

export const quotaExceeded = (max: number, what: string): RingbackError =>
  new RingbackError('quota_exceeded', `You have ${max} ${what}, the maximum for one client: delete some that you no longer need.`)

const ID = /^[a-z]+_[0-9a-z]{26}$/

/** An id from the path. @throws RingbackError `not_found` when it cannot be an id with this prefix */
export function idParam(call: ApiCall, prefix: string, name = 'id'): string {
  const id = call.param(name)
  if (!ID.test(id) || !id.startsWith(`${prefix}_`)) throw notFound(prefix)
  return id
}

/** The client whose objects a list shows. Null: every client's, for the operator. */
export function clientFilter(caller: Caller, clientId: string | undefined): string | null {
  if (caller.clientId === null) return clientId ?? null
  if (clientId !== undefined) throw validationFailed([{ pointer: '#/query/clientId', detail: 'may be given by the operator only' }])
  return caller.clientId
}

/** The client a `clientOnly` route acts for. */
export function requireClientId(call: ApiCall): string {
  if (call.caller.clientId === null) throw new Error('the operator called a route for clients')
  return call.caller.clientId
}

/** What a cursor is bound to: the caller, the list and its filters. */
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

/** A copy without the undefined members. */
export const omitUndefined = <T extends object>(value: T): Defined<T> =>
  Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as Defined<T>

/** A page ends early at this many characters, to bound its memory. */
const MAX_PAGE_CHARS = 4 * 1024 * 1024

/** A page of the contract, with `Link: …; rel="next"`. `show` gives the JSON text of an item. */
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
    // An app that is mounted under a path has that path in its public URL.
    link.Link = `<${context.publicUrl()}${call.path.slice(call.path.indexOf('/v1/'))}?${query}>; rel="next"`
  }
  return {
    status: 200,
    headers: { 'Content-Type': JSON_TYPE, 'Cache-Control': 'private, no-cache', ...headers, ...link },
    body: `{"data":[${shown.join(',')}],"hasMore":${hasMore},"nextCursor":${JSON.stringify(cursor)}}`,
  }
}

/**
 * Authenticates the caller again after a wait: the key may have been revoked or its client suspended.
 * @throws RingbackError `unauthenticated`, `insufficient_scope`
 */
export async function recheckScope({ authenticator, clock }: AppContext, call: ApiCall, scope: Scope): Promise<void> {
  // Without an address, the key is not counted as unknown.
  const request = { header: (name: string) => call.header(name), address: null }
  authenticator.authorize(await authenticator.authenticate(request, clock.now()), scope, false)
}

export const OPERATOR_SCOPE: Scope = 'admin'
