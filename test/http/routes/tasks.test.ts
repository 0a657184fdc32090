import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Task } from '../../../src/core/model.ts'
import { parseJson, scanJson } from '../../../src/http/request/json.ts'
import { estimateCompletion, retryAfterSeconds } from '../../../src/http/routes/task-document.ts'
import { defineTask } from '../../../src/tasks/define.ts'
import { createRegistry } from '../../../src/tasks/registry.ts'
import { type Client, type Kit, openKit, PUBLIC_URL, REPORT } from '../kit.ts'

let kit: Kit
beforeAll(async () => {
  kit = await openKit()
})
afterAll(() => kit.close())

test('A body of digits is read in the time of any other, and one that holds a number no double can is refused', () => {
  const body = `[${Array.from({ length: 50_000 }, () => '1'.repeat(299)).join(',')}]`
  const before = process.cpuUsage()
  parseJson(body)
  // Looked at from each of its digits it takes seconds. Of this process alone: others may keep it waiting.
  expect(process.cpuUsage(before).user).toBeLessThan(2_000_000)
  for (const number of ['1e400', '-1E+309', '1'.repeat(310), `0.5,${'9'.repeat(400)}`])
    expect(() => parseJson(`[${number}]`), number).toThrow('beyond the range of a double')
})

const LATER = { ...REPORT, delaySeconds: 600 }
const soon = (ms: number): string => new Date(kit.clock.now() + ms).toISOString()

describe('Creating', () => {
  let client: Client
  beforeAll(async () => {
    client = await kit.newClient()
  })

  test('answers 202 with the place, the pace and the task, every member present', async () => {
    const { status, headers, json } = await client.call('POST', '/v1/tasks', REPORT)
    expect(status).toBe(202)
    expect(headers.get('location')).toBe(`${PUBLIC_URL}/v1/tasks/${json.id}`)
    expect(headers.get('retry-after')).toBe('1')
    expect(headers.get('etag')).toBe('W/"1"')
    expect(headers.get('cache-control')).toBe('private, no-cache')
    expect(headers.get('vary')).toBe('Authorization, Accept, Prefer')
    expect(json).toMatchObject({ status: 'pending', progress: 0, tries: 0, maxTries: 5, generation: 1, timeoutSeconds: 3600, metadata: {} })
  })

  test('keeps the input as it was written', async () => {
    const body =
      '{"type":"anything","input": {"n":12345678901234567890.10, "e":1e300, "text":"\\u00e9 \\ud83c\\udf89", "input":[{"input":1}]} }'
    const { json: made } = await client.call('POST', '/v1/tasks', body)
    const { text } = await client.call('GET', `/v1/tasks/${made.id}/input`)
    expect(text).toBe('{"n":12345678901234567890.10, "e":1e300, "text":"\\u00e9 \\ud83c\\udf89", "input":[{"input":1}]}')
  })

  test('refuses a number that no double holds: the handler would see Infinity', async () => {
    for (const number of ['1e400', '-1E+999', '9'.repeat(400)]) {
      const answer = await client.call('POST', '/v1/tasks', `{"type":"anything","input":{"n":${number}}}`)
      expect([answer.status, answer.json.code]).toEqual([400, 'malformed_json'])
    }
    const text = await client.call('POST', '/v1/tasks', '{"type":"anything","input":"1e400"}')
    expect([text.status, text.json.input]).toEqual([202, '1e400'])
  })

  test('takes the last of a member given twice, as every JSON parser does, for the check and for the record', async () => {
    const { json: made } = await client.call('POST', '/v1/tasks', '{"type":"anything","input":1,"input":{"a":2}}')
    expect((await client.call('GET', `/v1/tasks/${made.id}/input`)).json).toEqual({ a: 2 })
    const escaped = await client.call('POST', '/v1/tasks', '{"type":"anything","\\u0069nput":3}')
    expect(escaped.json.input).toBe(3)
    const twice = await client.call('POST', '/v1/tasks', '{"type":"anything","input":4,"\\u0069nput":5}')
    expect((await client.call('GET', `/v1/tasks/${twice.json.id}/input`)).text, 'what was checked is what is kept').toBe('5')
  })

  test('takes whatever the contract allows and shows it again', async () => {
    const body = {
      ...REPORT,
      metadata: { orderId: 'A-17', '': undefined, note: 'é🎉' },
      startBy: soon(60_000),
      deadlineAt: soon(120_000),
      timeoutSeconds: 604_800,
      maxTries: 100,
      priority: -3_600,
      concurrencyKey: '🎉'.repeat(255),
      callback: null,
    }
    const { status, json } = await client.call('POST', '/v1/tasks', body)
    expect(status).toBe(202)
    const { input: _, callback, ...same } = body
    expect(json).toMatchObject({ ...same, metadata: { orderId: 'A-17', note: 'é🎉' } })
    expect(json.callback).toEqual({ endpointId: null, url: null, events: null, retrySchedule: null, status: 'none' })
  })

  test('waits for runAt and delaySeconds, and says so', async () => {
    const runAt = soon(3_600_000)
    const at = await client.call('POST', '/v1/tasks', { ...REPORT, runAt })
    expect(at.json).toMatchObject({ runAt, waitingFor: 'runAt' })
    const delayed = await client.call('POST', '/v1/tasks', { ...REPORT, delaySeconds: 1.5 })
    expect(Date.parse(delayed.json.runAt) - Date.parse(delayed.json.createdAt)).toBeGreaterThan(1_000)
    const offset = await client.call('POST', '/v1/tasks', { ...REPORT, runAt: '2126-01-01T00:00:00+02:00' })
    expect(offset.json.runAt).toBe('2125-12-31T22:00:00.000Z')
  })

  test.each<[string, string, object]>([
    ['an unknown member', '#/colour', { colour: 1 }],
    ['a missing type', '#/type', { type: undefined }],
    ['a missing input', '#/input', { input: undefined }],
    ['an input that does not fit its schema', '#/input/month', { input: {} }],
    ['a timeout under its bound', '#/timeoutSeconds', { timeoutSeconds: 0 }],
    ['a timeout over its bound', '#/timeoutSeconds', { timeoutSeconds: 604_801 }],
    ['a fraction of a second', '#/timeoutSeconds', { timeoutSeconds: 1.5 }],
    ['no tries', '#/maxTries', { maxTries: 0 }],
    ['too many tries', '#/maxTries', { maxTries: 101 }],
    ['a priority over its bound', '#/priority', { priority: 3_601 }],
    ['a concurrency key too long', '#/concurrencyKey', { concurrencyKey: 'k'.repeat(256) }],
    ['U+0000 in a concurrency key', '#/concurrencyKey', { concurrencyKey: 'a\0b' }],
    ['a lone surrogate in a concurrency key', '#/concurrencyKey', { concurrencyKey: '\ud800' }],
    ['metadata that is no text', '#/metadata/n', { metadata: { n: 1 } }],
    ['a metadata value too long', '#/metadata/n', { metadata: { n: 'x'.repeat(501) } }],
    ['U+0000 in a metadata value', '#/metadata/n', { metadata: { n: '\0' } }],
    ['U+0000 in a metadata key', '#/metadata/a\0', { metadata: { 'a\0': 'x' } }],
    ['a slash and a tilde in a pointer', '#/metadata/a~1b~0', { metadata: { 'a/b~': 1 } }],
    ['seventeen metadata members', '#/metadata', { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, n) => [`k${n}`, 'v'])) }],
    ['runAt with delaySeconds', '#/delaySeconds', { runAt: '2126-01-01T00:00:00Z', delaySeconds: 1 }],
    ['runAt in the past', '#/runAt', { runAt: '2020-01-01T00:00:00Z' }],
    ['a time without an offset', '#/runAt', { runAt: '2126-01-01T00:00:00' }],
    ['a day that does not exist', '#/runAt', { runAt: '2126-02-30T00:00:00Z' }],
    ['a negative delay', '#/delaySeconds', { delaySeconds: -1 }],
    ['startBy in the past', '#/startBy', { startBy: '2020-01-01T00:00:00Z' }],
    ['startBy before the start', '#/startBy', { runAt: '2126-01-02T00:00:00Z', startBy: '2126-01-01T00:00:00Z' }],
    ['deadlineAt before the start', '#/deadlineAt', { runAt: '2126-01-02T00:00:00Z', deadlineAt: '2126-01-01T00:00:00Z' }],
    ['an event that does not exist', '#/callback/events/0', { callback: { events: ['task.lost'] } }],
    ['an empty retry schedule', '#/callback/retrySchedule', { callback: { retrySchedule: [] } }],
    ['a retry schedule beyond a day', '#/callback/retrySchedule/0', { callback: { retrySchedule: [86_401] } }],
    ['an endpoint nobody has', '#/callback/endpointId', { callback: { endpointId: 'endpoint_01jd7z3m0q8y3t6w9k2v5n4r1b' } }],
  ])('refuses %s, and points to it', async (_, pointer, fault) => {
    const { status, json } = await client.call('POST', '/v1/tasks', { ...REPORT, ...fault })
    expect([status, json.code]).toEqual([422, 'validation_failed'])
    expect(json.errors.map((error: { pointer: string }) => error.pointer)).toEqual([pointer])
  })

  test('refuses what is no object, and a type that does not exist or is the context’s own', async () => {
    for (const body of ['[]', '"x"', 'null', '1']) expect((await client.call('POST', '/v1/tasks', body)).status).toBe(422)
    for (const body of ['', '{', '{"a":}', '\u0000'])
      expect((await client.call('POST', '/v1/tasks', body)).json.code).toBe('malformed_json')
    for (const type of ['no.such', 'system.replay', '__proto__'])
      expect((await client.call('POST', '/v1/tasks', { ...REPORT, type })).json).toMatchObject({
        code: 'task_type_not_found',
        errors: [{ pointer: '#/type' }],
      })
  })

  test('bounds how deep a body nests, and takes what is just within', async () => {
    const nested = (depth: number): string => `{"type":"anything","input":${'['.repeat(depth)}${']'.repeat(depth)}}`
    expect((await client.call('POST', '/v1/tasks', nested(99))).status).toBe(202)
    expect((await client.call('POST', '/v1/tasks', nested(100))).json).toMatchObject({
      code: 'validation_failed',
      errors: [{ pointer: '#' }],
    })
    expect((await client.call('POST', '/v1/tasks', nested(200_000))).status).toBe(422)
    expect((await client.call('POST', '/v1/tasks', nested(200_000), { 'idempotency-key': 'deep' })).status).toBe(422)
  })

  test('shows inputs up to 64 KiB and gives a URL for larger ones', async () => {
    const large = 'x'.repeat(65_535)
    const { json } = await client.call('POST', '/v1/tasks', { type: 'anything', input: large })
    expect([json.input, json.inputUrl]).toEqual([null, `${PUBLIC_URL}/v1/tasks/${json.id}/input`])
    expect((await client.call('GET', `/v1/tasks/${json.id}/input`)).json).toBe(large)
    const inline = await client.call('POST', '/v1/tasks', { type: 'anything', input: large.slice(1) })
    expect([inline.json.input, inline.json.inputUrl]).toEqual([large.slice(1), null])
  })

  test('carries a sound trace context to the task and drops a broken one', async () => {
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    const sound = await client.call('POST', '/v1/tasks', LATER, { traceparent, tracestate: 'a=1' })
    const broken = await client.call('POST', '/v1/tasks', LATER, { traceparent: '00-0-0-0', tracestate: 'a=1' })
    const [one, two] = await Promise.all([sound, broken].map(({ json }) => kit.store.tasks.find(json.id, null)))
    expect(one).toMatchObject({ value: { traceparent, tracestate: 'a=1' } })
    expect(two).toMatchObject({ value: { traceparent: null, tracestate: null } })
  })

  test('says when to ask again by the estimate that it shows, and by its age while something holds it up', async () => {
    const registry = createRegistry([defineTask({ type: 'audio.transcribe', where: 'worker' })])
    const held = await openKit({ registry, typicalDurationMs: () => 400_000 })
    const { call } = await held.newClient()
    const { id } = (await call('POST', '/v1/tasks', { type: 'audio.transcribe', input: 1 })).json
    const look = await call('GET', `/v1/tasks/${id}`)
    expect(look.json).toMatchObject({ waitingFor: 'noWorker', estimatedCompletionAt: null })
    expect(Number(look.headers.get('retry-after')), 'a second, and a tenth of its age').toBeLessThan(10)
    const same = await call('GET', `/v1/tasks/${id}`, undefined, { 'if-none-match': look.headers.get('etag')! })
    expect(same.status).toBe(304)
    expect(Number(same.headers.get('retry-after'))).toBeLessThan(10)
    await held.store.schedules.touchTaskTypes({ types: ['audio.transcribe'] })
    const free = await call('GET', `/v1/tasks/${id}`)
    expect(free.json).toMatchObject({ waitingFor: null, estimatedCompletionAt: expect.any(String) })
    expect(free.headers.get('retry-after'), 'a quarter of what is left, 30 s at most').toBe('30')
    await held.close()
  })

  test('is refused with 503 over the limit of open tasks, and the count is asked for once for many', async () => {
    let counts = 0
    const store = { ...kit.store, tasks: { ...kit.store.tasks, countOpen: async () => ({ n: ++counts && 5, next: null }) } }
    const full = await openKit({ store, maxOpenTasks: 5 })
    const one = full.as(client.key)
    await one('POST', '/v1/tasks', LATER)
    const answers = await Promise.all(Array.from({ length: 20 }, () => one('POST', '/v1/tasks', LATER)))
    expect(counts).toBe(1)
    for (const { json, headers } of answers) {
      expect(json.code).toBe('temporary_reduced_capacity')
      expect(headers.get('retry-after')).toBe('10')
    }
    await full.close()
  })
})

describe('A callback', () => {
  let client: Client
  let endpointId: string
  beforeAll(async () => {
    client = await kit.newClient()
    const made = await client.call('POST', '/v1/endpoints', { url: 'https://app.example.net/hooks/v1?tenant=7' })
    endpointId = made.json.id
  })
  const create = (callback: unknown) => client.call('POST', '/v1/tasks', { ...LATER, callback })

  test('may name an endpoint, narrow its events and bring a schedule of its own', async () => {
    const { json } = await create({ endpointId, events: ['task.failed'], retrySchedule: [0, 5] })
    expect(json.callback).toEqual({ endpointId, url: null, events: ['task.failed'], retrySchedule: [0, 5], status: 'pending' })
  })

  test.each([
    'https://app.example.net/hooks/v1',
    'https://app.example.net/hooks/v1/',
    'https://app.example.net/hooks/v1/orders/17?id=9',
    'https://APP.example.net:443/hooks/./v1/x',
  ])('may be a URL under a verified endpoint: %s', async (url) => {
    const { status, json } = await create({ url })
    expect(status).toBe(202)
    expect(json.callback).toMatchObject({ url, endpointId })
  })

  test.each([
    'https://app.example.net/hooks/v1x',
    'https://app.example.net/hooks',
    'https://app.example.net/hooks/v1/../v2',
    'https://app.example.net/hooks/v1/%2e%2e/v2',
    'https://app.example.net/hooks/v1/a%2fb',
    'https://app.example.net/hooks/v1/a%5Cb',
    'https://app.example.net:8443/hooks/v1',
    'http://app.example.net/hooks/v1',
    'https://other.example.net/hooks/v1',
    'https://app.example.net.evil.example/hooks/v1',
  ])('may not be a URL beside it: %s', async (url) => {
    const { status, json } = await create({ url })
    expect([status, json.code]).toEqual([422, 'callback_url_not_verified'])
    expect(json.errors[0].pointer).toBe('#/callback/url')
  })

  test('may not be what no webhook may go to', async () => {
    expect((await create({ url: 'ftp://app.example.net/hooks/v1' })).json.code).toBe('invalid_callback_url')
    expect((await create({ url: 'https://user@app.example.net/hooks/v1' })).json.code).toBe('invalid_callback_url')
    expect((await create({ url: 'https://169.254.169.254/hooks/v1' })).json.code).toBe('callback_url_forbidden')
  })

  test('may not go by an endpoint of another client, or by one not verified yet', async () => {
    const other = await kit.newClient()
    expect((await other.call('POST', '/v1/tasks', { ...LATER, callback: { endpointId } })).json.errors[0].pointer).toBe(
      '#/callback/endpointId',
    )
    const url = 'https://app.example.net/hooks/v1'
    expect((await other.call('POST', '/v1/tasks', { ...LATER, callback: { url } })).json.code).toBe('callback_url_not_verified')
    await other.call('POST', '/v1/endpoints', { url, verification: 'challenge' })
    expect((await other.call('POST', '/v1/tasks', { ...LATER, callback: { url } })).json.code).toBe('callback_url_not_verified')
  })

  test('may name a paused or unverified endpoint: its deliveries are held', async () => {
    const { json } = await client.call('POST', '/v1/endpoints', { url: 'https://app.example.net/held', verification: 'challenge' })
    expect((await create({ endpointId: json.id })).status).toBe(202)
  })

  test('goes to the closest endpoint when several are over it', async () => {
    const { json: closer } = await client.call('POST', '/v1/endpoints', { url: 'https://app.example.net/hooks/v1/orders' })
    expect((await create({ url: 'https://app.example.net/hooks/v1/orders/1' })).json.callback.endpointId).toBe(closer.id)
    expect((await create({ url: 'https://app.example.net/hooks/v1/orders/1', endpointId })).json.callback.endpointId).toBe(endpointId)
  })

  test('has the status of the terminal event’s deliveries', async () => {
    const one = await kit.newClient()
    const none = await one.call('POST', '/v1/tasks', { type: 'anything', input: 1 })
    await kit.finish(none.json.id)
    expect((await one.call('GET', `/v1/tasks/${none.json.id}`)).json.callback.status).toBe('none')
    await one.call('POST', '/v1/endpoints', { url: 'https://app.example.net/status' })
    const owed = await one.call('POST', '/v1/tasks', { type: 'anything', input: 1 })
    await kit.finish(owed.json.id)
    expect((await one.call('GET', `/v1/tasks/${owed.json.id}`)).json.callback.status).toBe('pending')
    const page = await one.call('GET', '/v1/tasks?order=asc')
    expect(page.json.data.map((task: { callback: { status: string } }) => task.callback.status)).toEqual(['none', 'pending'])
  })
})

describe('Reading', () => {
  test('answers 304 while the revision is the one the caller has, in every spelling of the header', async () => {
    const client = await kit.newClient()
    const { json } = await client.call('POST', '/v1/tasks', LATER)
    const get = (tag: string) => client.call('GET', `/v1/tasks/${json.id}`, undefined, { 'if-none-match': tag })
    for (const tag of ['W/"1"', '"1"', '*', '"0", W/"1"']) {
      const answer = await get(tag)
      expect([tag, answer.status]).toEqual([tag, 304])
      expect(answer.headers.get('etag')).toBe('W/"1"')
      expect(answer.headers.get('retry-after')).toBe('1')
      expect(answer.headers.get('content-type')).toBeNull()
    }
    for (const tag of ['W/"2"', '1', 'nonsense', '"11"']) expect([tag, (await get(tag)).status]).toEqual([tag, 200])
  })

  test('tells the pace only while the task lives', async () => {
    const client = await kit.newClient()
    const { json } = await client.call('POST', '/v1/tasks', REPORT)
    await kit.finish(json.id)
    const ended = await client.call('GET', `/v1/tasks/${json.id}`)
    expect(ended.headers.get('retry-after')).toBeNull()
    expect(ended.json).toMatchObject({ status: 'completed', progress: 100, result: { rows: 1 }, estimatedCompletionAt: null })
  })

  test('gives the result alone, once there is one', async () => {
    const client = await kit.newClient()
    const { json } = await client.call('POST', '/v1/tasks', REPORT)
    const early = await client.call('GET', `/v1/tasks/${json.id}/result`)
    expect([early.status, early.json.code]).toEqual([409, 'task_not_completed'])
    const large = 'y'.repeat(70_000)
    await kit.finish(json.id, large)
    const shown = await client.call('GET', `/v1/tasks/${json.id}`)
    expect([shown.json.result, shown.json.resultUrl]).toEqual([null, `${PUBLIC_URL}/v1/tasks/${json.id}/result`])
    const result = await client.call('GET', `/v1/tasks/${json.id}/result`)
    expect(result.json).toBe(large)
    expect(
      (await client.call('GET', `/v1/tasks/${json.id}/result`, undefined, { 'if-none-match': result.headers.get('etag') ?? '' })).status,
    ).toBe(304)
  })

  const task = { state: 'running', startedAt: 1_000, updatedAt: 11_000, createdAt: 0, progress: 25 } as Task
  test('estimates from the slope of the progress, and never in the past', () => {
    expect(estimateCompletion(task, 5_000, null, 12_000)).toBe(41_000)
    expect(estimateCompletion(task, 5_000, null, 60_000)).toBe(60_000)
    expect(estimateCompletion({ ...task, progress: 0 }, null, null, 12_000)).toBeNull()
    expect(estimateCompletion({ ...task, state: 'pending' }, null, null, 12_000)).toBeNull()
  })

  test('estimates from how long runs of the type lately took where nothing was reported, and not while something holds the task', () => {
    const silent = { ...task, progress: 0 }
    expect(estimateCompletion(silent, 15_000, null, 12_000)).toBe(16_000)
    expect(estimateCompletion(silent, 500, null, 12_000)).toBe(12_000)
    const pending = { ...task, state: 'pending', startedAt: null, dueAt: 20_000 } as const
    expect(estimateCompletion(pending, 5_000, 'runAt', 12_000)).toBe(25_000)
    expect(estimateCompletion(pending, 5_000, null, 30_000)).toBe(35_000)
    for (const held of ['paused', 'limit', 'noWorker'] as const) expect(estimateCompletion(pending, 5_000, held, 12_000)).toBeNull()
    expect(estimateCompletion({ ...task, state: 'completed' }, 5_000, null, 12_000)).toBeNull()
    expect(retryAfterSeconds(task, 41_000, 11_000)).toBe(8)
    expect(retryAfterSeconds(task, 11_000, 11_000)).toBe(1)
    expect(retryAfterSeconds(task, 1_000_000, 11_000)).toBe(30)
    expect(retryAfterSeconds(task, null, 100)).toBe(1)
    expect(retryAfterSeconds(task, null, 45_000)).toBe(6)
    expect(retryAfterSeconds(task, null, 10_000_000)).toBe(30)
  })

  test('says that no worker knows the type', async () => {
    const client = await kit.newClient()
    const { json } = await client.call('POST', '/v1/tasks', REPORT)
    const elsewhere = await openKit({ store: kit.store, registry: { get: () => undefined, list: () => [] } })
    expect((await elsewhere.as(client.key)('GET', `/v1/tasks/${json.id}`)).json.waitingFor).toBe('noWorker')
    await elsewhere.close().catch(() => {})
  })
})

describe('Ending', () => {
  test('cancel ends a pending task, asks a running one, repeats harmlessly, and refuses one that completed', async () => {
    const client = await kit.newClient()
    const pending = await client.call('POST', '/v1/tasks', LATER)
    const canceled = await client.call('POST', `/v1/tasks/${pending.json.id}/cancel`)
    expect([canceled.status, canceled.json.status]).toEqual([200, 'canceled'])
    expect((await client.call('POST', `/v1/tasks/${pending.json.id}/cancel`)).status).toBe(200)
    const running = await client.call('POST', '/v1/tasks', REPORT)
    await kit.claim(running.json.id)
    const asked = await client.call('POST', `/v1/tasks/${running.json.id}/cancel`)
    expect([asked.status, asked.json.status]).toEqual([202, 'running'])
    expect(asked.json.cancelRequestedAt).not.toBeNull()
    expect((await client.call('POST', `/v1/tasks/${running.json.id}/cancel`)).status).toBe(202)
    const done = await client.call('POST', '/v1/tasks', REPORT)
    await kit.finish(done.json.id)
    expect((await client.call('POST', `/v1/tasks/${done.json.id}/cancel`)).json.code).toBe('task_not_cancelable')
  })

  test('retry begins a new generation of what failed or was canceled, and of nothing else', async () => {
    const client = await kit.newClient()
    const { json } = await client.call('POST', '/v1/tasks', LATER)
    expect((await client.call('POST', `/v1/tasks/${json.id}/retry`)).json.code).toBe('task_not_retryable')
    await client.call('POST', `/v1/tasks/${json.id}/cancel`)
    const again = await client.call('POST', `/v1/tasks/${json.id}/retry`)
    expect(again.status).toBe(202)
    expect(again.json).toMatchObject({ status: 'pending', generation: 2, tries: 0, finishedAt: null })
    await kit.finish(json.id)
    expect((await client.call('POST', `/v1/tasks/${json.id}/retry`)).json.code).toBe('task_not_retryable')
  })

  test('delete erases what ended; from then on every route of the task answers 410', async () => {
    const client = await kit.newClient()
    const { json } = await client.call('POST', '/v1/tasks', LATER)
    const path = `/v1/tasks/${json.id}`
    expect((await client.call('DELETE', path)).json.code).toBe('task_not_terminal')
    await client.call('POST', `${path}/cancel`)
    expect((await client.call('DELETE', path)).status).toBe(204)
    for (const [method, route] of [
      ['GET', path],
      ['GET', `${path}?wait=5`],
      ['GET', `${path}/input`],
      ['GET', `${path}/result`],
      ['GET', `${path}/events`],
      ['POST', `${path}/cancel`],
      ['POST', `${path}/retry`],
      ['DELETE', path],
    ] as const)
      expect([route, (await client.call(method, route)).json.code]).toEqual([route, 'task_expired'])
    expect((await (await kit.newClient()).call('GET', path)).status).toBe(404)
  })
})

describe('A batch', () => {
  test('makes all its tasks under one id, which the list takes as a filter', async () => {
    const client = await kit.newClient()
    const tasks = [LATER, { type: 'anything', input: 12345678901234567890n }, LATER]
    const body = `{"tasks":[${tasks.map((task) => JSON.stringify(task, (_, v) => (typeof v === 'bigint' ? 'BIG' : v)).replace('"BIG"', '12345678901234567890')).join(',')}]}`
    const { status, headers, json } = await client.call('POST', '/v1/tasks/batch', body)
    expect([status, json.data.length]).toEqual([202, 3])
    expect(headers.get('location')).toBe(`${PUBLIC_URL}/v1/tasks?batchId=${json.id}`)
    expect(headers.get('retry-after')).toBe('1')
    const listed = await client.call('GET', `/v1/tasks?batchId=${json.id}`)
    expect(new Set(listed.json.data.map((task: { id: string }) => task.id))).toEqual(
      new Set(json.data.map((task: { id: string }) => task.id)),
    )
    expect((await client.call('GET', `/v1/tasks/${json.data[1].id}/input`)).text).toBe('12345678901234567890')
  })

  test('with one bad item makes nothing and points to every fault', async () => {
    const client = await kit.newClient()
    const bad = { ...REPORT, input: { month: 'x', width: 0 } }
    const { status, json } = await client.call('POST', '/v1/tasks/batch', {
      tasks: [LATER, bad, LATER, { ...LATER, runAt: '2020-01-01T00:00:00Z' }],
    })
    expect(status).toBe(422)
    expect(json.errors.map((error: { pointer: string }) => error.pointer)).toEqual([
      '#/tasks/1/input/width',
      '#/tasks/3/delaySeconds',
      '#/tasks/3/runAt',
    ])
    const shape = await client.call('POST', '/v1/tasks/batch', { tasks: [LATER, { ...LATER, maxTries: 0 }] })
    expect(shape.json.errors[0].pointer).toBe('#/tasks/1/maxTries')
    const type = await client.call('POST', '/v1/tasks/batch', { tasks: [LATER, { ...LATER, type: 'no.such' }] })
    expect(type.json).toMatchObject({ code: 'task_type_not_found', errors: [{ pointer: '#/tasks/1/type' }] })
    const callback = await client.call('POST', '/v1/tasks/batch', { tasks: [{ ...LATER, callback: { url: 'https://x.example/y' } }] })
    expect(callback.json.errors[0].pointer).toBe('#/tasks/0/callback/url')
    expect((await client.call('GET', '/v1/tasks')).json.data).toEqual([])
  })

  test('has 1 to 100 items and does not wait', async () => {
    const client = await kit.newClient()
    expect((await client.call('POST', '/v1/tasks/batch', { tasks: [] })).status).toBe(422)
    expect((await client.call('POST', '/v1/tasks/batch', { tasks: Array(101).fill(LATER) })).status).toBe(422)
    expect((await client.call('POST', '/v1/tasks/batch', { tasks: Array(100).fill(LATER) }, { prefer: 'wait=30' })).status).toBe(202)
    expect((await client.call('POST', '/v1/tasks/batch?wait=1', { tasks: [LATER] })).status).toBe(422)
  })
})

describe('Listing', () => {
  test('is complete and stable while tasks are added, in both orders, and links to the next page', async () => {
    const client = await kit.newClient()
    const created = []
    for (let n = 0; n < 25; n++) created.push((await client.call('POST', '/v1/tasks', LATER)).json)
    // Tasks of the same millisecond stand by their ids.
    const made = created.map((task) => task.createdAt + task.id).sort()
    for (const order of ['asc', 'desc']) {
      const seen: string[] = []
      let path: string | null = `/v1/tasks?limit=4&order=${order}`
      while (path !== null) {
        const { json, headers } = await client.call('GET', path)
        seen.push(...json.data.map((task: { createdAt: string; id: string }) => task.createdAt + task.id))
        await client.call('POST', '/v1/tasks', { ...LATER, type: 'anything' })
        const link: string | undefined = /^<(.*)>; rel="next"$/.exec(headers.get('link') ?? '')?.[1]
        expect([json.hasMore, json.nextCursor !== null]).toEqual([link !== undefined, link !== undefined])
        path = link === undefined ? null : link.slice(PUBLIC_URL.length)
      }
      const older = seen.filter((id) => made.includes(id))
      expect(older).toEqual(order === 'asc' ? made : [...made].reverse())
      expect(new Set(seen).size).toBe(seen.length)
    }
  })

  test('filters by state, type, time and one metadata member', async () => {
    const client = await kit.newClient()
    const one = (await client.call('POST', '/v1/tasks', { ...LATER, metadata: { orderId: 'A-17', 'a.b': 'é' } })).json
    const two = (await client.call('POST', '/v1/tasks', { type: 'anything', input: 1, delaySeconds: 5, metadata: { orderId: 'A-18' } }))
      .json
    await client.call('POST', `/v1/tasks/${two.id}/cancel`)
    const ids = async (query: string) => (await client.call('GET', `/v1/tasks?${query}`)).json.data.map((task: { id: string }) => task.id)
    expect(await ids('status=canceled')).toEqual([two.id])
    expect(await ids('status=pending,canceled')).toEqual([two.id, one.id])
    expect(await ids('type=report.build')).toEqual([one.id])
    expect(await ids('metadata[orderId]=A-17')).toEqual([one.id])
    expect(await ids('metadata%5Ba.b%5D=%C3%A9')).toEqual([one.id])
    expect(await ids(`createdAfter=${encodeURIComponent(two.createdAt)}`)).toEqual([])
    expect(await ids('createdBefore=2020-01-01T00:00:00Z')).toEqual([])
  })

  test.each([
    ['status=lost', '#/query/status'],
    ['status=', '#/query/status'],
    ['limit=0', '#/query/limit'],
    ['limit=ten', '#/query/limit'],
    ['order=up', '#/query/order'],
    ['createdAfter=yesterday', '#/query/createdAfter'],
    ['metadata[a]=1&metadata[b]=2', '#/query/metadata'],
    ['metadata=1', '#/query/metadata'],
    ['type=a&type=b', '#/query/type'],
    ['colour=red', '#/query/colour'],
    ['clientId=client_x', '#/query/clientId'],
    ['type=%00', '#/query/type'],
  ])('refuses ?%s and points to it', async (query, pointer) => {
    const client = await kit.newClient()
    const { status, json } = await client.call('GET', `/v1/tasks?${query}`)
    expect(status).toBe(422)
    expect(json.errors[0].pointer.replace(/\/\d+$/, '')).toBe(pointer)
  })

  test('coerces a limit over 200', async () => {
    const client = await kit.newClient()
    expect((await client.call('GET', '/v1/tasks?limit=100000')).status).toBe(200)
  })

  test('ends a page early rather than answer many megabytes', async () => {
    const client = await kit.newClient()
    const input = 'x'.repeat(60_000)
    const { json: first } = await client.call('POST', '/v1/tasks/batch', {
      tasks: Array(15).fill({ type: 'anything', input, delaySeconds: 60 }),
    })
    for (let n = 0; n < 5; n++)
      await client.call('POST', '/v1/tasks/batch', { tasks: Array(15).fill({ type: 'anything', input, delaySeconds: 60 }) })
    expect(first.data).toHaveLength(15)
    const seen = new Set<string>()
    let cursor: string | null = null
    let pages = 0
    do {
      const { text, json } = await client.call('GET', `/v1/tasks?limit=200${cursor ? `&cursor=${cursor}` : ''}`)
      expect(text.length).toBeLessThan(4.3 * 1024 * 1024)
      for (const task of json.data) seen.add(task.id)
      cursor = json.nextCursor
      pages++
    } while (cursor !== null)
    expect([seen.size, pages]).toEqual([90, 2])
  })

  test('takes a cursor only where it came from', async () => {
    const client = await kit.newClient()
    for (let n = 0; n < 3; n++) await client.call('POST', '/v1/tasks', LATER)
    const { nextCursor } = (await client.call('GET', '/v1/tasks?limit=1')).json
    const refused = async (who: Client, query: string) =>
      expect([query, (await who.call('GET', `/v1/tasks?${query}`)).json.code]).toEqual([query, 'invalid_cursor'])
    expect((await client.call('GET', `/v1/tasks?limit=2&cursor=${nextCursor}`)).status).toBe(200)
    await refused(client, `order=asc&cursor=${nextCursor}`)
    await refused(client, `type=anything&cursor=${nextCursor}`)
    await refused(client, `cursor=${nextCursor.slice(0, -2)}`)
    await refused(client, `cursor=${nextCursor.slice(0, 5)}${nextCursor[5] === 'A' ? 'B' : 'A'}${nextCursor.slice(6)}`)
    await refused(client, 'cursor=')
    await refused(client, 'cursor=AAAA')
    await refused(await kit.newClient(), `cursor=${nextCursor}`)
    expect((await client.call('GET', `/v1/endpoints?cursor=${nextCursor}`)).json.code).toBe('invalid_cursor')
  })
})

test('The scan finds a member’s own text at its level, whatever stands around it', () => {
  expect(scanJson('{ "input" : [1, {"input":2}] , "x":"a\\"input\\":3" }', 'input', 1)).toEqual({ depth: 3, values: ['[1, {"input":2}]'] })
  expect(scanJson('{"a":"input","input":"}\\\\"}', 'input', 1)).toEqual({ depth: 1, values: ['"}\\\\"'] })
  expect(scanJson('{"tasks":[{"input":{}},{"input":null,"b":[]}]}', 'input', 3)).toEqual({ depth: 4, values: ['{}', 'null'] })
  expect(scanJson('[]', 'input', 1)).toEqual({ depth: 1, values: [] })
})
