/** Schedules as nodes tick them, on both databases. */

import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import { MAX_CAUGHT_UP } from '../../src/core/cron.ts'
import type { Millis, Schedule } from '../../src/core/model.ts'
import { type CronTicker, createCronTicker } from '../../src/engine/cron-ticker.ts'
import { createOpenTaskBudget } from '../../src/engine/open-tasks.ts'
import { createEventSink, type EventFacts, type EventSink } from '../../src/observe/events.ts'
import type { NewSchedule, Store } from '../../src/store/interfaces.ts'
import { openStore } from '../../src/store/open.ts'
import { defineTask } from '../../src/tasks/define.ts'
import { createRegistry } from '../../src/tasks/registry.ts'
import { freshPostgres, freshSqlite } from '../support/databases.ts'
import { eventsWith, troubleInto } from '../support/events.ts'
import { manualClock } from '../support/manual-clock.ts'
import { openPlatform } from '../support/platform.ts'
import { openReceiver } from '../support/receiver.ts'
import { engines, type Ground, openGround } from '../support/stores.ts'
import { addClient, added, addTasks, idOf, MANY, ROOM } from '../support/work.ts'

const HOUR: Millis = 3_600_000
const MINUTE: Millis = 60_000
const type = defineTask({ type: 'report.build', timeoutSeconds: 90, run: () => null })
const registry = createRegistry([type])

async function addSchedule(store: Store, given: Partial<NewSchedule> & { clientId: string; nextAt: Millis }): Promise<Schedule> {
  const template = JSON.stringify({
    input: '{}',
    metadata: '{}',
    callback: '{}',
    timeoutSeconds: null,
    maxTries: null,
    priority: 0,
    concurrencyKey: null,
  })
  const cron = '* * * * *'
  const schedule = {
    id: idOf('schedule'),
    type: 'report.build',
    cron,
    timezone: 'UTC',
    catchUp: 'none',
    template,
    paused: false,
    ...given,
  } as const
  return added(await store.schedules.add({ schedule, max: MANY }))
}

describe.each(engines)('Schedules on %s', (engine) => {
  let ground: Ground
  beforeAll(async () => {
    ground = await openGround(engine)
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  const errors: unknown[] = []
  const newTicker = (
    store: Store,
    given: {
      maxOpenTasks?: number
      maxOpenTasksPerClient?: number
      types?: Parameters<typeof createRegistry>[0]
      events?: EventSink
    } = {},
  ): CronTicker => {
    const { maxOpenTasks = 1_000_000, maxOpenTasksPerClient = 1_000_000 } = given
    const ticker = createCronTicker({
      store,
      registry: given.types ? createRegistry(given.types) : registry,
      clock: systemClock(),
      budget: createOpenTaskBudget({ store, clock: systemClock(), maxOpenTasks, maxOpenTasksPerClient }),
      events: given.events ?? troubleInto(errors),
    })
    onTestFinished(() => ticker.stop())
    return ticker
  }
  const ticksMade = async (id: string): Promise<number[]> => {
    const rows = await ground.sql<{ due_at: number | string }>(`select due_at from tasks where schedule_id = '${id}' order by due_at`)
    return rows.map(({ due_at }) => Number(due_at))
  }
  const found = async (schedule: Schedule): Promise<Schedule> => (await ground.store.schedules.find(schedule.id, null))!
  /** Ticked until its next tick is one to come. */
  const caughtUp = (schedule: Schedule) =>
    expect.poll(async () => (await found(schedule)).nextAt! > (await ground.store.now()), { interval: 20 }).toBe(true)
  /** A pattern that ticks once an hour, half an hour ago for the last time: none falls due while a test runs. */
  const hourly = async () => {
    const last = (await minute()) - HOUR / 2
    return { cron: `${new Date(last).getUTCMinutes()} * * * *`, nextAt: last - HOUR } as const
  }
  /** The latest whole minute of the store. */
  const minute = async (): Promise<Millis> => Math.floor((await ground.store.now()) / MINUTE) * MINUTE

  test('reports how many tasks the ticks of a schedule made, and how late', async () => {
    const facts: EventFacts['schedule.ticked'][] = []
    const clientId = await addClient(ground.store)
    const { cron, nextAt } = await hourly()
    const schedule = await addSchedule(ground.store, { clientId, cron, catchUp: 'all', nextAt })
    const ticker = newTicker(ground.store, { events: eventsWith({ 'schedule.ticked': (ticked) => facts.push(ticked) }) })
    ticker.start()
    await caughtUp(schedule)
    await ticker.stop()
    expect(facts).toEqual([{ scheduleId: schedule.id, tasks: 2, lagMs: expect.any(Number) }])
    expect(facts[0]!.lagMs).toBeGreaterThanOrEqual(1.5 * HOUR - MINUTE)
    expect(facts[0]!.lagMs).toBeLessThan(2 * HOUR)
  })

  test('two nodes that catch up 700 missed ticks make each of them once', async () => {
    const clientId = await addClient(ground.store)
    const other = await ground.anotherNode()
    const start = (await minute()) - 700 * MINUTE
    const schedule = await addSchedule(ground.store, { clientId, catchUp: 'all', nextAt: start })
    const tickers = [newTicker(ground.store), newTicker(other)]
    for (const ticker of tickers) ticker.start()
    await caughtUp(schedule)
    // A minute may begin at any time.
    await Promise.all(tickers.map((ticker) => ticker.stop()))
    const made = await ticksMade(schedule.id)
    expect(made.length).toBeGreaterThanOrEqual(701)
    expect(made).toEqual(made.map((_, n) => start + n * MINUTE))
    expect(await found(schedule)).toMatchObject({ lastAt: made.at(-1), nextAt: made.at(-1)! + MINUTE, revision: 1 })
    expect(errors).toEqual([])
  })

  test('after an outage of three hours `none` makes nothing, `one` the latest, `all` each that was missed', async () => {
    const clientId = await addClient(ground.store)
    // Half an hour ago, so that none falls due while the test runs.
    const hour = (await minute()) - 30 * MINUTE
    const given = { clientId, cron: `${new Date(hour).getUTCMinutes()} * * * *`, nextAt: hour - 3 * HOUR }
    const [none, one, all] = [
      await addSchedule(ground.store, { ...given, catchUp: 'none' }),
      await addSchedule(ground.store, { ...given, catchUp: 'one' }),
      await addSchedule(ground.store, { ...given, catchUp: 'all' }),
    ]
    newTicker(ground.store).start()
    for (const schedule of [none, one, all]) await caughtUp(schedule)
    expect(await ticksMade(none.id)).toEqual([])
    expect(await ticksMade(one.id)).toEqual([hour])
    expect(await ticksMade(all.id)).toEqual([3, 2, 1, 0].map((n) => hour - n * HOUR))
    for (const schedule of [none, one, all]) expect((await found(schedule)).nextAt).toBe(hour + HOUR)
    expect((await found(none)).lastAt, 'what was skipped was no tick').toBeNull()
  })

  test('`all` makes the latest 1,000 that were missed, in pages, and leaves those before them out', async () => {
    const clientId = await addClient(ground.store)
    const schedule = await addSchedule(ground.store, { clientId, catchUp: 'all', nextAt: (await minute()) - 3_000 * MINUTE })
    newTicker(ground.store).start()
    await caughtUp(schedule)
    const made = await ticksMade(schedule.id)
    expect(made.length).toBeGreaterThanOrEqual(MAX_CAUGHT_UP)
    expect(made.length).toBeLessThanOrEqual(MAX_CAUGHT_UP + 2)
    expect(made).toEqual(made.map((_, n) => made[0]! + n * MINUTE))
  })

  test('a schedule of a type that this node does not know is left to a node that does', async () => {
    const clientId = await addClient(ground.store)
    const given = { clientId, catchUp: 'one', ...(await hourly()) } as const
    const schedule = await addSchedule(ground.store, given)
    const known = await addSchedule(ground.store, { ...given, type: 'other' })
    newTicker(ground.store, { types: [defineTask({ type: 'other', run: () => null })] }).start()
    await caughtUp(known)
    expect(await ticksMade(schedule.id)).toEqual([])
    newTicker(ground.store).start()
    await caughtUp(schedule)
    expect(await ticksMade(schedule.id)).toHaveLength(1)
  })

  test('ticks wait while more tasks are open than may be, and go on by the schedule’s catch-up when there is room', async () => {
    const clientId = await addClient(ground.store)
    await addTasks(ground.store, 30, { clientId })
    const schedule = await addSchedule(ground.store, { clientId, catchUp: 'all', nextAt: (await minute()) - 40 * MINUTE })
    const ticker = newTicker(ground.store, { maxOpenTasks: 50 })
    ticker.start()
    await expect.poll(async () => (await ticksMade(schedule.id)).length).toBe(20)
    await ticker.stop()
    expect((await ground.store.tasks.countOpen(null, null)).n).toBe(50)
    newTicker(ground.store, { maxOpenTasks: 1_000 }).start()
    await caughtUp(schedule)
    const made = await ticksMade(schedule.id)
    expect(made).toEqual(Array.from({ length: made.length }, (_, n) => made[0]! + n * MINUTE))
    expect(made.length).toBeGreaterThanOrEqual(41)
  })

  test('ticks of a client that has as many open tasks as it may have wait, and nobody else’s wait behind them', async () => {
    const [crowded, other] = [await addClient(ground.store), await addClient(ground.store)]
    await addTasks(ground.store, 9, { clientId: crowded })
    const { cron, nextAt: due } = await hourly()
    // More than one look shows, all of them due before the other's.
    const waiting = await Promise.all(
      Array.from({ length: 120 }, (_, n) => addSchedule(ground.store, { clientId: crowded, catchUp: 'one', nextAt: due - HOUR - n })),
    )
    const schedule = await addSchedule(ground.store, { clientId: other, catchUp: 'one', cron, nextAt: due })
    newTicker(ground.store, { maxOpenTasksPerClient: 10 }).start()
    await caughtUp(schedule)
    expect(await ticksMade(schedule.id)).toHaveLength(1)
    // It is counted while the first one that fits is under way.
    expect([10, 11]).toContain((await ground.store.tasks.countOpen(null, crowded)).n)
    const still = await Promise.all(waiting.map(found))
    const left = still.filter(({ nextAt }) => nextAt! <= due)
    expect(left.length, 'they are due still').toBeGreaterThanOrEqual(118)
    expect(errors).toEqual([])
  })

  test('a schedule that cannot be planned is told of and holds up no other', async () => {
    const clientId = await addClient(ground.store)
    const due = (await minute()) - HOUR
    const broken = await addSchedule(ground.store, { clientId, cron: 'no pattern', catchUp: 'one', nextAt: due })
    const good = await addSchedule(ground.store, { clientId, catchUp: 'one', nextAt: due })
    newTicker(ground.store).start()
    await caughtUp(good)
    await expect.poll(() => errors.length).toBeGreaterThan(0)
    expect(String(errors.splice(0)[0])).toContain('no pattern')
    expect((await found(broken)).nextAt).toBe(due)
  })
})

test.each(engines)('A tick on %s comes at its time: neither before it, nor by a poll', async (engine) => {
  const { url, close } = engine === 'sqlite' ? sqlite() : await postgres()
  const clock = systemClock()
  const store = await openStore({ url, clock, publicUrl: () => 'https://tasks.example', retrySchedule: [5] })
  const ticker = createCronTicker({ store, registry, clock, budget: ROOM, events: createEventSink() })
  onTestFinished(async () => {
    await ticker.stop()
    await store.close()
    await close()
  })
  store.notifications.onSchedules(() => ticker.wake())
  ticker.start()
  const clientId = await addClient(store)
  const nextAt = Math.ceil((await store.now()) / 1_000) * 1_000 + 1_000
  await addSchedule(store, { clientId, cron: '* * * * * *', nextAt })
  const made = async () => (await store.tasks.list({ clientId, order: 'asc', limit: 10, after: null })).items
  await expect.poll(async () => (await made()).length, { interval: 20 }).toBeGreaterThan(1)
  for (const [n, { dueAt, createdAt }] of (await made()).entries()) {
    expect(dueAt).toBe(nextAt + n * 1_000)
    expect(createdAt).toBeGreaterThanOrEqual(dueAt)
    expect(createdAt - dueAt).toBeLessThan(5_000)
  }
})
const sqlite = () => {
  const { url, remove } = freshSqlite()
  return { url, close: async () => remove() }
}
const postgres = async () => {
  const { url, drop } = await freshPostgres()
  return { url, close: drop }
}

test('A schedule made over HTTP rings back at each of its ticks, until it is paused', async () => {
  const receiver = await openReceiver()
  onTestFinished(() => receiver.close())
  const platform = await openPlatform()
  await platform.call('POST', '/v1/endpoints', { url: `${receiver.url}/ticks` })
  const body = { cron: '*/2 * * * *', type: 'echo', input: 'tick', callback: {}, metadata: { from: 'clock' } }
  const schedule = await platform.call('POST', '/v1/schedules', body)
  await platform.pass(Date.parse(schedule.upcoming[3]) - platform.clock.now() + 1_000, 5_000)
  await platform.until(() => receiver.arrivals.length >= 4)
  await platform.call('PATCH', `/v1/schedules/${schedule.id}`, { paused: true })
  await platform.pass(10 * MINUTE, 10_000)
  expect(receiver.arrivals).toHaveLength(4)
  const rung = receiver.arrivals.map(({ event }) => event.data as unknown as Record<string, unknown>)
  expect(rung.map(({ runAt }) => runAt).sort()).toEqual(schedule.upcoming.slice(0, 4))
  for (const data of rung) {
    expect(data).toMatchObject({ scheduleId: schedule.id, status: 'completed', result: 'tick', metadata: { from: 'clock' } })
    // The clock moves on while the machine works: how soon is bounded by the next tick only.
    expect(Date.parse(data.startedAt as string) - Date.parse(data.runAt as string)).toBeLessThan(2 * MINUTE)
  }
  expect(await platform.call('GET', `/v1/schedules/${schedule.id}`)).toMatchObject({ lastAt: schedule.upcoming[3], nextAt: null })
})

test('An idle ticker asks four times a minute; one with a tick far away no oftener', async () => {
  const clock = manualClock()
  let asked = 0
  const items: never[] = []
  const store = {
    schedules: {
      findDue: async () => {
        asked++
        return { now: clock.now(), items }
      },
      tick: async () => true,
    },
  }
  const ticker = createCronTicker({ store, registry, clock, budget: ROOM, events: createEventSink() })
  ticker.start()
  for (let second = 0; second < 600; second++) {
    clock.advance(1_000)
    await new Promise((resolve) => setImmediate(resolve))
  }
  await ticker.stop()
  expect(asked).toBeGreaterThanOrEqual(35)
  expect(asked).toBeLessThanOrEqual(41)
  expect(clock.armed).toBe(0)
})
