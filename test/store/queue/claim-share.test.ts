/** Slots that one client fills with deliveries that last: what the others get, and what becomes of those refused. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { SlotShares } from '../../../src/core/fair-share.ts'
import type { OwedDelivery, Store } from '../../../src/store/interfaces.ts'
import { engines, type Ground, openGround } from '../../support/stores.ts'
import { addClient, addEndpoint, addTask, claim, claimOne, completed, delivered, LEASE_MS } from '../../support/work.ts'

const TOTAL = 16

describe.each(engines)('on %s', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine)
    store = ground.store
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  /** A node of 16 slots; what it claims stays in flight until it is ended. */
  function node() {
    const slots = new SlotShares()
    const held = new Map<string, OwedDelivery>()
    const free = () => TOTAL - held.size
    const hold = (items: readonly OwedDelivery[]): void => {
      for (const item of items) {
        slots.acquire(item)
        held.set(item.id, item)
      }
    }
    const of = (id: string) => [...held.values()].filter(({ clientId, laneId }) => clientId === id || laneId === id)
    return {
      slots,
      free,
      hold,
      of,
      /** As the pump does: again while there is more. */
      async claim() {
        for (let looks = 1; ; looks++) {
          expect(looks, 'it does not look again and again').toBeLessThan(20)
          const claimed = await store.deliveries.claim(claim({ limit: free(), allot: () => slots.allot(free()) }))
          hold(claimed.items)
          if (!claimed.more) return claimed.refused!
        }
      },
      async end(item: OwedDelivery) {
        await store.deliveries.settle(delivered(item))
        held.delete(item.id)
        slots.release(item)
      },
    }
  }
  const clientWith = async (endpoints: number) => {
    const clientId = await addClient(store)
    const ids: string[] = []
    for (let i = 0; i < endpoints; i++) ids.push(await addEndpoint(store, { clientId, maxInFlight: 100 }))
    return { clientId, ids }
  }
  const owe = async (clientId: string, count: number, callback: { endpointId?: string } = {}) => {
    for (let i = 0; i < count; i++) {
      await addTask(store, { clientId, callback })
      await store.tasks.settle(completed(await claimOne(store)))
    }
  }
  const turns = async (laneId: string) =>
    Number((await ground.sql<{ n: number }>(`select count(*) as n from turns where lane_id = '${laneId}' and turn is not null`))[0]!.n)

  test('a client alone gets three quarters; another is served past what waits; when a slot frees the first goes on', async () => {
    const { clientId: greedy } = await clientWith(20)
    await owe(greedy, 2)
    const here = node()
    const refused = await here.claim()
    expect(here.of(greedy)).toHaveLength(12)
    expect(refused).toEqual([{ clientId: greedy, laneId: null }])
    expect(here.slots.canServeAny(refused, here.free())).toBe(false)

    const { clientId: other } = await clientWith(1)
    await owe(other, 2)
    await here.claim()
    expect(here.of(other)).toHaveLength(2)
    for (const item of here.of(other)) await here.end(item)
    expect(here.slots.canServeAny(refused, here.free()), 'no more is free than before').toBe(false)
    await here.end(here.of(greedy)[0]!)
    expect(here.slots.canServeAny(refused, here.free())).toBe(true)
    await here.claim()
    expect(here.of(greedy)).toHaveLength(12)
    expect(await store.deliveries.claim(claim({ limit: 500 })), 'another node takes the rest').toMatchObject({ items: { length: 27 } })
    expect(await here.claim(), 'where nothing waits nobody is refused').toEqual([])
  })

  test('an endpoint gets three quarters of what its client may have; another of the client is served past its turns, which do not pile up', async () => {
    const { clientId, ids } = await clientWith(2)
    const [slow, well] = ids as [string, string]
    await owe(clientId, 12, { endpointId: slow })
    const here = node()
    expect(await here.claim()).toEqual([{ clientId, laneId: slow }])
    expect(here.of(slow)).toHaveLength(9)
    await owe(clientId, 30, { endpointId: slow })
    await owe(clientId, 1, { endpointId: well })
    expect(await turns(slow)).toBeGreaterThan(30)
    await here.claim()
    expect(here.of(well)).toHaveLength(1)
    expect(await turns(slow)).toBe(1)
    for (const item of [...here.of(well), ...here.of(slow)]) await here.end(item)
    await here.claim()
    expect(here.of(slow), 'nothing was lost').toHaveLength(9)
  })

  test('where a refused client waits, a delivery of another starts in the commit that writes it, and none of the client’s own', async () => {
    const { clientId: greedy } = await clientWith(20)
    await owe(greedy, 2)
    const here = node()
    await here.claim()
    let lent = true
    store.notifications.lendDeliverySlots({
      leasedBy: 'boot_a',
      leaseMs: LEASE_MS,
      reserve: (most) => (lent ? Math.min(most, here.free()) : 0),
      release() {},
      allot: () => here.slots.allot(here.free()),
      start: here.hold,
    })
    const { clientId: other } = await clientWith(1)
    await owe(other, 1)
    expect(here.of(other)).toHaveLength(1)
    await owe(greedy, 1)
    expect(here.of(greedy)).toHaveLength(12)
    // One of its endpoints is refused, another has something in line: that goes first.
    const { clientId, ids } = await clientWith(2)
    lent = false
    await owe(clientId, 1, { endpointId: ids[0]! })
    lent = true
    await owe(other, 1)
    expect(here.of(other), 'nobody is overtaken').toHaveLength(1)
    lent = false
  })
})
