/** What the client takes and gives: tasks and endpoints as the API shows them, typed by the task types of the server. */
import type { EventType } from '../core/model.ts'
import type { TypedTask } from '../tasks/define.ts'

export type TaskStatus = 'pending' | 'running' | 'completed' | 'failed' | 'canceled'

/** A task as the API shows it. Times are RFC 3339 in UTC. */
export interface Task<Type extends string = string, Input = unknown, Result = unknown> {
  readonly id: string
  readonly type: Type
  readonly status: TaskStatus
  /** 0 to 100; 100 only when completed. */
  readonly progress: number
  readonly progressMessage: string | null
  /** Null unless completed, and when it is over 64 KiB: {@link Client.result} gives it in either case. */
  readonly result: Result | null
  readonly resultUrl: string | null
  readonly error: { readonly code: string; readonly message: string; readonly details: unknown } | null
  /** Why the try before this one failed. */
  readonly lastError: { readonly code: string; readonly message: string; readonly try: number; readonly at: string } | null
  /** Null when it is over 64 KiB. */
  readonly input: Input | null
  readonly inputUrl: string | null
  readonly metadata: Readonly<Record<string, string>> | null
  readonly priority: number
  readonly concurrencyKey: string | null
  readonly tries: number
  readonly maxTries: number
  /** Which life of the task: one more for every retry of a task that had ended. */
  readonly generation: number
  /** Grows with every change. */
  readonly revision: number
  readonly batchId: string | null
  readonly scheduleId: string | null
  readonly createdAt: string
  readonly runAt: string
  readonly startedAt: string | null
  readonly updatedAt: string
  readonly finishedAt: string | null
  readonly startBy: string | null
  readonly deadlineAt: string | null
  readonly timeoutSeconds: number
  readonly cancelRequestedAt: string | null
  readonly expiresAt: string | null
  readonly estimatedCompletionAt: string | null
  readonly waitingFor: 'runAt' | 'retryBackoff' | 'limit' | 'noWorker' | 'paused' | null
  readonly callback: {
    readonly endpointId: string | null
    readonly url: string | null
    readonly events: readonly string[] | null
    readonly retrySchedule: readonly number[] | null
    /** What became of the webhooks that its end owed. */
    readonly status: 'none' | 'pending' | 'delivered' | 'failed' | null
  }
  readonly links: { readonly self: string; readonly events: string; readonly cancel: string; readonly deliveries: string }
}

/** A task that has ended. */
export type Ended<T extends Task> = T & { readonly status: 'completed' | 'failed' | 'canceled' }

/** A callback URL as the API shows it. */
export interface Endpoint {
  readonly id: string
  readonly url: string
  readonly status: 'disabled' | 'pendingVerification' | 'paused' | 'active'
  readonly disabledReason: 'gone' | 'failing' | 'forbiddenAddress' | null
  readonly description: string
  readonly events: readonly string[]
  readonly taskTypes: readonly string[]
  readonly headers: Readonly<Record<string, '***'>>
  readonly format: 'standard' | 'cloudevents'
  readonly payload: 'full' | 'thin'
  readonly maxPerMinute: number | null
  readonly maxInFlight: number
  readonly retrySchedule: readonly number[] | null
  /** `whsec_…`, once: in the answer to `create`. */
  readonly secret: string | null
  readonly secretHint: string
  readonly jwksUrl: string
  /** What the `aud` of its webhooks says. */
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
  readonly revision: number
}

/** What an endpoint may be created with; what is left out takes its default. */
export interface NewEndpoint {
  readonly url: string
  readonly description?: string
  readonly events?: readonly Exclude<EventType, 'endpoint.verification' | 'endpoint.ping'>[]
  readonly taskTypes?: readonly string[]
  readonly headers?: Readonly<Record<string, string>>
  readonly maxPerMinute?: number
  readonly maxInFlight?: number
  /** Delays in seconds, one before each retry. */
  readonly retrySchedule?: readonly number[]
  readonly format?: 'standard' | 'cloudevents'
  readonly payload?: 'full' | 'thin'
  readonly verification?: 'challenge' | 'cloudevents'
}

export type AnyTask = TypedTask<string, unknown, unknown>
type TaskTypeOf<Types> = Extract<Types extends readonly (infer T)[] ? T : Types[keyof Types], AnyTask>
type Named<M, Name> = M extends TypedTask<infer Type, infer Input, infer Result> ? (Name extends Type ? [Input, Result] : never) : never

/** The names among `Types`, a list or a record of task types. */
export type TypeName<Types> = TaskTypeOf<Types>['type']
/** What the task type of that name takes. */
export type InputOf<Types, Name> = Named<TaskTypeOf<Types>, Name>[0]
/** What the task type of that name gives. */
export type ResultOf<Types, Name> = Named<TaskTypeOf<Types>, Name>[1]
export type TaskOf<Types, Name> = Name extends string ? Task<Name, InputOf<Types, Name>, ResultOf<Types, Name>> : never
/** A task of any of these types; its `type` tells which. */
export type SomeTask<Types> = TaskOf<Types, TypeName<Types>>

interface TaskSettings {
  /** Left out: every endpoint of the client that subscribes. Null: none. `url` must be under a verified endpoint. */
  readonly callback?: {
    readonly endpointId?: string
    readonly url?: string
    readonly events?: readonly Extract<EventType, `task.${string}`>[]
    /** Delays in seconds, one before each retry. */
    readonly retrySchedule?: readonly number[]
  } | null
  /** At most 16 members of at most 500 characters. */
  readonly metadata?: Readonly<Record<string, string>>
  readonly runAt?: Date | string
  readonly delaySeconds?: number
  readonly startBy?: Date | string
  readonly deadlineAt?: Date | string
  readonly timeoutSeconds?: number
  readonly maxTries?: number
  /** Seconds of head start over the client's other tasks. */
  readonly priority?: number
  readonly concurrencyKey?: string
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined
}
export interface Keyed extends CallOptions {
  /** The same key gives the same task for 24 hours. Default: a new one for each call, so that the call's own retries make one task. */
  readonly idempotencyKey?: string | undefined
}

export type SubmitOptions = TaskSettings & Keyed

export interface FollowOptions extends CallOptions {
  /** How long to follow at most, whatever happens meanwhile. Default: until the task ends. */
  readonly timeoutMs?: number | undefined
}

export interface WaitOptions<T extends Task = Task> extends FollowOptions {
  /** Called with each revision that is seen, the last one too; of progress at most four a second. */
  readonly onProgress?: ((task: T) => void) | undefined
}

export interface TaskQuery extends CallOptions {
  readonly status?: TaskStatus | readonly TaskStatus[]
  readonly type?: string
  readonly batchId?: string
  /** One member. */
  readonly metadata?: Readonly<Record<string, string>>
  readonly createdAfter?: Date | string
  readonly createdBefore?: Date | string
  /** Newest first is `desc`, the default. */
  readonly order?: 'asc' | 'desc'
  /** Tasks fetched at once, 1 to 200. Default: 50. */
  readonly pageSize?: number
}

/** A task of a batch. */
export type BatchItem<Types> = {
  [Name in TypeName<Types>]: TaskSettings & { readonly type: Name; readonly input: InputOf<Types, Name> }
}[TypeName<Types>]

/** Every method throws {@link RingbackClientError}, or the reason of the signal it was given. */
export interface Client<Types> {
  /** Resolves when the task is on the server's disk. */
  submit<const Name extends TypeName<Types>>(type: Name, input: InputOf<Types, Name>, options?: SubmitOptions): Promise<TaskOf<Types, Name>>
  /** 1 to 100 tasks, all or none. */
  submitBatch(
    tasks: readonly BatchItem<Types>[],
    options?: Keyed,
  ): Promise<{ readonly id: string; readonly tasks: readonly SomeTask<Types>[] }>
  get(id: string, options?: CallOptions): Promise<SomeTask<Types>>
  /** The task once it has ended, whichever way. Throws `wait_timeout` after `timeoutMs`; the task goes on. */
  wait<T extends Task>(task: T, options?: WaitOptions<T>): Promise<Ended<T>>
  wait(id: string, options?: WaitOptions<SomeTask<Types>>): Promise<Ended<SomeTask<Types>>>
  /**
   * The task as it is, as it becomes, and last as it ended: each revision that is seen, in order, once. By server-sent events where they come
   * through, else by long-polling, else by polling. Throws `wait_timeout` after `timeoutMs`; the task goes on.
   */
  follow<T extends Task>(task: T, options?: FollowOptions): AsyncGenerator<T, void, undefined>
  follow(id: string, options?: FollowOptions): AsyncGenerator<SomeTask<Types>, void, undefined>
  /** The result, whatever its size. Throws {@link TaskFailed} for a task that ended without one, and `task_not_completed` for one that has not ended. */
  result<Result>(task: Task<string, unknown, Result>, options?: CallOptions): Promise<Result>
  /** Submits, waits, and gives the result. Throws {@link TaskFailed} when there is none. */
  run<const Name extends TypeName<Types>>(
    type: Name,
    input: InputOf<Types, Name>,
    options?: SubmitOptions & WaitOptions<TaskOf<Types, Name>>,
  ): Promise<ResultOf<Types, Name>>
  /** A pending task is canceled at once; a running one is asked to stop. */
  cancel(id: string, options?: CallOptions): Promise<SomeTask<Types>>
  /** Runs a failed or canceled task again, under the same id. */
  retry(id: string, options?: CallOptions): Promise<SomeTask<Types>>
  /** Erases a task that has ended. */
  delete(id: string, options?: CallOptions): Promise<void>
  /** Page after page, as they are asked for. */
  list(query?: TaskQuery): AsyncGenerator<SomeTask<Types>, void, undefined>
  readonly endpoints: {
    /** The one answer that holds the secret. */
    create(endpoint: NewEndpoint, options?: CallOptions): Promise<Endpoint & { readonly secret: string }>
    get(id: string, options?: CallOptions): Promise<Endpoint>
    list(options?: CallOptions): AsyncGenerator<Endpoint, void, undefined>
    delete(id: string, options?: CallOptions): Promise<void>
  }
}

/** Time and chance as the client uses them, so that a test can own them. Milliseconds. */
export interface ClientClock {
  now(): number
  /** In [0, 1). */
  random(): number
  /** Calls `wake` once; the answer cancels it. */
  after(ms: number, wake: () => void): () => void
}

export interface ClientOptions {
  /** Where Ringback is: its public URL, or another way to it. */
  readonly url: string | URL
  /** `rb_…` */
  readonly key: string
  /** Default: the platform's. */
  readonly fetch?: (url: string, init: RequestInit) => Promise<Response>
  /** Default: the platform's own. Not for pages: a browser would ask the server's leave to send it. */
  readonly userAgent?: string
  readonly clock?: ClientClock
}
