/**
 * Words of the house, the same from SQL to the documentation:
 *
 * - **client**: who owns tasks and endpoints; calls the API with a key.
 * - **task**: something a client asked to be done. Tasks are *run*.
 * - **event**: an immutable fact about a task; its `body` is the exact bytes sent.
 * - **endpoint**: a callback URL a client registered.
 * - **delivery**: one event owed to one endpoint. Deliveries are *attempted*.
 * - **attempt**: what happened on one try of a delivery.
 * - **try**: one start of leased work that counts. Tasks and deliveries both count tries.
 * - **fence**: a number that every claim bumps and nothing lowers. Whoever settles presents it; a stale one changes nothing.
 * - **lease**: how long a claim is believed without being renewed.
 * - **lane**: the line in which work of one endpoint, or of one client and type, waits. Claims go lane by lane.
 * - **turn**: a lane's place in the run queue, left by whoever makes the lane claimable.
 * - **schedule**: a recurring task: when, and what each time. A **tick** is one of its times; it makes one task.
 * - **generation**: which life of a task this is: 1, and one more for every `retry` of a task that had ended.
 */

/** Epoch milliseconds, or a length of time in milliseconds: in memory, in SQL and between layers. */
export type Millis = number
/** JSON as text, opaque below the HTTP layer. */
export type Json = string

export type State = 'pending' | 'running' | 'completed' | 'failed' | 'canceled'
export const terminalStates = ['completed', 'failed', 'canceled'] as const satisfies readonly State[]
export const isTerminal = (state: State): boolean => state !== 'pending' && state !== 'running'

/** The two tables of leased work. */
export type WorkKind = 'task' | 'delivery'

/** Leased work: what a task and a delivery have in common. */
export interface Work {
  readonly id: string
  readonly clientId: string
  /** The lane it waits in: an endpoint's id, or `<client>/<type>[/<key>]`. */
  readonly laneId: string
  readonly state: State
  /** Not before. */
  readonly dueAt: Millis
  /** Starts that count; a release gives one back. */
  readonly tries: number
  readonly maxTries: number
  readonly fence: number
  readonly leasedUntil: Millis | null
  /** The boot that holds the lease, or {@link WORKER_PREFIX} and the key of a worker over HTTP. */
  readonly leasedBy: string | null
}
/** What `leasedBy` begins with where a worker over HTTP holds the lease: such a lease outlives the boots of nodes. */
export const WORKER_PREFIX = 'worker:'

export interface Task extends Work {
  readonly type: string
  readonly generation: number
  /** Grows by one on every visible change; never resets. */
  readonly revision: number
  readonly input: Json
  readonly result: Json | null
  /** {@link Failure} */
  readonly error: Json | null
  /** {@link LastFailure} */
  readonly lastError: Json | null
  /** 0 to 100; 100 only when completed. */
  readonly progress: number
  readonly progressMessage: string | null
  /** An object of strings. */
  readonly metadata: Json
  /** Seconds of head start over other pending tasks of the client. */
  readonly priority: number
  readonly concurrencyKey: string | null
  /** {@link Callback}; null means: no callbacks. */
  readonly callback: Json | null
  readonly batchId: string | null
  readonly scheduleId: string | null
  readonly createdAt: Millis
  readonly updatedAt: Millis
  readonly startedAt: Millis | null
  readonly finishedAt: Millis | null
  readonly startBy: Millis | null
  readonly deadlineAt: Millis | null
  readonly timeoutSeconds: number
  readonly cancelRequestedAt: Millis | null
  readonly traceparent: string | null
  readonly tracestate: string | null
}

/** Where a task's events go. All members absent: every endpoint of the client that subscribes. */
export interface Callback {
  readonly endpointId?: string
  /** Under the endpoint `endpointId` names: its origin and path prefix. */
  readonly url?: string
  readonly events?: readonly EventType[]
  /** Delays in seconds, one before each retry. */
  readonly retrySchedule?: readonly number[]
}

/** Times that were missed, by an outage say: left out, made good by one task, or by one each. */
export type CatchUp = 'none' | 'one' | 'all'

/** A recurring task. */
export interface Schedule {
  readonly id: string
  readonly clientId: string
  readonly type: string
  readonly cron: string
  /** An IANA name. */
  readonly timezone: string
  readonly catchUp: CatchUp
  /** {@link TaskTemplate} */
  readonly template: Json
  readonly pausedAt: Millis | null
  /** The next tick; null: it is paused, or will never tick again. */
  readonly nextAt: Millis | null
  /** The latest tick that made a task. */
  readonly lastAt: Millis | null
  readonly createdAt: Millis
  readonly updatedAt: Millis
  /** Counts changes of settings; ticks are none. */
  readonly revision: number
}
/** What every task of a schedule is made of. Null tries and timeout: what the type says when it ticks. */
export interface TaskTemplate {
  readonly input: Json
  readonly metadata: Json
  readonly callback: Json | null
  readonly timeoutSeconds: number | null
  readonly maxTries: number | null
  readonly priority: number
  readonly concurrencyKey: string | null
}

export interface Failure {
  readonly code: string
  readonly message: string
  readonly details: unknown
}
export interface LastFailure {
  readonly code: string
  readonly message: string
  readonly try: number
  /** RFC 3339. */
  readonly at: string
}

export const taskEventTypes = ['task.created', 'task.started', 'task.progress', 'task.completed', 'task.failed', 'task.canceled'] as const
export const endpointEventTypes = ['endpoint.verification', 'endpoint.ping', 'endpoint.failing', 'endpoint.disabled'] as const
export type EventType = (typeof taskEventTypes)[number] | (typeof endpointEventTypes)[number]
/** What an endpoint receives when it names no events. */
export const defaultEvents = ['task.completed', 'task.failed', 'task.canceled'] as const satisfies readonly EventType[]

export interface Event {
  readonly id: string
  readonly clientId: string
  readonly taskId: string | null
  readonly endpointId: string | null
  readonly type: EventType
  readonly generation: number
  readonly revision: number
  /** The client's own count of events, in commit order. */
  readonly seq: number
  /** The envelope as sent: `{"type","timestamp","id","data"}`. */
  readonly body: string
  readonly createdAt: Millis
}

export type EndpointFormat = 'standard' | 'cloudevents'
export type EndpointPayload = 'full' | 'thin'
export type EndpointStatus = 'disabled' | 'pendingVerification' | 'paused' | 'active'
export type DisabledReason = 'gone' | 'failing' | 'forbiddenAddress'

export interface Endpoint {
  readonly id: string
  readonly clientId: string
  readonly url: string
  readonly description: string
  /** Event types, as JSON. */
  readonly events: Json
  /** Task types, as JSON; `["*"]` is every type but `system.*`. */
  readonly taskTypes: Json
  /** An object of header values, sealed; null when there are none. */
  readonly headers: string | null
  /** Names of the custom headers, as JSON: what may be shown. */
  readonly headerNames: Json
  readonly format: EndpointFormat
  readonly payload: EndpointPayload
  readonly maxPerMinute: number | null
  readonly maxInFlight: number
  /** What the receiver allows a minute (`WebHook-Allowed-Rate`); null: it named no rate. */
  readonly allowedRate: number | null
  /** Delays in seconds, as JSON; null: the installation's. */
  readonly retrySchedule: Json | null
  /** `whsec_…`, sealed. */
  readonly secret: string
  readonly secretHint: string
  readonly previousSecret: string | null
  readonly previousSecretUntil: Millis | null
  readonly verification: 'challenge' | 'cloudevents' | 'none'
  readonly verifiedAt: Millis | null
  /** Set once: an endpoint that never proved itself holds its deliveries for a day only. */
  readonly firstVerifiedAt: Millis | null
  /** The delivery whose answer is waited for. */
  readonly verificationDeliveryId: string | null
  readonly verificationError: string | null
  readonly verificationExpiresAt: Millis | null
  readonly pausedAt: Millis | null
  readonly disabledAt: Millis | null
  readonly disabledReason: DisabledReason | null
  readonly failingSince: Millis | null
  /** When `endpoint.failing` told of this episode. */
  readonly failingToldAt: Millis | null
  readonly lastSuccessAt: Millis | null
  readonly createdAt: Millis
  readonly updatedAt: Millis
  readonly revision: number
}

/** `disabled > pendingVerification > paused > active`: the first that applies. Only an active endpoint is sent to. */
export function endpointStatus(e: Pick<Endpoint, 'disabledAt' | 'verifiedAt' | 'pausedAt'>): EndpointStatus {
  return e.disabledAt !== null ? 'disabled' : e.verifiedAt === null ? 'pendingVerification' : e.pausedAt !== null ? 'paused' : 'active'
}

export type Trigger = 'event' | 'redelivery' | 'replay' | 'ping'
export type CanceledReason = 'superseded' | 'endpointDeleted' | 'taskDeleted'
export type AttemptOutcome =
  | 'success'
  | 'http_error'
  | 'redirect'
  | 'timeout'
  | 'dns'
  | 'tls'
  | 'connect'
  | 'blocked'
  | 'aborted'
  | 'expired'

export interface Delivery extends Work {
  readonly eventId: string
  readonly eventType: EventType
  readonly taskId: string | null
  readonly endpointId: string
  /** The task's own callback URL under the endpoint; null: the endpoint's URL. */
  readonly url: string | null
  /** Rendered for this delivery (thin, CloudEvents); null: the event's own. */
  readonly body: string | null
  /** Delays in seconds, as JSON; null: the endpoint's, else the installation's. */
  readonly retrySchedule: Json | null
  readonly trigger: Trigger
  readonly retryAfterAt: Millis | null
  readonly canceledReason: CanceledReason | null
  readonly createdAt: Millis
  readonly updatedAt: Millis
  readonly finishedAt: Millis | null
}

/** What an attempt says of its endpoint's strength; `neutral`: it is alive and did not take the webhook. */
export type HealthSignal = 'success' | 'failure' | 'timeout' | 'blocked' | 'neutral'

/** Milliseconds from the start of the attempt's phase; null where the phase was not reached or the connection was reused. */
export interface Timings {
  readonly dnsMs: number | null
  readonly connectMs: number | null
  readonly tlsMs: number | null
  readonly firstByteMs: number | null
}

/** What happened on one try of a delivery. Append-only. */
export interface Attempt {
  readonly deliveryId: string
  /** The fence it was made under: unique per delivery. Shown as 1, 2, 3… */
  readonly fence: number
  readonly startedAt: Millis
  readonly durationMs: Millis
  readonly outcome: AttemptOutcome
  readonly httpStatus: number | null
  readonly error: string | null
  /** {@link Timings} */
  readonly timings: Json
  readonly keyId: string | null
  readonly retryAfterSeconds: number | null
  readonly responseHeaders: Json
  readonly responseExcerpt: string | null
  readonly remoteAddress: string | null
}

/** A deleted client is found by nobody; it is erased once nothing of it is left. */
export type ClientStatus = 'active' | 'suspended' | 'deleted' | 'erased'
export interface Client {
  readonly id: string
  readonly name: string
  readonly status: ClientStatus
  readonly createdAt: Millis
}

export const clientScopes = [
  'tasks:read',
  'tasks:write',
  'endpoints:read',
  'endpoints:write',
  'deliveries:read',
  'deliveries:write',
] as const
export type Scope = (typeof clientScopes)[number] | 'worker' | 'admin'

export interface ApiKey {
  readonly id: string
  /** Null: an operator's key. */
  readonly clientId: string | null
  readonly name: string
  /** SHA-256 of the key, hexadecimal. The key itself is never kept. */
  readonly hash: string
  readonly hint: string
  /** Scopes, as JSON. */
  readonly scopes: Json
  /** Task types a worker's key may claim, as JSON; null: every type that workers run. */
  readonly taskTypes: Json | null
  readonly createdAt: Millis
  readonly expiresAt: Millis | null
  readonly revokedAt: Millis | null
  readonly lastUsedAt: Millis | null
}

export type SigningKeyState = 'next' | 'active' | 'retiring' | 'revoked'
export interface SigningKey {
  /** RFC 7638 thumbprint. */
  readonly id: string
  readonly state: SigningKeyState
  readonly alg: 'ES256'
  readonly publicJwk: Json
  /** The private JWK, sealed. */
  readonly privateJwk: string
  readonly createdAt: Millis
  readonly publishedAt: Millis
  readonly activatedAt: Millis | null
  readonly retiredAt: Millis | null
  /** A next key that shall sign as soon as it may: when that was asked for. */
  readonly wantedAt: Millis | null
}

/** Who does what the audit log keeps, and by which request. */
export interface Author {
  /** The id of a key, or one of {@link actors}. */
  readonly actor: string
  readonly requestId: string | null
  /** The other end of the connection: a proxy's, where one stands before the node. */
  readonly remoteAddress: string | null
}
/** Who acts without a key: the operator's token, the command line, the platform by itself. */
export const actors = { token: 'admin-token', cli: 'cli', system: 'system' } as const

export const auditActions = [
  'client.create',
  'client.suspend',
  'client.resume',
  'client.delete',
  'client.erase',
  'key.create',
  'key.rotate',
  'key.revoke',
  'signingKey.rotate',
  'signingKey.revoke',
  'taskType.pause',
  'taskType.resume',
  'endpoint.create',
  'endpoint.change',
  'endpoint.pause',
  'endpoint.resume',
  'endpoint.verify',
  'endpoint.rotateSecret',
  'endpoint.ping',
  'endpoint.delete',
  'task.cancel',
  'task.retry',
  'task.delete',
  'schedule.change',
  'schedule.delete',
  'delivery.redeliver',
] as const
export type AuditAction = (typeof auditActions)[number]
/** One act that needed a privilege. Append-only. */
export interface AuditEntry extends Author {
  readonly id: string
  readonly at: Millis
  readonly action: AuditAction
  /** The id of what it was done to; null: of nothing that has one. */
  readonly target: string | null
  /** Whose that is; null: no client's. */
  readonly clientId: string | null
  /** An object; never a secret. */
  readonly details: Json
}

/** How a try ended, as `decide` judges it. Delays are relative: the script adds the database's clock. */
export type TryOutcome =
  | { readonly kind: 'complete'; readonly result: Json | null }
  | { readonly kind: 'retry'; readonly delayMs: Millis; readonly error: LastFailure | null }
  | { readonly kind: 'release'; readonly delayMs: Millis }
  | { readonly kind: 'fail'; readonly error: Failure }
  | { readonly kind: 'cancel' }
