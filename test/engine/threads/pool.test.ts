/** Task types that run in threads: real threads, under the scheduler and in the whole platform. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../../src/core/clock.ts'
import { StartupError } from '../../../src/core/errors.ts'
import { CANCEL_GRACE_MS } from '../../../src/engine/run-try.ts'
import { openThreadPool, type ThreadPool } from '../../../src/engine/threads/pool.ts'
import { createEventSink } from '../../../src/observe/events.ts'
import { createRingback } from '../../../src/platform.ts'
import { defineTask, type TaskType } from '../../../src/tasks/define.ts'
import { freshSqlite } from '../../support/databases.ts'
import { type Engine, startEngine } from '../../support/engine.ts'
import { troubleInto } from '../../support/events.ts'
import * as types from '../../support/threadtasks.ts'
import { addClient, addTask, findTask } from '../../support/work.ts'

const all = Object.values(types) as readonly TaskType[]
/** Real time passes until it holds: what threads do is not moved by hand. */
const until = async (holds: () => boolean | Promise<boolean>): Promise<void> => {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 5))
}

/** One pool for the tests that do not kill. */
const opened: ThreadPool[] = []
afterAll(() => Promise.all(opened.map((threads) => threads.close())))
async function start({
  most = 2,
  memoryMb = 64,
} = {}): Promise<Engine & { threads: ThreadPool; add(type: TaskType, input?: unknown, maxTries?: number): Promise<string> }> {
  const errors: unknown[] = []
  let engine: Engine | null = null
  const clock = { ...systemClock(), after: (ms: number, wake: () => void) => (engine ? engine.clock.after(ms, wake) : () => {}) }
  const threads = await openThreadPool({ types: all, maxThreads: most, memoryMb, clock, events: troubleInto(errors) })
  opened.push(threads)
  engine = await startEngine(all, { concurrency: most, threads })
  const clientId = await addClient(engine.store)
  const { store } = engine
  return {
    ...engine,
    errors,
    threads,
    add: async (type, input = {}, maxTries = 1) =>
      (await addTask(store, { clientId, type: type.type, input: JSON.stringify(input), maxTries, timeoutSeconds: 30 })).id,
  }
}
const running = (engine: Engine, id: string) => until(async () => (await findTask(engine.store, id)).progress > 0)
const ended = async (engine: Engine, count: number) => {
  await until(() => engine.runs.length === count)
  return engine.runs.at(-1)!
}
const errorOf = async (engine: Engine, id: string) => JSON.parse((await findTask(engine.store, id)).error ?? 'null')

describe('a run in a thread', () => {
  test('is given its input, parsed there, and its task; its result is the task’s', async () => {
    const engine = await start()
    const id = await engine.add(types.whoami)
    await ended(engine, 1)
    const { state, result } = await findTask(engine.store, id)
    expect(state).toBe('completed')
    expect(JSON.parse(result!)).toEqual({
      isMainThread: false,
      threadId: expect.any(Number),
      input: { n: 7 },
      task: expect.objectContaining({ id, type: 'thread.whoami', try: 1, metadata: {} }),
    })
    await engine.add(types.whoami, { n: 'seven' })
    expect(await ended(engine, 2)).toMatchObject({ outcome: 'failed', errorCode: 'input_rejected' })
  })

  test('reports progress and logs, however much it reports, and its last words are heard', async () => {
    const engine = await start()
    const id = await engine.add(types.report)
    await ended(engine, 1)
    expect(await findTask(engine.store, id)).toMatchObject({
      state: 'completed',
      result: '"all"',
      progress: 100,
      progressMessage: expect.stringMatching(/^round /),
    })
    expect(engine.lines).toEqual([
      [{ wide: 1, error: {} }, 'begun'],
      [{ plain: [1, 2] }, 'warned'],
    ])
  })

  test.each([
    ['error', { outcome: 'failed' }, { code: 'handler_error', message: 'out of range', details: null }],
    ['permanent', { outcome: 'failed' }, { code: 'month.unknown', message: 'no such month', details: { month: 13 } }],
    ['postpone', { outcome: 'pending', errorCode: null }, null],
    ['large', { outcome: 'failed' }, { code: 'result_too_large', message: expect.any(String), details: null }],
    ['function', { outcome: 'failed' }, { code: 'handler_error', message: expect.stringContaining('a function'), details: null }],
    ['nothing', { outcome: 'completed' }, null],
    ['exit', { outcome: 'failed' }, { code: 'handler_error', message: 'The handler ended its thread with exit code 3.', details: null }],
    ['uncaught', { outcome: 'failed' }, { code: 'handler_error', message: 'nobody caught this', details: null }],
    ['memory', { outcome: 'failed' }, { code: 'handler_error', message: 'The thread ran out of its 64 MiB of memory.', details: null }],
  ])('that ends with %s ends as it would in process, or with its thread alone', async (how, outcome, error) => {
    const engine = await start({ most: 1 })
    const id = await engine.add(types.end, { how })
    expect(await ended(engine, 1)).toMatchObject(outcome)
    expect(await errorOf(engine, id)).toEqual(error)
    // The slot is there for the next one.
    await engine.add(types.whoami)
    expect(await ended(engine, 2)).toMatchObject({ outcome: 'completed' })
    expect(engine.threads.threadCount).toBeLessThanOrEqual(1)
  })
})

test('the stack of a handler in a thread reaches the event `task.threw`, and no client sees it', async () => {
  const engine = await start()
  const id = await engine.add(types.end, { how: 'error' })
  await ended(engine, 1)
  expect(engine.threw).toEqual([
    { taskId: id, type: 'thread.end', try: 1, stack: expect.stringMatching(/^RangeError: out of range\n.*threadtasks/s) },
  ])
  const stored = JSON.stringify(await findTask(engine.store, id))
  expect(stored).toContain('out of range')
  expect(stored).not.toContain('threadtasks')
})

describe('the signal of a thread', () => {
  test('reaches a loop that never awaits but asks, and what it returns after a cancel is its result', async () => {
    const engine = await start()
    const id = await engine.add(types.ask)
    await running(engine, id)
    await engine.store.tasks.cancel({ id, clientId: null })
    expect(await ended(engine, 1)).toMatchObject({ outcome: 'completed' })
    expect((await findTask(engine.store, id)).result).toBe('"the client asked to cancel"')
  })

  test('ends a handler that waits; thrown after a cancel, the task is canceled', async () => {
    const engine = await start()
    const id = await engine.add(types.wait)
    await running(engine, id)
    await engine.store.tasks.cancel({ id, clientId: null })
    expect(await ended(engine, 1)).toMatchObject({ outcome: 'canceled' })
  })

  test('that a loop does not hear kills it: at a timeout after a second, when canceled after ten; and its slot returns', async () => {
    const engine = await start({ most: 1 })
    const late = await engine.add(types.spin, {}, 2)
    const next = await engine.add(types.whoami)
    await running(engine, late)
    await engine.pass(30_000)
    expect(engine.runs).toEqual([])
    await engine.pass(1_000)
    await until(() => engine.runs.length === 1)
    expect(engine.runs[0]).toMatchObject({ outcome: 'pending', errorCode: 'timeout', task: { id: late } })
    expect(await ended(engine, 2)).toMatchObject({ outcome: 'completed', task: { id: next } })
    await engine.pass(10_000)
    await running(engine, late)
    await engine.store.tasks.cancel({ id: late, clientId: null })
    await engine.pass(CANCEL_GRACE_MS - 1, 1_000)
    expect(engine.runs).toHaveLength(2)
    await engine.pass(1)
    expect(await ended(engine, 3)).toMatchObject({ outcome: 'canceled', task: { id: late } })
  })

  test('fires at a shutdown, which gives back what does not end and leaves no thread', async () => {
    const engine = await start({ most: 2 })
    const spinning = await engine.add(types.spin)
    const waiting = await engine.add(types.wait)
    await running(engine, spinning)
    await running(engine, waiting)
    const stopping = engine.pump.stop(0)
    await until(async () => {
      await engine.pass(100)
      return engine.runs.length === 2
    })
    await stopping
    for (const id of [spinning, waiting]) expect(await findTask(engine.store, id)).toMatchObject({ state: 'pending', tries: 0 })
    await engine.threads.close()
    expect(engine.threads.threadCount).toBe(0)
  })
})

describe('the pool', () => {
  test('loses a thread, and nothing else, that breaks down after its run', async () => {
    const engine = await start({ most: 1 })
    await engine.add(types.end, { how: 'later' })
    expect(await ended(engine, 1)).toMatchObject({ outcome: 'completed' })
    await until(() => engine.errors.length === 1)
    expect(engine.errors[0]).toMatchObject({ message: 'left behind' })
    await engine.add(types.whoami)
    expect(await ended(engine, 2)).toMatchObject({ outcome: 'completed' })
  })

  test('has no more threads than it may, and tasks beyond them wait unclaimed', async () => {
    const engine = await start({ most: 1 })
    const first = await engine.add(types.wait)
    const second = await engine.add(types.whoami)
    await running(engine, first)
    expect(await findTask(engine.store, second)).toMatchObject({ state: 'pending', tries: 0 })
    expect(engine.threads.threadCount).toBe(1)
    await engine.store.tasks.cancel({ id: first, clientId: null })
    expect(await ended(engine, 2)).toMatchObject({ outcome: 'completed', task: { id: second } })
  })

  test('lets idle threads end', async () => {
    const threads = await openThreadPool({
      types: all,
      maxThreads: 2,
      memoryMb: 64,
      clock: systemClock(),
      events: createEventSink(),
      idleMs: 20,
    })
    opened.push(threads)
    await until(() => threads.threadCount === 0)
  })
})

describe('a platform with types that run in threads', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ringback-threads-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  const open = (tasks: readonly TaskType[]) => {
    const { url, remove } = freshSqlite()
    onTestFinished(remove)
    return createRingback({
      tasks,
      databaseUrl: url,
      adminToken: 'the-operator-of-this-test',
      logLevel: 'silent',
      threads: 1,
      leaseSeconds: 2,
      shutdownSeconds: 0,
    })
  }
  /** A module of its own for a thread to load. */
  const moduleOf = (name: string, source: string): string => {
    const path = join(folder, name)
    writeFileSync(path, source)
    return pathToFileURL(path).href
  }
  const src = (name: string) => JSON.stringify(new URL(`../../../src/${name}`, import.meta.url).href)

  test('answers, and renews the lease, while a handler computes', async () => {
    const ringback = await open([types.spin])
    await ringback.start()
    const call = async (method: string, path: string, token: string, body?: object) => {
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
      const response = await ringback.app.fetch(
        new Request(`http://ringback${path}`, { method, headers, ...(body && { body: JSON.stringify(body) }) }),
      )
      return JSON.parse(await response.text())
    }
    try {
      const client = await call('POST', '/v1/clients', 'the-operator-of-this-test', { name: 'threads' })
      const { key } = await call('POST', `/v1/clients/${client.id}/keys`, 'the-operator-of-this-test', {})
      const task = await call('POST', '/v1/tasks', key, { type: 'thread.spin', input: {} })
      const read = () => call('GET', `/v1/tasks/${task.id}`, key)
      await until(async () => (await read()).progress > 0)
      // Two leases long: a node that could not renew would lose the task, and start it again.
      const endAt = performance.now() + 4_000
      let answers = 0
      while (performance.now() < endAt) {
        expect(await read()).toMatchObject({ status: 'running', tries: 1 })
        answers++
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
      // A blocked loop would have answered nothing in all that time.
      expect(answers).toBeGreaterThan(10)
    } finally {
      await ringback.stop()
    }
  }, 120_000)

  test.each<[string, () => TaskType, string]>([
    [
      'names no module',
      () => defineTask({ type: 'a.b', where: 'thread', run: () => 1 }),
      'the task type "a.b" runs in a thread, which has to import it: add module: import.meta.url',
    ],
    [
      'names one that is not there',
      () => defineTask({ type: 'a.b', where: 'thread', module: 'file:///nowhere/at/all.ts', run: () => 1 }),
      'the module file:///nowhere/at/all.ts with the task types "a.b" cannot be loaded in a thread: ',
    ],
    [
      'is not exported',
      () => defineTask({ type: 'a.b', where: 'thread', module: moduleOf('empty.ts', 'export const nothing = null'), run: () => 1 }),
      'the task type "a.b" runs in a thread, but file://',
    ],
    [
      'is in a module that breaks',
      () =>
        defineTask({
          type: 'a.b',
          where: 'thread',
          module: moduleOf('breaks.ts', "throw new Error('no such file: prices.csv')"),
          run: () => 1,
        }),
      'cannot be loaded in a thread: no such file: prices.csv',
    ],
    [
      'is in a module that starts a platform',
      () =>
        defineTask({
          type: 'a.b',
          where: 'thread',
          module: moduleOf('starts.ts', `import { createRingback } from ${src('platform.ts')}\nawait createRingback({ tasks: [] })`),
          run: () => 1,
        }),
      'move the task types to a module of their own',
    ],
  ])('does not start when one %s, and says so', async (_, type, why) => {
    const error = await open([type()]).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(StartupError)
    expect((error as Error).message).toContain(why)
  })

  test('finds them in a list, a record or a configuration file', async () => {
    const types = ['a.list', 'a.record', 'a.file']
    const module = moduleOf(
      'many.ts',
      `import { defineTask } from ${src('tasks/define.ts')}
       const [list, record, file] = ${JSON.stringify(types)}.map((type) => defineTask({ type, where: 'thread', run: () => type }))
       export const all = [list]
       export const named = { record }
       export default { tasks: [file] }`,
    )
    const found = types.map((type) => defineTask({ type, where: 'thread', run: () => 1 }))
    const threads = await openThreadPool({
      types: found,
      defaultModule: module,
      maxThreads: 1,
      memoryMb: 64,
      clock: systemClock(),
      events: createEventSink(),
    })
    await threads.close()
    expect(threads.threadCount).toBe(0)
  })
})

test('a task type in a thread is defined with a URL', () => {
  expect(() => defineTask({ type: 'a.b', where: 'thread', module: './tasks.ts', run: () => 1 })).toThrow('must be import.meta.url')
  expect(() => defineTask({ type: 'a.b', module: import.meta.url, run: () => 1 })).toThrow('requires where: "thread"')
  expect(() => defineTask({ type: 'a.b', where: 'elsewhere' as 'thread', run: () => 1 })).toThrow(
    'it must be "thread", "worker" or left out',
  )
})
