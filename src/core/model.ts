/**
 * The terms, the same from SQL to the documentation, and the stored rows. The documents of the API are in `documents.ts`.
 *
 * - **client**: owner of tasks and endpoints; calls the API with a key.
 * - **task**: work that a client submitted. Tasks are *run*.
 * - **event**: an immutable fact about a task or an endpoint; its `body` is the exact bytes sent.
 * - **endpoint**: a callback URL that a client registered.
 * - **delivery**: one event owed to one endpoint. Deliveries are *attempted*.
 * - **attempt**: the outcome of one try of a delivery.
 * - **try**: one start of leased work that counts. Tasks and deliveries both count tries.
 * - **fence**: a number that grows with every claim. Settling with an old fence changes nothing.
 * - **lease**: how long a claim is valid without renewal.
 * - **lane**: the queue of one endpoint, or of one client and task type. Claims go lane by lane.
 * - **turn**: an entry of a lane in the run queue, added when the lane becomes claimable.
 * - **schedule**: a recurring task. A **tick** is one of its times; it makes one task.
 * - **generation**: 1, and one more for every `retry` of a task that had ended.
 */
import type {
  AttemptMembers,
  DeliveryMembers,
  EndpointMembers,
  EndpointOptions,
  EndpointStatus,
  EventType,
  Failure,
  LastFailure,
  ScheduleMembers,
  TaskMembers,
  TaskStatus,
} from './documents.ts'

export {
  type AttemptOutcome,
  type Callback,
  type CanceledReason,
  type CatchUp,
  type DisabledReason,
  type EndpointFormat,
  type EndpointPayload,
  type EndpointStatus,
  type EventType,
  endpointEventTypes,
  type Failure,
  type LastFailure,
  type Timings,
  type Trigger,
  taskEventTypes,
} from './documents.ts'

/** Epoch milliseconds, or a duration in milliseconds. */
export type Millis = number
/** JSON as text. */
export type Json = string

export type State = TaskStatus
export const terminalStates = ['completed', 'failed', 'canceled'] as const satisfies readonly State[]
export const isTerminal = (state: State): boolean => state !== 'pending' && state !== 'running'

/** The two tables of leased work. */
export type WorkKind = 'task' | 'delivery'

/** Leased work: what a task and a delivery have in common. */
export interface Work {
  readonly id: string
  readonly clientId: string
  /** An endpoint's id, or `<client>/<type>[/<key>]`. */
  readonly laneId: string
  readonly state: State
  /** Earliest start. */
  readonly dueAt: Millis
  /** A release gives one back. */
  readonly tries: number
  readonly maxTries: number
  readonly fence: number
  readonly leasedUntil: Millis | null
  /** The boot that holds the lease, or {@link WORKER_PREFIX} and the key of a worker. */
  readonly leasedBy: string | null
}
/** Prefix of `leasedBy` when a worker over HTTP holds the lease. Such a lease outlives the boots of nodes. */
export const WORKER_PREFIX = 'worker:'

export interface Task extends Work, TaskMembers {
  readonly type: string
  readonly input: Json
  readonly result: Json | null
  /** {@link Failure} */
  readonly error: Json | null
  /** {@link LastFailure} */
  readonly lastError: Json | null
  /** An object of strings. */
  readonly metadata: Json
  /** {@link Callback}; null: no callbacks. */
  readonly callback: Json | null
  readonly createdAt: Millis
  readonly updatedAt: Millis
  readonly startedAt: Millis | null
  readonly finishedAt: Millis | null
  readonly startBy: Millis | null
  readonly deadlineAt: Millis | null
  readonly cancelRequestedAt: Millis | null
  readonly traceparent: string | null
  readonly tracestate: string | null
}

/** A recurring task. */
export interface Schedule extends ScheduleMembers {
  readonly clientId: string
  /** {@link TaskTemplate} */
  readonly template: Json
  readonly pausedAt: Millis | null
  /** The next tick; null: it is paused, or has no more ticks. */
  readonly nextAt: Millis | null
  /** The latest tick that made a task. */
  readonly lastAt: Millis | null
  readonly createdAt: Millis
  readonly updatedAt: Millis
}
/** The template of a schedule's tasks. Null tries and timeout: the values of the type at each tick. */
export interface TaskTemplate {
  readonly input: Json
  readonly metadata: Json
  readonly callback: Json | null
  readonly timeoutSeconds: number | null
  readonly maxTries: number | null
  readonly priority: number
  readonly concurrencyKey: string | null
}

/** The events of an endpoint that names none. */
export const defaultEvents = ['task.completed', 'task.failed', 'task.canceled'] as const satisfies readonly EventType[]

export interface Event {
  readonly id: string
  readonly clientId: string
  readonly taskId: string | null
  readonly endpointId: string | null
  readonly type: EventType
  readonly generation: number
  readonly revision: number
  /** Counts the events of the client, in commit order. */
  readonly seq: number
  /** The bytes sent: `{"type","timestamp","id","data"}`. */
  readonly body: string
  readonly createdAt: Millis
}

/** What the owner of an endpoint sets, as stored. */
export interface EndpointSettings extends EndpointOptions {
  readonly url: string
  /** Event types, as JSON. */
  readonly events: Json
  /** Task types, as JSON; `["*"]` is every type but `system.*`. */
  readonly taskTypes: Json
  /** An object of header values, encrypted; null: none. */
  readonly headers: string | null
  /** Names of the headers, as JSON: documents show only these. */
  readonly headerNames: Json
  /** Delays in seconds, as JSON; null: those of the installation. */
  readonly retrySchedule: Json | null
  /** `whsec_…`, encrypted. */
  readonly secret: string
  readonly secretHint: string
}
export interface Endpoint extends EndpointSettings, EndpointMembers {
  readonly clientId: string
  /** Deliveries a minute that the receiver allows (`WebHook-Allowed-Rate`); null: it named no rate. */
  readonly allowedRate: number | null
  readonly previousSecret: string | null
  readonly previousSecretUntil: Millis | null
  readonly verification: 'challenge' | 'cloudevents' | 'none'
  readonly verifiedAt: Millis | null
  /** Set once. Deliveries to an endpoint that was never verified are held for a day only. */
  readonly firstVerifiedAt: Millis | null
  /** The delivery whose answer verifies. */
  readonly verificationDeliveryId: string | null
  readonly verificationError: string | null
  readonly verificationExpiresAt: Millis | null
  readonly pausedAt: Millis | null
  readonly disabledAt: Millis | null
  readonly failingSince: Millis | null
  /** When `endpoint.failing` was sent for this episode. */
  readonly failingToldAt: Millis | null
  readonly lastSuccessAt: Millis | null
  readonly createdAt: Millis
  readonly updatedAt: Millis
}

/** The first that applies of disabled, pendingVerification, paused, active. Only an active endpoint gets webhooks. */
export function endpointStatus(e: Pick<Endpoint, 'disabledAt' | 'verifiedAt' | 'pausedAt'>): EndpointStatus {
  return e.disabledAt !== null ? 'disabled' : e.verifiedAt === null ? 'pendingVerification' : e.pausedAt !== null ? 'paused' : 'active'
}

export interface Delivery extends Work, DeliveryMembers {
  /** As rendered for this delivery (thin, CloudEvents); null: the event's own body. */
  readonly body: string | null
  /** Delays in seconds, as JSON; null: those of the endpoint, otherwise of the installation. */
  readonly retrySchedule: Json | null
  readonly retryAfterAt: Millis | null
  readonly createdAt: Millis
  readonly updatedAt: Millis
  readonly finishedAt: Millis | null
}

/** What an attempt says about its endpoint's health; `neutral`: it answers, but did not accept the webhook. */
export type HealthSignal = 'success' | 'failure' | 'timeout' | 'blocked' | 'neutral'

/** The outcome of one try of a delivery. Append-only. */
export interface Attempt extends AttemptMembers {
  readonly deliveryId: string
  /** The fence of its claim, unique per delivery. Documents number attempts 1, 2, 3… */
  readonly fence: number
  readonly startedAt: Millis
  /** {@link Timings} */
  readonly timings: Json
  readonly responseHeaders: Json
}

/** A deleted client is invisible; it is erased when all its rows are gone. */
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
  /** Null: a key of the operator. */
  readonly clientId: string | null
  readonly name: string
  /** SHA-256 of the key, hexadecimal. The key itself is never stored. */
  readonly hash: string
  readonly hint: string
  /** Scopes, as JSON. */
  readonly scopes: Json
  /** Task types that a worker's key may claim, as JSON; null: every type that workers run. */
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
  /** The private JWK, encrypted. */
  readonly privateJwk: string
  readonly createdAt: Millis
  readonly publishedAt: Millis
  readonly activatedAt: Millis | null
  readonly retiredAt: Millis | null
  /** When an early rotation to this next key was requested. */
  readonly wantedAt: Millis | null
}

/** The author of an entry of the audit log, and the request. */
export interface Author {
  /** The id of a key, or one of {@link actors}. */
  readonly actor: string
  readonly requestId: string | null
  /** Peer address of the connection: that of a proxy, if there is one. */
  readonly remoteAddress: string | null
}
/** Authors without a key: the operator's token, the command line, the platform itself. */
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
/** One privileged action. Append-only. */
export interface AuditEntry extends Author {
  readonly id: string
  readonly at: Millis
  readonly action: AuditAction
  /** The id of the object; null: it has none. */
  readonly target: string | null
  /** Owner of the object; null: no client. */
  readonly clientId: string | null
  /** An object without secrets. */
  readonly details: Json
}

/** What happens after a try, as `decideOutcome` decides. Delays are relative: the script adds the database's clock. */
export type TryOutcome =
  | { readonly kind: 'complete'; readonly result: Json | null }
  | { readonly kind: 'retry'; readonly delayMs: Millis; readonly error: LastFailure | null }
  | { readonly kind: 'release'; readonly delayMs: Millis }
  | { readonly kind: 'fail'; readonly error: Failure }
  | { readonly kind: 'cancel' }
