/** The limit of drain: a loop that signs with jose and posts with `undici.request` over keep-alive. Nothing is read or recorded. */
import { createHmac, createSecretKey, randomBytes, randomUUID } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK, FlattenedSign, generateKeyPair } from 'jose'
import { Agent, request } from 'undici'
import { monotonicMs } from './clock.ts'
import { type SendCommand, type SendReport, serveCommands } from './protocol.ts'

const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true })
const kid = await calculateJwkThumbprint(await exportJWK(publicKey))
// As a key object: bare bytes cost more per signature.
const secret = createSecretKey(randomBytes(24))
const pad = 'x'.repeat(180)

function renderEvent(id: string, n: number): string {
  const at = new Date().toISOString()
  const payload = { n, pad }
  const task = {
    id: `task_${id}`,
    type: 'demo.echo',
    status: 'completed',
    progress: 100,
    progressMessage: null,
    result: payload,
    input: payload,
  }
  const times = {
    createdAt: at,
    runAt: at,
    startedAt: at,
    updatedAt: at,
    finishedAt: at,
    startBy: null,
    deadlineAt: null,
    timeoutSeconds: 3600,
  }
  const links = { self: `/v1/tasks/task_${id}`, events: `/v1/tasks/task_${id}/events`, cancel: `/v1/tasks/task_${id}/cancel` }
  return JSON.stringify({
    type: 'task.completed',
    timestamp: at,
    id,
    data: { ...task, ...times, metadata: {}, tries: 1, maxTries: 5, links },
  })
}

async function sendAll({ count, concurrency, urls }: SendCommand): Promise<SendReport> {
  const dispatcher = new Agent({ connections: concurrency, pipelining: 1 })
  let next = 0
  let accepted = 0
  const sendNext = async (n: number): Promise<void> => {
    const id = `event_${randomUUID()}`
    const aud = urls[n % urls.length]!
    const iat = Math.floor(Date.now() / 1e3)
    const body = Buffer.from(renderEvent(id, n))
    const header = { alg: 'ES256', kid, typ: 'webhook+jws', iss: 'http://127.0.0.1', aud, iat, jti: id }
    const jws = await new FlattenedSign(body).setProtectedHeader(header).sign(privateKey)
    const mac = createHmac('sha256', secret).update(`${id}.${iat}.`).update(body).digest('base64')
    const headers = {
      'content-type': 'application/json',
      'webhook-id': id,
      'webhook-timestamp': String(iat),
      'webhook-signature': `v1,${mac}`,
      'webhook-jws': `${jws.protected}..${jws.signature}`,
      'webhook-attempt': '1',
    }
    const answer = await request(aud, { method: 'POST', headers, body, dispatcher })
    await answer.body.dump()
    if (answer.statusCode < 300) accepted++
  }
  const loop = async (): Promise<void> => {
    while (next < count) await sendNext(next++)
  }
  const startedAt = monotonicMs()
  await Promise.all(Array.from({ length: concurrency }, loop))
  const endedAt = monotonicMs()
  await dispatcher.close()
  return { startedAt, endedAt, accepted }
}

serveCommands<SendCommand>(sendAll)
