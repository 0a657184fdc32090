/** What `ringback serve` sends is taken by receivers that others wrote, and by ours, however it is mounted. */
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { CloudEvent, HTTP } from 'cloudevents'
import express from 'express'
import { Webhook as StandardWebhook } from 'standardwebhooks'
import { Webhook as SvixWebhook } from 'svix'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createReceiver, type HandledWebhook, memorySeen, verifyStandardWebhook } from '../../src/receiver/index.ts'
import { type Arrival, openReceiver, type Receiver } from '../support/receiver.ts'
import { type Call, eventually, type Home, newClient, ok, openHome } from '../support/server.ts'

/** Floats, unicode and an order of members that no parser keeps. */
const AWKWARD = { ü: '🐎\u2028"', z: 1.5e-7, a: [0.1, { '10': 1, '9': 2 }] }

let home: Home
let url: string
const endings: (() => unknown)[] = []
beforeAll(async () => {
  home = await openHome('SQLite')
  url = await (await home.start()).listening
}, 120_000)
afterAll(async () => {
  for (const end of endings) await end()
  await home.close()
})

/** A webhook of that format as it arrived, and the endpoint it was sent to. */
async function delivered(
  format: 'standard' | 'cloudevents',
): Promise<{ arrival: Arrival; secret: string; taskId: string; receiver: Receiver }> {
  const receiver = await openReceiver()
  endings.push(() => receiver.close())
  const { call } = await newClient(url)
  const { secret } = (await ok(call('POST', '/v1/endpoints', { url: receiver.url, format }))).json as { secret: string }
  const { id: taskId } = (await ok(call('POST', '/v1/tasks', { type: 'demo.echo', input: AWKWARD }))).json as { id: string }
  const [arrival] = await receiver.receives(1)
  return { arrival: arrival!, secret, taskId, receiver }
}

test.each(['standard', 'cloudevents'] as const)(
  'the libraries of Standard Webhooks and Svix take a webhook of format %s, unchanged only',
  async (format) => {
    const { arrival, secret, taskId } = await delivered(format)
    const headers = { ...arrival.headers }
    const body = arrival.body.toString()
    for (const library of [new StandardWebhook(secret), new SvixWebhook(secret)]) {
      expect(library.verify(body, headers)).toMatchObject({ type: 'task.completed', data: { id: taskId, result: AWKWARD } })
      expect(() => library.verify(`${body} `, headers)).toThrow(/signature/i)
    }
    expect((await verifyStandardWebhook(secret, { headers, body })).id).toBe(headers['webhook-id'])
  },
)

test('the CloudEvents SDK reads a webhook of format cloudevents as one valid event', async () => {
  const { arrival, taskId } = await delivered('cloudevents')
  const event = HTTP.toEvent({ headers: { ...arrival.headers }, body: arrival.body.toString() })
  if (!(event instanceof CloudEvent)) throw new Error('it is a batch')
  expect(event.validate()).toBe(true)
  expect(event).toMatchObject({
    specversion: '1.0',
    id: arrival.headers['webhook-id'],
    source: url,
    type: 'task.completed',
    subject: taskId,
    data: { id: taskId, status: 'completed', result: AWKWARD },
  })
  expect(event.sequence).toBe(String(event.data.revision))
})

/** Listens with what `make` makes of its address, registers that, and waits until it has proved itself. */
async function registered(call: Call, make: (audience: string) => RequestListener, settings: object = {}): Promise<void> {
  let listener: RequestListener = (_request, response) => void response.writeHead(503).end()
  const server = createServer((request, response) => listener(request, response)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  endings.push(() => {
    server.closeAllConnections()
    server.close()
  })
  const audience = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hooks`
  listener = make(audience)
  const { id } = (await ok(call('POST', '/v1/endpoints', { url: audience, ...settings }))).json as { id: string }
  await eventually('the endpoint proved', async () => (await ok(call('GET', `/v1/endpoints/${id}`))).json.status === 'active')
}

test('the receiver library in Express answers challenge and handshake, accepts both formats once each, and calls a failed handler again', async () => {
  const { call } = await newClient(url)
  const taken: HandledWebhook[] = []
  let stumbles = 1
  const mounted = (audience: string): RequestListener =>
    express()
      .all(
        '/hooks',
        createReceiver({ issuer: url, audience, seen: memorySeen(), allowOrigin: '127.0.0.1', onError: () => {} }).node((webhook) => {
          if (stumbles-- > 0) throw new Error('not yet')
          taken.push(webhook)
        }),
      )
      .use(express.json())
  const retrySchedule = [0, 0, 0]
  await registered(call, mounted, { format: 'standard', verification: 'challenge', retrySchedule })
  await registered(call, mounted, { format: 'cloudevents', verification: 'cloudevents', retrySchedule })
  const { id } = (await ok(call('POST', '/v1/tasks', { type: 'demo.echo', input: AWKWARD }))).json as { id: string }
  await eventually('both webhooks', () => taken.length === 2)
  for (const webhook of taken) {
    if (webhook.type !== 'task.completed') throw new Error(`it is ${webhook.type}`)
    expect([webhook.data.id, webhook.data.result]).toEqual([id, AWKWARD])
  }
  expect(taken.map((it) => it.attempt).sort()).toEqual([1, 2])
  const deliveries = await eventually('both delivered', async () => {
    const { data } = (await ok(call('GET', `/v1/deliveries?taskId=${id}`))).json as { data: { id: string; status: string }[] }
    return data.every(({ status }) => status === 'delivered') && data
  })
  // Sent again, it is known: answered 2xx, and the handler is spared.
  await ok(call('POST', `/v1/deliveries/${deliveries[0]!.id}/redeliver`))
  await eventually('delivered again', async () => {
    const { data } = (await ok(call('GET', `/v1/deliveries?taskId=${id}`))).json as { data: { status: string }[] }
    return data.length === 3 && data.every(({ status }) => status === 'delivered')
  })
  expect(taken).toHaveLength(2)
})
