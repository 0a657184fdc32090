/** The consistency check finds every planted violation, and none in a store that only Ringback wrote. */
import { getTableName } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../../src/core/clock.ts'
import { type Check, type CheckReport, checkStore, checks } from '../../../src/store/check/check.ts'
import type { Store } from '../../../src/store/interfaces.ts'
import * as schema from '../../../src/store/schema.sqlite.ts'
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
  failed,
  newTask,
  retried,
  undeliverable,
  undelivered,
} from '../../support/work.ts'

const DAY = 86_400_000

describe.each(engines)('the consistency check on %s', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine)
    store = ground.store
    made = await traffic()
    // Copies, because creating the rows takes longer than restoring them.
    for (const table of tables) await sql(`create table kept_${table} as select * from ${table}`)
  })
  afterEach(() => restore())
  afterAll(() => ground.close())

  const runCheck = async (limit = 100): Promise<CheckReport> => {
    const now = await store.now()
    return checkStore({ url: ground.url, clock: { ...systemClock(), now: () => now }, leaseGraceMs: 90_000, retentionMs: 7 * DAY, limit })
  }
  const sql = (text: string) => ground.sql(text)

  /** Rows of every kind: ended, retried, erased, pruned, waiting, running, delivered, failing, held, deleted. */
  async function traffic() {
    const clientId = await addClient(store)
    const other = await addClient(store, 'Another')
    const endpointId = await addEndpoint(store, { clientId })
    await addTasks(store, 3, { clientId, metadata: '{"of":"long ago"}' })
    const finish = async () => Promise.all((await claimTasks(store)).map((task) => store.tasks.settle(completed(task))))
    const deliver = async () => {
      for (const owed of await claimDeliveries(store)) await store.deliveries.settle(delivered(owed))
    }
    await finish()
    await deliver()
    await ground.pass(8 * DAY)
    await store.maintenance.pruneTasks({ after: '', limit: 500, minKeptMs: DAY })

    const follower = await addEndpoint(store, {
      clientId,
      format: 'cloudevents',
      events: '["task.created","task.started","task.progress","task.completed","task.failed"]',
    })
    const deletedEndpoint = await addEndpoint(store, { clientId })
    await ground.pass(120_000)
    const idempotency = { clientId, scope: 'POST /v1/tasks', key: 'k', fingerprint: 'f' }
    const named = newTask({ clientId, metadata: '{"order":"7","of":"now"}' })
    await store.tasks.add({ tasks: [named], idempotency })
    const erased = await addTask(store, { clientId })
    await finish()
    await deliver()
    await store.tasks.erase({ id: erased.id, clientId })
    await addTasks(store, 4, { clientId, maxTries: 2 })
    const again = await addTask(store, { clientId, concurrencyKey: 'one' })
    await addTask(store, { clientId, concurrencyKey: 'one' })
    await addTask(store, { clientId: other })
    const [first, second, third, ...running] = await claimTasks(store)
    await store.tasks.settle(failed(first!))
    await store.tasks.settle(retried(second!, 60_000))
    await store.tasks.reportProgress({ id: third!.id, fence: third!.fence, progress: 40, message: null, notify: true })
    await store.tasks.cancel({ id: again.id, clientId })
    for (const task of running.filter(({ id }) => id === again.id)) await store.tasks.settle(failed(task))
    await store.tasks.redo({ id: again.id, clientId })
    const late = await addTask(store, { clientId, dueAt: (await store.now()) + DAY })
    const canceled = await addTask(store, { clientId, callback: { endpointId } })
    await store.tasks.cancel({ id: canceled.id, clientId })
    const [one, two, three] = await claimDeliveries(store)
    await store.deliveries.settle(undelivered(one!, 60_000))
    await store.deliveries.settle(undeliverable(two!))
    await store.deliveries.settle(delivered(three!))
    await store.endpoints.remove({ id: deletedEndpoint, clientId })
    await store.endpoints.change({ id: follower, clientId, patch: { paused: true }, revision: null })
    const held = await addTask(store, { clientId, callback: { endpointId: follower } })
    await store.tasks.cancel({ id: held.id, clientId })
    await addTask(store, { clientId })
    await store.endpoints.addPing({
      ping: {
        endpointId,
        clientId,
        eventId: 'event_00000000000000000000000ping',
        deliveryId: 'delivery_00000000000000000000ping',
      },
    })
    return { clientId, other, endpointId, follower, named: named.id, erased: erased.id, again: again.id, late: late.id, running: third!.id }
  }
  let made: Awaited<ReturnType<typeof traffic>>
  const tables = Object.values(schema).map((table) => getTableName(table))
  async function restore() {
    await ground.clear()
    for (const table of tables) await sql(`insert into ${table} select * from kept_${table}`)
  }

  test('finds nothing in a store with every kind of row, and reports what is owed to each endpoint', async () => {
    const report = await runCheck()
    expect(report.violations).toMatchObject({ total: 0, first: [] })
    expect(report.counts).toMatchObject({ tasks: 12, tombstones: 4, idempotencyKeys: 1, clients: 2, endpoints: 2 })
    expect(report.counts.liveTasks).toBeGreaterThan(4)
    expect(report.lapsedLeases).toBe(0)
    const owed = await ground.sql<{ endpoint_id: string; n: number | string }>(
      `select endpoint_id, count(*) as n from deliveries where state in ('pending', 'running') group by endpoint_id`,
    )
    expect(new Map(report.owed.map((debt) => [debt.endpointId, debt.open]))).toEqual(
      new Map(owed.map(({ endpoint_id, n }) => [endpoint_id, Number(n)])),
    )
    const held = report.owed.find((debt) => debt.endpointId === made.follower)!
    expect(Object.keys(held.reasons)).toContain('endpointPaused')
    expect(held.url).toContain('https://receiver.example/')
  })

  const ended = `(select task_id from events where terminal = 1 and generation = 1 and task_id in (select id from tasks where state = 'completed') limit 1)`
  const openDelivery = `(select id from deliveries where state = 'pending' limit 1)`
  const deliveredOne = `(select id from deliveries where state = 'completed' order by id desc limit 1)`
  const schedule = (members: string, values: string) =>
    `insert into schedules (id, client_id, type, cron, timezone, catch_up, created_at, updated_at, revision, ${members}) values ('schedule_1', '${made.clientId}', 't', '* * * * *', 'UTC', 'one', 1, 1, 1, ${values})`
  const plants: readonly (readonly [what: string, check: Check, sentence: RegExp, ...sql: (() => string)[]])[] = [
    [
      'an ended generation without its event',
      'endings',
      /^Task task_\w+ has no terminal event of its ended generation 1\.$/,
      () => `update events set terminal = 0, type = 'task.started' where terminal = 1 and task_id = ${ended}`,
    ],
    [
      'an earlier generation without its event',
      'endings',
      /has no terminal event of its ended generation 1/,
      () => `delete from events where terminal = 1 and task_id = '${made.again}'`,
    ],
    [
      'a generation that ended twice',
      'endings',
      /has 2 terminal events of generation 1: event_/,
      () => 'drop index events_terminal',
      () => `insert into events select 'event_2', client_id, task_id, endpoint_id, type, terminal, generation, revision, seq + 1000, body, created_at
        from events where terminal = 1 and task_id = '${made.named}'`,
      () => `update clients set seq = seq + 1000`,
    ],
    [
      'a terminal event of an open task',
      'endings',
      /is (pending|running) in generation 2, but event event_\w+ ends generation 2/,
      () => `update events set generation = 2 where terminal = 1 and task_id = '${made.again}'`,
    ],
    [
      'a terminal event of another revision',
      'endings',
      /is completed at revision 9, but its event event_\w+ is task\.completed at revision 3/,
      () => `update tasks set revision = 9 where id = '${made.named}'`,
    ],
    [
      'a body that differs from its row',
      'bodies',
      /^The body of event event_\w+ contains .*"failed"/,
      () =>
        `update events set body = replace(body, '"status":"completed"', '"status":"failed"') where task_id = '${made.named}' and terminal = 1`,
    ],
    [
      'a body that is not JSON',
      'bodies',
      /is not JSON/,
      () => `update events set body = '{' where task_id = '${made.named}' and terminal = 1`,
    ],
    ['an empty body', 'bodies', /is empty/, () => `update events set body = '' where task_id = '${made.named}' and terminal = 1`],
    [
      'an input that is not JSON',
      'rows',
      /^The input of task task_\w+ is not JSON/,
      () => `update tasks set input = '{' where id = '${made.late}'`,
    ],
    ['metadata that is not JSON', 'rows', /metadata that is not JSON/, () => `update tasks set metadata = '{' where id = '${made.named}'`],
    [
      'a running task without a lease',
      'rows',
      /is running without a lease/,
      () => `update tasks set leased_until = null where id = '${made.running}'`,
    ],
    [
      'a lease of a pending task',
      'rows',
      /is pending but has a lease of boot_x/,
      () => `update tasks set leased_by = 'boot_x' where id = '${made.late}'`,
    ],
    ['more tries than allowed', 'rows', /has 9 tries of at most 5/, () => `update tasks set tries = 9 where id = '${made.late}'`],
    [
      'a task in another lane',
      'rows',
      /is in lane elsewhere but belongs to/,
      () => `update tasks set lane_id = 'elsewhere' where id = '${made.named}'`,
    ],
    [
      'a completed task without a result',
      'rows',
      /is completed without a result/,
      () => `update tasks set result = null where id = '${made.named}'`,
    ],
    [
      'a lease that expired while a node was running',
      'leases',
      /is running under a lease of boot_a that expired \d+ s ago/,
      () => `update tasks set leased_until = leased_until - 200000 where id = '${made.running}'`,
      () => `insert into queues (id, worker_seen_at) select 'task/x', max(updated_at) from tasks`,
    ],
    [
      'an owed event without a delivery',
      'owed',
      /is owed to endpoint endpoint_\w+ but has no delivery to it/,
      () => `delete from deliveries where task_id = '${made.named}' and endpoint_id = '${made.endpointId}'`,
    ],
    [
      'a delivery of a missing event',
      'owed',
      /belongs to event event_\w+, which does not exist/,
      () => `delete from events where id = (select event_id from deliveries where task_id is null)`,
    ],
    [
      'a delivery of another event',
      'owed',
      /has another type, task or client than its event/,
      () => `update deliveries set event_type = 'task.failed' where id = ${deliveredOne}`,
    ],
    [
      'a delivery to a missing endpoint',
      'owed',
      /owed to endpoint endpoint_gone, which does not exist/,
      () => `update deliveries set endpoint_id = 'endpoint_gone' where id = ${openDelivery}`,
    ],
    [
      'a delivery of a missing task',
      'traces',
      /belongs to task task_gone/,
      () => `update deliveries set task_id = 'task_gone' where id = ${openDelivery}`,
    ],
    [
      'a schedule with a template that is not JSON',
      'rows',
      /^Schedule schedule_1 has a template that is not JSON/,
      () => schedule('template', `'{'`),
    ],
    [
      'a paused schedule with a next tick',
      'rows',
      /is paused but has a next tick/,
      () => schedule('template, paused_at, next_at', `'{}', 1, 1`),
    ],
    [
      'a schedule of a missing client',
      'traces',
      /^Schedule schedule_1 belongs to a client/,
      () => schedule('template', `'{}'`),
      () => `update schedules set client_id = 'client_gone'`,
    ],
    ['a callback that is not JSON', 'rows', /callback that is not JSON/, () => `update tasks set callback = '{' where id = '${made.late}'`],
    [
      'an ended task without a finish time',
      'rows',
      /is completed without a finish time/,
      () => `update tasks set finished_at = null where id = '${made.named}'`,
    ],
    [
      'a completed task at 50 percent',
      'rows',
      /is completed at 50 percent/,
      () => `update tasks set progress = 50 where id = '${made.named}'`,
    ],
    [
      'a completed task with an error',
      'rows',
      /is completed with an error/,
      () => `update tasks set error = '{}' where id = '${made.named}'`,
    ],
    ['more tries than claims', 'rows', /has 3 tries but fence 0/, () => `update tasks set tries = 3 where id = '${made.late}'`],
    [
      'an event of another client',
      'endings',
      /belongs to client_\w+, but its event event_\w+ belongs to client_/,
      () => `update events set client_id = '${made.other}', seq = seq + 500 where task_id = '${made.named}'`,
    ],
    [
      'a terminal event that is not marked',
      'endings',
      /is task\.completed and is not marked as terminal/,
      () => `update events set terminal = 0 where task_id = '${made.named}' and terminal = 1`,
    ],
    [
      'a delivery in another lane',
      'rows',
      /is in lane elsewhere but is owed to/,
      () => `update deliveries set lane_id = 'elsewhere' where id = ${deliveredOne}`,
    ],
    [
      'an ended delivery without a finish time',
      'rows',
      /is completed without a finish time/,
      () => `update deliveries set finished_at = null where id = ${deliveredOne}`,
    ],
    [
      'a delivery of another client',
      'owed',
      /belongs to client_\w+, but its endpoint endpoint_\w+ belongs to client_/,
      () => `update deliveries set client_id = '${made.other}' where id = ${deliveredOne}`,
    ],
    [
      'a delivery canceled for an endpoint that exists',
      'rows',
      /was canceled because endpoint endpoint_\w+ was deleted, but it exists/,
      () => `update deliveries set state = 'canceled', canceled_reason = 'endpointDeleted' where endpoint_id = '${made.endpointId}'`,
    ],
    [
      'a delivery canceled for a task that exists',
      'rows',
      /was canceled because task task_\w+ was deleted, but it exists/,
      () => `update deliveries set state = 'canceled', canceled_reason = 'taskDeleted' where task_id = '${made.named}'`,
    ],
    [
      'an endpoint with event types that are not JSON',
      'rows',
      /has event or task types that are not JSON/,
      () => `update endpoints set events = '[' where id = '${made.follower}'`,
    ],
    [
      'an endpoint of a missing client',
      'traces',
      /belongs to a client that does not exist/,
      () => `update endpoints set client_id = 'client_gone' where id = '${made.follower}'`,
    ],
    [
      'a feed of a missing client',
      'feeds',
      /is in the feed of client_gone, which does not exist/,
      () => `update events set client_id = 'client_gone' where task_id = '${made.named}'`,
    ],
    [
      'an idempotency key with task ids that are not JSON',
      'traces',
      /has task ids that are not JSON/,
      () => `update idempotency set task_ids = '['`,
    ],
    ['a turn without a time', 'lanes', /has no time/, () => 'update turns set turn = null, alarm_at = null'],
    [
      'a canceled delivery without a reason',
      'rows',
      /is canceled with the reason null/,
      () => `update deliveries set canceled_reason = null where state = 'canceled'`,
    ],
    [
      'a completed delivery without a successful attempt',
      'attempts',
      /is completed but has no successful attempt/,
      () => `delete from attempts where delivery_id = ${deliveredOne}`,
    ],
    [
      'a failed delivery without a failed attempt',
      'attempts',
      /has failed but has no failed attempt/,
      () => `delete from attempts where delivery_id = (select id from deliveries where state = 'failed')`,
    ],
    [
      'a try without an attempt',
      'attempts',
      /has 2 tries but 1 attempts/,
      () => `update deliveries set tries = 2, fence = 2 where state = 'pending' and tries = 1`,
    ],
    [
      'an attempt under a fence that was never claimed',
      'attempts',
      /but an attempt under fence 77/,
      () => `update attempts set fence = 77 where delivery_id = ${deliveredOne}`,
    ],
    [
      'an attempt of a missing delivery',
      'traces',
      /belongs to delivery delivery_gone/,
      () => `update attempts set delivery_id = 'delivery_gone' where delivery_id = ${deliveredOne}`,
    ],
    [
      'a feed with a gap',
      'feeds',
      /^The feed of client_\w+ continues with \d+ after \d+/,
      () => 'delete from tombstones',
      () =>
        `update events set seq = seq + 100 where seq = (select max(seq) from events where client_id = '${made.clientId}') and client_id = '${made.clientId}'`,
      () => `update clients set seq = seq + 100 where id = '${made.clientId}'`,
    ],
    [
      'a feed without its last events',
      'feeds',
      /continues with \d\d after \d+/,
      () => 'delete from tombstones',
      () => `update clients set seq = seq + 20 where id = '${made.clientId}'`,
    ],
    [
      'a client that counts fewer events than its feed has',
      'feeds',
      /but the client counts 1\./,
      () => `update clients set seq = 1 where id = '${made.clientId}'`,
    ],
    ['a lane without its turn', 'lanes', /^Lane client_\w+\/report\.build has claimable work but no turn/, () => 'delete from turns'],
    [
      'a full lane without running work',
      'lanes',
      /is marked full but has no running work/,
      () => `insert into lanes (id, paced_at, held_until, filled) values ('empty', 0, 0, 1)`,
    ],
    [
      'more running tasks than the limit of a lane',
      'lanes',
      /has a limit of 0 but \d running/,
      () => `update lanes set cap = 0 where id = '${made.clientId}/report.build'`,
    ],
    [
      'an active endpoint with a lane that is held forever',
      'lanes',
      /may be sent webhooks, but its lane is held forever/,
      () => `update lanes set held_until = 8000000000000000 where id = '${made.endpointId}'`,
    ],
    [
      'a paused endpoint with an open lane',
      'lanes',
      /may not be sent webhooks, but its lane is open/,
      () => `update lanes set held_until = 0 where id = '${made.follower}'`,
    ],
    ['an endpoint without a lane', 'lanes', /has no lane/, () => `delete from lanes where id = '${made.follower}'`],
    [
      'a lane with another limit than its endpoint',
      'lanes',
      /allows 100 in flight, but its lane allows 7/,
      () => `update lanes set cap = 7 where id = '${made.endpointId}'`,
    ],
    ['a turn of another lane', 'lanes', /in queue task\/x is for lane/, () => `update turns set queue = 'task/x'`],
    [
      'metadata without a label',
      'traces',
      /has 2 members of metadata and 1 labels, of which 1 match/,
      () => `delete from labels where name = 'order'`,
    ],
    [
      'a label of a missing task',
      'traces',
      /belongs to task task_gone, which does not exist/,
      () => `update labels set task_id = 'task_gone' where name = 'order'`,
    ],
    [
      'an idempotency key of a missing task',
      'traces',
      /^Idempotency key "k" of client_\w+ created task task_gone/,
      () => `update idempotency set task_ids = '["task_gone"]'`,
    ],
    [
      'a tombstone of a task that exists',
      'traces',
      /has a tombstone but exists/,
      () => `update tombstones set id = '${made.named}' where id = '${made.erased}'`,
    ],
    [
      'an event of a missing task that was not erased',
      'traces',
      /belongs to task task_\w+, which neither exists nor was erased/,
      () => `delete from tombstones where id = '${made.erased}'`,
    ],
  ]
  test.each(plants.map(([what, ...rest]) => [what, rest] as const))('finds %s', async (_what, [check, sentence, ...plant]) => {
    for (const make of plant) await sql(make())
    const { violations } = await runCheck(1_000)
    const found = violations.first.filter((each) => each.check === check && sentence.test(each.sentence))
    expect(found, JSON.stringify(violations.first)).not.toEqual([])
    expect(violations.byCheck[check]).toBeGreaterThanOrEqual(found.length)
    expect(violations.total).toBe(violations.first.length)
    if (plant[0]!() === 'drop index events_terminal') {
      await sql(`delete from events where id = 'event_2'`)
      await sql('create unique index events_terminal on events (task_id, generation) where terminal = 1')
    }
  })

  test('finds a violation of every check', () => {
    expect(new Set(plants.map(([, check]) => check))).toEqual(new Set(Object.keys(checks)))
  })

  test('finds nothing while a deleted client is erased page by page, nor afterwards', async () => {
    await store.access.removeClient({ id: made.clientId })
    for (let rest = 'more'; rest !== 'nothing'; ) {
      expect((await runCheck()).violations.first).toEqual([])
      rest = await store.maintenance.eraseClient({ id: made.clientId, last: true })
      // Running tasks complete.
      for (const { id, fence } of await ground.sql<{ id: string; fence: number }>(`select id, fence from tasks where state = 'running'`))
        await store.tasks.settle(completed({ id, fence }))
    }
    expect((await runCheck()).violations.first).toEqual([])
  })

  test('counts violations beyond the limit, and reports no expired lease while no server is running', async () => {
    await sql('delete from labels')
    await sql('delete from events where terminal = 1')
    const { violations } = await runCheck(2)
    expect(violations.first).toHaveLength(2)
    expect(violations.total).toBeGreaterThan(2)
    await sql('delete from queues')
    await sql(`update tasks set leased_until = leased_until - 200000 where state = 'running'`)
    const quiet = await runCheck()
    expect(quiet.violations.byCheck.leases).toBe(0)
    expect(quiet.lapsedLeases).toBeGreaterThan(0)
  })
})
