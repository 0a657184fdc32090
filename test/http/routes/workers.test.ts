/** Workers over HTTP: what they claim, keep and end, on both databases. */

import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { systemClock } from '../../../src/core/clock.ts'
import type { RunRecord } from '../../../src/core/lifecycle.ts'
import { createReclaim } from '../../../src/engine/chores/reclaim.ts'
import { defineTask, exponential } from '../../../src/tasks/define.ts'
import { createRegistry } from '../../../src/tasks/registry.ts'
import { fc } from '../../support/chance.ts'
import { eventsWith } from '../../support/events.ts'
import { engines, type Ground, openGround } from '../../support/stores.ts'
import { type Answer, anything, type Client, type Kit, openKit, report } from '../kit.ts'

const LEASE_MS = 30_000
const shot = defineTask({
  type: 'shot.take',
  where: 'worker',
  input: z.object({ url: z.string() }),
  result: z.looseObject({ width: z.number() }),
  timeoutSeconds: 100,
  retry: exponential({ tries: 3, baseSeconds: 10, factor: 1 }),
})
const free = defineTask({ type: 'free.form', where: 'worker', retry: { tries: 2, delayMs: () => 0 } })
const scarce = defineTask({ type: 'scarce.one', where: 'worker', concurrency: 1 })
const registry = createRegistry([report, anything, shot, free, scarce])
const SHOT = { type: 'shot.take', input: { url: 'https://example.com' } }
const FREE = { type: 'free.form', input: 1 }

describe.each(engines)('A worker, on %s,', (engine) => {
  let ground: Ground
  let kit: Kit
  let client: Client
  let worker: Client['call']
  let key: string
  const runs: RunRecord[] = []
  let now = 0
  const pass = async (ms: number): Promise<void> => {
    now += ms
    await ground.pass(ms)
  }
  beforeAll(async () => {
    ground = await openGround(engine)
  })
  beforeEach(async () => {
    runs.length = 0
    now = await ground.store.now()
    const clock = systemClock()
    // SQLite's clock is the node's, and here moved by hand.
    const node = engine === 'sqlite' ? { ...clock, now: () => now } : clock
    kit = await openKit({ store: ground.store, clock: node, registry, events: eventsWith({ 'task.run': (run) => runs.push(run) }) })
    client = await kit.newClient()
    key = (await kit.admin.call('POST', '/v1/operator-keys', { name: 'w', scopes: ['worker'] })).json.key
    worker = kit.as(key)
  })
  afterEach(async () => {
    await kit.close()
    await ground.clear()
  })
  afterAll(() => ground.close())

  const submit = async (body: object): Promise<string> => {
    const answer = await client.call('POST', '/v1/tasks', body)
    expect(answer.status, answer.text).toBe(202)
    return answer.json.id
  }
  const read = async (id: string) => (await client.call('GET', `/v1/tasks/${id}`)).json
  const claim = async (body: object = {}): Promise<Answer> =>
    worker('POST', '/v1/worker/claim', { types: ['free.form', 'shot.take'], ...body })
  const claimOne = async (body?: object) => {
    const { json } = await claim(body)
    expect(json.tasks).toHaveLength(1)
    return json.tasks[0]
  }
  type Leased = { id: string; lease: { token: string } }
  const say = (verb: string, { id, lease }: Leased, body: object = {}): Promise<Answer> =>
    worker('POST', `/v1/worker/tasks/${id}/${verb}`, { lease: lease.token, ...body })
  const BROKE = { error: { message: 'it broke' } }
  const reclaim = (bootId: string | null) => createReclaim({ store: ground.store, clock: kit.clock, registry })(bootId)
  /** What a late word may not change. */
  const unchanged = async (id: string, say: () => Promise<Answer>): Promise<void> => {
    const before = await read(id)
    const answer = await say()
    expect([answer.status, answer.json.code]).toEqual([409, 'lease_lost'])
    expect(await read(id)).toEqual(before)
  }

  test('is handed a task with its lease and everything about it, and completes it', async () => {
    const input = '{"url":"https://example.com","n":12345678901234567890.10}'
    const trace = { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' }
    const made = await client.call('POST', '/v1/tasks', `{"type":"shot.take","metadata":{"orderId":"A-17"},"input":${input}}`, trace)
    const answer = await claim()
    expect(answer.text, 'the input as it was sent').toContain(`"input":${input}`)
    const [task] = answer.json.tasks
    expect(task).toMatchObject({
      id: made.json.id,
      type: 'shot.take',
      clientId: client.id,
      try: 1,
      maxTries: 3,
      timeoutSeconds: 100,
      ...trace,
    })
    expect(task).toMatchObject({ metadata: { orderId: 'A-17' }, deadlineAt: null, fence: 1, generation: 1, lease: { seconds: 30 } })
    expect(await read(task.id)).toMatchObject({ status: 'running', tries: 1, progress: 0 })
    expect((await claim()).json).toEqual({ tasks: [] })
    expect((await say('complete', task, { result: { width: 800, exact: 0.1 } })).json).toEqual({ status: 'completed' })
    expect(await read(task.id)).toMatchObject({ status: 'completed', progress: 100, result: { width: 800, exact: 0.1 }, waitingFor: null })
    const events = (await client.call('GET', `/v1/tasks/${task.id}/events`)).json.data
    expect(events.map(({ type }: { type: string }) => type)).toEqual(['task.completed'])
  })

  test('claims what its key is for, of types that workers run', async () => {
    const refused = async (call: Client['call'], types: string[]) => {
      const { status, json } = await call('POST', '/v1/worker/claim', { types })
      return [status, json.code, json.errors?.[0]?.pointer]
    }
    expect(await refused(worker, ['free.form', 'no.such'])).toEqual([422, 'task_type_not_found', '#/types/1'])
    expect(await refused(worker, ['report.build'])).toEqual([422, 'validation_failed', '#/types/0'])
    expect(await refused(worker, [])).toEqual([422, 'validation_failed', '#/types'])
    for (const body of [{ limit: 0 }, { limit: 101 }, { waitSeconds: -1 }]) expect((await claim(body)).status).toBe(422)
    expect(await refused(client.call, ['free.form'])).toEqual([403, 'insufficient_scope', undefined])

    const made = await kit.admin.call('POST', '/v1/operator-keys', { name: 'b', scopes: ['worker'], taskTypes: ['shot.take', 'shot.take'] })
    expect(made.json.taskTypes).toEqual(['shot.take'])
    const listed = (await kit.admin.call('GET', '/v1/operator-keys')).json.data
    expect(listed.map(({ taskTypes }: { taskTypes: unknown }) => taskTypes)).toEqual([null, ['shot.take']])
    const bound = kit.as(made.json.key)
    for (const types of [['shot.take', 'free.form'], ['no.such']])
      expect((await refused(bound, types)).slice(0, 2)).toEqual([403, 'insufficient_scope'])
    await submit(FREE)
    const task = await claimOne()
    expect((await bound('POST', `/v1/worker/tasks/${task.id}/complete`, { lease: task.lease.token, result: 1 })).status).toBe(404)
    expect((await bound('POST', '/v1/worker/claim', { types: ['shot.take'] })).json).toEqual({ tasks: [] })
    expect((await kit.admin.call('DELETE', `/v1/operator-keys/${made.json.id}`)).status).toBe(204)
    expect((await bound('POST', '/v1/worker/claim', { types: ['shot.take'] })).status).toBe(401)
    const odd = await kit.admin.call('POST', '/v1/operator-keys', { name: 'o', scopes: ['admin', 'worker'], taskTypes: ['free.form'] })
    expect([odd.status, odd.json.errors[0].pointer]).toEqual([422, '#/taskTypes'])
  })

  test('must present the lease of that very task', async () => {
    await submit(FREE)
    await submit(FREE)
    const [one, two] = (await claim({ limit: 5 })).json.tasks
    for (const token of [
      two.lease.token,
      'x',
      one.lease.token.slice(0, -2) + (one.lease.token.endsWith('AA') ? 'BB' : 'AA'),
      `A${one.lease.token}`,
    ])
      for (const [verb, body] of [
        ['heartbeat', {}],
        ['complete', { result: 1 }],
        ['fail', BROKE],
        ['release', {}],
      ] as const) {
        const { status, json } = await say(verb, { id: one.id, lease: { token } }, body)
        expect([status, json.errors?.[0].pointer]).toEqual([422, '#/lease'])
      }
    expect((await say('complete', { ...one, id: 'task_01jd7z3m0q8y3t6w9k2v5n4r1b' }, { result: 1 })).status).toBe(404)
    expect((await say('complete', one, { result: 1 })).status).toBe(200)
    await client.call('DELETE', `/v1/tasks/${one.id}`)
    expect((await say('complete', one, { result: 1 })).status, 'erased').toBe(410)
  })

  test('keeps its lease by heartbeats, which carry progress', async () => {
    const id = await submit(FREE)
    const task = await claimOne()
    await pass(20_000)
    const first = await say('heartbeat', task, { progress: 42.5, message: 'page 3 of 7' })
    expect(first.json).toMatchObject({ leaseSeconds: 30, cancelRequested: false })
    expect(Date.parse(first.json.leaseExpiresAt)).toBeGreaterThanOrEqual(
      Date.parse(task.lease.expiresAt) + (engine === 'sqlite' ? 20_000 : 0),
    )
    expect(await read(id)).toMatchObject({ progress: 42.5, progressMessage: 'page 3 of 7' })
    await say('heartbeat', task, { progress: 10 })
    expect(await read(id), 'never less').toMatchObject({ progress: 42.5, progressMessage: 'page 3 of 7' })
    await say('heartbeat', task, { message: `\0${'x'.repeat(600)}` })
    expect((await read(id)).progressMessage, 'cut, and fit for any store').toBe(`\ufffd${'x'.repeat(499)}`)
    await say('heartbeat', task, { progress: 1000 })
    expect((await read(id)).progress).toBe(99.9)
    const { revision } = await read(id)
    await pass(20_000)
    expect(await reclaim(null), 'kept').toBe(0)
    expect((await say('heartbeat', task)).status).toBe(200)
    expect((await read(id)).revision, 'a heartbeat without a report changes nothing that shows').toBe(revision)
    expect((await say('heartbeat', task, { progress: -1 })).status).toBe(422)
    await say('complete', task, { result: null })
    await unchanged(id, () => say('heartbeat', task, { progress: 99 }))
  })

  test('that is lost loses its lease, and its late word changes nothing', async () => {
    const id = await submit({ ...FREE, maxTries: 3 })
    const lost = await claimOne()
    await pass(LEASE_MS + 1)
    expect(await reclaim('boot_new')).toBe(1)
    expect(await read(id)).toMatchObject({ status: 'pending', tries: 1, lastError: { code: 'worker_lost' } })
    for (const late of [
      () => say('complete', lost, { result: 1 }),
      () => say('fail', lost, BROKE),
      () => say('release', lost),
      () => say('heartbeat', lost),
    ])
      await unchanged(id, late)
    const other = await claimOne()
    expect(other).toMatchObject({ id, try: 2, fence: 2 })
    await unchanged(id, () => say('complete', lost, { result: 'late' }))
    expect((await say('complete', other, { result: 'in time' })).status).toBe(200)
    await unchanged(id, () => say('complete', lost, { result: 'late' }))
    expect((await read(id)).result).toBe('in time')

    const last = await submit({ ...FREE, maxTries: 1 })
    await claimOne()
    await pass(LEASE_MS + 1)
    await reclaim(null)
    expect(await read(last)).toMatchObject({ status: 'failed', error: { code: 'worker_lost' }, tries: 1 })
  })

  test('keeps its tasks when a node starts anew', async () => {
    await submit(FREE)
    const task = await claimOne()
    expect(await reclaim('boot_of_a_new_process')).toBe(0)
    expect((await say('complete', task, { result: 1 })).status).toBe(200)
  })

  test('gets the same answer when it repeats a call, whatever happened to the task', async () => {
    const id = await submit({ ...FREE, maxTries: 9 })
    const completed = await submit(FREE)
    const [first, second] = (await claim({ limit: 2 })).json.tasks
    const done = second.id === completed ? second : first
    const failing = second.id === completed ? first : second
    const twice = await Promise.all([say('complete', done, { result: 1 }), say('complete', done, { result: 2 })])
    expect(twice.map(({ status, json }) => [status, json])).toEqual([
      [200, { status: 'completed' }],
      [200, { status: 'completed' }],
    ])
    expect((await say('complete', done, { result: 3 })).status).toBe(200)
    expect([1, 2]).toContain((await read(completed)).result)
    await unchanged(completed, () => say('fail', done, BROKE))

    const failed = await Promise.all([say('fail', failing, BROKE), say('fail', failing, BROKE)])
    expect(failed.map(({ status }) => status)).toEqual([200, 200])
    await unchanged(id, () => say('complete', failing, { result: 1 }))
    const next = await claimOne()
    expect(next).toMatchObject({ id, try: 2 })
    expect((await say('fail', failing, BROKE)).json, 'although another has it').toEqual({ status: 'running' })
    await unchanged(id, () => say('release', failing))
    expect((await say('release', next)).json).toEqual({ status: 'pending' })
    expect((await say('release', next)).json).toEqual({ status: 'pending' })
    const again = await claimOne()
    expect(again, 'the try was given back').toMatchObject({ id, try: 2, fence: 3 })
    expect((await say('release', next)).json).toEqual({ status: 'running' })
    await say('complete', again, { result: 'done' })
    expect(
      runs.map(({ task, outcome, errorCode }) => [task.id === id, outcome, errorCode]),
      'each try once',
    ).toEqual([
      [false, 'completed', null],
      [true, 'pending', 'handler_error'],
      [true, 'pending', null],
      [true, 'completed', null],
    ])
  })

  test('says how its try failed', async () => {
    const retried = await submit(SHOT)
    await say('fail', await claimOne(), {
      error: { code: 'site_down', message: 'no answer', details: { status: 502 } },
      retryAfterSeconds: 60,
    })
    const pending = await read(retried)
    expect(pending).toMatchObject({
      status: 'pending',
      waitingFor: 'retryBackoff',
      lastError: { code: 'site_down', message: 'no answer', try: 1 },
    })
    expect(Date.parse(pending.runAt) - Date.parse(pending.updatedAt), 'not sooner, whatever the policy says').toBe(60_000)
    const soon = await submit(SHOT)
    await say('fail', await claimOne(), BROKE)
    const backoff = await read(soon)
    expect(Date.parse(backoff.runAt) - Date.parse(backoff.updatedAt), 'the policy of its type').toBeGreaterThanOrEqual(5_000)

    const given = await submit(SHOT)
    const error = { code: 'gone', message: `\0${'m'.repeat(3_000)}`, details: { why: [1] } }
    expect((await say('fail', await claimOne(), { error, retryable: false })).json).toEqual({ status: 'failed' })
    const failed = await read(given)
    expect(failed.error).toEqual({ code: 'gone', message: `\ufffd${'m'.repeat(1_999)}`, details: { why: [1] } })
    expect([failed.tries, failed.maxTries]).toEqual([1, 3])

    const waits = await submit(FREE)
    await say('release', await claimOne(), { delaySeconds: 30 })
    expect(await read(waits)).toMatchObject({ status: 'pending', tries: 0, waitingFor: 'runAt', lastError: null })
    for (const body of [{}, { error: {} }, { error: { message: 'x', code: 'Not This' } }]) {
      await pass(60_000)
      expect((await say('fail', { id: waits, lease: { token: 'x' } }, body)).status).toBe(422)
    }
  })

  test('cannot say how its try failed in more depth than anyone reads, and may say it again', async () => {
    await submit(FREE)
    const { tasks } = (await worker('POST', '/v1/worker/claim', { types: ['free.form'] })).json
    const [{ id, lease }] = tasks
    const said = (details: string) => `{"lease":"${lease.token}","error":{"message":"no","details":${details}}}`
    for (const levels of [99, 100_000]) {
      const answer = await worker('POST', `/v1/worker/tasks/${id}/fail`, said('['.repeat(levels) + ']'.repeat(levels)))
      expect([levels, answer.status, answer.json.code]).toEqual([levels, 422, 'validation_failed'])
    }
    expect((await worker('POST', `/v1/worker/tasks/${id}/fail`, said('{"at":[1]}'))).status).toBe(200)
  })

  test('cannot complete a task with what its schema refuses, and may try again', async () => {
    const id = await submit(SHOT)
    const task = await claimOne()
    const { status, json } = await say('complete', task, { result: { width: '800' } })
    expect([status, json.code, json.errors[0].pointer]).toEqual([422, 'validation_failed', '#/result/width'])
    expect((await say('complete', task, {})).json.errors).toEqual([{ pointer: '#/result', detail: 'is required' }])
    expect(await read(id)).toMatchObject({ status: 'running' })
    expect((await say('complete', task, { result: { width: 800 } })).status).toBe(200)
  })

  test('fails a task with a result over 8 MiB, and is refused one over 16', async () => {
    const id = await submit(FREE)
    const task = await claimOne()
    expect((await say('complete', task, { result: 'x'.repeat(16 * 1024 * 1024) })).json.code).toBe('payload_too_large')
    expect((await read(id)).status).toBe('running')
    expect((await say('complete', task, { result: 'x'.repeat(8 * 1024 * 1024 - 1) })).json).toEqual({ status: 'failed' })
    expect(await read(id)).toMatchObject({ error: { code: 'result_too_large' }, tries: 1 })
    expect((await say('complete', task, { result: 'x' })).json, 'said before').toEqual({ status: 'failed' })
    const largest = await submit(FREE)
    expect((await say('complete', await claimOne(), { result: 'x'.repeat(8 * 1024 * 1024 - 2) })).json).toEqual({ status: 'completed' })
    expect((await read(largest)).resultUrl).toContain(largest)
  })

  test('that takes longer than timeoutSeconds has failed its try, although it keeps its lease', async () => {
    for (const ends of ['heartbeat', 'complete', 'reclaim'] as const) {
      const id = await submit({ ...SHOT, timeoutSeconds: 45 })
      const task = await claimOne()
      await pass(25_000)
      const kept = await say('heartbeat', task)
      expect(kept.json.leaseSeconds, 'not beyond its time').toBeLessThanOrEqual(20)
      expect(kept.json.leaseSeconds).toBeGreaterThan(10)
      await pass(21_000)
      if (ends === 'reclaim') expect(await reclaim(null)).toBe(1)
      else {
        const late = await say(ends, task, ends === 'complete' ? { result: { width: 1 } } : {})
        expect([late.status, late.json.code]).toEqual([409, 'lease_lost'])
      }
      const failed = await read(id)
      expect(failed).toMatchObject({ status: 'pending', tries: 1, lastError: { code: 'timeout' }, waitingFor: 'retryBackoff' })
      await unchanged(id, () => say('complete', task, { result: { width: 1 } }))
      await client.call('POST', `/v1/tasks/${id}/cancel`)
    }
    expect(runs.map(({ errorCode }) => errorCode)).toEqual(['timeout', 'timeout'])
  })

  test('cannot go beyond the deadline of its task', async () => {
    const deadlineAt = new Date((await ground.store.now()) + 40_000).toISOString()
    const ids = [await submit({ ...FREE, deadlineAt }), await submit({ ...FREE, deadlineAt })]
    const [one, two] = (await claim({ limit: 2 })).json.tasks
    await pass(20_000)
    for (const task of [one, two]) expect((await say('heartbeat', task)).json.leaseSeconds).toBeLessThanOrEqual(20)
    await pass(20_001)
    expect((await say('complete', one, { result: 1 })).status).toBe(409)
    expect(await reclaim(null)).toBe(1)
    for (const id of ids) expect(await read(id)).toMatchObject({ status: 'failed', error: { code: 'deadline_exceeded' } })
  })

  test('learns of a cancel by its heartbeat; a result in time counts, a failure ends the task', async () => {
    const ids = [await submit(FREE), await submit(FREE), await submit(FREE)]
    const tasks: Leased[] = (await claim({ limit: 3 })).json.tasks
    for (const id of ids) expect((await client.call('POST', `/v1/tasks/${id}/cancel`)).status).toBe(202)
    const [one, two, three] = tasks
    expect((await say('heartbeat', one!)).json.cancelRequested).toBe(true)
    expect((await say('complete', one!, { result: 1 })).json).toEqual({ status: 'completed' })
    expect((await say('fail', two!, BROKE)).json).toEqual({ status: 'canceled' })
    expect((await say('fail', two!, BROKE)).json).toEqual({ status: 'canceled' })
    expect(await ground.store.maintenance.endOverdue({ limit: 10, graceMs: 15_000 }), 'its grace is not over').toBe(0)
    await pass(15_001)
    expect(await ground.store.maintenance.endOverdue({ limit: 10, graceMs: 15_000 })).toBe(1)
    await unchanged(three!.id, () => say('complete', three!, { result: 1 }))
    expect((await read(three!.id)).status).toBe('canceled')
  })

  test('whose client is deleted meanwhile is told to end, and what it says afterwards is about nothing', async () => {
    const ids = [await submit(FREE), await submit(FREE), await submit(FREE)]
    const [one, two, three]: Leased[] = (await claim({ limit: 3 })).json.tasks
    expect(new Set([one!.id, two!.id, three!.id])).toEqual(new Set(ids))
    expect((await kit.admin.call('DELETE', `/v1/clients/${client.id}`)).status).toBe(204)
    expect((await say('heartbeat', one!)).json.cancelRequested).toBe(true)
    expect((await say('complete', one!, { result: 1 })).json).toEqual({ status: 'completed' })
    expect((await say('fail', two!, BROKE)).json).toEqual({ status: 'canceled' })
    const erase = async (): Promise<string> => {
      let rest = 'more'
      while (rest === 'more') rest = await ground.store.maintenance.eraseClient({ id: client.id, last: true })
      return rest
    }
    expect(await erase(), 'one is at work still').toBe('open')
    await pass(15_001)
    expect(await ground.store.maintenance.endOverdue({ limit: 10, graceMs: 15_000 })).toBe(1)
    expect(await erase()).toBe('nothing')
    for (const [task, verb] of [
      [one!, 'complete'],
      [two!, 'fail'],
      [three!, 'release'],
    ] as const)
      expect((await say(verb, task, verb === 'complete' ? { result: 1 } : verb === 'fail' ? BROKE : {})).status).toBe(404)
  })

  test('waits for work and is handed it as it comes, one to each that waits', async () => {
    const waiting = [1, 2, 3].map(() => claim({ limit: 10, waitSeconds: 30 }))
    await sleep(100)
    const ids = [await submit(FREE), await submit(FREE), await submit(FREE)]
    const got = await Promise.all(waiting)
    expect(got.flatMap(({ json }) => json.tasks.map(({ id }: { id: string }) => id)).sort()).toEqual([...ids].sort())
    // As many as come at once are shared out.
    const idle = [1, 2].map(() => claim({ limit: 10, waitSeconds: 30 }))
    await sleep(500)
    await client.call('POST', '/v1/tasks/batch', { tasks: Array.from({ length: 6 }, () => FREE) })
    expect((await Promise.all(idle)).map(({ json }) => json.tasks.length)).toEqual([3, 3])
  })

  test('that waits is handed a task that falls due, one that another gives back, and one of a resumed type', async () => {
    await kit.admin.call('POST', '/v1/task-types/free.form/pause')
    const id = await submit(FREE)
    const paused = claim({ waitSeconds: 30 })
    await sleep(60)
    expect((await read(id)).waitingFor).toBe('paused')
    await kit.admin.call('POST', '/v1/task-types/free.form/resume')
    const [task] = (await paused).json.tasks
    expect(task.id).toBe(id)
    const handed = claim({ waitSeconds: 30 })
    await sleep(60)
    await say('release', task)
    expect((await handed).json.tasks).toMatchObject([{ id, try: 1, fence: 2 }])
    if (engine === 'sqlite') return
    // There the store's clock goes by itself.
    const later = await submit({ ...FREE, delaySeconds: 0.3 })
    expect((await claim({ waitSeconds: 30 })).json.tasks).toMatchObject([{ id: later }])
  })

  test('that disconnected gets nothing: its tasks go to the next', async () => {
    const hungUp = new AbortController()
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
    const body = JSON.stringify({ types: ['free.form'], waitSeconds: 30 })
    const request = new Request('http://test/v1/worker/claim', { method: 'POST', headers, body, signal: hungUp.signal })
    const gone = kit.app.fetch(request)
    await sleep(60)
    hungUp.abort()
    expect(await (await gone).json()).toEqual({ tasks: [] })
    const id = await submit(FREE)
    await sleep(100)
    expect(await read(id)).toMatchObject({ status: 'pending', tries: 0 })

    // Gone while its answer was on the way.
    const cut = new AbortController()
    const second = await kit.app.fetch(new Request('http://test/v1/worker/claim', { method: 'POST', headers, body, signal: cut.signal }))
    expect(((await second.json()) as { tasks: unknown[] }).tasks).toMatchObject([{ id }])
    cut.abort()
    expect((await claim({ waitSeconds: 30 })).json.tasks).toMatchObject([{ id, try: 1, fence: 2 }])
    expect(await read(id)).toMatchObject({ tries: 1 })
  })

  test('whose key is revoked while it waits is handed nothing', async () => {
    const waiting = claim({ waitSeconds: 30 })
    await sleep(60)
    const [{ id: keyId }] = (await kit.admin.call('GET', '/v1/operator-keys')).json.data
    await kit.admin.call('DELETE', `/v1/operator-keys/${keyId}`)
    const id = await submit(FREE)
    expect((await waiting).status).toBe(401)
    await expect.poll(async () => (await read(id)).status).toBe('pending')
    expect((await read(id)).tries).toBe(0)
  })

  test('that waits is answered when the node stops, and no task is handed out afterwards', async () => {
    const waiting = claim({ waitSeconds: 60 })
    await sleep(60)
    await kit.options.claims.stop()
    expect((await waiting).json).toEqual({ tasks: [] })
    const id = await submit(FREE)
    expect((await claim({ waitSeconds: 60 })).json).toEqual({ tasks: [] })
    expect((await read(id)).status).toBe('pending')
  })

  test('is what a task waits for when none has been there for a minute', async () => {
    const id = await submit(FREE)
    expect((await read(id)).waitingFor).toBe('noWorker')
    const before = await submit(SHOT)
    const task = await claimOne({ types: ['shot.take'] })
    expect(task.id).toBe(before)
    expect((await read(id)).waitingFor, 'who asked runs another type').toBe('noWorker')
    const [, second] = [await claimOne({ types: ['free.form'] }), await submit(FREE)]
    await expect.poll(async () => (await read(second)).waitingFor).toBe(null)
    await pass(61_000)
    expect((await read(second)).waitingFor).toBe('noWorker')
  })

  test('holds to the limit of the type on all nodes, and the next waits no longer than for its end', async () => {
    await submit({ type: 'scarce.one', input: 1 })
    await submit({ type: 'scarce.one', input: 2 })
    const types = ['scarce.one']
    const task = await claimOne({ types, limit: 5 })
    expect((await claim({ types, limit: 5 })).json.tasks).toEqual([])
    const next = claim({ types, waitSeconds: 30 })
    await sleep(60)
    await say('complete', task, { result: 1 })
    expect((await next).json.tasks).toHaveLength(1)
  })

  test('that completes, fails, gives back, is canceled and lost at once has ended its try once, and is told so by one kind of answer', async () => {
    const deeds = ['complete', 'complete', 'fail', 'fail', 'release', 'heartbeat', 'cancel', 'rescue'] as const
    const property = fc.asyncProperty(fc.shuffledSubarray([...deeds], { minLength: 2 }), fc.boolean(), async (chosen, expired) => {
      runs.length = 0
      const id = await submit({ ...FREE, maxTries: 1 })
      const task = await claimOne()
      if (expired) await pass(LEASE_MS + 1)
      const said: Record<string, number[]> = {}
      let rescued = 0
      const act: Record<(typeof deeds)[number], () => Promise<unknown>> = {
        complete: () => ended('complete', { result: 1 }),
        fail: () => ended('fail', BROKE),
        release: () => ended('release', {}),
        heartbeat: () => say('heartbeat', task, { progress: 5 }),
        cancel: () => client.call('POST', `/v1/tasks/${id}/cancel`),
        rescue: async () => {
          rescued = await reclaim(null)
        },
      }
      const ended = async (verb: string, body: object) => {
        const { status } = await say(verb, task, body)
        said[verb] = [...(said[verb] ?? []), status]
      }
      await Promise.all(chosen.map((deed) => act[deed]()))
      const winners = Object.entries(said).flatMap(([verb, statuses]) => (statuses.includes(200) ? [verb] : []))
      for (const statuses of Object.values(said)) expect(new Set(statuses).size, 'the same word, the same answer').toBe(1)
      const ending = chosen.some((deed) => deed in said)
      const lapsed = expired && chosen.includes('rescue')
      // Before the rescue a heartbeat still keeps the lease that has ended.
      const least = ending || (lapsed && !chosen.includes('heartbeat')) ? 1 : 0
      expect(winners.length + rescued, 'one of them').toBeGreaterThanOrEqual(least)
      expect(winners.length + rescued, 'one of them').toBeLessThanOrEqual(ending || lapsed ? 1 : 0)
      expect(runs.length, 'one line for its try').toBe(winners.length)
      const { status, tries } = await read(id)
      const won = winners[0] ?? (rescued > 0 ? 'rescue' : 'none')
      const canceled = chosen.includes('cancel')
      const fits: Record<string, string[]> = {
        complete: ['completed'],
        fail: canceled ? ['failed', 'canceled'] : ['failed'],
        release: canceled ? ['canceled'] : ['pending'],
        rescue: canceled ? ['failed', 'canceled'] : ['failed'],
        none: ['running'],
      }
      expect(fits[won], JSON.stringify([chosen, expired, said])).toContain(status)
      expect(tries).toBe(won === 'release' ? 0 : 1)
      const events = (await client.call('GET', `/v1/tasks/${id}/events`)).json.data
      expect(events.length).toBe(status === 'pending' || status === 'running' ? 0 : 1)
      await ground.sql(`delete from tasks where id = '${id}'`)
      await ground.sql('delete from turns')
    })
    await fc.assert(property, { numRuns: 25 })
  })

  test('is not handed what no longer fits the schema of its type', async () => {
    const id = await submit(SHOT)
    await ground.sql(`update tasks set input = '{"url":7}' where id = '${id}'`)
    expect((await claim()).json.tasks).toEqual([])
    expect(await read(id)).toMatchObject({ status: 'failed', error: { code: 'input_rejected' }, tries: 1 })
  })
})

test('A type that workers run has no run, and every other has one', () => {
  expect(() => defineTask({ type: 'a', where: 'worker', run: () => null } as never)).toThrow('has both where: "worker" and run')
  expect(() => defineTask({ type: 'a' } as never)).toThrow('has no run; add one, or where: "worker"')
  expect(() => defineTask({ type: 'a', where: 'moon', run: () => null } as never)).toThrow('where "moon"')
})
