/** Sharing on real servers: limits under kill -9, a walk by filter that is killed, and one task behind a hundred thousand of another client. */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { proveSound, seededRandom } from '../support/load.ts'
import { databases, eventually, type Home, newClient, ok, openHome, type Server } from '../support/server.ts'

const SETTINGS = { RINGBACK_LEASE_SECONDS: '2', RINGBACK_PUBLIC_URL: 'https://tasks.example.com' }

const closing: { close(): Promise<void> }[] = []
afterEach(async () => {
  await Promise.all(closing.splice(0).map((it) => it.close()))
})

const count = async (home: Home, text: string): Promise<number> => Number((await home.query<{ n: number | string }>(text))[0]!.n)
const series = (name: string, n: number) =>
  name === 'PostgreSQL'
    ? `generate_series(1, ${n}) s(n)`
    : `(with recursive s(n) as (select 1 union all select n + 1 from s where n < ${n}) select n from s) s`
const COLUMNS =
  'client_id, lane_id, state, line, rank, due_at, tries, max_tries, fence, type, generation, revision, input, progress, metadata, priority, created_at, updated_at, timeout_seconds'
/** As many more tasks like this one, made behind the server's back. */
const copy = (home: Home, name: string, id: string, n: number) =>
  home.query(
    `insert into tasks (id, ${COLUMNS}) select 'task_copy' || (10000000 + s.n), ${COLUMNS} from tasks, ${series(name, n)} where id = '${id}'`,
  )

describe.each(databases)('on %s', (name) => {
  test('limits of a type, a key and a node hold through kill -9, and no slot is lost', { timeout: 300_000 }, async () => {
    const { seed, random } = seededRandom()
    console.log(`${name}: RINGBACK_TEST_SEED=${seed}`)
    const home = await openHome(name)
    closing.push(home)
    const settings = { ...SETTINGS, RINGBACK_CONCURRENCY: '8' }
    const servers: Server[] = await Promise.all(Array.from({ length: name === 'SQLite' ? 1 : 2 }, () => home.start(settings)))
    const { call } = await newClient(await servers[0]!.listening)
    for (let i = 0; i < 6; i++) {
      const some = (body: object) => Array.from({ length: 15 }, () => ({ maxTries: 100, callback: null, ...body }))
      await ok(call('POST', '/v1/tasks/batch', { tasks: some({ type: 'work.scarce', input: { ms: 200 } }) }))
      await ok(call('POST', '/v1/tasks/batch', { tasks: some({ type: 'work.nap', input: { ms: 200 }, concurrencyKey: `key ${i % 2}` }) }))
    }
    let most = 0
    let done = false
    const watch = async (): Promise<void> => {
      while (!done) {
        const rows = await home.query<{ what: string; n: number | string }>(
          `select type || coalesce(concurrency_key, '') as what, count(*) as n from tasks where state = 'running' group by 1
            union all select leased_by, count(*) from tasks where state = 'running' group by 1`,
        )
        for (const { what, n } of rows) {
          expect(Number(n), what).toBeLessThanOrEqual(what === 'work.scarce' ? 3 : what.startsWith('work.nap') ? 1 : 8)
          if (what === 'work.scarce') most = Math.max(most, Number(n))
        }
        await sleep(5)
      }
    }
    const watching = watch()
    const open = () => count(home, `select count(*) as n from tasks where state <> 'completed'`)
    let kills = 0
    try {
      while ((await open()) > 0) {
        await sleep(200 + random() * 600)
        if (kills === 12) continue
        const place = Math.floor(random() * servers.length)
        servers[place]!.kill('SIGKILL')
        await servers[place]!.ended
        servers[place] = await home.start(settings)
        kills++
      }
    } finally {
      done = true
      await watching
    }
    console.log(`${name}: ${kills} kills, at most ${most} of 3 at once`)
    expect(kills).toBeGreaterThan(2)
    expect(most).toBe(3)
    expect(await count(home, 'select count(*) as n from events where terminal = 1')).toBe(180)
    await proveSound(home)
  })

  test('canceling by filter goes on where kill -9 stopped it: every task ends once, and none is left', { timeout: 300_000 }, async () => {
    const TASKS = 20_000
    const home = await openHome(name)
    closing.push(home)
    let server = await home.start(SETTINGS)
    const { call: first, key } = await newClient(await server.listening)
    const { id } = (await ok(first('POST', '/v1/tasks', { type: 'work.nap', input: { ms: 1 }, delaySeconds: 86_400 }))).json
    await copy(home, name, id, TASKS - 1)
    await sleep(5)
    const walk = (await ok(first('POST', '/v1/tasks/cancel', { type: 'work.nap' }))).json
    const canceled = () => count(home, `select count(*) as n from tasks where state = 'canceled'`)
    let kills = 0
    // On a busy machine it may be done before the last of them.
    for (let seen = 0; kills < 3 && seen < TASKS; kills++) {
      seen = await eventually(
        'some more pages',
        async () => {
          const now = await canceled()
          return now > seen && now
        },
        { everyMs: 1, withinMs: 60_000 },
      )
      server.kill('SIGKILL')
      await server.ended
      server = await home.start(SETTINGS)
    }
    const base = await server.listening
    const read = async () =>
      (await (await fetch(`${base}/v1/tasks/${walk.id}`, { headers: { authorization: `Bearer ${key}` } })).json()) as {
        status: string
        result: unknown
        tries: number
      }
    const ended = await eventually(
      'its end',
      async () => {
        const task = await read()
        return task.status === 'completed' && task
      },
      { withinMs: 120_000 },
    )
    console.log(`${name}: ${kills} kills, ${ended.tries} tries`)
    expect(ended.result).toEqual({ canceled: TASKS, requested: 0 })
    expect(await canceled()).toBe(TASKS)
    expect(await count(home, `select count(*) as n from events where terminal = 1 and type = 'task.canceled'`)).toBe(TASKS)
    expect(await count(home, `select count(*) as n from tasks where type = 'work.nap' and revision <> 2`)).toBe(0)
  })

  test('one client has 100,000 tasks queued: another’s one task waits no more than a round', { timeout: 300_000 }, async () => {
    const [SLOTS, MS] = [10, 50]
    const home = await openHome(name)
    closing.push(home)
    const server = await home.start({ ...SETTINGS, RINGBACK_CONCURRENCY: String(SLOTS) })
    const base = await server.listening
    const busy = await newClient(base)
    const other = await newClient(base)
    const input = { ms: MS }
    const waitOf = async (): Promise<number> => {
      const task = (await ok(other.call('POST', '/v1/tasks?wait=60', { type: 'work.nap', input }))).json
      return Date.parse(task.startedAt) - Date.parse(task.createdAt)
    }
    const several = async (): Promise<number[]> => {
      const waits: number[] = []
      for (let i = 0; i < 15; i++) waits.push(await waitOf())
      return waits.sort((a, b) => a - b)
    }
    await several()
    const alone = await several()
    const { id } = (await ok(busy.call('POST', '/v1/tasks', { type: 'work.nap', input, delaySeconds: 86_400 }))).json
    await home.query(`update tasks set line = 0, rank = created_at, due_at = created_at where id = '${id}'`)
    await copy(home, name, id, 100_000 - 1)
    // The turn that its lane would have.
    await home.query(
      `insert into turns (queue, client_id, lane_id, turn) select 'task/' || type, client_id, lane_id, rank from tasks where id = '${id}'`,
    )
    await ok(busy.call('POST', '/v1/tasks', { type: 'work.nap', input }))
    await eventually('a full node', async () => (await count(home, `select count(*) as n from tasks where state = 'running'`)) >= SLOTS)
    const behind = await several()
    const [before, after] = [alone, behind].map((waits) => `median ${waits[7]} ms, worst ${waits[14]} ms`)
    console.log(`${name}: the wait of the one alone: ${before}; behind 100,000 of another: ${after}; a round is ${MS} ms of ${SLOTS} slots`)
    expect(behind[7], 'half of them within a round').toBeLessThanOrEqual(alone[7]! + MS + 50)
    expect(await count(home, `select count(*) as n from tasks where state = 'pending'`)).toBeGreaterThan(50_000)
  })
})
