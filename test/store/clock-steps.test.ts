/** Somebody sets the clock of a node, or of the database, by an hour, while tasks run and schedules tick. */

import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import type { Millis } from '../../src/core/model.ts'
import { createReclaim } from '../../src/engine/chores/reclaim.ts'
import { createCronTicker } from '../../src/engine/cron-ticker.ts'
import { createEventSink } from '../../src/observe/events.ts'
import type { NewSchedule, Store } from '../../src/store/interfaces.ts'
import { openStore } from '../../src/store/open.ts'
import { defineTask } from '../../src/tasks/define.ts'
import { createRegistry } from '../../src/tasks/registry.ts'
import { freshPostgres, freshSqlite } from '../support/databases.ts'
import { type Engine, engines, openGround } from '../support/stores.ts'
import { addClient, added, addTask, claimOne, completed, idOf, LEASE_MS, MANY, ROOM } from '../support/work.ts'

const HOUR: Millis = 3_600_000
const registry = createRegistry([defineTask({ type: 'report.build', run: () => null })])
const step = (ms: number): void => void vi.setSystemTime(Date.now() + ms)

afterEach(() => {
  vi.useRealTimers()
})

/** A store under the real clock, on a machine whose wall clock obeys {@link step}. */
async function openNode(engine: Engine): Promise<Store> {
  // The clock is set while time goes on: Date is ours, and is moved by as much as truly passed.
  const real = { date: Date.now(), mono: performance.now() }
  vi.useFakeTimers({ now: real.date, toFake: ['Date'], shouldAdvanceTime: false })
  const tick = setInterval(() => {
    const mono = performance.now()
    vi.setSystemTime(Date.now() + (mono - real.mono))
    real.mono = mono
  }, 5)
  const { url, close } = engine === 'sqlite' ? sqlite() : await postgres()
  const store = await openStore({ url, clock: systemClock(), publicUrl: () => 'https://tasks.example', retrySchedule: [5] })
  onTestFinished(async () => {
    await store.close()
    clearInterval(tick)
    await close()
  })
  return store
}
const sqlite = () => {
  const { url, remove } = freshSqlite()
  return { url, close: async () => remove() }
}
const postgres = async () => {
  const { url, drop } = await freshPostgres()
  return { url, close: drop }
}

const newSchedule = (given: Pick<NewSchedule, 'clientId' | 'cron' | 'catchUp' | 'nextAt'>): NewSchedule => ({
  id: idOf('schedule'),
  type: 'report.build',
  timezone: 'UTC',
  template: JSON.stringify({
    input: '{}',
    metadata: '{}',
    callback: '{}',
    timeoutSeconds: null,
    maxTries: null,
    priority: 0,
    concurrencyKey: null,
  }),
  paused: false,
  ...given,
})

describe.each(engines)('A node’s clock that is set by an hour, on %s,', (engine) => {
  test('steals no live lease, and ends none', async () => {
    const store = await openNode(engine)
    const clock = systemClock()
    const reclaim = createReclaim({ store, clock, registry: createRegistry([]) })
    const clientId = await addClient(store)
    for (const ms of [HOUR, -HOUR, -HOUR, HOUR]) {
      await addTask(store, { clientId, deadlineAt: (await store.now()) + 10 * 60_000 })
      const task = await claimOne(store)
      step(ms)
      expect(await reclaim(null)).toBe(0)
      expect(await store.maintenance.endOverdue({ limit: 10, graceMs: 0 }), 'a deadline in ten minutes is still to come').toBe(0)
      expect(await store.maintenance.renew({ kind: 'task', leases: [task], leaseMs: LEASE_MS })).toMatchObject([{ renewed: true }])
      const { leasedUntil } = (await store.tasks.findMany([task.id]))[0]!
      expect(Math.abs(leasedUntil! - (await store.now()) - LEASE_MS), 'a lease is as long as before').toBeLessThan(5_000)
      expect(await store.tasks.settle(completed(task))).toMatchObject({ kind: 'settled', value: { tries: 1 } })
    }
  })

  test('makes no tick twice, none before its time, and leaves none out', async () => {
    const store = await openNode(engine)
    const clientId = await addClient(store)
    const ticker = createCronTicker({ store, registry, clock: systemClock(), budget: ROOM, events: createEventSink() })
    const start = Math.ceil((await store.now()) / 1_000) * 1_000
    await store.schedules.add({ schedule: newSchedule({ clientId, cron: '* * * * * *', catchUp: 'none', nextAt: start }), max: MANY })
    const daily = added(
      await store.schedules.add({
        schedule: newSchedule({ clientId, cron: '@daily', catchUp: 'none', nextAt: start + 30 * 60_000 }),
        max: MANY,
      }),
    )
    onTestFinished(() => ticker.stop())
    ticker.start()
    const made = async () => (await store.tasks.list({ clientId, order: 'asc', limit: 200, after: null })).items
    const more = async (count: number): Promise<void> => {
      const wanted = (await made()).length + count
      await vi.waitFor(async () => expect((await made()).length).toBeGreaterThanOrEqual(wanted), { timeout: 45_000, interval: 50 })
    }
    await more(1)
    step(HOUR)
    await more(1)
    step(-2 * HOUR)
    await more(1)
    step(HOUR)
    await more(1)
    await ticker.stop()
    const ticks = await made()
    expect(ticks.map(({ dueAt }) => dueAt)).toEqual(ticks.map((_, n) => start + n * 1_000))
    for (const { dueAt, createdAt } of ticks) expect(createdAt).toBeGreaterThanOrEqual(dueAt)
    expect((await store.schedules.find(daily.id, clientId))!.lastAt).toBeNull()
  })
})

test('The clock of a PostgreSQL server that is set forward and back by an hour makes no tick twice', async () => {
  const ground = await openGround('postgres')
  onTestFinished(() => ground.close())
  const { store } = ground
  const clientId = await addClient(store)
  const ticker = createCronTicker({ store, registry, clock: systemClock(), budget: ROOM, events: createEventSink() })
  onTestFinished(() => ticker.stop())
  ticker.start()
  const first = Math.floor((await store.now()) / 60_000) * 60_000 + 30 * 60_000
  const cron = `${new Date(first).getUTCMinutes()} * * * *`
  const { id } = added(await store.schedules.add({ schedule: newSchedule({ clientId, cron, catchUp: 'all', nextAt: first }), max: MANY }))
  const ticks = async () => (await store.tasks.list({ clientId, order: 'asc', limit: 200, after: null })).items.map(({ dueAt }) => dueAt)
  const look = async (count: number): Promise<void> => {
    ticker.wake()
    await vi.waitFor(async () => expect(await ticks()).toHaveLength(count), { timeout: 45_000, interval: 20 })
    ticker.wake()
    await vi.waitFor(async () => expect((await store.schedules.find(id, clientId))!.nextAt!).toBeGreaterThan(await store.now()), {
      timeout: 45_000,
    })
    expect(await ticks()).toHaveLength(count)
  }
  await look(0)
  await ground.pass(HOUR)
  await look(1)
  await ground.pass(-HOUR)
  await look(1)
  await ground.pass(HOUR)
  await look(1)
  await ground.pass(HOUR)
  await look(2)
  const [one, two] = await ticks()
  expect(two! - one!).toBe(HOUR)
})
