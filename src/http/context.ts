/** What routes depend on. The app is a function of the context and the request. */
import type { Clock } from '../core/clock.ts'
import type { Encryptor } from '../core/encryption.ts'
import type { Millis, Scope, SigningKey } from '../core/model.ts'
import type { EventSink } from '../observe/events.ts'
import type { Store } from '../store/interfaces.ts'
import type { TaskType } from '../tasks/define.ts'
import type { Registry } from '../tasks/registry.ts'
import type { OpenCallLimiter, OpenCallLimits } from './limits/open-calls.ts'
import type { WorkerClaims } from './live/claims.ts'
import type { EndpointOwners } from './live/endpoint-owners.ts'
import type { Watchers } from './live/waits.ts'
import type { Authenticator } from './request/auth.ts'
import type { CursorCodec } from './request/cursor.ts'
import { notFound } from './request/replies.ts'
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

const ID = /^[a-z]+_[0-9a-z]{26}$/

/** An id from the path. @throws RingbackError `not_found` when it cannot be an id with this prefix */
export function idParam(call: ApiCall, prefix: string, name = 'id'): string {
  const id = call.param(name)
  if (!ID.test(id) || !id.startsWith(`${prefix}_`)) throw notFound(prefix)
  return id
}

/** The client a `clientOnly` route acts for. */
export function requireClientId(call: ApiCall): string {
  if (call.caller.clientId === null) throw new Error('the operator called a route for clients')
  return call.caller.clientId
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
