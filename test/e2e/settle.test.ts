/** Endings on each database under the system clock: a store that refuses settlements, and three deadlines side by side. */
import { describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import type { Store } from '../../src/store/interfaces.ts'
import { openStore } from '../../src/store/open.ts'
import { defineTask } from '../../src/tasks/define.ts'
import { freshPostgres, freshSqlite } from '../support/databases.ts'
import { startNode } from '../support/nodes.ts'
import { eventually } from '../support/server.ts'
import { type Engine, engines, openGround } from '../support/stores.ts'
import { addClient, addTask, findTask } from '../support/work.ts'

/** A store by the clock of the system; that of a ground on SQLite is moved by hand. */
async function opened(engine: Engine): Promise<Store> {
  const database = engine === 'sqlite' ? freshSqlite() : await freshPostgres()
  const store = await openStore({ url: database.url, clock: systemClock(), publicUrl: () => 'https://tasks.example', retrySchedule: [5] })
  onTestFinished(async () => {
    await store.close()
    await ('drop' in database ? database.drop() : database.remove())
  })
  return store
}

/** How far the clocks of a node, its store and this test may differ within these seconds. */
const SKEW_MS = 50

describe.each(engines)('on %s', { timeout: 120_000 }, (engine) => {
  test('a settlement that the store refuses is repeated: a success does not become a failure', async () => {
    const ground = await openGround(engine)
    onTestFinished(() => ground.close())
    const { store, sql } = ground
    const ending = `new.state in ('completed', 'failed', 'pending', 'canceled')`
    if (engine === 'sqlite')
      await sql(`create trigger refuse before update on tasks when ${ending} begin select raise(abort, 'refused by the test'); end`)
    else {
      await sql(`create function refuse() returns trigger language plpgsql as $$ begin raise exception 'refused by the test'; end $$`)
      await sql(`create trigger refuse before update on tasks for each row when (${ending}) execute function refuse()`)
    }
    let runs = 0
    const errors: unknown[] = []
    startNode(store, 'boot_a', [defineTask({ type: 'report.build', run: () => ++runs })], 1, (error) => void errors.push(error))
    const clientId = await addClient(store)
    const { id } = await addTask(store, { clientId, maxTries: 1 })
    await eventually('three refusals', () => errors.length >= 3)
    expect(await findTask(store, id)).toMatchObject({ state: 'running', tries: 1, error: null, lastError: null })
    expect(await store.events.list({ clientId, after: 0, limit: 10 })).toEqual([])
    await sql(`drop trigger refuse ${engine === 'sqlite' ? '' : 'on tasks'}`)
    await eventually('its end', async () => (await findTask(store, id)).finishedAt !== null)
    expect(await findTask(store, id)).toMatchObject({ state: 'completed', result: '1', tries: 1, error: null })
    expect((await store.events.list({ clientId, after: 0, limit: 10 })).map(({ type }) => type)).toEqual(['task.completed'])
    expect(runs).toBe(1)
  })

  test('startBy, timeoutSeconds and deadlineAt are independent: each runs on its own clock and ends what it is about alone', async () => {
    const store = await opened(engine)
    const run = (_: unknown, { signal }: { signal: AbortSignal }): Promise<never> =>
      new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    const retry = { tries: 9, delayMs: () => 50 }
    startNode(store, 'boot_a', [defineTask({ type: 'report.build', retry, run })], 1)
    const clientId = await addClient(store)
    const now = await store.now()
    const all = { clientId, maxTries: 9, startBy: now + 1_000, timeoutSeconds: 2, deadlineAt: now + 4_000 }
    const runs = await addTask(store, all)
    const look = (id: string) => findTask(store, id)
    const errorOf = async (id: string) => JSON.parse((await look(id)).error ?? '{}').code
    await eventually('the first running', async () => (await look(runs.id)).state === 'running')
    // No slot is left for these.
    const late = await addTask(store, all)
    const ended = await addTask(store, { ...all, startBy: null })
    const patient = await addTask(store, { ...all, startBy: null, deadlineAt: null })
    const sweep = async (): Promise<void> => void (await store.maintenance.endOverdue({ limit: 100, graceMs: 0 }))

    await eventually('the end of the task that could not start', async () => {
      await sweep()
      return (await look(late.id)).state === 'failed'
    })
    expect(await errorOf(late.id)).toBe('start_expired')
    expect(await store.now()).toBeGreaterThanOrEqual(now + 1_000 - SKEW_MS)
    expect((await look(runs.id)).state, 'a started task is not bound by startBy').toBe('running')
    for (const { id } of [ended, patient]) expect((await look(id)).state).toBe('pending')

    await eventually('the timeout of the first try', async () => (await look(runs.id)).lastError !== null)
    const timedOut = await look(runs.id)
    expect(JSON.parse(timedOut.lastError!)).toMatchObject({ code: 'timeout', try: 1 })
    expect(timedOut.finishedAt, 'only that try is lost').toBeNull()
    expect(await store.now()).toBeGreaterThanOrEqual(now + 2_000 - SKEW_MS)

    await eventually('both deadlines', async () => {
      await sweep()
      return (await look(runs.id)).state === 'failed' && (await look(ended.id)).state === 'failed'
    })
    for (const { id } of [runs, ended]) {
      expect(await errorOf(id), 'however many tries were left').toBe('deadline_exceeded')
      expect((await look(id)).finishedAt).toBeGreaterThanOrEqual(now + 4_000 - SKEW_MS)
    }
    expect((await look(patient.id)).finishedAt).toBeNull()
  })
})
