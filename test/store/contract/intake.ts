/** Submission: once for each idempotency key, all tasks of a request or none, and a bad request fails alone. */
import { expect, test } from 'vitest'
import type { Idempotency, SubmitResult } from '../../../src/store/interfaces.ts'
import { addClient, addEndpoint, addTask, addTasks, claimOne, claimTasks, completed, findTask, newTask } from '../../support/work.ts'
import type { Current } from './suite.ts'

const DAY_MS = 86_400_000

export function intake(current: Current): void {
  const keyed = (clientId: string, given: Partial<Idempotency> = {}): Idempotency => ({
    clientId,
    scope: 'POST /v1/tasks',
    key: 'order-7',
    fingerprint: 'a'.repeat(64),
    ...given,
  })
  const submit = (clientId: string, idempotency: Idempotency | null): Promise<SubmitResult> =>
    current().store.tasks.add({ tasks: [newTask({ clientId })], idempotency })
  const countTasks = async (): Promise<number> =>
    Number((await current().sql<{ n: number | string }>('select count(*) as n from tasks'))[0]!.n)

  test('open tasks are counted in total and per client, for all types and keys', async () => {
    const { store } = current()
    const [one, two, none] = [await addClient(store), await addClient(store), await addClient(store)]
    await addTasks(store, 5, { clientId: one })
    await addTasks(store, 3, { clientId: one, type: 'zz.last', concurrencyKey: '~' })
    await addTasks(store, 2, { clientId: two, type: '0' })
    await claimTasks(store, { limit: 4 })
    const counts = await Promise.all([null, one, two, none].map(async (clientId) => (await store.tasks.countOpen(null, clientId)).n))
    expect(counts).toEqual([10, 8, 2, 0])
  })

  test('every acknowledged task is stored as acknowledged', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const task = await addTask(store, {
      clientId,
      metadata: '{"order":"7","customer":"ü"}',
      input: '{"n":1.10,"text":"\\u0000 \u{1f600}"}',
      priority: 3,
      concurrencyKey: 'a/b',
      batchId: 'batch_1',
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      tracestate: 'x=1',
      callback: { events: ['task.failed'] },
    })
    expect(await findTask(store, task.id)).toMatchObject({ ...task, state: 'pending', generation: 1, revision: 1, fence: 0 })
    expect(await store.tasks.find(task.id, clientId)).toMatchObject({ kind: 'found' })
    expect(await store.tasks.find(task.id, await addClient(store)), 'of another client').toEqual({ kind: 'missing' })
    expect(await store.tasks.findMany([task.id, 'task_unknown'])).toMatchObject([{ id: task.id }])
    expect(await store.tasks.countOpen(null, null)).toEqual({ n: 1, next: null })
  })

  test('fifty concurrent requests with one key and one body create one task', async () => {
    const ground = current()
    const nodes = [ground.store, await ground.anotherNode()] as const
    const clientId = await addClient(ground.store)
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, i) => nodes[i % 2]!.tasks.add({ tasks: [newTask({ clientId })], idempotency: keyed(clientId) })),
    )
    expect(answers.filter(({ kind }) => kind === 'added')).toHaveLength(1)
    expect(answers.filter(({ kind }) => kind === 'replayed')).toHaveLength(49)
    const ids = answers.map((answer) => ('tasks' in answer ? answer.tasks.map(({ id }) => id) : []))
    expect(new Set(ids.flat()).size).toBe(1)
    expect(await countTasks()).toBe(1)
  })

  test('a key with another body is rejected, also concurrently with the first request', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const other = keyed(clientId, { fingerprint: 'b'.repeat(64) })
    const [first, second] = await Promise.all([submit(clientId, keyed(clientId)), submit(clientId, other)])
    expect([first.kind, second.kind]).toEqual(['added', 'reused'])
    expect(await submit(clientId, other)).toEqual({ kind: 'reused' })
    expect(await store.tasks.findSubmitted(other)).toEqual({ kind: 'reused' })
    expect(await countTasks()).toBe(1)
  })

  test('a key belongs to one client and one route', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const another = await addClient(store)
    expect(await store.tasks.findSubmitted(keyed(clientId))).toBeNull()
    const kinds = [
      await submit(clientId, keyed(clientId)),
      await submit(clientId, keyed(clientId, { scope: 'POST /v1/batches' })),
      await submit(clientId, keyed(clientId, { key: 'order-8' })),
      await submit(another, keyed(another)),
    ].map(({ kind }) => kind)
    expect(kinds).toEqual(['added', 'added', 'added', 'added'])
  })

  test('a replay returns the current tasks', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const request = { tasks: [newTask({ clientId }), newTask({ clientId })], idempotency: keyed(clientId) }
    await store.tasks.add(request)
    const done = await claimOne(store)
    await store.tasks.settle(completed(done))
    const again = await store.tasks.add({ ...request, tasks: [newTask({ clientId }), newTask({ clientId })] })
    expect(again).toMatchObject({ kind: 'replayed' })
    const states = 'tasks' in again ? again.tasks.map(({ id, state }) => [id, state]) : []
    expect(states).toEqual(request.tasks.map(({ id }) => [id, id === done.id ? 'completed' : 'pending']))
    expect(await store.tasks.findSubmitted(keyed(clientId))).toMatchObject({ kind: 'replayed' })
    await store.tasks.erase({ id: done.id, clientId })
    expect(await store.tasks.add(request), 'what it made was erased').toEqual({ kind: 'gone' })
  })

  test('a key expires after 24 hours, not before', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    expect((await submit(clientId, keyed(clientId))).kind).toBe('added')
    await pass(DAY_MS - 60_000)
    expect((await submit(clientId, keyed(clientId))).kind).toBe('replayed')
    await pass(60_001)
    expect(await store.tasks.findSubmitted(keyed(clientId))).toBeNull()
    expect((await submit(clientId, keyed(clientId))).kind).toBe('added')
    expect((await submit(clientId, keyed(clientId))).kind).toBe('replayed')
    expect(await countTasks()).toBe(2)
  })

  test('a key and its tasks are one commit: if the tasks cannot be written, the key is unused', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const { id } = await addTask(store, { clientId })
    const request = { tasks: [newTask({ clientId }), newTask({ clientId, id })], idempotency: keyed(clientId) }
    await expect(store.tasks.add(request)).rejects.toMatchObject({ code: 'temporary_reduced_capacity' })
    expect(await countTasks(), 'all of a request or nothing').toBe(1)
    expect(await store.tasks.findSubmitted(keyed(clientId))).toBeNull()
    expect((await submit(clientId, keyed(clientId))).kind).toBe('added')
  })

  test('a task whose id exists fails alone, and the 99 others of its batch succeed', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const { id } = await addTask(store, { clientId })
    const requests = Array.from({ length: 100 }, (_, i) => ({
      tasks: [newTask({ clientId, ...(i === 42 ? { id } : {}) })],
      idempotency: i % 2 === 0 ? keyed(clientId, { key: `order-${i}` }) : null,
    }))
    const answers = await Promise.allSettled(requests.map((request) => store.tasks.add(request)))
    expect(answers.flatMap(({ status }, i) => (status === 'rejected' ? [i] : []))).toEqual([42])
    expect(answers[42]).toMatchObject({ reason: { code: 'temporary_reduced_capacity', status: 503 } })
    expect(answers.flatMap((answer) => (answer.status === 'fulfilled' && answer.value.kind === 'added' ? [1] : []))).toHaveLength(99)
    expect(await countTasks()).toBe(100)
  })

  test('a large batch is written completely: tasks, labels and owed deliveries', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    for (let i = 0; i < 8; i++) await addEndpoint(store, { clientId })
    const metadata = JSON.stringify(Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`key${i}`, `value ${i}`])))
    const startBy = (await store.now()) + 1_000
    const tasks = Array.from({ length: 1_000 }, () => newTask({ clientId, metadata, startBy }))
    expect(await store.tasks.add({ tasks, idempotency: null })).toMatchObject({ kind: 'added' })
    const found = await store.tasks.list({ clientId, order: 'asc', limit: 1, after: null, metadata: { key: 'key15', value: 'value 15' } })
    expect(found.items).toHaveLength(1)
    expect(await store.tasks.findMany(tasks.map(({ id }) => id))).toHaveLength(1_000)
    await current().pass(1_001)
    expect(await store.maintenance.endOverdue({ limit: 500, graceMs: 0 })).toBe(500)
    expect(await store.maintenance.endOverdue({ limit: 500, graceMs: 0 })).toBe(500)
    const [row] = await current().sql<{ n: number | string }>('select count(*) as n from deliveries')
    expect(Number(row!.n)).toBe(8_000)
  })

  test('more than 5,000 waiting requests are rejected with 503 and Retry-After, and none of the others is lost', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const answers = await Promise.allSettled(
      Array.from({ length: 5_200 }, () => store.tasks.add({ tasks: [newTask({ clientId })], idempotency: null })),
    )
    const refused = answers.filter(({ status }) => status === 'rejected')
    expect(refused.length).toBeGreaterThan(0)
    expect(refused.length).toBeLessThanOrEqual(200)
    expect(refused[0]).toMatchObject({ reason: { code: 'temporary_reduced_capacity', headers: { 'retry-after': '1' } } })
    expect(await countTasks()).toBe(5_200 - refused.length)
  })
}
