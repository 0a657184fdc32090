import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWatchers } from '../../../src/http/live/waits.ts'
import { defineTask } from '../../../src/tasks/define.ts'
import { createRegistry } from '../../../src/tasks/registry.ts'
import { turns } from '../../support/engine.ts'
import { type Frame, type Reader, readFrames } from '../../support/frames.ts'
import { type ManualClock, manualClock } from '../../support/manual-clock.ts'
import { type Client, type Kit, openKit, REPORT } from '../kit.ts'

let kit: Kit
let client: Client
beforeAll(async () => {
  kit = await openKit()
  client = await kit.newClient()
})
afterAll(() => kit.close())

const LATER = { ...REPORT, delaySeconds: 600 }
const ask = (id: string, headers: Record<string, string> = {}, of = client, at = kit, method = 'GET'): Promise<Response> =>
  Promise.resolve(
    at.app.request(`/v1/tasks/${id}/events`, {
      method,
      headers: { authorization: `Bearer ${of.key}`, accept: 'text/event-stream', ...headers },
    }),
  )
const follow = async (id: string, lastEventId?: string | number): Promise<Reader> =>
  readFrames(await ask(id, lastEventId === undefined ? {} : { 'last-event-id': String(lastEventId) }))
const submit = async (body: object = REPORT): Promise<string> => (await client.call('POST', '/v1/tasks', body)).json.id
const shown = (frame: Frame | null) => frame && [frame.event, Number(frame.id), frame.json.data.status, frame.json.data.progress]
/** The terminal event as the feed has it. */
const ending = async (id: string): Promise<string> => {
  const { text, json } = await client.call('GET', `/v1/tasks/${id}/events`)
  const last = JSON.stringify(json.data.at(-1))
  expect(text).toContain(last)
  return last
}

test('a stream starts with a snapshot, sends each change, and ends with the terminal event', async () => {
  const id = await submit()
  const answer = await ask(id)
  expect(Object.fromEntries(answer.headers)).toMatchObject({
    'content-type': 'text/event-stream',
    'cache-control': 'private, no-cache, no-transform',
    vary: 'Authorization, Accept, Prefer',
    'x-accel-buffering': 'no',
  })
  const reader = readFrames(answer)
  const first = await reader.next()
  expect([first?.event, first?.id, first?.json.id, first?.json.type]).toEqual(['task.snapshot', '1', null, 'task.snapshot'])
  expect(first?.json.data).toEqual((await client.call('GET', `/v1/tasks/${id}`)).json)
  const { fence } = await kit.claim(id)
  expect(shown(await reader.next())).toEqual(['task.started', 2, 'running', 0])
  await kit.store.tasks.reportProgress({ id, fence, progress: 50, message: 'half', notify: true })
  expect(shown(await reader.next())).toEqual(['task.progress', 3, 'running', 50])
  await kit.store.tasks.settle({ id, fence, outcome: { kind: 'complete', result: '{"rows":1}' } })
  const last = await reader.next()
  expect(shown(last)).toEqual(['task.completed', 4, 'completed', 100])
  expect(last?.text).toBe(await ending(id))
  expect(await reader.next()).toBeNull()
})

test('a stream says of a task that waits for what, as every other answer does', async () => {
  const registry = createRegistry([defineTask({ type: 'audio.transcribe', where: 'worker' })])
  const held = await openKit({ registry, store: kit.store, typicalDurationMs: () => 5_000 })
  const { json } = await held.as(client.key)('POST', '/v1/tasks', { type: 'audio.transcribe', input: 1 })
  const reader = readFrames(await ask(json.id, {}, client, held))
  const { data } = (await reader.next())!.json
  expect(data).toMatchObject({ status: 'pending', waitingFor: 'noWorker', estimatedCompletionAt: null })
  expect(data).toEqual((await held.as(client.key)('GET', `/v1/tasks/${json.id}`)).json)
  await held.close()
})

test('a change that is no event is told by a snapshot: a try that failed, a cancel that was asked for', async () => {
  const id = await submit()
  const reader = await follow(id)
  await reader.next()
  const { fence } = await kit.claim(id)
  await reader.next()
  const error = { code: 'handler_error', message: 'no', try: 1, at: new Date().toISOString() }
  await kit.store.tasks.settle({ id, fence, outcome: { kind: 'retry', delayMs: 0, error } })
  const failed = await reader.next()
  expect([...shown(failed)!, failed?.json.data.lastError]).toEqual(['task.snapshot', 3, 'pending', 0, error])
  await kit.claim(id)
  expect((await reader.next())?.event).toBe('task.started')
  await client.call('POST', `/v1/tasks/${id}/cancel`)
  expect([...shown(await reader.next())!]).toEqual(['task.snapshot', 5, 'running', 0])
  await reader.hangUp()
})

test('a reader that reconnects gets the current state once, or nothing if it knows it', async () => {
  const id = await submit()
  const { fence } = await kit.claim(id)
  const behind = await follow(id, 1)
  expect(shown(await behind.next())).toEqual(['task.snapshot', 2, 'running', 0])
  const [abreast, lost] = [await follow(id, 2), await follow(id, 99)]
  expect(shown(await lost.next()), 'a revision it never had').toEqual(['task.snapshot', 2, 'running', 0])
  await kit.store.tasks.settle({ id, fence, outcome: { kind: 'fail', error: { code: 'no', message: 'no', details: null } } })
  for (const reader of [behind, abreast, lost]) expect((await reader.rest()).map(({ event }) => event)).toEqual(['task.failed'])
  const late = await (await follow(id, 2)).rest()
  expect(late.map(({ text }) => text)).toEqual([await ending(id)])
  const over = await ask(id, { 'last-event-id': '3' })
  expect([over.status, await over.text()]).toEqual([204, ''])
  for (const odd of ['', 'x', '-1', '99'])
    expect((await (await follow(id, odd)).rest()).map(shown)).toEqual([
      ['task.snapshot', 3, 'failed', 0],
      ['task.failed', 3, 'failed', 0],
    ])
})

test('a task that runs again has another end: who saw the first one is told of the second', async () => {
  const id = await submit()
  await client.call('POST', `/v1/tasks/${id}/cancel`)
  await client.call('POST', `/v1/tasks/${id}/retry`)
  const reader = await follow(id, 2)
  expect(shown(await reader.next())).toEqual(['task.snapshot', 3, 'pending', 0])
  await kit.finish(id)
  const frames = await reader.rest()
  expect(frames.at(-1)?.json.data).toMatchObject({ status: 'completed', generation: 2 })
})

test('what was sent with line breaks arrives whole', async () => {
  const id = await submit('{"type":"anything",\r\n"input":{"a":\n[1,\r2]}}' as never)
  await kit.finish(id)
  const [snapshot, last] = await (await follow(id)).rest()
  for (const frame of [snapshot, last]) expect(frame?.json.data.input).toEqual({ a: [1, 2] })
})

test('the stream is for who asks for it: everyone else gets the list', async () => {
  const id = await submit()
  const typeOf = async (accept: string): Promise<string | null> => {
    const answer = await ask(id, { accept })
    await answer.body?.cancel()
    return answer.headers.get('content-type')
  }
  for (const accept of ['text/event-stream', 'text/event-stream, application/json', 'Text/Event-Stream, */*;q=0.1'])
    expect([accept, await typeOf(accept)]).toEqual([accept, 'text/event-stream'])
  for (const accept of ['*/*', 'application/json', 'text/event-stream;q=0.5, application/json', 'text/event-stream;q=0, */*'])
    expect([accept, await typeOf(accept)]).toEqual([accept, 'application/json'])
  expect(await typeOf('text/html')).toBe('application/problem+json')
  const head = await ask(id, {}, client, kit, 'HEAD')
  expect([head.status, head.headers.get('content-type'), await head.text()]).toEqual([200, 'text/event-stream', ''])
})

test('another client’s task has no stream, and an erased one ends its streams and has none any more', async () => {
  const id = await submit(LATER)
  expect((await ask(id, {}, await kit.newClient())).status).toBe(404)
  const reader = await follow(id)
  await reader.next()
  await client.call('POST', `/v1/tasks/${id}/cancel`)
  expect((await client.call('DELETE', `/v1/tasks/${id}`)).status).toBe(204)
  expect((await reader.rest()).length, 'canceled, or gone already').toBeLessThan(2)
  expect((await ask(id)).status).toBe(410)
})

test('a key that is revoked is told nothing more', async () => {
  const { json: made } = await kit.admin.call('POST', `/v1/clients/${client.id}/keys`, {})
  const id = await submit()
  const reader = readFrames(await ask(id, { authorization: `Bearer ${made.key}` }))
  await reader.next()
  await kit.admin.call('DELETE', `/v1/clients/${client.id}/keys/${made.id}`)
  await kit.claim(id)
  expect(await reader.next()).toBeNull()
})

test('a thousand watchers of one task cost one query a change, and a node that stops closes them all', async () => {
  const asked = { findMany: 0, findTerminal: 0 }
  const { tasks, events } = kit.store
  const store = {
    ...kit.store,
    tasks: {
      ...tasks,
      findMany(ids: readonly string[]) {
        asked.findMany++
        return tasks.findMany(ids)
      },
    },
    events: {
      ...events,
      findTerminal(of: Parameters<typeof events.findTerminal>[0]) {
        asked.findTerminal++
        return events.findTerminal(of)
      },
    },
  }
  const waits = createWatchers({ store, clock: kit.clock })
  const heard: string[] = []
  const watchAll = (id: string): void => {
    for (let n = 0; n < 1_000; n++)
      waits.watchTask(id, (news) => heard.push(news ? `${news.task.state} ${news.terminalEvent !== null}` : 'over'))
  }
  const id = await submit()
  watchAll(id)
  await expect.poll(() => heard.length).toBe(1_000)
  const task = await kit.claim(id)
  await expect.poll(() => heard.length).toBe(2_000)
  await kit.store.tasks.settle({ id, fence: task.fence, outcome: { kind: 'complete', result: '1' } })
  await expect.poll(() => heard.length).toBe(3_000)
  expect(new Set(heard)).toEqual(new Set(['pending false', 'running false', 'completed true']))
  expect(asked.findMany).toBeLessThanOrEqual(4)
  expect(asked.findTerminal).toBe(1)
  heard.length = 0
  waits.stop()
  expect(heard).toEqual(Array(1_000).fill('over'))
})

test('a start without a notification is noticed within about a second, by comparing revisions', async () => {
  const id = await submit()
  let reads = 0
  const findMany = (ids: readonly string[]) => {
    reads++
    return kit.store.tasks.findMany(ids)
  }
  const clock = { ...kit.clock, after: (ms: number, wake: () => void) => kit.clock.after(ms / 20, wake) }
  const waits = createWatchers({ store: { ...kit.store, tasks: { findMany }, notifications: { onTask: () => () => {} } }, clock })
  const states: string[] = []
  waits.watchTask(id, (news) => states.push(news?.task.state ?? 'over'))
  await expect.poll(() => states).toEqual(['pending'])
  await new Promise((resolve) => kit.clock.after(300, () => resolve(null)))
  expect(reads).toBe(1)
  await kit.claim(id)
  await expect.poll(() => states).toEqual(['pending', 'running'])
  expect(reads).toBe(2)
  waits.stop()
})

test('more streams than there may be are refused with what to do instead; one that ends makes room', async () => {
  const small = await openKit({ streamLimits: { node: 3, client: 2 } })
  const [one, two] = [await small.newClient(), await small.newClient()]
  const task = async (of: Client) => (await of.call('POST', '/v1/tasks', LATER)).json.id
  const [mine, theirs] = [await task(one), await task(two)]
  const readers = [readFrames(await ask(mine, {}, one, small)), readFrames(await ask(mine, {}, one, small))]
  const refused = await ask(mine, {}, one, small)
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '10'])
  expect(await refused.json()).toMatchObject({ code: 'quota_exceeded', detail: expect.stringMatching(/2 streams open.*\?wait/) })
  readers.push(readFrames(await ask(theirs, {}, two, small)))
  const full = await ask(theirs, {}, two, small)
  expect([full.status, await full.json()]).toMatchObject([503, { code: 'temporary_reduced_capacity' }])
  await readers[0]!.hangUp()
  readers.push(readFrames(await ask(mine, {}, one, small)))
  await one.call('POST', `/v1/tasks/${mine}/cancel`)
  expect((await readers[1]!.rest()).at(-1)?.event).toBe('task.canceled')
  await readers[3]!.rest()
  for (let n = 0; n < 4; n++) {
    const answer = await ask(theirs, {}, two, small, 'HEAD')
    expect(answer.status).toBe(200)
  }
  readers.push(readFrames(await ask(theirs, {}, two, small)))
  small.waits.stop()
  for (const reader of readers.slice(2)) expect((await reader.rest()).length).toBeLessThan(2)
  await small.close()
})

test('a stream asked for of a node that stops ends at once', async () => {
  const stopping = await openKit()
  const of = await stopping.newClient()
  const { json } = await of.call('POST', '/v1/tasks', LATER)
  stopping.waits.stop()
  expect(await readFrames(await ask(json.id, {}, of, stopping)).rest()).toEqual([])
  await stopping.close()
})

/** Time stands still until it is moved. */
async function onManualClock(
  work: (clock: ManualClock, still: Kit, id: string, fence: number, reader: Reader) => Promise<void>,
): Promise<void> {
  const clock = manualClock()
  const still = await openKit({ clock })
  const of = await still.newClient()
  const { json } = await of.call('POST', '/v1/tasks', REPORT)
  const { fence } = await still.claim(json.id)
  const reader = readFrames(await ask(json.id, {}, of, still))
  await work(clock, still, json.id, fence, reader)
  await still.close()
}

test('a quiet stream sends a comment every 15 s', () =>
  onManualClock(async (clock, _still, _id, _fence, reader) => {
    await reader.next()
    for (let n = 0; n < 2; n++) {
      const next = reader.next()
      clock.advance(14_999)
      expect(await Promise.race([next, turns(20).then(() => 'silence')])).toBe('silence')
      clock.advance(1)
      expect((await next)?.event).toBe('comment')
    }
    await reader.hangUp()
    await turns(2)
    expect(clock.armed).toBeLessThan(3)
  }))

test('progress is sent every 250 ms, the newest only; the end does not wait', () =>
  onManualClock(async (clock, { store }, id, fence, reader) => {
    const report = (progress: number) => store.tasks.reportProgress({ id, fence, progress, message: null, notify: true })
    await reader.next()
    const next = reader.next()
    for (const progress of [10, 20, 30]) await report(progress)
    await turns(20)
    clock.advance(249)
    expect(await Promise.race([next, turns(20).then(() => 'silence')])).toBe('silence')
    clock.advance(1)
    expect(shown(await next)).toEqual(['task.progress', 5, 'running', 30])
    const last = reader.next()
    await report(40)
    await turns(20)
    await store.tasks.settle({ id, fence, outcome: { kind: 'complete', result: '1' } })
    expect((await last)?.event).toBe('task.completed')
    expect(await reader.next()).toBeNull()
  }))

test('a slow reader gets the newest state, and nothing queues up', () =>
  onManualClock(async (clock, { store }, id, fence, reader) => {
    for (let progress = 1; progress <= 50; progress++) {
      await store.tasks.reportProgress({ id, fence, progress, message: null, notify: true })
      clock.advance(1_000)
      await turns(2)
    }
    expect(shown(await reader.next())).toEqual(['task.snapshot', 52, 'running', 50])
    await store.tasks.reportProgress({ id, fence, progress: 60, message: null, notify: true })
    await store.tasks.settle({ id, fence, outcome: { kind: 'complete', result: '1' } })
    await turns(20)
    // Whatever becomes of it afterwards: who reads at last is told how that generation ended.
    expect((await reader.rest()).map(shown)).toEqual([['task.completed', 54, 'completed', 100]])
  }))
