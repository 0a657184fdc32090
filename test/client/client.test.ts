import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import type { IncomingMessage, Server } from 'node:http'
import { stripTypeScriptTypes } from 'node:module'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createAdaptorServer } from '@hono/node-server'
import { afterAll, afterEach, beforeAll, describe, expect, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import {
  type Client,
  type ClientClock,
  createClient,
  type Endpoint,
  type NewEndpoint,
  RingbackClientError,
  type SubmitOptions,
  type Task,
  TaskFailed,
  type TypeName,
} from '../../src/client/index.ts'
import type * as endpointShapes from '../../src/http/shapes/endpoints.ts'
import type * as taskShapes from '../../src/http/shapes/tasks.ts'
import { createRingback, defineTask, Permanent, type Ringback } from '../../src/index.ts'
import { freshSqlite } from '../support/databases.ts'

/** Runs that wait until a test lets them go on. */
const held = new Map<string, PromiseWithResolvers<void>>()
const hold = (name: string): PromiseWithResolvers<void> => {
  const gate = held.get(name) ?? Promise.withResolvers<void>()
  held.set(name, gate)
  return gate
}

const tasks = {
  echo: defineTask({ type: 'test.echo', run: (input) => input }),
  double: defineTask({
    type: 'test.double',
    input: z.strictObject({ n: z.number() }),
    result: z.object({ doubled: z.number() }),
    run: ({ n }) => ({ doubled: n * 2 }),
  }),
  gate: defineTask({
    type: 'test.gate',
    input: z.strictObject({ name: z.string() }),
    result: z.string(),
    async run({ name }, { signal, progress }) {
      progress(10, 'at the gate')
      await Promise.race([hold(name).promise, once(signal, 'abort')])
      signal.throwIfAborted()
      return `through ${name}`
    },
  }),
  steps: defineTask({
    type: 'test.steps',
    input: z.strictObject({ steps: z.int() }),
    result: z.int(),
    async run({ steps }, { progress }) {
      for (let step = 1; step <= steps; step++) {
        progress((step / steps) * 100, `step ${step}`)
        await hold(`step ${step}`).promise
      }
      return steps
    },
  }),
  refuse: defineTask({
    type: 'test.refuse',
    input: z.strictObject({ code: z.string() }),
    result: z.null(),
    run({ code }) {
      throw new Permanent('the handler would not', { code })
    },
  }),
  large: defineTask({
    type: 'test.large',
    input: z.strictObject({ characters: z.int() }),
    result: z.string(),
    run: ({ characters }) => 'x'.repeat(characters),
  }),
}

/** What stands between the client and the server in a test: it may answer itself, or forward, or cut the connection. */
type Fault = (way: { request: Request; forward(request?: Request): Promise<Response>; cut(): void }) => Promise<Response>

interface Seen {
  readonly method: string
  readonly path: string
  readonly headers: Headers
}

let ringback: Ringback
let server: Server
let url: string
let key: string
const database = freshSqlite()
const faults: Fault[] = []
/** Taken by every request that finds no fault of its own. */
let always: Fault | null = null
const seen: Seen[] = []

/** The pauses that were made, in seconds. */
const pauses: number[] = []
/** Pauses are cut short, and noted; deadlines (20 s for an answer, 45 s for a held call) are left as they are. */
const impatient: ClientClock = {
  now: () => performance.now(),
  random: () => 0.5,
  after(ms, wake) {
    const isPause = ms <= 30_000 && ms !== 20_000
    const pass = (): void => {
      if (isPause) pauses.push(ms / 1000)
      wake()
    }
    const timer = setTimeout(pass, isPause ? ms / 200 : ms)
    return () => clearTimeout(timer)
  },
}

beforeAll(async () => {
  const adminToken = 'the-operator-of-this-test'
  ringback = await createRingback({
    tasks: Object.values(tasks),
    databaseUrl: database.url,
    adminToken,
    masterKey: Buffer.alloc(32, 1).toString('base64'),
    // Where nothing answers: the client goes by its own way.
    publicUrl: 'http://tasks.example.com/ringback',
    logLevel: 'silent',
  })
  await ringback.start()
  server = createAdaptorServer({
    async fetch(request, env) {
      const { incoming } = env as { incoming: IncomingMessage }
      const { pathname, search } = new URL(request.url)
      seen.push({ method: request.method, path: pathname + search, headers: new Headers(request.headers) })
      const fault = faults.shift() ?? always
      const forward = async (changed = request): Promise<Response> => ringback.app.fetch(changed)
      return fault ? fault({ request, forward, cut: () => incoming.socket.destroy() }) : forward()
    },
  }) as Server
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const operate = async (path: string, body: object): Promise<Record<string, string>> => {
    const headers = { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' }
    return (await (await fetch(`${url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })).json()) as Record<string, string>
  }
  const { id } = await operate('/v1/clients', { name: 'test' })
  key = (await operate(`/v1/clients/${id}/keys`, {})).key!
})
afterAll(async () => {
  server?.closeAllConnections()
  server?.close()
  await ringback?.stop()
  database.remove()
})
afterEach(() => {
  expect(faults).toEqual([])
  always = null
  seen.length = 0
  pauses.length = 0
})

const client = (clock?: ClientClock): Client<typeof tasks> => createClient<typeof tasks>({ url, key, ...(clock && { clock }) })
const answer = (status: number, body: string | object = '', headers: Record<string, string> = {}): Fault => {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  return async () => new Response(text, { status, headers: { 'content-type': 'application/problem+json', ...headers } })
}
const cut: Fault = async ({ cut }) => {
  cut()
  return new Response()
}
/** The server did it, and nobody hears of it. */
const cutAfterwards: Fault = async ({ forward, cut }) => {
  await forward()
  cut()
  return new Response()
}
const all = async <T>(items: AsyncIterable<T>): Promise<T[]> => {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}
const failure = async (promise: Promise<unknown>): Promise<RingbackClientError> => {
  const error = await promise.then(
    () => null,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof RingbackClientError)) throw error ?? new Error('nothing was thrown')
  return error
}
const refusal = { code: 'temporary_reduced_capacity', detail: 'There is no room.' }

describe('the client', () => {
  test('submits a task, waits for it and gets its result', async () => {
    const task = await client().submit('test.double', { n: 21 }, { metadata: { orderId: 'A-17' }, maxTries: 2 })
    expect(task).toMatchObject({ type: 'test.double', input: { n: 21 }, metadata: { orderId: 'A-17' }, maxTries: 2 })
    const ended = await client().wait(task)
    expect(ended).toMatchObject({ id: task.id, status: 'completed', progress: 100 })
    expect(await client().result(ended)).toEqual({ doubled: 42 })
    expect(await client().get(task.id)).toEqual(ended)
  })

  test('runs: submits, waits and gets the result in one call', async () => {
    expect(await client().run('test.double', { n: 4 })).toEqual({ doubled: 8 })
    expect(await client().run('test.echo', null)).toBeNull()
  })

  test('fetches a result over 64 KiB separately', async () => {
    expect(await client().run('test.large', { characters: 70_000 })).toBe('x'.repeat(70_000))
  })

  test('throws TaskFailed for a task that ended without a result', async () => {
    const failed = await client()
      .run('test.refuse', { code: 'no_such_month' })
      .catch((error: unknown) => error)
    expect(failed).toBeInstanceOf(TaskFailed)
    const { task, message } = failed as TaskFailed
    expect(task).toMatchObject({ status: 'failed', error: { code: 'no_such_month' } })
    expect(message).toBe(`${task.id} (test.refuse) failed: no_such_month: the handler would not`)
  })

  test('cancels a run, retries it as a new generation, and deletes it', async () => {
    const task = await client().submit('test.gate', { name: 'cancel' })
    const running = await client().wait(task, {
      timeoutMs: 30_000,
      onProgress: ({ status }) => status === 'running' && void client().cancel(task.id),
    })
    expect(running.status).toBe('canceled')
    await expect(client().result(running)).rejects.toThrow(/test\.gate\) was canceled$/)
    expect(await client().retry(task.id)).toMatchObject({ id: task.id, generation: 2 })
    hold('cancel').resolve()
    expect(await client().wait(task.id)).toMatchObject({ generation: 2, status: 'completed', result: 'through cancel' })
    await client().delete(task.id)
    expect(await failure(client().get(task.id))).toMatchObject({ status: 410, code: 'task_expired' })
  })

  test('submits a batch, and lists it page by page', async () => {
    const { id, tasks: submitted } = await client().submitBatch([
      { type: 'test.double', input: { n: 1 }, metadata: { part: 'first' } },
      { type: 'test.echo', input: 'two' },
      { type: 'test.double', input: { n: 3 }, runAt: new Date(Date.now() + 3_600_000) },
    ])
    seen.length = 0
    const listed = await all(client().list({ batchId: id, order: 'asc', pageSize: 2 }))
    expect(listed.map((task) => task.id).sort()).toEqual(submitted.map((task) => task.id).sort())
    expect(seen).toHaveLength(2)
    const part = await all(client().list({ batchId: id, metadata: { part: 'first' } }))
    expect(part.map((task) => task.id)).toEqual([submitted[0]!.id])
    const waiting = await all(client().list({ batchId: id, status: ['pending', 'running'], createdAfter: new Date(0) }))
    expect(waiting.map((task) => task.id)).toContain(submitted[2]!.id)
  })

  test('registers callback URLs, lists them and deletes them', async () => {
    const { endpoints } = client()
    const created = await endpoints.create({ url: 'http://127.0.0.1:9999/hooks', taskTypes: ['test.double'], maxInFlight: 3 })
    expect(created).toMatchObject({
      status: 'active',
      taskTypes: ['test.double'],
      maxInFlight: 3,
      secret: expect.stringMatching(/^whsec_/),
    })
    expect(await endpoints.get(created.id)).toEqual({ ...created, secret: null })
    expect((await all(endpoints.list())).map(({ id }) => id)).toContain(created.id)
    await endpoints.delete(created.id)
    expect(await failure(endpoints.get(created.id))).toMatchObject({ status: 404, code: 'not_found' })
  })

  test('reaches a platform in its own process without a socket', async () => {
    const inside = createClient<typeof tasks>({
      url: 'http://ringback.inside',
      key,
      fetch: async (url, init) => ringback.app.fetch(new Request(url, init)),
    })
    expect(await inside.run('test.double', { n: 5 })).toEqual({ doubled: 10 })
    expect(seen).toEqual([])
  })

  test('sends its user agent', async () => {
    await createClient({ url: `${url}/`, key, userAgent: 'reports/2' }).submit('test.echo', 1)
    expect(seen[0]).toMatchObject({ method: 'POST', path: '/v1/tasks' })
    expect(seen[0]!.headers.get('user-agent')).toBe('reports/2')
    expect(seen[0]!.headers.get('authorization')).toBe(`Bearer ${key}`)
  })

  test.each([
    ['', 'rb_key', 'needs url'],
    ['tasks.example.com', 'rb_key', 'but it is "tasks.example.com"'],
    ['https://tasks.example.com/?key=1', 'rb_key', 'needs url'],
    ['ftp://tasks.example.com', 'rb_key', 'needs url'],
    ['https://tasks.example.com', '', 'needs key'],
    ['https://tasks.example.com', 'rb_key\n', 'needs key'],
  ])('is not created with the URL %j and the key %j', (url, key, why) => {
    expect(() => createClient({ url, key })).toThrow(TypeError)
    expect(() => createClient({ url, key })).toThrow(why)
  })

  test('imports nothing at run time but a parser of streams', () => {
    const folder = new URL('../../src/client/', import.meta.url)
    for (const file of readdirSync(folder).map((name) => new URL(name, folder))) {
      const source = stripTypeScriptTypes(readFileSync(file, 'utf8'))
      const imports = [...source.matchAll(/^\s*(?:import|export)\b[^'\n]*'([^']+)'/gm)].map(([, name]) => name!)
      for (const name of imports) expect(name).toMatch(/^(\.\/\w+\.ts|eventsource-parser)$/)
      expect(source).not.toMatch(/\brequire\(|\bimport\(|\bBuffer\b|\bprocess\b/)
    }
  })
})

describe('an error of the server', () => {
  test('has its code, its status, its request id and a pointer to each fault', async () => {
    // @ts-expect-error the input has no such member, and lacks one
    const error = await failure(client().submit('test.double', { m: 1 }))
    expect(error).toMatchObject({ status: 422, code: 'validation_failed', requestId: expect.stringMatching(/^request_/) })
    expect(error.errors.map(({ pointer }) => pointer).sort()).toEqual(['#/input', '#/input/n'])
    for (const { pointer } of error.errors) expect(error.message).toContain(pointer)
    expect(seen).toHaveLength(1)
  })

  test('is distinguished from the answer of a proxy', async () => {
    faults.push(
      answer(200, '<h1>Sign in</h1>', { 'content-type': 'text/html' }),
      answer(301, '', { location: 'https://elsewhere.example/v1/tasks/1' }),
    )
    expect(await failure(client().get('task_1'))).toMatchObject({ code: 'unexpected_answer', status: 200 })
    const error = await failure(client().get('task_1'))
    expect(error).toMatchObject({ code: 'unexpected_answer', status: 301 })
    expect(error.message).toContain('https://elsewhere.example/v1/tasks/1')
  })

  test('is not retried when a retry cannot help', async () => {
    faults.push(answer(500, { code: 'internal', detail: 'Something went wrong here.' }))
    expect(await failure(client(impatient).submit('test.echo', 1))).toMatchObject({ status: 500, code: 'internal' })
    expect(seen).toHaveLength(1)
  })
})

describe('a request that fails', () => {
  test('after it took effect is sent again under the same key, and makes one task', async () => {
    faults.push(cutAfterwards, cutAfterwards)
    const task = await client(impatient).submit('test.echo', 'once', { metadata: { only: 'one' } })
    expect(seen).toHaveLength(3)
    expect(new Set(seen.map(({ headers }) => headers.get('idempotency-key')))).toHaveProperty('size', 1)
    const there = await all(client().list({ metadata: { only: 'one' } }))
    expect(there.map(({ id }) => id)).toEqual([task.id])
  })

  test('is sent under a new key for each call, or under the given one', async () => {
    const twice = [await client().submit('test.echo', 1), await client().submit('test.echo', 1)]
    expect(twice[0]!.id).not.toBe(twice[1]!.id)
    const keyed = [
      await client().submit('test.echo', 1, { idempotencyKey: 'order-17' }),
      await client().submit('test.echo', 1, { idempotencyKey: 'order-17' }),
    ]
    expect(keyed[0]!.id).toBe(keyed[1]!.id)
  })

  test('for lack of capacity waits as long as the server says', async () => {
    faults.push(answer(503, refusal, { 'retry-after': '7' }), answer(429, { ...refusal, code: 'quota_exceeded' }, { 'retry-after': '3' }))
    await client(impatient).submit('test.echo', 1)
    expect(pauses).toEqual([7, 3])
  })

  test('fails after five tries with growing pauses, with the last error', async () => {
    faults.push(...Array<Fault>(5).fill(answer(503, refusal)))
    expect(await failure(client(impatient).submit('test.echo', 1))).toMatchObject({ status: 503, message: 'There is no room.' })
    expect(seen).toHaveLength(5)
    expect(pauses).toEqual([1, 2, 4, 8].map((times) => 0.25 * times * 0.875))
  })

  test('is not sent again when it could take effect twice: creating a callback URL, retrying a task', async () => {
    faults.push(cut, cut)
    expect(await failure(client(impatient).endpoints.create({ url: 'http://127.0.0.1:9999/once' }))).toMatchObject({
      code: 'no_answer',
      status: null,
    })
    expect(await failure(client(impatient).retry('task_1'))).toMatchObject({ code: 'no_answer' })
    expect(seen).toHaveLength(2)
  })

  test('stops being sent when its signal is aborted, with the reason', async () => {
    const reason = new Error('enough')
    const abort = new AbortController()
    always = answer(503, refusal, { 'retry-after': '30' })
    const submitting = client().submit('test.echo', 1, { signal: abort.signal })
    while (seen.length === 0) await sleep(5)
    abort.abort(reason)
    await expect(submitting).rejects.toBe(reason)
    await expect(client().get('task_1', { signal: abort.signal })).rejects.toBe(reason)
    expect(seen).toHaveLength(1)
  })

  test('names the URL that could not be reached', async () => {
    const unreachable = createClient({ url: 'http://127.0.0.1:1', key, clock: impatient })
    const error = await failure(unreachable.get('task_1'))
    expect(error).toMatchObject({ code: 'no_answer', status: null })
    expect(error.message).toMatch(/^GET http:\/\/127\.0\.0\.1:1\/v1\/tasks\/task_1 was not answered: /)
  })
})

describe('a wait', () => {
  test('is one call, held until the task has ended', async () => {
    const task = await client().submit('test.gate', { name: 'held' })
    seen.length = 0
    const waiting = client().wait(task.id)
    while (seen.length === 0) await sleep(5)
    await sleep(100)
    hold('held').resolve()
    expect(await waiting).toMatchObject({ status: 'completed', result: 'through held' })
    expect(seen.map(({ path }) => path)).toEqual([`/v1/tasks/${task.id}?wait=25`])
  })

  test('sends nothing for a task that has ended', async () => {
    const ended = await client().wait(await client().submit('test.echo', 1))
    seen.length = 0
    expect(await client().wait(ended)).toBe(ended)
    expect(seen).toEqual([])
  })

  test('reports progress on arrival, each revision once, and the end', async () => {
    const told: Task[] = []
    const onProgress = (task: Task): void => {
      told.push(task)
      if (task.progressMessage !== null) hold(task.progressMessage).resolve()
    }
    expect(await client().run('test.steps', { steps: 4 }, { onProgress })).toBe(4)
    for (const [index, task] of told.entries()) if (index > 0) expect(task.revision).toBeGreaterThan(told[index - 1]!.revision)
    const messages = told.map(({ progressMessage }) => progressMessage)
    expect(messages).toEqual(expect.arrayContaining(['step 1', 'step 2', 'step 3', 'step 4']))
    expect(told.at(-1)).toMatchObject({ status: 'completed', progress: 100 })
  })

  test('polls as often as the server says when calls are not held', async () => {
    const task = await client().submit('test.gate', { name: 'unheld' })
    seen.length = 0
    always = async ({ request, forward }) => {
      if (seen.length === 4) hold('unheld').resolve()
      const response = await forward(new Request(request.url.replace(/\?.*/, ''), request))
      const headers = new Headers(response.headers)
      if (headers.has('retry-after')) headers.set('retry-after', '2')
      return new Response(await response.text(), { status: response.status, headers })
    }
    expect(await client(impatient).wait(task)).toMatchObject({ status: 'completed' })
    expect(pauses.slice(0, 3)).toEqual([2, 2, 2])
  })

  test('polls with growing pauses without Retry-After', async () => {
    const task = await client().submit('test.gate', { name: 'silent' })
    seen.length = 0
    always = async ({ request, forward }) => {
      if (seen.length === 5) hold('silent').resolve()
      const response = await forward(new Request(request.url.replace(/\?.*/, ''), request))
      return new Response(await response.text(), { status: response.status })
    }
    expect(await client(impatient).wait(task)).toMatchObject({ status: 'completed' })
    expect(pauses.slice(0, 4)).toEqual([2, 4, 8, 16].map((times) => 0.25 * times * 0.875))
  })

  test('asks for shorter calls when a proxy cuts long ones', async () => {
    const task = await client().submit('test.gate', { name: 'proxy' })
    seen.length = 0
    const timesOut: Fault = async () => {
      await sleep(300)
      return new Response('<h1>Gateway timeout</h1>', { status: 504 })
    }
    faults.push(timesOut)
    const waiting = client({ ...impatient, now: () => performance.now() * 20 }).wait(task)
    while (seen.length < 2) await sleep(5)
    hold('proxy').resolve()
    expect(await waiting).toMatchObject({ status: 'completed' })
    const asked = seen.map(({ path }) => Number(/wait=(\d+)/.exec(path)?.[1]))
    expect(asked[0]).toBe(25)
    // It was cut after six seconds by its clock, or a little later; it asks for a fifth less.
    expect(asked[1]).toBeGreaterThanOrEqual(4)
    expect(asked[1]).toBeLessThanOrEqual(20)
  })

  test('survives a short outage of the server, and gives up on a long one', async () => {
    const task = await client().submit('test.gate', { name: 'away' })
    seen.length = 0
    faults.push(...Array<Fault>(8).fill(cut))
    hold('away').resolve()
    expect(await client(impatient).wait(task)).toMatchObject({ status: 'completed' })
    expect(seen).toHaveLength(9)
    faults.push(...Array<Fault>(12).fill(cut))
    expect(await failure(client(impatient).wait(task.id))).toMatchObject({ code: 'no_answer', status: null })
  })

  test('ends at its time limit or when its signal aborts; the task continues', async () => {
    const task = await client().submit('test.gate', { name: 'late' })
    const begun = performance.now()
    const error = await failure(client().wait(task, { timeoutMs: 300 }))
    expect(performance.now() - begun).toBeLessThan(10_000)
    expect(error).toMatchObject({ code: 'wait_timeout', status: null })
    expect(error.message).toContain(`${task.id} had not ended after 300 ms`)
    const abort = new AbortController()
    const waiting = client().wait(task, { signal: abort.signal })
    abort.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    hold('late').resolve()
    expect(await client().wait(task)).toMatchObject({ status: 'completed' })
  })

  test('for a missing task ends at once', async () => {
    expect(await failure(client().wait('task_01jd7z3m0q8y3t6w9k2v5n4r1b'))).toMatchObject({ status: 404, code: 'not_found' })
    expect(seen).toHaveLength(1)
  })
})

describe('types', () => {
  const typed = (): Client<typeof tasks> => client()
  test('input and result of a task type are known from its definition', () => {
    expectTypeOf(typed().submit<'test.double'>)
      .parameter(1)
      .toEqualTypeOf<{ n: number }>()
    expectTypeOf(typed().run<'test.double'>).returns.resolves.toEqualTypeOf<{ doubled: number }>()
    expectTypeOf(typed().submit<'test.gate'>).returns.resolves.toEqualTypeOf<Task<'test.gate', { name: string }, string>>()
    expectTypeOf(typed().run<'test.echo'>).returns.resolves.toEqualTypeOf<unknown>()
    expectTypeOf(typed().submit)
      .parameter(0)
      .toEqualTypeOf<'test.echo' | 'test.double' | 'test.gate' | 'test.steps' | 'test.refuse' | 'test.large'>()
    // @ts-expect-error there is no such type
    void (() => typed().submit('test.triple', { n: 1 }))
    // @ts-expect-error its input is another
    void (() => typed().run('test.double', { n: '1' }))
    // @ts-expect-error an item of a batch is checked too
    void (() => typed().submitBatch([{ type: 'test.double', input: { name: 'x' } }]))
  })

  test('a task keeps its type, and its name narrows it', () => {
    const follow = async (): Promise<void> => {
      const ended = await typed().wait(await typed().submit('test.double', { n: 1 }))
      expectTypeOf(ended.status).toEqualTypeOf<'completed' | 'failed' | 'canceled'>()
      expectTypeOf(ended.result).toEqualTypeOf<{ doubled: number } | null>()
      expectTypeOf(await typed().result(ended)).toEqualTypeOf<{ doubled: number }>()
      const any = await typed().get('task_1')
      if (any.type === 'test.gate') expectTypeOf(any.input).toEqualTypeOf<{ name: string } | null>()
    }
    void follow
  })

  test('a list of task types types a client as a record of them does', () => {
    const list = [tasks.double, tasks.gate]
    expectTypeOf<TypeName<typeof list>>().toEqualTypeOf<'test.double' | 'test.gate'>()
    const byList = createClient<typeof list>({ url: 'https://tasks.example.com', key: 'rb_key' })
    expectTypeOf(byList.run<'test.double'>).returns.resolves.toEqualTypeOf<{ doubled: number }>()
  })

  test('without task types every name and every input is accepted', () => {
    const untyped = createClient({ url: 'https://tasks.example.com', key: 'rb_key' })
    expectTypeOf(untyped.submit).parameter(0).toEqualTypeOf<string>()
    expectTypeOf(untyped.run<'any.type'>)
      .parameter(1)
      .toEqualTypeOf<unknown>()
    expectTypeOf(untyped.submit<'any.type'>).returns.resolves.toEqualTypeOf<Task<'any.type', unknown, unknown>>()
  })

  test('are those of the API', () => {
    expectTypeOf<z.output<typeof taskShapes.task>>().toExtend<Task>()
    expectTypeOf<keyof Task>().toEqualTypeOf<keyof z.output<typeof taskShapes.task>>()
    expectTypeOf<z.output<typeof endpointShapes.endpoint>>().toExtend<Endpoint>()
    expectTypeOf<keyof Endpoint>().toEqualTypeOf<keyof z.output<typeof endpointShapes.endpoint>>()
    expectTypeOf<keyof NewEndpoint>().toEqualTypeOf<keyof z.output<typeof endpointShapes.createEndpoint>>()
    expectTypeOf<Exclude<keyof SubmitOptions, 'signal' | 'idempotencyKey'> | 'type' | 'input'>().toEqualTypeOf<
      keyof z.output<typeof taskShapes.createTask>
    >()
  })
})
