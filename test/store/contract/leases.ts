/** Leases: extended by renewals, found when they expire. */
import { expect, test } from 'vitest'
import {
  addClient,
  addEndpoint,
  addTask,
  addTasks,
  claimDeliveries,
  claimOne,
  claimTasks,
  completed,
  delivered,
  released,
  retried,
} from '../../support/work.ts'
import type { Current } from './suite.ts'

export function leases(current: Current): void {
  test('a renewed lease lasts from its renewal; a lease without renewal expires', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    await addTasks(store, 2, { clientId })
    const [kept, left] = await claimTasks(store, { leaseMs: 30_000 })
    await pass(20_000)
    expect(await store.maintenance.renew({ kind: 'task', leases: [kept!], leaseMs: 30_000 })).toEqual([
      { id: kept!.id, renewed: true, cancelRequested: false },
    ])
    await pass(10_001)
    expect((await store.maintenance.findExpired(10, null)).tasks.map(({ id }) => id)).toEqual([left!.id])
    await pass(20_000)
    expect((await store.maintenance.findExpired(10, null)).tasks).toHaveLength(2)
    expect((await store.maintenance.findExpired(1, null)).tasks).toHaveLength(1)
  })

  test('an expired lease that was not reclaimed can still be renewed and settled', async () => {
    const { store, pass } = current()
    await addTask(store, { clientId: await addClient(store) })
    const task = await claimOne(store, { leaseMs: 1_000 })
    await pass(60_000)
    expect(await store.maintenance.renew({ kind: 'task', leases: [task], leaseMs: 30_000 })).toMatchObject([{ renewed: true }])
    expect((await store.maintenance.findExpired(10, null)).tasks).toEqual([])
    expect((await store.tasks.settle(completed(task))).kind).toBe('settled')
    expect(await store.maintenance.renew({ kind: 'task', leases: [task], leaseMs: 30_000 })).toMatchObject([{ renewed: false }])
  })

  test('a new boot finds the leases of other boots, but not those of workers over HTTP', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    await addTasks(store, 4, { clientId })
    const dead = await claimOne(store, { leasedBy: 'boot_dead' })
    await claimOne(store, { leasedBy: 'boot_new' })
    await claimOne(store, { leasedBy: 'worker:17' })
    expect((await store.maintenance.findExpired(10, 'boot_new')).tasks.map(({ id }) => id)).toEqual([dead.id])
    expect((await store.maintenance.findExpired(10, null)).tasks).toEqual([])

    const task = await claimOne(store, { leasedBy: 'boot_new' })
    await store.tasks.settle(completed(task))
    const [delivery] = await claimDeliveries(store, { leasedBy: 'boot_dead' })
    expect((await store.maintenance.findExpired(10, 'boot_new')).deliveries.map(({ id }) => id)).toEqual([delivery!.id])
    expect((await store.maintenance.findExpired(10, 'boot_dead')).deliveries).toEqual([])
  })

  test('leases of deliveries are renewed and found like leases of tasks', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    await addTask(store, { clientId })
    await store.tasks.settle(completed(await claimOne(store)))
    const [delivery] = await claimDeliveries(store, { leaseMs: 10_000 })
    await pass(6_000)
    expect(await store.maintenance.renew({ kind: 'delivery', leases: [delivery!], leaseMs: 10_000 })).toEqual([
      { id: delivery!.id, renewed: true, cancelRequested: false },
    ])
    await pass(5_000)
    expect((await store.maintenance.findExpired(10, null)).deliveries).toEqual([])
    await pass(5_001)
    expect((await store.maintenance.findExpired(10, null)).deliveries.map(({ id }) => id)).toEqual([delivery!.id])
    expect(
      await store.maintenance.renew({ kind: 'delivery', leases: [{ id: delivery!.id, fence: delivery!.fence + 1 }], leaseMs: 10_000 }),
    ).toMatchObject([{ renewed: false }])
    expect((await store.deliveries.settle(delivered(delivery!))).kind).toBe('settled')
  })

  test('leases of workers are found when the try or the task is out of time, even if they last longer; leases of nodes are not', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    await addTask(store, { clientId, timeoutSeconds: 20 })
    const late = await claimOne(store, { leasedBy: 'worker:17', leaseMs: 600_000 })
    await addTask(store, { clientId, deadlineAt: (await store.now()) + 20_000 })
    const overdue = await claimOne(store, { leasedBy: 'worker:17', leaseMs: 600_000 })
    await addTask(store, { clientId, timeoutSeconds: 60 })
    await claimOne(store, { leasedBy: 'worker:17', leaseMs: 600_000 })
    await addTask(store, { clientId, timeoutSeconds: 20 })
    await claimOne(store, { leasedBy: 'boot_a', leaseMs: 600_000 })
    await pass(9_000)
    expect((await store.maintenance.findExpired(10, null)).tasks).toEqual([])
    await pass(11_001)
    expect((await store.maintenance.findExpired(10, null)).tasks.map(({ id }) => id).sort()).toEqual([late.id, overdue.id].sort())
  })

  test('the way a holder ended its lease is stored for an hour, also while another holder has the task', async () => {
    const { store, pass } = current()
    const { id, clientId } = await addTask(store, { clientId: await addClient(store) })
    const first = await claimOne(store)
    expect((await store.tasks.settle({ ...released(first), endedAs: 'release' })).kind).toBe('settled')
    const second = await claimOne(store)
    expect(await store.tasks.findEnded(first, 'release')).toMatchObject({ id, state: 'running' })
    for (const as of ['complete', 'fail'] as const) expect(await store.tasks.findEnded(first, as)).toBeNull()
    expect(await store.tasks.findEnded(second, 'release')).toBeNull()
    await store.tasks.settle(retried(second))
    expect(await store.tasks.findEnded(second, 'fail'), 'the lease was not ended this way').toBeNull()
    const third = await claimOne(store)
    await store.tasks.settle({ ...completed(third), endedAs: 'complete' })
    await pass(3_600_001)
    expect(await store.tasks.findEnded(first, 'release')).toBeNull()
    expect(await store.tasks.findEnded(third, 'complete'), 'while the task exists').toMatchObject({ id, clientId })
    expect(await store.tasks.findEnded({ id, fence: third.fence - 1 }, 'complete')).toBeNull()
  })
}
