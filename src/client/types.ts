/** Types of the client: the documents of the API, typed by the task types of the server. */
import type {
  EndpointDocument as Endpoint,
  NewEndpoint,
  NewTaskOptions,
  TaskDocument as Task,
  TaskSignature,
  TaskStatus,
} from '../core/documents.ts'

/** A task that has ended. */
export type Ended<T extends Task> = T & { readonly status: 'completed' | 'failed' | 'canceled' }

export type AnyTask = TaskSignature<string, unknown, unknown>
type TaskTypeOf<Types> = Extract<Types extends readonly (infer T)[] ? T : Types[keyof Types], AnyTask>
type Named<M, Name> = M extends TaskSignature<infer Type, infer Input, infer Result> ? (Name extends Type ? [Input, Result] : never) : never

/** The names among `Types`, a list or a record of task types. */
export type TypeName<Types> = TaskTypeOf<Types>['type']
/** The input of the task type of that name. */
export type InputOf<Types, Name> = Named<TaskTypeOf<Types>, Name>[0]
/** The result of the task type of that name. */
export type ResultOf<Types, Name> = Named<TaskTypeOf<Types>, Name>[1]
export type TaskOf<Types, Name> = Name extends string ? Task<Name, InputOf<Types, Name>, ResultOf<Types, Name>> : never
/** A task of any of these types; its `type` tells which. */
export type SomeTask<Types> = TaskOf<Types, TypeName<Types>>

export interface CallOptions {
  readonly signal?: AbortSignal | undefined
}
export interface Keyed extends CallOptions {
  /** The same key gives the same task for 24 hours. Default: a new one for each call, so that retries of the call make one task. */
  readonly idempotencyKey?: string | undefined
}

export type SubmitOptions = NewTaskOptions & Keyed

export interface FollowOptions extends CallOptions {
  /** Maximum time to follow. Default: until the task ends. */
  readonly timeoutMs?: number | undefined
}

export interface WaitOptions<T extends Task = Task> extends FollowOptions {
  /** Called with each revision that is seen, including the last; for progress at most four times a second. */
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
  /** Default: `desc`, newest first. */
  readonly order?: 'asc' | 'desc'
  /** Tasks per request, 1 to 200. Default: 50. */
  readonly pageSize?: number
}

/** A task of a batch. */
export type BatchItem<Types> = {
  [Name in TypeName<Types>]: NewTaskOptions & { readonly type: Name; readonly input: InputOf<Types, Name> }
}[TypeName<Types>]

/** Every method throws {@link RingbackClientError}, or the reason of its signal. */
export interface RingbackClient<Types> {
  /** Resolves when the server has committed the task. */
  submit<const Name extends TypeName<Types>>(type: Name, input: InputOf<Types, Name>, options?: SubmitOptions): Promise<TaskOf<Types, Name>>
  /** Submits 1 to 100 tasks, all or none. */
  submitBatch(
    tasks: readonly BatchItem<Types>[],
    options?: Keyed,
  ): Promise<{ readonly id: string; readonly tasks: readonly SomeTask<Types>[] }>
  get(id: string, options?: CallOptions): Promise<SomeTask<Types>>
  /** Resolves when the task has ended, in any state. Throws `wait_timeout` after `timeoutMs`; the task continues. */
  wait<T extends Task>(task: T, options?: WaitOptions<T>): Promise<Ended<T>>
  wait(id: string, options?: WaitOptions<SomeTask<Types>>): Promise<Ended<SomeTask<Types>>>
  /**
   * Yields the task now, after each change, and once ended: each revision that is seen, in order, once. Uses server-sent events, otherwise
   * long-polling, otherwise polling. Throws `wait_timeout` after `timeoutMs`; the task continues.
   */
  follow<T extends Task>(task: T, options?: FollowOptions): AsyncGenerator<T, void, undefined>
  follow(id: string, options?: FollowOptions): AsyncGenerator<SomeTask<Types>, void, undefined>
  /** The result, of any size. Throws {@link TaskFailed} for a failed or canceled task, `task_not_completed` for one that has not ended. */
  result<Result>(task: Task<string, unknown, Result>, options?: CallOptions): Promise<Result>
  /** Submits, waits and returns the result. Throws {@link TaskFailed} when the task fails or is canceled. */
  run<const Name extends TypeName<Types>>(
    type: Name,
    input: InputOf<Types, Name>,
    options?: SubmitOptions & WaitOptions<TaskOf<Types, Name>>,
  ): Promise<ResultOf<Types, Name>>
  /** Cancels a pending task at once; asks a running one to stop. */
  cancel(id: string, options?: CallOptions): Promise<SomeTask<Types>>
  /** Runs a failed or canceled task again, under the same id. */
  retry(id: string, options?: CallOptions): Promise<SomeTask<Types>>
  /** Deletes a task that has ended. */
  delete(id: string, options?: CallOptions): Promise<void>
  /** Fetches the next page when it is needed. */
  list(query?: TaskQuery): AsyncGenerator<SomeTask<Types>, void, undefined>
  readonly endpoints: {
    /** The only response with the secret. */
    create(endpoint: NewEndpoint, options?: CallOptions): Promise<Endpoint & { readonly secret: string }>
    get(id: string, options?: CallOptions): Promise<Endpoint>
    list(options?: CallOptions): AsyncGenerator<Endpoint, void, undefined>
    delete(id: string, options?: CallOptions): Promise<void>
  }
}

/** Time in milliseconds and randomness, replaceable in tests. */
export interface ClientClock {
  now(): number
  /** In [0, 1). */
  random(): number
  /** Calls `wake` once, unless the returned function is called before. */
  after(ms: number, wake: () => void): () => void
}

export interface ClientOptions {
  /** The public URL of Ringback, or another URL that reaches it. */
  readonly url: string | URL
  /** `rb_…` */
  readonly key: string
  /** Default: the platform's. */
  readonly fetch?: (url: string, init: RequestInit) => Promise<Response>
  /** Default: that of the platform. Not for web pages: it makes browsers send a CORS preflight. */
  readonly userAgent?: string
  readonly clock?: ClientClock
}
