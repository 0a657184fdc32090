/** Sharing: limits that hold over nodes and their deaths, turns between clients, and blocked tasks that cost the others nothing. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import type { Task } from '../../src/core/model.ts'
import { writePriority } from '../../src/store/driver.ts'
import type { Store } from '../../src/store/interfaces.ts'
import { openPostgres } from '../../src/store/postgres.ts'
import { claim as claimScript } from '../../src/store/queue/claim.ts'
import { newFairCursor } from '../../src/store/queue/fair-order.ts'
import { queueOf } from '../../src/store/queue/task-types.ts'
import { taskTable } from '../../src/store/scripts/tasks/claim.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { defineTask } from '../../src/tasks/define.ts'
import { explained, type Visit } from '../support/explain.ts'
import { manualClock } from '../support/manual-clock.ts'
import { startNode } from '../support/nodes.ts'
import { eventually } from '../support/server.ts'
import { disableAutovacuum, engines, type Ground, openGround } from '../support/stores.ts'
import { addClient, addTask, addTasks, claim, claimOne, claimTasks, completed, findTask, LEASE_MS, retried, view } from '../support/work.ts'

describe.each(engines)('on %s', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine)
    store = ground.store
    await disableAutovacuum(ground)
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  const count = async (text: string): Promise<number> => Number((await ground.sql<{ n: number | string }>(text))[0]!.n)
  const running = (type: string): Promise<number> => count(`select count(*) as n from tasks where state = 'running' and type = '${type}'`)

  test('the limits of a type and of a concurrency key hold while nodes crash, and their slots are freed', async () => {
    const CAP = 3
    const types = [
      { type: 'scarce.one', concurrency: CAP },
      { type: 'report.build', concurrency: null },
    ]
    for (let i = 0; i < 3; i++) {
      const clientId = await addClient(store)
      await addTasks(store, 8, { clientId, type: 'scarce.one', maxTries: 100 })
      await addTasks(store, 3, { clientId, concurrencyKey: 'a', maxTries: 100 })
    }
    const open = () => count(`select count(*) as n from tasks where state <> 'completed'`)
    let most = 0
    for (let round = 0; (await open()) > 0; round++) {
      const nodes = [store, await ground.anotherNode()]
      const claimed = await Promise.all(
        nodes.flatMap((node, n) => [1, 2].map((m) => node.tasks.claim({ ...claim({ limit: 4, leasedBy: `boot_${n}_${m}` }), types }))),
      )
      const items = claimed.flatMap((one) => one.items)
      most = Math.max(most, await running('scarce.one'))
      expect(await running('scarce.one')).toBeLessThanOrEqual(CAP)
      const keyed = items.filter(({ concurrencyKey }) => concurrencyKey !== null)
      expect(new Set(keyed.map(({ clientId }) => clientId)).size, 'one of a key').toBe(keyed.length)
      // Every other one is held by a node that is killed here; the rest ends well.
      const dead = items.filter((_, i) => (i + round) % 2 === 0)
      await Promise.all(items.filter((task) => !dead.includes(task)).map((task) => store.tasks.settle(completed(task))))
      expect((await store.maintenance.findExpired(100, null)).tasks, 'not before their lease ends').toEqual([])
      await ground.pass(LEASE_MS + 1)
      const expired = (await store.maintenance.findExpired(100, null)).tasks
      expect(expired.map(({ id }) => id).sort()).toEqual(dead.map(({ id }) => id).sort())
      await Promise.all(expired.map((task) => store.tasks.settle(retried(task))))
      expect(await running('scarce.one')).toBe(0)
      await ground.pass(200)
      expect(round).toBeLessThan(60)
    }
    expect(most, 'the limit was reached').toBe(CAP)
  })

  test('a node runs as many tasks as it has slots, and a limited type as many as its limit, however tasks arrive', async () => {
    const SLOTS = 4
    const CAP = 3
    const types = { now: new Map<string, number>(), most: new Map<string, number>() }
    const watch = async (name: string, work: () => Promise<void>): Promise<void> => {
      const now = (types.now.get(name) ?? 0) + 1
      types.now.set(name, now)
      types.most.set(name, Math.max(types.most.get(name) ?? 0, now))
      await work()
      types.now.set(name, types.now.get(name)! - 1)
    }
    const soon = () => new Promise<void>((resolve) => setTimeout(resolve, 2))
    for (const [i, node] of [store, await ground.anotherNode()].entries())
      startNode(
        node,
        `boot_${i}`,
        [
          defineTask({ type: 'plain.task', run: () => watch(`node ${i}`, soon) }),
          defineTask({ type: 'scarce.one', concurrency: CAP, run: () => watch(`node ${i}`, () => watch('scarce', soon)) }),
        ],
        SLOTS,
      )
    const clients = [await addClient(store), await addClient(store)]
    await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        const type = i % 3 === 0 ? 'scarce.one' : 'plain.task'
        await addTasks(store, 1 + (i % 4), { clientId: clients[i % 2]!, type })
      }),
    )
    await eventually('all of them', async () => (await count(`select count(*) as n from tasks where state <> 'completed'`)) === 0)
    expect(types.most.get('node 0')).toBeLessThanOrEqual(SLOTS)
    expect(types.most.get('node 1') ?? 0).toBeLessThanOrEqual(SLOTS)
    expect(types.most.get('scarce')).toBeLessThanOrEqual(CAP)
  })

  test('a client with 3,000 queued tasks delays another client’s single task by at most one round of a full node', async () => {
    const SLOTS = 5
    const started: string[] = []
    const type = defineTask({
      type: 'report.build',
      async run(_, { task }) {
        started.push(task.clientId)
        await new Promise((resolve) => setTimeout(resolve, 3))
      },
    })
    const busy = await addClient(store)
    for (let i = 0; i < 6; i++) await addTasks(store, 500, { clientId: busy })
    const node = startNode(store, 'boot_a', [type], SLOTS)
    for (let i = 0; i < 5; i++) {
      const other = await addClient(store)
      const before = started.length
      await eventually('a full node', () => started.length > before + SLOTS)
      await addTask(store, { clientId: other })
      const from = started.length
      const at = await eventually('its start', () => started.indexOf(other) + 1)
      // Those that held the slots when it came, and as many as were being taken in that moment.
      expect(at - from, 'starts of the busy client before it').toBeLessThanOrEqual(2 * SLOTS)
    }
    // Before the store is emptied under it.
    await node.stop(0)
  })

  test('a stream of urgent tasks delays another task only by its head start, so no task starves', async () => {
    const clientId = await addClient(store)
    await addTasks(store, 3, { clientId, priority: 60 })
    const plain = await addTask(store, { clientId, priority: 0 })
    let claims = 0
    for (let found: Task | null = null; found?.id !== plain.id; claims++) {
      // Twice as many come as are taken.
      await addTasks(store, 2, { clientId, priority: 60 })
      found = await claimOne(store)
      await store.tasks.settle(completed(found))
      await ground.pass(10_000)
      expect(claims).toBeLessThan(40)
    }
    // Three that stood before it, and two for each ten seconds of the minute.
    expect(claims).toBeGreaterThan(3)
    expect(claims).toBeLessThanOrEqual(3 + 2 * 7 + 1)
  })

  describe('with 10,000 tasks blocked behind one key', () => {
    const BLOCKED = 10_000
    const block = async (clientId: string): Promise<void> => {
      for (let i = 0; i < BLOCKED; i += 500) await addTasks(store, 500, { clientId, concurrencyKey: 'a', callback: null })
    }

    test('a claim of another client’s task, or of the same client’s task under another key, reads no more rows and runs no more statements', async () => {
      const driver =
        engine === 'sqlite'
          ? openSqlite(ground.url.slice('file:'.length), manualClock())
          : await openPostgres(ground.url, systemClock(), () => {})
      const clientId = await addClient(store)
      const other = await addClient(store)
      const cost = async (owner: string, concurrencyKey: string | null) => {
        // What is left in line of what has ended, and of lanes that are full, is swept before.
        expect(await claimTasks(store)).toEqual([])
        const { id } = await addTask(store, { clientId: owner, concurrencyKey })
        const visits: Visit[] = []
        const taken = await driver.write(writePriority.other, () => {
          visits.length = 0
          const queues = [{ id: queueOf('report.build'), cap: null }]
          return explained(claimScript(taskTable(LEASE_MS, 'boot_a', view), queues, 10, newFairCursor()), driver, visits)
        })
        expect(taken.taken.map((task) => task.id)).toEqual([id])
        await store.tasks.settle(completed(taken.taken[0]!))
        return {
          statements: visits.length,
          rows: visits.reduce((sum, { rows }) => sum + rows, 0),
          scans: visits.flatMap(({ scans }) => scans),
        }
      }
      const costs = async () => [await cost(other, null), await cost(clientId, 'b')]
      await addTask(store, { clientId, concurrencyKey: 'a' })
      await claimOne(store)
      await costs()
      const before = await costs()
      await block(clientId)
      const after = await costs()
      await driver.close()
      for (const [i, { statements, rows, scans }] of after.entries()) {
        expect(statements).toBe(before[i]!.statements)
        expect(rows).toBeLessThanOrEqual(Math.ceil(before[i]!.rows * 1.1))
        expect(scans).toEqual([])
      }
    })

    test('a node that was full while the tasks arrived one by one finds the client’s other tasks within two claims', async () => {
      const clientId = await addClient(store)
      await addTask(store, { clientId, concurrencyKey: 'a' })
      await claimOne(store)
      for (let i = 0; i < 100; i++) await addTask(store, { clientId, concurrencyKey: 'a' })
      const { id } = await addTask(store, { clientId, concurrencyKey: 'b' })
      const found = [...(await claimTasks(store, { limit: 10 })), ...(await claimTasks(store, { limit: 10 }))]
      expect(found.map((task) => task.id)).toEqual([id])
      expect(await count('select count(*) as n from turns')).toBe(0)
    })

    test('the tasks run one by one, each as soon as the previous one has ended', async () => {
      const clientId = await addClient(store)
      await addTasks(store, 50, { clientId, concurrencyKey: 'a' })
      for (let i = 0; i < 50; i++) {
        const tasks = await claimTasks(store)
        expect(tasks).toHaveLength(1)
        await store.tasks.settle(completed(tasks[0]!))
      }
    })
  })

  test('turns that pile up in a paused type are removed in portions, and no task is lost', async () => {
    const clientId = await addClient(store)
    await store.schedules.pauseTaskType({ type: 'report.build', paused: true })
    const { id, laneId } = await addTask(store, { clientId })
    const many =
      engine === 'postgres'
        ? 'generate_series(1, 12000) s(n)'
        : '(with recursive s(n) as (select 1 union all select n + 1 from s where n < 12000) select n from s) s'
    await ground.sql(`insert into turns (queue, client_id, lane_id, turn) select queue, client_id, lane_id, turn from turns, ${many}`)
    await store.schedules.pauseTaskType({ type: 'report.build', paused: false })
    expect((await claimTasks(store)).map((task) => task.id)).toEqual([id])
    expect(await count(`select count(*) as n from turns where lane_id = '${laneId}'`)).toBe(7_001)
    for (let i = 0; i < 3; i++) await claimTasks(store)
    expect(await count('select count(*) as n from turns')).toBe(0)
    expect((await findTask(store, id)).state).toBe('running')
  })
})
