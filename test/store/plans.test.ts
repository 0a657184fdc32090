/** What a claim visits: as little as if the backlog of others were not there. By the plans of the databases themselves. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import type { Allotment } from '../../src/core/fair-share.ts'
import type { Task } from '../../src/core/model.ts'
import { type Driver, writePriority } from '../../src/store/driver.ts'
import type { OpenTaskCursor } from '../../src/store/interfaces.ts'
import { openPostgres } from '../../src/store/postgres.ts'
import { admitStarts, claim, type LentSlots, repairLanes } from '../../src/store/queue/claim.ts'
import { newFairCursor } from '../../src/store/queue/fair-order.ts'
import { findExpired, renew } from '../../src/store/queue/leases.ts'
import { queueOf } from '../../src/store/queue/task-types.ts'
import type { Script } from '../../src/store/script.ts'
import { countBulk } from '../../src/store/scripts/bulk.ts'
import { findTerminalEvents } from '../../src/store/scripts/changes.ts'
import { deliveryTable, settleDeliveries } from '../../src/store/scripts/deliveries.ts'
import { changeEndpoint, addEndpoint as insertEndpoint, removeEndpoint } from '../../src/store/scripts/endpoints.ts'
import { eraseClient, removeClient } from '../../src/store/scripts/erasure.ts'
import { announceFailing, expireDeliveries } from '../../src/store/scripts/health.ts'
import { callbackStatuses, countOpenTasks } from '../../src/store/scripts/lists.ts'
import { countReplay } from '../../src/store/scripts/replay.ts'
import { pruneEndpointEvents, sweepLanes } from '../../src/store/scripts/retention.ts'
import { findDueSchedules, tick } from '../../src/store/scripts/schedules.ts'
import { DELIVERY_QUEUE } from '../../src/store/scripts/shared.ts'
import { eraseTask } from '../../src/store/scripts/tasks/change.ts'
import { taskTable } from '../../src/store/scripts/tasks/claim.ts'
import { endOverdue } from '../../src/store/scripts/tasks/overdue.ts'
import { reportProgress } from '../../src/store/scripts/tasks/progress.ts'
import { settleTasks } from '../../src/store/scripts/tasks/settle.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { explained, type Visit } from '../support/explain.ts'
import { manualClock } from '../support/manual-clock.ts'
import { analyzeMidWrite, disableAutovacuum, engines, type Ground, openGround } from '../support/stores.ts'
import {
  addClient,
  addEndpoint,
  added,
  addTask,
  claimOne,
  claimTasks,
  completed,
  delivered,
  idOf,
  MANY,
  newEndpoint,
  view,
} from '../support/work.ts'

/** A million where there is time: the copying takes half a minute. */
const BACKLOG = Number(process.env.RINGBACK_TEST_BACKLOG ?? 50_000)
const backlog = BACKLOG.toLocaleString('en-US')
/** Rows any one statement may visit: some for each slot it fills, whatever waits elsewhere. */
const MAX_VISITED = 200

/** When PostgreSQL looked at its tables, by which it plans: if at all, after a test; or while all but one of their rows were being written. */
const looks = [...engines.map((engine) => [engine, 'later'] as const), ['postgres', 'amid'] as const]

describe.each(looks)(`with ${backlog} rows in the lanes of others, on %s, which looks at them %s`, (engine, look) => {
  let ground: Ground
  let driver: Driver
  let quiet: string
  let mountain: string
  const many =
    engine === 'postgres'
      ? `generate_series(1, ${BACKLOG}) s(n)`
      : `(with recursive s(n) as (select 1 union all select n + 1 from s where n < ${BACKLOG}) select n from s) s`

  beforeAll(async () => {
    ground = await openGround(engine)
    driver =
      engine === 'sqlite'
        ? openSqlite(ground.url.slice('file:'.length), manualClock())
        : await openPostgres(ground.url, systemClock(), () => {})
    const { store } = ground
    await disableAutovacuum(ground)
    const busy = await addClient(store)
    // A task's lane that is full, with one running and a mountain behind it; and an endpoint that is paused.
    await addTask(store, { clientId: busy, concurrencyKey: 'a', callback: null })
    const endpointId = await addEndpoint(store, { clientId: busy, maxInFlight: 2 })
    mountain = endpointId
    await addTask(store, { clientId: busy, type: 'other.type' })
    await store.tasks.settle(completed(await claimOne(store, {}, ['other.type'])))
    await store.endpoints.change({ id: endpointId, clientId: busy, patch: { paused: true }, revision: null })
    const copy = async (table: string, columns: string) =>
      ground.sql(
        `insert into ${table} (id, ${columns}) select 'copy_' || (1000000 + s.n), ${columns} from ${table}, ${many} where state = 'pending' and id not like 'copy%'`,
      )
    await copy(
      'tasks',
      'client_id, lane_id, state, line, rank, due_at, tries, max_tries, fence, type, generation, revision, input, progress, metadata, priority, concurrency_key, created_at, updated_at, timeout_seconds',
    )
    await copy(
      'deliveries',
      'client_id, lane_id, state, line, rank, due_at, tries, max_tries, fence, event_id, event_type, task_id, endpoint_id, trigger, created_at, updated_at',
    )
    await claimTasks(store)
    if (look === 'amid') await analyzeMidWrite(ground)
    quiet = await addClient(store)
    await addEndpoint(store, { clientId: quiet })
  }, 300_000)
  afterAll(async () => {
    await driver.close()
    await ground.close()
  })

  const measure = async <R>(script: () => Script<R>): Promise<{ answer: R; visits: readonly Visit[] }> => {
    const visits: Visit[] = []
    const answer = await driver.write(writePriority.other, () => {
      visits.length = 0
      return explained(script(), driver, visits)
    })
    return { answer, visits }
  }
  const expectFew = (visits: readonly Visit[]): void => {
    expect(visits.length).toBeGreaterThan(0)
    for (const { text, rows, scans } of visits) {
      expect(rows, text).toBeLessThanOrEqual(MAX_VISITED)
      expect(scans, text).toEqual([])
    }
  }

  // SQLite looks at its tables only when told to, which nobody does.
  test.each(engine === 'sqlite' || look === 'amid' ? ['as loaded'] : ['as loaded', 'as the database has come to know it'])(
    'claims and settlements of another’s work visit none of them: %s',
    async (state) => {
      if (state !== 'as loaded') await ground.sql('analyze')
      const { store } = ground
      const { id } = await addTask(store, { clientId: quiet })
      const queues = [{ id: queueOf('report.build'), cap: state === 'as loaded' ? null : 1_000 }]
      const claimed = await measure(() => claim(taskTable(30_000, 'boot_a', view), queues, 10, newFairCursor()))
      expect(claimed.answer.taken.map((task) => task.id)).toEqual([id])
      expectFew(claimed.visits)
      const [task] = claimed.answer.taken
      expectFew((await measure(() => renew('task', [task!], 30_000))).visits)
      expectFew((await measure(() => findExpired(10, 'boot_a'))).visits)
      const settled = await measure(() => settleTasks([completed(task!)], view))
      expectFew(settled.visits)
      expect((await store.tasks.findMany([id]))[0]!.state).toBe('completed')

      const sending = await measure(() =>
        claim(deliveryTable(30_000, 'boot_a', view), [{ id: DELIVERY_QUEUE, cap: null }], 10, newFairCursor()),
      )
      expect(sending.answer.taken.map((delivery) => delivery.taskId)).toEqual([id])
      expectFew(sending.visits)
      expectFew((await measure(() => settleDeliveries([delivered(sending.answer.taken[0]!)], view))).visits)
    },
  )

  test('a claim and a start skip the turns of refused clients and endpoints, however many', async () => {
    const { store } = ground
    const [one, other] = [await addClient(store), await addClient(store)]
    const [well, slow] = [await addEndpoint(store, { clientId: one }), await addEndpoint(store, { clientId: one })]
    await ground.sql(`insert into turns (queue, client_id, lane_id, turn) select 'delivery', '${other}', 'lane_other', s.n from ${many}`)
    await ground.sql(`insert into turns (queue, client_id, lane_id, turn) values ('delivery', '${one}', '${slow}', 1)`)
    const refused = [
      { clientId: other, laneId: null },
      { clientId: 'client_without_work', laneId: null },
      { clientId: one, laneId: slow },
    ]
    const allotment: Allotment = { refused, take: (_clientId, _laneId, n) => n }
    const slots: LentSlots = { leasedBy: 'boot_a', leaseMs: 30_000, count: 5, allot: () => allotment }
    const started = await measure(() => admitStarts(new Map([[well, { clientId: one, count: 1 }]]), slots, Date.now()))
    expect([...started.answer]).toEqual([[well, 1]])
    expectFew(started.visits)
    const { id } = await addTask(store, { clientId: one, callback: { endpointId: well } })
    await store.tasks.settle(completed(await claimOne(store)))
    const queues = [{ id: DELIVERY_QUEUE, cap: null }]
    const claimed = await measure(() => claim(deliveryTable(30_000, 'boot_a', view), queues, 10, newFairCursor(), allotment))
    expect(claimed.answer.taken.map(({ taskId }) => taskId)).toEqual([id])
    expect(claimed.answer).toMatchObject({ more: false, refused: [refused[0], refused[2]] })
    expectFew(claimed.visits)
    await store.deliveries.settle(delivered(claimed.answer.taken[0]!))
    await ground.sql(`delete from turns where client_id in ('${one}', '${other}')`)
  })

  test('removing and erasing another client reads none of them', async () => {
    const { store } = ground
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    const { id } = await addTask(store, { clientId, metadata: '{"order":"A-1"}' })
    await store.tasks.cancel({ id, clientId })
    await addTask(store, { clientId, dueAt: 9_000_000_000_000 })
    expectFew((await measure(() => removeClient(clientId, view))).visits)
    const erased = await measure(() => eraseClient(clientId, true, view))
    expect(erased.answer).toMatchObject({ remaining: 'nothing', client: { id: clientId } })
    expectFew(erased.visits)
  })

  test('a claim that finds nothing and the repair of lost turns read none of them', async () => {
    const nothing = await measure(() =>
      claim(taskTable(30_000, 'boot_a', view), [{ id: queueOf('report.build'), cap: null }], 10, newFairCursor()),
    )
    expect(nothing.answer.taken).toEqual([])
    expectFew(nothing.visits)
    expectFew((await measure(() => repairLanes('task'))).visits)
    expectFew((await measure(() => repairLanes('delivery'))).visits)
  })

  test('a page of another endpoint’s replay reads none of them', async () => {
    const [endpoint] = (await ground.store.endpoints.list(quiet, 1, null)).items
    const filter = {
      clientId: quiet,
      endpointId: endpoint!.id,
      since: null,
      until: 8e12,
      asOf: 8e12,
      states: ['failed'],
      eventTypes: null,
    } as const
    expectFew((await measure(() => countReplay(filter, null))).visits)
    expectFew((await measure(() => countReplay({ ...filter, endpointId: null }, null))).visits)
  })

  test('a page of a bulk cancel reads none of them', async () => {
    const filter = { clientId: quiet, states: ['pending'], createdBefore: 8e12 } as const
    expectFew((await measure(() => countBulk(filter, null))).visits)
    expectFew((await measure(() => countBulk({ ...filter, metadata: { key: 'order', value: 'A' } }, null))).visits)
  })

  test('progress reports and the terminal event that supersedes them read none of them, even for the endpoint of the backlog', async () => {
    const { store } = ground
    const { clientId, events } = (await store.endpoints.find(mountain, null))!
    await store.endpoints.change({ id: mountain, clientId, patch: { events: '["task.progress","task.completed"]' }, revision: null })
    await addTask(store, { clientId, type: 'third.type' })
    const task = await claimOne(store, {}, ['third.type'])
    const report = { ...task, progress: 10, message: null, notify: true }
    const first = await measure(() => reportProgress([report], view))
    expect(first.answer).toMatchObject([{ notified: 'sent' }])
    expectFew(first.visits)
    expectFew((await measure(() => reportProgress([report], view))).visits)
    expectFew((await measure(() => settleTasks([completed(task)], view))).visits)
    await store.endpoints.change({ id: mountain, clientId, patch: { events }, revision: null })
  })

  test('the backlog is counted in pages, and each page starts where the previous one ended', async () => {
    const visits: Visit[] = []
    let counted = 0
    let portions = 0
    for (let after: OpenTaskCursor | null = null; ; portions++) {
      const found: { n: number; next: OpenTaskCursor | null } = await ground.store.tasks.countOpen(after, null)
      counted += found.n
      if (portions === 3) visits.push(...(await measure(() => countOpenTasks(after, null))).visits)
      after = found.next
      if (after === null) break
    }
    const [{ n }] = (await ground.sql(`select count(*) as n from tasks where state in ('pending', 'running')`)) as [{ n: number | string }]
    expect(counted).toBe(Number(n))
    expect(portions).toBe(Math.floor(BACKLOG / 10_000))
    for (const { rows, scans, text } of visits) {
      expect(rows, text).toBeLessThanOrEqual(10_000)
      expect(text).toMatch(/tasks_pending/)
      expect(scans, text).toEqual([])
    }
  })

  test('a count of one client’s open tasks reads no other client’s', async () => {
    const { visits, answer } = await measure(() => countOpenTasks(null, quiet))
    expectFew(visits)
    expect(answer.next).toBeNull()
    for (const { text, scans } of visits) {
      expect(text).toMatch(/tasks_(pending|running)/)
      expect(scans, text).toEqual([])
    }
  })

  test('the search for failing endpoints and for expired holds reads none of them', async () => {
    expectFew((await measure(() => announceFailing(100, view))).visits)
    expectFew((await measure(() => expireDeliveries(100, 14 * 86_400_000))).visits)
  })

  test('the search for old endpoint events reads none of them', async () => {
    const { visits } = await measure(() => pruneEndpointEvents('', 100, 7 * 86_400_000))
    // Endpoints alone are walked along, once an hour.
    expectFew(visits.filter(({ text }) => !text.includes('endpoints')))
    for (const { rows, text } of visits) expect(rows, text).toBeLessThanOrEqual(MAX_VISITED)
  })

  test('the search for due schedules and a tick read no other schedule', async () => {
    const { store } = ground
    const nextAt = (await store.now()) + 3_600_000
    const template = '{"input":"null","metadata":"{}","callback":null,"timeoutSeconds":1,"maxTries":1,"priority":0,"concurrencyKey":null}'
    const given = {
      clientId: quiet,
      type: 'report.build',
      cron: '@daily',
      timezone: 'UTC',
      catchUp: 'none',
      template,
      paused: false,
    } as const
    // Each waits for the row of its client, and no longer than it may for a connection.
    for (let made = 0; made < 1_000; made += 250)
      await Promise.all(
        Array.from({ length: 250 }, (_, n) =>
          store.schedules.add({ schedule: { ...given, id: idOf('schedule'), nextAt: nextAt + made + n }, max: MANY }),
        ),
      )
    const schedule = added(
      await store.schedules.add({ schedule: { ...given, id: idOf('schedule'), nextAt: nextAt - 7_200_000 }, max: MANY }),
    )
    const found = await measure(() => findDueSchedules(['report.build', 'other.type'], 10))
    expect(found.answer.items.map(({ id }) => id)[0]).toBe(schedule.id)
    expectFew(found.visits)
    const due = { id: schedule.id, nextAt: schedule.nextAt!, revision: 1, size: template.length }
    const ticked = await measure(() => tick([{ due, times: [due.nextAt], nextAt, timeoutSeconds: 1, maxTries: 1 }], view))
    expect(ticked.answer).toEqual([true])
    expectFew(ticked.visits)
    const [task] = (await store.tasks.list({ clientId: quiet, order: 'desc', limit: 1, after: null })).items
    await store.tasks.cancel({ id: task!.id, clientId: null })
  })

  test('verifying, changing and deleting an endpoint reads none of them', async () => {
    const given = newEndpoint({ clientId: quiet, verification: 'challenge', verified: false })
    expectFew((await measure(() => insertEndpoint(given, MANY, view))).visits)
    const asked = await measure(() =>
      claim(deliveryTable(30_000, 'boot_a', view), [{ id: DELIVERY_QUEUE, cap: null }], 10, newFairCursor()),
    )
    expect(asked.answer.taken.map(({ eventType }) => eventType)).toEqual(['endpoint.verification'])
    expectFew((await measure(() => settleDeliveries([delivered(asked.answer.taken[0]!)], view))).visits)
    expectFew((await measure(() => changeEndpoint(given.id, quiet, { verified: false }, null, view))).visits)
    expectFew((await measure(() => removeEndpoint(given.id, quiet))).visits)
  })

  test('a claim from the backlog reads the head of its lane; once the lane is full, other claims do not read it', async () => {
    const { store } = ground
    await store.endpoints.change({ id: mountain, clientId: null, patch: { paused: false }, revision: null })
    const queues = [{ id: DELIVERY_QUEUE, cap: null }]
    const first = await measure(() => claim(deliveryTable(30_000, 'boot_a', view), queues, 10, newFairCursor()))
    expect(first.answer.taken.map(({ endpointId }) => endpointId)).toEqual([mountain, mountain])
    expectFew(first.visits)
    const { id } = await addTask(store, { clientId: quiet })
    await store.tasks.settle(completed(await claimOne(store)))
    const second = await measure(() => claim(deliveryTable(30_000, 'boot_a', view), queues, 10, newFairCursor()))
    expect(second.answer.taken.map(({ taskId }) => taskId)).toEqual([id])
    expectFew(second.visits)
    expectFew((await measure(() => settleDeliveries([delivered(first.answer.taken[0]!)], view))).visits)
  })

  test.runIf(engine === 'sqlite')(
    'a claim that finds nothing and a search for lost turns take no longer than a look at a few rows',
    async () => {
      // A walk along the backlog takes tens of milliseconds at best; the fastest of many is not slowed by others on the machine.
      const fastest = async (script: () => Script<unknown>): Promise<number> => {
        let best = Infinity
        for (let i = 0; i < 20; i++) {
          const startedAt = performance.now()
          await driver.write(writePriority.other, script)
          best = Math.min(best, performance.now() - startedAt)
        }
        return best
      }
      const round = newFairCursor()
      expect(
        await fastest(() => claim(taskTable(30_000, 'boot_a', view), [{ id: queueOf('report.build'), cap: null }], 10, round)),
      ).toBeLessThan(5)
      expect(
        await fastest(() => claim(deliveryTable(30_000, 'boot_a', view), [{ id: DELIVERY_QUEUE, cap: null }], 10, round)),
      ).toBeLessThan(5)
      expect(await fastest(() => repairLanes('task'))).toBeLessThan(5)
      expect(await fastest(() => repairLanes('delivery'))).toBeLessThan(5)
    },
  )
})

/** Lanes, tasks, events and deliveries that PostgreSQL takes for one each. */
const MANY_LANES = 3_000

describe.each([['as new'], ['amid']])(`with ${MANY_LANES} lanes on a PostgreSQL that knows them %s`, (look) => {
  let ground: Ground
  let driver: Driver
  let clientId: string
  let endpointId: string

  beforeAll(async () => {
    ground = await openGround('postgres')
    driver = await openPostgres(ground.url, systemClock(), () => {})
    await disableAutovacuum(ground)
    const { store, sql } = ground
    clientId = await addClient(store)
    endpointId = await addEndpoint(store, { clientId })
    await addTask(store, { clientId, metadata: '{"order":"A"}' })
    await store.tasks.settle(completed(await claimOne(store)))
    const copy = (table: string, given: Record<string, string>, columns: string) =>
      sql(`insert into ${table} (${Object.keys(given)}, ${columns}) select ${Object.values(given)}, ${columns}
        from (select * from ${table} limit 1) x, generate_series(100001, ${100_000 + MANY_LANES}) s(n)`)
    const work = 'line, rank, due_at, tries, max_tries, fence, updated_at, finished_at'
    const task = 'client_id, type, generation, revision, input, result, progress, metadata, priority, callback, timeout_seconds'
    // What has ended, with what told of it; and as many lanes with one that waits in each.
    await copy('tasks', { id: `'task_' || n`, created_at: 'created_at + n' }, `${task}, lane_id, state, ${work}`)
    await copy(
      'events',
      { id: `'event_' || n`, task_id: `'task_' || n`, seq: 'n' },
      'client_id, type, terminal, generation, revision, body, created_at',
    )
    await copy('labels', { task_id: `'task_' || n`, created_at: 'created_at + n' }, 'client_id, name, value')
    const delivery = 'client_id, endpoint_id, event_type, trigger'
    const told = { event_id: `'event_' || n`, task_id: `'task_' || n`, created_at: 'created_at + n' }
    await copy('deliveries', { ...told, id: `'delivery_' || n`, state: `'completed'` }, `${delivery}, lane_id, ${work}`)
    const waits = { lane_id: `client_id || '/report.build/' || n`, state: `'pending'` }
    await copy('tasks', { ...waits, id: `'task_w_' || n`, created_at: 'created_at + n' }, `${task}, ${work}`)
    await sql(`insert into lanes (id, cap, paced_at, held_until, filled) select lane_id, 1, 0, 0, 0 from tasks where id like 'task_w_%'`)
    await sql(
      `insert into turns (queue, client_id, lane_id, turn) select 'task/' || type, client_id, lane_id, rank from tasks where id like 'task_w_%'`,
    )
    if (look === 'amid') await analyzeMidWrite(ground)
  }, 60_000)
  afterAll(async () => {
    await driver.close()
    await ground.close()
  })

  const page = { since: null, until: 8e12, asOf: 8e12, states: ['completed'], eventTypes: null } as const
  const ids = Array.from(
    { length: 200 },
    (_, n) => ({ id: `task_${100_001 + n}`, generation: 1, callback: '{}', state: 'completed' }) as Task,
  )
  /** Rows each statement may visit: about as many as it is asked about, whatever else there is. */
  const asked: readonly (readonly [string, number, () => Script<unknown>])[] = [
    ['the search for lost turns', MANY_LANES * 8, () => repairLanes('task')],
    [
      'a claim of some lanes',
      500,
      () => claim(taskTable(30_000, 'boot_a', view), [{ id: queueOf('report.build'), cap: null }], 10, newFairCursor()),
    ],
    ['a sweep of idle lanes', 2_000, () => sweepLanes('', 100)],
    ['a page of a replay', 8_000, () => countReplay({ ...page, clientId, endpointId }, null)],
    ['a page of a change in bulk', 7_000, () => countBulk({ clientId, states: ['failed'], createdBefore: 8e12 }, null)],
    [
      'a page of what has a label',
      7_000,
      () => countBulk({ clientId, states: ['failed'], createdBefore: 8e12, metadata: { key: 'order', value: 'A' } }, null),
    ],
    ['the endings of some tasks', 500, () => findTerminalEvents(ids)],
    ['what became of their callbacks', 1_000, () => callbackStatuses(ids)],
    ['the erasing of a task', 50, () => eraseTask('task_100007', clientId)],
    ['tasks past their time', 50, () => endOverdue(100, 1_000, view)],
  ]
  test.each(asked)('%s visits what it is asked about', async (_, most, script) => {
    const visits: Visit[] = []
    await driver.write(writePriority.other, () => {
      visits.length = 0
      return explained(script(), driver, visits)
    })
    expect(visits.length).toBeGreaterThan(0)
    for (const { text, rows } of visits) expect(rows, text).toBeLessThanOrEqual(most)
  })
})
