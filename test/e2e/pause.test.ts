/** A paused task type: its tasks are taken in and wait, on every node; what runs goes on; resuming it drains them at once. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Store } from '../../src/store/interfaces.ts'
import { defineTask } from '../../src/tasks/define.ts'
import { startNode } from '../support/nodes.ts'
import { openPlatform } from '../support/platform.ts'
import { eventually } from '../support/server.ts'
import { engines, type Ground, openGround } from '../support/stores.ts'
import { addClient, addTask, addTasks, claim, claimTasks, completed, findTask, retried } from '../support/work.ts'

describe.each(engines)('a paused type on %s', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine)
    store = ground.store
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  test('is not claimed on any node, for any limit, key and turn, while other types are', async () => {
    const clientId = await addClient(store)
    const node = await ground.anotherNode()
    await addTasks(store, 3, { clientId })
    await addTasks(store, 2, { clientId, concurrencyKey: 'a' })
    await store.schedules.pauseTaskType({ type: 'report.build', paused: true })
    await addTask(store, { clientId })
    await addTask(store, { clientId, type: 'mail.send' })
    for (const each of [store, node]) {
      expect(await claimTasks(each)).toEqual([])
      expect((await each.tasks.claim({ ...claim(), types: [{ type: 'report.build', concurrency: 5 }] })).items).toEqual([])
    }
    expect((await claimTasks(node, {}, ['mail.send', 'report.build'])).map(({ type }) => type)).toEqual(['mail.send'])
    await node.schedules.pauseTaskType({ type: 'report.build', paused: false })
    expect((await claimTasks(store)).length, 'and one of its key').toBe(5)
  })

  test('lets running tasks finish, while their retries and newly due tasks wait', async () => {
    const clientId = await addClient(store)
    await addTasks(store, 2, { clientId })
    const [one, two] = await claimTasks(store)
    await addTask(store, { clientId, dueAt: (await store.now()) + 1_000 })
    await store.schedules.pauseTaskType({ type: 'report.build', paused: true })
    expect(await store.maintenance.renew({ kind: 'task', leases: [one!, two!], leaseMs: 30_000 })).toMatchObject([
      { renewed: true },
      { renewed: true },
    ])
    expect((await store.tasks.settle(completed(one!))).kind).toBe('settled')
    await store.tasks.settle(retried(two!, 500))
    await ground.pass(2_000)
    const { items, more, nextInMs } = await store.tasks.claim({ ...claim(), types: [{ type: 'report.build', concurrency: null }] })
    expect({ items, more, nextInMs }, 'and nobody looks again in vain').toEqual({ items: [], more: false, nextInMs: null })
    expect((await findTask(store, one!.id)).state).toBe('completed')
    await store.schedules.pauseTaskType({ type: 'report.build', paused: false })
    expect(await claimTasks(store)).toHaveLength(2)
  })

  test('stays paused after the store is reopened, and pausing it twice keeps the first time', async () => {
    const { pausedAt } = await store.schedules.pauseTaskType({ type: 'report.build', paused: true })
    expect(pausedAt).toBeGreaterThan(0)
    if (engine === 'sqlite') await ground.pass(1_000)
    expect((await store.schedules.pauseTaskType({ type: 'report.build', paused: true })).pausedAt).toBe(pausedAt)
    const again = await ground.anotherNode()
    expect(await again.schedules.listTaskTypes()).toMatchObject([{ type: 'report.build', pausedAt }])
    expect(await again.schedules.pauseTaskType({ type: 'report.build', paused: false })).toMatchObject({ pausedAt: null })
    expect(await again.schedules.pauseTaskType({ type: 'never.paused', paused: false })).toMatchObject({
      type: 'never.paused',
      pausedAt: null,
    })
  })

  test('is not started by the commit that adds it, and its backlog does not stop other types from starting so', async () => {
    const ran: string[] = []
    const types = ['slow.type', 'quick.type'].map((type) => defineTask({ type, run: (_, { task }) => void ran.push(task.id) }))
    startNode(store, 'boot_a', types)
    startNode(await ground.anotherNode(), 'boot_b', types)
    const clientId = await addClient(store)
    const end = async (ids: readonly string[]) =>
      eventually('all of them', async () => (await store.tasks.findMany(ids)).every(({ state }) => state === 'completed'))
    await end([(await addTask(store, { clientId, type: 'slow.type' })).id])
    await store.schedules.pauseTaskType({ type: 'slow.type', paused: true })
    const waiting = await addTasks(store, 5, { clientId, type: 'slow.type' })
    const quick: string[] = []
    for (let i = 0; i < 5; i++) {
      quick.push((await addTask(store, { clientId, type: 'quick.type' })).id)
      // The one before has left the line: nothing of its own type is overtaken.
      await end(quick)
    }
    const started = await ground.sql<{ n: number }>(
      `select count(*) as n from tasks where type = 'quick.type' and fence = 1 and started_at = created_at`,
    )
    expect(Number(started[0]!.n), 'began as they came in').toBe(5)
    expect(ran).toHaveLength(6)
    expect((await store.tasks.findMany(waiting.map(({ id }) => id))).every(({ state, tries }) => state === 'pending' && tries === 0)).toBe(
      true,
    )
    const resumedAt = performance.now()
    await store.schedules.pauseTaskType({ type: 'slow.type', paused: false })
    await end(waiting.map(({ id }) => id))
    expect(performance.now() - resumedAt, 'at once, not by polling').toBeLessThan(10_000)
    expect(new Set(ran).size).toBe(11)
  })

  test('is notified on every node', async () => {
    const node = await ground.anotherNode()
    let heard = 0
    const stop = node.notifications.onTaskTypes(() => heard++)
    await eventually('the other node', async () => {
      await store.schedules.pauseTaskType({ type: 'report.build', paused: true })
      return heard > 0
    })
    stop()
  })
})

test('the operator pauses and resumes a type, and clients see since when but may do neither', async () => {
  const platform = await openPlatform()
  expect(await platform.call('GET', '/v1/task-types/echo')).toMatchObject({ name: 'echo', pausedAt: null })
  const { pausedAt } = await platform.operate('POST', '/v1/task-types/echo/pause')
  expect(pausedAt).toMatch(/^20/)
  expect((await platform.call('GET', '/v1/task-types')).data).toMatchObject([{ name: 'echo', pausedAt }])
  const task = await platform.call('POST', '/v1/tasks', { type: 'echo', input: 1 })
  await platform.pass(60_000)
  expect(await platform.call('GET', `/v1/tasks/${task.id}`)).toMatchObject({ status: 'pending', tries: 0 })
  expect(await platform.operate('POST', '/v1/task-types/echo/resume')).toMatchObject({ name: 'echo', pausedAt: null })
  await platform.until(async () => (await platform.call('GET', `/v1/tasks/${task.id}`)).status === 'completed')
  await expect(platform.call('POST', '/v1/task-types/echo/pause')).rejects.toThrow('403')
  await expect(platform.operate('POST', '/v1/task-types/nobody.knows/pause')).rejects.toThrow('404')
  await expect(platform.operate('POST', '/v1/task-types/system.cancel/pause')).rejects.toThrow('404')
})
