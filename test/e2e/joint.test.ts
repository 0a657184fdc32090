/** Tasks and their webhooks joined: whatever tells of a task tells the same, and what a change of an endpoint meets in flight is not lost. */
import { base64url, createLocalJWKSet, flattenedVerify } from 'jose'
import { Webhook } from 'standardwebhooks'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readFrames } from '../support/frames.ts'
import { type Arrival, openReceiver, type Receiver } from '../support/receiver.ts'
import { type Call, databases, eventually, type Home, newClient, ok, openHome } from '../support/server.ts'

describe.concurrent.each(databases)('on %s', { timeout: 120_000 }, (name) => {
  let home: Home
  let url: string
  const receivers: Receiver[] = []
  beforeAll(async () => {
    home = await openHome(name)
    url = await (await home.start()).listening
  }, 120_000)
  afterAll(async () => {
    await Promise.all(receivers.map((receiver) => receiver.close()))
    await home.close()
  })
  const meet = async (): Promise<{ call: Call; key: string; receiver: Receiver }> => {
    const receiver = await openReceiver()
    receivers.push(receiver)
    return { ...(await newClient(url)), receiver }
  }
  const submit = async (call: Call, body: object): Promise<string> => (await ok(call('POST', '/v1/tasks', body))).json.id

  test('server-sent events, the feed, the status route and webhooks never disagree about a task, however it ends', async () => {
    const { call, key, receiver } = await meet()
    const events = ['task.created', 'task.started', 'task.progress', 'task.completed', 'task.failed', 'task.canceled']
    await ok(call('POST', '/v1/endpoints', { url: receiver.url, events, maxInFlight: 50 }))
    const bodies: readonly object[] = [
      { type: 'demo.echo', input: { a: 1 }, delaySeconds: 0.4 },
      { type: 'work.steps', input: { count: 4, ms: 120 } },
      { type: 'work.stumble', input: { times: 2 } },
      { type: 'work.refuse', input: null, delaySeconds: 0.4 },
      { type: 'work.nap', input: { ms: 60_000 }, timeoutSeconds: 1, maxTries: 1 },
      { type: 'work.nap', input: { ms: 60_000 } },
      { type: 'demo.echo', input: null, delaySeconds: 600 },
    ]
    const ids = await Promise.all(bodies.map((body) => submit(call, body)))
    const follow = async (id: string) => {
      const headers = { authorization: `Bearer ${key}`, accept: 'text/event-stream' }
      return readFrames(await fetch(`${url}/v1/tasks/${id}/events`, { headers })).rest()
    }
    const followed = ids.map(follow)
    const waited = ids.map(async (id) => (await ok(call('GET', `/v1/tasks/${id}?wait=30`))).json)
    await eventually('the nap running', async () => (await ok(call('GET', `/v1/tasks/${ids[5]}`))).json.status === 'running')
    for (const id of ids.slice(5)) await ok(call('POST', `/v1/tasks/${id}/cancel`))

    const streams = await Promise.all(followed)
    const polled = await Promise.all(waited)
    await eventually('every delivery settled', async () => {
      const { data } = (await ok(call('GET', '/v1/deliveries?limit=200'))).json
      return data.every(({ status }: { status: string }) => !['pending', 'sending'].includes(status))
    })
    const feed = (await ok(call('GET', '/v1/events?limit=200'))).json.data as Envelope[]
    const ended: string[] = []
    for (const [i, id] of ids.entries()) {
      const shown = (await ok(call('GET', `/v1/tasks/${id}`))).json
      const document = { ...shown, callback: { ...shown.callback, status: null } }
      const webhooks = receiver.arrivals.filter(({ event }) => event.data.id === id)
      const told = feed.filter(({ data }) => data.id === id)
      const frames = streams[i]!.filter(({ event }) => event !== 'comment')

      // The end is one event, the same everywhere to the byte, and what the status route shows from then on.
      const end = `task.${shown.status}`
      ended.push(end)
      const [arrived] = webhooks.filter(({ event }) => event.type === end)
      expect(arrived!.body.toString()).toBe(frames.at(-1)!.text)
      expect(told.at(-1)).toEqual(arrived!.event)
      expect(arrived!.event.data).toEqual(document)
      expect({ ...polled[i], callback: document.callback }).toEqual(document)
      expect(told.filter(({ type }) => TERMINAL.has(type))).toHaveLength(1)

      // So is everything before it: one revision is one state of the task, whoever tells of it.
      const states = new Map<number, object>()
      for (const data of [
        ...told.map((it) => it.data),
        ...webhooks.map(({ event }) => event.data),
        ...frames.map(({ json }) => json.data),
      ]) {
        const state = { ...data, callback: null, waitingFor: null, estimatedCompletionAt: null }
        const known = states.get(data.revision)
        if (known) expect(state, `revision ${data.revision} of ${id}`).toEqual(known)
        states.set(data.revision, state)
      }
      expect(Math.max(...states.keys())).toBe(shown.revision)
      const revisions = frames.map(({ json }) => json.data.revision)
      expect(revisions).toEqual([...revisions].sort((a, b) => a - b))
      const order = told.map(({ data }) => data.revision)
      expect(order).toEqual([...order].sort((a, b) => a - b))
      // Each webhook is an event of the feed; what was superseded was not sent.
      const known = new Map(told.map((it) => [it.id, it]))
      for (const { event } of webhooks) expect(event).toEqual(known.get(event.id))
    }
    expect(ended).toEqual([
      'task.completed',
      'task.completed',
      'task.completed',
      'task.failed',
      'task.failed',
      'task.canceled',
      'task.canceled',
    ])
  })

  test('a receiver that reads the task while it handles the webhook sees that revision or a later one', async () => {
    const { call, receiver } = await meet()
    const seen: { readonly told: number; readonly shown: number; readonly ended: boolean }[] = []
    const asking: Promise<void>[] = []
    receiver.answer(({ event }) => {
      asking.push(
        ok(call('GET', `/v1/tasks/${event.data.id}`)).then(({ json }) => {
          seen.push({ told: event.data.revision, shown: json.revision, ended: !TERMINAL.has(event.type) || json.finishedAt !== null })
        }),
      )
      return { status: 200 }
    })
    const events = ['task.created', 'task.started', 'task.completed', 'task.failed']
    await ok(call('POST', '/v1/endpoints', { url: receiver.url, events, maxInFlight: 100 }))
    const tasks = Array.from({ length: 30 }, (_, i) =>
      i % 5 === 0 ? { type: 'work.refuse', input: null } : { type: 'work.instant', input: i },
    )
    await ok(call('POST', '/v1/tasks/batch', { tasks }))
    await receiver.receives(90)
    await Promise.all(asking)
    expect(seen).toHaveLength(90)
    expect(seen.filter(({ told, shown, ended }) => shown < told || !ended)).toEqual([])
  })

  test('the signed bytes are the sent bytes for any numbers, characters and member order of the input', async () => {
    const { call, key, receiver } = await meet()
    const endpoint = (await ok(call('POST', '/v1/endpoints', { url: receiver.url }))).json
    const jwks = await (await fetch(`${url}/.well-known/jwks.json`)).json()
    // No serializer of ours would write these so.
    const inputs = [
      '{"z":1,"a":2,"10":3,"9":4,"":5}',
      '[1.0,1e2,1E+2,-0,0.1,1e-7,12345678901234567890,0.30000000000000004]',
      String.raw`{"é":"\u00e9","horse":"🐎","escaped":"\ud83d\udc0e","line":"\u2028","slash":"\/","del":"${'\u007f'}"}`,
      '  { "blanks" :\t[ 1 ,\r\n 2 ] }  ',
    ]
    for (const input of inputs) {
      const before = receiver.arrivals.length
      const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
      const made = await fetch(`${url}/v1/tasks`, { method: 'POST', headers, body: `{"type":"demo.echo","input":${input}}` })
      const { id } = (await made.json()) as { id: string }
      const arrival = (await receiver.receives(before + 1)).find(({ event }) => event.data.id === id)!
      const text = arrival.body.toString()
      await expect(verifyPlainly(arrival, arrival.body, jwks)).resolves.toBeDefined()
      expect(new Webhook(endpoint.secret).verify(text, arrival.headers)).toEqual(arrival.event)
      expect(text).toContain(`"input":${input.trim()},`)
      expect(JSON.stringify(arrival.event.data.result)).toBe(JSON.stringify(JSON.parse(input)))
      // Parsed and written anew they are other bytes, and do not verify.
      const again = Buffer.from(JSON.stringify(arrival.event))
      expect(again.equals(arrival.body)).toBe(false)
      await expect(verifyPlainly(arrival, again, jwks)).rejects.toThrow('signature verification failed')
      // The feed has the same bytes.
      expect((await ok(call('GET', `/v1/tasks/${id}/events`))).text).toContain(text)
    }
  })

  test('rotating the secret of an endpoint during retries, or deleting the endpoint, loses nothing silently', async () => {
    const { call, receiver } = await meet()
    const schedule = { retrySchedule: Array(15).fill(0.2) }
    const rotated = (await ok(call('POST', '/v1/endpoints', { url: `${receiver.url}/rotated`, ...schedule }))).json
    const deleted = (await ok(call('POST', '/v1/endpoints', { url: `${receiver.url}/deleted`, ...schedule }))).json
    let up = false
    // What was claimed before the rotation is signed with the one secret there was, and refused here like the rest.
    const both = (signatures: unknown): boolean => String(signatures).includes(' ')
    receiver.answer(({ path, headers }) => ({ status: up && path === '/rotated' && both(headers['webhook-signature']) ? 200 : 503 }))
    const { data } = (await ok(call('POST', '/v1/tasks/batch', { tasks: Array(3).fill({ type: 'demo.echo', input: 1 }) }))).json
    const ids: string[] = data.map((it: { id: string }) => it.id)
    for (const path of ['/rotated', '/deleted']) await receiver.receives(4, { path })
    const { secret } = (await ok(call('POST', `/v1/endpoints/${rotated.id}/rotate-secret`))).json
    await ok(call('DELETE', `/v1/endpoints/${deleted.id}`))
    const gone = receiver.arrivals.filter(({ path }) => path === '/deleted').length
    up = true

    // What was owed to the one arrives, under both secrets.
    const of = async (id: string) => (await ok(call('GET', `/v1/deliveries?endpointId=${id}&limit=200`))).json.data
    await eventually('all delivered', async () => (await of(rotated.id)).every((it: { status: string }) => it.status === 'delivered'), {
      withinMs: 30_000,
    })
    const taken = receiver.arrivals.filter(({ path, status }) => path === '/rotated' && status === 200)
    expect(taken.map(({ event }) => event.data.id).sort()).toEqual([...ids].sort())
    for (const { body, headers, event } of taken)
      for (const each of [rotated.secret, secret]) expect(new Webhook(each).verify(body.toString(), headers)).toEqual(event)

    // What was owed to the other is on record with its reason and its attempts, and in the feed.
    // What was being sent in that moment is canceled when it is answered.
    const canceled = await eventually('canceled', async () => {
      const found = await of(deleted.id)
      return found.every((it: { status: string }) => it.status === 'canceled') && found
    })
    expect(canceled).toHaveLength(3)
    for (const it of canceled) expect(it).toMatchObject({ status: 'canceled', canceledReason: 'endpointDeleted' })
    expect(canceled.some((it: { attempts: unknown[] }) => it.attempts.length > 0)).toBe(true)
    const feed = (await ok(call('GET', '/v1/events'))).json.data as Envelope[]
    expect(feed.map(({ type, data }) => `${type} ${data.id}`).sort()).toEqual(ids.map((id) => `task.completed ${id}`).sort())
    // An attempt that was in flight when it was deleted may still have been arriving; no further one was begun.
    const after = receiver.arrivals.filter(({ path }) => path === '/deleted').length
    expect(after - gone).toBeLessThanOrEqual(3)
  })
})

const TERMINAL = new Set(['task.completed', 'task.failed', 'task.canceled'])
interface Envelope {
  readonly id: string
  readonly type: string
  readonly data: { readonly id: string; readonly revision: number }
}

/** What a receiver without our library does: jose alone. */
function verifyPlainly({ headers }: Arrival, body: Buffer, jwks: unknown) {
  const [head, , signature] = headers['webhook-jws']!.split('.')
  const jws = { protected: head!, payload: base64url.encode(body), signature: signature! }
  return flattenedVerify(jws, createLocalJWKSet(jwks as never), { algorithms: ['ES256'] })
}
