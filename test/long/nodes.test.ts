/** Two servers on one PostgreSQL, and the sudden death of one of them. */
import { afterEach, describe, expect, test } from 'vitest'
import { proveSound } from '../support/load.ts'
import { openReceiver } from '../support/receiver.ts'
import { calling, eventually, newClient, ok, openHome, type Server } from '../support/server.ts'

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
  const { call, key } = await newClient(await staying.listening)
  return { home, receiver, dying, staying, call, key }
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
    await proveSound(home, { idle: false })
  })

  test('one is stopped amid a transaction: within ten seconds or so its locks are gone, and the other ends everything meanwhile', async () => {
    const { home, dying, call } = await openTwo()
    const amid = async (): Promise<boolean> => {
      const [{ n } = { n: 0 }] = await home.query<{ n: string }>(
        "select count(*) as n from pg_stat_activity where datname = current_database() and state = 'idle in transaction' and state_change < now() - interval '20 milliseconds'",
      )
      return Number(n) > 0
    }
    await eventually('stopped amid a transaction', async () => {
      dying.kill('SIGCONT')
      await ok(call('POST', '/v1/tasks/batch', { tasks: Array.from({ length: 100 }, () => ({ type: 'demo.echo', input: null })) }))
      dying.kill('SIGSTOP')
      // The other ends its own within a few milliseconds.
      return eventually('only the stopped one is left', amid, { withinMs: 200 }).catch(() => false)
    })
    expect(await amid()).toBe(true)
    await eventually('its session has ended', async () => !(await amid()), { withinMs: 20_000 })
    await eventually(
      'everything has ended',
      async () => (await home.query("select id from tasks where state in ('pending', 'running') limit 1")).length === 0,
      { withinMs: 30_000, everyMs: 200 },
    )
    dying.kill('SIGCONT')
    await proveSound(home, { idle: false })
  })

  test('together they never send an endpoint more than maxInFlight at once, nor after one has died', async () => {
    const { home, receiver, dying, staying, call } = await openTwo()
    receiver.answer({ status: 200, afterMs: 40 })
    await ok(call('POST', '/v1/endpoints', { url: receiver.url, maxInFlight: 3, retrySchedule: Array(20).fill(0.1) }))
    let made = 0
    const submit = async () => {
      await ok(call('POST', '/v1/tasks/batch', { tasks: Array.from({ length: 100 }, () => ({ type: 'demo.echo', input: null })) }))
      made += 100
    }
    // Who gets how much of the work is nobody's promise: it goes on until both have had some.
    const hasSent = (server: Server) => server.lines('delivery.attempted').length > 0
    await eventually(
      'both sending',
      async () => {
        if (receiver.arrivals.length > made - 50) await submit()
        return hasSent(dying) && hasSent(staying)
      },
      { withinMs: 120_000 },
    )
    await submit()
    await receiver.receives(made - 80, { withinMs: 60_000 })
    dying.kill('SIGKILL')
    await eventually(
      'all delivered',
      async () => {
        const rows = await home.query<{ n: number }>(`select cast(count(*) as integer) as n from deliveries where state = 'completed'`)
        return rows[0]!.n === made
      },
      { withinMs: 60_000, everyMs: 100 },
    )
    expect(new Set(receiver.arrivals.map(({ id }) => id)).size).toBe(made)
    // It was used to the full, and never beyond.
    expect(receiver.load.most).toBe(3)
    await proveSound(home)
  })

  test('together they run one task at a time of one concurrencyKey, also after one has died', async () => {
    const { home, dying: one, staying: other, key } = await openTwo()
    const tasks = Array.from({ length: 40 }, () => ({ type: 'work.nap', input: { ms: 150 }, concurrencyKey: 'one' }))
    const { data } = (await ok(calling(await one.listening, key)('POST', '/v1/tasks/batch', { tasks }))).json
    const runner = await eventually('the tenth of them running', () => home.runs()[9])
    const [dying, staying] = runner.pid === one.pid ? [one, other] : [other, one]
    dying.kill('SIGKILL')
    const call = calling(await staying.listening, key, 90_000)
    const ended = []
    for (const { id } of data) {
      await eventually('its end', async () => (await ok(call('GET', `/v1/tasks/${id}?wait=60`))).json.finishedAt !== null, {
        withinMs: 120_000,
      })
      ended.push((await ok(call('GET', `/v1/tasks/${id}`))).json)
    }
    const spans = ended.map((it) => [Date.parse(it.startedAt), Date.parse(it.finishedAt)] as const).sort(([a], [b]) => a - b)
    for (const [i, [start]] of spans.entries()) if (i > 0) expect(start).toBeGreaterThanOrEqual(spans[i - 1]![1])
    expect(ended.filter(({ status }) => status !== 'completed')).toEqual([])
    expect(home.runs().length).toBeLessThanOrEqual(41)
    expect(home.runs().at(-1)!.pid).toBe(staying.pid)
    await proveSound(home)
  })
})
