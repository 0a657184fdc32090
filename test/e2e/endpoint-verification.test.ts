/** Endpoint verification over real sockets by the whole platform on a manual clock, and once by `ringback serve`. */
import { createHmac } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { challengeOf } from '../../src/core/wire.ts'
import { openPlatform, type Platform } from '../support/platform.ts'
import { type Arrival, openReceiver, type Receiver, type Reply } from '../support/receiver.ts'
import { eventually, newClient, ok, openHome } from '../support/server.ts'

const JSON_TYPE = { 'content-type': 'application/json' }
const challenge = (arrival: Arrival): string => challengeOf(arrival.body.toString())!
const proof = (arrival: Arrival): Reply =>
  arrival.event?.type === 'endpoint.verification'
    ? { status: 200, headers: JSON_TYPE, body: JSON.stringify({ challenge: challenge(arrival) }) }
    : { status: 204 }

let receiver: Receiver
beforeEach(async () => {
  receiver = await openReceiver()
})
afterEach(() => receiver.close())

// biome-ignore lint/suspicious/noExplicitAny: tests read documents of many shapes without declaring each
type ApiDocument = any

interface Asked {
  readonly platform: Platform
  readonly id: string
  endpoint(): Promise<ApiDocument>
  verification(): Promise<ApiDocument>
  /** Waits until that many attempts are recorded. */
  attempted(count: number): Promise<void>
}

async function ask(given: object = {}): Promise<Asked> {
  const platform = await openPlatform({ endpointVerification: 'challenge' })
  const { id, status } = await platform.call('POST', '/v1/endpoints', { url: `${receiver.url}/hooks`, ...given })
  expect(status).toBe('pendingVerification')
  const verification = async () => (await platform.call('GET', `/v1/deliveries?endpointId=${id}&eventType=endpoint.verification`)).data[0]
  return {
    platform,
    id,
    endpoint: () => platform.call('GET', `/v1/endpoints/${id}`),
    verification,
    attempted: (count) => platform.until(async () => (await verification()).attempts.length >= count),
  }
}

describe('a challenge', () => {
  test('that is answered activates the endpoint, and its held deliveries arrive', async () => {
    receiver.answer({ status: 500 })
    const { platform, endpoint, verification, attempted } = await ask({ headers: { 'x-key': 'of the receiver' } })
    const task = await platform.call('POST', '/v1/tasks', { type: 'echo', input: {} })
    await attempted(1)
    const [first] = receiver.arrivals
    expect(first).toMatchObject({ method: 'POST', path: '/hooks' })
    expect(first!.headers).toMatchObject({ 'webhook-id': first!.event.id, 'webhook-attempt': '1', 'x-key': 'of the receiver' })
    expect(first!.headers['webhook-jws']).toMatch(/^[\w-]+\.\.[\w-]+$/)
    expect(await endpoint()).toMatchObject({
      status: 'pendingVerification',
      failingSince: null,
      verification: { method: 'challenge', lastError: 'The endpoint answered 500.', expiresAt: first!.event.data.expiresAt },
    })
    const held = await platform.call('GET', `/v1/deliveries?taskId=${task.id}`)
    expect(held.data[0]).toMatchObject({ status: 'pending', waitingFor: 'endpointUnverified' })
    receiver.answer(proof)
    await platform.pass(75_000)
    await platform.until(async () => (await endpoint()).status === 'active')
    expect((await endpoint()).verification).toEqual({ method: 'challenge', lastError: null, expiresAt: null })
    expect(await verification()).toMatchObject({ status: 'delivered', tries: 2 })
    await platform.until(() => receiver.arrivals.length === 3)
    expect(receiver.arrivals[2]!.event).toMatchObject({ type: 'task.completed', data: { id: task.id } })
  })

  test('is signed with the endpoint’s own secret', async () => {
    receiver.answer(proof)
    const platform = await openPlatform({ endpointVerification: 'challenge' })
    const { secret } = await platform.call('POST', '/v1/endpoints', { url: `${receiver.url}/hooks` })
    const [{ headers, body }] = (await receiver.receives(1)) as [Arrival]
    const signature = createHmac('sha256', Buffer.from(secret.slice('whsec_'.length), 'base64'))
      .update(`${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`)
      .digest('base64')
    expect(headers['webhook-signature']).toBe(`v1,${signature}`)
  })

  test('in the CloudEvents format is answered in the same way', async () => {
    receiver.answer((arrival) => ({ status: 200, headers: { 'content-type': 'text/plain' }, body: `${challenge(arrival)}\n` }))
    const { platform, id, endpoint } = await ask({ format: 'cloudevents' })
    await platform.until(async () => (await endpoint()).status === 'active')
    expect(receiver.arrivals[0]!.headers['content-type']).toBe('application/cloudevents+json')
    expect(receiver.arrivals[0]!.event).toMatchObject({ specversion: '1.0', type: 'endpoint.verification', data: { endpointId: id } })
  })

  test.each<[string, string, (arrival: Arrival) => Reply]>([
    ['a copy of itself', 'without the challenge', ({ body }) => ({ status: 200, headers: JSON_TYPE, body: body.toString() })],
    ['the proof under 204', 'answered 204', (arrival) => ({ ...proof(arrival), status: 204, body: '' })],
    ['an empty 200', 'without the challenge', () => ({ status: 200 })],
    [
      'a redirect',
      'redirects are not followed',
      (arrival) => ({ ...proof(arrival), status: 307, headers: { location: `${receiver.url}/other` } }),
    ],
    ['410', 'answered 410', () => ({ status: 410 })],
  ])('answered with %s proves nothing, and the endpoint says why', async (_, why, how) => {
    receiver.answer(how)
    const { platform, endpoint, verification, attempted } = await ask()
    await attempted(1)
    await platform.pass(75_000)
    await attempted(2)
    await platform.pass(725_000)
    await attempted(3)
    expect(await verification()).toMatchObject({ status: 'failed', tries: 3, maxTries: 3 })
    expect((await verification()).attempts.every(({ error }: { error: string }) => error.includes(why))).toBe(true)
    await platform.pass(3_600_000)
    expect(await endpoint()).toMatchObject({
      status: 'pendingVerification',
      disabledReason: null,
      failingSince: null,
      verification: { lastError: expect.stringContaining(why) },
    })
    expect(receiver.arrivals.map(({ path }) => path)).toEqual(['/hooks', '/hooks', '/hooks'])
  })

  test('answered after ten seconds is answered too late', async () => {
    receiver.answer((arrival) => ({ ...proof(arrival), afterMs: 60_000 }))
    const { platform, verification, attempted } = await ask()
    await platform.until(() => receiver.arrivals.length === 1)
    await platform.pass(9_900)
    expect((await verification()).attempts).toEqual([])
    await platform.pass(200)
    await attempted(1)
    expect((await verification()).attempts).toMatchObject([{ outcome: 'timeout', error: 'The endpoint did not answer in time.' }])
  })

  test('can be submitted over the API while it is the newest and has not expired', async () => {
    receiver.answer({ status: 202 })
    const { platform, id, endpoint, attempted } = await ask()
    await attempted(1)
    const show = (given: string) => platform.call('POST', `/v1/endpoints/${id}/verify`, { challenge: given })
    const first = challenge(receiver.arrivals[0]!)
    await expect(show(`${first.slice(0, -1)}!`)).rejects.toThrow('challenge_mismatch')
    expect(await platform.call('POST', `/v1/endpoints/${id}/verify`)).toMatchObject({ status: 'pendingVerification', revision: 2 })
    await expect(show(first), 'replaced').rejects.toThrow('challenge_mismatch')
    expect(receiver.arrivals, 'one a minute').toHaveLength(1)
    await platform.pass(60_000)
    await platform.until(() => receiver.arrivals.length === 2)
    const second = challenge(receiver.arrivals[1]!)
    await platform.pass(86_400_000)
    await expect(show(second), 'expired').rejects.toThrow('challenge_mismatch')
    await platform.call('POST', `/v1/endpoints/${id}/verify`)
    // A late retry of the expired challenge may fail and hold the lane for a while: time has to pass before the new one is sent.
    const third = () => receiver.arrivals.map(challenge).find((each) => each !== first && each !== second)
    await platform.until(async () => {
      if (third() === undefined) await platform.pass(1_000)
      return third() !== undefined
    })
    expect(await show(third()!)).toMatchObject({ status: 'active' })
    expect((await endpoint()).verification).toEqual({ method: 'challenge', lastError: null, expiresAt: null })
  })

  test('is never shown in anything that an API key can read', async () => {
    const { platform, id, endpoint, verification, attempted } = await ask()
    await attempted(1)
    const secret = challenge(receiver.arrivals[0]!)
    const feed = await platform.call('GET', '/v1/events')
    expect(feed.data).toMatchObject([{ type: 'endpoint.verification', data: { endpointId: id, challenge: null } }])
    const operator = await platform.operate('GET', `/v1/deliveries?endpointId=${id}`)
    for (const seen of [feed, operator, await endpoint(), await verification()]) expect(JSON.stringify(seen)).not.toContain(secret)
    await expect(platform.call('POST', `/v1/deliveries/${(await verification()).id}/redeliver`)).resolves.toMatchObject({
      status: 'pending',
    })
    expect(receiver.arrivals).toHaveLength(1)
  })

  test('that ended is not redelivered: the client must request a new one', async () => {
    receiver.answer(proof)
    const { platform, endpoint, verification } = await ask()
    await platform.until(async () => (await endpoint()).status === 'active')
    await expect(platform.call('POST', `/v1/deliveries/${(await verification()).id}/redeliver`)).rejects.toThrow('validation_failed')
  })

  test('is sent to the new URL when the URL changes, and again when a disabled endpoint is resumed', async () => {
    receiver.answer(proof)
    const { platform, id, endpoint } = await ask()
    const active = () => platform.until(async () => (await endpoint()).status === 'active')
    await active()
    await platform.pass(60_000)
    await platform.call('PATCH', `/v1/endpoints/${id}`, { url: `${receiver.url}/moved` })
    await active()
    expect(receiver.arrivals.map(({ path, event }) => [path, event.type])).toEqual([
      ['/hooks', 'endpoint.verification'],
      ['/moved', 'endpoint.verification'],
    ])
    await platform.pass(60_000)
    receiver.answer({ status: 410 })
    await platform.call('POST', '/v1/tasks', { type: 'echo', input: {} })
    await platform.until(async () => (await endpoint()).status === 'disabled')
    receiver.answer(proof)
    expect(await platform.call('POST', `/v1/endpoints/${id}/resume`)).toMatchObject({ status: 'pendingVerification', disabledReason: null })
    await active()
    expect(await platform.call('POST', `/v1/endpoints/${id}/verify`), 'asked for in vain').toMatchObject({ status: 'active' })
    expect(receiver.arrivals).toHaveLength(4)
  })
})

describe('a handshake of CloudEvents', () => {
  const cloudevents = { verification: 'cloudevents', format: 'cloudevents' }
  const consent = (headers: Record<string, string>) => (arrival: Arrival) =>
    arrival.method === 'OPTIONS' ? { status: 200, headers } : { status: 204 }

  test('sends the platform’s host and the requested rate without a body, and consent activates the endpoint', async () => {
    receiver.answer(consent({ 'webhook-allowed-origin': 'Tasks.Example' }))
    const { platform, endpoint, verification } = await ask({ ...cloudevents, maxPerMinute: 120, headers: { 'x-key': 'of the receiver' } })
    await platform.until(async () => (await endpoint()).status === 'active')
    const [asked] = receiver.arrivals
    expect(asked).toMatchObject({ method: 'OPTIONS', path: '/hooks', event: null })
    expect(asked!.headers).toMatchObject({
      'webhook-request-origin': 'tasks.example',
      'webhook-request-rate': '120',
      'x-key': 'of the receiver',
    })
    expect(Object.keys(asked!.headers)).not.toContain('content-length')
    expect(await verification()).toMatchObject({
      status: 'delivered',
      eventType: 'endpoint.verification',
      attempts: [{ outcome: 'success', keyId: null }],
    })
    await expect(platform.call('POST', `/v1/endpoints/${(await endpoint()).id}/verify`, { challenge: 'x' })).resolves.toMatchObject({
      status: 'active',
    })
  })

  test('respects the rate that the receiver allows', async () => {
    receiver.answer(consent({ 'webhook-allowed-origin': '*', 'webhook-allowed-rate': '60' }))
    const { platform, endpoint } = await ask(cloudevents)
    await platform.until(async () => (await endpoint()).status === 'active')
    for (let n = 0; n < 3; n++) await platform.call('POST', '/v1/tasks', { type: 'echo', input: n })
    const posts = () => receiver.arrivals.filter(({ method }) => method === 'POST').length
    await platform.until(() => posts() === 1)
    await platform.pass(900)
    expect(posts()).toBe(1)
    await platform.pass(200)
    await platform.until(() => posts() === 2)
    await platform.pass(1_100)
    await platform.until(() => posts() === 3)
  })

  test.each<[string, string, Reply]>([
    ['a bare 200', 'without WebHook-Allowed-Origin', { status: 200 }],
    ['another origin', 'names another origin', { status: 200, headers: { 'webhook-allowed-origin': 'other.example' } }],
    ['405', 'answered 405', { status: 405, headers: { 'webhook-allowed-origin': '*' } }],
  ])('answered with %s is no consent', async (_, why, reply) => {
    receiver.answer(reply)
    const { endpoint, attempted } = await ask(cloudevents)
    await attempted(1)
    expect(await endpoint()).toMatchObject({
      status: 'pendingVerification',
      verification: { method: 'cloudevents', lastError: expect.stringContaining(why) },
    })
  })
})

test('served with verification on, an endpoint that answers its challenge gets its webhooks', async () => {
  receiver.answer(proof)
  const home = await openHome('SQLite')
  try {
    const server = await home.start({ RINGBACK_ENDPOINT_VERIFICATION: 'challenge' })
    const { call } = await newClient(await server.listening)
    const made = (await ok(call('POST', '/v1/endpoints', { url: `${receiver.url}/served` }))).json
    expect(made.status).toBe('pendingVerification')
    await eventually('the endpoint is active', async () => (await ok(call('GET', `/v1/endpoints/${made.id}`))).json.status === 'active')
    await ok(call('POST', `/v1/endpoints/${made.id}/ping`))
    const arrivals = await receiver.receives(2)
    expect(arrivals.map(({ event }) => event.type)).toEqual(['endpoint.verification', 'endpoint.ping'])
  } finally {
    await home.close()
  }
})
