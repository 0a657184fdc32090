/** `waitingFor`: why a pending task has not started, as it is in the store. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Task } from '../../../src/core/model.ts'
import { createWaitingReasons } from '../../../src/http/routes/waiting-for.ts'
import type { Store } from '../../../src/store/interfaces.ts'
import { defineTask } from '../../../src/tasks/define.ts'
import { createRegistry } from '../../../src/tasks/registry.ts'
import { openPlatform } from '../../support/platform.ts'
import { engines, type Ground, openGround } from '../../support/stores.ts'
import { addClient, addTask, addTasks, claim, claimOne, claimTasks, completed, findTask, retried } from '../../support/work.ts'

const registry = createRegistry([
  defineTask({ type: 'report.build', run: () => null }),
  defineTask({ type: 'scarce.one', concurrency: 2, run: () => null }),
])
const TYPES = registry.list().map(({ type, concurrency }) => ({ type, concurrency }))

describe.each(engines)('on %s a pending task waits', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine)
    store = ground.store
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  const why = async (given: readonly Task[] | Task, isFull = false): Promise<readonly (string | null)[]> => {
    const tasks = await Promise.all([given].flat().map((task) => findTask(store, (task as Task).id)))
    const waiting = await createWaitingReasons({ store, registry, isFull: () => isFull }).ofTasks(tasks, await store.now())
    return tasks.map(({ id }) => waiting.get(id) ?? null)
  }

  test('for its time, or for its next try', async () => {
    const clientId = await addClient(store)
    const later = await addTask(store, { clientId, dueAt: (await store.now()) + 60_000 })
    await addTask(store, { clientId })
    const tried = await claimOne(store)
    expect(await why(tried), 'it runs').toEqual([null])
    await store.tasks.settle(retried(tried, 60_000))
    await store.schedules.pauseTaskType({ type: 'report.build', paused: true })
    expect(await why([later, tried]), 'the pause does not hold it up yet').toEqual(['runAt', 'retryBackoff'])
    const atOnce = await addTask(store, { clientId, type: 'scarce.one' })
    expect(createWaitingReasons({ store, registry }).ofNewTask(atOnce, atOnce.createdAt - 5), 'by a clock that was looked at before').toBe(
      null,
    )
    await ground.pass(61_000)
    expect(await why([later, tried])).toEqual(['paused', 'paused'])
    await store.schedules.pauseTaskType({ type: 'report.build', paused: false })
    expect(await why([later, tried])).toEqual([null, null])
  })

  test('for the one that runs under its key, until that has ended', async () => {
    const clientId = await addClient(store)
    const [one, two] = await addTasks(store, 2, { clientId, concurrencyKey: 'a' })
    const free = await addTask(store, { clientId })
    expect(await why([one!, two!, free]), 'nobody has taken any').toEqual([null, null, null])
    const running = await claimTasks(store)
    expect(running).toHaveLength(2)
    const rest = [one!, two!].filter(({ id }) => !running.some((task) => task.id === id))
    const behind = await addTask(store, { clientId, concurrencyKey: 'a' })
    expect(await why([...rest, behind])).toEqual(['limit', 'limit'])
    for (const task of running) await store.tasks.settle(completed(task))
    expect(await why([...rest, behind])).toEqual([null, null])
  })

  test('for the others of its type, when as many run on all nodes as may', async () => {
    const clientId = await addClient(store)
    const tasks = await addTasks(store, 3, { clientId, type: 'scarce.one' })
    const { items } = await (await ground.anotherNode()).tasks.claim({ ...claim(), types: TYPES })
    expect(items).toHaveLength(2)
    const rest = tasks.filter(({ id }) => !items.some((item) => item.id === id))
    expect(await why(rest)).toEqual(['limit'])
    await store.tasks.settle(completed(items[0]!))
    expect(await why(rest)).toEqual([null])
  })

  test('for a slot, when this node is full and nobody else took it within a second', async () => {
    const task = await addTask(store, { clientId: await addClient(store) })
    expect(await why(task, true), 'another node may have room').toEqual([null])
    await ground.pass(1_001)
    expect(await why(task, true)).toEqual(['limit'])
    expect(await why(task, false)).toEqual([null])
  })

  test('for somebody who runs its type, once nobody has been there for a minute', async () => {
    const task = await addTask(store, { clientId: await addClient(store), type: 'unknown.here' })
    expect(await why(task)).toEqual(['noWorker'])
    await (await ground.anotherNode()).schedules.touchTaskTypes({ types: ['unknown.here', 'report.build'] })
    expect(await why(task), 'another node runs it').toEqual([null])
    await ground.pass(50_000)
    expect(await why(task)).toEqual([null])
    await ground.pass(10_500)
    expect(await why(task)).toEqual(['noWorker'])
    await store.schedules.pauseTaskType({ type: 'unknown.here', paused: true })
    expect(await why(task)).toEqual(['paused'])
    expect((await store.schedules.listTaskTypes()).map(({ type }) => type)).toEqual(['report.build', 'unknown.here'])
  })

  test('for nothing that is looked up when its time says all, and a list is one look', async () => {
    const clientId = await addClient(store)
    const dueAt = (await store.now()) + 60_000
    const later = await addTasks(store, 3, { clientId, dueAt })
    const due = await addTasks(store, 50, { clientId })
    let looks = 0
    const findHolds: Store['schedules']['findHolds'] = (tasks) => {
      looks++
      return store.schedules.findHolds(tasks)
    }
    const waiting = createWaitingReasons({ store: { ...store, schedules: { ...store.schedules, findHolds } }, registry })
    expect((await waiting.ofTasks(later, await store.now())).size).toBe(3)
    expect(looks).toBe(0)
    await waiting.ofTasks([...later, ...due], await store.now())
    expect(looks).toBe(1)
  })
})

test('the list, the task and its 202 say it', async () => {
  const platform = await openPlatform({ concurrency: 1 })
  await platform.operate('POST', '/v1/task-types/echo/pause')
  await platform.pass(10)
  const task = await platform.call('POST', '/v1/tasks', { type: 'echo', input: 1 })
  expect(task.waitingFor).toBe('paused')
  const later = await platform.call('POST', '/v1/tasks', { type: 'echo', input: 1, delaySeconds: 60 })
  expect(later.waitingFor).toBe('runAt')
  expect((await platform.call('GET', `/v1/tasks/${task.id}`)).waitingFor).toBe('paused')
  expect((await platform.call('GET', '/v1/tasks?order=asc')).data.map((it: { waitingFor: string }) => it.waitingFor)).toEqual([
    'paused',
    'runAt',
  ])
  await platform.operate('POST', '/v1/task-types/echo/resume')
  await platform.until(async () => (await platform.call('GET', `/v1/tasks/${task.id}`)).status === 'completed')
})
