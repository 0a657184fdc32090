/** The main job, with real parts: a task goes in over HTTP, runs, and rings back signed. */
import { base64url, createLocalJWKSet, flattenedVerify } from 'jose'
import { Webhook } from 'standardwebhooks'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createReceiver } from '../../src/receiver/index.ts'
import { type Arrival, openReceiver, type Receiver } from '../support/receiver.ts'
import { type Answer, type Call, databases, eventually, type Home, newClient, ok, openHome, type Server } from '../support/server.ts'

/** How far the clocks of a node, its database and this test may differ within some seconds. */
const SKEW_MS = 50

describe.concurrent.each(databases)('on %s', { timeout: 120_000 }, (name) => {
  let home: Home
  let server: Server
  let url: string
  const receivers: Receiver[] = []
  beforeAll(async () => {
    home = await openHome(name)
    server = await home.start()
    url = await server.listening
  }, 120_000)
  afterAll(async () => {
    await Promise.all(receivers.map((receiver) => receiver.close()))
    await home.close()
  })

  /** A client of its own with a receiver of its own: tests run at the same time and share nothing else. */
  const meet = async (): Promise<{ call: Call; receiver: Receiver }> => {
    const receiver = await openReceiver()
    receivers.push(receiver)
    return { call: (await newClient(url)).call, receiver }
  }
  const register = async (call: Call, at: string, settings: object = {}) => {
    return (await ok(call('POST', '/v1/endpoints', { url: at, ...settings }))).json
  }
  const submit = async (call: Call, type: string, input: unknown = null, more: object = {}) => {
    return (await ok(call('POST', '/v1/tasks', { type, input, ...more }))).json
  }
  const get = async (call: Call, id: string, query = '') => (await ok(call('GET', `/v1/tasks/${id}${query}`))).json
  const ends = async (call: Call, id: string) => {
    const task = await get(call, id, '?wait=30')
    expect(task.finishedAt).not.toBeNull()
    return task
  }
  const deliveriesOf = async (call: Call, query: string) => (await ok(call('GET', `/v1/deliveries?${query}`))).json.data
  const delivery = (call: Call, query: string, status: string) =>
    eventually(`a ${status} delivery`, async () => (await deliveriesOf(call, query)).find((it: { status: string }) => it.status === status))
  const keys = async () => (await ok(fetchPlainly(`${url}/.well-known/jwks.json`))).json

  test('the first retry of the default schedule comes 5 to 6 s after the end of the first attempt, though nothing else wakes the server', async () => {
    const quiet = await openHome(name)
    const receiver = await openReceiver()
    receivers.push(receiver)
    receiver.answer(({ headers }) => ({ status: headers['webhook-attempt'] === '1' ? 500 : 200 }))
    try {
      const { call } = await newClient(await (await quiet.start()).listening)
      await register(call, receiver.url)
      const task = await submit(call, 'demo.echo')
      expectSameEvent(await receiver.receives(2, { withinMs: 30_000 }))
      const { attempts } = await delivery(call, `taskId=${task.id}`, 'delivered')
      const waited = Date.parse(attempts[1].startedAt) - Date.parse(attempts[0].startedAt) - attempts[0].durationMs
      expect(waited).toBeGreaterThanOrEqual(5_000 - SKEW_MS)
      // 6 s, and what a busy machine takes to notice; a poll comes after 13 s at the soonest.
      expect(waited).toBeLessThan(12_000)
    } finally {
      await quiet.close()
    }
  })

  test('the trace context of a task comes with its webhooks, at every attempt: in the headers, and in the event of CloudEvents', async () => {
    const { call, receiver } = await meet()
    receiver.answer(({ headers }) => ({ status: headers['webhook-attempt'] === '1' ? 500 : 200 }))
    await register(call, `${receiver.url}/standard`, { retrySchedule: [0] })
    await register(call, `${receiver.url}/cloud`, { retrySchedule: [0], format: 'cloudevents' })
    const trace = { traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', tracestate: 'vendor="1"' }
    await ok(call('POST', '/v1/tasks', { type: 'demo.echo', input: null }, trace))
    const arrivals = await receiver.receives(4)
    for (const { headers } of arrivals) expect(headers).toMatchObject(trace)
    const cloud = arrivals.filter(({ headers }) => headers['content-type'] === 'application/cloudevents+json')
    expect(cloud).toHaveLength(2)
    for (const { event } of cloud) expect(event).toMatchObject(trace)
  })

  test.runIf(name === 'PostgreSQL')('two servers share the work, and each task is run once', async () => {
    const { call, receiver } = await meet()
    const other = await home.start({ RINGBACK_PUBLIC_URL: url })
    await register(call, receiver.url, { maxInFlight: 100 })
    const ids: string[] = []
    await eventually(
      'both servers running tasks',
      async () => {
        // More than one server has slots for: the one that is asked runs what it can at once, and the other takes the rest.
        const batch = { tasks: Array.from({ length: 100 }, () => ({ type: 'work.nap', input: { ms: 100 } })) }
        const { data } = (await ok(call('POST', '/v1/tasks/batch', batch))).json
        ids.push(...data.map((it: { id: string }) => it.id))
        for (const id of ids.slice(-100)) await ends(call, id)
        const mine = home.runs().filter((run) => ids.includes(run.taskId))
        return [server, other].every(({ pid }) => mine.some((run) => run.pid === pid))
      },
      { withinMs: 30_000 },
    )
    const runs = home.runs().filter((run) => ids.includes(run.taskId))
    expect(runs.map((run) => run.taskId).sort()).toEqual([...ids].sort())
    expect(runs.every((run) => run.try === 1)).toBe(true)
    const arrivals = await receiver.receives(ids.length)
    expect(arrivals.map((it) => it.event.data.id).sort()).toEqual([...ids].sort())
  })

  test('a task rings back, signed for jose, for Standard Webhooks and for the receiver library', async () => {
    const { call, receiver } = await meet()
    const endpoint = await register(call, `${receiver.url}/hooks`)
    const input = { text: 'žluťoučký 🐎', float: 0.1, exponent: 1e21, b: 1, a: [null, true, ''] }
    const answer = await call('POST', '/v1/tasks', { type: 'demo.echo', input })
    expect(answer.status).toBe(202)
    const [arrival] = await receiver.receives(1)
    const { headers, body, event } = arrival!
    expect(event).toMatchObject({ type: 'task.completed', id: headers['webhook-id'] })
    expect(event.data).toMatchObject({ id: answer.json.id, status: 'completed', progress: 100, result: input })
    expect(Object.keys(event).sort()).toEqual(['data', 'id', 'timestamp', 'type'])
    expect(headers).toMatchObject({
      'content-type': 'application/json',
      'webhook-attempt': '1',
      'user-agent': expect.stringMatching(/^Ringback\//),
    })

    const jwks = await keys()
    const { protectedHeader } = await verifyPlainly(arrival!, body, jwks)
    expect(protectedHeader).toEqual({
      alg: 'ES256',
      kid: expect.stringMatching(/^[\w-]{43}$/),
      typ: 'webhook+jws',
      iss: url,
      aud: endpoint.audience,
      iat: Number(headers['webhook-timestamp']),
      jti: event.id,
    })
    expect(endpoint.audience).toBe(`${receiver.url}/hooks`)
    expect(Math.abs(Date.now() / 1000 - (protectedHeader!.iat as number))).toBeLessThan(60)
    await expect(verifyPlainly(arrival!, changed(body), jwks)).rejects.toThrow('signature verification failed')

    expect(new Webhook(endpoint.secret).verify(body.toString(), headers)).toEqual(event)
    expect(() => new Webhook(endpoint.secret).verify(changed(body).toString(), headers)).toThrow()
    expect(() => new Webhook(endpoint.secret).verify(body.toString(), { ...headers, 'webhook-timestamp': '1700000000' })).toThrow()

    const given = { issuer: url, audience: endpoint.audience, jwksUrl: endpoint.jwksUrl }
    expect(await createReceiver(given).verify({ headers, body })).toMatchObject({
      id: event.id,
      type: event.type,
      attempt: 1,
    })
    const refusal = async (options: object, bytes = body) => createReceiver({ ...given, ...options }).verify({ headers, body: bytes })
    await expect(refusal({}, changed(body))).rejects.toMatchObject({ code: 'bad_signature' })
    await expect(refusal({ audience: `${receiver.url}/another` })).rejects.toMatchObject({ code: 'wrong_audience' })
    await expect(refusal({ issuer: 'https://other.example.com' })).rejects.toMatchObject({ code: 'wrong_issuer' })
    await expect(refusal({ clock: { wall: () => Date.now() + 310_000 } })).rejects.toMatchObject({ code: 'stale' })
    await expect(refusal({ clock: { wall: () => Date.now() - 310_000 } })).rejects.toMatchObject({ code: 'stale' })
  })

  test('a webhook carries the very document that the status route shows', async () => {
    const { call, receiver } = await meet()
    await register(call, receiver.url)
    const wishes = { metadata: { orderId: 'A-17' }, priority: 7, concurrencyKey: 'one', timeoutSeconds: 60, maxTries: 3 }
    const completed = await submit(call, 'work.steps', { count: 3, ms: 20 }, wishes)
    const failed = await submit(call, 'work.refuse', null, { callback: { events: ['task.failed'], retrySchedule: [1, 2] } })
    const arrivals = await receiver.receives(2)
    for (const { id } of [completed, failed]) {
      const { data } = arrivals.find((it) => it.event.data.id === id)!.event
      await delivery(call, `taskId=${id}`, 'delivered')
      const shown = await get(call, id)
      expect(shown.callback.status).toBe('delivered')
      expect(data).toEqual({ ...shown, callback: { ...shown.callback, status: null } })
    }
    const task = await get(call, failed.id)
    expect(task).toMatchObject({
      status: 'failed',
      result: null,
      error: { code: 'not_for_us', message: 'not for us', details: { why: 'asked' } },
    })
  })

  test('a receiver that was down for three attempts gets the same id and bytes, freshly signed', async () => {
    const { call, receiver } = await meet()
    const endpoint = await register(call, receiver.url, { retrySchedule: [0.3, 0.3, ...Array(10).fill(1)] })
    await receiver.shut()
    const task = await submit(call, 'demo.echo', { hello: 'world' })
    await eventually('three failed attempts', async () => (await deliveriesOf(call, `taskId=${task.id}`))[0]?.attempts.length >= 3)
    await receiver.open()
    const arrivals = await receiver.receives(1)
    const { attempts, tries } = await delivery(call, `taskId=${task.id}`, 'delivered')
    expect(attempts.slice(0, -1).map((it: { outcome: string }) => it.outcome)).toEqual(Array(tries - 1).fill('connect'))
    expect(attempts.at(-1)).toMatchObject({ outcome: 'success', httpStatus: 200 })
    expect(arrivals[0]!.headers['webhook-attempt']).toBe(String(tries))
    expect(tries).toBeGreaterThanOrEqual(4)
    const [event] = (await ok(call('GET', `/v1/tasks/${task.id}/events`))).json.data
    expect(arrivals[0]!.event).toEqual(event)
    await createReceiver({ issuer: url, audience: endpoint.audience }).verify(arrivals[0]!)
  })

  test('every attempt sends the same id and bytes under a fresh signature', async () => {
    const { call, receiver } = await meet()
    const endpoint = await register(call, receiver.url, { retrySchedule: [1.1, 1.1, 1.1] })
    receiver.answer(({ headers }) => ({ status: headers['webhook-attempt'] === '3' ? 204 : 503 }))
    const task = await submit(call, 'demo.echo', { a: 1 })
    const arrivals = await receiver.receives(3)
    expectSameEvent(arrivals)
    expect(arrivals.map((it) => it.headers['webhook-attempt'])).toEqual(['1', '2', '3'])
    for (const header of ['webhook-jws', 'webhook-signature', 'webhook-timestamp'])
      expect(new Set(arrivals.map((it) => it.headers[header])).size).toBe(3)
    for (const arrival of arrivals) await createReceiver({ issuer: url, audience: endpoint.audience }).verify(arrival)
    expect(await delivery(call, `taskId=${task.id}`, 'delivered')).toMatchObject({ tries: 3, maxTries: 4 })
  })

  test.each([429, 503])('%i with Retry-After is not undercut, not even for other events of the endpoint', async (status) => {
    const { call, receiver } = await meet()
    await register(call, receiver.url, { retrySchedule: [0, 0] })
    receiver.answer(({ headers, id }) =>
      id === receiver.arrivals[0]!.id && headers['webhook-attempt'] === '1' ? { status, headers: { 'retry-after': '2' } } : { status: 200 },
    )
    const first = await submit(call, 'demo.echo')
    await receiver.receives(1)
    const held = await eventually('the attempt recorded', async () =>
      (await deliveriesOf(call, `taskId=${first.id}`)).find((it: { attempts: unknown[] }) => it.attempts.length === 1),
    )
    expect(held).toMatchObject({ waitingFor: 'retryAfter', attempts: [{ retryAfterSeconds: 2, httpStatus: status }] })
    await submit(call, 'demo.echo')
    const arrivals = await receiver.receives(3)
    for (const later of arrivals.slice(1)) expect(later.at - arrivals[0]!.at).toBeGreaterThanOrEqual(2_000 - SKEW_MS)
  })

  test('410 disables the endpoint and ends the delivery; later events are held', async () => {
    const { call, receiver } = await meet()
    const endpoint = await register(call, receiver.url, { retrySchedule: [0, 0] })
    receiver.answer({ status: 410 })
    const task = await submit(call, 'demo.echo')
    const ended = await delivery(call, `taskId=${task.id}`, 'failed')
    expect(ended).toMatchObject({ tries: 1, attempts: [{ httpStatus: 410 }] })
    expect((await ok(call('GET', `/v1/endpoints/${endpoint.id}`))).json).toMatchObject({ status: 'disabled', disabledReason: 'gone' })
    const later = await submit(call, 'demo.echo')
    await ends(call, later.id)
    const [held] = await deliveriesOf(call, `taskId=${later.id}`)
    expect(held).toMatchObject({ status: 'pending', waitingFor: 'endpointDisabled', nextAttemptAt: null })
    expect(receiver.arrivals).toHaveLength(1)
    const feed = (await ok(call('GET', '/v1/events?types=endpoint.disabled'))).json.data
    expect(feed).toMatchObject([{ type: 'endpoint.disabled', data: { endpointId: endpoint.id, reason: 'gone' } }])
  })

  test('a paused endpoint holds its events and gets all of them when it is resumed', async () => {
    const { call, receiver } = await meet()
    const endpoint = await register(call, receiver.url)
    await ok(call('POST', `/v1/endpoints/${endpoint.id}/pause`))
    const tasks = await Promise.all([1, 2, 3].map((n) => submit(call, 'demo.echo', n)))
    for (const { id } of tasks) await ends(call, id)
    const held = await deliveriesOf(call, `endpointId=${endpoint.id}`)
    expect(held.map((it: { waitingFor: string }) => it.waitingFor)).toEqual(Array(3).fill('endpointPaused'))
    expect(receiver.arrivals).toHaveLength(0)
    await ok(call('POST', `/v1/endpoints/${endpoint.id}/resume`))
    const arrivals = await receiver.receives(3)
    expect(arrivals.map((it) => it.event.data.id).sort()).toEqual(tasks.map(({ id }) => id).sort())
  })

  test('callbacks go to all, to none, to one, or to a URL under a verified endpoint', async () => {
    const { call, receiver } = await meet()
    const a = await register(call, `${receiver.url}/a`)
    await register(call, `${receiver.url}/b`)
    const none = await submit(call, 'demo.echo', 'none', { callback: null })
    await submit(call, 'demo.echo', 'all')
    await submit(call, 'demo.echo', 'one', { callback: { endpointId: a.id } })
    await submit(call, 'demo.echo', 'under', { callback: { url: `${receiver.url}/a/deeper?order=17` } })
    const arrivals = await receiver.receives(4)
    expect(arrivals.map((it) => `${it.event.data.result} ${it.path}`).sort()).toEqual([
      'all /a',
      'all /b',
      'one /a',
      'under /a/deeper?order=17',
    ])
    const under = arrivals.find((it) => it.event.data.result === 'under')!
    await createReceiver({ issuer: url, audience: `${receiver.url}/a` }).verify(under)

    expect((await ends(call, none.id)).callback.status).toBe('none')
    expect(await deliveriesOf(call, `taskId=${none.id}`)).toEqual([])
    for (const elsewhere of [`${receiver.url}/ab`, `${receiver.url}/a%2fb`, 'http://127.0.0.1:9999/a'])
      expect(await call('POST', '/v1/tasks', { type: 'demo.echo', input: null, callback: { url: elsewhere } })).toMatchObject({
        status: 422,
        json: { code: 'callback_url_not_verified' },
      })
    const foreign = await meet()
    expect(await foreign.call('POST', '/v1/tasks', { type: 'demo.echo', input: null, callback: { endpointId: a.id } })).toMatchObject({
      status: 422,
      json: { errors: [{ pointer: '#/callback/endpointId' }] },
    })
  })

  test('custom headers are sent, shown starred, and cannot be those of the signature', async () => {
    const { call, receiver } = await meet()
    const endpoint = await register(call, receiver.url, { headers: { Authorization: 'Bearer ours', 'X-Team': 'blue' } })
    expect(endpoint.headers).toEqual({ Authorization: '***', 'X-Team': '***' })
    await submit(call, 'demo.echo')
    const [arrival] = await receiver.receives(1)
    expect(arrival!.headers).toMatchObject({ authorization: 'Bearer ours', 'x-team': 'blue' })
    const ours = ['webhook-id', 'Webhook-Timestamp', 'Webhook-Signature', 'WEBHOOK-JWS', 'webhook-attempt', 'webhook-anything', 'host']
    // RFC 9110, 7.6.1, and what frames a message.
    const hops = [
      'connection',
      'Keep-Alive',
      'proxy-connection',
      'TE',
      'trailer',
      'transfer-encoding',
      'upgrade',
      'content-length',
      'expect',
    ]
    const breaks = ['x\r\nwebhook-id: event_forged', 'x\ny', 'x\ry', 'x\0y']
    const forbidden: readonly object[] = [
      ...[...ours, ...hops, 'content-type', 'x\r\nwebhook-id', 'x y'].map((header) => ({ [header]: 'x' })),
      ...breaks.map((value) => ({ 'x-team': value })),
    ]
    for (const headers of forbidden) {
      const created = await call('POST', '/v1/endpoints', { url: `${receiver.url}/x`, headers })
      const changed = await call('PATCH', `/v1/endpoints/${endpoint.id}`, { headers })
      for (const { status, json } of [created, changed]) expect([headers, status, json.code]).toEqual([headers, 422, 'validation_failed'])
    }
  })

  test('a result over 64 KiB is fetched: null with resultUrl in the webhook and in the status alike', async () => {
    const { call, receiver } = await meet()
    await register(call, receiver.url)
    const task = await submit(call, 'work.fill', { bytes: 70_000 })
    const [arrival] = await receiver.receives(1)
    const shown = await ends(call, task.id)
    for (const document of [shown, arrival!.event.data]) {
      expect(document.result).toBeNull()
      expect(document.resultUrl).toBe(`${url}/v1/tasks/${task.id}/result`)
    }
    const { json } = await ok(call('GET', new URL(shown.resultUrl).pathname))
    expect(json).toEqual({ text: 'ü'.repeat(70_000) })
  })

  test('cancelling a running task ends it with one task.canceled', async () => {
    const { call, receiver } = await meet()
    await register(call, receiver.url)
    const task = await submit(call, 'work.nap', { ms: 30_000 })
    await eventually('the task running', async () => (await get(call, task.id)).status === 'running')
    const answer = await ok(call('POST', `/v1/tasks/${task.id}/cancel`))
    expect(answer).toMatchObject({ status: 202, json: { status: 'running', cancelRequestedAt: expect.any(String) } })
    const [arrival] = await receiver.receives(1)
    expect(arrival!.event).toMatchObject({ type: 'task.canceled', data: { id: task.id, status: 'canceled', result: null, error: null } })
    expect(await call('POST', `/v1/tasks/${task.id}/cancel`)).toMatchObject({ status: 200, json: { status: 'canceled' } })
    expect(eventTypes(await ok(call('GET', `/v1/tasks/${task.id}/events`)))).toEqual(['task.canceled'])
    expect(receiver.arrivals).toHaveLength(1)
  })

  test('a try that takes longer than timeoutSeconds is a failed try', async () => {
    const { call, receiver } = await meet()
    await register(call, receiver.url)
    const task = await submit(call, 'work.nap', { ms: 30_000 }, { timeoutSeconds: 1, maxTries: 1 })
    const [arrival] = await receiver.receives(1)
    expect(arrival!.event).toMatchObject({ type: 'task.failed', data: { id: task.id, tries: 1, error: { code: 'timeout' } } })
    const { startedAt, finishedAt } = arrival!.event.data
    expect(Date.parse(finishedAt) - Date.parse(startedAt)).toBeGreaterThanOrEqual(1_000 - SKEW_MS)
  })

  test('a failed try is told, and tried again', async () => {
    const { call, receiver } = await meet()
    await register(call, receiver.url, { events: ['task.started', 'task.completed'] })
    const task = await submit(call, 'work.stumble', { times: 2 })
    const done = await ends(call, task.id)
    expect(done).toMatchObject({ status: 'completed', tries: 3, generation: 1, error: null, lastError: { code: 'handler_error', try: 2 } })
    const arrivals = await receiver.receives(4)
    expect(arrivals.map((it) => it.event.type).sort()).toEqual(['task.completed', 'task.started', 'task.started', 'task.started'])
  })

  test('a task that is retried begins a new generation with an end of its own', async () => {
    const { call, receiver } = await meet()
    await register(call, receiver.url)
    const task = await submit(call, 'work.refuse')
    await receiver.receives(1)
    const again = await ok(call('POST', `/v1/tasks/${task.id}/retry`))
    expect(again).toMatchObject({ status: 202, json: { status: 'pending', generation: 2, tries: 0, error: null, finishedAt: null } })
    const arrivals = await receiver.receives(2)
    expect(arrivals.map((it) => it.event.data.generation)).toEqual([1, 2])
    expect(new Set(arrivals.map((it) => it.id)).size).toBe(2)
  })

  test('a redelivery sends the same id and bytes', async () => {
    const { call, receiver } = await meet()
    await register(call, receiver.url)
    const task = await submit(call, 'demo.echo', 1.5)
    const sent = await delivery(call, `taskId=${task.id}`, 'delivered')
    const answer = await ok(call('POST', `/v1/deliveries/${sent.id}/redeliver`))
    expect(answer).toMatchObject({ status: 202, json: { eventId: sent.eventId, trigger: 'redelivery', maxTries: 12 } })
    expect(answer.json.id).not.toBe(sent.id)
    expectSameEvent(await receiver.receives(2))
  })

  test('an erased task is gone, and its event cannot be sent again', async () => {
    const { call, receiver } = await meet()
    await register(call, receiver.url)
    const task = await submit(call, 'demo.echo')
    const sent = await delivery(call, `taskId=${task.id}`, 'delivered')
    expect((await call('DELETE', `/v1/tasks/${task.id}`)).status).toBe(204)
    for (const path of ['', '/result', '/input', '/events'])
      expect(await call('GET', `/v1/tasks/${task.id}${path}`)).toMatchObject({ status: 410, json: { code: 'task_expired' } })
    expect((await call('DELETE', `/v1/tasks/${task.id}`)).status).toBe(410)
    expect((await call('POST', `/v1/deliveries/${sent.id}/redeliver`)).status).toBe(410)
  })

  test('twenty simultaneous creates with one Idempotency-Key make one task', async () => {
    const { call, receiver } = await meet()
    await register(call, receiver.url)
    const create = (input: unknown) => call('POST', '/v1/tasks', { type: 'demo.echo', input }, { 'idempotency-key': 'order-17' })
    const answers = await Promise.all(Array.from({ length: 20 }, () => create({ order: 17 })))
    expect(answers.map((it) => it.status)).toEqual(Array(20).fill(202))
    expect(new Set(answers.map((it) => it.json.id)).size).toBe(1)
    expect(new Set(answers.map((it) => it.headers.get('location')))).toEqual(new Set([`${url}/v1/tasks/${answers[0]!.json.id}`]))
    expect(answers.filter((it) => it.headers.get('idempotent-replayed') === null)).toHaveLength(1)
    expect(await create({ order: 18 })).toMatchObject({ status: 422, json: { code: 'idempotency_key_reused' } })
    await receiver.receives(1)
    expect((await ok(call('GET', '/v1/tasks'))).json.data).toHaveLength(1)
    expect((await ok(call('GET', '/v1/events'))).json.data).toHaveLength(1)
  })

  test('Prefer: wait answers 200 with the ended task, or 202 when the time is over', async () => {
    const { call } = await meet()
    const prefer = (seconds: number) => ({ prefer: `wait=${seconds}` })
    const soon = await call('POST', '/v1/tasks', { type: 'work.nap', input: { ms: 100 } }, prefer(30))
    expect(soon).toMatchObject({ status: 200, json: { status: 'completed' } })
    expect(soon.headers.get('preference-applied')).toBe('wait=30')
    const late = await call('POST', '/v1/tasks', { type: 'work.nap', input: { ms: 30_000 } }, prefer(1))
    expect(late.status).toBe(202)
    expect(late.headers.get('retry-after')).toMatch(/^\d+$/)
    await ok(call('POST', `/v1/tasks/${late.json.id}/cancel`))
  })

  test('a long-poll answers when the task ends, and with If-None-Match on its first change', async () => {
    const { call } = await meet()
    const task = await submit(call, 'work.nap', { ms: 30_000 }, { delaySeconds: 0.3 })
    const end = call('GET', `/v1/tasks/${task.id}?wait=30`)
    const change = await call('GET', `/v1/tasks/${task.id}?wait=30`, undefined, { 'if-none-match': `W/"${task.revision}"` })
    expect(change).toMatchObject({ status: 200, json: { status: 'running', revision: task.revision + 1 } })
    await ok(call('POST', `/v1/tasks/${task.id}/cancel`))
    expect((await ok(end)).json).toMatchObject({ status: 'canceled', revision: task.revision + 3 })
    const tag = (await end).headers.get('etag')!
    expect((await call('GET', `/v1/tasks/${task.id}?wait=30`, undefined, { 'if-none-match': tag })).status).toBe(304)
  })

  test('a polling client sees progress rise and never fall', async () => {
    const { call } = await meet()
    const task = await submit(call, 'work.steps', { count: 20, ms: 150 })
    const seen: { progress: number; progressMessage: string | null; revision: number }[] = []
    for (let status = ''; status !== 'completed'; status = (seen.at(-1) as unknown as { status: string }).status) {
      const answer = await call('GET', `/v1/tasks/${task.id}?wait=10`, undefined, { 'if-none-match': `W/"${seen.at(-1)?.revision ?? 1}"` })
      if (answer.status === 200) seen.push(answer.json)
    }
    const progress = seen.map((it) => it.progress)
    expect(progress).toEqual([...progress].sort((a, b) => a - b))
    expect(new Set(progress).size).toBeGreaterThan(3)
    expect(progress.at(-1)).toBe(100)
    expect(seen.find((it) => it.progress === 50)?.progressMessage ?? 'step 10 of 20').toBe('step 10 of 20')
  })

  test('the feed holds the same envelopes as the webhooks, in one growing order', async () => {
    const { call, receiver } = await meet()
    await register(call, receiver.url)
    const empty = (await ok(call('GET', '/v1/events'))).json
    expect(empty.data).toEqual([])
    const wait = ok(call('GET', `/v1/events?after=${encodeURIComponent(empty.nextCursor)}&wait=30`))
    for (const type of ['demo.echo', 'work.refuse', 'work.instant', 'demo.echo']) {
      const task = await submit(call, type)
      await ends(call, task.id)
    }
    const heard = (await wait).json.data
    const arrivals = await receiver.receives(4)
    const feed = await ok(call('GET', '/v1/events'))
    expect(eventTypes(feed)).toEqual(['task.completed', 'task.failed', 'task.completed', 'task.completed'])
    expect(heard).toEqual(feed.json.data.slice(0, heard.length))
    for (const { body } of arrivals) expect(feed.text).toContain(body.toString())
    expect(feed.json.data.map((it: { id: string }) => it.id).sort()).toEqual(arrivals.map((it) => it.id).sort())
    const rest = await ok(call('GET', `/v1/events?after=${feed.json.data[1].id}`))
    expect(rest.json.data).toEqual(feed.json.data.slice(2))
  })
})

const fetchPlainly = async (url: string): Promise<Answer> => {
  const response = await fetch(url)
  const text = await response.text()
  return { status: response.status, headers: response.headers, text, json: JSON.parse(text) }
}

/** What a receiver without our library does: jose alone. */
function verifyPlainly({ headers }: Arrival, body: Buffer, jwks: Parameters<typeof createLocalJWKSet>[0]) {
  const [head, , signature] = headers['webhook-jws']!.split('.')
  const jws = { protected: head!, payload: base64url.encode(body), signature: signature! }
  return flattenedVerify(jws, createLocalJWKSet(jwks), { algorithms: ['ES256'] })
}

/** The same bytes but for one bit of one letter. */
function changed(body: Buffer): Buffer {
  const other = Buffer.from(body)
  other[other.indexOf('completed')]! ^= 0x20
  return other
}

function expectSameEvent(arrivals: readonly Arrival[]): void {
  expect(new Set(arrivals.map((it) => it.id)).size).toBe(1)
  expect(new Set(arrivals.map((it) => it.body.toString('base64'))).size).toBe(1)
}

const eventTypes = (answer: Answer): string[] => answer.json.data.map((it: { type: string }) => it.type)
