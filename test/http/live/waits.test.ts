import { setImmediate as turn } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createApp } from '../../../src/http/app.ts'
import { createOpenCallLimiter } from '../../../src/http/limits/open-calls.ts'
import { createWatchers } from '../../../src/http/live/waits.ts'
import type { Caller } from '../../../src/http/request/auth.ts'
import { type Client, type Kit, openKit, REPORT } from '../kit.ts'

/** In this kit a second of waiting takes 50 ms. */
let kit: Kit
let client: Client
beforeAll(async () => {
  kit = await openKit()
  client = await kit.newClient()
})
afterAll(() => kit.close())

const LATER = { ...REPORT, delaySeconds: 600 }
const still = new AbortController().signal
const timed = async <T>(work: Promise<T>): Promise<readonly [T, number]> => {
  const start = performance.now()
  return [await work, performance.now() - start]
}

test('a create with Prefer: wait answers 200 when the task ended in time, and says how long it would have waited', async () => {
  const added = Promise.withResolvers<void>()
  const forget = kit.store.notifications.onWork((kind) => kind === 'task' && added.resolve())
  const waiting = client.call('POST', '/v1/tasks', REPORT, { prefer: 'respond-async, wait=99' })
  await added.promise
  forget()
  const { id } = await kit.finish()
  const answer = await waiting
  expect([answer.status, answer.json.status, answer.json.id]).toEqual([200, 'completed', id])
  expect(answer.headers.get('preference-applied')).toBe('wait=60')
  expect(answer.headers.get('location')).toContain(id)
  expect(answer.headers.get('retry-after')).toBeNull()
})

test('a create whose time is over answers 202', async () => {
  const [answer, ms] = await timed(client.call('POST', '/v1/tasks', LATER, { prefer: 'wait=2' }))
  expect([answer.status, answer.headers.get('preference-applied')]).toEqual([202, 'wait=2'])
  expect(ms).toBeGreaterThan(95)
})

test('the wait is clamped to 1…60 seconds; the query wins; a malformed Prefer is ignored and a malformed ?wait refused', async () => {
  const applied = async (prefer: string, path = '/v1/tasks') =>
    (await client.call('POST', path, LATER, { prefer })).headers.get('preference-applied')
  expect(await applied('wait=0')).toBe('wait=1')
  expect(await applied('WAIT="1"; x')).toBe('wait=1')
  expect(await applied('wait=soon')).toBeNull()
  expect(await applied('wait=30', '/v1/tasks?wait=0')).toBeNull()
  for (const wait of ['soon', '-1', '1.5', ''])
    expect((await client.call('POST', `/v1/tasks?wait=${wait}`, LATER)).json.errors[0].pointer).toBe('#/query/wait')
})

test('a read without If-None-Match ends when the task does, not at a mere change', async () => {
  const { json } = await client.call('POST', '/v1/tasks', REPORT)
  let hasEnded = false
  const waiting = client.call('GET', `/v1/tasks/${json.id}?wait=60`).then((answer) => [hasEnded, answer.json.status])
  const { id, fence } = await kit.claim(json.id)
  await kit.store.tasks.reportProgress({ id, fence, progress: 50, message: 'half', notify: true })
  await client.call('GET', `/v1/tasks/${id}`)
  hasEnded = true
  await kit.store.tasks.settle({ id, fence, outcome: { kind: 'complete', result: '1' } })
  expect(await waiting).toEqual([true, 'completed'])
})

test('a read with If-None-Match ends at the first change', async () => {
  const { json } = await client.call('POST', '/v1/tasks', REPORT)
  const waiting = client.call('GET', `/v1/tasks/${json.id}`, undefined, { 'if-none-match': 'W/"1"', prefer: 'wait=60' })
  await turn()
  await kit.claim(json.id)
  const answer = await waiting
  expect([answer.status, answer.json.status, answer.headers.get('preference-applied')]).toEqual([200, 'running', 'wait=60'])
})

test('a read with If-None-Match answers 304 when the time is over, and at once when the task has ended', async () => {
  const { json } = await client.call('POST', '/v1/tasks', LATER)
  const read = (tag: string, wait: number) =>
    timed(client.call('GET', `/v1/tasks/${json.id}?wait=${wait}`, undefined, { 'if-none-match': tag }))
  const [over, ms] = await read('W/"1"', 2)
  expect([over.status, ms > 95]).toEqual([304, true])
  const { headers } = await client.call('POST', `/v1/tasks/${json.id}/cancel`)
  const [ended, shortMs] = await read(headers.get('etag') ?? '', 60)
  expect([ended.status, shortMs < 1_500]).toEqual([304, true])
  expect((await read('W/"1"', 60))[0].status).toBe(200)
})

test('a task that is erased while someone waits answers 410', async () => {
  const { json } = await client.call('POST', '/v1/tasks', LATER)
  const waiting = client.call('GET', `/v1/tasks/${json.id}?wait=60`, undefined, { 'if-none-match': 'W/"2"' })
  const gone = client.call('GET', `/v1/tasks/${json.id}?wait=60`)
  await turn()
  await kit.store.tasks.cancel({ id: json.id, clientId: null })
  await kit.store.tasks.erase({ id: json.id, clientId: null })
  for (const { status } of await Promise.all([waiting, gone])) expect([200, 410]).toContain(status)
})

test('two hundred calls that wait cost the store a few queries, and the stop answers them all', async () => {
  const { json } = await client.call('POST', '/v1/tasks', LATER)
  let queries = 0
  const findMany = (ids: readonly string[]) => {
    queries++
    return kit.store.tasks.findMany(ids)
  }
  const waits = createWatchers({ store: { ...kit.store, tasks: { findMany } }, clock: kit.clock })
  const all = Array.from({ length: 200 }, () => waits.waitForTask(json.id, () => false, 60_000, still))
  await client.call('GET', `/v1/tasks/${json.id}`)
  waits.stop()
  expect(await Promise.all(all)).toEqual(Array(200).fill(null))
  expect(queries).toBeLessThan(5)
  expect(await waits.waitForTask(json.id, () => false, 60_000, still)).toBeNull()
})

test('a caller that hangs up waits no longer', async () => {
  const { json } = await client.call('POST', '/v1/tasks', LATER)
  const hangUp = new AbortController()
  const waiting = kit.waits.waitForTask(json.id, () => false, 60_000, hangUp.signal)
  hangUp.abort()
  expect(await waiting).toBeNull()
})

test('a change without a notification is found by the repair', async () => {
  const { json } = await client.call('POST', '/v1/tasks', LATER)
  const clock = { ...kit.clock, after: (ms: number, wake: () => void) => kit.clock.after(ms / 50, wake) }
  const deaf = createWatchers({ store: { ...kit.store, notifications: { onTask: () => () => {} } }, clock })
  const waiting = deaf.waitForTask(json.id, (task) => task.state === 'canceled', 60_000, still)
  await client.call('POST', `/v1/tasks/${json.id}/cancel`)
  expect((await waiting)?.state).toBe('canceled')
  deaf.stop()
})

test('a store that is down does not end a wait early, and the wait goes on when it is back', async () => {
  const { json } = await client.call('POST', '/v1/tasks', LATER)
  const clock = { ...kit.clock, after: (ms: number, wake: () => void) => kit.clock.after(ms / 50, wake) }
  let failures = 3
  const findMany = (ids: readonly string[]) => (failures-- > 0 ? Promise.reject(new Error('down')) : kit.store.tasks.findMany(ids))
  const waits = createWatchers({ store: { ...kit.store, notifications: { onTask: () => () => {} }, tasks: { findMany } }, clock })
  const found = await waits.waitForTask(json.id, (task) => task.state === 'pending', 60_000, still)
  expect([found?.id, failures]).toEqual([json.id, -1])
  waits.stop()
})

test('the feed waits for the next event', async () => {
  const one = await kit.newClient()
  const { json } = await one.call('POST', '/v1/tasks', LATER)
  const empty = await timed(one.call('GET', '/v1/events?wait=2'))
  expect([empty[0].json.data, empty[1] > 95]).toEqual([[], true])
  const waiting = one.call('GET', `/v1/events?wait=60&after=${empty[0].json.nextCursor}`)
  await turn()
  await one.call('POST', `/v1/tasks/${json.id}/cancel`)
  expect((await waiting).json.data).toMatchObject([{ type: 'task.canceled', data: { id: json.id } }])
})

test.each([
  ['a task', 'waitForTask', (id: string) => `/v1/tasks/${id}?wait=60`],
  ['the feed', 'waitForFeed', () => '/v1/events?wait=60'],
] as const)('whose key is revoked while it waits for %s is told nothing', async (_what, method, path) => {
  const other = await kit.newClient()
  const { json } = await other.call('POST', '/v1/tasks', LATER)
  const waits = Promise.withResolvers<void>()
  const watched = {
    ...kit.waits,
    [method]: (...of: never[]) => {
      waits.resolve()
      return (kit.waits[method] as (...of: never[]) => unknown)(...of)
    },
  }
  const app = createApp({ ...kit.options, watchers: watched })
  const answer = app.request(path(json.id), { headers: { authorization: `Bearer ${other.key}` } })
  await waits.promise
  const [{ id }] = (await kit.admin.call('GET', `/v1/clients/${other.id}/keys`)).json.data
  await kit.admin.call('DELETE', `/v1/clients/${other.id}/keys/${id}`)
  await kit.admin.call('POST', `/v1/tasks/${json.id}/cancel`)
  expect((await answer).status).toBe(401)
})

test('the feed of some types may end a page early, and says where to go on, without waiting there', async () => {
  const reader = await kit.newClient()
  const ids: string[] = []
  for (let i = 0; i < 3; i++) {
    const { json } = await reader.call('POST', '/v1/tasks', LATER)
    await reader.call('POST', `/v1/tasks/${json.id}/cancel`)
    ids.push(json.id)
  }
  const findFeedReach = async (_clientId: string, after: number) => (after < 2 ? after + 1 : null)
  const app = createApp({ ...kit.options, store: { ...kit.store, events: { ...kit.store.events, findFeedReach } } })
  const ask = async (query: string) =>
    (await (await app.request(`/v1/events?${query}`, { headers: { authorization: `Bearer ${reader.key}` } })).json()) as {
      data: { data: { id: string } }[]
      hasMore: boolean
      nextCursor: string
    }
  const seen: string[] = []
  for (let after = '', hasMore = true; hasMore; ) {
    const page = await ask(`types=task.canceled&limit=1${after}`)
    seen.push(...page.data.map(({ data }) => data.id))
    ;({ hasMore } = page)
    after = `&after=${page.nextCursor}`
  }
  expect(seen).toEqual(ids)
  const [none, ms] = await timed(ask('types=task.failed&wait=60'))
  expect([none.data, none.hasMore]).toEqual([[], true])
  expect(ms).toBeLessThan(2_000)
  // Without types there is nothing to look past.
  expect((await ask('limit=10')).hasMore).toBe(false)
})

test('seats are counted by client and by node, and one that is given back can be taken again', async () => {
  const seats = createOpenCallLimiter({ node: 3, client: 2 }, 'calls', 'ask later')
  const [one, two] = ['client_1', 'client_2'].map((clientId) => ({ clientId }) as Caller)
  const held = Promise.withResolvers<string>()
  const [first, second] = [seats.runWithSlot(one!, () => held.promise), seats.acquire(one!)]
  expect(() => seats.acquire(one!)).toThrow('You have 2 calls open here, the maximum: ask later.')
  const third = seats.acquire(two!)
  expect(seats.limitError(two!)).toMatchObject({ status: 503, message: expect.stringContaining('3 calls are open here') })
  held.resolve('done')
  expect(await first).toBe('done')
  const fourth = seats.acquire(two!)
  await expect(seats.runWithSlot(one!, () => Promise.reject(new Error('failed')))).rejects.toThrow('3 calls are open')
  for (const giveBack of [second, third, fourth]) giveBack()
  await expect(seats.runWithSlot(one!, () => Promise.reject(new Error('failed')))).rejects.toThrow('failed')
  for (const _ of [1, 2]) seats.acquire(one!)
  expect(seats.limitError(one!)).toMatchObject({ status: 429, code: 'quota_exceeded' })
})

test.each([
  ['of its client', 429, 'quota_exceeded', { node: 1, client: 0 }],
  ['of the node', 503, 'temporary_reduced_capacity', { node: 0, client: 1 }],
])(
  'over the number %s a call that would wait is refused, and a submission is taken in and answered at once',
  async (_, status, code, most) => {
    const small = await openKit({ waitLimits: most })
    const one = await small.newClient()
    const created = await one.call('POST', '/v1/tasks', LATER, { prefer: 'wait=60' })
    expect([created.status, created.headers.get('preference-applied'), created.json.status]).toEqual([202, null, 'pending'])
    const path = `/v1/tasks/${created.json.id}`
    for (const asked of [`${path}?wait=60`, '/v1/events?wait=60']) {
      const refused = await one.call('GET', asked)
      expect(refused.json).toMatchObject({ status, code, detail: expect.stringContaining('without ?wait') })
      expect(refused.headers.get('retry-after')).toBe('10')
    }
    const endpoint = await one.call('POST', '/v1/endpoints', { url: 'https://app.example.net/hooks' })
    expect((await one.call('POST', `/v1/endpoints/${endpoint.json.id}/ping?wait=20`)).status).toBe(202)
    expect((await one.call('GET', path)).status).toBe(200)
    await small.close()
  },
)
