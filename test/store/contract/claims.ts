/** Claim and settle: each try is claimed once, and only its holder may end it. */
import { expect, test } from 'vitest'
import type { Store } from '../../../src/store/interfaces.ts'
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
  failed,
  findTask,
  released,
  retried,
  undelivered,
} from '../../support/work.ts'
import type { Current } from './suite.ts'

const CLAIMERS = 4

export function claims(current: Current): void {
  /** Claimers on three nodes, each claiming a few at a time, until nothing is claimable. */
  const claimAll = async <W>(take: (store: Store, by: string) => Promise<readonly W[]>): Promise<W[]> => {
    const ground = current()
    const nodes = [ground.store, await ground.anotherNode(), await ground.anotherNode()]
    const taken: W[] = []
    let open = -1
    const claimer = async (store: Store, by: string): Promise<void> => {
      for (let empty = 0; taken.length < open || empty < 2; ) {
        const items = await take(store, by)
        taken.push(...items)
        empty = items.length === 0 ? empty + 1 : 0
      }
    }
    open = await countPending()
    await Promise.all(nodes.flatMap((node, n) => Array.from({ length: CLAIMERS }, (_, m) => claimer(node, `boot_${n}_${m}`))))
    return taken
  }
  const countPending = async (): Promise<number> => {
    const [row] = await current().sql<{ n: number | string }>(
      `select max(n) as n from (select count(*) as n from tasks where state = 'pending' union all select count(*) from deliveries where state = 'pending') c`,
    )
    return Number(row!.n)
  }

  test('many claimers on many nodes claim each try of a task once, the first and the next', async () => {
    const { store, sql } = current()
    for (let i = 0; i < 4; i++) {
      const clientId = await addClient(store)
      await addTasks(store, 40, { clientId })
      await addTasks(store, 10, { clientId, type: 'mail.send' })
    }
    const take = (node: Store, by: string) => claimTasks(node, { limit: 7, leasedBy: by }, ['report.build', 'mail.send'])
    const first = await claimAll(take)
    expect(first).toHaveLength(200)
    expect(new Set(first.map((task) => task.id)).size).toBe(200)
    expect(first.every((task) => task.fence === 1 && task.tries === 1 && task.state === 'running')).toBe(true)

    await Promise.all(first.map((task) => store.tasks.settle(retried(task))))
    await current().pass(1)
    const second = await claimAll(take)
    expect(second).toHaveLength(200)
    expect(new Set(second.map((task) => task.id)).size).toBe(200)
    expect(second.every((task) => task.fence === 2 && task.tries === 2)).toBe(true)
    const [{ turns }] = (await sql<{ turns: number | string }>('select count(*) as turns from turns')) as [{ turns: number | string }]
    expect(Number(turns), 'turns of lanes with nothing left to do').toBe(0)
  })

  test('many claimers on many nodes claim each delivery once', async () => {
    const { store } = current()
    for (let i = 0; i < 3; i++) {
      const clientId = await addClient(store)
      await addEndpoint(store, { clientId })
      await addEndpoint(store, { clientId })
      await addTasks(store, 20, { clientId })
    }
    const tasks = await claimTasks(store)
    await Promise.all(tasks.map((task) => store.tasks.settle(completed(task))))
    const sent = await claimAll((node, by) => claimDeliveries(node, { limit: 7, leasedBy: by }))
    expect(sent).toHaveLength(120)
    expect(new Set(sent.map((delivery) => delivery.id)).size).toBe(120)
    expect(sent.every((delivery) => delivery.fence === 1 && delivery.tries === 1)).toBe(true)
  })

  test('a finish, a progress report and a renewal from an expired lease change nothing', async () => {
    const { store, pass } = current()
    const { id } = await addTask(store, { clientId: await addClient(store) })
    const late = await claimOne(store, { leaseMs: 1_000 })
    await pass(1_001)
    const expired = (await store.maintenance.findExpired(10, null)).tasks
    expect(expired.map((task) => task.id)).toEqual([id])
    expect((await store.tasks.settle(retried(expired[0]!))).kind).toBe('settled')
    await pass(1)
    const holder = await claimOne(store, { leasedBy: 'boot_b' })
    const before = await findTask(store, id)

    expect(await store.tasks.settle(completed(late))).toEqual({ kind: 'stale' })
    expect(await store.tasks.settle(failed(late))).toEqual({ kind: 'stale' })
    expect(await store.tasks.settle(released(late))).toEqual({ kind: 'stale' })
    expect(await store.tasks.reportProgress({ ...late, progress: 50, message: 'late', notify: true })).toEqual({ kind: 'stale' })
    expect(await store.maintenance.renew({ kind: 'task', leases: [late], leaseMs: 60_000 })).toEqual([
      { id, renewed: false, cancelRequested: false },
    ])
    expect(await findTask(store, id)).toEqual(before)
    expect((await store.tasks.settle(completed(holder))).kind).toBe('settled')
  })

  test('a late finish in the same batch as the holder’s finish is stale, in either order', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    for (const lateFirst of [true, false]) {
      const { id } = await addTask(store, { clientId })
      const late = await claimOne(store)
      await store.tasks.settle(retried(late))
      await pass(1)
      const holder = await claimOne(store, { leasedBy: 'boot_b' })
      const both = lateFirst ? [failed(late), completed(holder)] : [completed(holder), failed(late)]
      const kinds = (await Promise.all(both.map((settlement) => store.tasks.settle(settlement)))).map(({ kind }) => kind)
      expect(kinds).toEqual(lateFirst ? ['stale', 'settled'] : ['settled', 'stale'])
      expect((await findTask(store, id)).state).toBe('completed')
    }
  })

  test('a late report in the same batch as the holder’s report is stale, in either order', async () => {
    const { store, pass } = current()
    await addTask(store, { clientId: await addClient(store) })
    const late = await claimOne(store)
    await store.tasks.settle(retried(late))
    await pass(1)
    const holder = await claimOne(store, { leasedBy: 'boot_b' })
    for (const [order, progress] of [
      ['late first', 10],
      ['late last', 20],
    ] as const) {
      const own = { ...holder, progress, message: 'mine', notify: true }
      const other = { ...late, progress: 99, message: 'late', notify: true }
      const reports = order === 'late first' ? [other, own] : [own, other]
      const kinds = (await Promise.all(reports.map((report) => store.tasks.reportProgress(report)))).map(({ kind }) => kind)
      expect(kinds, order).toEqual(order === 'late first' ? ['stale', 'settled'] : ['settled', 'stale'])
      expect((await findTask(store, holder.id)).progress, order).toBe(progress)
    }
  })

  test('the fence never decreases through retry, release, cancel and redo', async () => {
    const { store, pass } = current()
    const { id } = await addTask(store, { clientId: await addClient(store) })
    const fences: number[] = []
    const claim = async () => {
      await pass(1)
      const task = await claimOne(store)
      fences.push(task.fence)
      return task
    }
    await store.tasks.settle(retried(await claim()))
    await store.tasks.settle(released(await claim()))
    await store.tasks.settle(failed(await claim()))
    expect((await store.tasks.redo({ id, clientId: null })).kind).toBe('changed')
    expect((await findTask(store, id)).fence).toBe(3)
    await store.tasks.settle(retried(await claim()))
    await store.tasks.cancel({ id, clientId: null })
    const canceled = await findTask(store, id)
    expect(canceled.state).toBe('canceled')
    await store.tasks.redo({ id, clientId: null })
    const again = await claim()
    expect(again.tries).toBe(1)
    expect(again.generation).toBe(3)
    expect(fences).toEqual([...fences].sort((a, b) => a - b))
    expect(new Set(fences).size).toBe(5)
    expect(canceled.fence).toBeGreaterThan(fences[3]!)
    expect(again.fence).toBeGreaterThan(canceled.fence)
  })

  test('a release returns the try; a retry uses it', async () => {
    const { store, pass } = current()
    const { id } = await addTask(store, { clientId: await addClient(store) })
    await store.tasks.settle(released(await claimOne(store)))
    expect((await findTask(store, id)).tries).toBe(0)
    await pass(1)
    await store.tasks.settle(retried(await claimOne(store)))
    const task = await findTask(store, id)
    expect(task).toMatchObject({ tries: 1, state: 'pending', leasedBy: null, leasedUntil: null })
    expect(JSON.parse(task.lastError!)).toMatchObject({ code: 'handler_error', message: 'it broke' })
  })

  test('finishing twice with one lease is a no-op, in sequence and concurrently', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    await addTasks(store, 2, { clientId })
    const [one, other] = (await claimTasks(store)) as [Awaited<ReturnType<typeof claimOne>>, Awaited<ReturnType<typeof claimOne>>]
    expect((await store.tasks.settle(completed(one, '1'))).kind).toBe('settled')
    const before = await findTask(store, one.id)
    expect(await store.tasks.settle(completed(one, '2'))).toEqual({ kind: 'stale' })
    expect(await findTask(store, one.id)).toEqual(before)

    const kinds = (await Promise.all([store.tasks.settle(completed(other, '1')), store.tasks.settle(completed(other, '2'))])).map(
      ({ kind }) => kind,
    )
    expect(kinds).toEqual(['settled', 'stale'])
    expect((await findTask(store, other.id)).result).toBe('1')
    expect(await store.events.list({ clientId, after: 0, limit: 10 })).toHaveLength(2)

    const [delivery, second] = (await claimDeliveries(store)) as [Awaited<ReturnType<typeof claimDeliveries>>[number], never]
    const answers = await Promise.all([store.deliveries.settle(delivered(delivery)), store.deliveries.settle(undelivered(delivery))])
    expect(answers.map(({ kind }) => kind)).toEqual(['settled', 'stale'])
    expect((await store.deliveries.find(delivery.id, null))?.state).toBe('completed')
    expect(await store.deliveries.listAttempts([delivery.id])).toHaveLength(1)
    await store.deliveries.settle(delivered(second))
  })

  test('an attempt made under a lost lease is recorded but does not change its delivery', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    await addTask(store, { clientId })
    await store.tasks.settle(completed(await claimOne(store)))
    const [late] = await claimDeliveries(store)
    await store.deliveries.settle(undelivered(late!))
    await pass(1)
    const [holder] = await claimDeliveries(store, { leasedBy: 'boot_b' })
    await store.deliveries.settle({ ...undelivered(holder!, 60_000) })
    const before = await store.deliveries.find(late!.id, null)
    expect(await store.deliveries.settle(delivered(late!))).toEqual({ kind: 'stale' })
    expect(await store.deliveries.find(late!.id, null)).toEqual(before)
    expect((await store.deliveries.listAttempts([late!.id])).map((attempt) => attempt.fence)).toEqual([1, 2])
  })

  test('complete racing fail, cancel, timeout and rescue leaves one winner and one terminal event', async () => {
    const ground = current()
    const { store } = ground
    const node = await ground.anotherNode()
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    await addTasks(store, 24, { clientId, maxTries: 1 })
    const tasks = await claimTasks(store, { leaseMs: 0 })
    expect(tasks).toHaveLength(24)
    await ground.pass(1)
    const late = { code: 'timeout', message: 'The try took longer than its 60 s.', details: null }
    const lost = { code: 'worker_lost', message: 'The node that ran the task was lost.', details: null }
    for (const [i, task] of tasks.entries()) {
      const rivals = [
        () => store.tasks.settle(completed(task)),
        () => node.tasks.settle(failed(task)),
        () => node.tasks.settle(failed(task, late)),
        () => node.tasks.cancel({ id: task.id, clientId }),
        () => store.tasks.settle(failed(task, lost)),
      ]
      const start = i % rivals.length
      const answers = await Promise.all([...rivals.slice(start), ...rivals.slice(0, start)].map((rival) => rival()))
      expect(answers.filter(({ kind }) => kind === 'settled')).toHaveLength(1)
      const events = await store.events.list({ clientId, taskId: task.id, after: 0, limit: 10 })
      const after = await findTask(store, task.id)
      expect(events.map((event) => event.type)).toEqual([`task.${after.state}`])
      expect(events[0]!.revision).toBe(after.revision)
      expect((await store.deliveries.list({ clientId, taskId: task.id, limit: 10, after: null })).items).toHaveLength(1)
    }
  })

  test('clients take turns among the types that are claimed together, regardless of what else is claimed', async () => {
    const { store } = current()
    const [busy, other] = [await addClient(store), await addClient(store)].sort()
    for (const clientId of [busy!, other!]) await addTasks(store, 10, { clientId, type: 'shared.type' })
    await addTasks(store, 10, { clientId: busy!, type: 'own.type' })
    const served: string[] = []
    for (let n = 0; n < 10; n++) {
      served.push((await claimOne(store, { leasedBy: 'worker:1' }, ['shared.type'])).clientId)
      await claimOne(store, { leasedBy: 'boot_a' }, ['own.type'])
    }
    for (const clientId of [busy, other]) expect(served.filter((id) => id === clientId)).toHaveLength(5)
  })
}
