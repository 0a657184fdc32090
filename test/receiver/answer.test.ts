/** What a receiver answers, by its core and by each adapter, over real sockets. */
import { once } from 'node:events'
import { createServer, request as httpRequest, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { getRequestListener } from '@hono/node-server'
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'
import { afterEach, describe, expect, test } from 'vitest'
import {
  createReceiver,
  memorySeen,
  type Receiver,
  type ReceiverOptions,
  type Webhook,
  WebhookVerificationError,
} from '../../src/receiver/index.ts'
import { makeVectors } from '../vectors/generate.ts'

const { issuer, audience, now, jwks, vectors } = makeVectors()
const vector = (name: string) => vectors.find((it) => it.name === name)!
const genuine = vector('ES256')
const challenge = vector('a challenge')
const forged = vector('a byte changed')
const { endpointId, challenge: challenged } = JSON.parse(challenge.body).data as { endpointId: string; challenge: string }

function receiverWith(options: Partial<ReceiverOptions> = {}): { receiver: Receiver; errors: [unknown, number][] } {
  const errors: [unknown, number][] = []
  const receiver = createReceiver({
    issuer,
    audience,
    jwks: { keys: [...jwks.keys] },
    clock: { wall: () => now * 1000 },
    onError: (error, status) => void errors.push([error, status]),
    ...options,
  })
  return { receiver, errors }
}

const endings: (() => unknown)[] = []
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end()
})

async function listening(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  endings.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/hooks`
}

describe('the core', () => {
  const post = (it: { headers: Readonly<Record<string, string>>; body: string }) => ({ method: 'POST', headers: it.headers, body: it.body })
  const fail = () => Promise.reject(new Error('the disk is full'))

  test('answers 204 after the handler has resolved, not before', async () => {
    const { receiver } = receiverWith()
    const done = Promise.withResolvers<void>()
    let answered = false
    const answering = receiver
      .answer(post(genuine), () => done.promise)
      .finally(() => {
        answered = true
      })
    await new Promise((resolve) => setImmediate(resolve))
    expect(answered).toBe(false)
    done.resolve()
    expect(await answering).toEqual({ status: 204, headers: {}, body: '' })
  })

  test('answers every challenge itself, without the handler', async () => {
    for (const options of [{}, { endpointId }, { seen: memorySeen() }]) {
      const { receiver } = receiverWith(options)
      for (let i = 0; i < 2; i++) {
        const { status, headers, body } = await receiver.answer(post(challenge), fail)
        expect([status, headers['content-type'], JSON.parse(body)]).toEqual([200, 'application/json', { challenge: challenged }])
      }
    }
  })

  test('answers no challenge that is forged or for another endpoint', async () => {
    const { receiver, errors } = receiverWith({ endpointId: 'endpoint_of_mine' })
    const other = await receiver.answer(post(challenge), fail)
    expect([other.status, other.body]).toEqual([403, '{"title":"wrong_endpoint","status":403}'])
    expect(String(errors[0]![0])).toContain(`The challenge is for "${endpointId}", not for "endpoint_of_mine".`)
    const changed = await receiver.answer(post({ ...challenge, body: challenge.body.replace('Y2', 'Y3') }), fail)
    expect(changed.status).toBe(401)
    expect(other.body + changed.body).not.toContain('challenge":')
  })

  test('answers 401 to a forgery with its code only, and passes the error to onError', async () => {
    const { receiver, errors } = receiverWith()
    const reply = await receiver.answer(post(vector('an audience with a slash more')), fail)
    expect(reply).toEqual({
      status: 401,
      headers: { 'content-type': 'application/problem+json' },
      body: '{"title":"wrong_audience","status":401}',
    })
    expect(errors).toEqual([[expect.any(WebhookVerificationError), 401]])
  })

  test.each(vectors)('gives every vector its status: $name', async ({ headers, body, jws }) => {
    const { receiver } = receiverWith()
    const { status } = await receiver.answer({ method: 'POST', headers, body: new TextEncoder().encode(body) }, () => {})
    expect(status).toBe(jws !== 'valid' ? 401 : body === challenge.body ? 200 : 204)
  })

  test('answers 500 when the handler throws, and lets the next attempt through', async () => {
    const { receiver, errors } = receiverWith({ seen: memorySeen() })
    expect((await receiver.answer(post(genuine), fail)).status).toBe(500)
    expect(errors).toEqual([[new Error('the disk is full'), 500]])
    const taken: Webhook[] = []
    const take = (webhook: Webhook): number => taken.push(webhook)
    expect((await receiver.answer(post(genuine), take)).status).toBe(204)
    expect((await receiver.answer(post(genuine), take)).status).toBe(200)
    expect(taken.map((it) => it.id)).toEqual([genuine.headers['webhook-id']])
  })

  test('answers 409 while another call handles the event, so that it is sent again if that call fails', async () => {
    const { receiver } = receiverWith({ seen: memorySeen() })
    const first = Promise.withResolvers<void>()
    const begun = Promise.withResolvers<void>()
    const answering = receiver.answer(post(genuine), () => {
      begun.resolve()
      return first.promise
    })
    await begun.promise
    expect((await receiver.answer(post(genuine), () => {})).status).toBe(409)
    first.reject(new Error('the disk is full'))
    expect((await answering).status).toBe(500)
    expect((await receiver.answer(post(genuine), () => {})).status).toBe(204)
  })

  test('stores no id of a forgery', async () => {
    const { receiver } = receiverWith({ seen: memorySeen() })
    expect((await receiver.answer(post(forged), fail)).status).toBe(401)
    expect((await receiver.answer(post(genuine), () => {})).status).toBe(204)
  })

  test('answers 503 when the keys or the seen ids cannot be read, without calling the handler', async () => {
    // Held at another address: nobody can come to listen at this one meanwhile.
    const elsewhere = createServer().listen(0, '127.0.0.9')
    endings.push(() => elsewhere.close())
    await once(elsewhere, 'listening')
    const { port } = elsewhere.address() as AddressInfo
    const lost = createReceiver({ issuer, audience, jwksUrl: `http://127.0.0.8:${port}/keys`, onError: () => {} })
    expect((await lost.answer(post(genuine), fail)).status).toBe(503)
    const { receiver } = receiverWith({ seen: { claim: fail, commit: () => {}, release: () => {} } })
    expect((await receiver.answer(post(genuine), fail)).status).toBe(503)
  })

  test('answers 204 after a handled event when the seen ids cannot be written, and calls onError', async () => {
    const { receiver, errors } = receiverWith({ seen: { claim: () => 'new', commit: fail, release: () => {} } })
    expect((await receiver.answer(post(genuine), () => {})).status).toBe(204)
    expect(errors).toEqual([[new Error('the disk is full'), 204]])
  })

  test('answers 413 beyond its limit and 405 to other methods', async () => {
    const { receiver } = receiverWith({ maxBodyBytes: genuine.body.length - 1 })
    expect((await receiver.answer(post(genuine), fail)).status).toBe(413)
    expect((await receiverWith({ maxBodyBytes: genuine.body.length }).receiver.answer(post(genuine), () => {})).status).toBe(204)
    for (const method of ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS']) {
      const reply = await receiver.answer({ method, headers: {}, body: '' }, fail)
      expect([reply.status, reply.headers.allow]).toEqual([405, 'POST'])
    }
  })

  test('answers the handshake of CloudEvents to the origin that is allowed', async () => {
    const ask = (origin: string | undefined, options: Partial<ReceiverOptions>) =>
      receiverWith(options).receiver.answer({ method: 'OPTIONS', headers: { 'WebHook-Request-Origin': origin }, body: '' }, fail)
    const granted = await ask('Tasks.example.com', { allowOrigin: 'tasks.example.com', allowRate: 120 })
    expect([granted.status, granted.headers]).toEqual([
      200,
      { allow: 'POST, OPTIONS', 'webhook-allowed-origin': 'Tasks.example.com', 'webhook-allowed-rate': '120' },
    ])
    const open = await ask('anybody.example.org', { allowOrigin: '*' })
    expect([open.headers['webhook-allowed-origin'], open.headers['webhook-allowed-rate']]).toEqual(['*', '*'])
    const refused = await ask('anybody.example.org', { allowOrigin: 'tasks.example.com' })
    expect([refused.status, refused.headers['webhook-allowed-origin']]).toEqual([403, undefined])
    expect((await ask(undefined, { allowOrigin: '*' })).status).toBe(400)
  })

  test('says how to fix a parsed body', async () => {
    const { receiver } = receiverWith()
    for (const body of [JSON.parse(genuine.body), null, undefined]) {
      const reply = await receiver.answer({ ...post(genuine), body }, fail)
      expect([reply.status, reply.body]).toEqual([500, expect.stringContaining('raw bytes')])
    }
  })

  test.each([{ maxBodyBytes: 0 }, { maxBodyBytes: Number.NaN }, { allowRate: 0 }])('is not created with the limit %j', (options) => {
    expect(() => receiverWith(options)).toThrow(/whole number of 1 or more/)
  })
})

/** Each way to mount a receiver: the address where it listens. */
const mounts: Record<string, (receiver: Receiver, take: (webhook: Webhook) => void) => Promise<string>> = {
  'node:http': (receiver, take) => listening(receiver.node(take)),
  Hono: (receiver, take) => {
    const app = new Hono()
    const receive = receiver.fetch(take)
    app.all('/hooks', (context) => receive(context.req.raw))
    return listening(getRequestListener(app.fetch))
  },
  Express: (receiver, take) => listening(express().all('/hooks', receiver.node(take)).use(express.json())),
  'Express behind express.raw': (receiver, take) =>
    listening(
      express()
        .use('/hooks', express.raw({ type: '*/*' }))
        .use(express.json())
        .all('/hooks', receiver.node(take)),
    ),
  Fastify: async (receiver, take) => {
    const app = fastify()
    app.register(async (scope) => {
      scope.removeAllContentTypeParsers()
      scope.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
      scope.all('/hooks', receiver.fastify(take))
    })
    endings.push(() => app.close())
    return `${await app.listen({ host: '127.0.0.1', port: 0 })}/hooks`
  },
}

describe.each(Object.entries(mounts))('mounted in %s', (name, mount) => {
  const send = (url: string, { headers, body }: typeof genuine, type = 'application/json') =>
    fetch(url, { method: 'POST', headers: { 'content-type': type, ...headers }, body })

  test('it accepts webhooks of both formats byte for byte, answers challenges, and refuses forgeries and other methods', async () => {
    const taken: Webhook[] = []
    const { receiver } = receiverWith({ allowOrigin: 'tasks.example.com' })
    const url = await mount(receiver, (webhook) => void taken.push(webhook))
    expect((await send(url, genuine)).status).toBe(204)
    expect((await send(url, vector('unicode, escaped and bare'))).status).toBe(204)
    expect((await send(url, vector('numbers that do not survive a parser'))).status).toBe(204)
    expect((await send(url, vector('a CloudEvents envelope'), 'application/cloudevents+json; charset=utf-8')).status).toBe(204)
    expect(taken.map((it) => it.type)).toEqual(Array(4).fill('task.completed'))
    const answer = await send(url, challenge)
    expect([answer.status, await answer.json()]).toEqual([200, { challenge: challenged }])
    const refusal = await send(url, forged)
    expect([refusal.status, refusal.headers.get('content-type'), await refusal.json()]).toEqual([
      401,
      expect.stringMatching(/^application\/problem\+json/),
      { title: 'bad_signature', status: 401 },
    ])
    expect((await send(url, vector('an empty body'))).status).toBe(401)
    for (const method of ['GET', 'PUT']) expect((await fetch(url, { method })).status).toBe(405)
    const asked = await fetch(url, { method: 'OPTIONS', headers: { 'webhook-request-origin': 'tasks.example.com' } })
    expect([asked.status, asked.headers.get('webhook-allowed-origin')]).toEqual([200, 'tasks.example.com'])
    expect(taken).toHaveLength(4)
  })

  test('it answers 413 to too large a body, announced or not', async () => {
    const { receiver } = receiverWith()
    const url = await mount(receiver, () => {})
    const large = new Uint8Array(1_048_577)
    expect((await fetch(url, { method: 'POST', headers: genuine.headers, body: large })).status).toBe(413)
    // express.raw answers by itself, once it has read everything.
    if (name !== 'Express behind express.raw') expect(await endless(url)).toBe(413)
    expect((await send(url, genuine)).status).toBe(204)
  })
})

/** The status that is answered to a body without end. */
async function endless(url: string): Promise<number | undefined> {
  const request = httpRequest(url, { method: 'POST', headers: { 'content-type': 'application/json' } })
  const body = Readable.from(
    (function* () {
      for (;;) yield Buffer.alloc(65_536)
    })(),
  )
  const answered = once(request, 'response')
  // It is cut while it sends.
  request.on('error', () => {})
  body.pipe(request)
  const [response] = (await answered) as [{ statusCode?: number }]
  body.destroy()
  request.destroy()
  return response.statusCode
}

describe('a parsed body is answered 500 with the fix', () => {
  const send = (url: string) =>
    fetch(url, { method: 'POST', headers: { 'content-type': 'application/json', ...genuine.headers }, body: genuine.body })

  test('in Express after express.json or express.text', async () => {
    for (const parser of [express.json(), express.text({ type: '*/*' })]) {
      const { receiver, errors } = receiverWith()
      const url = await listening(
        express()
          .use(parser)
          .post(
            '/hooks',
            receiver.node(() => expect.unreachable()),
          ),
      )
      const answer = await send(url)
      expect([answer.status, await answer.text()]).toEqual([500, expect.stringContaining("express.raw({ type: '*/*' })")])
      expect(errors).toEqual([[expect.any(TypeError), 500]])
    }
  })

  test('in Fastify with its own parser', async () => {
    const { receiver } = receiverWith()
    const app = fastify()
    app.post(
      '/hooks',
      receiver.fastify(() => expect.unreachable()),
    )
    endings.push(() => app.close())
    const answer = await send(`${await app.listen({ host: '127.0.0.1', port: 0 })}/hooks`)
    expect([answer.status, await answer.text()]).toEqual([500, expect.stringContaining("addContentTypeParser('*', { parseAs: 'buffer' }")])
  })

  test('as a Request', async () => {
    const { receiver } = receiverWith()
    const request = new Request(audience, { method: 'POST', headers: genuine.headers, body: genuine.body })
    await request.json()
    const answer = await receiver.fetch(() => expect.unreachable())(request)
    expect([answer.status, await answer.text()]).toEqual([500, expect.stringContaining('has been read already')])
  })
})
