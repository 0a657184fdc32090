import { expect, test } from 'vitest'
import type { Millis, Schedule, TaskTemplate } from '../../../src/core/model.ts'
import type { NewSchedule, Store, Tick } from '../../../src/store/interfaces.ts'
import { addClient, added, claimTasks, completed, idOf, MANY, newTask } from '../../support/work.ts'
import type { Current } from './suite.ts'

const HOUR: Millis = 3_600_000
const template = (given: Partial<TaskTemplate> = {}): string =>
  JSON.stringify({
    input: '{"month":"2026-11"}',
    metadata: '{"from":"schedule"}',
    callback: '{}',
    timeoutSeconds: null,
    maxTries: null,
    priority: 0,
    concurrencyKey: null,
    ...given,
  } satisfies TaskTemplate)

async function addSchedule(store: Store, given: Partial<NewSchedule> & { clientId: string }): Promise<Schedule> {
  const schedule = {
    id: idOf('schedule'),
    type: 'report.build',
    cron: '0 * * * *',
    timezone: 'UTC',
    catchUp: 'none',
    template: template(),
    nextAt: (await store.now()) + HOUR,
    paused: false,
    ...given,
  } as const
  return added(await store.schedules.add({ schedule, max: MANY }))
}

/** A tick of a schedule that has not changed since it was read. */
const tickOf = (schedule: Schedule, given: Partial<Tick> = {}): Tick => ({
  due: { id: schedule.id, nextAt: schedule.nextAt!, revision: schedule.revision, size: schedule.template.length },
  times: [schedule.nextAt!],
  nextAt: schedule.nextAt! + HOUR,
  timeoutSeconds: 120,
  maxTries: 7,
  ...given,
})

export function schedules(current: Current): void {
  const tasksOf = async (clientId: string) => (await current().store.tasks.list({ clientId, order: 'asc', limit: 200, after: null })).items

  test('concurrent additions of schedules on two nodes stop at the limit of the client', async () => {
    const { store, anotherNode } = current()
    const nodes = [store, await anotherNode()]
    const clientId = await addClient(store)
    const given = {
      clientId,
      type: 'report.build',
      cron: '@daily',
      timezone: 'UTC',
      catchUp: 'none',
      template: template(),
      paused: false,
    } as const
    const nextAt = (await store.now()) + HOUR
    const add = (i: number) => nodes[i % 2]!.schedules.add({ schedule: { ...given, id: idOf('schedule'), nextAt }, max: 5 })
    const kinds = (await Promise.all(Array.from({ length: 16 }, (_, i) => add(i)))).map(({ kind }) => kind)
    expect(kinds.filter((kind) => kind === 'added')).toHaveLength(5)
    expect(kinds.filter((kind) => kind === 'full')).toHaveLength(11)
    await addSchedule(store, { clientId: await addClient(store) })
  })

  test('a tick creates its task and advances its schedule in one commit', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    const added = await addSchedule(store, { clientId, template: template({ maxTries: 2, priority: 60, concurrencyKey: 'north' }) })
    expect(added).toMatchObject({ revision: 1, lastAt: null, pausedAt: null })
    await pass(HOUR + 5_000)
    const schedule = (await store.schedules.find(added.id, clientId))!
    expect(await store.schedules.tick(tickOf(schedule))).toBe(true)
    const [task, ...others] = await tasksOf(clientId)
    expect(others).toEqual([])
    expect(task).toMatchObject({
      scheduleId: schedule.id,
      type: 'report.build',
      state: 'pending',
      dueAt: schedule.nextAt,
      input: '{"month":"2026-11"}',
      metadata: '{"from":"schedule"}',
      callback: '{}',
      maxTries: 2,
      timeoutSeconds: 120,
      priority: 60,
      concurrencyKey: 'north',
    })
    expect(await store.schedules.find(schedule.id, clientId)).toMatchObject({
      nextAt: schedule.nextAt! + HOUR,
      lastAt: schedule.nextAt,
      revision: 1,
    })
    const [claimed] = await claimTasks(store)
    expect(claimed, 'it is in its lane').toMatchObject({ id: task!.id, scheduleId: schedule.id })
    await store.tasks.settle(completed(claimed!))
    const events = await store.events.list({ clientId, after: 0, limit: 10 })
    expect(events.map(({ body }) => JSON.parse(body).data.scheduleId)).toEqual([schedule.id])
  })

  test('the same tick is made once, also with concurrent and later attempts', async () => {
    const { store, anotherNode } = current()
    const other = await anotherNode()
    const clientId = await addClient(store)
    const schedule = await addSchedule(store, { clientId })
    const tries = [store, other, store, other].map((node) => node.schedules.tick(tickOf(schedule)))
    expect((await Promise.all(tries)).filter(Boolean)).toHaveLength(1)
    expect(await other.schedules.tick(tickOf(schedule))).toBe(false)
    expect(await tasksOf(clientId)).toHaveLength(1)
  })

  test('two nodes that race through 200 ticks of eight schedules make each tick once', async () => {
    const { store, anotherNode } = current()
    const nodes = [store, await anotherNode()]
    const clientId = await addClient(store)
    const all = await Promise.all(Array.from({ length: 8 }, () => addSchedule(store, { clientId })))
    const race = async (node: Store): Promise<void> => {
      for (let n = 0; n < 25; n++) {
        await Promise.all(
          all.map(async ({ id }, i) => {
            const now = (await node.schedules.find(id, clientId))!
            const behind = now.nextAt! - all[i]!.nextAt! < 25 * HOUR
            if (behind) await node.schedules.tick(tickOf(now))
          }),
        )
      }
    }
    await Promise.all(nodes.map(race))
    const made = await current().sql<{ schedule_id: string; due_at: string | number }>('select schedule_id, due_at from tasks')
    const ticks = made.map((row) => `${row.schedule_id} ${row.due_at}`)
    expect(new Set(ticks).size).toBe(ticks.length)
    for (const { id, nextAt } of all) {
      const { nextAt: reached } = (await store.schedules.find(id, clientId))!
      const expected = Array.from({ length: (reached! - nextAt!) / HOUR }, (_, n) => `${id} ${nextAt! + n * HOUR}`)
      expect(ticks.filter((tick) => tick.startsWith(id)).sort()).toEqual(expected.sort())
      expect(expected.length).toBeGreaterThanOrEqual(25)
    }
  })

  test('a tick whose task cannot be written is not made, and the other ticks of its batch are', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const broken = await addSchedule(store, { clientId, template: '{"input":' })
    const good = await addSchedule(store, { clientId })
    const [first, second] = await Promise.allSettled([store.schedules.tick(tickOf(broken)), store.schedules.tick(tickOf(good))])
    expect(first.status).toBe('rejected')
    expect(second).toEqual({ status: 'fulfilled', value: true })
    expect(await store.schedules.find(broken.id, clientId)).toMatchObject({ nextAt: broken.nextAt, lastAt: null })
    expect(await tasksOf(clientId)).toHaveLength(1)
  })

  test('skipped ticks create nothing; several ticks at once create one task each', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const schedule = await addSchedule(store, { clientId })
    const [start, later] = [schedule.nextAt!, schedule.nextAt! + 5 * HOUR]
    expect(await store.schedules.tick(tickOf(schedule, { times: [], nextAt: later }))).toBe(true)
    const skipped = (await store.schedules.find(schedule.id, clientId))!
    expect(skipped).toMatchObject({ nextAt: later, lastAt: null })
    expect(await store.schedules.tick(tickOf(skipped, { times: [start, start + HOUR, later], nextAt: null }))).toBe(true)
    expect((await tasksOf(clientId)).map(({ dueAt }) => dueAt)).toEqual([start, start + HOUR, later])
    expect(await store.schedules.find(schedule.id, clientId)).toMatchObject({ nextAt: null, lastAt: later })
  })

  test('due schedules are found first, with the store’s time; paused ones and those of other types or inactive clients are left out', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const suspended = await addClient(store)
    await store.access.changeClient({ id: suspended, status: 'suspended' })
    const now = await store.now()
    const later = await addSchedule(store, { clientId, nextAt: now + 60_000 })
    const due = await addSchedule(store, { clientId, nextAt: now - 60_000 })
    await addSchedule(store, { clientId, nextAt: null, paused: true })
    await addSchedule(store, { clientId, type: 'not.here', nextAt: now - 1 })
    await addSchedule(store, { clientId: suspended, nextAt: now - 1 })
    const found = await store.schedules.findDue(['report.build', 'other'], 10)
    expect(found.items.map(({ id }) => id)).toEqual([due.id, later.id])
    expect(found.items[0]).toMatchObject({ nextAt: now - 60_000, revision: 1, size: due.template.length, cron: '0 * * * *' })
    expect(Math.abs(found.now - now)).toBeLessThan(5_000)
    expect((await store.schedules.findDue(['report.build'], 1)).items.map(({ id }) => id)).toEqual([due.id])
    await store.access.changeClient({ id: suspended, status: 'active' })
    expect((await store.schedules.findDue(['report.build'], 10)).items).toHaveLength(3)
  })

  test('a change increments the revision, and is rejected for a stale revision', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const schedule = await addSchedule(store, { clientId })
    const paused = await store.schedules.change({ id: schedule.id, clientId, patch: { paused: true, nextAt: null }, seen: schedule })
    expect(paused).toMatchObject({ kind: 'changed', value: { revision: 2, nextAt: null } })
    expect((await store.schedules.find(schedule.id, clientId))!.pausedAt).not.toBeNull()
    expect(await store.schedules.tick(tickOf(schedule)), 'a tick planned before the pause').toBe(false)
    expect(await store.schedules.change({ id: schedule.id, clientId, patch: { cron: '5 * * * *' }, seen: schedule })).toEqual({
      kind: 'stale',
    })
    const seen = { revision: 2, nextAt: null }
    const resumed = await store.schedules.change({
      id: schedule.id,
      clientId,
      patch: { paused: false, nextAt: schedule.nextAt, catchUp: 'all' },
      seen,
    })
    expect(resumed).toMatchObject({ kind: 'changed', value: { revision: 3, pausedAt: null, catchUp: 'all', nextAt: schedule.nextAt } })
    expect(await store.schedules.change({ id: schedule.id, clientId: idOf('client'), patch: {}, seen: schedule })).toEqual({
      kind: 'missing',
    })
  })

  test('a change of time that was planned before a tick is rejected, so that the tick is not made again', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const schedule = await addSchedule(store, { clientId })
    await store.schedules.tick(tickOf(schedule))
    expect(
      await store.schedules.change({ id: schedule.id, clientId, patch: { cron: '@daily', nextAt: schedule.nextAt }, seen: schedule }),
    ).toEqual({
      kind: 'stale',
    })
    const other = await store.schedules.change({
      id: schedule.id,
      clientId,
      patch: { template: template({ priority: 5 }) },
      seen: schedule,
    })
    expect(other, 'a change that moves no tick is accepted').toMatchObject({ kind: 'changed', value: { nextAt: schedule.nextAt! + HOUR } })
  })

  test('a removed schedule is not found; the tasks it created stay', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const schedule = await addSchedule(store, { clientId })
    await store.schedules.tick(tickOf(schedule))
    expect(await store.schedules.remove({ id: schedule.id, clientId: idOf('client') })).toBe(false)
    expect(await store.schedules.remove({ id: schedule.id, clientId })).toBe(true)
    expect(await store.schedules.remove({ id: schedule.id, clientId: null })).toBe(false)
    expect(await store.schedules.find(schedule.id, null)).toBeNull()
    expect(await tasksOf(clientId)).toMatchObject([{ scheduleId: schedule.id, state: 'pending' }])
  })

  test('a deleted client leaves no schedule; lists contain only the client’s schedules, page by page', async () => {
    const { store } = current()
    const [one, two] = [await addClient(store), await addClient(store)]
    const made: string[] = []
    for (let n = 0; n < 5; n++) made.push((await addSchedule(store, { clientId: one })).id)
    await addSchedule(store, { clientId: two })
    const seen: string[] = []
    for (let page = await store.schedules.list(one, 2, null); ; page = await store.schedules.list(one, 2, page.next)) {
      seen.push(...page.items.map(({ id }) => id))
      if (page.next === null) break
    }
    expect(seen).toEqual(made)
    expect((await store.schedules.list(null, 10, null)).items).toHaveLength(6)
    await store.access.removeClient({ id: one })
    expect((await store.schedules.list(null, 10, null)).items).toMatchObject([{ clientId: two }])
  })

  test('the ticker is notified of added and changed schedules', async () => {
    const { store } = current()
    let notified = 0
    const stop = store.notifications.onSchedules(() => notified++)
    const clientId = await addClient(store)
    const before = notified
    const schedule = await addSchedule(store, { clientId })
    await expect.poll(() => notified).toBeGreaterThan(before)
    const added = notified
    await store.schedules.change({ id: schedule.id, clientId, patch: { catchUp: 'one' }, seen: schedule })
    await expect.poll(() => notified).toBeGreaterThan(added)
    stop()
  })

  test('a task that no schedule created has no schedule id', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const added = await store.tasks.add({ tasks: [newTask({ clientId })], idempotency: null })
    expect(added).toMatchObject({ tasks: [{ scheduleId: null }] })
    expect((await tasksOf(clientId))[0]!.scheduleId).toBeNull()
  })
}
