/** The task side, on a real store: how runs end, and what they leave. */

import { describe, expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { RESULT_LIMIT_BYTES } from '../../src/core/lifecycle.ts'
import { createChores } from '../../src/engine/chores/chores.ts'
import { createReclaim } from '../../src/engine/chores/reclaim.ts'
import { createChoreRunner } from '../../src/engine/chores/runner.ts'
import { Interrupted } from '../../src/engine/pump.ts'
import { CANCEL_GRACE_MS } from '../../src/engine/run-try.ts'
import { defineTask, exponential, Permanent, Postpone, type RunContext, type TaskDefinition } from '../../src/tasks/define.ts'
import { createRegistry } from '../../src/tasks/registry.ts'
import { type Engine, LEASE_MS, startEngine, turns, until } from '../support/engine.ts'
import { printTrouble } from '../support/events.ts'
import { addClient, addEndpoint, addTask, addTasks, findTask } from '../support/work.ts'

const TYPE = 'report.build'
type Run = (input: unknown, context: RunContext) => unknown
const define = (run: Run, given: Partial<TaskDefinition<unknown, unknown>> = {}) => defineTask({ type: TYPE, ...given, run })

/** Runs until its signal fires, then ends as told; says when it has begun. */
function waiting(end: (reason: unknown) => unknown) {
  let begin: (context: RunContext) => void
  const begun = new Promise<RunContext>((resolve) => {
    begin = resolve
  })
  const run: Run = (_input, context) =>
    new Promise((resolve, reject) => {
      begin(context)
      context.signal.addEventListener('abort', () => {
        try {
          resolve(end(context.signal.reason))
        } catch (error) {
          reject(error)
        }
      })
    })
  return { run, begun }
}
const never: Run = () => new Promise(() => {})
const errorOf = async (engine: Engine, id: string) => JSON.parse((await findTask(engine.store, id)).error ?? 'null')
const add = async (engine: Engine, given: Partial<Parameters<typeof addTask>[1]> = {}): Promise<string> =>
  (await addTask(engine.store, { clientId: await addClient(engine.store), ...given })).id

/** It renews what the engine's node holds. Stopped when the test is over. */
function openChores({ store, clock, pump }: Engine) {
  const registry = createRegistry([])
  const reclaim = createReclaim({ store, clock, registry })
  const chores = createChores({
    store,
    clock,
    registry,
    reclaim,
    leaseMs: LEASE_MS,
    graceMs: 15_000,
    renew: () => pump.renew(),
    auditRetentionMs: 400 * 86_400_000,
    minRetentionMs: 86_400_000,
    endpointEventRetentionMs: 86_400_000,
    holdMs: 86_400_000,
  })
  const runner = createChoreRunner(chores, clock, printTrouble())
  onTestFinished(() => runner.stop())
  return { reclaim, start: runner.start, stop: runner.stop }
}

describe('a run', () => {
  test('is given its input and its task, and its result is the task’s', async () => {
    let seen: RunContext['task'] | undefined
    const engine = await startEngine([
      define((input, { task }) => {
        seen = task
        return { rows: (input as { n: number }).n * 2 }
      }),
    ])
    const id = await add(engine, { input: '{"n":21}', metadata: '{"order":"7"}', traceparent: '00-a-b-01', maxTries: 3 })
    await until(() => engine.runs.length === 1)
    expect(await findTask(engine.store, id)).toMatchObject({
      state: 'completed',
      result: '{"rows":42}',
      progress: 100,
      tries: 1,
      error: null,
    })
    expect(seen).toMatchObject({ id, type: TYPE, try: 1, maxTries: 3, generation: 1, metadata: { order: '7' }, traceparent: '00-a-b-01' })
    expect(engine.runs[0]).toMatchObject({ outcome: 'completed', errorCode: null })
  })

  test('that returns nothing has the result null', async () => {
    const engine = await startEngine([define(() => undefined)])
    const id = await add(engine)
    await until(() => engine.runs.length === 1)
    expect(await findTask(engine.store, id)).toMatchObject({ state: 'completed', result: 'null' })
  })

  test('that throws is tried again after its delay, and fails at its last try', async () => {
    const engine = await startEngine([
      define(
        (_input, { task }) => {
          throw new Error(`try ${task.try} broke`)
        },
        { retry: { tries: 3, delayMs: (spent) => spent * 1_000 } },
      ),
    ])
    const id = await add(engine, { maxTries: 3 })
    await until(() => engine.runs.length === 1)
    const waits = await findTask(engine.store, id)
    expect(waits).toMatchObject({ state: 'pending', tries: 1, dueAt: engine.clock.now() + 1_000 })
    expect(JSON.parse(waits.lastError!)).toEqual({
      code: 'handler_error',
      message: 'try 1 broke',
      try: 1,
      at: new Date(engine.clock.now()).toISOString(),
    })
    await engine.pass(999)
    expect(engine.runs).toHaveLength(1)
    await engine.pass(1)
    await until(() => engine.runs.length === 2)
    await engine.pass(2_000)
    await until(() => engine.runs.length === 3)
    expect(engine.runs.map(({ outcome }) => outcome)).toEqual(['pending', 'pending', 'failed'])
    expect(await errorOf(engine, id)).toEqual({ code: 'handler_error', message: 'try 3 broke', details: null })
  })

  test('that throws is reported with its stack and the id of the task, and the task shows the message alone', async () => {
    const engine = await startEngine([
      define(function buildReport() {
        throw new Error('it broke')
      }),
    ])
    const id = await add(engine, { maxTries: 1 })
    await until(() => engine.runs.length === 1)
    expect(engine.threw).toEqual([
      { taskId: id, type: 'report.build', try: 1, stack: expect.stringMatching(/^Error: it broke\n\s+at .*buildReport/) },
    ])
    const task = await findTask(engine.store, id)
    expect(await errorOf(engine, id)).toEqual({ code: 'handler_error', message: 'it broke', details: null })
    expect(JSON.stringify(task)).not.toContain('    at ')
  })

  test('that throws Permanent fails now, with its own code and details', async () => {
    const engine = await startEngine([
      define((input) => {
        const { code } = input as { code?: string }
        throw new Permanent('no such month', { ...(code ? { code } : {}), details: { month: 13 } })
      }),
    ])
    const own = await add(engine, { input: '{"code":"month.unknown"}' })
    const odd = await add(engine, { input: '{"code":"Not A Code!"}' })
    await until(() => engine.runs.length === 2)
    expect(await errorOf(engine, own)).toEqual({ code: 'month.unknown', message: 'no such month', details: { month: 13 } })
    expect(await errorOf(engine, odd)).toMatchObject({ code: 'handler_error', message: 'no such month' })
    expect(await findTask(engine.store, own)).toMatchObject({ state: 'failed', tries: 1 })
  })

  test('that throws Postpone waits without spending a try', async () => {
    let times = 0
    const engine = await startEngine([
      define(() => {
        if (++times <= 3) throw new Postpone(60)
        return times
      }),
    ])
    const id = await add(engine, { maxTries: 1 })
    for (let i = 1; i <= 3; i++) {
      await until(() => engine.runs.length === i)
      expect(await findTask(engine.store, id)).toMatchObject({ state: 'pending', tries: 0, lastError: null })
      await engine.pass(60_000)
    }
    await until(() => engine.runs.length === 4)
    expect(await findTask(engine.store, id)).toMatchObject({ state: 'completed', tries: 1, result: '4' })
  })

  test('whose input no longer fits fails as input_rejected, and says where', async () => {
    let runs = 0
    const engine = await startEngine([
      define(() => ++runs, { input: z.object({ month: z.string() }) as never, inputJsonSchema: { type: 'object' } }),
    ])
    const id = await add(engine, { input: '{"month":11}' })
    await until(() => engine.runs.length === 1)
    expect(await errorOf(engine, id)).toMatchObject({ code: 'input_rejected', details: [{ pointer: '#/input/month' }] })
    expect(runs).toBe(0)
  })

  test('whose result is over the limit fails as result_too_large, and one that is no JSON fails too', async () => {
    const results: Record<string, unknown> = {
      large: 'ä'.repeat(RESULT_LIMIT_BYTES / 2),
      fits: 'a'.repeat(RESULT_LIMIT_BYTES - 2),
      code: () => {},
    }
    const engine = await startEngine([define((input) => results[input as string])])
    const ids: Record<string, string> = {}
    for (const name of Object.keys(results)) ids[name] = await add(engine, { input: JSON.stringify(name) })
    await until(() => engine.runs.length === 3)
    expect(await errorOf(engine, ids.large!)).toMatchObject({ code: 'result_too_large' })
    expect(await errorOf(engine, ids.code!)).toMatchObject({ code: 'handler_error', message: expect.stringContaining('function') })
    expect(await findTask(engine.store, ids.fits!)).toMatchObject({ state: 'completed' })
  })

  test('that throws what is no error, or what cannot be stored, is judged all the same', async () => {
    const unreadable = Object.defineProperty(new Error(), 'message', {
      get() {
        throw new Error('not to be read')
      },
    })
    const odd = Object.assign(new Error(), { message: 404 })
    const thrown: unknown[] = [
      'text',
      undefined,
      new Error('a\0b\ud800'),
      new Error('x'.repeat(10_000)),
      Object.create(null),
      unreadable,
      odd,
    ]
    const engine = await startEngine([
      define((input) => {
        throw thrown[input as number]
      }),
    ])
    const ids: string[] = []
    for (const i of thrown.keys()) ids.push(await add(engine, { input: String(i), maxTries: 1 }))
    await until(() => engine.runs.length === thrown.length)
    const messages = await Promise.all(ids.map(async (id) => (await errorOf(engine, id)).message as string))
    expect(messages.slice(0, 3)).toEqual(['text', 'undefined', 'a\0b\ufffd'])
    expect(messages[3]!.length).toBeLessThanOrEqual(2_000)
    const untold = 'The handler threw a value that cannot be converted to text.'
    expect(messages.slice(4)).toEqual([untold, untold, '404'])
  })

  test('waits as its policy says, which may be an object with members of its own, and as the default says where the policy throws', async () => {
    class Steady {
      readonly tries = 2
      readonly pauseMs = 700
      delayMs(): number {
        return this.pauseMs
      }
    }
    const delayMs = (): never => {
      throw new Error('the policy broke')
    }
    for (const [retry, least, most] of [
      [new Steady(), 700, 700],
      [{ tries: 2, delayMs }, 1_000, 2_000],
    ] as const) {
      const engine = await startEngine([define(() => Promise.reject(new Error('it broke')), { retry })])
      const id = await add(engine, { maxTries: 2 })
      await until(() => engine.runs.length === 1)
      const { state, dueAt, lastError } = await findTask(engine.store, id)
      expect([state, JSON.parse(lastError!).message]).toEqual(['pending', 'it broke'])
      expect(dueAt - engine.clock.now()).toBeGreaterThanOrEqual(least)
      expect(dueAt - engine.clock.now()).toBeLessThanOrEqual(most)
    }
    for (const tries of [0, 1.5, 101, Number.NaN])
      expect(() => define(never, { retry: exponential({ tries }) })).toThrow(`tries ${tries}; it must be a whole number from 1 to 100`)
  })
})

describe('time', () => {
  test('a timeout is a failed try, whether or not the handler heeds its signal, and frees the slot', async () => {
    const heeding = waiting((reason) => {
      throw reason
    })
    const engine = await startEngine(
      [define((_input, context) => (context.task.try === 1 ? heeding.run(_input, context) : never(_input, context)))],
      {
        concurrency: 1,
      },
    )
    const id = await add(engine, { timeoutSeconds: 60, maxTries: 2 })
    await heeding.begun
    await engine.pass(59_999, 10_000)
    expect(engine.runs).toEqual([])
    await engine.pass(1)
    await until(() => engine.runs.length === 1)
    expect(JSON.parse((await findTask(engine.store, id)).lastError!)).toMatchObject({ code: 'timeout', try: 1 })
    expect(engine.pump.running).toBe(0)
    await engine.pass(2_000)
    await until(() => engine.pump.running === 1)
    await engine.pass(60_000, 10_000)
    await until(() => engine.runs.length === 2)
    expect(await errorOf(engine, id)).toMatchObject({ code: 'timeout' })
    expect(engine.pump.running).toBe(0)
  })

  test('a deadline ends the task, however many tries are left; the timeout of a try counts from its own start', async () => {
    const engine = await startEngine([define(never, { retry: { tries: 9, delayMs: () => 1_000 } })])
    const id = await add(engine, { timeoutSeconds: 60, maxTries: 9, deadlineAt: engine.clock.now() + 100_000 })
    await until(() => engine.pump.running === 1)
    await engine.pass(60_000, 10_000)
    await until(() => engine.runs.length === 1)
    expect((await findTask(engine.store, id)).state).toBe('pending')
    await engine.pass(1_000)
    await until(() => engine.pump.running === 1)
    await engine.pass(39_000, 3_000)
    await until(() => engine.runs.length === 2)
    expect(await errorOf(engine, id)).toMatchObject({ code: 'deadline_exceeded' })
    expect(await findTask(engine.store, id)).toMatchObject({ state: 'failed', tries: 2 })
  })

  test('startBy, timeoutSeconds and deadlineAt each run on their own clock', async () => {
    const engine = await startEngine([define(never, { retry: { tries: 9, delayMs: () => 1_000 } })], { concurrency: 1 })
    openChores(engine).start()
    const now = engine.clock.now()
    const all = { maxTries: 9, startBy: now + 20_000, timeoutSeconds: 50, deadlineAt: now + 120_000 }
    const runs = await add(engine, all)
    await until(() => engine.pump.running === 1)
    // No slot is left for these; the last may wait as long as it likes.
    const late = await add(engine, all)
    const ended = await add(engine, { ...all, startBy: null })
    const patient = await add(engine, { ...all, startBy: null, deadlineAt: null })
    const seen = async () => Promise.all([runs, late, ended, patient].map(async (id) => (await findTask(engine.store, id)).state))
    await engine.pass(19_000, 1_000)
    expect(await seen()).toEqual(['running', 'pending', 'pending', 'pending'])
    // Only who has not started is held to its start.
    await engine.pass(11_000, 1_000)
    expect(await seen()).toEqual(['running', 'failed', 'pending', 'pending'])
    expect(await errorOf(engine, late)).toMatchObject({ code: 'start_expired' })
    // The timeout counts from the start of the try, and costs that try alone.
    await engine.pass(20_000, 1_000)
    await until(() => engine.runs.length > 0)
    expect(engine.runs[0]).toMatchObject({ outcome: 'pending', errorCode: 'timeout', task: { id: runs } })
    // The deadline counts from nothing: whoever runs and whoever waits, however many tries are left.
    await engine.pass(80_000, 1_000)
    expect((await seen()).slice(0, 3)).toEqual(['failed', 'failed', 'failed'])
    for (const id of [runs, ended]) expect(await errorOf(engine, id)).toMatchObject({ code: 'deadline_exceeded' })
    expect(['pending', 'running']).toContain((await findTask(engine.store, patient)).state)
  })

  test('what began its first try in time is not held to startBy again, when that try was given back', async () => {
    const engine = await startEngine([define(() => Promise.reject(new Postpone(60)))])
    const id = await add(engine, { startBy: engine.clock.now() + 20_000 })
    await until(() => engine.runs.length === 1)
    expect(await findTask(engine.store, id)).toMatchObject({ state: 'pending', tries: 0 })
    await engine.pass(30_000, 5_000)
    expect(await engine.store.maintenance.endOverdue({ limit: 100, graceMs: 0 }), 'found by no sweep').toBe(0)
    await engine.pass(31_000, 1_000)
    await until(() => engine.runs.length === 2)
    expect(await findTask(engine.store, id), 'and by no claim').toMatchObject({ state: 'pending', tries: 0, error: null })
  })

  test('one sweep ends whatever is overdue, however much that is', async () => {
    const engine = await startEngine([define(never)], { concurrency: 1 })
    await add(engine)
    await until(() => engine.pump.running === 1)
    const clientId = await addClient(engine.store)
    await addTasks(engine.store, 1_200, { clientId, deadlineAt: engine.clock.now() + 1_000 })
    openChores(engine).start()
    await engine.pass(6_000)
    await until(async () => (await engine.store.tasks.countOpen(null, clientId)).n === 0)
  })

  test('a retry that could not start before the deadline is not waited for: the task fails now, with what the try failed of', async () => {
    const engine = await startEngine([
      define(
        () => {
          throw new Error('the printer is on fire')
        },
        { retry: { tries: 9, delayMs: () => 10_000 } },
      ),
    ])
    const deadlineAt = engine.clock.now() + 15_000
    const id = await add(engine, { maxTries: 9, deadlineAt })
    await until(() => engine.runs.length === 1)
    expect((await findTask(engine.store, id)).state, 'the first retry still has its time').toBe('pending')
    await engine.pass(10_000)
    await until(() => engine.runs.length === 2)
    expect(await findTask(engine.store, id)).toMatchObject({ state: 'failed', tries: 2 })
    expect(engine.clock.now()).toBeLessThan(deadlineAt)
    expect(await errorOf(engine, id)).toMatchObject({ code: 'handler_error', message: 'the printer is on fire' })
  })

  test('a delayed task starts when it is due and nothing asks before, be it a month', async () => {
    const engine = await startEngine([define(() => 'done')])
    const month = 31 * 86_400_000
    const id = await add(engine, { dueAt: engine.clock.now() + month })
    await engine.rest()
    await engine.pass(month - 1, month / 4)
    expect((await findTask(engine.store, id)).state).toBe('pending')
    await engine.pass(1)
    await until(() => engine.runs.length === 1)
    expect((await findTask(engine.store, id)).state).toBe('completed')
  })
})

describe('a cancel', () => {
  test('aborts the signal, and a handler that throws ends canceled', async () => {
    const { run, begun } = waiting((reason) => {
      throw reason
    })
    const engine = await startEngine([define(run)])
    const id = await add(engine)
    const { signal } = await begun
    await engine.store.tasks.cancel({ id, clientId: null })
    await until(() => engine.runs.length === 1)
    expect(signal.reason).toBeInstanceOf(Interrupted)
    expect((signal.reason as Interrupted).reason).toBe('canceled')
    expect(await findTask(engine.store, id)).toMatchObject({ state: 'canceled', error: null })
  })

  test('lets a handler finish that returns a result', async () => {
    const { run, begun } = waiting(() => 'saved')
    const engine = await startEngine([define(run)])
    const id = await add(engine)
    await begun
    await engine.store.tasks.cancel({ id, clientId: null })
    await until(() => engine.runs.length === 1)
    expect(await findTask(engine.store, id)).toMatchObject({ state: 'completed', result: '"saved"' })
  })

  test('ends a handler that ignores it after its grace', async () => {
    const engine = await startEngine([define(never)])
    const id = await add(engine)
    await until(() => engine.pump.running === 1)
    await engine.store.tasks.cancel({ id, clientId: null })
    await engine.rest()
    await engine.pass(CANCEL_GRACE_MS - 1)
    expect((await findTask(engine.store, id)).state).toBe('running')
    await engine.pass(1)
    await until(() => engine.runs.length === 1)
    expect((await findTask(engine.store, id)).state).toBe('canceled')
  })

  test('whose word was lost is made good by the next renewal', async () => {
    const { run, begun } = waiting((reason) => {
      throw reason
    })
    const engine = await startEngine([define(run)])
    const id = await add(engine)
    await begun
    engine.sql(`update tasks set cancel_requested_at = ${engine.clock.now()} where id = '${id}'`)
    await engine.pass(LEASE_MS / 3)
    await until(() => engine.runs.length === 1)
    expect((await findTask(engine.store, id)).state).toBe('canceled')
  })
})

describe('leases', () => {
  test('a long run keeps its lease', async () => {
    const { run, begun } = waiting(() => 'done')
    const engine = await startEngine([define(run)])
    await add(engine, { timeoutSeconds: 3_600 })
    await begun
    for (let i = 0; i < 12; i++) {
      await engine.pass(10_000)
      expect((await engine.store.maintenance.findExpired(10, null)).tasks).toEqual([])
    }
  })

  test('a lost lease aborts the run, whose end then changes nothing', async () => {
    const { run, begun } = waiting(() => 'too late')
    const engine = await startEngine([define(run)])
    const id = await add(engine)
    const { signal } = await begun
    engine.sql(`update tasks set fence = fence + 1, leased_by = 'boot_other' where id = '${id}'`)
    await engine.pass(LEASE_MS / 3)
    await until(() => engine.runs.length === 1)
    expect((signal.reason as Interrupted).reason).toBe('leaseLost')
    expect(engine.runs[0]!.outcome).toBe('stale')
    expect(await findTask(engine.store, id)).toMatchObject({ state: 'running', result: null, leasedBy: 'boot_other' })
  })

  test('what a dead node ran is rescued: tried again at once, and failed as worker_lost at its last try', async () => {
    const engine = await startEngine([defineTask({ type: 'other.type', run: () => null })])
    const again = await add(engine, { maxTries: 2 })
    const last = await add(engine, { maxTries: 1 })
    const types = [{ type: TYPE, concurrency: null }]
    await engine.store.tasks.claim({ limit: 10, leaseMs: LEASE_MS, leasedBy: 'boot_dead', types })
    const chores = openChores(engine)
    expect(await chores.reclaim(null), 'not while its lease lasts').toBe(0)
    expect(await chores.reclaim('boot_0'), 'but at once by the one that owns the store').toBe(2)
    expect(await findTask(engine.store, again)).toMatchObject({ state: 'pending', tries: 1, dueAt: engine.clock.now() })
    expect(JSON.parse((await findTask(engine.store, again)).lastError!)).toMatchObject({ code: 'worker_lost' })
    expect(await errorOf(engine, last)).toMatchObject({ code: 'worker_lost' })
    chores.start()
    await engine.store.tasks.claim({ limit: 10, leaseMs: LEASE_MS, leasedBy: 'boot_dead', types })
    await engine.pass(LEASE_MS * 1.5, 5_000)
    expect(await errorOf(engine, again), 'within one lease and one sweep').toMatchObject({ code: 'worker_lost' })
    chores.stop()
  })
})

describe('progress', () => {
  test('is told once a second, the last report among them though nothing follows it', async () => {
    let report: RunContext['progress']
    const { run, begun } = waiting(() => 'done')
    const engine = await startEngine([
      define((input, context) => {
        report = context.progress
        return run(input, context)
      }),
    ])
    const clientId = await addClient(engine.store)
    await addEndpoint(engine.store, { clientId, events: '["task.progress"]' })
    await add(engine, { clientId })
    await begun
    const told = async (): Promise<number[]> =>
      (await engine.store.events.list({ clientId, after: 0, limit: 100 })).map(({ body }) => JSON.parse(body).data.progress)
    for (let percent = 1; percent <= 25; percent++) {
      report!(percent)
      await engine.pass(100)
    }
    // At 0 s, 1 s and 2 s; then the last of them, a second after the one before.
    expect(await told()).toEqual([1, 11, 21])
    await engine.pass(600)
    expect(await told()).toEqual([1, 11, 21, 25])
    await engine.pass(5_000)
    expect(await told()).toHaveLength(4)
  })

  test('is not written twice where nobody follows it', async () => {
    let report: RunContext['progress']
    const { run, begun } = waiting(() => 'done')
    const engine = await startEngine([
      define((input, context) => {
        report = context.progress
        return run(input, context)
      }),
    ])
    const id = await add(engine)
    await begun
    const { revision } = await findTask(engine.store, id)
    report!(10)
    await engine.pass(100)
    report!(20)
    await engine.pass(5_000)
    expect(await findTask(engine.store, id)).toMatchObject({ progress: 20, revision: revision + 2 })
  })

  test('never falls, stays under 100 until the end, and is written at once and then at most every tenth of a second', async () => {
    let report: RunContext['progress']
    const { run, begun } = waiting(() => 'done')
    const engine = await startEngine([
      define((input, context) => {
        report = context.progress
        return run(input, context)
      }),
    ])
    const id = await add(engine)
    await begun
    const shown = async (): Promise<[number, string | null]> => {
      const { progress, progressMessage } = await findTask(engine.store, id)
      return [progress, progressMessage]
    }
    report!(40, 'page 3 of 7')
    await until(async () => (await shown())[0] === 40)
    const { revision } = await findTask(engine.store, id)
    report!(10, 'back')
    report!(50, 'a\0b\ud800')
    report!(Number.NaN)
    report!(-1)
    await engine.rest()
    expect(await shown()).toEqual([40, 'page 3 of 7'])
    await engine.pass(100)
    expect(await shown()).toEqual([50, 'a\ufffdb\ufffd'])
    expect((await findTask(engine.store, id)).revision, 'the last of them alone was written').toBe(revision + 1)
    await engine.pass(100)
    expect((await findTask(engine.store, id)).revision, 'nothing new, nothing written').toBe(revision + 1)
    report!(250, 'x'.repeat(1_000))
    await engine.rest()
    expect(await shown()).toEqual([99.9, 'x'.repeat(500)])
    await engine.store.tasks.cancel({ id, clientId: null })
    await until(() => engine.runs.length === 1)
    report!(99.95, 'after the end')
    await engine.pass(1_000)
    expect(await shown()).toEqual([100, 'x'.repeat(500)])
    expect(engine.errors).toEqual([])
  })

  test('starts anew with every try', async () => {
    const engine = await startEngine([
      define((_input, { task, progress }) => {
        if (task.try === 2) return never(_input, undefined as never)
        progress(80, 'nearly')
        throw new Error('broke')
      }),
    ])
    const id = await add(engine)
    await until(() => engine.runs.length === 1)
    await engine.pass(2_000)
    await until(() => engine.pump.running === 1)
    expect(await findTask(engine.store, id)).toMatchObject({ progress: 0, progressMessage: null })
  })
})

describe('a store that refuses for a while', () => {
  test('does not turn a success into a failure', async () => {
    let times = 0
    const engine = await startEngine([define(() => ++times)])
    engine.sql(
      `create trigger refuse before update on tasks when new.state in ('completed', 'failed') begin select raise(abort, 'refused by the test'); end`,
    )
    const id = await add(engine, { maxTries: 1 })
    await until(() => engine.errors.length === 1)
    for (const [i, wait] of [200, 400, 800, 1_600].entries()) {
      await engine.pass(wait)
      await until(() => engine.errors.length === i + 2)
    }
    expect(await findTask(engine.store, id)).toMatchObject({ state: 'running' })
    engine.sql('drop trigger refuse')
    await engine.pass(5_000)
    await until(() => engine.runs.length === 1)
    expect(await findTask(engine.store, id)).toMatchObject({ state: 'completed', result: '1' })
    expect(times).toBe(1)
  })

  test('is asked for work again, a second later', async () => {
    const engine = await startEngine([define(() => 'done')])
    engine.sql(`create trigger refuse before update on tasks begin select raise(abort, 'refused by the test'); end`)
    const clientId = await addClient(engine.store)
    await addTask(engine.store, { clientId, concurrencyKey: 'a' })
    await until(() => engine.errors.length > 0)
    engine.sql('drop trigger refuse')
    await engine.pass(1_000)
    await until(() => engine.runs.length === 1)
  })
})

describe('slots', () => {
  test('no more run than the node may, and every slot that frees is filled without waiting for a poll', async () => {
    let running = 0
    let most = 0
    const engine = await startEngine(
      [
        define(async () => {
          most = Math.max(most, ++running)
          await engine.rest()
          running--
        }),
      ],
      { concurrency: 2 },
    )
    for (let i = 0; i < 6; i++) await addTasks(engine.store, 2, { clientId: await addClient(engine.store) })
    await until(() => engine.runs.length === 12)
    expect(most).toBe(2)
  })

  test('the next task of a concurrency key, and of a type with a limit, starts as soon as the one before has ended', async () => {
    const engine = await startEngine([define(() => turns(2)), defineTask({ type: 'mail.send', concurrency: 1, run: () => turns(2) })])
    const clientId = await addClient(engine.store)
    await addTasks(engine.store, 4, { clientId, concurrencyKey: 'a' })
    await addTasks(engine.store, 4, { clientId, type: 'mail.send' })
    await until(() => engine.runs.length === 8)
  })

  test('two nodes share the work and the limits', async () => {
    let running = 0
    let most = 0
    const limited = defineTask({
      type: TYPE,
      concurrency: 3,
      async run() {
        most = Math.max(most, ++running)
        await turns(2)
        running--
      },
    })
    const engine = await startEngine([limited], { concurrency: 5 })
    engine.another([limited], 5).start()
    await addTasks(engine.store, 20, { clientId: await addClient(engine.store) })
    await until(() => engine.runs.length === 20)
    expect(most).toBe(3)
    expect(new Set(engine.runs.map(({ task }) => task.id)).size).toBe(20)
  })
})

describe('a drain', () => {
  test('lets what runs finish within the grace and claims nothing more', async () => {
    let finish = (): void => {}
    const engine = await startEngine([define(() => new Promise<void>((resolve) => (finish = resolve)))], { concurrency: 1 })
    const clientId = await addClient(engine.store)
    await addTasks(engine.store, 2, { clientId })
    await until(() => engine.pump.running === 1)
    const stopped = engine.pump.stop(25_000)
    await engine.pass(10_000)
    finish()
    await stopped
    expect(engine.runs.map(({ outcome }) => outcome)).toEqual(['completed'])
    expect((await engine.store.tasks.list({ clientId, order: 'asc', limit: 10, after: null, states: ['pending'] })).items).toHaveLength(1)
    await engine.pass(60_000)
    expect(engine.runs).toHaveLength(1)
  })

  test.each([
    ['heeds its signal', true],
    ['ignores its signal', false],
  ])('gives a try back that %s after the grace', async (_name, heeds) => {
    const { run, begun } = waiting((reason) => {
      if (heeds) throw reason
      return new Promise(() => {})
    })
    const engine = await startEngine([define(run)])
    const id = await add(engine)
    const { signal } = await begun
    const stopped = engine.pump.stop(25_000)
    await engine.pass(24_999, 5_000)
    expect(signal.aborted).toBe(false)
    await engine.pass(1)
    await engine.pass(1_000)
    await stopped
    expect((signal.reason as Interrupted).reason).toBe('shutdown')
    expect(await findTask(engine.store, id)).toMatchObject({ state: 'pending', tries: 0, leasedBy: null, dueAt: expect.any(Number) })
    expect((await findTask(engine.store, id)).dueAt).toBeLessThanOrEqual(engine.clock.now())
  })

  test('ends although the store is down, and leaves the rest to the lease', async () => {
    const engine = await startEngine([define(never)])
    const id = await add(engine)
    await until(() => engine.pump.running === 1)
    engine.sql(`create trigger refuse before update on tasks begin select raise(abort, 'refused by the test'); end`)
    let ended = false
    void engine.pump.stop(1_000).then(() => {
      ended = true
    })
    await engine.pass(8_000, 500)
    expect(ended).toBe(true)
    engine.sql('drop trigger refuse')
    expect((await findTask(engine.store, id)).state).toBe('running')
  })

  test('in a loop leaks no timers and no tasks', async () => {
    const type = define(() => turns(1), { retry: exponential() })
    const engine = await startEngine([type])
    const clientId = await addClient(engine.store)
    await engine.pump.stop(0)
    const armed = engine.clock.armed
    for (let i = 1; i <= 20; i++) {
      const pump = engine.another([type])
      pump.start()
      await addTask(engine.store, { clientId })
      await until(() => engine.runs.length === i)
      await Promise.all([pump.stop(1_000), pump.stop(1_000)])
      expect(engine.clock.armed).toBe(armed)
      expect(pump.running).toBe(0)
    }
  })
})
