/** Every way a task ends: one terminal event and its deliveries, in the commit that ends the task. */
import { expect, onTestFinished, test } from 'vitest'
import type { State, Task } from '../../../src/core/model.ts'
import type { Settlement, Store } from '../../../src/store/interfaces.ts'
import type { Engine, Ground } from '../../support/stores.ts'
import {
  addClient,
  addEndpoint,
  addTask,
  addTasks,
  claimOne,
  claimTasks,
  completed,
  failed,
  findTask,
  newTask,
  released,
  retried,
} from '../../support/work.ts'
import type { Current } from './suite.ts'

const HOUR_MS = 3_600_000

interface Path {
  readonly name: string
  readonly state: State
  readonly code?: string
  /** Limits of the task, from now. */
  readonly startsBy?: number
  readonly endsBy?: number
  /** Prepares the task. The returned function ends it. */
  prepare(ground: Ground, id: string): Promise<() => Promise<unknown>>
}

const settling = (code: string) => ({ code, message: 'it ended', details: null })
const paths: readonly Path[] = [
  {
    name: 'completed',
    state: 'completed',
    async prepare({ store }) {
      const task = await claimOne(store)
      return () => store.tasks.settle(completed(task))
    },
  },
  {
    name: 'failed',
    state: 'failed',
    code: 'handler_error',
    async prepare({ store }) {
      const task = await claimOne(store)
      return () => store.tasks.settle(failed(task))
    },
  },
  {
    name: 'timed out at the last try',
    state: 'failed',
    code: 'timeout',
    async prepare({ store }) {
      const task = await claimOne(store)
      return () => store.tasks.settle(failed(task, settling('timeout')))
    },
  },
  {
    name: 'not started by its time, found by a sweep',
    state: 'failed',
    code: 'start_expired',
    startsBy: 1_000,
    endsBy: HOUR_MS,
    async prepare({ store, pass }) {
      await pass(1_001)
      return () => store.maintenance.endOverdue({ limit: 100, graceMs: 10_000 })
    },
  },
  {
    name: 'not started by its time, found by a claim',
    state: 'failed',
    code: 'start_expired',
    startsBy: 1_000,
    async prepare({ store, pass }) {
      await pass(1_001)
      return () => claimTasks(store)
    },
  },
  {
    name: 'past its deadline while pending, found by a sweep',
    state: 'failed',
    code: 'deadline_exceeded',
    startsBy: HOUR_MS,
    endsBy: 1_000,
    async prepare({ store, pass }) {
      await pass(1_001)
      return () => store.maintenance.endOverdue({ limit: 100, graceMs: 10_000 })
    },
  },
  {
    name: 'past its deadline while pending, found by a claim',
    state: 'failed',
    code: 'deadline_exceeded',
    endsBy: 1_000,
    async prepare({ store, pass }) {
      await pass(1_001)
      return () => claimTasks(store)
    },
  },
  {
    name: 'past its deadline and its grace while running',
    state: 'failed',
    code: 'deadline_exceeded',
    endsBy: 10_000,
    async prepare({ store, pass }) {
      await claimOne(store)
      await pass(20_001)
      return () => store.maintenance.endOverdue({ limit: 100, graceMs: 10_000 })
    },
  },
  {
    name: 'canceled while pending',
    state: 'canceled',
    async prepare({ store }, id) {
      return () => store.tasks.cancel({ id, clientId: null })
    },
  },
  {
    name: 'canceled while it waits for its next try',
    state: 'canceled',
    async prepare({ store }, id) {
      await store.tasks.settle(retried(await claimOne(store), 60_000))
      return () => store.tasks.cancel({ id, clientId: null })
    },
  },
  {
    name: 'canceled while running, by a throw',
    state: 'canceled',
    async prepare({ store }, id) {
      const task = await claimOne(store)
      await store.tasks.cancel({ id, clientId: null })
      return () => store.tasks.settle(failed(task))
    },
  },
  {
    name: 'canceled while running, by the end of its grace',
    state: 'canceled',
    async prepare({ store, pass }, id) {
      await claimOne(store)
      await store.tasks.cancel({ id, clientId: null })
      await pass(10_001)
      return () => store.maintenance.endOverdue({ limit: 100, graceMs: 10_000 })
    },
  },
  {
    name: 'canceled while running, and its worker lost',
    state: 'canceled',
    async prepare({ store, pass }, id) {
      await claimOne(store, { leaseMs: 1_000 })
      await store.tasks.cancel({ id, clientId: null })
      await pass(1_001)
      const [expired] = (await store.maintenance.findExpired(10, null)).tasks
      return () => store.tasks.settle(retried(expired!))
    },
  },
  {
    name: 'its worker lost at the last try',
    state: 'failed',
    code: 'worker_lost',
    async prepare({ store, pass }) {
      await claimOne(store, { leaseMs: 1_000 })
      await pass(1_001)
      const [expired] = (await store.maintenance.findExpired(10, null)).tasks
      return () => store.tasks.settle(failed(expired!, settling('worker_lost')))
    },
  },
]

/** Makes the database reject every new delivery until the returned function is called or the test ends. */
async function refuseDeliveries({ engine, sql }: Ground): Promise<() => Promise<unknown>> {
  if (engine === 'sqlite') {
    await sql(`create trigger refuse before insert on deliveries begin select raise(abort, 'refused by the test'); end`)
  } else {
    await sql(
      `create or replace function refuse() returns trigger language plpgsql as $$ begin raise exception 'refused by the test'; end $$`,
    )
    await sql('create trigger refuse before insert on deliveries for each row execute function refuse()')
  }
  const allow = () => sql(`drop trigger if exists refuse ${engine === 'sqlite' ? '' : 'on deliveries'}`)
  onTestFinished(async () => void (await allow()))
  return allow
}

export function endings(current: Current): void {
  const add = async ({ store }: Ground, { startsBy, endsBy }: Partial<Path>, clientId: string): Promise<string> => {
    const now = await store.now()
    const { id } = await addTask(store, {
      clientId,
      startBy: startsBy === undefined ? null : now + startsBy,
      deadlineAt: endsBy === undefined ? null : now + endsBy,
    })
    return id
  }

  test.each(paths)('$name: the commit that ends the task records one terminal event and its delivery', async (path) => {
    const ground = current()
    const { store } = ground
    const clientId = await addClient(store)
    const endpointId = await addEndpoint(store, { clientId })
    const id = await add(ground, path, clientId)
    const end = await path.prepare(ground, id)
    const before = await findTask(store, id)
    const allow = await refuseDeliveries(ground)
    await expect(end()).rejects.toMatchObject({ code: 'temporary_reduced_capacity' })
    expect(await findTask(store, id), 'a refused delivery takes the ending with it').toEqual(before)
    expect(await store.events.list({ clientId, after: 0, limit: 10 })).toEqual([])
    await allow()

    await end()
    const task = await findTask(store, id)
    expect(task.state).toBe(path.state)
    expect(task.error === null ? undefined : JSON.parse(task.error).code).toBe(path.code)
    expect(task).toMatchObject({ leasedBy: null, leasedUntil: null })
    expect(task.finishedAt).not.toBeNull()
    const events = await store.events.list({ clientId, after: 0, limit: 10 })
    expect(events.map(({ type, seq, generation, revision }) => ({ type, seq, generation, revision }))).toEqual([
      { type: `task.${path.state}`, seq: 1, generation: 1, revision: task.revision },
    ])
    const body = JSON.parse(events[0]!.body)
    expect(body).toMatchObject({ type: `task.${path.state}`, id: events[0]!.id, data: { id, status: path.state, revision: task.revision } })
    expect(body.data.error?.code).toBe(path.code)
    const { items: owed } = await store.deliveries.list({ clientId, limit: 10, after: null })
    expect(owed).toMatchObject([{ endpointId, eventId: events[0]!.id, state: 'pending', tries: 0, taskId: id }])

    await end().catch(() => {})
    expect(await findTask(store, id), 'ended once').toEqual(task)
    expect(await store.events.list({ clientId, after: 0, limit: 10 })).toHaveLength(1)
  })

  test('a task that never started has no start time', async () => {
    const ground = current()
    const clientId = await addClient(ground.store)
    for (const find of [() => claimTasks(ground.store), () => ground.store.maintenance.endOverdue({ limit: 10, graceMs: 0 })]) {
      const id = await add(ground, { startsBy: 1_000 }, clientId)
      await ground.pass(1_001)
      await find()
      expect(await findTask(ground.store, id)).toMatchObject({ state: 'failed', tries: 0, startedAt: null })
    }
  })

  test('a returned result is kept even if a cancel was requested meanwhile', async () => {
    const { store } = current()
    const { id } = await addTask(store, { clientId: await addClient(store) })
    const task = await claimOne(store)
    expect(await store.tasks.cancel({ id, clientId: null })).toMatchObject({ kind: 'changed', task: { state: 'running' } })
    expect(await store.maintenance.renew({ kind: 'task', leases: [task], leaseMs: 1_000 })).toEqual([
      { id, renewed: true, cancelRequested: true },
    ])
    expect(await store.tasks.settle(completed(task))).toMatchObject({ kind: 'settled', value: { state: 'completed', progress: 100 } })
    expect((await store.tasks.cancel({ id, clientId: null })).kind).toBe('refused')
  })

  test.each([
    ['a retry', retried],
    ['a failure', failed],
    ['a release', released],
  ])('after a cancel request, %s ends in canceled, is never repeated and raises the fence', async (_name, settle) => {
    const { store, pass } = current()
    const { id } = await addTask(store, { clientId: await addClient(store) })
    const task = await claimOne(store)
    await store.tasks.cancel({ id, clientId: null })
    expect(await store.tasks.settle(settle(task))).toMatchObject({ kind: 'settled', value: { state: 'canceled', fence: task.fence + 1 } })
    await pass(HOUR_MS)
    expect(await claimTasks(store)).toEqual([])
    expect((await store.tasks.cancel({ id, clientId: null })).kind).toBe('unchanged')
  })

  test('a cancel request is not enforced before its grace period ends', async () => {
    const { store, pass } = current()
    const { id } = await addTask(store, { clientId: await addClient(store) })
    await claimOne(store)
    await store.tasks.cancel({ id, clientId: null })
    await pass(5_000)
    expect(await store.maintenance.endOverdue({ limit: 10, graceMs: 10_000 })).toBe(0)
    expect((await findTask(store, id)).state).toBe('running')
  })

  test('the start-by time no longer applies once a try has started', async () => {
    const ground = current()
    const { store, pass } = ground
    const id = await add(ground, { startsBy: 10_000 }, await addClient(store))
    await store.tasks.settle(retried(await claimOne(store)))
    await pass(11_000)
    expect(await store.maintenance.endOverdue({ limit: 10, graceMs: 0 })).toBe(0)
    expect((await claimOne(store)).id).toBe(id)
  })

  test('a retried task is a new generation with its own terminal event', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    const { id } = await addTask(store, { clientId })
    await store.tasks.settle(failed(await claimOne(store)))
    const [first] = await store.events.list({ clientId, after: 0, limit: 10 })
    const redone = await store.tasks.redo({ id, clientId })
    expect(redone).toMatchObject({
      kind: 'changed',
      task: { state: 'pending', generation: 2, tries: 0, error: null, lastError: null, finishedAt: null, startedAt: null },
    })
    expect((await store.tasks.redo({ id, clientId })).kind).toBe('refused')
    expect(await store.deliveries.findCallbackStatuses([await findTask(store, id)])).toEqual(new Map([[id, 'pending']]))
    await store.tasks.settle(completed(await claimOne(store)))
    const events = await store.events.list({ clientId, after: 0, limit: 10 })
    expect(events.map(({ type, generation }) => [type, generation])).toEqual([
      ['task.failed', 1],
      ['task.completed', 2],
    ])
    expect(events[0], 'a recorded event does not change').toEqual(first)
    expect((await store.deliveries.list({ clientId, limit: 10, after: null })).items).toHaveLength(2)
    expect((await store.tasks.redo({ id, clientId })).kind, 'a completed task is not done again').toBe('refused')
  })

  test('the database rejects a second terminal event of a generation', async () => {
    const { store, sql } = current()
    const clientId = await addClient(store)
    await addTask(store, { clientId })
    await store.tasks.settle(completed(await claimOne(store)))
    const columns = 'client_id, task_id, type, terminal, generation, revision, body, created_at'
    await expect(sql(`insert into events (id, seq, ${columns}) select 'event_other', 2, ${columns} from events`)).rejects.toThrow(/unique/i)
  })

  test.each<[string, (ground: Ground, id: string) => Promise<unknown>, (task: Task) => Settlement, Engine[]]>([
    // JSON escapes NUL, so any database stores it.
    ['NUL in an error message', async () => {}, (task) => failed(task, { code: 'broken', message: 'a\0b', details: { why: '\0' } }), []],
    // SQLite holds NUL in text; PostgreSQL does not.
    ['NUL in what is stored as it is', async () => {}, (task) => completed(task, '"a\0b"'), ['postgres']],
    [
      'a conflict',
      ({ sql }, id) =>
        sql(
          `insert into events (id, client_id, task_id, seq, type, terminal, generation, revision, body, created_at)
           select 'event_before', client_id, id, -1, 'task.failed', 1, generation, revision, '{}', created_at from tasks where id = '${id}'`,
        ),
      completed,
      ['sqlite', 'postgres'],
    ],
    [
      'a row that cannot be decoded',
      // A time beyond the range of Date.
      ({ sql }, id) => sql(`update tasks set created_at = 9000000000000000 where id = '${id}'`),
      completed,
      ['sqlite', 'postgres'],
    ],
  ])('one bad item in a batch fails alone, and the 99 others succeed: %s', async (_name, corrupt, settle, rejectedOn) => {
    const ground = current()
    const { store, engine } = ground
    const clientId = await addClient(store)
    await addEndpoint(store, { clientId })
    await addTasks(store, 100, { clientId })
    const tasks = await claimTasks(store)
    const bad = tasks[42]!
    await corrupt(ground, bad.id)
    const calls = tasks.map((task, i) => () => store.tasks.settle(i === 42 ? settle(task) : completed(task)))
    await expectOneRejected(store, calls, rejectedOn.includes(engine) ? 42 : null)
    const states = (await store.tasks.findMany(tasks.map(({ id }) => id))).map(({ id, state }) => (id === bad.id ? 'bad' : state))
    expect(states.filter((state) => state === 'completed')).toHaveLength(99)
    const deliveries = await ground.sql(`select task_id from deliveries where task_id <> '${bad.id}'`)
    expect(deliveries, 'each with its delivery').toHaveLength(99)
    if (rejectedOn.includes(engine))
      expect(await findTask(store, bad.id), 'nothing of it is half done').toEqual({
        ...bad,
        createdAt: (await findTask(store, bad.id)).createdAt,
      })
  })

  test('one report that the database rejects fails alone, and the 99 others of its batch succeed', async () => {
    const { store, engine } = current()
    const clientId = await addClient(store)
    await store.tasks.add({ tasks: Array.from({ length: 100 }, () => newTask({ clientId })), idempotency: null })
    const tasks = await claimTasks(store)
    const reports = tasks.map(
      (task, i) => () => store.tasks.reportProgress({ ...task, progress: i / 2, message: i === 42 ? 'a\0b' : 'fine', notify: true }),
    )
    // SQLite holds NUL in text; PostgreSQL does not.
    await expectOneRejected(store, reports, engine === 'postgres' ? 42 : null)
    expect((await findTask(store, tasks[99]!.id)).progress).toBe(49.5)
  })
}

/** Settles all at once, so that they share a batch. Every one is answered, and only the given one (null: none) is rejected. */
async function expectOneRejected(
  _store: Store,
  calls: readonly (() => Promise<{ kind: string }>)[],
  refused: number | null,
): Promise<void> {
  const answers = await Promise.allSettled(calls.map((call) => call()))
  const bad = answers.flatMap((answer, i) => (answer.status === 'rejected' ? [i] : []))
  expect(bad).toEqual(refused === null ? [] : [refused])
  expect(answers.every((answer) => answer.status === 'rejected' || answer.value.kind === 'settled')).toBe(true)
}
