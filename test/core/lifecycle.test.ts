/** The life of leased work: the table of transitions, in TypeScript and in SQL, and the one judge of how a try ended. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import {
  backoffFromSchedule,
  decideOutcome,
  evaluateResponse,
  parseRetryAfter,
  type TransitionName,
  type TryResult,
  transitions,
} from '../../src/core/lifecycle.ts'
import { type AttemptOutcome, isTerminal, type State, type TryOutcome, terminalStates } from '../../src/core/model.ts'
import type { Store } from '../../src/store/interfaces.ts'
import { exponential } from '../../src/tasks/define.ts'
import { engines, type Ground, openGround } from '../support/stores.ts'
import { addClient, addEndpoint, addTask, claim, claimOne, claimTasks, completed, findTask, undelivered } from '../support/work.ts'

const states: readonly State[] = ['pending', 'running', ...terminalStates]
const verbs = Object.keys(transitions) as TransitionName[]
const next = (verb: TransitionName, from: State): State | undefined => (transitions[verb] as Partial<Record<State, State>>)[from]
const everyStateAndVerb = states.flatMap((from) => verbs.map((verb) => [verb, from, next(verb, from)] as const))

const failure = { code: 'handler_error', message: 'it broke', details: null }
const outcomes = {
  complete: { kind: 'complete', result: '1' },
  retry: { kind: 'retry', delayMs: 0, error: null },
  release: { kind: 'release', delayMs: 0 },
  fail: { kind: 'fail', error: failure },
  cancel: { kind: 'cancel' },
} as const satisfies Record<TryOutcome['kind'], TryOutcome>

describe('the table of transitions', () => {
  test('running is left only by operations of the table, each of which is an outcome', () => {
    const leaving = verbs.filter((verb) => next(verb, 'running') !== undefined && verb !== 'requestCancel')
    expect(leaving.sort()).toEqual(Object.keys(outcomes).sort())
  })

  test('every final state is reached from running; nothing leaves completed; only redo leaves the others', () => {
    for (const end of terminalStates) expect(verbs.some((verb) => next(verb, 'running') === end)).toBe(true)
    const leaving = verbs.filter((verb) => terminalStates.some((end) => next(verb, end) !== undefined))
    expect(leaving).toEqual(['redo'])
    expect(next('redo', 'completed')).toBeUndefined()
    expect(states.filter(isTerminal)).toEqual([...terminalStates])
  })
})

describe.each(engines)('the table of transitions in %s', (engine) => {
  let ground: Ground
  let store: Store
  beforeAll(async () => {
    ground = await openGround(engine)
    store = ground.store
  })
  afterEach(() => ground.clear())
  afterAll(() => ground.close())

  const put = (table: 'tasks' | 'deliveries', id: string, state: State): Promise<unknown> =>
    ground.sql(`update ${table} set state = '${state}', fence = 7, tries = ${state === 'pending' ? 0 : 1},
      leased_until = ${state === 'running' ? 9_000_000_000_000 : 'null'} where id = '${id}'`)

  /** Each verb by all the doors that lead to it. */
  const carryOut: Record<TransitionName, (id: string) => Promise<unknown>> = {
    claim: () => claimTasks(store),
    complete: (id) => store.tasks.settle({ id, fence: 7, outcome: outcomes.complete }),
    retry: (id) => store.tasks.settle({ id, fence: 7, outcome: outcomes.retry }),
    release: (id) => store.tasks.settle({ id, fence: 7, outcome: outcomes.release }),
    async fail(id) {
      await store.tasks.settle({ id, fence: 7, outcome: outcomes.fail })
      await ground.sql(`update tasks set deadline_at = 1 where id = '${id}'`)
      await store.maintenance.endOverdue({ limit: 10, graceMs: 0 })
    },
    requestCancel: (id) => store.tasks.cancel({ id, clientId: null }),
    async cancel(id) {
      await store.tasks.cancel({ id, clientId: null })
      await store.tasks.settle({ id, fence: 7, outcome: outcomes.cancel })
    },
    redo: (id) => store.tasks.redo({ id, clientId: null }),
  }

  test.each(everyStateAndVerb)('a task: %s from %s leads to %s', async (verb, from, to) => {
    const { id } = await addTask(store, { clientId: await addClient(store) })
    await put('tasks', id, from)
    const before = await findTask(store, id)
    await carryOut[verb](id)
    const { deadlineAt: _, ...task } = await findTask(store, id)
    const { deadlineAt: __, ...unchanged } = before
    if (to === undefined && !(verb === 'requestCancel' && from === 'pending')) return expect(task).toEqual(unchanged)
    // A request to cancel what does not run yet cancels it.
    expect(task.state).toBe(to ?? 'canceled')
    expect(task.revision).toBeGreaterThan(before.revision)
    expect(task.fence - 7).toBe(verb === 'claim' || task.state === 'canceled' || (verb === 'fail' && from === 'pending') ? 1 : 0)
    expect(task.cancelRequestedAt !== null).toBe(from === 'running' && (verb === 'requestCancel' || verb === 'cancel'))
  })

  test.each([Number.NaN, Number.POSITIVE_INFINITY, 1e300, 0.5, -1])(
    'a delay of %s that a handler or policy gives can be stored and shown',
    async (delayMs) => {
      const clock = { now: () => 1_000_000, random: () => 0.5 }
      const error = { code: 'handler_error', message: 'it broke', details: null }
      for (const ended of [
        { kind: 'postponed', delayMs },
        { kind: 'threw', error },
      ] as const) {
        const { id } = await addTask(store, { clientId: await addClient(store) })
        const task = (await claimTasks(store)).find((each) => each.id === id)!
        const outcome = decideOutcome(task, ended, () => delayMs, clock)
        expect(await store.tasks.settle({ id, fence: task.fence, outcome })).toMatchObject({ kind: 'settled', value: { state: 'pending' } })
        const { dueAt } = await findTask(store, id)
        expect(Number.isInteger(dueAt)).toBe(true)
        expect(() => new Date(dueAt).toISOString()).not.toThrow()
      }
    },
  )

  const ofDeliveries = ['claim', 'complete', 'retry', 'release', 'fail', 'cancel'] as const
  test.each(everyStateAndVerb.filter(([verb, from]) => ofDeliveries.includes(verb as never) && !(from === 'pending' && verb !== 'claim')))(
    'a delivery: %s from %s leads to %s',
    async (verb, from, to) => {
      const clientId = await addClient(store)
      await addEndpoint(store, { clientId })
      await addTask(store, { clientId })
      await store.tasks.settle(completed(await claimOne(store)))
      const [owed] = (await store.deliveries.list({ clientId, limit: 1, after: null })).items
      await put('deliveries', owed!.id, from)
      const before = await store.deliveries.find(owed!.id, null)
      const { endpoint } = undelivered(owed!)
      if (verb === 'claim') await store.deliveries.claim(claim())
      else
        await store.deliveries.settle({ id: owed!.id, fence: 7, outcome: outcomes[verb as keyof typeof outcomes], attempt: null, endpoint })
      const delivery = (await store.deliveries.find(owed!.id, null))!
      if (to === undefined) expect(delivery).toEqual(before)
      else expect(delivery).toMatchObject({ state: to, tries: verb === 'release' ? 0 : 1, fence: verb === 'claim' ? 8 : 7 })
    },
  )
})

describe('the decision after a try', () => {
  const clock = { now: () => 1_000_000, random: () => 0.5 }
  const second = () => 1_000
  const judge = (ended: TryResult, work: { tries?: number; maxTries?: number; deadlineAt?: number | null } = {}): TryOutcome =>
    decideOutcome({ tries: 1, maxTries: 3, ...work }, ended, second, clock)

  test.each<[string, TryResult, TryOutcome]>([
    ['a result completes', { kind: 'returned', result: '1' }, { kind: 'complete', result: '1' }],
    ['a postponement gives the try back and waits', { kind: 'postponed', delayMs: 7 }, { kind: 'release', delayMs: 7 }],
    ['a cut by the shutdown gives the try back at once', { kind: 'interrupted' }, { kind: 'release', delayMs: 0 }],
    ['a cancel cancels', { kind: 'canceled' }, { kind: 'cancel' }],
    [
      'a permanent failure fails, whatever tries are left',
      { kind: 'threw', error: failure, permanent: true },
      { kind: 'fail', error: failure },
    ],
    [
      'a failure is tried again, and says what went wrong in which try',
      { kind: 'threw', error: failure },
      { kind: 'retry', delayMs: 1_000, error: { code: 'handler_error', message: 'it broke', try: 1, at: '1970-01-01T00:16:40.000Z' } },
    ],
  ])('%s', (_sentence, ended, outcome) => {
    expect(judge(ended)).toEqual(outcome)
  })

  test('fails after the last try, not before', () => {
    const threw = { kind: 'threw', error: failure } as const
    expect(judge(threw, { tries: 2, maxTries: 3 }).kind).toBe('retry')
    expect(judge(threw, { tries: 3, maxTries: 3 })).toEqual({ kind: 'fail', error: failure })
    expect(judge(threw, { tries: 4, maxTries: 3 }).kind).toBe('fail')
  })

  test('a retry that could not start before the deadline fails now', () => {
    const threw = { kind: 'threw', error: failure } as const
    expect(judge(threw, { deadlineAt: 1_001_000 })).toEqual({ kind: 'fail', error: failure })
    expect(judge(threw, { deadlineAt: 1_001_001 }).kind).toBe('retry')
    expect(judge(threw, { deadlineAt: null }).kind).toBe('retry')
  })

  test('waits at least as long as the receiver asks, and never shorter than the delay', () => {
    const asked = (notBeforeMs: number) => judge({ kind: 'threw', error: failure, notBeforeMs })
    expect(asked(5_000)).toMatchObject({ delayMs: 5_000 })
    expect(asked(5)).toMatchObject({ delayMs: 1_000 })
  })
})

describe('delays', () => {
  test('a schedule has one delay before each retry, repeats the last one, and adds up to 20 % jitter', () => {
    const delays = backoffFromSchedule([5, 30, 120])
    expect([1, 2, 3, 4, 9].map((tries) => delays(tries, 0))).toEqual([5_000, 30_000, 120_000, 120_000, 120_000])
    expect(delays(1, 0.999999)).toBeLessThanOrEqual(6_000)
    expect(delays(1, 0.999999)).toBeGreaterThan(5_990)
    expect(backoffFromSchedule([])(1, 0.5)).toBe(0)
  })

  test('tasks wait 2, 8, 32, 128 s, jittered to 50–100 %, at most an hour', () => {
    const { tries, delayMs } = exponential()
    expect(tries).toBe(5)
    expect([1, 2, 3, 4].map((spent) => delayMs(spent, 1))).toEqual([2_000, 8_000, 32_000, 128_000])
    expect([1, 2, 3, 4].map((spent) => delayMs(spent, 0))).toEqual([1_000, 4_000, 16_000, 64_000])
    expect(delayMs(50, 1)).toBe(3_600_000)
  })
})

describe('Retry-After', () => {
  const now = Date.UTC(2026, 10, 22, 10, 0, 0)
  const day = 86_400_000
  test.each<[string | undefined, number | null]>([
    ['120', 120_000],
    [' 120 ', 120_000],
    ['86400', day],
    ['86401', day],
    ['9999999999', day],
    ['9'.repeat(400), day],
    ['Sun, 22 Nov 2026 10:00:30 GMT', 30_000],
    ['Sunday, 22-Nov-26 10:00:30 GMT', 30_000],
    ['Sun Nov 22 10:00:30 2026', 30_000],
    ['Fri, 31 Dec 9999 23:59:59 GMT', day],
    ['Sun, 22 Nov 2026 09:59:59 GMT', null],
    ['Sun, 22 Nov 2026 10:00:00 GMT', null],
    ['Thu, 01 Jan 1970 00:00:00 GMT', null],
    ['0', null],
    ['-5', null],
    ['+5', null],
    ['1.5', null],
    ['1e3', null],
    ['0x10', null],
    ['soon', null],
    ['Sun, 99 Foo 2026 10:00:30 GMT', null],
    ['2026-11-22T10:00:30Z', null],
    ['120, 240', null],
    ['', null],
    [undefined, null],
  ])('%j asks to wait %s ms', (value, ms) => {
    expect(parseRetryAfter(value, now)).toBe(ms)
  })

  test('a date without a zone is read as GMT in every time zone', () => {
    const zone = process.env.TZ
    try {
      process.env.TZ = 'America/New_York'
      expect(parseRetryAfter('Sun Nov 22 10:00:30 2026', now)).toBe(30_000)
    } finally {
      if (zone === undefined) delete process.env.TZ
      else process.env.TZ = zone
    }
  })
})

describe('a response', () => {
  const hour = 3_600_000
  const judged = (outcome: AttemptOutcome, httpStatus: number | null, retryAfterMs: number | null = null) =>
    evaluateResponse({ outcome, httpStatus, error: null }, retryAfterMs)

  test('a 2xx is delivered and shows that the endpoint works', () => {
    for (const status of [200, 201, 202, 204, 299])
      expect(judged('success', status)).toEqual({
        tryResult: { kind: 'returned', result: null },
        signal: 'success',
        succeeded: true,
        disable: null,
        holdMs: null,
      })
  })

  test('410 is final and disables the endpoint', () => {
    const error = { code: 'http_error', message: 'HTTP status 410', details: null }
    expect(judged('http_error', 410, hour)).toEqual({
      tryResult: { kind: 'threw', error, permanent: true },
      signal: 'failure',
      succeeded: false,
      disable: 'gone',
      holdMs: null,
    })
  })

  test('a redirect is a failed attempt, tried again and never followed', () => {
    expect(judged('redirect', 302, hour)).toEqual({
      tryResult: { kind: 'threw', error: { code: 'redirect', message: 'HTTP status 302', details: null } },
      signal: 'neutral',
      succeeded: null,
      disable: null,
      holdMs: null,
    })
  })

  test('429 with Retry-After: the delivery and its whole lane wait as long as asked, and the endpoint does not count as failing', () => {
    expect(judged('http_error', 429, 24 * hour)).toMatchObject({
      tryResult: { kind: 'threw', notBeforeMs: 24 * hour },
      signal: 'neutral',
      succeeded: null,
      disable: null,
      holdMs: 24 * hour,
    })
    expect(judged('http_error', 429)).toMatchObject({ tryResult: { notBeforeMs: null }, signal: 'neutral', succeeded: null, holdMs: null })
  })

  test('503 with Retry-After: the delivery waits as long as asked, its lane an hour at most', () => {
    expect(judged('http_error', 503, 5 * hour)).toMatchObject({
      tryResult: { notBeforeMs: 5 * hour },
      signal: 'neutral',
      succeeded: false,
      holdMs: hour,
    })
    expect(judged('http_error', 503, 1_000)).toMatchObject({ tryResult: { notBeforeMs: 1_000 }, succeeded: false, holdMs: 1_000 })
    expect(judged('http_error', 503)).toMatchObject({ signal: 'failure', succeeded: false, holdMs: null })
    expect(judged('http_error', 503).tryResult).not.toHaveProperty('notBeforeMs')
  })

  test.each([400, 401, 403, 404, 408, 409, 422, 425, 500, 501, 502, 504, 599])(
    '%i is tried again on schedule, and Retry-After does not count',
    (status) => {
      expect(judged('http_error', status, hour)).toEqual({
        tryResult: { kind: 'threw', error: { code: 'http_error', message: `HTTP status ${status}`, details: null } },
        signal: 'failure',
        succeeded: false,
        disable: null,
        holdMs: null,
      })
    },
  )

  test.each(['timeout', 'dns', 'tls', 'connect', 'blocked'] as const)('%s is tried again on schedule, under its own name', (outcome) => {
    const verdict = evaluateResponse({ outcome, httpStatus: null, error: 'what happened' }, null)
    expect(verdict).toMatchObject({
      tryResult: { kind: 'threw', error: { code: outcome, message: 'what happened' } },
      signal: outcome === 'timeout' || outcome === 'blocked' ? outcome : 'failure',
      succeeded: false,
      disable: null,
      holdMs: null,
    })
    expect(verdict.tryResult).not.toHaveProperty('permanent', true)
  })

  test('an attempt aborted by the shutdown gives its try back and does not affect the endpoint', () => {
    expect(judged('aborted', null)).toEqual({
      tryResult: { kind: 'interrupted' },
      signal: null,
      succeeded: null,
      disable: null,
      holdMs: null,
    })
  })
})
