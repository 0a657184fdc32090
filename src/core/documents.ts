/**
 * The documents of the API, one type each. The zod schemas are checked against them; `ringback/client` and `ringback/receiver` export them.
 * Imports nothing, so that those two stand alone. Times are RFC 3339 in UTC. An interface without "Document" holds the members that a
 * document and its stored row share in the same form.
 */

/** Every problem of the API, and its HTTP status. */
export const errorStatuses = {
  malformed_json: 400,
  malformed_header: 400,
  idempotency_key_invalid: 400,
  unauthenticated: 401,
  insufficient_scope: 403,
  not_found: 404,
  method_not_allowed: 405,
  not_acceptable: 406,
  task_not_cancelable: 409,
  task_not_completed: 409,
  task_not_terminal: 409,
  task_not_retryable: 409,
  endpoint_exists: 409,
  endpoint_not_verified: 409,
  lease_lost: 409,
  task_expired: 410,
  precondition_failed: 412,
  payload_too_large: 413,
  unsupported_media_type: 415,
  validation_failed: 422,
  task_type_not_found: 422,
  idempotency_key_reused: 422,
  invalid_cursor: 422,
  invalid_callback_url: 422,
  callback_url_forbidden: 422,
  callback_url_not_verified: 422,
  challenge_mismatch: 422,
  quota_exceeded: 429,
  internal: 500,
  temporary_reduced_capacity: 503,
} as const
export type ErrorCode = keyof typeof errorStatuses

/** One fault of a request: a JSON Pointer fragment to the place (`#/input/width`) and a sentence. */
export interface Fault {
  readonly pointer: string
  readonly detail: string
}

// Tasks

export const taskStatuses = ['pending', 'running', 'completed', 'failed', 'canceled'] as const
export type TaskStatus = (typeof taskStatuses)[number]
/** Why a pending task does not run. */
export const taskWaits = ['runAt', 'retryBackoff', 'limit', 'noWorker', 'paused'] as const
export type WaitingFor = (typeof taskWaits)[number]
/** State of the webhooks that the end of a task owes. */
export const callbackStatuses = ['none', 'pending', 'delivered', 'failed'] as const
export type CallbackStatus = (typeof callbackStatuses)[number]

export interface Failure {
  readonly code: string
  readonly message: string
  readonly details: unknown
}
export interface LastFailure {
  readonly code: string
  readonly message: string
  readonly try: number
  readonly at: string
}

/** What a request may set and the document shows in the same form. */
export interface TaskOptions {
  readonly timeoutSeconds: number
  readonly maxTries: number
  /** Seconds of head start over the client's other pending tasks. */
  readonly priority: number
  readonly concurrencyKey: string | null
}
export interface TaskMembers extends TaskOptions {
  readonly id: string
  /** 0 to 100; 100 only when completed. */
  readonly progress: number
  readonly progressMessage: string | null
  readonly tries: number
  /** 1, and one more for every `retry` of a task that had ended. */
  readonly generation: number
  /** Grows by one with every visible change. Webhooks may arrive out of order: the highest revision is the newest. */
  readonly revision: number
  readonly batchId: string | null
  readonly scheduleId: string | null
}

/** Where a task's events go. Without members: to every endpoint of the client that subscribes. */
export interface Callback {
  readonly endpointId?: string
  /** Must lie under the URL of a verified endpoint. */
  readonly url?: string
  readonly events?: readonly TaskEventType[]
  /** Delays in seconds, one before each retry. */
  readonly retrySchedule?: readonly number[]
}
export interface CallbackDocument {
  readonly endpointId: string | null
  readonly url: string | null
  readonly events: readonly string[] | null
  readonly retrySchedule: readonly number[] | null
}

export interface TaskDocument<Type extends string = string, Input = unknown, Result = unknown> extends TaskMembers {
  readonly type: Type
  readonly status: TaskStatus
  /** Null until the task has completed, when it is over 64 KiB, and in thin webhooks. */
  readonly result: Result | null
  /** Where a result over 64 KiB is. */
  readonly resultUrl: string | null
  /** Why the task failed. */
  readonly error: Failure | null
  /** Why the latest failed try failed. */
  readonly lastError: LastFailure | null
  /** Null when it is over 64 KiB, and in thin webhooks. */
  readonly input: Input | null
  readonly inputUrl: string | null
  /** Null in thin webhooks. */
  readonly metadata: Readonly<Record<string, string>> | null
  readonly createdAt: string
  readonly runAt: string
  readonly startedAt: string | null
  readonly updatedAt: string
  readonly finishedAt: string | null
  readonly startBy: string | null
  readonly deadlineAt: string | null
  readonly cancelRequestedAt: string | null
  readonly expiresAt: string | null
  readonly estimatedCompletionAt: string | null
  readonly waitingFor: WaitingFor | null
  /** Status null: in the body of an event. */
  readonly callback: CallbackDocument & { readonly status: CallbackStatus | null }
  readonly links: { readonly self: string; readonly events: string; readonly cancel: string; readonly deliveries: string }
}

/** Members that may be left out of a request. */
type Optional<T> = { readonly [K in keyof T]?: NonNullable<T[K]> }

/** What a request for a task may hold beside its type and its input. */
export interface NewTaskOptions extends Optional<TaskOptions> {
  /** Left out: every endpoint of the client that subscribes. Null: none. */
  readonly callback?: Callback | null
  /** At most 16 members of at most 500 characters. */
  readonly metadata?: Readonly<Record<string, string>>
  readonly runAt?: Date | string
  readonly delaySeconds?: number
  readonly startBy?: Date | string
  readonly deadlineAt?: Date | string
}

/** The name of a task type, and the types of its input and result: as much as a typed client knows of it. */
export interface TaskSignature<Type extends string, Input, Result> {
  readonly type: Type
  readonly where: 'process' | 'thread' | 'worker'
  readonly '~types'?: { readonly input: Input; readonly result: Result }
}

// Schedules

/** What happens to ticks that an outage missed: none is made up, one task for all of them, or one task each. */
export const catchUps = ['none', 'one', 'all'] as const
export type CatchUp = (typeof catchUps)[number]

export interface ScheduleMembers {
  readonly id: string
  readonly type: string
  readonly cron: string
  /** An IANA name. */
  readonly timezone: string
  readonly catchUp: CatchUp
  readonly revision: number
}
export interface ScheduleDocument extends ScheduleMembers {
  readonly paused: boolean
  readonly input: unknown
  readonly metadata: Readonly<Record<string, string>>
  readonly callback: CallbackDocument | null
  /** Null, like `maxTries`: the value of the task type at each tick. */
  readonly timeoutSeconds: number | null
  readonly maxTries: number | null
  readonly priority: number
  readonly concurrencyKey: string | null
  readonly nextAt: string | null
  readonly lastAt: string | null
  readonly upcoming: readonly string[]
  readonly createdAt: string
  readonly updatedAt: string
}

// Endpoints

export const endpointStatuses = ['disabled', 'pendingVerification', 'paused', 'active'] as const
export type EndpointStatus = (typeof endpointStatuses)[number]
export const disabledReasons = ['gone', 'failing', 'forbiddenAddress'] as const
export type DisabledReason = (typeof disabledReasons)[number]
export const endpointFormats = ['standard', 'cloudevents'] as const
export type EndpointFormat = (typeof endpointFormats)[number]
export const endpointPayloads = ['full', 'thin'] as const
export type EndpointPayload = (typeof endpointPayloads)[number]

/** What a request may set and the document shows in the same form. */
export interface EndpointOptions {
  readonly description: string
  readonly format: EndpointFormat
  readonly payload: EndpointPayload
  readonly maxPerMinute: number | null
  readonly maxInFlight: number
}
export interface EndpointMembers extends EndpointOptions {
  readonly id: string
  readonly url: string
  readonly disabledReason: DisabledReason | null
  readonly secretHint: string
  /** Counts changes of settings and status, not of health. */
  readonly revision: number
}
export interface EndpointDocument extends EndpointMembers {
  readonly status: EndpointStatus
  readonly events: readonly string[]
  readonly taskTypes: readonly string[]
  readonly headers: Readonly<Record<string, '***'>>
  /** Delays in seconds, one before each retry. */
  readonly retrySchedule: readonly number[] | null
  /** `whsec_…`: shown once, by create and rotate-secret. */
  readonly secret: string | null
  readonly jwksUrl: string
  /** The `aud` of its webhooks. */
  readonly audience: string
  readonly verification: {
    readonly method: 'challenge' | 'cloudevents' | 'none'
    readonly lastError: string | null
    readonly expiresAt: string | null
  }
  readonly failingSince: string | null
  readonly lastSuccessAt: string | null
  readonly createdAt: string
  readonly updatedAt: string
}

/** A request for an endpoint. Members left out take their defaults. */
export interface NewEndpoint extends Optional<EndpointOptions> {
  readonly url: string
  readonly events?: readonly Exclude<EventType, 'endpoint.verification' | 'endpoint.ping'>[]
  readonly taskTypes?: readonly string[]
  readonly headers?: Readonly<Record<string, string>>
  /** Delays in seconds, one before each retry. */
  readonly retrySchedule?: readonly number[]
  readonly verification?: 'challenge' | 'cloudevents'
}

// Events

export const taskEventTypes = ['task.created', 'task.started', 'task.progress', 'task.completed', 'task.failed', 'task.canceled'] as const
export type TaskEventType = (typeof taskEventTypes)[number]
export const endpointEventTypes = ['endpoint.verification', 'endpoint.ping', 'endpoint.failing', 'endpoint.disabled'] as const
export const eventTypes = [...taskEventTypes, ...endpointEventTypes] as const
export type EventType = (typeof eventTypes)[number]

/** Answer 200 with `{"challenge": data.challenge}` to prove that the endpoint is yours. */
export interface ChallengeData {
  readonly endpointId: string
  readonly challenge: string
  readonly expiresAt: string
}
type EventData<T extends EventType> = T extends 'task.completed' | 'task.failed' | 'task.canceled'
  ? TaskDocument & { readonly status: T extends `task.${infer Status}` ? Status : never }
  : T extends TaskEventType
    ? TaskDocument
    : T extends 'endpoint.verification'
      ? ChallengeData
      : Readonly<Record<string, unknown>>

/** The body of a webhook. `type` says what `data` is. Ignore types you do not know: later versions add some. */
export type EventDocument = {
  [T in EventType]: {
    /** The same in every attempt and redelivery. */
    readonly id: string
    readonly type: T
    /** When it happened. */
    readonly timestamp: string
    readonly data: EventData<T>
  }
}[EventType]

// Deliveries

export const deliveryStatuses = ['pending', 'sending', 'delivered', 'failed', 'canceled'] as const
export type DeliveryStatus = (typeof deliveryStatuses)[number]
/** Why a pending delivery is not sent. */
export const deliveryWaits = [
  'retryBackoff',
  'retryAfter',
  'endpointPaused',
  'endpointDisabled',
  'endpointUnverified',
  'breaker',
  'rate',
  'inFlight',
] as const
export const triggers = ['event', 'redelivery', 'replay', 'ping'] as const
export type Trigger = (typeof triggers)[number]
export const canceledReasons = ['superseded', 'endpointDeleted', 'taskDeleted'] as const
export type CanceledReason = (typeof canceledReasons)[number]
export const attemptOutcomes = [
  'success',
  'http_error',
  'redirect',
  'timeout',
  'dns',
  'tls',
  'connect',
  'blocked',
  'aborted',
  'expired',
] as const
export type AttemptOutcome = (typeof attemptOutcomes)[number]

/** Milliseconds of each phase; null: the phase was not reached, or the connection was reused. */
export type Timings = Readonly<Record<'dnsMs' | 'connectMs' | 'tlsMs' | 'firstByteMs', number | null>>

export interface AttemptMembers {
  readonly durationMs: number
  readonly outcome: AttemptOutcome
  readonly httpStatus: number | null
  readonly error: string | null
  readonly keyId: string | null
  readonly retryAfterSeconds: number | null
  readonly responseExcerpt: string | null
  /** The document shows it to the operator only. */
  readonly remoteAddress: string | null
}
export interface AttemptDocument extends AttemptMembers {
  /** 1, 2, 3… */
  readonly number: number
  readonly startedAt: string
  readonly timings: Timings
  readonly responseHeaders: Readonly<Record<string, string>>
}

export interface DeliveryMembers {
  readonly id: string
  readonly eventId: string
  readonly eventType: EventType
  readonly taskId: string | null
  readonly endpointId: string
  /** In the row: the task's own callback URL, null for the endpoint's. In the document: the URL that is called. */
  readonly url: string | null
  readonly tries: number
  readonly maxTries: number
  readonly canceledReason: CanceledReason | null
  readonly trigger: Trigger
}
export interface DeliveryDocument extends DeliveryMembers {
  readonly status: DeliveryStatus
  readonly nextAttemptAt: string | null
  readonly waitingFor: (typeof deliveryWaits)[number] | null
  readonly deliveredAt: string | null
  readonly createdAt: string
  readonly attempts: readonly AttemptDocument[]
}
