/** The depth limit: new tasks are refused over it, and taken in again below it. */
import { expect, test } from 'vitest'
import { createOpenTaskCheck } from '../../src/http/limits/open-tasks.ts'
import { turns } from '../support/engine.ts'
import { manualClock } from '../support/manual-clock.ts'
import { openPlatform } from '../support/platform.ts'

test('over the limit a submission is refused with 503 and Retry-After, and accepted once there is budget', async () => {
  const platform = await openPlatform({ maxOpenTasks: 3 })
  const submit = () => platform.call('POST', '/v1/tasks', { type: 'echo', input: 1, delaySeconds: 3600 })
  const tasks = [await submit(), await submit(), await submit()]
  await platform.pass(1_000)
  // The count that this begins is over before the next.
  await submit().catch(() => {})
  await platform.pass(1_000)
  await expect(submit()).rejects.toThrow('503')
  await expect(platform.call('POST', '/v1/tasks/batch', { tasks: [{ type: 'echo', input: 1 }] })).rejects.toThrow('503')
  for (const { id } of tasks) await platform.call('POST', `/v1/tasks/${id}/cancel`)
  await platform.pass(1_000)
  await submit().catch(() => {})
  await platform.pass(100)
  expect((await submit()).status).toBe('pending')
})

test('over its own limit a client is refused with 429, and accepted once some of its tasks have ended; others are unaffected', async () => {
  const platform = await openPlatform({ maxOpenTasksPerClient: 2 })
  const body = { type: 'echo', input: 1, delaySeconds: 3600 }
  const submit = () => platform.call('POST', '/v1/tasks', body)
  const tasks = [await submit(), await submit()]
  for (let i = 0; i < 3; i++) {
    await platform.pass(1_000)
    await submit().catch(() => {})
  }
  await platform.pass(100)
  await expect(submit()).rejects.toThrow(/429.*You have 2 open tasks/)
  const other = await platform.newClient()
  expect((await other('POST', '/v1/tasks', body)).status).toBe('pending')
  const { data } = await platform.call('GET', '/v1/tasks?status=pending')
  for (const { id } of [...tasks, ...data]) await platform.call('POST', `/v1/tasks/${id}/cancel`)
  await platform.pass(1_000)
  await submit().catch(() => {})
  await platform.pass(100)
  expect((await submit()).status).toBe('pending')
})

test('over its own limit a client cannot retry or replay, one by one or by filter, but can cancel by filter', async () => {
  const platform = await openPlatform({ maxOpenTasksPerClient: 2 })
  const body = { type: 'echo', input: 1, delaySeconds: 3600 }
  const submit = () => platform.call('POST', '/v1/tasks', body)
  const { id } = await submit()
  await platform.call('POST', `/v1/tasks/${id}/cancel`)
  for (let i = 0; i < 5; i++) {
    await platform.pass(1_000)
    await submit().catch(() => {})
  }
  await platform.pass(100)
  await expect(submit()).rejects.toThrow(/429.*You have 2 open tasks/)
  for (const path of [`/v1/tasks/${id}/retry`, '/v1/tasks/retry', '/v1/deliveries/replay'])
    await expect(platform.call('POST', path, path.endsWith(`${id}/retry`) ? undefined : {}), path).rejects.toThrow(
      /429.*You have 2 open tasks/,
    )
  expect((await platform.call('POST', '/v1/tasks/cancel', {})).type).toBe('system.cancel')
})

test('a client is counted alone only when all clients together exceed its limit', async () => {
  const clock = manualClock(0)
  const open: Record<string, number> = { all: 50, client_a: 30, client_b: 20 }
  const asked: string[] = []
  const store = {
    tasks: {
      async countOpen(_after: unknown, clientId: string | null) {
        asked.push(clientId ?? 'all')
        return { n: open[clientId ?? 'all']!, next: null }
      },
    },
  }
  const check = createOpenTaskCheck({ store, clock, maxOpenTasks: 1_000, maxPerClient: { openTasks: 60 } })
  const submit = async (clientId: string) => {
    clock.advance(1_000)
    check(clientId, 1, clock.now())
    await turns(3)
  }
  for (let i = 0; i < 3; i++) await submit('client_a')
  expect(asked).toEqual(['all', 'all', 'all'])
  open.all = 90
  open.client_a = 70
  for (let i = 0; i < 2; i++) await submit('client_b')
  asked.length = 0
  await submit('client_a')
  expect(asked).toContain('client_a')
  expect(asked).not.toContain('client_b')
  expect(() => check('client_a', 1, clock.now())).toThrow('You have 60 open tasks')
  expect(() => check('client_b', 1, clock.now())).not.toThrow()
})

/** A store with that many open tasks, which it gives 10 at a time. */
function counting(open: () => number) {
  let asked = 0
  return {
    asked: () => asked,
    store: {
      tasks: {
        async countOpen(after: { rank: number } | null) {
          asked++
          const seen = after?.rank ?? 0
          const rest = open() - seen
          return rest > 10 ? { n: 10, next: { laneId: '', line: 0, id: '', rank: seen + 10 } } : { n: rest, next: null }
        },
      },
    },
  }
}

test('no request waits for the count, and it is made less often the farther the limit is', async () => {
  const clock = manualClock(0)
  const { store, asked } = counting(() => 5)
  const check = createOpenTaskCheck({ store, clock, maxOpenTasks: 2_000_000, maxPerClient: { openTasks: 1_000_000_000 } })
  const submitFor = async (seconds: number) => {
    for (let i = 0; i < seconds * 10; i++) {
      check('client_a', 1, clock.now())
      clock.advance(100)
      await turns(2)
    }
  }
  await submitFor(39)
  expect(asked(), 'fifty a millisecond do not fill it sooner').toBe(1)
  await submitFor(80)
  expect(asked()).toBe(3)
})

test('near the limit it is counted every second, in pages with pauses between them', async () => {
  const clock = manualClock(0)
  let open = 100
  const { store, asked } = counting(() => open)
  const check = createOpenTaskCheck({ store, clock, maxOpenTasks: 90, maxPerClient: { openTasks: 1_000 } })
  check('client_a', 1, clock.now())
  await turns(5)
  expect(asked(), 'one portion, then a pause').toBe(1)
  for (let i = 0; i < 12; i++) {
    clock.advance(10)
    await turns(2)
  }
  expect(asked()).toBe(10)
  expect(() => check('client_a', 1, clock.now())).toThrow('90 tasks are open')
  open = 20
  clock.advance(1_000)
  expect(() => check('client_a', 1, clock.now()), 'not known yet').toThrow('90 tasks are open')
  for (let i = 0; i < 3; i++) {
    await turns(2)
    clock.advance(10)
  }
  expect(() => check('client_a', 1, clock.now())).not.toThrow()
  expect(() => check('client_a', 71, clock.now()), 'a batch counts whole').toThrow('90 tasks are open')
})
