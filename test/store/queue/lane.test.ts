/** Lanes: caps that hold, turns that are taken, and claims that do not pay for the backlog of others. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Store } from '../../../src/store/interfaces.ts'
import { engines, type Ground, openGround } from '../../support/stores.ts'
import {
  addClient,
  addEndpoint,
  addTask,
  addTasks,
  claim,
  claimDeliveries,
  claimOne,
  claimTasks,
  completed,
  delivered,
  LEASE_MS,
  released,
  retried,
  undelivered,
} from '../../support/work.ts'

const ONE_TYPE = [{ type: 'report.build', concurrency: null }]

describe.each(engines)('lanes on %s', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine)
    store = ground.store
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  const count = async (text: string): Promise<number> => Number((await ground.sql<{ n: number | string }>(text))[0]!.n)
  /** Events of finished tasks, owed to every endpoint of the client. */
  const owe = async (clientId: string, events: number): Promise<void> => {
    await addTasks(store, events, { clientId })
    const tasks = await claimTasks(store, { limit: events })
    await Promise.all(tasks.map((task) => store.tasks.settle(completed(task))))
  }
  /** Works until nothing is left on two nodes, six at once, while a sampler counts; answers the most that ran at any time. */
  const workAll = async (table: 'tasks' | 'deliveries', work: (node: Store) => Promise<number>): Promise<number> => {
    const nodes = [store, await ground.anotherNode()]
    let most = 0
    let done = false
    const open = () => count(`select count(*) as n from ${table} where state in ('pending', 'running')`)
    const sampler = async (): Promise<void> => {
      while (!done) {
        const groups = table === 'tasks' ? 'type, concurrency_key' : 'lane_id'
        most = Math.max(
          most,
          await count(
            `select coalesce(max(c), 0) as n from (select count(*) as c from ${table} where state = 'running' group by ${groups}) g`,
          ),
        )
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    const worker = async (node: Store): Promise<void> => {
      for (let idle = 0; idle < 3; ) {
        idle = (await work(node)) > 0 ? 0 : idle + 1
        if (idle > 0 && (await open()) > 0) {
          // Slots of a type that was full are looked for again after a tenth of a second; on PostgreSQL time passes by itself.
          if (engine === 'sqlite') await ground.pass(100)
          idle = 0
        }
      }
    }
    const sampling = sampler()
    try {
      await Promise.all(nodes.flatMap((node) => [worker(node), worker(node), worker(node)]))
    } finally {
      done = true
      await sampling
    }
    return most
  }

  test('the cap of an endpoint holds under two nodes that claim and settle at once, and its slots never leak', async () => {
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId, maxInFlight: 3 })
    await owe(clientId, 60)
    const most = await workAll('deliveries', async (node) => {
      const sending = await claimDeliveries(node, { limit: 5 })
      expect(sending.length).toBeLessThanOrEqual(3)
      await Promise.all(
        sending.map((delivery, i) => node.deliveries.settle(delivery.tries === 1 && i === 0 ? undelivered(delivery) : delivered(delivery))),
      )
      return sending.length
    })
    expect(most).toBeLessThanOrEqual(3)
    expect(await count(`select count(*) as n from deliveries where state = 'completed' and lane_id = '${endpointId}'`)).toBe(60)
  })

  test('one task of a concurrency key runs at a time, on all nodes together', async () => {
    const clientId = await addClient(store)
    for (const concurrencyKey of ['a', 'b', 'c']) await addTasks(store, 10, { clientId, concurrencyKey })
    const most = await workAll('tasks', async (node) => {
      const tasks = await claimTasks(node, { limit: 10 })
      expect(new Set(tasks.map((task) => task.concurrencyKey)).size).toBe(tasks.length)
      await Promise.all(tasks.map((task, i) => node.tasks.settle(i === 0 && task.tries === 1 ? retried(task) : completed(task))))
      return tasks.length
    })
    expect(most).toBe(1)
    expect(await count(`select count(*) as n from tasks where state = 'completed'`)).toBe(30)
  })

  test('a concurrency key is the client’s and the type’s own', async () => {
    const one = await addClient(store)
    const other = await addClient(store)
    for (const clientId of [one, other])
      for (const type of ['report.build', 'mail.send']) await addTasks(store, 2, { clientId, type, concurrencyKey: 'a' })
    expect(await claimTasks(store, {}, ['report.build', 'mail.send'])).toHaveLength(4)
    expect(await claimTasks(store, {}, ['report.build', 'mail.send'])).toHaveLength(0)
  })

  test('the limit of a task type holds over all clients, keys and nodes', async () => {
    const types = [{ type: 'scarce.one', concurrency: 4 }]
    for (let i = 0; i < 3; i++) {
      const clientId = await addClient(store)
      await addTasks(store, 10, { clientId, type: 'scarce.one' })
      await addTasks(store, 4, { clientId, type: 'scarce.one', concurrencyKey: 'a' })
    }
    let most = 0
    await workAll('tasks', async (node) => {
      const { items } = await node.tasks.claim({ ...claim({ limit: 6 }), types })
      most = Math.max(most, await count(`select count(*) as n from tasks where state = 'running'`))
      await Promise.all(items.map((task) => node.tasks.settle(completed(task))))
      return items.length
    })
    expect(most).toBeGreaterThan(0)
    expect(most).toBeLessThanOrEqual(4)
    expect(await count(`select count(*) as n from tasks where state = 'completed'`)).toBe(42)
  })

  test('a type that has no room leaves its tasks where they are and hides no other type', async () => {
    const clientId = await addClient(store)
    await addTasks(store, 5, { clientId, type: 'scarce.one' })
    await addTasks(store, 5, { clientId, type: 'mail.send' })
    const types = [
      { type: 'scarce.one', concurrency: 2 },
      { type: 'mail.send', concurrency: null },
    ]
    const { items } = await store.tasks.claim({ ...claim({ limit: 50 }), types })
    expect(items.filter((task) => task.type === 'scarce.one')).toHaveLength(2)
    expect(items.filter((task) => task.type === 'mail.send')).toHaveLength(5)
    await store.tasks.settle(completed(items.find((task) => task.type === 'scarce.one')!))
    await ground.pass(100)
    expect((await store.tasks.claim({ ...claim({ limit: 50 }), types })).items).toHaveLength(1)
  })

  test('a node claims only the types it knows', async () => {
    const clientId = await addClient(store)
    await addTasks(store, 2, { clientId })
    await addTasks(store, 3, { clientId, type: 'mail.send' })
    expect(await claimTasks(store, {}, ['mail.send'])).toHaveLength(3)
    expect(await claimTasks(store, {}, ['mail.send'])).toHaveLength(0)
    expect(await claimTasks(store)).toHaveLength(2)
  })

  test('a held lane gives nothing and leaves nothing to look at; resumed, it drains', async () => {
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId })
    for (const [hold, resume] of [
      [{ paused: true }, { paused: false }],
      [{ disabled: 'gone' }, { disabled: false }],
      [{ verified: false }, { verified: true }],
    ] as const) {
      await store.endpoints.change({ id: endpointId, clientId, patch: hold, revision: null })
      await owe(clientId, 5)
      const held = await store.deliveries.claim(claim())
      expect(held).toMatchObject({ items: [], nextInMs: null })
      await store.deliveries.claim(claim())
      expect(await count('select count(*) as n from turns'), 'a claim sweeps turns that lead nowhere').toBe(0)
      await ground.pass(3_600_000)
      expect(await claimDeliveries(store)).toEqual([])
      expect(await store.maintenance.repairLanes({ kind: 'delivery' })).toBe(0)
      await store.endpoints.change({ id: endpointId, clientId, patch: resume, revision: null })
      const drained = await claimDeliveries(store)
      expect(drained).toHaveLength(5)
      expect(
        drained.every(({ tries }) => tries === 1),
        'a hold spends no try',
      ).toBe(true)
      await Promise.all(drained.map((delivery) => store.deliveries.settle(delivered(delivery))))
    }
  })

  test('what ran when its lane was held settles, and what follows waits', async () => {
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId, maxInFlight: 1 })
    await owe(clientId, 2)
    const [sending] = await claimDeliveries(store)
    await store.endpoints.change({ id: endpointId, clientId, patch: { paused: true }, revision: null })
    await store.deliveries.settle(delivered(sending!))
    expect(await claimDeliveries(store)).toEqual([])
    await store.endpoints.change({ id: endpointId, clientId, patch: { paused: false }, revision: null })
    expect(await claimDeliveries(store)).toHaveLength(1)
  })

  test('a full lane costs a claim nothing, and the settlement that frees a slot opens it', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId, maxInFlight: 2 })
    await owe(clientId, 5)
    const [first, second] = await claimDeliveries(store)
    expect(await count('select count(*) as n from turns')).toBe(0)
    expect(await store.deliveries.claim(claim())).toEqual({ items: [], nextInMs: null, more: false, refused: [] })
    await store.deliveries.settle(delivered(first!))
    expect(await claimDeliveries(store)).toHaveLength(1)
    await store.deliveries.settle(undelivered(second!, 3_600_000))
    expect(await claimDeliveries(store)).toHaveLength(1)
    expect(await claimDeliveries(store)).toEqual([])
  })

  test('a lane whose holders all died is opened by their rescue', async () => {
    const clientId = await addClient(store)
    await addTasks(store, 2, { clientId, concurrencyKey: 'a' })
    await claimOne(store, { leaseMs: 1_000 })
    expect(await claimTasks(store)).toEqual([])
    await ground.pass(1_001)
    const [lost] = (await store.maintenance.findExpired(10, null)).tasks
    await store.tasks.settle(retried(lost!))
    await ground.pass(1)
    expect(await claimTasks(store)).toHaveLength(1)
  })

  test('a task of a concurrency key that comes too late leaves its place to the next', async () => {
    const clientId = await addClient(store)
    const now = await store.now()
    await addTask(store, { clientId, concurrencyKey: 'a', startBy: now + 1_000 })
    await addTask(store, { clientId, concurrencyKey: 'a', deadlineAt: now + 1_000 })
    await ground.pass(2_000)
    const { id } = await addTask(store, { clientId, concurrencyKey: 'a' })
    const taken: string[] = []
    for (let more = true; more; ) {
      const claimed = await store.tasks.claim({ ...claim(), types: ONE_TYPE })
      taken.push(...claimed.items.map((task) => task.id))
      more = claimed.more
    }
    expect(taken).toEqual([id])
    expect(await count(`select count(*) as n from tasks where state = 'failed'`)).toBe(2)
  })

  test.runIf(engine === 'postgres')('a lane whose only row somebody else is changing is not taken for full', async () => {
    const clientId = await addClient(store)
    const { id } = await addTask(store, { clientId, concurrencyKey: 'a' })
    await ground.sql('begin')
    await ground.sql(`select 1 from tasks where id = '${id}' for update`)
    expect(await claimTasks(store), 'passed by, not waited for').toEqual([])
    await ground.sql('rollback')
    await ground.pass(1_001)
    expect(await claimTasks(store)).toHaveLength(1)
  })

  /** Resolves when everything told so far has been heard, also by way of the server. */
  const quiet = async (): Promise<void> => {
    const { id, fence } = await claimOne(store, {}, ['quiet'])
    let echoes = 1
    await new Promise<void>((resolve, reject) => {
      const stop = store.notifications.onTask((told) => {
        if (told !== id || --echoes > 0) return
        stop()
        resolve()
      })
      store.tasks.reportProgress({ id, fence, progress: 1, message: null, notify: true }).catch(reject)
    })
  }

  test.each([
    ['a lane of deliveries that was full', 'delivery'],
    ['a concurrency key', 'task'],
    ['a task type with a limit', 'task'],
    ['a delivery to be tried again', 'delivery'],
  ] as const)('whoever frees a slot or gives work back wakes those who claim: %s', async (name, kind) => {
    const clientId = await addClient(store)
    await addTask(store, { clientId, type: 'quiet' })
    await addEndpoint(store, { clientId, maxInFlight: 1 })
    await owe(clientId, 2)
    await addTasks(store, 2, { clientId, concurrencyKey: 'a' })
    await addTasks(store, 2, { clientId, type: 'scarce.one' })
    const limited = [{ type: 'scarce.one', concurrency: 1 }]
    const [delivery] = await claimDeliveries(store)
    const keyed = await claimOne(store)
    const { items } = await store.tasks.claim({ ...claim(), types: limited })
    await quiet()
    const heard = new Promise<void>((resolve) => {
      const stop = store.notifications.onWork((of) => {
        if (of !== kind) return
        stop()
        resolve()
      })
    })
    if (name === 'a lane of deliveries that was full') await store.deliveries.settle(delivered(delivery!))
    else if (name === 'a concurrency key') await store.tasks.settle(completed(keyed))
    else if (name === 'a delivery to be tried again') await store.deliveries.settle(undelivered(delivery!, 5_000))
    else await store.tasks.settle(completed(items[0]!))
    await heard
    const claimed =
      kind === 'task' ? await store.tasks.claim({ ...claim(), types: [...ONE_TYPE, ...limited] }) : await store.deliveries.claim(claim())
    expect(claimed.items).toHaveLength(1)
  })

  test('a claim says that there is more when slots were what it lacked, or when it could not see every lane', async () => {
    for (let i = 0; i < 5; i++) await addTask(store, { clientId: await addClient(store) })
    const ask = async (limit: number) => {
      const { items, more } = await store.tasks.claim({ ...claim({ limit }), types: ONE_TYPE })
      return { taken: items.length, more }
    }
    expect(await ask(2)).toEqual({ taken: 2, more: true })
    expect(await ask(10)).toEqual({ taken: 3, more: false })

    const clientId = await addClient(store)
    for (let i = 0; i < 40; i++) await addEndpoint(store, { clientId })
    await owe(clientId, 1)
    let sent = 0
    for (let more = true; more; ) {
      const claimed = await store.deliveries.claim(claim({ limit: 100 }))
      sent += claimed.items.length
      more = claimed.more
    }
    expect(sent).toBe(40)
  })

  test('one client with 5,000 tasks queued does not delay the single task of another by more than one round', async () => {
    const busy = await addClient(store)
    await addTasks(store, 5_000, { clientId: busy })
    await claimTasks(store, { limit: 3 })
    const others: string[] = []
    for (let i = 0; i < 5; i++) others.push((await addTask(store, { clientId: await addClient(store) })).clientId)
    const round = await claimTasks(store, { limit: 6 })
    expect(round.map((task) => task.clientId).sort()).toEqual([busy, ...others].sort())

    const late = await addTask(store, { clientId: others[0]! })
    const one = [await claimOne(store), await claimOne(store)].map(({ id }) => id)
    expect(one, 'with one slot, every other claim').toContain(late.id)
  })

  test.each([1, 2, 5, 16, 20])('clients take turns slot by slot, %i slots at a time for twenty clients', async (limit) => {
    const clients: string[] = []
    for (let i = 0; i < 20; i++) {
      const clientId = await addClient(store)
      clients.push(clientId)
      await addTasks(store, 8, { clientId })
    }
    const served = new Map(clients.map((clientId) => [clientId, 0]))
    for (let taken = 0; taken < 80; ) {
      const tasks = await claimTasks(store, { limit })
      taken += tasks.length
      for (const { clientId } of tasks) served.set(clientId, served.get(clientId)! + 1)
      expect(Math.max(...served.values()) - Math.min(...served.values()), 'nobody is a round ahead').toBeLessThanOrEqual(1)
    }
  })

  test('first attempts alternate with retries that are due', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    await owe(clientId, 20)
    for (const delivery of await claimDeliveries(store)) await store.deliveries.settle(undelivered(delivery))
    await ground.pass(60_000)
    await owe(clientId, 10)
    for (let i = 0; i < 5; i++) {
      const tries = (await claimDeliveries(store, { limit: 2 })).map((delivery) => delivery.tries)
      expect(tries.sort()).toEqual([1, 2])
    }
    const rest = await claimDeliveries(store)
    expect(rest.map((delivery) => delivery.tries).filter((tries) => tries === 1)).toHaveLength(5)
    expect(rest).toHaveLength(20)
  })

  test('priority is a head start in seconds: a later task overtakes within it, and nothing starves', async () => {
    const clientId = await addClient(store)
    const early = await addTask(store, { clientId })
    await ground.pass(5_000)
    const urgent = await addTask(store, { clientId, priority: 10 })
    await ground.pass(6_000)
    const tooLate = await addTask(store, { clientId, priority: 10 })
    const order = [await claimOne(store), await claimOne(store), await claimOne(store)]
    expect(order.map(({ id }) => id)).toEqual([urgent.id, early.id, tooLate.id])
  })

  test('priority counts over all lanes of a client', async () => {
    const clientId = await addClient(store)
    const types = ['report.build', 'mail.send']
    await addTasks(store, 3, { clientId })
    await ground.pass(1_000)
    const urgent = await addTask(store, { clientId, type: 'mail.send', priority: 100 })
    expect((await claimOne(store, {}, types)).id).toBe(urgent.id)
  })

  test('a delayed task does not start early, whatever its priority and whatever stands beside it', async () => {
    const clientId = await addClient(store)
    const dueAt = (await store.now()) + 60_000
    const delayed = await addTask(store, { clientId, priority: 1_000_000, dueAt })
    await addTasks(store, 3, { clientId })
    const ready = await store.tasks.claim({ ...claim(), types: ONE_TYPE })
    expect(ready.items).toHaveLength(3)
    expect(ready.items.map(({ id }) => id)).not.toContain(delayed.id)
    const none = await store.tasks.claim({ ...claim(), types: ONE_TYPE })
    expect(none.items).toEqual([])
    expect(none.nextInMs).toBeGreaterThan(50_000)
    expect(none.nextInMs).toBeLessThanOrEqual(60_000)
    await ground.pass(55_000)
    expect(await claimTasks(store)).toEqual([])
    await ground.pass(5_001)
    expect((await claimOne(store)).id).toBe(delayed.id)
  })

  test('a task that is added or retried ahead of those that wait brings the next look forward', async () => {
    const clientId = await addClient(store)
    const now = await store.now()
    await addTask(store, { clientId, dueAt: now + 3_600_000 })
    await addTask(store, { clientId })
    await store.tasks.settle(retried(await claimOne(store), 8_000))
    const { nextInMs } = await store.tasks.claim({ ...claim(), types: ONE_TYPE })
    expect(nextInMs).toBeGreaterThan(5_000)
    expect(nextInMs).toBeLessThanOrEqual(8_000)
    await ground.pass(8_001)
    expect(await claimTasks(store)).toHaveLength(1)
    expect((await store.tasks.claim({ ...claim(), types: ONE_TYPE })).nextInMs).toBeGreaterThan(3_000_000)
  })

  test('a lost turn is left again, once, and only where one was lost', async () => {
    const clientId = await addClient(store)
    const paused = await addEndpoint(store, { clientId })
    const full = await addEndpoint(store, { clientId, maxInFlight: 1 })
    const lost = await addEndpoint(store, { clientId })
    const well = await addEndpoint(store, { clientId })
    await store.endpoints.change({ id: paused, clientId, patch: { paused: true }, revision: null })
    await owe(clientId, 3)
    const served = new Set<string>()
    while (served.size < 3) for (const { endpointId } of await claimDeliveries(store, { limit: 1 })) served.add(endpointId)
    expect(served).toEqual(new Set([full, lost, well]))
    await ground.sql(`delete from turns where lane_id = '${lost}'`)
    expect((await claimDeliveries(store)).every((delivery) => delivery.endpointId === well)).toBe(true)
    expect(await store.maintenance.repairLanes({ kind: 'delivery' })).toBe(1)
    expect(await store.maintenance.repairLanes({ kind: 'delivery' }), 'once').toBe(0)
    expect(new Set((await claimDeliveries(store)).map((delivery) => delivery.endpointId))).toEqual(new Set([lost]))
    expect(await store.maintenance.repairLanes({ kind: 'delivery' })).toBe(0)

    await addTasks(store, 2, { clientId, concurrencyKey: 'a' })
    const keyed = await claimOne(store)
    expect(await store.maintenance.repairLanes({ kind: 'task' }), 'full').toBe(0)
    await ground.sql(`update tasks set state = 'pending', leased_until = null where id = '${keyed.id}'`)
    expect(await store.maintenance.repairLanes({ kind: 'task' }), 'marked full, although nothing runs').toBe(1)
    expect(await claimTasks(store)).toHaveLength(1)
  })

  test('a pace is kept: no burst, and the next look is when the next may start', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId, maxPerMinute: 60 })
    await owe(clientId, 8)
    const since = await store.now()
    const first = await store.deliveries.claim(claim())
    expect(first.items).toHaveLength(1)
    expect(first.nextInMs).toBeGreaterThan(500)
    expect(first.nextInMs).toBeLessThanOrEqual(1_000)
    const perSecond: number[] = [1]
    for (let second = 0; second < 4; second++) {
      let taken = 0
      for (let i = 0; i < 4; i++) {
        await ground.pass(250)
        taken += (await claimDeliveries(store)).length
      }
      perSecond.push(taken)
    }
    const total = perSecond.reduce((a, b) => a + b)
    // On PostgreSQL passing moves the rows, and time goes on by itself besides.
    const besidesMs = engine === 'sqlite' ? 0 : (await store.now()) - since
    expect(Math.max(...perSecond)).toBeLessThanOrEqual(engine === 'sqlite' ? 1 : 2 + besidesMs / 1_000)
    expect(total).toBeGreaterThanOrEqual(4)
    expect(total).toBeLessThanOrEqual(5 + besidesMs / 1_000)
    await ground.pass(60_000)
    expect(await claimDeliveries(store), 'an idle minute is not saved up').toHaveLength(1)
  })

  test('a fast pace is used up though looks come late, and no minute holds more', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId, maxPerMinute: 6_000, maxInFlight: 1_000 })
    await owe(clientId, 300)
    const since = await store.now()
    let taken = (await claimDeliveries(store)).length
    for (let i = 0; i < 20; i++) {
      await ground.pass(50)
      taken += (await claimDeliveries(store)).length
    }
    // On PostgreSQL passing moves the rows, not the clock.
    const tookMs = (await store.now()) - since + (engine === 'postgres' ? 1_000 : 0)
    expect(taken).toBeGreaterThanOrEqual(90)
    expect(taken, 'half a second is saved up, and no more').toBeLessThanOrEqual((tookMs + 500) / 11)
  })

  test('a receiver that asks to wait holds its whole lane, and no other change cuts that short', async () => {
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId })
    const other = await addEndpoint(store, { clientId })
    await owe(clientId, 3)
    const sending = (await claimDeliveries(store, { limit: 2 })).find((delivery) => delivery.endpointId === endpointId)!
    await store.deliveries.settle(undelivered(sending, 120_000, { holdMs: 120_000 }))
    const { items, nextInMs } = await store.deliveries.claim(claim())
    expect(items.map((delivery) => delivery.endpointId)).toEqual([other, other])
    expect(nextInMs).toBeGreaterThan(110_000)
    await store.endpoints.change({ id: endpointId, clientId, patch: { description: 'changed' }, revision: null })
    expect(await claimDeliveries(store)).toEqual([])
    await ground.pass(110_000)
    expect(await claimDeliveries(store)).toEqual([])
    await ground.pass(10_001)
    expect(await claimDeliveries(store)).toHaveLength(3)
  })

  test('the end of a pause does not end what the receiver asked to wait; a longer wait is not shortened by a later one', async () => {
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId })
    await owe(clientId, 3)
    const [one, two] = await claimDeliveries(store, { limit: 2 })
    await store.deliveries.settle(undelivered(one!, 0, { holdMs: 60_000 }))
    await store.deliveries.settle(undelivered(two!, 0, { holdMs: 10_000 }))
    await ground.pass(10_001)
    expect(await claimDeliveries(store)).toEqual([])
    await ground.pass(50_000)
    expect(await claimDeliveries(store)).toHaveLength(3)
    expect((await store.endpoints.find(endpointId, clientId))!.failingSince).not.toBeNull()
  })

  test('a changed cap holds at once, wider and narrower', async () => {
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId, maxInFlight: 2 })
    await owe(clientId, 12)
    const sending = [...(await claimDeliveries(store))]
    expect(sending).toHaveLength(2)
    await store.endpoints.change({ id: endpointId, clientId, patch: { maxInFlight: 5 }, revision: null })
    sending.push(...(await claimDeliveries(store)))
    expect(sending).toHaveLength(5)
    await store.endpoints.change({ id: endpointId, clientId, patch: { maxInFlight: 1 }, revision: null })
    for (const delivery of sending) {
      expect(await claimDeliveries(store)).toEqual([])
      await store.deliveries.settle(delivered(delivery))
    }
    for (let left = 7; left > 0; left--) {
      await ground.pass(1_000)
      const [only, ...rest] = await claimDeliveries(store)
      expect(rest).toEqual([])
      await store.deliveries.settle(delivered(only!))
    }
    expect(await count(`select count(*) as n from deliveries where state = 'completed'`)).toBe(12)
  })

  test('released and retried tasks come back in their time and leave no turn behind', async () => {
    const clientId = await addClient(store)
    await addTasks(store, 3, { clientId, concurrencyKey: 'a' })
    for (let i = 0; i < 6; i++) {
      const task = await claimOne(store, { leaseMs: LEASE_MS })
      await store.tasks.settle(i < 3 ? released(task) : completed(task))
      await ground.pass(1)
    }
    expect(await claimTasks(store)).toEqual([])
    expect(await count('select count(*) as n from turns')).toBe(0)
    expect(await count(`select count(*) as n from tasks where state = 'completed'`)).toBe(3)
  })
})
