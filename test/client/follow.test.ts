/** Following a task: through what lets streams be, and through what does not. Real sockets all the way. */
import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { createAdaptorServer } from '@hono/node-server'
import { afterAll, beforeAll, describe, expect, expectTypeOf, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { type Client, type ClientClock, createClient, RingbackClientError, type Task } from '../../src/client/index.ts'
import { createRingback, defineTask, type Ringback } from '../../src/index.ts'
import { freshSqlite } from '../support/databases.ts'
import { startProxy, type TestProxy, type Way } from '../support/proxy.ts'

const gates = new Map<string, PromiseWithResolvers<void>>()
const gate = (name: string): PromiseWithResolvers<void> => {
  const known = gates.get(name) ?? Promise.withResolvers<void>()
  gates.set(name, known)
  return known
}
const tasks = {
  steps: defineTask({
    type: 'follow.steps',
    description: 'Reports each step, and goes on when it is let.',
    input: z.strictObject({ name: z.string(), steps: z.int() }),
    result: z.string(),
    async run({ name, steps }, { progress, signal }) {
      for (let step = 1; step <= steps; step++) {
        progress((step / (steps + 1)) * 100, `step ${step}`)
        await Promise.race([gate(`${name} ${step}`).promise, once(signal, 'abort')])
        signal.throwIfAborted()
      }
      return `${name} is done`
    },
  }),
}

let ringback: Ringback
let server: Server
let url: string
let key: string
const database = freshSqlite()

beforeAll(async () => {
  const adminToken = 'the-operator-of-this-test'
  ringback = await createRingback({ tasks: [tasks.steps], databaseUrl: database.url, adminToken, logLevel: 'silent', shutdownSeconds: 0 })
  await ringback.start()
  server = createAdaptorServer({ fetch: ringback.app.fetch }) as Server
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const operate = async (path: string, body: object): Promise<Record<string, string>> => {
    const headers = { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' }
    return (await (await fetch(`${url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })).json()) as Record<string, string>
  }
  const { id } = await operate('/v1/clients', { name: 'follow' })
  key = (await operate(`/v1/clients/${id}/keys`, {})).key!
})
afterAll(async () => {
  for (const { resolve } of gates.values()) resolve()
  server?.closeAllConnections()
  server?.close()
  await ringback?.stop()
  database.remove()
})

/** Of whoever has no time to wait for proxies: all its time goes twenty times as fast. */
const hasty: ClientClock = {
  now: () => performance.now() * 20,
  random: () => 0.5,
  after(ms, wake) {
    const timer = setTimeout(wake, ms / 20)
    return () => clearTimeout(timer)
  },
}
const through = async (treat: (way: Way) => void | Promise<void>): Promise<TestProxy> => {
  const proxy = await startProxy(url, treat)
  onTestFinished(() => proxy.close())
  return proxy
}
const clientOf = (at: { readonly url: string }, clock = hasty): Client<typeof tasks> =>
  createClient<typeof tasks>({ url: at.url, key, clock })
/** For what must come in time, however busy the machine is. */
const patientClientOf = (at: { readonly url: string }): Client<typeof tasks> => createClient<typeof tasks>({ url: at.url, key })
const submit = (name: string, steps: number) => clientOf({ url }).submit('follow.steps', { name, steps })
const isStream = ({ request }: Way): boolean => request.url!.endsWith('/events')
const pass = async (way: Way): Promise<void> => way.pass(await way.forward())
const sayNo = (way: Way, status: number, headers: Record<string, string> = {}): void =>
  void way.response.writeHead(status, { 'content-type': 'text/html', ...headers }).end(`<h1>${status}</h1>`)
/** What the requests were for, each kind once in a row. */
const waysOf = ({ seen }: TestProxy): string[] =>
  seen
    .filter((line) => line.startsWith('GET'))
    .map((line) => (/\/events/.test(line) ? 'stream' : /wait=/.test(line) ? 'long-poll' : 'poll'))
    .filter((way, index, all) => way !== all[index - 1])

/** Follows to the end, letting each step go on when it has been seen; answers every revision. */
async function followed(client: Client<typeof tasks>, task: Task): Promise<readonly Task[]> {
  const found: Task[] = []
  const { name } = task.input as { name: string }
  for await (const seen of client.follow(task)) {
    found.push(seen)
    if (seen.progressMessage !== null) gate(seen.progressMessage.replace('step', name)).resolve()
  }
  return found
}
const complete = (found: readonly Task[], name: string): void => {
  for (const [index, task] of found.entries()) if (index > 0) expect(task.revision).toBeGreaterThan(found[index - 1]!.revision)
  expect(found.at(-1)).toMatchObject({ status: 'completed', result: `${name} is done`, progress: 100 })
  expect(found.filter(({ status }) => status === 'completed')).toHaveLength(1)
}

describe('a task is followed', () => {
  test('by one stream when it comes through: each revision once, in order, the end last', async () => {
    const proxy = await through(pass)
    const found = await followed(patientClientOf(proxy), await submit('plain', 3))
    complete(found, 'plain')
    expect(found.map(({ progressMessage }) => progressMessage)).toEqual(expect.arrayContaining(['step 1', 'step 2', 'step 3']))
    expect(proxy.seen).toEqual([`GET /v1/tasks/${found[0]!.id}/events`])
  })

  test('by streams that are cut early: each continues after the last revision that was seen', async () => {
    const proxy = await through(async (way) => {
      setTimeout(() => way.response.destroy(), 100)
      await pass(way)
    })
    const task = await submit('cut', 2)
    const client = patientClientOf(proxy)
    const found: Task[] = []
    for await (const seen of client.follow(task)) {
      found.push(seen)
      // Only a stream that is not the one that told of the step sees it end.
      if (seen.progressMessage === 'step 1') setTimeout(() => gate('cut 1').resolve(), 150)
      if (seen.progressMessage === 'step 2') gate('cut 2').resolve()
    }
    complete(found, 'cut')
    const streams = proxy.seen.filter((line) => line.includes('/events'))
    expect(streams.length).toBeGreaterThan(1)
    expect(streams[0]).toBe(`GET /v1/tasks/${task.id}/events`)
    const revisions = found.map(({ revision }) => String(revision))
    for (const line of streams.slice(1)) expect(revisions).toContain(line.split(' ')[2])
  })

  test('by long-polls when a proxy buffers a stream until it ends', async () => {
    const proxy = await through(async (way) => {
      const answer = await way.forward()
      const body = await buffer(answer)
      way.response.writeHead(answer.statusCode!, answer.headers).end(body)
    })
    complete(await followed(clientOf(proxy), await submit('buffered', 2)), 'buffered')
    expect(waysOf(proxy)).toEqual(['stream', 'long-poll'])
    expect(proxy.seen.filter((line) => line.includes('/events'))).toHaveLength(1)
  })

  test('by long-polls when only headers arrive', async () => {
    const proxy = await through(async (way) => {
      if (!isStream(way)) return pass(way)
      way.response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    })
    const client = clientOf(proxy)
    complete(await followed(client, await submit('mute', 1)), 'mute')
    expect(waysOf(proxy)).toEqual(['stream', 'long-poll'])
    proxy.seen.length = 0
    complete(await followed(client, await submit('mute again', 1)), 'mute again')
    // What did not come through a moment ago is not waited for anew.
    expect(waysOf(proxy)).toEqual(['long-poll'])
  })

  test.each<[string, (way: Way) => void | Promise<void>]>([
    ['404', (way) => sayNo(way, 404)],
    ['405', (way) => sayNo(way, 405)],
    ['a page that says 200', (way) => sayNo(way, 200)],
    [
      'a list, since what it accepts was not handed on',
      async (way) => way.pass(await way.forward({ headers: { accept: 'application/json' } })),
    ],
    [
      'that there are too many streams',
      (way) =>
        void way.response
          .writeHead(429, { 'content-type': 'application/problem+json', 'retry-after': '10' })
          .end('{"code":"quota_exceeded","detail":"You have 1000 streams open here, as many as there may be."}'),
    ],
  ])('by long-polls when a stream is answered with %s', async (name, refuse) => {
    const proxy = await through((way) => (isStream(way) ? refuse(way) : pass(way)))
    complete(await followed(clientOf(proxy), await submit(name, 2)), name)
    expect(waysOf(proxy)).toEqual(['stream', 'long-poll'])
    expect(proxy.seen.filter((line) => line.includes('/events'))).toHaveLength(1)
  })

  test.each<[string, (way: Way) => void | Promise<void>]>([
    ['refused', (way) => sayNo(way, 405)],
    ['cut', (way) => void setTimeout(() => way.response.destroy(), 80)],
    ['answered by 504', (way) => void setTimeout(() => sayNo(way, 504), 80)],
  ])('by polling, as often as Retry-After says, when held calls are %s', async (name, treat) => {
    const proxy = await through(async (way) => {
      if (isStream(way)) return sayNo(way, 404)
      if (/wait=/.test(way.request.url!)) return treat(way)
      const answer = await way.forward()
      if (answer.headers['retry-after'] !== undefined) answer.headers['retry-after'] = '2'
      way.pass(answer)
    })
    const pauses: number[] = []
    const noting: ClientClock = {
      ...hasty,
      after: (ms, wake) =>
        hasty.after(ms, () => {
          pauses.push(ms)
          wake()
        }),
    }
    const held = `held and ${name}`
    complete(await followed(clientOf(proxy, noting), await submit(held, 2)), held)
    // On a slow machine a stream may time out on this fast clock before the proxy sees it.
    expect(waysOf(proxy).filter((way) => way !== 'stream')).toEqual(['long-poll', 'poll'])
    expect(proxy.seen.filter((line) => line.includes('wait=')).length).toBeLessThanOrEqual(3)
    expect(pauses.filter((ms) => ms === 2_000).length).toBeGreaterThan(0)
  })

  test('through responses of 500, 502 and 429, and broken connections', async () => {
    const troubles: ((way: Way) => void)[] = [
      (way) => sayNo(way, 502),
      (way) => way.response.destroy(),
      (way) =>
        void way.response
          .writeHead(500, { 'content-type': 'application/problem+json' })
          .end('{"code":"internal","detail":"Something went wrong."}'),
      (way) => sayNo(way, 429, { 'retry-after': '1' }),
      (way) => way.response.destroy(),
    ]
    const proxy = await through((way) => {
      const trouble = troubles.shift()
      return trouble ? trouble(way) : pass(way)
    })
    complete(await followed(clientOf(proxy), await submit('trouble', 1)), 'trouble')
    expect(troubles).toEqual([])
  })

  test('by wait too, when it has onProgress', async () => {
    const proxy = await through(pass)
    const told: (string | null)[] = []
    const ended = await patientClientOf(proxy).wait(await submit('waited', 2), {
      onProgress({ progressMessage }) {
        told.push(progressMessage)
        if (progressMessage !== null) gate(progressMessage.replace('step', 'waited')).resolve()
      },
    })
    expect(ended).toMatchObject({ status: 'completed', result: 'waited is done' })
    expect(told).toEqual(expect.arrayContaining(['step 1', 'step 2']))
    expect(waysOf(proxy)).toEqual(['stream'])
  })

  test('in the same process, without a socket', async () => {
    const inside = createClient<typeof tasks>({
      url: 'http://ringback.inside',
      key,
      fetch: async (at, init) => ringback.app.fetch(new Request(at, init)),
    })
    complete(await followed(inside, await submit('inside', 1)), 'inside')
  })
})

describe('a follower', () => {
  test('of an ended task sends nothing', async () => {
    const proxy = await through(pass)
    const [ended] = (await followed(clientOf({ url }), await submit('over', 0))).slice(-1)
    const found = await followed(clientOf(proxy), ended!)
    expect([found, proxy.seen]).toEqual([[ended], []])
  })

  test('of a missing task gets an error', async () => {
    const proxy = await through(pass)
    const error = await clientOf(proxy)
      .follow('task_01jd7z3m0q8y3t6w9k2v5n4r1b')
      .next()
      .catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(RingbackClientError)
    expect(error).toMatchObject({ status: 404, code: 'not_found' })
    expect(proxy.seen).toHaveLength(1)
  })

  test('that stops closes its connection', async () => {
    const proxy = await through(pass)
    for await (const { status } of clientOf(proxy).follow((await submit('left', 1)).id)) if (status === 'running') break
    while (proxy.open > 0) await new Promise((resolve) => setTimeout(resolve, 5))
  })

  test.each([
    ['a stream', pass],
    ['long-polls', (way: Way) => (isStream(way) ? sayNo(way, 404) : pass(way))],
    ['nothing that answers', () => {}],
  ])('by %s stops at its time limit and when its signal fires; the task continues', async (name, treat) => {
    const proxy = await through(treat)
    const task = await submit(name, 1)
    const drain = async (options: object): Promise<unknown> => {
      for await (const _ of clientOf(proxy).follow(task, options));
      return null
    }
    const late = await drain({ timeoutMs: 4_000 }).catch((thrown: unknown) => thrown)
    expect(late).toMatchObject({ code: 'wait_timeout', message: expect.stringContaining(`${task.id} had not ended after 4000 ms`) })
    const abort = new AbortController()
    const following = drain({ signal: abort.signal })
    const asked = proxy.seen.length
    while (proxy.seen.length === asked) await new Promise((resolve) => setTimeout(resolve, 5))
    abort.abort(new Error('enough'))
    await expect(following).rejects.toThrow('enough')
    expect(await clientOf({ url }).get(task.id)).toMatchObject({ status: 'running' })
  })

  test('knows the types of its tasks', () => {
    const typed = clientOf({ url })
    const types = async (): Promise<void> => {
      for await (const task of typed.follow(await typed.submit('follow.steps', { name: 'typed', steps: 0 })))
        expectTypeOf(task.result).toEqualTypeOf<string | null>()
      for await (const task of typed.follow('task_1')) expectTypeOf(task.type).toEqualTypeOf<'follow.steps'>()
    }
    void types
  })
})
