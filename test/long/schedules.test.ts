/** Schedules on real servers that are killed, and a server that sleeps: every tick once, and no try too many. */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { seededRandom } from '../support/load.ts'
import { databases, eventually, type Home, newClient, ok, openHome, type Server } from '../support/server.ts'

const KILLS = Number(process.env.RINGBACK_TEST_TICK_KILLS ?? 15)
const SETTINGS = { RINGBACK_LEASE_SECONDS: '2', RINGBACK_PUBLIC_URL: 'https://tasks.example.com' }

const closing: Home[] = []
afterEach(async () => {
  await Promise.all(closing.splice(0).map((it) => it.close()))
})
async function opened(name: (typeof databases)[number]): Promise<Home> {
  const home = await openHome(name)
  closing.push(home)
  return home
}

describe.each(databases)('on %s', (name) => {
  test(`${KILLS} times kill -9 makes no tick twice and loses none`, { timeout: 300_000 }, async () => {
    const { seed, random } = seededRandom()
    console.log(`${name}: RINGBACK_TEST_SEED=${seed}`)
    const home = await opened(name)
    const servers: Server[] = [await home.start(SETTINGS)]
    if (name === 'PostgreSQL') servers.push(await home.start(SETTINGS))
    const { call } = await newClient(await servers[0]!.listening)
    const made = Array.from({ length: 20 }, async () => {
      const body = { cron: '* * * * * *', catchUp: 'all', type: 'work.instant', input: null, callback: null }
      return (await ok(call('POST', '/v1/schedules', body))).json
    })
    const schedules = (await Promise.all(made)) as { id: string; nextAt: string }[]

    for (let kill = 0; kill < KILLS; kill++) {
      const place = Math.floor(random() * servers.length)
      await sleep(random() * 2_000)
      servers[place]!.kill('SIGKILL')
      await servers[place]!.ended
      servers[place] = await home.start(SETTINGS)
    }
    const until = Date.now()
    const madeBy = async (id: string) =>
      (await home.query<{ due_at: number | string; fence: number }>(
        `select due_at, fence from tasks where schedule_id = '${id}' order by due_at`,
      )) as readonly { due_at: number | string; fence: number }[]
    for (const { id, nextAt } of schedules) {
      const { ticks, again } = await eventually('caught up', async () => {
        const rows = await madeBy(id)
        const due = (isAgain: boolean) => rows.filter(({ fence }) => fence > 1 === isAgain).map((row) => Number(row.due_at))
        return (due(false).at(-1) ?? 0) >= until && { ticks: due(false), again: due(true) }
      })
      const first = Date.parse(nextAt)
      const expected = Array.from({ length: (ticks.at(-1)! - first) / 1_000 + 1 }, (_, n) => first + n * 1_000)
      expect(new Set(ticks).size).toBe(ticks.length)
      expect(ticks.filter((tick) => !expected.includes(tick))).toEqual([])
      // What ran when its server was killed was due anew from then on: those are the ticks that seem to be missing.
      const missing = expected.filter((tick) => !ticks.includes(tick))
      expect(again).toHaveLength(missing.length)
      for (const [i, tick] of missing.entries()) expect(again[i]).toBeGreaterThanOrEqual(tick)
    }
    // And what was made is run, as any other task is.
    await eventually('all that was due has run', async () => {
      const [row] = await home.query<{ n: number | string }>(
        `select count(*) as n from tasks where due_at < ${until} and state <> 'completed'`,
      )
      return Number(row!.n) === 0
    })
  })

  test('a server that was stopped for 31 s, longer than its lease, and has the store for itself keeps its task when it wakes', async () => {
    const home = await opened(name)
    const server = await home.start({ ...SETTINGS, RINGBACK_LEASE_SECONDS: '30' })
    const { call } = await newClient(await server.listening)
    // Its handler returns while it is stopped, by the clock; the settlement is the first thing it does.
    const { id } = (await ok(call('POST', '/v1/tasks', { type: 'work.deaf', input: { ms: 20_000 } }))).json
    await eventually('running', () => home.runs().length === 1)
    server.kill('SIGSTOP')
    await sleep(31_000)
    server.kill('SIGCONT')
    const task = (await ok(call('GET', `/v1/tasks/${id}?wait=30`))).json
    expect(task).toMatchObject({ status: 'completed', tries: 1, result: { by: server.pid, run: '1.1' } })
    expect(home.runs()).toHaveLength(1)
  })
})

test('a server that was stopped for 31 s, longer than its lease, is refused when it wakes: another has run its task', async () => {
  const home = await opened('PostgreSQL')
  const settings = { ...SETTINGS, RINGBACK_LEASE_SECONDS: '30' }
  const server = await home.start(settings)
  const { call } = await newClient(await server.listening)
  const { id } = (await ok(call('POST', '/v1/tasks', { type: 'work.deaf', input: { ms: 5_000 } }))).json
  await eventually('running', () => home.runs().length === 1)
  server.kill('SIGSTOP')
  const stopped = Date.now()
  const other = await home.start(settings)
  const others = await newClient(await other.listening)
  await eventually('taken over', () => home.runs().length === 2, { withinMs: 60_000 })
  await sleep(Math.max(0, stopped + 31_000 - Date.now()))
  server.kill('SIGCONT')
  await eventually('the stale run ended', () => server.lines('task.run').length === 1, { withinMs: 30_000 })
  expect(server.lines('task.run')[0]).toMatchObject({ outcome: 'stale', try: 1 })
  const task = (await ok(call('GET', `/v1/tasks/${id}?wait=30`))).json
  expect(task).toMatchObject({ status: 'completed', tries: 2, result: { by: other.pid, run: '1.2' } })
  expect(await home.query('select task_id from events where terminal = 1')).toHaveLength(1)
  expect((await ok(others.call('GET', '/v1/tasks'))).json.data).toEqual([])
})
