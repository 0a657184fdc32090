/** What every peer does alike: keys, the event's bytes, both signatures, and the POST. */
import { createHmac, createSecretKey } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK, FlattenedSign, generateKeyPair, type JWK } from 'jose'
import { Agent, request } from 'undici'

export interface Endpoint {
  readonly id: string
  readonly url: string
  /** `whsec_` and base64. */
  readonly secret: string
}

/** What is queued for running. */
export interface Task {
  readonly id: string
  readonly type: string
  readonly input: unknown
  readonly endpointId: string
  readonly createdAt: string
}

/** What is queued for sending: the exact bytes, fixed when the delivery is made. */
export interface Delivery {
  readonly eventId: string
  readonly endpointId: string
  readonly body: string
}

export const runTries = 5
export const deliverTries = 12

/** The demo handler: gives back its input. */
export async function runEcho(task: Task): Promise<unknown> {
  return task.input
}

export function renderTask(task: Task, status: 'pending' | 'completed', result: unknown) {
  const finishedAt = status === 'completed' ? new Date().toISOString() : null
  const { id, type, input, createdAt } = task
  const progress = status === 'completed' ? 100 : 0
  const callback = { endpointId: task.endpointId }
  return { id, type, status, progress, result, error: null, input, createdAt, finishedAt, callback, links: { self: `/v1/tasks/${id}` } }
}

export function makeDelivery(task: Task, result: unknown): Delivery {
  // Made from the task's id, so that a task run twice after a crash sends one webhook id.
  const eventId = task.id.replace('task_', 'event_')
  const timestamp = new Date().toISOString()
  const body = JSON.stringify({ type: 'task.completed', timestamp, id: eventId, data: renderTask(task, 'completed', result) })
  return { eventId, endpointId: task.endpointId, body }
}

export interface Sender {
  readonly jwks: { readonly keys: readonly JWK[] }
  /** Signs and posts; throws unless the answer is a 2xx, so that the queue retries. */
  send(delivery: Delivery, attempt: number): Promise<void>
}

export async function createSender(endpoints: readonly Endpoint[], issuer: string): Promise<Sender> {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true })
  const jwk = await exportJWK(publicKey)
  const kid = await calculateJwkThumbprint(jwk)
  const targets = new Map(
    endpoints.map(({ id, url, secret }) => [id, { url, key: createSecretKey(Buffer.from(secret.slice(6), 'base64')) }]),
  )
  const dispatcher = new Agent({ connections: 256, pipelining: 1, connectTimeout: 5_000, headersTimeout: 15_000, bodyTimeout: 20_000 })
  return {
    jwks: { keys: [{ ...jwk, kid, alg: 'ES256', use: 'sig' }] },
    async send({ eventId, endpointId, body }, attempt) {
      const target = targets.get(endpointId)
      if (target === undefined) throw new Error(`no endpoint ${endpointId}`)
      const iat = Math.floor(Date.now() / 1e3)
      const header = { alg: 'ES256', kid, typ: 'webhook+jws', iss: issuer, aud: target.url, iat, jti: eventId }
      const bytes = Buffer.from(body)
      const jws = await new FlattenedSign(bytes).setProtectedHeader(header).sign(privateKey)
      const mac = createHmac('sha256', target.key).update(`${eventId}.${iat}.`).update(bytes).digest('base64')
      const headers = {
        'content-type': 'application/json',
        'webhook-id': eventId,
        'webhook-timestamp': String(iat),
        'webhook-signature': `v1,${mac}`,
        'webhook-jws': `${jws.protected}..${jws.signature}`,
        'webhook-attempt': String(attempt),
      }
      const answer = await request(target.url, { method: 'POST', headers, body: bytes, dispatcher })
      await answer.body.dump()
      if (answer.statusCode < 200 || answer.statusCode > 299) throw new Error(`the endpoint answered ${answer.statusCode}`)
    },
  }
}
