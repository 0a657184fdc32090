/** SIGTERM under load: nothing that ended is lost or repeated, nothing that ran is lost, and a try that was cut is not spent. */
import { afterEach, describe, expect, test } from 'vitest'
import { openCable } from '../support/cable.ts'
import { drained, proveNothingLost, proveSound, seededRandom, startLoad } from '../support/load.ts'
import { openReceiver } from '../support/receiver.ts'
import { calling, databases, eventually, type Home, newClient, ok, openHome, type Server } from '../support/server.ts'

const GRACE_SECONDS = 2
const SETTINGS = {
  RINGBACK_LEASE_SECONDS: '2',
  RINGBACK_SHUTDOWN_SECONDS: `${GRACE_SECONDS}`,
  RINGBACK_PUBLIC_URL: 'https://tasks.example.com',
}
/** Beyond the grace: the last word of a handler, the last settlements, the closing of doors; and a busy machine. */
const AFTER_GRACE_MS = 13_000

const closing: { close(): Promise<void> }[] = []
afterEach(async () => {
  await Promise.all(closing.splice(0).map((it) => it.close()))
})

const opened = async (name: (typeof databases)[number]) => {
  const home = await openHome(name)
  const receiver = await openReceiver()
  closing.push(home, receiver)
  const server = await home.start(SETTINGS)
  const { key, call } = await newClient(await server.listening)
  return { home, receiver, server, key, call }
}

interface TaskRow {
  readonly id: string
  readonly state: string
  readonly tries: number
  readonly fence: number
  readonly generation: number
}
const tasksOf = (home: Home) => home.query<TaskRow>('select id, state, tries, fence, generation from tasks order by id')
const runsOf = (home: Home, tasks: readonly TaskRow[]) => {
  const ids = new Set(tasks.map(({ id }) => id))
  return home.runs().filter(({ taskId }) => ids.has(taskId))
}

/** SIGTERM, and how long it took to end. */
async function terminate(server: Server) {
  const begun = performance.now()
  server.kill('SIGTERM')
  return { ...(await server.ended), ms: performance.now() - begun }
}

describe.each(databases)('on %s', (name) => {
  test('SIGTERM under load loses and repeats nothing that had ended', async () => {
    const { home, receiver, server, key, call } = await opened(name)
    await ok(call('POST', '/v1/endpoints', { url: `${receiver.url}/steady`, maxInFlight: 100 }))
    receiver.answer({ status: 200, afterMs: 20 })
    const { seed, random } = seededRandom()
    console.log(`${name}: RINGBACK_TEST_SEED=${seed}`)

    let current = server
    let base: string | null = await server.listening
    const load = startLoad({ bases: () => (base === null ? [] : [base]), key, random, submitters: 8, pauseMs: 20 })
    for (let stop = 1; stop <= 4; stop++) {
      const before = load.acknowledged.size
      await eventually('more load', () => load.acknowledged.size > before + 50, { withinMs: 60_000 })
      const ended = await terminate(current)
      base = null
      expect(ended).toMatchObject({ code: 0, signal: null })
      expect(ended.ms).toBeLessThan(GRACE_SECONDS * 1_000 + AFTER_GRACE_MS)
      // Nothing is held by who has gone.
      const left = await tasksOf(home)
      expect(left.filter(({ state }) => state === 'running')).toEqual([])
      const sent = await home.query<{ event_id: string; state: string }>('select event_id, state from deliveries')
      expect(sent.filter(({ state }) => state === 'running')).toEqual([])
      const done = left.filter(({ state }) => state !== 'pending')
      const runs = runsOf(home, done)
      const arrived = receiver.arrivals.length

      current = await home.start(SETTINGS)
      base = await current.listening
      await eventually('the rest going on', () => receiver.arrivals.length > arrived + 20, { withinMs: 60_000 })
      const delivered = new Set(sent.flatMap(({ event_id, state }) => (state === 'completed' ? [event_id] : [])))
      expect(receiver.arrivals.slice(arrived).filter(({ id }) => delivered.has(id))).toEqual([])
      // Clients may try a task again that had failed: that is another generation.
      const now = new Map((await tasksOf(home)).map((task) => [task.id, task]))
      const same = done.filter(({ id, generation }) => now.get(id)!.generation === generation)
      expect(same.map(({ id }) => now.get(id))).toEqual(same)
      expect(runsOf(home, same)).toEqual(runs.filter(({ taskId }) => same.some(({ id }) => id === taskId)))
    }
    await load.stop()
    await drained(home)
    const proof = await proveNothingLost(home, calling(base, key), load, receiver.arrivals, { givenBack: true })
    await proveSound(home)
    console.log(`${name}: 4 stops, ${load.repeats} requests repeated, ${JSON.stringify(proof)}`)
    expect(proof.duplicates).toBe(0)
  })

  test('what outlives the grace is given back without spending its try, and waiting calls are answered', async () => {
    const { home, receiver, server, call } = await opened(name)
    receiver.answer(() => ({ status: 200, afterMs: receiver.arrivals.length === 1 ? 10_000 : 0 }))
    await ok(call('POST', '/v1/endpoints', { url: receiver.url }))
    const sending = (await ok(call('POST', '/v1/tasks', { type: 'demo.echo', input: null }))).json.id
    await receiver.receives(1)
    const create = async (type: string, ms: number) => (await ok(call('POST', '/v1/tasks', { type, input: { ms } }))).json.id as string
    const short = await create('work.nap', 1_000)
    const heeding = await create('work.nap', 60_000)
    const deaf = await create('work.deaf', 60_000)
    await eventually('all of them running', () => new Set(home.runs().map((run) => run.taskId)).size === 3)
    const poll = call('GET', `/v1/tasks/${heeding}?wait=50`)
    const create50 = call('POST', '/v1/tasks', { type: 'work.nap', input: { ms: 60_000 } }, { prefer: 'wait=50' })
    const feed = call('GET', '/v1/events?types=task.failed&wait=50')
    await eventually('the last one running', () => home.runs().length === 4)

    const begun = performance.now()
    const ending = terminate(server)
    expect(await poll).toMatchObject({ status: 200, json: { id: heeding, status: 'running', tries: 1 } })
    const waited = await create50
    expect(waited.status).toBe(202)
    expect(await feed).toMatchObject({ status: 200, json: { data: [] } })
    // They are answered now, not when the grace is over.
    expect(performance.now() - begun).toBeLessThan(GRACE_SECONDS * 1_000)
    const ended = await ending
    expect(ended).toMatchObject({ code: 0, signal: null })
    expect(ended.ms).toBeGreaterThanOrEqual(GRACE_SECONDS * 1_000 - 50)
    expect(ended.ms).toBeLessThan(GRACE_SECONDS * 1_000 + AFTER_GRACE_MS)

    const rows = new Map((await tasksOf(home)).map((task) => [task.id, task]))
    expect(rows.get(short)).toMatchObject({ state: 'completed', tries: 1 })
    for (const id of [heeding, deaf, waited.json.id]) expect(rows.get(id)).toMatchObject({ state: 'pending', tries: 0, fence: 1 })

    const cut = `select state, tries from deliveries where task_id = '${sending}'`
    expect(await home.query(cut)).toEqual([{ state: 'pending', tries: 0 }])

    // The next server takes them up at once, as their first try.
    await home.start(SETTINGS)
    await eventually('all of them running again', () => home.runs().length === 7)
    expect(
      home
        .runs()
        .slice(4)
        .map((run) => run.try),
    ).toEqual([1, 1, 1])
    const again = (await receiver.receives(3)).filter(({ event }) => event.data.id === sending)
    expect(again.map(({ headers }) => headers['webhook-attempt'])).toEqual(['1', '1'])
    expect(new Set(again.map(({ id }) => id)).size).toBe(1)
  })

  test('SIGTERM while the store is down ends the process within the grace, and the next server finishes what ran', async () => {
    const home = await openHome(name)
    const receiver = await openReceiver()
    closing.push(home, receiver)
    const cable = name === 'PostgreSQL' ? await openCable(home.databaseUrl) : null
    if (cable) closing.push(cable)
    const server = await home.start({ ...SETTINGS, ...(cable && { RINGBACK_DATABASE_URL: cable.url }) })
    const { call, key } = await newClient(await server.listening)
    await ok(call('POST', '/v1/endpoints', { url: receiver.url }))
    const create = async (type: string, ms: number) => (await ok(call('POST', '/v1/tasks', { type, input: { ms } }))).json.id as string
    // One returns within the grace, one heeds its signal after it, one heeds nothing.
    const ids = [await create('work.nap', 1_500), await create('work.nap', 9_000), await create('work.deaf', 9_000)]
    await eventually('all of them running', () => home.runs().length === 3)
    if (cable) cable.cut()
    else await home.query(`create trigger down before update on tasks begin select raise(abort, 'the disk is gone'); end`)

    const ended = await terminate(server)
    expect(ended).toMatchObject({ code: 0, signal: null })
    expect(ended.ms).toBeLessThan(GRACE_SECONDS * 1_000 + AFTER_GRACE_MS)
    // It could say nothing, and said nothing wrong: they are as they were, until their leases end.
    const left = await tasksOf(home)
    for (const task of left) expect(task).toMatchObject({ state: 'running', tries: 1, fence: 1 })
    expect(await home.query('select id from events')).toEqual([])

    if (!cable) await home.query('drop trigger down')
    const next = await home.start(SETTINGS)
    const ask = calling(await next.listening, key, 90_000)
    for (const id of ids) {
      await eventually('its end', async () => (await ok(ask('GET', `/v1/tasks/${id}?wait=60`))).json.finishedAt !== null, {
        withinMs: 120_000,
      })
      expect((await ok(ask('GET', `/v1/tasks/${id}`))).json).toMatchObject({ status: 'completed', tries: 2, result: { by: next.pid } })
    }
    await drained(home)
    expect(receiver.arrivals.map(({ event }) => event.data.id).sort()).toEqual([...ids].sort())
    expect(home.runs()).toHaveLength(6)
  })

  test('a second signal ends the process at once, and the next server goes on', async () => {
    const { home, server, call, key } = await opened(name)
    const { id } = (await ok(call('POST', '/v1/tasks', { type: 'work.deaf', input: { ms: 3_000 } }))).json
    await eventually('the task running', () => home.runs().length === 1)
    server.kill('SIGTERM')
    await eventually('draining', () => server.lines('draining').length === 1)
    server.kill('SIGINT')
    expect(await server.ended).toEqual({ code: 130, signal: null })
    const next = await home.start(SETTINGS)
    expect((await ok(calling(await next.listening, key)('GET', `/v1/tasks/${id}?wait=30`))).json).toMatchObject({
      status: 'completed',
      tries: 2,
    })
  })
})

describe('on PostgreSQL', () => {
  test('a server that was stopped for longer than its lease is refused when it wakes: another has finished its tasks', async () => {
    const { home, receiver, server, key, call } = await opened('PostgreSQL')
    await ok(call('POST', '/v1/endpoints', { url: receiver.url, events: ['task.completed', 'task.progress'] }))
    const create = async (type: string, input: object) => (await ok(call('POST', '/v1/tasks', { type, input }))).json.id as string
    // The first returns when the stopped server wakes, the second goes on to report progress.
    const ids = [await create('work.deaf', { ms: 1_500 }), await create('work.steps', { count: 6, ms: 400 })]
    await eventually('both running', () => home.runs().length === 2)
    server.kill('SIGSTOP')

    const other = await home.start(SETTINGS)
    const ask = calling(await other.listening, key)
    const ended = await Promise.all(ids.map(async (id) => (await ok(ask('GET', `/v1/tasks/${id}?wait=60`))).json))
    for (const task of ended) expect(task).toMatchObject({ status: 'completed', tries: 2, result: { by: other.pid, run: '1.2' } })
    await drained(home)
    const arrivals = receiver.arrivals.length

    server.kill('SIGCONT')
    await eventually('the stale runs ending', () => server.lines('task.run').length === 2, { withinMs: 30_000 })
    for (const line of server.lines('task.run')) expect(line).toMatchObject({ outcome: 'stale', try: 1 })
    // Neither its settlements nor its reports have changed anything, and nobody is told anything.
    for (const task of ended)
      expect((await ok(ask('GET', `/v1/tasks/${task.id}`))).json).toEqual({ ...task, callback: { ...task.callback, status: 'delivered' } })
    expect(await home.query('select task_id from events where terminal = 1')).toHaveLength(2)
    expect(receiver.arrivals).toHaveLength(arrivals)
    expect(home.runs()).toHaveLength(4)

    // And it goes on to be of use.
    other.kill('SIGKILL')
    expect((await ok(call('POST', '/v1/tasks', { type: 'demo.echo', input: 1 }, { prefer: 'wait=30' }))).json).toMatchObject({
      status: 'completed',
    })
  })
})
