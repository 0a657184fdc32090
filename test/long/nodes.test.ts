/** Two servers on one PostgreSQL, and the sudden death of one of them. */
import { afterEach, describe, expect, test } from 'vitest'
import { openReceiver } from '../support/receiver.ts'
import { eventually, newClient, ok, openHome } from '../support/server.ts'

const LEASE_MS = 2_000
/** A sweep comes every third of a lease, spread by a tenth. */
const SWEEP_MS = (LEASE_MS / 3) * 1.1
/** What a busy machine takes beyond. */
const SLACK_MS = 4_000
const SETTINGS = { RINGBACK_LEASE_SECONDS: String(LEASE_MS / 1_000), RINGBACK_PUBLIC_URL: 'https://tasks.example.com' }

const closing: { close(): Promise<void> }[] = []
afterEach(async () => {
  await Promise.all(closing.splice(0).map((it) => it.close()))
})

const openTwo = async (settings: Record<string, string> = {}) => {
  const home = await openHome('PostgreSQL')
  const receiver = await openReceiver()
  closing.push(home, receiver)
  const servers = await Promise.all([home.start({ ...SETTINGS, ...settings }), home.start({ ...SETTINGS, ...settings })])
  // The client talks to the second; it is the first that dies.
  const [dying, staying] = servers
  const { call } = await newClient(await staying.listening)
  return { home, receiver, dying, staying, call }
}

describe('of two servers on one PostgreSQL', () => {
  test('one dies: its tasks are back within one lease and one sweep, and none runs twice at a time', async () => {
    const { home, dying, staying, call } = await openTwo({ RINGBACK_CONCURRENCY: '20' })
    const tasks = Array.from({ length: 30 }, () => ({ type: 'work.nap', input: { ms: 4_000 } }))
    await ok(call('POST', '/v1/tasks/batch', { tasks }))
    await eventually('both running some', () => home.runs().length === 30, { withinMs: 30_000 })
    const lost = home.runs().filter((run) => run.pid === dying.pid)
    expect(lost.length).toBeGreaterThan(0)
    const killedAt = Date.now()
    dying.kill('SIGKILL')

    const back = await eventually('all of them back', () => {
      const again = home.runs().filter((run) => run.try === 2)
      return again.length === lost.length && again
    })
    expect(back.map((run) => run.taskId).sort()).toEqual(lost.map((run) => run.taskId).sort())
    expect(new Set(back.map((run) => run.pid))).toEqual(new Set([staying.pid]))
    for (const { taskId } of lost) {
      const task = (await ok(call('GET', `/v1/tasks/${taskId}`))).json
      const awayMs = Date.parse(task.startedAt) - killedAt
      expect(awayMs).toBeLessThan(LEASE_MS + SWEEP_MS + SLACK_MS)
      expect(task.lastError).toMatchObject({ code: 'worker_lost', try: 1 })
    }
    // Those of the server that stayed were left in peace.
    expect(home.runs()).toHaveLength(30 + lost.length)
  })

  test('together they never send an endpoint more than maxInFlight at once, nor after one has died', async () => {
    const { home, receiver, dying, staying, call } = await openTwo()
    receiver.answer({ status: 200, afterMs: 40 })
    await ok(call('POST', '/v1/endpoints', { url: receiver.url, maxInFlight: 3, retrySchedule: Array(20).fill(0.1) }))
    for (let batch = 0; batch < 3; batch++)
      await ok(call('POST', '/v1/tasks/batch', { tasks: Array.from({ length: 100 }, () => ({ type: 'demo.echo', input: batch })) }))
    await receiver.receives(150, { withinMs: 60_000 })
    dying.kill('SIGKILL')
    await dying.ended
    await eventually(
      'all delivered',
      async () => {
        const rows = await home.query<{ n: number }>(`select cast(count(*) as integer) as n from deliveries where state = 'completed'`)
        return rows[0]!.n === 300
      },
      { withinMs: 60_000, everyMs: 100 },
    )
    expect(new Set(receiver.arrivals.map(({ id }) => id)).size).toBe(300)
    // It was used to the full, and never beyond.
    expect(receiver.load.most).toBe(3)
    for (const server of [dying, staying]) expect(server.lines('delivery.attempted').length).toBeGreaterThan(0)
  })

  test('together they run one task at a time of one concurrencyKey, also after one has died', async () => {
    const { home, dying, staying, call } = await openTwo()
    const tasks = Array.from({ length: 40 }, () => ({ type: 'work.nap', input: { ms: 150 }, concurrencyKey: 'one' }))
    const { data } = (await ok(call('POST', '/v1/tasks/batch', { tasks }))).json
    await eventually('the dying one running one', () => home.runs().at(-1)?.pid === dying.pid, { withinMs: 30_000, everyMs: 5 })
    dying.kill('SIGKILL')
    const ended = []
    for (const { id } of data) {
      let task = (await ok(call('GET', `/v1/tasks/${id}?wait=60`))).json
      if (task.finishedAt === null) task = (await ok(call('GET', `/v1/tasks/${id}?wait=60`))).json
      ended.push(task)
    }
    const spans = ended.map((it) => [Date.parse(it.startedAt), Date.parse(it.finishedAt)] as const).sort(([a], [b]) => a - b)
    for (const [i, [start]] of spans.entries()) if (i > 0) expect(start).toBeGreaterThanOrEqual(spans[i - 1]![1])
    expect(ended.filter(({ status }) => status !== 'completed')).toEqual([])
    expect(home.runs().length).toBeLessThanOrEqual(41)
    expect(home.runs().at(-1)!.pid).toBe(staying.pid)
  })
})
