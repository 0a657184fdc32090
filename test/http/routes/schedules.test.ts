import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Answer, type Client, type Kit, openKit, PUBLIC_URL, REPORT } from '../kit.ts'

let kit: Kit
let client: Client
beforeAll(async () => {
  kit = await openKit()
  client = await kit.newClient()
})
afterAll(() => kit.close())

const DAILY = { ...REPORT, cron: '30 6 * * *' }
const create = (body: object = {}): Promise<Answer> => client.call('POST', '/v1/schedules', { ...DAILY, ...body })
const patch = (id: string, body: object, headers: Record<string, string> = {}): Promise<Answer> =>
  client.call('PATCH', `/v1/schedules/${id}`, body, { 'content-type': 'application/merge-patch+json', ...headers })
const read = async (id: string) => (await client.call('GET', `/v1/schedules/${id}`)).json

describe('A new schedule', () => {
  test('answers 201 with what was asked, the defaults, and its next five ticks', async () => {
    const before = Date.now()
    const answer = await create()
    expect(answer.status).toBe(201)
    expect(answer.headers.get('location')).toBe(`${PUBLIC_URL}/v1/schedules/${answer.json.id}`)
    expect(answer.headers.get('etag')).toBe('"1"')
    expect(answer.json).toMatchObject({
      type: 'report.build',
      cron: '30 6 * * *',
      timezone: 'UTC',
      catchUp: 'none',
      paused: false,
      input: { month: '2026-10' },
      metadata: {},
      callback: { endpointId: null, url: null, events: null, retrySchedule: null },
      timeoutSeconds: null,
      maxTries: null,
      priority: 0,
      concurrencyKey: null,
      lastAt: null,
      revision: 1,
    })
    const { nextAt, upcoming } = answer.json
    expect(upcoming).toHaveLength(5)
    expect(upcoming[0]).toBe(nextAt)
    for (const [n, tick] of upcoming.entries()) {
      expect(tick).toMatch(/T06:30:00\.000Z$/)
      expect(Date.parse(tick)).toBe(Date.parse(nextAt) + n * 86_400_000)
    }
    expect(Date.parse(nextAt)).toBeGreaterThan(before)
    expect(Date.parse(nextAt)).toBeLessThanOrEqual(before + 86_400_000)
    const got = await client.call('GET', `/v1/schedules/${answer.json.id}`)
    expect([got.json, got.headers.get('etag')]).toEqual([answer.json, '"1"'])
  })

  test('keeps everything a task may be given, the input digit for digit', async () => {
    const { json: endpoint } = await client.call('POST', '/v1/endpoints', { url: 'https://app.example.net/ticks' })
    const given = {
      type: 'anything',
      cron: '*/10 * * * * *',
      timezone: 'America/St_Johns',
      catchUp: 'all',
      callback: { endpointId: endpoint.id, events: ['task.failed'], retrySchedule: [1, 2] },
      metadata: { orderId: 'A-17' },
      timeoutSeconds: 30,
      maxTries: 2,
      priority: -60,
      concurrencyKey: 'north',
      paused: true,
    }
    const body = `{"input":{"exact":1.10, "long":12345678901234567890},${JSON.stringify(given).slice(1)}`
    const { status, json, text } = await client.call('POST', '/v1/schedules', body)
    expect(status).toBe(201)
    expect(text).toContain('"input":{"exact":1.10, "long":12345678901234567890}')
    const { callback, ...rest } = given
    expect(json).toMatchObject({ ...rest, callback: { ...callback, url: null }, nextAt: null, upcoming: [] })
  })

  test('may be without callbacks, or have a callback under a verified endpoint', async () => {
    expect((await create({ callback: null })).json.callback).toBeNull()
    await client.call('POST', '/v1/endpoints', { url: 'https://app.example.net/under' })
    const under = await create({ callback: { url: 'https://app.example.net/under/17?x=1' } })
    expect(under.json.callback).toMatchObject({ url: 'https://app.example.net/under/17?x=1', endpointId: expect.any(String) })
  })

  test.each<[string, object, string, string, string]>([
    ['a bad pattern', { cron: '61 * * * *' }, 'validation_failed', '#/cron', 'Invalid value for minute: 61'],
    ['four fields', { cron: '0 0 * *' }, 'validation_failed', '#/cron', 'give five fields'],
    ['a day that never comes', { cron: '0 0 30 2 *' }, 'validation_failed', '#/cron', 'names no day that ever comes'],
    ['a pattern without end', { cron: `0 0 ${'1,'.repeat(150)}1 * *` }, 'validation_failed', '#/cron', 'at most 200 characters'],
    ['no time zone', { timezone: 'Europe/Berlni' }, 'validation_failed', '#/timezone', 'which is no time zone'],
    ['no catch-up', { catchUp: 'some' }, 'validation_failed', '#/catchUp', 'one of none, one, all'],
    ['an unknown type', { type: 'no.such' }, 'task_type_not_found', '#/type', 'names no task type'],
    ['a type of the context', { type: 'system.replay' }, 'task_type_not_found', '#/type', 'names no task type'],
    ['an input that does not fit', { input: { month: 7 } }, 'validation_failed', '#/input/month', 'string'],
    ['an input over 64 KiB', { type: 'anything', input: 'x'.repeat(65_536) }, 'validation_failed', '#/input', 'larger than 65536 bytes'],
    ['an endpoint of nobody', { callback: { endpointId: 'endpoint_x' } }, 'validation_failed', '#/callback/endpointId', 'none of your'],
    ['a URL of nobody', { callback: { url: 'https://else.example/x' } }, 'callback_url_not_verified', '#/callback/url', 'no verified'],
    ['a time for one task', { runAt: '2030-01-01T00:00:00Z' }, 'validation_failed', '#/runAt', 'not known'],
  ])('with %s is refused', async (_, body, code, pointer, words) => {
    const { status, json } = await create(body)
    expect([status, json.code, json.errors[0].pointer]).toEqual([422, code, pointer])
    expect(json.errors[0].detail).toContain(words)
  })
})

describe('A change', () => {
  test('of the pattern or the zone counts from now, moves the revision and takes the entity tag it is given', async () => {
    const { json } = await create()
    const moved = await patch(json.id, { cron: '0 5 * * *' }, { 'if-match': '"1"' })
    expect([moved.status, moved.headers.get('etag'), moved.json.revision]).toEqual([200, '"2"', 2])
    expect(moved.json.upcoming.every((tick: string) => tick.endsWith('T05:00:00.000Z'))).toBe(true)
    const stale = await patch(json.id, { cron: '0 4 * * *' }, { 'if-match': '"1"' })
    expect([stale.status, stale.json.code]).toEqual([412, 'precondition_failed'])
    const zoned = await patch(json.id, { timezone: 'Asia/Kolkata' })
    expect(zoned.json.nextAt).toMatch(/T23:30:00\.000Z$/)
    expect((await patch(json.id, { timezone: null })).json.timezone).toBe('UTC')
  })

  test('to a pause ends the ticks, and its end counts from now', async () => {
    const { json } = await create()
    expect((await patch(json.id, { paused: true })).json).toMatchObject({ paused: true, nextAt: null, upcoming: [], revision: 2 })
    expect((await patch(json.id, { cron: '0 5 * * *' })).json, 'a paused one may be changed').toMatchObject({
      nextAt: null,
      cron: '0 5 * * *',
    })
    const resumed = (await patch(json.id, { paused: null })).json
    expect(resumed).toMatchObject({ paused: false, revision: 4, nextAt: expect.stringMatching(/T05:00:00\.000Z$/) })
  })

  test('merges the input, the metadata and the callback, and null takes members away', async () => {
    const { json: endpoint } = await client.call('POST', '/v1/endpoints', { url: 'https://app.example.net/merged' })
    const { json } = await create({
      type: 'anything',
      input: { a: { b: 1, c: 2 }, d: 3 },
      metadata: { one: '1', two: '2' },
      callback: { endpointId: endpoint.id, events: ['task.failed'] },
      maxTries: 3,
    })
    const merged = await patch(json.id, {
      input: { a: { b: null, e: 5 } },
      metadata: { one: null, three: '3' },
      callback: { endpointId: null },
      maxTries: null,
    })
    expect(merged.json).toMatchObject({ input: { a: { c: 2, e: 5 }, d: 3 }, metadata: { two: '2', three: '3' }, maxTries: null })
    expect(merged.json.input.a).not.toHaveProperty('b')
    expect(merged.json.callback).toEqual({ endpointId: null, url: null, events: ['task.failed'], retrySchedule: null })
    expect((await patch(json.id, { callback: null, metadata: null, input: 'whole' })).json).toMatchObject({
      callback: null,
      metadata: {},
      input: 'whole',
    })
  })

  test('that changes nothing leaves the revision, and one that does not fit leaves everything', async () => {
    const { json } = await create()
    expect((await patch(json.id, {})).json).toEqual(json)
    expect((await patch(json.id, { cron: json.cron, timezone: 'UTC', catchUp: 'none', paused: false, priority: 0 })).json).toEqual(json)
    const many = Object.fromEntries(Array.from({ length: 17 }, (_, n) => [`key${n}`, 'x']))
    for (const [body, pointer] of [
      [{ cron: 'soon' }, '#/cron'],
      [{ timezone: 'nowhere' }, '#/timezone'],
      [{ input: { month: null } }, '#/input/month'],
      [{ input: null }, '#/input'],
      [{ metadata: many }, '#/metadata'],
      [{ callback: { events: [] } }, '#/callback/events'],
      [{ type: 'anything' }, '#/type'],
    ] as const) {
      const answer = await patch(json.id, body)
      expect([answer.status, answer.json.errors[0].pointer]).toEqual([422, pointer])
    }
    expect(await read(json.id)).toEqual(json)
  })

  test('of what is not its time keeps the tick that is planned', async () => {
    const { json } = await create({ cron: '* * * * * *' })
    const due = (await kit.store.schedules.find(json.id, null))!
    expect((await patch(json.id, { priority: 5 })).json.nextAt).toBe(new Date(due.nextAt!).toISOString())
  })

  test('never brings back a tick that was made, even where the clock was put back', async () => {
    const { json } = await create({ cron: '0 0 1 1 *' })
    const schedule = (await kit.store.schedules.find(json.id, null))!
    const far = schedule.nextAt! + 3_600_000
    const due = { id: schedule.id, nextAt: schedule.nextAt!, revision: schedule.revision, size: 100 }
    await kit.store.schedules.tick({ due, times: [schedule.nextAt!], nextAt: far, timeoutSeconds: 60, maxTries: 1 })
    const { json: moved } = await patch(json.id, { timezone: 'Africa/Abidjan' })
    expect(moved.lastAt).toBe(json.nextAt)
    expect(Date.parse(moved.nextAt)).toBeGreaterThan(Date.parse(moved.lastAt))
  })
})

test('Schedules are listed page by page, the operator’s among all of them or one client’s', async () => {
  const [one, two] = [await kit.newClient(), await kit.newClient()]
  const made: string[] = []
  for (let n = 0; n < 5; n++) made.push((await one.call('POST', '/v1/schedules', DAILY)).json.id)
  await two.call('POST', '/v1/schedules', DAILY)
  const seen: string[] = []
  for (let query = '?limit=2'; query !== ''; ) {
    const { json } = await one.call('GET', `/v1/schedules${query}`)
    seen.push(...json.data.map((item: { id: string }) => item.id))
    query = json.nextCursor === null ? '' : `?limit=2&cursor=${json.nextCursor}`
  }
  expect(seen).toEqual(made)
  const narrowed = await kit.admin.call('GET', `/v1/schedules?clientId=${two.id}`)
  expect(narrowed.json.data).toHaveLength(1)
  expect((await kit.admin.call('GET', '/v1/schedules?limit=200')).json.data.length).toBeGreaterThan(6)
  expect((await one.call('GET', `/v1/schedules?clientId=${one.id}`)).status).toBe(422)
  expect((await one.call('GET', '/v1/schedules?cursor=x')).json.code).toBe('invalid_cursor')
  expect((await kit.admin.call('PATCH', `/v1/schedules/${made[0]}`, { paused: true })).json.paused).toBe(true)
  expect((await kit.admin.call('DELETE', `/v1/schedules/${made[0]}`)).status).toBe(204)
})

test('A deleted schedule is gone, unless it has changed; the tasks it made stay', async () => {
  const { json } = await create()
  const schedule = (await kit.store.schedules.find(json.id, null))!
  const due = { id: schedule.id, nextAt: schedule.nextAt!, revision: 1, size: 100 }
  await kit.store.schedules.tick({ due, times: [schedule.nextAt!], nextAt: schedule.nextAt! + 1, timeoutSeconds: 60, maxTries: 1 })
  const path = `/v1/schedules/${json.id}`
  expect((await client.call('DELETE', path, undefined, { 'if-match': '"7"' })).status).toBe(412)
  expect((await client.call('DELETE', path, undefined, { 'if-match': '"1"' })).status).toBe(204)
  expect((await client.call('GET', path)).status).toBe(404)
  expect((await client.call('DELETE', path)).status).toBe(404)
  const { data } = (await client.call('GET', '/v1/tasks')).json
  const made = data.filter((task: { scheduleId: string }) => task.scheduleId === json.id)
  expect(made).toMatchObject([{ scheduleId: json.id, status: 'pending', runAt: json.nextAt, waitingFor: 'runAt' }])
})
