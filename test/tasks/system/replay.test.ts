/** Replay: what a filter matches is sent again, each event once, whatever happens to whoever does it. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { State } from '../../../src/core/model.ts'
import type { ReplayFilter, Store } from '../../../src/store/interfaces.ts'
import { openPlatform } from '../../support/platform.ts'
import { openReceiver } from '../../support/receiver.ts'
import { engines, type Ground, openGround } from '../../support/stores.ts'
import {
  addClient,
  addEndpoint,
  addTask,
  addTasks,
  claimDeliveries,
  claimOne,
  claimTasks,
  completed,
  delivered,
  idOf,
  undeliverable,
} from '../../support/work.ts'

const ENDED: readonly State[] = ['completed', 'failed', 'canceled']

describe.each(engines)('replay on %s', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine)
    store = ground.store
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  /** Events of finished tasks; every one in `failing` ends as failed, the others as delivered. */
  const deliver = async (clientId: string, events: number, failing = (_i: number) => false): Promise<string[]> => {
    await addTasks(store, events, { clientId })
    const tasks = await claimTasks(store, { limit: events })
    await Promise.all(tasks.map((task) => store.tasks.settle(completed(task))))
    const ids: string[] = []
    for (let i = 0; i < events; ) {
      for (const owed of await claimDeliveries(store)) {
        ids.push(owed.eventId)
        await store.deliveries.settle(failing(i++) ? undeliverable(owed) : delivered(owed))
      }
    }
    return ids
  }
  const filter = async (clientId: string, more: Partial<ReplayFilter> = {}): Promise<ReplayFilter> => {
    // Its end does not count what happens in that very millisecond.
    await ground.pass(1)
    const now = await store.now()
    return { clientId, endpointId: null, since: null, until: now, asOf: now, states: ENDED, eventTypes: null, ...more }
  }
  const begin = async (clientId: string) => {
    await addTask(store, { clientId, type: 'system.replay', callback: null })
    return claimOne(store, {}, ['system.replay'])
  }
  const count = async (wanted: ReplayFilter): Promise<number> => {
    let [matched, after] = [0, null as { at: number; id: string } | null]
    do {
      const page = await store.deliveries.countReplay(wanted, after)
      matched += page.matched
      after = page.next
    } while (after)
    return matched
  }
  const sendAll = async () => {
    const sent = []
    for (let found = await claimDeliveries(store); found.length > 0; found = await claimDeliveries(store)) {
      sent.push(...found)
      for (const owed of found) await store.deliveries.settle(delivered(owed))
    }
    return sent
  }

  test('every event of a filter is sent again with the same bytes and its own tries, after new events', async () => {
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId, format: 'cloudevents' })
    await addEndpoint(store, { clientId: await addClient(store) })
    const ids = await deliver(clientId, 5, (i) => i % 2 === 0)
    const before = await store.deliveries.list({ clientId, limit: 100, after: null })
    const failed = await filter(clientId, { states: ['failed'], endpointId })
    expect(await count(failed)).toBe(3)
    await ground.pass(10)
    const task = await begin(clientId)
    expect(await store.deliveries.runReplayPage({ lease: task, filter: failed })).toEqual({
      after: null,
      done: true,
      replayed: 3,
      skipped: 0,
    })
    const made = (await store.deliveries.list({ clientId, limit: 100, after: null })).items.filter(({ trigger }) => trigger === 'replay')
    expect(made).toHaveLength(3)
    const original = new Map(before.items.map((delivery) => [delivery.eventId, delivery]))
    for (const delivery of made) {
      expect(ids).toContain(delivery.eventId)
      expect(original.get(delivery.eventId)).toMatchObject({ state: 'failed', body: delivery.body, endpointId, url: delivery.url })
      expect(delivery).toMatchObject({ state: 'pending', tries: 0, maxTries: 4, line: 1 })
    }
    expect((await sendAll()).map(({ eventId }) => eventId).sort()).toEqual(made.map(({ eventId }) => eventId).sort())
  })

  test('an event counts by its latest delivery: a delivered one is no longer failed, and no event is sent twice', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    const [id] = await deliver(clientId, 1, () => true)
    const { items } = await store.deliveries.list({ clientId, limit: 10, after: null })
    await ground.pass(10)
    await store.deliveries.redeliver({ id: items[0]!.id, newId: idOf('delivery'), clientId })
    await ground.pass(1)
    expect(await count(await filter(clientId, { states: ['failed'] })), 'one is under way').toBe(0)
    await sendAll()
    expect(await count(await filter(clientId, { states: ['failed'] }))).toBe(0)
    expect(await count(await filter(clientId))).toBe(1)
    await ground.pass(10)
    const all = await filter(clientId)
    await store.deliveries.runReplayPage({ lease: await begin(clientId), filter: all })
    expect((await sendAll()).map(({ eventId }) => eventId)).toEqual([id])
  })

  test('time, endpoint and event type filter a replay, and pings and ownership challenges are never replayed', async () => {
    const clientId = await addClient(store)
    const one = await addEndpoint(store, { clientId })
    const two = await addEndpoint(store, { clientId, taskTypes: '["none"]' })
    await deliver(clientId, 2)
    await ground.pass(1_000)
    const since = await store.now()
    await ground.pass(1_000)
    await deliver(clientId, 1)
    await store.endpoints.addPing({ ping: { endpointId: one, clientId, eventId: idOf('event'), deliveryId: idOf('delivery') } })
    await sendAll()
    expect(await count(await filter(clientId))).toBe(3)
    // Time is moved under the rows of PostgreSQL, so that what was read before stands further back.
    if (engine === 'sqlite') {
      expect(await count(await filter(clientId, { since }))).toBe(1)
      expect(await count(await filter(clientId, { until: since }))).toBe(2)
    }
    expect(await count(await filter(clientId, { endpointId: two }))).toBe(0)
    expect(await count(await filter(clientId, { eventTypes: ['task.failed'] }))).toBe(0)
    expect(await count(await filter(await addClient(store)))).toBe(0)
  })

  test('over several pages and a node crash every event is sent again once, and a stale claim writes nothing', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId, maxInFlight: 1_000 })
    await deliver(clientId, 5)
    // 2,500 more of the same, copied in the store: more than two pages.
    const columns =
      'client_id, lane_id, state, line, rank, due_at, tries, max_tries, fence, event_type, task_id, endpoint_id, trigger, created_at, updated_at, finished_at'
    const many =
      engine === 'postgres'
        ? 'generate_series(1, 500) s(n)'
        : '(with recursive s(n) as (select 1 union all select n + 1 from s where n < 500) select n from s) s'
    await ground.sql(
      `insert into events (id, client_id, type, terminal, generation, revision, seq, body, created_at)
        select e.id || '_' || s.n, client_id, type, 0, generation, revision, seq * 1000 + s.n, body, created_at from events e, ${many} where terminal = 1`,
    )
    await ground.sql(
      `insert into deliveries (id, event_id, ${columns}) select d.id || '_' || s.n, event_id || '_' || s.n, ${columns} from deliveries d, ${many}`,
    )
    await ground.pass(10)
    const all = await filter(clientId)
    expect(await count(all)).toBe(2_505)
    const first = await begin(clientId)
    expect(await store.deliveries.runReplayPage({ lease: first, filter: all })).toMatchObject({ done: false, replayed: 1_000 })
    expect(await store.deliveries.runReplayPage({ lease: first, filter: all })).toMatchObject({ done: false, replayed: 2_000 })
    // Its node is lost; another one goes on.
    await store.tasks.settle({ id: first.id, fence: first.fence, outcome: { kind: 'retry', delayMs: 0, error: null } })
    const second = await claimOne(store, { leasedBy: 'boot_b' }, ['system.replay'])
    expect(await store.deliveries.runReplayPage({ lease: first, filter: all }), 'a stale claim').toBe(null)
    expect(await store.deliveries.runReplayPage({ lease: second, filter: all })).toMatchObject({ done: true, replayed: 2_505 })
    expect(await store.deliveries.runReplayPage({ lease: second, filter: all }), 'once more after the end').toMatchObject({
      done: true,
      replayed: 2_505,
    })
    const [{ n, distinct }] = (await ground.sql<{ n: number; distinct: number }>(
      `select count(*) as n, count(distinct event_id) as "distinct" from deliveries where trigger = 'replay'`,
    )) as [{ n: number; distinct: number }]
    expect([Number(n), Number(distinct)]).toEqual([2_505, 2_505])
  })

  test('erased events and events of deleted endpoints are skipped and counted', async () => {
    const clientId = await addClient(store)
    const gone = await addEndpoint(store, { clientId })
    await addEndpoint(store, { clientId })
    const task = await addTask(store, { clientId })
    await store.tasks.settle(completed(await claimOne(store)))
    for (const owed of await claimDeliveries(store)) await store.deliveries.settle(delivered(owed))
    await deliver(clientId, 1)
    await sendAll()
    await store.tasks.erase({ id: task.id, clientId })
    await store.endpoints.remove({ id: gone, clientId })
    await ground.pass(10)
    const all = await filter(clientId)
    const page = await store.deliveries.runReplayPage({ lease: await begin(clientId), filter: all })
    expect(page).toMatchObject({ done: true, replayed: 1 })
    expect(page!.skipped).toBeGreaterThanOrEqual(1)
  })
})

test('a replay is a task: it is counted first, answered with 202, followed to its result, and its webhooks arrive again with the same ids', async () => {
  const receiver = await openReceiver()
  const platform = await openPlatform()
  await platform.call('POST', '/v1/endpoints', { url: `${receiver.url}/hooks` })
  for (let i = 0; i < 3; i++) await platform.call('POST', '/v1/tasks', { type: 'echo', input: { i } })
  await receiver.receives(3)
  const ended = async () => (await platform.call('GET', '/v1/deliveries?status=delivered')).data.length
  await platform.until(async () => (await ended()) === 3)
  await platform.pass(1_000)
  expect(await platform.call('POST', '/v1/deliveries/replay', { dryRun: true })).toEqual({ matched: 3 })
  expect(await platform.call('POST', '/v1/deliveries/replay', { dryRun: true, statuses: ['failed'] })).toEqual({ matched: 0 })
  const task = await platform.call('POST', '/v1/deliveries/replay')
  expect(task).toMatchObject({ type: 'system.replay', status: 'pending' })
  await platform.until(async () => (await platform.call('GET', `/v1/tasks/${task.id}`)).status === 'completed')
  expect((await platform.call('GET', `/v1/tasks/${task.id}`)).result).toEqual({ matched: 3, replayed: 3, skipped: 0 })
  await receiver.receives(6)
  const ids = receiver.arrivals.map(({ id }) => id)
  expect(ids.slice(3).sort()).toEqual(ids.slice(0, 3).sort())
  await platform.pass(60_000)
  expect(receiver.arrivals, 'the replay itself rings nobody').toHaveLength(6)
  await expect(platform.call('POST', '/v1/tasks', { type: 'system.replay', input: {} })).rejects.toThrow('task_type_not_found')
  await expect(platform.call('POST', '/v1/deliveries/replay', { endpointId: 'endpoint_1' })).rejects.toThrow('#/endpointId')
  await expect(
    platform.call('POST', '/v1/deliveries/replay', { since: '2026-11-22T10:00:00Z', until: '2026-11-21T10:00:00Z' }),
  ).rejects.toThrow('#/until')
  await expect(platform.operate('POST', '/v1/deliveries/replay')).rejects.toThrow('403')
  await receiver.close()
})
