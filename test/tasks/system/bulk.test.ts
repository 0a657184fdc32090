/** Cancel and retry by filter: each task once, whatever happens to whoever does it. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../../src/core/clock.ts'
import type { Task } from '../../../src/core/model.ts'
import { createOpenTaskBudget } from '../../../src/engine/open-tasks.ts'
import { toTryInput } from '../../../src/engine/run-try.ts'
import type { BulkFilter, Store } from '../../../src/store/interfaces.ts'
import { Postpone } from '../../../src/tasks/define.ts'
import { createBulkTypes } from '../../../src/tasks/system/bulk.ts'
import { openPlatform } from '../../support/platform.ts'
import { engines, type Ground, openGround } from '../../support/stores.ts'
import { addClient, addEndpoint, addTask, addTasks, claimOne, claimTasks, completed, failed, findTask } from '../../support/work.ts'

const LIVE = ['pending', 'running'] as const
const ENDED = ['failed', 'canceled'] as const

describe.each(engines)('by filter on %s', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine)
    store = ground.store
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  const filter = async (clientId: string, more: Partial<BulkFilter> = {}): Promise<BulkFilter> => {
    // Its end does not count what happens in that very millisecond.
    await ground.pass(1)
    return { clientId, states: LIVE, createdBefore: await store.now(), ...more }
  }
  const begin = async (clientId: string, type = 'system.cancel'): Promise<Task> => {
    await addTask(store, { clientId, type, callback: null })
    return claimOne(store, {}, [type])
  }
  const count = async (wanted: BulkFilter): Promise<number> => {
    let [matched, after] = [0, null as { at: number; id: string } | null]
    do {
      const page = await store.tasks.countBulk(wanted, after)
      matched += page.matched
      after = page.next
    } while (after)
    return matched
  }
  const walk = async (lease: Task, wanted: BulkFilter) => {
    for (let pages = 1; ; pages++) {
      const page = await store.tasks.runBulkPage({ lease, filter: wanted })
      if (page === null || page.done) return { page, pages }
    }
  }
  const states = async (tasks: readonly Task[]) => (await store.tasks.findMany(tasks.map(({ id }) => id))).map(({ state }) => state)
  const number = async (text: string): Promise<number> => Number((await ground.sql<{ n: number | string }>(text))[0]!.n)

  test('pending tasks are canceled with one terminal event each, and running tasks are interrupted at once', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    const pending = await addTasks(store, 3, { clientId })
    const keyed = await addTasks(store, 2, { clientId, concurrencyKey: 'a' })
    await addTask(store, { clientId, type: 'mail.send' })
    const running = await claimOne(store, {}, ['mail.send'])
    const wanted = await filter(clientId)
    expect(await count(wanted)).toBe(6)
    const lease = await begin(clientId)
    const heard: string[] = []
    const changed: string[] = []
    store.notifications.onCancelRequest((id) => heard.push(id))
    store.notifications.onTask((id) => changed.push(id))
    expect((await walk(lease, wanted)).page).toEqual({ after: null, done: true, changed: 6, asked: 1 })
    await new Promise((resolve) => setImmediate(resolve))
    expect(heard).toEqual([running.id])
    expect(changed.sort()).toEqual([...pending, ...keyed, running].map(({ id }) => id).sort())
    expect(new Set(await states([...pending, ...keyed]))).toEqual(new Set(['canceled']))
    const asked = await findTask(store, running.id)
    expect(asked).toMatchObject({ state: 'running', revision: running.revision + 1 })
    expect(asked.cancelRequestedAt).not.toBe(null)
    expect(await store.maintenance.renew({ kind: 'task', leases: [running], leaseMs: 30_000 })).toMatchObject([{ cancelRequested: true }])
    expect(await count(await filter(clientId)), 'who was asked is not asked again').toBe(0)
    const [{ events, deliveries }] = (await ground.sql<{ events: number; deliveries: number }>(
      `select (select count(*) from events where terminal = 1 and type = 'task.canceled') as events,
        (select count(*) from deliveries where event_type = 'task.canceled') as deliveries`,
    )) as [{ events: number; deliveries: number }]
    expect([Number(events), Number(deliveries)]).toEqual([5, 5])
  })

  test('a canceled running task frees its slot for the next of its key, and one that never ran leaves its lane unchanged', async () => {
    const clientId = await addClient(store)
    await addTasks(store, 2, { clientId, concurrencyKey: 'a' })
    const first = await claimOne(store)
    await walk(await begin(clientId), await filter(clientId, { states: ['pending'] }))
    const later = await addTask(store, { clientId, concurrencyKey: 'a' })
    expect(await claimTasks(store)).toEqual([])
    await store.tasks.settle(completed(first))
    expect((await claimTasks(store)).map(({ id }) => id)).toEqual([later.id])
  })

  test('failed and canceled tasks start a new generation at once, by priority', async () => {
    const clientId = await addClient(store)
    await addTasks(store, 4, { clientId })
    const [one, two, three] = (await claimTasks(store)) as [Task, Task, Task]
    await store.tasks.settle(failed(one))
    await store.tasks.settle(failed(two))
    await store.tasks.cancel({ id: three.id, clientId })
    await store.tasks.settle(failed(three))
    const high = await addTask(store, { clientId, priority: 3600 })
    await store.tasks.cancel({ id: high.id, clientId })
    const wanted = await filter(clientId, { states: ENDED })
    expect(await count(wanted)).toBe(4)
    expect((await walk(await begin(clientId, 'system.retry'), wanted)).page).toMatchObject({ done: true, changed: 4, asked: 0 })
    const again = await claimTasks(store)
    expect(again.map(({ id }) => id).sort()).toEqual([one.id, two.id, three.id, high.id].sort())
    expect(again.every(({ generation, tries, error }) => generation === 2 && tries === 1 && error === null)).toBe(true)
  })

  test('a bulk retry waits while its client has its maximum of open tasks, and continues when some have ended', async () => {
    const clientId = await addClient(store)
    const again = await addTasks(store, 2, { clientId })
    for (const { id } of again) await store.tasks.cancel({ id, clientId })
    const open = await addTasks(store, 3, { clientId })
    const lease = await begin(clientId, 'system.retry')
    const { createdBefore } = await filter(clientId)
    const input = { states: ENDED, type: null, metadata: null, createdAfter: null, createdBefore: new Date(createdBefore).toISOString() }
    const run = async (): Promise<unknown> => {
      const room = createOpenTaskBudget({ store, clock: systemClock(), maxOpenTasks: 1_000, maxOpenTasksPerClient: 4 })
      const type = createBulkTypes(store, room).find((it) => it.type === 'system.retry')!
      const silent = { info() {}, warn() {} }
      return type.run(input, { ...toTryInput(lease), signal: new AbortController().signal, progress() {}, log: silent } as never)
    }
    await expect(run()).rejects.toBeInstanceOf(Postpone)
    expect(await states(again)).toEqual(['canceled', 'canceled'])
    for (const { id } of open) await store.tasks.cancel({ id, clientId })
    expect(await run()).toEqual({ retried: 5 })
    expect(await states(again)).toEqual(['pending', 'pending'])
  })

  test('the filter selects by status, type, metadata and time, and leaves out other clients’ tasks, system tasks and later tasks', async () => {
    const clientId = await addClient(store)
    const foreign = await addTasks(store, 2, { clientId: await addClient(store), metadata: '{"order":"A"}' })
    const own = await addTask(store, { clientId, type: 'system.replay' })
    await addTasks(store, 2, { clientId, metadata: '{"order":"A"}' })
    await addTask(store, { clientId, metadata: '{"order":"B"}' })
    await addTask(store, { clientId, type: 'mail.send', metadata: '{"order":"A"}' })
    await claimOne(store, {}, ['mail.send'])
    expect(await count(await filter(clientId))).toBe(4)
    expect(await count(await filter(clientId, { states: ['running'] }))).toBe(1)
    expect(await count(await filter(clientId, { type: 'report.build' }))).toBe(3)
    expect(await count(await filter(clientId, { metadata: { key: 'order', value: 'A' } }))).toBe(3)
    expect(await count(await filter(clientId, { metadata: { key: 'order', value: 'A' }, type: 'mail.send' }))).toBe(1)
    expect(await count(await filter(clientId, { type: 'system.replay' }))).toBe(0)
    const wanted = await filter(clientId)
    expect(await count({ ...wanted, createdAfter: wanted.createdBefore - 1 })).toBe(0)
    const later = await addTask(store, { clientId })
    await walk(await begin(clientId), wanted)
    expect(await states([...foreign, own, later])).toEqual(['pending', 'pending', 'pending', 'pending'])
    expect(
      await number(`select count(*) as n from tasks where client_id = '${clientId}' and type like 'system.%' and state = 'canceled'`),
    ).toBe(0)
  })

  test('over many pages, with a node lost between two of them, each task is canceled exactly once', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    await addTasks(store, 500, { clientId })
    await addTasks(store, 500, { clientId, type: 'mail.send' })
    await addTasks(store, 300, { clientId })
    const wanted = await filter(clientId, { type: 'report.build' })
    const first = await begin(clientId)
    expect(await store.tasks.runBulkPage({ lease: first, filter: wanted })).toMatchObject({ done: false, changed: 500 })
    // Its node is lost; another one goes on.
    await store.tasks.settle({ id: first.id, fence: first.fence, outcome: { kind: 'retry', delayMs: 0, error: null } })
    await ground.pass(1)
    const second = await claimOne(await ground.anotherNode(), { leasedBy: 'boot_b' }, ['system.cancel'])
    expect(await store.tasks.runBulkPage({ lease: first, filter: wanted }), 'a stale claim').toBe(null)
    const { page, pages } = await walk(second, wanted)
    expect(page).toMatchObject({ done: true, changed: 800 })
    expect(pages).toBeLessThanOrEqual(3)
    expect(await store.tasks.runBulkPage({ lease: second, filter: wanted }), 'once more after the end').toMatchObject({
      done: true,
      changed: 800,
    })
    expect(await number(`select count(*) as n from tasks where state = 'canceled' and revision = 2 and type = 'report.build'`)).toBe(800)
    expect(await number(`select count(*) as n from tasks where state = 'pending' and type = 'mail.send'`)).toBe(500)
    expect(await number(`select count(*) as n from deliveries where event_type = 'task.canceled'`)).toBe(800)
  })

  test('a page of large tasks is shorter', async () => {
    const clientId = await addClient(store)
    await addTasks(store, 6, { clientId, input: JSON.stringify('x'.repeat(3 * 1024 * 1024)) })
    const wanted = await filter(clientId)
    const lease = await begin(clientId)
    expect(await store.tasks.runBulkPage({ lease, filter: wanted })).toMatchObject({ done: false, changed: 2 })
    expect(await walk(lease, wanted)).toMatchObject({ page: { changed: 6 }, pages: 2 })
  })

  test('each task ends once while other nodes claim and settle the same tasks', async () => {
    const clientId = await addClient(store)
    const tasks = [...(await addTasks(store, 500, { clientId })), ...(await addTasks(store, 500, { clientId }))]
    const wanted = await filter(clientId)
    const lease = await begin(clientId)
    const node = await ground.anotherNode()
    const work = async (): Promise<number> => {
      let done = 0
      for (let found = await claimTasks(node, { limit: 20 }); found.length > 0; found = await claimTasks(node, { limit: 20 })) {
        done += found.length
        await Promise.all(found.map((task) => node.tasks.settle(completed(task))))
        await node.maintenance.renew({ kind: 'task', leases: [lease], leaseMs: 30_000 })
      }
      return done
    }
    const [ran, { page }] = await Promise.all([work(), walk(lease, wanted)])
    const ends = await states(tasks)
    expect(ends.filter((state) => state === 'completed').length).toBe(ran)
    expect(ends.filter((state) => state === 'canceled').length).toBe(1_000 - ran)
    expect(page!.changed - page!.asked).toBeLessThanOrEqual(1_000 - ran)
    expect(await number('select count(*) as n from events where terminal = 1')).toBe(1_000)
  })
})

test('canceling by filter is a task: it is counted first, answered with 202 and a location, and interrupts running handlers', async () => {
  const platform = await openPlatform()
  const later = { type: 'echo', input: 1, delaySeconds: 3600 }
  for (const order of ['A', 'A', 'B']) await platform.call('POST', '/v1/tasks', { ...later, metadata: { order } })
  await platform.pass(1_000)
  const all = { status: ['pending'], type: 'echo' }
  expect(await platform.call('POST', '/v1/tasks/cancel', { ...all, dryRun: true })).toEqual({ matched: 3 })
  expect(await platform.call('POST', '/v1/tasks/retry', { dryRun: true })).toEqual({ matched: 0 })
  const task = await platform.call('POST', '/v1/tasks/cancel', { metadata: { order: 'A' } })
  expect(task).toMatchObject({ type: 'system.cancel', progress: 0 })
  const ended = (id: string) => platform.until(async () => (await platform.call('GET', `/v1/tasks/${id}`)).status === 'completed')
  await ended(task.id)
  expect((await platform.call('GET', `/v1/tasks/${task.id}`)).result).toEqual({ canceled: 2, requested: 0 })
  expect((await platform.call('GET', '/v1/tasks?status=pending')).data).toMatchObject([{ metadata: { order: 'B' } }])
  await platform.pass(1_000)
  const again = await platform.call('POST', '/v1/tasks/retry', { status: ['canceled'] })
  await ended(again.id)
  expect((await platform.call('GET', `/v1/tasks/${again.id}`)).result).toEqual({ retried: 2 })
  await platform.until(async () => (await platform.call('GET', '/v1/tasks?status=completed&type=echo')).data.length === 2)
  await expect(platform.call('POST', '/v1/tasks/cancel', { status: ['failed'] })).rejects.toThrow('#/status/0')
  await expect(platform.call('POST', '/v1/tasks/retry', { status: ['running'] })).rejects.toThrow('#/status/0')
  await expect(platform.call('POST', '/v1/tasks/cancel', { metadata: { a: '1', b: '2' } })).rejects.toThrow('#/metadata')
  await expect(
    platform.call('POST', '/v1/tasks/cancel', { createdAfter: '2026-11-22T10:00:00Z', createdBefore: '2026-11-21T10:00:00Z' }),
  ).rejects.toThrow('#/createdBefore')
  await expect(platform.call('POST', '/v1/tasks', { type: 'system.cancel', input: {} })).rejects.toThrow('task_type_not_found')
  await expect(platform.operate('POST', '/v1/tasks/cancel', {})).rejects.toThrow('403')
})
