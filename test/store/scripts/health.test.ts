/** Failing endpoints: circuit breaker, probes, announcements, disabling and enabling, and the end of holds. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { DeliverySettlement, OwedDelivery, Store } from '../../../src/store/interfaces.ts'
import { engines, type Ground, openGround } from '../../support/stores.ts'
import {
  addClient,
  addEndpoint,
  addTasks,
  claimDeliveries,
  claimTasks,
  completed,
  delivered,
  newTask,
  undeliverable,
  undelivered,
} from '../../support/work.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

describe.each(engines)('failing endpoints on %s', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine, { slowStart: true })
    store = ground.store
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  /** Events of finished tasks, owed to every endpoint of the client. */
  const owe = async (clientId: string, events: number): Promise<void> => {
    await addTasks(store, events, { clientId })
    const tasks = await claimTasks(store, { limit: events })
    await Promise.all(tasks.map((task) => store.tasks.settle(completed(task))))
  }
  const endpoint = async (id: string) => (await store.endpoints.find(id, null))!
  const open = async (id: string) =>
    (
      await store.deliveries.list({
        clientId: null,
        endpointId: id,
        eventType: 'task.completed',
        states: ['pending'],
        limit: 200,
        after: null,
      })
    ).items
  const fail = (owed: OwedDelivery, more: Partial<DeliverySettlement['endpoint']> = {}) =>
    store.deliveries.settle(undelivered(owed, 0, more))
  /** Fails attempts until nothing more is claimable; returns how many were made. */
  const failAll = async (more: Partial<DeliverySettlement['endpoint']> = {}): Promise<number> => {
    for (let attempts = 0; ; ) {
      const sending = await claimDeliveries(store)
      if (sending.length === 0) return attempts
      for (const owed of sending) await fail(owed, more)
      attempts += sending.length
      if (attempts > 200) throw new Error('the breaker never closed the lane')
    }
  }
  /** Delivers until nothing more is claimable; returns the sizes of the claims, and every id. */
  const drain = async (): Promise<{ sizes: number[]; ids: string[] }> => {
    const sizes: number[] = []
    const ids: string[] = []
    for (;;) {
      const sending = await claimDeliveries(store)
      if (sending.length === 0) return { sizes, ids }
      sizes.push(sending.length)
      ids.push(...sending.map(({ eventId }) => eventId))
      for (const owed of sending) await store.deliveries.settle(delivered(owed))
    }
  }

  test('a lane starts with 2 in flight and doubles with successes; after 10 s without success it restarts at 2', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId, maxInFlight: 10 })
    await owe(clientId, 40)
    expect((await drain()).sizes.slice(0, 3)).toEqual([2, 8, 10])
    await ground.pass(10_001)
    await owe(clientId, 5)
    expect(await claimDeliveries(store)).toHaveLength(2)
  })

  test('ten failed attempts in a row open the circuit breaker: one probe after 5 s, then after pauses that double up to 60 s', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId, maxInFlight: 5 })
    await owe(clientId, 30)
    expect(await failAll()).toBe(10)
    for (const pause of [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]) {
      await ground.pass(pause - 3_000)
      expect(await claimDeliveries(store), `closed for ${pause} ms`).toEqual([])
      await ground.pass(3_100)
      const probe = await claimDeliveries(store)
      expect(probe, 'one probe').toHaveLength(1)
      expect(await claimDeliveries(store), 'and no second beside it').toEqual([])
      await fail(probe[0]!)
    }
  })

  test('a probe sends the longest-due delivery and uses one try; a hold uses none', async () => {
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId, maxInFlight: 1 })
    await owe(clientId, 1)
    const [old] = await open(id)
    // Ten failures of this delivery alone: it stays the longest due.
    await failAll()
    await ground.pass(1_000)
    await owe(clientId, 3)
    expect((await store.deliveries.find(old!.id, null))!.tries).toBe(10)
    await ground.pass(4_100)
    const [probe] = await claimDeliveries(store)
    expect(probe).toMatchObject({ id: old!.id, tries: 11 })
    await store.deliveries.settle(delivered(probe!))
    expect((await open(id)).map(({ tries }) => tries)).toEqual([0, 0, 0])
  })

  test('a successful probe opens the lane at 1 in flight, doubling, and every held delivery arrives once', async () => {
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId, maxInFlight: 8 })
    await owe(clientId, 40)
    await failAll()
    await ground.pass(5_100)
    const [probe] = await claimDeliveries(store)
    await store.deliveries.settle(delivered(probe!))
    const { sizes, ids } = await drain()
    expect(sizes.slice(0, 4)).toEqual([1, 2, 8, 8])
    expect(new Set(ids).size).toBe(39)
    expect(await open(id)).toEqual([])
  })

  test('Retry-After holds the lane, and then the lane restarts at 1 in flight', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId, maxInFlight: 8 })
    await owe(clientId, 30)
    for (let i = 0; i < 3; i++) for (const owed of await claimDeliveries(store)) await store.deliveries.settle(delivered(owed))
    const sending = await claimDeliveries(store)
    expect(sending).toHaveLength(8)
    for (const [i, owed] of sending.entries())
      await (i === 0
        ? fail(owed, { signal: 'neutral', succeeded: null, holdMs: 30_000 })
        : store.deliveries.settle(undeliverable(owed, { signal: 'neutral' })))
    expect(await claimDeliveries(store)).toEqual([])
    await ground.pass(30_100)
    expect(await claimDeliveries(store)).toHaveLength(1)
  })

  test('a day of failure is announced once an episode, in the feed and to all other active endpoints of the client', async () => {
    const clientId = await addClient(store)
    const bad = await addEndpoint(store, { clientId, maxInFlight: 1, taskTypes: '["report.build"]' })
    const good = await addEndpoint(store, { clientId, taskTypes: '["none"]' })
    const ce = await addEndpoint(store, { clientId, taskTypes: '["none"]', format: 'cloudevents' })
    const paused = await addEndpoint(store, { clientId, taskTypes: '["none"]' })
    await store.endpoints.change({ id: paused, clientId, patch: { paused: true }, revision: null })
    const stranger = await addEndpoint(store, { clientId: await addClient(store), taskTypes: '["none"]' })
    await owe(clientId, 1)
    await fail((await claimDeliveries(store))[0]!)
    const since = (await endpoint(bad)).failingSince!
    await ground.pass(DAY - 10_000)
    expect(await store.maintenance.announceFailing({ limit: 10 })).toBe(0)
    await ground.pass(11_000)
    expect(await store.maintenance.announceFailing({ limit: 10 })).toBe(1)
    expect(await store.maintenance.announceFailing({ limit: 10 }), 'once').toBe(0)
    const [event] = await store.events.list({ clientId, types: ['endpoint.failing'], after: 0, limit: 10 })
    const { data } = JSON.parse(event!.body)
    expect(data).toMatchObject({ endpointId: bad, url: `https://receiver.example/${bad}`, reason: null })
    if (engine === 'sqlite') expect(data.failingSince).toBe(new Date(since).toISOString())
    const sending = await claimDeliveries(store)
    const told = sending.filter(({ eventId }) => eventId === event!.id)
    expect(told.map(({ endpointId }) => endpointId).sort()).toEqual([good, ce].sort())
    expect(JSON.parse(told.find(({ endpointId }) => endpointId === ce)!.body!)).toMatchObject({
      specversion: '1.0',
      subject: bad,
      type: 'endpoint.failing',
      data,
    })
    expect(await open(paused)).toEqual([])
    expect(await open(stranger)).toEqual([])

    // A success ends the episode; the next one is announced again.
    for (const owed of sending) await store.deliveries.settle(delivered(owed))
    await owe(clientId, 1)
    for (const owed of await claimDeliveries(store)) await (owed.endpointId === bad ? fail(owed) : store.deliveries.settle(delivered(owed)))
    await ground.pass(DAY + 1_000)
    expect(await store.maintenance.announceFailing({ limit: 10 })).toBe(1)
  })

  test('five days of failure disable the endpoint at the next failure; an hourly probe enables it, and held deliveries arrive', async () => {
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId, maxInFlight: 4 })
    const other = await addEndpoint(store, { clientId, taskTypes: '["none"]' })
    await owe(clientId, 6)
    await failAll()
    await ground.pass(5 * DAY - HOUR)
    const [early] = await claimDeliveries(store)
    await fail(early!)
    expect((await endpoint(id)).disabledAt).toBe(null)
    await ground.pass(2 * HOUR)
    const [probe] = await claimDeliveries(store)
    await fail(probe!)
    expect(await endpoint(id)).toMatchObject({ disabledReason: 'failing', revision: 2 })
    const told = await claimDeliveries(store)
    expect(told).toMatchObject([{ endpointId: other, eventType: 'endpoint.disabled' }])
    expect(JSON.parse(told[0]!.eventBody).data).toMatchObject({ endpointId: id, reason: 'failing' })
    await store.deliveries.settle(delivered(told[0]!))

    for (let hour = 0; hour < 3; hour++) {
      await ground.pass(HOUR - 10_000)
      expect(await claimDeliveries(store), 'one probe an hour').toEqual([])
      await ground.pass(10_100)
      const sending = await claimDeliveries(store)
      expect(sending).toHaveLength(1)
      if (hour < 2) await fail(sending[0]!)
      else await store.deliveries.settle(delivered(sending[0]!))
    }
    expect(await endpoint(id)).toMatchObject({ disabledAt: null, disabledReason: null, failingSince: null, revision: 3 })
    expect((await drain()).ids).toHaveLength(5)
    expect(await store.events.list({ clientId, types: ['endpoint.disabled'], after: 0, limit: 10 }), 'told once').toHaveLength(1)
  })

  test('a paused endpoint that was disabled as failing is not probed', async () => {
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId })
    await owe(clientId, 1)
    await store.endpoints.change({ id, clientId, patch: { disabled: 'failing' }, revision: null })
    await store.endpoints.change({ id, clientId, patch: { paused: true }, revision: null })
    await ground.pass(3 * HOUR)
    expect(await claimDeliveries(store)).toEqual([])
    await store.endpoints.change({ id, clientId, patch: { paused: false }, revision: null })
    await ground.pass(HOUR + 100)
    expect(await claimDeliveries(store), 'probed again').toHaveLength(1)
  })

  test('a forbidden address disables the endpoint after three attempts in a row over ten minutes, and its deliveries are held', async () => {
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId })
    await owe(clientId, 1)
    for (const wait of [0, 5 * MINUTE, 5 * MINUTE]) {
      expect((await endpoint(id)).disabledAt).toBe(null)
      await ground.pass(wait + 100)
      const [owed] = await claimDeliveries(store)
      await fail(owed!, { signal: 'blocked' })
    }
    expect(await endpoint(id)).toMatchObject({ disabledReason: 'forbiddenAddress' })
    await ground.pass(2 * HOUR)
    expect(await claimDeliveries(store)).toEqual([])
    expect(await open(id)).toHaveLength(1)
  })

  test('an endpoint that is paused, disabled, unverified or failing for an hour receives every event afterwards, each once', async () => {
    const ways = {
      paused: [{ paused: true }, { paused: false }],
      disabled: [{ disabled: 'gone' }, { disabled: false }],
      unverified: [{ verified: false }, { verified: true }],
      broken: null,
    } as const
    for (const [way, change] of Object.entries(ways)) {
      const clientId = await addClient(store)
      const id = await addEndpoint(store, { clientId, maxInFlight: 50 })
      await owe(clientId, 5)
      expect((await drain()).ids, way).toHaveLength(5)
      if (change) await store.endpoints.change({ id, clientId, patch: change[0], revision: null })
      for (let minute = 0; minute < 60; minute++) {
        if (minute % 2 === 0) await owe(clientId, 1)
        await ground.pass(MINUTE)
        if (!change) await failAll()
        else expect(await claimDeliveries(store), way).toEqual([])
      }
      const owed = new Set((await open(id)).map(({ eventId }) => eventId))
      expect(owed.size, way).toBe(30)
      if (change) await store.endpoints.change({ id, clientId, patch: change[1], revision: null })
      else await ground.pass(MINUTE + 100)
      const { ids } = await drain()
      expect(ids, way).toHaveLength(30)
      expect(new Set(ids), way).toEqual(owed)
    }
  })

  test('a delivery that is open for too many days fails as expired, with an attempt that shows it, and the others continue', async () => {
    const clientId = await addClient(store)
    const id = await addEndpoint(store, { clientId })
    await owe(clientId, 3)
    const [tried] = await claimDeliveries(store, { limit: 1 })
    await store.deliveries.settle(undelivered(tried!, 20 * DAY))
    await store.endpoints.change({ id, clientId, patch: { paused: true }, revision: null })
    await ground.pass(14 * DAY - HOUR)
    await owe(clientId, 1)
    expect(await store.maintenance.expireDeliveries({ limit: 100, holdMs: 14 * DAY })).toBe(0)
    await ground.pass(2 * HOUR)
    expect(await store.maintenance.expireDeliveries({ limit: 2, holdMs: 14 * DAY })).toBe(2)
    expect(await store.maintenance.expireDeliveries({ limit: 2, holdMs: 14 * DAY })).toBe(1)
    const { items } = await store.deliveries.list({ clientId, endpointId: id, states: ['failed'], limit: 10, after: null })
    expect(items).toHaveLength(3)
    const attempts = await store.deliveries.listAttempts(items.map((item) => item.id))
    expect(attempts.filter(({ outcome }) => outcome === 'expired')).toHaveLength(3)
    expect(attempts.find(({ outcome }) => outcome === 'expired')).toMatchObject({
      error: 'It could not be delivered for 14 days.',
      httpStatus: null,
    })
    await store.endpoints.change({ id, clientId, patch: { paused: false }, revision: null })
    expect(await claimDeliveries(store)).toHaveLength(1)
  })

  test('an endpoint that was never verified holds deliveries for a day; one that was verified once holds them as long as any other', async () => {
    const clientId = await addClient(store)
    const never = await addEndpoint(store, { clientId, verification: 'challenge', verified: false })
    const once = await addEndpoint(store, { clientId, verification: 'challenge' })
    await store.endpoints.change({ id: once, clientId, patch: { url: 'https://elsewhere.example/hooks', verified: false }, revision: null })
    await owe(clientId, 2)
    await ground.pass(DAY - HOUR)
    expect(await store.maintenance.expireDeliveries({ limit: 100, holdMs: 14 * DAY })).toBe(0)
    await ground.pass(2 * HOUR)
    expect(await store.maintenance.expireDeliveries({ limit: 100, holdMs: 14 * DAY })).toBe(2)
    expect(await open(never)).toEqual([])
    expect(await open(once)).toHaveLength(2)
  })

  test('200 hanging lanes use two slots each before any circuit breaker opens, and leave the rest to other lanes', async () => {
    const hanging = await addClient(store)
    const ids = []
    for (let i = 0; i < 200; i++) ids.push(await addEndpoint(store, { clientId: hanging, taskTypes: '["none"]' }))
    const tasks = ids.flatMap((endpointId) => Array.from({ length: 4 }, () => newTask({ clientId: hanging, callback: { endpointId } })))
    await store.tasks.add({ tasks, idempotency: null })
    for (let left = tasks.length; left > 0; ) {
      const claimed = await claimTasks(store, { limit: 400 })
      await Promise.all(claimed.map((task) => store.tasks.settle(completed(task))))
      left -= claimed.length
    }
    const sending: OwedDelivery[] = []
    for (let more = true; more; ) {
      const claimed = await store.deliveries.claim({ limit: 1_024 - sending.length, leaseMs: 30_000, leasedBy: 'boot_a' })
      sending.push(...claimed.items)
      more = claimed.more
    }
    expect(sending).toHaveLength(400)
    const quick = await addClient(store)
    const id = await addEndpoint(store, { clientId: quick })
    await owe(quick, 1)
    expect(await claimDeliveries(store), 'at the next claim').toMatchObject([{ endpointId: id }])
  })

  test('a healthy lane is not rewritten by every batch', async () => {
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId, maxInFlight: 4 })
    await owe(clientId, 30)
    await drain()
    const [before] = await ground.sql('select * from lanes where window_size is not null')
    await owe(clientId, 3)
    if (engine === 'sqlite') await drain()
    const [after] = await ground.sql('select * from lanes where window_size is not null')
    expect(after).toEqual(before)
  })
})
