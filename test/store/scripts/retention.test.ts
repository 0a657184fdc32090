/** Retention removes old rows, and never work that is still owed. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Store } from '../../../src/store/interfaces.ts'
import { engines, type Ground, openGround } from '../../support/stores.ts'
import {
  addClient,
  addEndpoint,
  addTask,
  addTasks,
  claimDeliveries,
  claimTasks,
  completed,
  delivered,
  idOf,
  newTask,
  undeliverable,
} from '../../support/work.ts'

const DAY = 86_400_000

describe.each(engines)('retention on %s', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine)
    store = ground.store
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  const count = async (table: string): Promise<number> =>
    Number((await ground.sql<{ n: number | string }>(`select count(*) as n from ${table}`))[0]!.n)
  const finishAll = async (): Promise<void> => {
    const tasks = await claimTasks(store, { limit: 500 })
    await Promise.all(tasks.map((task) => store.tasks.settle(completed(task))))
  }
  const deliverAll = async (): Promise<void> => {
    for (const owed of await claimDeliveries(store, { limit: 500 })) await store.deliveries.settle(delivered(owed))
  }
  /** Prunes all pages of tasks. Returns how many were removed. */
  const age = async (limit = 500): Promise<number> => {
    let removed = 0
    let after = ''
    for (;;) {
      const aged = await store.maintenance.pruneTasks({ after, limit, minKeptMs: DAY })
      removed += aged.removed
      if (aged.next === null) return removed
      after = aged.next
    }
  }

  test('a task that ended a week ago is removed with its events, deliveries, attempts and labels, and is gone for another week', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    const task = await addTask(store, { clientId, metadata: '{"order":"7"}' })
    await finishAll()
    await deliverAll()
    await ground.pass(7 * DAY - 60_000)
    expect(await age()).toBe(0)
    await ground.pass(120_000)
    expect(await age()).toBe(1)
    for (const table of ['tasks', 'deliveries', 'attempts', 'labels']) expect(await count(table), table).toBe(0)
    expect(await store.events.list({ clientId, after: 0, limit: 10 })).toEqual([])
    expect(await store.tasks.find(task.id, clientId)).toEqual({ kind: 'gone' })
    await ground.pass(7 * DAY)
    await store.maintenance.pruneRecords({ limit: 10 })
    expect(await store.tasks.find(task.id, clientId)).toEqual({ kind: 'missing' })
  })

  test('pending, running and retried tasks and those with open deliveries stay at any age', async () => {
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId })
    const owed = await addTask(store, { clientId })
    await finishAll()
    await store.endpoints.change({ id: endpointId, clientId, patch: { paused: true }, revision: null })
    const running = await addTask(store, { clientId, callback: null })
    await claimTasks(store)
    const waiting = await addTask(store, { clientId, callback: null, dueAt: (await store.now()) + 90 * DAY })
    const retried = await addTask(store, { clientId, callback: null })
    await store.tasks.cancel({ id: retried.id, clientId })
    await ground.pass(20 * DAY)
    await store.tasks.redo({ id: retried.id, clientId })
    expect(await age()).toBe(0)
    expect((await store.tasks.findMany([owed.id, running.id, waiting.id, retried.id])).length).toBe(4)
    await store.endpoints.change({ id: endpointId, clientId, patch: { paused: false }, revision: null })
    await deliverAll()
    expect(await age(), 'once it was delivered').toBe(1)
  })

  test('pruning continues past tasks that stay, page by page, and ends at young tasks', async () => {
    const clientId = await addClient(store)
    const stay = await addTasks(store, 30, { clientId, callback: null, dueAt: (await store.now()) + 90 * DAY })
    await addTasks(store, 25, { clientId, callback: null })
    await finishAll()
    await ground.pass(8 * DAY)
    // Ids use the clock of this machine, which does not advance in this test.
    await store.tasks.add({ tasks: [newTask({ clientId, callback: null })], idempotency: null })
    expect(await age(10)).toBe(25)
    expect(await count('tasks')).toBe(stay.length + 1)
    expect(await age(10), 'again from the beginning').toBe(0)
  })

  test('endpoint events are removed a week after they were settled, with deliveries and attempts; a deleted endpoint when no rows of it are left', async () => {
    const clientId = await addClient(store)
    const [gone, paused, deleted] = [
      await addEndpoint(store, { clientId }),
      await addEndpoint(store, { clientId }),
      await addEndpoint(store, { clientId }),
    ]
    const ping = (endpointId: string) =>
      store.endpoints.addPing({ ping: { endpointId, clientId, eventId: idOf('event'), deliveryId: idOf('delivery') } })
    await ping(gone)
    await ping(deleted)
    for (const owed of await claimDeliveries(store))
      await store.deliveries.settle(owed.endpointId === gone ? undeliverable(owed, { disable: 'gone' }) : delivered(owed))
    await store.endpoints.change({ id: paused, clientId, patch: { paused: true }, revision: null })
    await store.endpoints.remove({ id: deleted, clientId })
    expect(
      (await ground.sql<{ secret: string }>(`select secret from endpoints where id = '${deleted}'`))[0]!.secret,
      'erased at once',
    ).toBe('')
    const news = async (limit = 500): Promise<number> => {
      let removed = 0
      for (let after: string | null = ''; after !== null; ) {
        const aged: { removed: number; next: string | null } = await store.maintenance.pruneEndpointEvents({
          after,
          limit,
          keptMs: 7 * DAY,
        })
        removed += aged.removed
        after = aged.next
      }
      return removed
    }
    await ground.pass(7 * DAY - 60_000)
    expect(await news()).toBe(0)
    await ground.pass(120_000)
    expect(await news(1), 'two pings with their deliveries, what the deletion canceled, and the endpoint').toBe(6)
    expect(await store.events.list({ clientId, after: 0, limit: 10 }).then((all) => all.map(({ type }) => type))).toEqual([
      'endpoint.disabled',
    ])
    expect([await count('deliveries'), await count('attempts'), await count('endpoints')], 'what is held stays').toEqual([1, 0, 2])
    await store.endpoints.change({ id: paused, clientId, patch: { paused: false }, revision: null })
    await deliverAll()
    expect(await news()).toBe(0)
    await ground.pass(7 * DAY + 60_000)
    expect(await news()).toBe(2)
    for (const table of ['events', 'deliveries', 'attempts']) expect(await count(table), table).toBe(0)
  })

  test('an idempotency key is removed after one day; the rows of an erased task are removed with its tombstone', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    const idempotency = { clientId, scope: 'POST /v1/tasks', key: 'k', fingerprint: 'f' }
    const task = newTask({ clientId })
    await store.tasks.add({ tasks: [task], idempotency })
    await finishAll()
    await deliverAll()
    await store.tasks.erase({ id: task.id, clientId })
    expect(await store.maintenance.pruneRecords({ limit: 10 })).toBe(false)
    expect(await count('idempotency')).toBe(1)
    await ground.pass(DAY + 1_000)
    expect(await store.maintenance.pruneRecords({ limit: 1 }), 'there may be more').toBe(true)
    expect(await count('idempotency')).toBe(0)
    expect(await count('deliveries')).toBe(1)
    await ground.pass(7 * DAY)
    await store.maintenance.pruneRecords({ limit: 10 })
    for (const table of ['deliveries', 'attempts', 'tombstones']) expect(await count(table), table).toBe(0)
  })

  test('tasks with thousands of attempts are removed a few at a time, and no statement removes more than 500 rows', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId, events: '["task.completed","task.progress"]' })
    await addTasks(store, 4, { clientId })
    await finishAll()
    await deliverAll()
    await ground.pass(8 * DAY)
    const series = (n: number) => `(with recursive s(n) as (select 2 union all select n + 1 from s where n < ${n}) select n from s) s`
    const rest = 'started_at, duration_ms, outcome, timings, response_headers'
    await ground.sql(
      `insert into attempts (delivery_id, fence, ${rest}) select delivery_id, s.n, ${rest} from attempts, ${series(1_300)} where fence = 1`,
    )
    await ground.sql(`update deliveries set tries = 1300, fence = 1300, max_tries = 1300`)
    await ground.sql(`insert into events (id, client_id, task_id, type, terminal, generation, revision, seq, body, created_at)
      select id || s.n, client_id, task_id, 'task.progress', 0, generation, revision, seq + 100 * s.n, body, created_at from events, ${series(700)} where terminal = 1`)
    const first = await store.maintenance.pruneTasks({ after: '', limit: 500, minKeptMs: DAY })
    expect(first.removed).toBe(3)
    expect(first.next).not.toBeNull()
    expect(await age()).toBe(1)
    for (const table of ['tasks', 'deliveries', 'attempts', 'events']) expect(await count(table), table).toBe(0)
  })

  test('lanes of unused concurrency keys are removed, those in use stay, and a key still runs one task at a time', async () => {
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId })
    const keyed = (key: string) => addTask(store, { clientId, concurrencyKey: key, callback: null })
    const lanesOf = async () => (await ground.sql<{ id: string }>('select id from lanes order by id')).map(({ id }) => id)
    await keyed('done')
    await keyed('runs')
    await finishAll()
    await keyed('runs')
    await claimTasks(store)
    await addTask(store, { clientId, concurrencyKey: 'waits', dueAt: (await store.now()) + DAY })
    expect(await store.maintenance.pruneLanes({ after: '', limit: 2 })).not.toBeNull()
    expect(await store.maintenance.pruneLanes({ after: '', limit: 500 })).toBeNull()
    const lanes = await lanesOf()
    expect(lanes).toEqual(expect.arrayContaining([endpointId, `${clientId}/report.build/runs`, `${clientId}/report.build/waits`]))
    expect(lanes).not.toContain(`${clientId}/report.build/done`)
    // A lane that was removed while a task was added is created again by the claim, with its limit.
    await addTasks(store, 3, { clientId, concurrencyKey: 'new', callback: null })
    await ground.sql(`delete from lanes where id = '${clientId}/report.build/new'`)
    expect(await claimTasks(store)).toHaveLength(1)
    expect(await claimTasks(store)).toHaveLength(0)
  })
})
