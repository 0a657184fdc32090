/**
 * `ringback/client`: submit tasks and follow them, from anything that has `fetch`.
 *
 * Typed by the task types of the server: `createClient<typeof tasks>({ url, key })`. `docs/how-to/follow-a-task.md` tells the rest.
 */
import type { ErrorCode, Fault } from './errors.ts'
import type { EventType } from './model.ts'
import type { TypedTask } from './task.ts'

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

type AnyTask = TypedTask<string, unknown, unknown>
type Member<Types> = Extract<Types extends readonly (infer T)[] ? T : Types[keyof Types], AnyTask>
type Named<M, Name> = M extends TypedTask<infer Type, infer Input, infer Result> ? (Name extends Type ? [Input, Result] : never) : never

/** The names among `Types`, a list or a record of task types. */
export type TypeName<Types> = Member<Types>['type']
/** What the task type of that name takes. */
export type InputOf<Types, Name> = Named<Member<Types>, Name>[0]
/** What the task type of that name gives. */
export type ResultOf<Types, Name> = Named<Member<Types>, Name>[1]
type TaskOf<Types, Name> = Name extends string ? Task<Name, InputOf<Types, Name>, ResultOf<Types, Name>> : never
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

interface Call {
  readonly signal?: AbortSignal | undefined
}
interface Keyed extends Call {
  /** The same key gives the same task for 24 hours. Default: a new one for each call, so that the call's own retries make one task. */
  readonly idempotencyKey?: string | undefined
}

export type SubmitOptions = TaskSettings & Keyed

export interface WaitOptions<T extends Task = Task> extends Call {
  /** How long to wait at most. Default: until the task ends. */
  readonly timeoutMs?: number | undefined
  /** Called with each revision that is seen, the last one too; at most four times a second. */
  readonly onProgress?: ((task: T) => void) | undefined
}

export interface TaskQuery extends Call {
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
  get(id: string, options?: Call): Promise<SomeTask<Types>>
  /** The task once it has ended, whichever way. Throws `wait_timeout` after `timeoutMs`; the task goes on. */
  wait<T extends Task>(task: T, options?: WaitOptions<T>): Promise<Ended<T>>
  wait(id: string, options?: WaitOptions<SomeTask<Types>>): Promise<Ended<SomeTask<Types>>>
  /** The result, whatever its size. Throws {@link TaskFailed} for a task that ended without one, and `task_not_completed` for one that has not ended. */
  result<Result>(task: Task<string, unknown, Result>, options?: Call): Promise<Result>
  /** Submits, waits, and gives the result. Throws {@link TaskFailed} when there is none. */
  run<const Name extends TypeName<Types>>(
    type: Name,
    input: InputOf<Types, Name>,
    options?: SubmitOptions & WaitOptions<TaskOf<Types, Name>>,
  ): Promise<ResultOf<Types, Name>>
  /** A pending task is canceled at once; a running one is asked to stop. */
  cancel(id: string, options?: Call): Promise<SomeTask<Types>>
  /** Runs a failed or canceled task again, under the same id. */
  retry(id: string, options?: Call): Promise<SomeTask<Types>>
  /** Erases a task that has ended. */
  delete(id: string, options?: Call): Promise<void>
  /** Page after page, as they are asked for. */
  list(query?: TaskQuery): AsyncGenerator<SomeTask<Types>, void, undefined>
  readonly endpoints: {
    /** The one answer that holds the secret. */
    create(endpoint: NewEndpoint, options?: Call): Promise<Endpoint & { readonly secret: string }>
    get(id: string, options?: Call): Promise<Endpoint>
    list(options?: Call): AsyncGenerator<Endpoint, void, undefined>
    delete(id: string, options?: Call): Promise<void>
  }
}

/** What the server refused, or why there is no answer of it. `message` is a sentence. */
export class RingbackClientError extends Error {
  override readonly name = 'RingbackClientError'
  /** The server's code; `no_answer` when none came, `unexpected_answer` when something else than Ringback answered, `wait_timeout` when the wait was too short. */
  readonly code: ErrorCode | 'no_answer' | 'unexpected_answer' | 'wait_timeout'
  /** The HTTP status; null when there is no answer. */
  readonly status: number | null
  /** Each thing wrong with the request, with a JSON pointer to it. */
  readonly errors: readonly Fault[]
  /** What the server's log calls the request. */
  readonly requestId: string | null
  readonly retryAfterSeconds: number | null

  constructor(
    code: RingbackClientError['code'],
    message: string,
    about: Partial<Pick<RingbackClientError, 'status' | 'errors' | 'requestId' | 'retryAfterSeconds' | 'cause'>> = {},
  ) {
    super(message, about.cause === undefined ? undefined : { cause: about.cause })
    this.code = code
    this.status = about.status ?? null
    this.errors = about.errors ?? []
    this.requestId = about.requestId ?? null
    this.retryAfterSeconds = about.retryAfterSeconds ?? null
  }
}

/** A task that ended without a result. */
export class TaskFailed extends Error {
  override readonly name = 'TaskFailed'
  readonly task: Task

  constructor(task: Task) {
    const why = task.error === null ? '' : `: ${task.error.code}: ${task.error.message}`
    super(`${task.id} (${task.type}) ${task.status === 'canceled' ? 'was canceled' : 'failed'}${why}`)
    this.task = task
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

/** Tries of one call: the retries wait about 0.25, 0.5, 1 and 2 s, or as long as the server says. */
const MOST_TRIES = 5
/** Tries of a wait in a row without an answer: about two minutes, as long as a restart may take. */
const MOST_BLIND_TRIES = 12
const FIRST_PAUSE_MS = 250
const LONGEST_PAUSE_MS = 30_000
/** How long a call is held at most; proxies cut idle ones after 30 or 60 s. */
const HOLD_SECONDS = 25
const ANSWER_MS = 20_000
const BETWEEN_REPORTS_MS = 250
/** The longest delay a timer takes. */
const LONGEST_TIMER = 2_147_483_647

interface Ask {
  readonly method: 'GET' | 'POST' | 'DELETE'
  readonly path: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal | undefined
  /** Whether it may be sent again when nobody knows what became of it. */
  readonly repeatable: boolean
  readonly timeoutMs?: number
}

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: unknown
}

/** Throws a TypeError for a URL or a key that cannot be one. Nothing is sent. */
export function createClient<const Types extends object = readonly AnyTask[]>(options: ClientOptions): Client<Types> {
  const calls = createCalls(options)
  const { request } = calls
  const read = async (path: string, { signal }: Call = {}): Promise<unknown> =>
    (await request({ method: 'GET', path, signal, repeatable: true })).body
  const act = async (path: string, { signal }: Call = {}, repeatable = false, body?: unknown): Promise<unknown> =>
    (await request({ method: 'POST', path, body, signal, repeatable })).body
  const add = async (path: string, body: unknown, { idempotencyKey = crypto.randomUUID(), signal }: Keyed): Promise<unknown> =>
    (await request({ method: 'POST', path, body, headers: { 'Idempotency-Key': idempotencyKey }, signal, repeatable: true })).body
  const erase = async (path: string, { signal }: Call = {}): Promise<void> => {
    await request({ method: 'DELETE', path, signal, repeatable: false })
  }
  async function* pages(path: string, query: URLSearchParams, call: Call): AsyncGenerator<unknown, void, undefined> {
    for (;;) {
      const { data, nextCursor } = (await read(`${path}?${query}`, call)) as { data: readonly unknown[]; nextCursor: string | null }
      yield* data
      if (nextCursor === null) return
      query.set('cursor', nextCursor)
    }
  }

  const submit = (type: string, input: unknown, { idempotencyKey, signal, ...settings }: SubmitOptions = {}): Promise<unknown> =>
    add('/v1/tasks', { type, input, ...settings }, { idempotencyKey, signal })
  const wait = (task: Task | string, waiting: WaitOptions = {}): Promise<Task> => waitFor(calls, task, waiting)
  const result = async (task: Task, call?: Call): Promise<unknown> => {
    if (task.status === 'failed' || task.status === 'canceled') throw new TaskFailed(task)
    if (task.status === 'completed' && task.resultUrl === null) return task.result
    // What `resultUrl` names, by way of `url`: the key goes nowhere else.
    return read(taskPath(task.id, '/result'), call)
  }
  const client = {
    submit,
    async submitBatch(tasks: readonly unknown[], keyed: Keyed = {}) {
      const { id, data } = (await add('/v1/tasks/batch', { tasks }, keyed)) as { id: string; data: readonly Task[] }
      return { id, tasks: data }
    },
    get: (id: string, call?: Call) => read(taskPath(id), call),
    wait,
    result,
    async run(type: string, input: unknown, { timeoutMs, onProgress, ...options }: SubmitOptions & WaitOptions = {}) {
      const task = (await submit(type, input, options)) as Task
      return result(await wait(task, { timeoutMs, onProgress, signal: options.signal }), options)
    },
    cancel: (id: string, call?: Call) => act(taskPath(id, '/cancel'), call, true),
    retry: (id: string, call?: Call) => act(taskPath(id, '/retry'), call),
    delete: (id: string, call?: Call) => erase(taskPath(id), call),
    list: ({ signal, ...query }: TaskQuery = {}) => pages('/v1/tasks', taskQuery(query), { signal }),
    endpoints: {
      create: (endpoint: NewEndpoint, call?: Call) => act('/v1/endpoints', call, false, endpoint),
      get: (id: string, call?: Call) => read(`/v1/endpoints/${encodeURIComponent(id)}`, call),
      list: (call: Call = {}) => pages('/v1/endpoints', new URLSearchParams(), call),
      delete: (id: string, call?: Call) => erase(`/v1/endpoints/${encodeURIComponent(id)}`, call),
    },
  }
  // What the server answers is typed by its contract; it is not checked again here.
  return client as unknown as Client<Types>
}

const taskPath = (id: string, rest = ''): string => `/v1/tasks/${encodeURIComponent(id)}${rest}`

function taskQuery({ status, metadata = {}, pageSize, ...rest }: Omit<TaskQuery, 'signal'>): URLSearchParams {
  const query = new URLSearchParams()
  if (status !== undefined) query.set('status', [status].flat().join(','))
  for (const [key, value] of Object.entries(metadata)) query.set(`metadata[${key}]`, value)
  if (pageSize !== undefined) query.set('limit', String(pageSize))
  for (const [name, value] of Object.entries(rest))
    if (value !== undefined) query.set(name, value instanceof Date ? value.toISOString() : value)
  return query
}

/**
 * Long-polls. Where calls are not held (a proxy dropped the parameter, the server is about to stop), it polls as often as `Retry-After`
 * says; where they are cut, it asks for shorter ones.
 */
async function waitFor(
  { send, pause, clock }: Calls,
  given: Task | string,
  { timeoutMs = Number.POSITIVE_INFINITY, signal, onProgress }: WaitOptions,
): Promise<Task> {
  const id = typeof given === 'string' ? given : given.id
  const end = clock.now() + timeoutMs
  let known = typeof given === 'string' ? null : given
  if (known) onProgress?.(known)
  let [unheld, blind, holdSeconds] = [0, 0, HOLD_SECONDS]
  while (!hasEnded(known)) {
    const askedAt = clock.now()
    const leftMs = end - askedAt
    if (leftMs <= 0)
      throw new RingbackClientError('wait_timeout', `${id} had not ended after ${timeoutMs} ms. It goes on: wait again, or cancel it.`)
    const seconds = Math.max(1, Math.min(holdSeconds, Math.ceil(leftMs / 1000)))
    const since: number | undefined = known?.revision
    let pauseMs = 0
    try {
      const { status, headers, body } = await send({
        method: 'GET',
        path: `${taskPath(id)}?wait=${seconds}`,
        // Without it the call is held until the task has ended; with it, until anything changes.
        headers: onProgress && since !== undefined ? { 'If-None-Match': `W/"${since}"` } : {},
        signal,
        repeatable: true,
        timeoutMs: Math.min(leftMs, seconds * 1000 + ANSWER_MS),
      })
      blind = 0
      if (status !== 304) known = body as Task
      const changed = known?.revision !== since
      if (changed && known) onProgress?.(known)
      const heldMs = clock.now() - askedAt
      const wasHeld = heldMs >= seconds * 500 || (changed && onProgress !== undefined)
      unheld = wasHeld ? 0 : unheld + 1
      if (!wasHeld) pauseMs = retryAfter(headers) ?? backOff(unheld + 1, clock)
      else if (onProgress) pauseMs = BETWEEN_REPORTS_MS - heldMs
    } catch (error) {
      signal?.throwIfAborted()
      if (!(error instanceof RingbackClientError) || !isWorthRepeating(error, true)) throw error
      const heldMs = clock.now() - askedAt
      if (heldMs < leftMs && ++blind >= MOST_BLIND_TRIES) throw error
      if (heldMs >= 1000) holdSeconds = Math.max(1, Math.floor(Math.min(seconds, heldMs / 1000) * 0.8))
      pauseMs = error.retryAfterSeconds === null ? backOff(blind, clock) : error.retryAfterSeconds * 1000
    }
    if (!hasEnded(known)) await pause(Math.min(pauseMs, end - clock.now()), signal)
  }
  return known as Task
}

const hasEnded = (task: Task | null): boolean => task !== null && task.status !== 'pending' && task.status !== 'running'

interface Calls {
  readonly clock: ClientClock
  /** One request and its answer. */
  send(ask: Ask): Promise<Answer>
  /** The same, sent again as long as that is safe and of use. */
  request(ask: Ask): Promise<Answer>
  pause(ms: number, signal: AbortSignal | undefined): Promise<void>
}

function createCalls({ url, key, userAgent, clock = platformClock, ...options }: ClientOptions): Calls {
  const base = baseOf(url)
  if (!/^[\x21-\x7e]+$/.test(key)) throw new TypeError('createClient needs key: an API key such as "rb_…", without blanks.')
  const take = options.fetch ?? ((target: string, init: RequestInit) => fetch(target, init))
  const pause = (ms: number, signal: AbortSignal | undefined): Promise<void> =>
    new Promise((resolve, reject) => {
      const abort = (): void => {
        disarm()
        reject(signal?.reason)
      }
      const disarm = clock.after(Math.max(0, Math.min(ms, LONGEST_TIMER)), () => {
        signal?.removeEventListener('abort', abort)
        resolve()
      })
      if (signal?.aborted) abort()
      else signal?.addEventListener('abort', abort, { once: true })
    })

  async function send({ method, path, body, headers, signal, timeoutMs = ANSWER_MS }: Ask): Promise<Answer> {
    signal?.throwIfAborted()
    const late = new AbortController()
    const disarm = clock.after(Math.min(timeoutMs, LONGEST_TIMER), () =>
      late.abort(new Error(`no answer within ${Math.round(timeoutMs)} ms`)),
    )
    const target = `${base}${path}`
    try {
      const response = await take(target, {
        method,
        headers: {
          Accept: 'application/json, application/problem+json',
          Authorization: `Bearer ${key}`,
          ...(userAgent !== undefined && { 'User-Agent': userAgent }),
          ...(body !== undefined && { 'Content-Type': 'application/json' }),
          ...headers,
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        redirect: 'manual',
        signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
      })
      return answerOf(response, await response.text(), `${method} ${target}`)
    } catch (cause) {
      if (cause instanceof RingbackClientError) throw cause
      signal?.throwIfAborted()
      const why = late.signal.aborted ? late.signal.reason : ((cause as Error).cause ?? cause)
      throw new RingbackClientError('no_answer', `${method} ${target} was not answered: ${(why as Error).message || why}.`, { cause })
    } finally {
      disarm()
    }
  }

  async function request(ask: Ask): Promise<Answer> {
    for (let tries = 1; ; tries++) {
      try {
        return await send(ask)
      } catch (error) {
        if (!(error instanceof RingbackClientError) || tries >= MOST_TRIES || !isWorthRepeating(error, ask.repeatable)) throw error
        await pause(error.retryAfterSeconds === null ? backOff(tries, clock) : error.retryAfterSeconds * 1000, ask.signal)
      }
    }
  }
  return { clock, send, request, pause }
}

/** A refusal for want of room or quota did nothing; after no answer, or a proxy's, nobody knows. */
function isWorthRepeating({ status }: RingbackClientError, repeatable: boolean): boolean {
  if (status === 429 || status === 503) return true
  return repeatable && (status === null || status === 408 || status === 502 || status === 504)
}

/** Before the n-th retry, from 1. */
function backOff(n: number, clock: ClientClock): number {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (n - 1)) * (0.75 + clock.random() / 4)
}

/** `Retry-After` in milliseconds, at most {@link LONGEST_PAUSE_MS}; a date counts from the server's own `Date`. */
function retryAfter(headers: Headers): number | null {
  const text = headers.get('retry-after')
  if (text === null) return null
  const ms = /^\d+$/.test(text.trim()) ? Number(text) * 1000 : Date.parse(text) - Date.parse(headers.get('date') ?? '')
  return Number.isNaN(ms) ? null : Math.max(0, Math.min(ms, LONGEST_PAUSE_MS))
}

function answerOf(response: Response, text: string, what: string): Answer {
  const { status, headers } = response
  const requestId = headers.get('x-request-id')
  let body: unknown
  try {
    body = text === '' ? undefined : JSON.parse(text)
  } catch {
    body = undefined
  }
  if (status === 304 || (response.ok && (body !== undefined || status === 204))) return { status, headers, body }
  const retryAfterMs = retryAfter(headers)
  const about = { status, requestId, retryAfterSeconds: retryAfterMs === null ? null : retryAfterMs / 1000 }
  const { code, detail, errors } = (body ?? {}) as { code?: unknown; detail?: unknown; errors?: unknown }
  if (!response.ok && typeof code === 'string' && typeof detail === 'string') {
    const faults = Array.isArray(errors) ? (errors as readonly Fault[]) : []
    const list = faults.map((fault) => `\n  ${fault.pointer} ${fault.detail}`).join('')
    throw new RingbackClientError(code as ErrorCode, `${detail}${faults.length > 1 ? list : ''}`, { ...about, errors: faults })
  }
  const redirect = headers.get('location')
  const mend = redirect === null ? '' : ` It was sent on to ${redirect}: give the client the URL where Ringback itself answers.`
  throw new RingbackClientError('unexpected_answer', `${what} was answered ${status}, and not by Ringback.${mend}`, about)
}

function baseOf(url: string | URL): string {
  const { protocol, origin, pathname, search, hash, username } = URL.canParse(String(url)) ? new URL(url) : new URL('none:')
  if (!/^https?:$/.test(protocol) || search !== '' || hash !== '' || username !== '')
    throw new TypeError(
      `createClient needs url: where Ringback is, such as "https://tasks.example.com", but it is ${JSON.stringify(String(url))}.`,
    )
  return origin + pathname.replace(/\/+$/, '')
}

const platformClock: ClientClock = {
  now: () => performance.now(),
  random: () => (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) / 2 ** 32,
  after(ms, wake) {
    const timer = setTimeout(wake, ms)
    return () => clearTimeout(timer)
  },
}
