/**
 * `ringback/client`: submits tasks and follows them, on any platform with `fetch`.
 *
 * Typed by the task types of the server: `createClient<typeof tasks>({ url, key })`. More in `docs/how-to/follow-a-task.md`.
 */
import type { NewEndpoint, TaskDocument as Task } from '../core/documents.ts'
import { createCalls } from './calls.ts'
import { TaskFailed } from './errors.ts'
import { createFollower, taskPath } from './follow.ts'
import type {
  AnyTask,
  CallOptions,
  ClientOptions,
  FollowOptions,
  Keyed,
  RingbackClient,
  SubmitOptions,
  TaskQuery,
  WaitOptions,
} from './types.ts'

export type { EndpointDocument as Endpoint, NewEndpoint, TaskDocument as Task, TaskStatus } from '../core/documents.ts'
export { RingbackClientError, TaskFailed } from './errors.ts'
export type {
  BatchItem,
  ClientClock,
  ClientOptions,
  Ended,
  FollowOptions,
  InputOf,
  ResultOf,
  RingbackClient as Client,
  SomeTask,
  SubmitOptions,
  TaskQuery,
  TypeName,
  WaitOptions,
} from './types.ts'

/** Sends nothing. Throws a TypeError for an invalid URL or key. */
export function createClient<const Types extends object = readonly AnyTask[]>(options: ClientOptions): RingbackClient<Types> {
  const calls = createCalls(options)
  const { request } = calls
  const read = async (path: string, { signal }: CallOptions = {}): Promise<unknown> =>
    (await request({ method: 'GET', path, signal, repeatable: true })).body
  const act = async (path: string, { signal }: CallOptions = {}, repeatable = false, body?: unknown): Promise<unknown> =>
    (await request({ method: 'POST', path, body, signal, repeatable })).body
  const add = async (path: string, body: unknown, { idempotencyKey = crypto.randomUUID(), signal }: Keyed): Promise<unknown> =>
    (await request({ method: 'POST', path, body, headers: { 'Idempotency-Key': idempotencyKey }, signal, repeatable: true })).body
  const erase = async (path: string, { signal }: CallOptions = {}): Promise<void> => {
    await request({ method: 'DELETE', path, signal, repeatable: false })
  }
  async function* pages(path: string, query: URLSearchParams, call: CallOptions): AsyncGenerator<unknown, void, undefined> {
    for (;;) {
      const { data, nextCursor } = (await read(`${path}?${query}`, call)) as { data: readonly unknown[]; nextCursor: string | null }
      yield* data
      if (nextCursor === null) return
      query.set('cursor', nextCursor)
    }
  }

  const submit = (type: string, input: unknown, { idempotencyKey, signal, ...settings }: SubmitOptions = {}): Promise<unknown> =>
    add('/v1/tasks', { type, input, ...settings }, { idempotencyKey, signal })
  const follower = createFollower(calls)
  const wait = (task: Task | string, waiting: WaitOptions = {}): Promise<Task> => follower.wait(task, waiting)
  const result = async (task: Task, call?: CallOptions): Promise<unknown> => {
    if (task.status === 'failed' || task.status === 'canceled') throw new TaskFailed(task)
    if (task.status === 'completed' && task.resultUrl === null) return task.result
    // The resource of `resultUrl`, but under `url`: the key is sent nowhere else.
    return read(taskPath(task.id, '/result'), call)
  }
  const client = {
    submit,
    async submitBatch(tasks: readonly unknown[], keyed: Keyed = {}) {
      const { id, data } = (await add('/v1/tasks/batch', { tasks }, keyed)) as { id: string; data: readonly Task[] }
      return { id, tasks: data }
    },
    get: (id: string, call?: CallOptions) => read(taskPath(id), call),
    wait,
    follow: (task: Task | string, following: FollowOptions = {}) => follower.follow(task, following),
    result,
    async run(type: string, input: unknown, { timeoutMs, onProgress, ...options }: SubmitOptions & WaitOptions = {}) {
      const task = (await submit(type, input, options)) as Task
      return result(await wait(task, { timeoutMs, onProgress, signal: options.signal }), options)
    },
    cancel: (id: string, call?: CallOptions) => act(taskPath(id, '/cancel'), call, true),
    retry: (id: string, call?: CallOptions) => act(taskPath(id, '/retry'), call),
    delete: (id: string, call?: CallOptions) => erase(taskPath(id), call),
    list: ({ signal, ...query }: TaskQuery = {}) => pages('/v1/tasks', taskQuery(query), { signal }),
    endpoints: {
      create: (endpoint: NewEndpoint, call?: CallOptions) => act('/v1/endpoints', call, false, endpoint),
      get: (id: string, call?: CallOptions) => read(`/v1/endpoints/${encodeURIComponent(id)}`, call),
      list: (call: CallOptions = {}) => pages('/v1/endpoints', new URLSearchParams(), call),
      delete: (id: string, call?: CallOptions) => erase(`/v1/endpoints/${encodeURIComponent(id)}`, call),
    },
  }
  // Responses are typed by the contract of the API and not checked here.
  return client as unknown as RingbackClient<Types>
}

function taskQuery({ status, metadata = {}, pageSize, ...rest }: Omit<TaskQuery, 'signal'>): URLSearchParams {
  const query = new URLSearchParams()
  if (status !== undefined) query.set('status', [status].flat().join(','))
  for (const [key, value] of Object.entries(metadata)) query.set(`metadata[${key}]`, value)
  if (pageSize !== undefined) query.set('limit', String(pageSize))
  for (const [name, value] of Object.entries(rest))
    if (value !== undefined) query.set(name, value instanceof Date ? value.toISOString() : value)
  return query
}
