/**
 * Requests made of the API's own document and of nonsense: no answer is a 5xx, every answer is a documented one (`http.kit` holds each against
 * its route), what one request does leaves the next one unharmed, and none of them leaves anything in memory. `RINGBACK_TEST_FUZZ` is the
 * number of requests.
 */

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createEventSink } from '../../src/observe/events.ts'
import { fc } from '../support/chance.ts'
import { ADMIN, type Answer, type Client, type Kit, openKit, routesOf } from './kit.ts'

const REQUESTS = Number(process.env.RINGBACK_TEST_FUZZ ?? 1_500)
/** Clients are suspended and deleted by some of the requests. */
const FRESH_CLIENTS_EVERY = 300

// biome-ignore lint/suspicious/noExplicitAny: a walk through a document
type Node = any

let kit: Kit
let document: Node
beforeAll(async () => {
  kit = await openKit({
    events: createEventSink(),
    maxPerClient: { openTasks: 500, endpoints: 2, schedules: 1, keys: 1_000 },
    streamLimits: { node: 3, client: 2 },
  })
  document = (await kit.admin.call('GET', '/openapi.json')).json
})
afterAll(() => kit.close())

let deep: unknown = null
for (let i = 0; i < 200; i++) deep = [deep]
/** What breaks programs. */
const nonsense: fc.Arbitrary<unknown> = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  fc.constantFrom<unknown>(null, '', ' ', '\0', 'a\0b', '\ud800', '__proto__', '../..', "' or 1=1 --", '%', '*', '[]'),
  fc.constantFrom<unknown>(0, -0, -1, 1.5, 1e308, 2 ** 53, 2 ** 31, Number.MIN_VALUE, [], {}, [[]], true, deep, 'ü'.repeat(70_000)),
  fc.constantFrom<unknown>(
    '2026-02-30T00:00:00Z',
    '9999-12-31T23:59:59.999Z',
    '0000-01-01T00:00:00Z',
    'task_',
    'http://[::1',
    'https://u:p@a/',
  ),
)

/** Values a JSON Schema allows, as far as it is understood, with nonsense in between. */
function valuesOf(schema: Node, depth = 0): fc.Arbitrary<unknown> {
  const { $ref, enum: among, anyOf, oneOf, allOf } = schema
  if (depth > 6) return fc.constant(null)
  if ($ref) return valuesOf(document.components.schemas[$ref.split('/').at(-1)], depth + 1)
  const proper = (): fc.Arbitrary<unknown> => {
    if (among) return fc.constantFrom(...among)
    if ('const' in schema) return fc.constant(schema.const)
    const choices = anyOf ?? oneOf
    if (choices) return fc.oneof(...choices.map((choice: Node) => valuesOf(choice, depth + 1)))
    if (allOf) return valuesOf(allOf[0], depth + 1)
    const types: string[] = [schema.type ?? 'unknown'].flat()
    return fc.oneof(...types.map((type) => ofType(type, schema, depth)))
  }
  return fc.oneof({ weight: 15, arbitrary: proper() }, { weight: 1, arbitrary: nonsense })
}

function ofType(type: string, schema: Node, depth: number): fc.Arbitrary<unknown> {
  const { minimum = -1_000, maximum = 1_000_000_000, minLength = 0, maxLength = 60, minItems = 0, maxItems = 3 } = schema
  switch (type) {
    case 'null':
      return fc.constant(null)
    case 'boolean':
      return fc.boolean()
    case 'integer':
      return fc.oneof(fc.integer({ min: minimum, max: maximum }), fc.constantFrom(minimum, maximum))
    case 'number':
      return fc.double({ min: minimum, max: maximum, noNaN: true })
    case 'array':
      return fc.array(valuesOf(schema.items ?? {}, depth + 1), {
        minLength: minItems,
        maxLength: Math.max(minItems, Math.min(maxItems, 3)),
      })
    case 'object': {
      const members = Object.entries<Node>(schema.properties ?? {}).map(([name, member]) => [name, valuesOf(member, depth + 1)] as const)
      const required = (schema.required ?? []).filter((name: string) => members.some(([known]) => known === name))
      const known = fc.record(Object.fromEntries(members), { requiredKeys: required })
      const strange = fc.dictionary(fc.string({ maxLength: 10 }), nonsense, { maxKeys: 2 })
      return fc.oneof(
        { weight: 20, arbitrary: known },
        { weight: 1, arbitrary: fc.tuple(known, strange).map(([a, b]) => ({ ...b, ...(a as object) })) },
      )
    }
    case 'string': {
      if (schema.format === 'date-time')
        return fc.date({ min: new Date(0), max: new Date('2100-01-01'), noInvalidDate: true }).map((at) => at.toISOString())
      const words = fc.constantFrom('report.build', 'anything', 'https://app.example.net/hooks', 'http://127.0.0.1/a', 'task.completed')
      const text = fc.string({ minLength, maxLength: Math.max(minLength, Math.min(maxLength, 60)), unit: 'grapheme' })
      return fc.oneof(
        words,
        text,
        fc.constant(null).map(() => known()),
      )
    }
    default:
      return fc.oneof(fc.constant({ month: '2026-10' }), fc.jsonValue({ maxDepth: 2 }))
  }
}

/** Ids and cursors seen in answers, to be asked for again. */
const seen = new Map<string, string[]>()
function remember(text: string): void {
  for (const [id, kind] of text.matchAll(/\b([a-z]+)_[0-9a-z]{26}\b/g)) keep(kind!, id)
  for (const [, cursor] of text.matchAll(/"nextCursor":"([^"]+)"/g)) keep('cursor', cursor!)
}
function keep(kind: string, id: string): void {
  const ids = seen.get(kind) ?? []
  if (!ids.includes(id)) seen.set(kind, [...ids.slice(-40), id])
}
let turn = 0
/** One of those of this kind, or of any. */
function known(kind?: string): string {
  const ids = (kind ? seen.get(kind) : undefined) ?? [...seen.values()].flat()
  return ids[turn++ % Math.max(1, ids.length)] ?? 'task_01jd7z3m0q8y3t6w9k2v5n4r1b'
}
const KINDS: Readonly<Record<string, string>> = {
  tasks: 'task',
  endpoints: 'endpoint',
  deliveries: 'delivery',
  clients: 'client',
  'operator-keys': 'key',
  schedules: 'schedule',
}

interface Request {
  readonly method: string
  readonly path: string
  readonly body: string | undefined
  readonly headers: Record<string, string>
  readonly who: string
}

/** Once in so many times; else null. */
const sometimes = <T>(times: number, arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | null> =>
  fc.oneof({ weight: times - 1, arbitrary: fc.constant(null) }, { weight: 1, arbitrary })
/** A stream need not end by itself: who asks for one hangs up after this many milliseconds. */
const EVENT_STREAM = 'text/event-stream'
const READ_STREAMS_MS = 10
const printable = fc.string({ maxLength: 40 }).map((text) => text.replace(/[^\x20-\x7e]/g, '').trim())
const headers = fc.record(
  {
    'idempotency-key': fc.oneof(printable, fc.constantFrom('k1', '"k2"', 'a'.repeat(300), '"')),
    prefer: fc.oneof(printable, fc.constantFrom('wait=1', 'wait=x', 'respond-async, wait=1')),
    'if-match': fc.oneof(printable, fc.constantFrom('*', '"1"', 'W/"1"', '""')),
    'if-none-match': fc.oneof(printable, fc.constantFrom('*', '"1"', 'W/"1"', 'W/"2"')),
    'content-type': fc.constantFrom(
      'application/json',
      'text/plain',
      'application/merge-patch+json',
      'application/json; charset=latin1',
      ';',
    ),
    accept: fc.constantFrom('*/*', 'application/json', EVENT_STREAM, 'text/html', 'application/problem+json;q=0.1', 'x', ';;'),
    traceparent: fc.oneof(printable, fc.constant('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')),
    origin: fc.constantFrom('https://evil.example', 'null'),
    'x-request-id': printable,
  },
  { requiredKeys: [] },
)

function requests(): fc.Arbitrary<Request> {
  const operations = routesOf(kit.options).map((route) => {
    const { parameters = [], requestBody } = document.paths[route.path][route.method]
    const query = (parameters as Node[]).filter((parameter) => parameter.in === 'query')
    const asked = fc.record(
      Object.fromEntries(
        query.map(({ name, schema }) => [name, name === 'wait' ? fc.constantFrom('0', 'x', '-1') : valuesOf(schema ?? {})]),
      ),
      { requiredKeys: [] },
    )
    const schema = requestBody && Object.values<Node>(requestBody.content)[0].schema
    const [type] = Object.keys(requestBody?.content ?? {})
    const kind = KINDS[/^\/v1\/([\w-]+)\/\{/.exec(route.path)?.[1] ?? '']
    const id = fc.oneof({ weight: 8, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: fc.string({ minLength: 1, maxLength: 50 }) })
    return fc
      .record({
        id,
        other: id,
        asked: sometimes(2, asked),
        body: schema ? valuesOf(schema) : sometimes(20, nonsense),
        cut: sometimes(30, fc.nat()),
        headers: fc.oneof({ weight: 4, arbitrary: fc.constant({}) }, { weight: 1, arbitrary: headers }),
        method: sometimes(40, fc.constantFrom('PUT', 'HEAD', 'OPTIONS', 'PATCH', 'DELETE', 'GET', 'POST')),
        who: fc.oneof(
          { weight: 8, arbitrary: fc.constant(route.scope === 'admin' ? 'admin' : 'a') },
          { weight: 2, arbitrary: fc.constantFrom('a', 'b', 'admin', 'nobody', 'wrong') },
        ),
      })
      .map((made): Request => {
        const ids = [made.id ?? known(kind), made.other ?? known('key')]
        const path = route.path.replaceAll(/\{(\w+)\}/g, (_, name) =>
          name === 'name'
            ? made.id === null
              ? 'report.build'
              : encodeURIComponent(made.id.toWellFormed())
            : encodeURIComponent(ids.shift()!.toWellFormed()),
        )
        const search = new URLSearchParams()
        for (const [name, value] of Object.entries(made.asked ?? {})) {
          if (value !== null && typeof value === 'object' && !Array.isArray(value))
            for (const [key, each] of Object.entries(value)) search.append(`${name}[${key}]`, String(each))
          else search.append(name, name === 'cursor' && seen.has('cursor') ? known('cursor') : String(value).slice(0, 2_000))
        }
        const text = made.body === undefined || made.body === null ? undefined : JSON.stringify(made.body)
        const method = made.method ?? route.method.toUpperCase()
        const bodied = method !== 'GET' && method !== 'HEAD' ? text : undefined
        return {
          method,
          path: search.size > 0 ? `${path}?${search}` : path,
          body: made.cut === null ? bodied : bodied?.slice(0, made.cut % (bodied.length + 1)),
          headers: { ...(bodied === undefined || !type ? {} : { 'content-type': type }), ...made.headers },
          who: made.who,
        }
      })
  })
  return fc.oneof(...operations)
}

const SAMPLES = 10
/** Above what the collector leaves lying about, and some two hundred bytes a request of a hundred thousand. */
const MAX_GROWTH_MIB = 16
interface Memory {
  readonly heap: number
  readonly all: number
}
setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void
/** In MiB, after what is garbage was collected. */
function weigh(): Memory {
  collect()
  const { heapUsed, rss } = process.memoryUsage()
  return { heap: Math.round((heapUsed / 2 ** 20) * 10) / 10, all: Math.round(rss / 2 ** 20) }
}

test('requests made of the document and of nonsense get documented answers, none a 5xx, and leave nothing in memory', {
  timeout: 1_800_000,
}, async () => {
  let clients: Record<string, Client> = {}
  let sent = 0
  const answered = new Map<number, number>()
  const memory: Memory[] = []
  const send = async ({ who, method, path, body, headers: given }: Request): Promise<Answer> => {
    if (sent++ % FRESH_CLIENTS_EVERY === 0) {
      clients = { a: await kit.newClient(), b: await kit.newClient() }
      await clients.a!.call('POST', '/v1/tasks', { type: 'anything', input: 1 })
      await clients.a!.call('POST', '/v1/endpoints', { url: 'https://app.example.net/hooks' })
    }
    const call = { ...clients, admin: kit.as(ADMIN), nobody: kit.stranger.call, wrong: kit.as('rb_wrong') }[who]!
    const hangUp = given.accept === EVENT_STREAM ? AbortSignal.timeout(READ_STREAMS_MS) : undefined
    return (typeof call === 'function' ? call : (call as Client).call)(method, path, body, given, hangUp)
  }
  await fc.assert(
    fc.asyncProperty(requests(), async (request) => {
      const answer = await send(request).catch((error: Error) => {
        throw new Error(`${JSON.stringify(request).slice(0, 1_000)}: ${error.message}`, { cause: error })
      })
      remember(answer.text)
      answered.set(answer.status, (answered.get(answer.status) ?? 0) + 1)
      if (answer.status >= 500) throw new Error(`${JSON.stringify(request).slice(0, 1_000)}: ${answer.text}`)
      if (sent % Math.ceil(REQUESTS / SAMPLES) === 0) memory.push(weigh())
    }),
    { numRuns: REQUESTS, endOnFailure: true },
  )
  console.log(`${REQUESTS} requests, answers: ${JSON.stringify(Object.fromEntries([...answered].sort(([a], [b]) => a - b)))}`)
  console.log(`MiB of heap and in all, over time: ${memory.map(({ heap, all }) => `${heap}/${all}`).join(' ')}`)
  // What is loaded and compiled on the way is there after a fifth; from then on it is flat.
  const [, second] = memory
  expect(memory.at(-1)!.heap - second!.heap, 'MiB of heap that four fifths of the requests left').toBeLessThan(MAX_GROWTH_MIB)
  const client = await kit.newClient()
  expect((await client.call('POST', '/v1/tasks', { type: 'anything', input: 1 })).status).toBe(202)
  const share = (status: number): number => (answered.get(status) ?? 0) / REQUESTS
  expect(share(200) + share(201) + share(202) + share(204), 'enough of them were meant well').toBeGreaterThan(0.2)
})
