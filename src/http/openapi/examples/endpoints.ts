/** Examples of endpoints and deliveries. */
import { at, BASE, CHALLENGE, ENDPOINT, ENDPOINT_URL, EVENT, named, page, SIGNING_KEY, TASK } from './story.ts'
import { pagedJob, taskExamples } from './tasks.ts'

const endpoint = {
  id: ENDPOINT,
  url: ENDPOINT_URL,
  status: 'active',
  disabledReason: null,
  description: 'The shop',
  events: ['task.completed', 'task.failed', 'task.canceled'],
  taskTypes: ['*'],
  headers: { Authorization: '***' },
  format: 'standard',
  payload: 'full',
  maxPerMinute: null,
  maxInFlight: 20,
  retrySchedule: null,
  secret: null,
  secretHint: '…r1B=',
  jwksUrl: `${BASE}/.well-known/jwks.json`,
  audience: ENDPOINT_URL,
  verification: { method: 'challenge', lastError: null, expiresAt: null as string | null },
  failingSince: null,
  lastSuccessAt: at(10),
  createdAt: at(0),
  updatedAt: at(2),
  revision: 2,
}
const unverified = {
  ...endpoint,
  status: 'pendingVerification',
  verification: { ...endpoint.verification, expiresAt: '2026-11-23T10:00:00.000Z' },
  lastSuccessAt: null,
  revision: 1,
}
const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo='

export const endpointExamples = named({
  createEndpoint: [
    'A receiver that asks for a header',
    { url: ENDPOINT_URL, description: 'The shop', headers: { Authorization: 'Bearer the-receiver-knows-it' } },
  ],
  patchEndpoint: ['Fewer events, and a header removed', { events: ['task.completed'], headers: { Authorization: null } }],
  verifyEndpoint: ['The challenge that the endpoint received', { challenge: CHALLENGE }],
  rotateSecret: ['Both secrets sign for an hour', { overlapSeconds: 3_600 }],
  endpoint: ['An endpoint', endpoint],
  newEndpoint: ['A new endpoint with its secret', { ...unverified, secret }],
  askedEndpoint: ['An endpoint that is being verified', unverified],
  rotatedEndpoint: ['An endpoint with its new secret', { ...endpoint, secret, revision: 3 }],
  endpointList: ['A page of endpoints', page(endpoint)],
})

const attempt = {
  number: 1,
  startedAt: at(9),
  durationMs: 38,
  outcome: 'success',
  httpStatus: 204,
  error: null,
  timings: { dnsMs: 1, connectMs: 4, tlsMs: 9, firstByteMs: 31 },
  keyId: SIGNING_KEY,
  retryAfterSeconds: null,
  responseHeaders: {},
  responseExcerpt: null,
  remoteAddress: null,
}
const owed = {
  id: 'delivery_01m82a2cn5e849zvhez4f4tdy6',
  eventId: EVENT,
  eventType: 'task.completed',
  taskId: TASK,
  endpointId: ENDPOINT,
  url: ENDPOINT_URL,
  status: 'pending',
  tries: 0,
  maxTries: 12,
  nextAttemptAt: at(9),
  waitingFor: null,
  canceledReason: null,
  deliveredAt: null,
  trigger: 'event',
  createdAt: at(9),
  attempts: [],
}
const delivered = { ...owed, status: 'delivered', tries: 1, nextAttemptAt: null, deliveredAt: at(9), attempts: [attempt] }
const ping = { eventType: 'endpoint.ping', taskId: null, maxTries: 1, trigger: 'ping' }
const until = '2026-11-22T11:00:00.000Z'
const replayInput = { endpointId: ENDPOINT, since: null, until: at(0), asOf: at(0), states: ['failed'], eventTypes: null }

export const deliveryExamples = {
  ...named({
    delivery: ['A delivery that succeeded at the first attempt', delivered],
    owedDelivery: ['A delivery that was not attempted yet', owed],
    pingDelivery: ['A ping that was not attempted yet', { ...owed, ...ping }],
    pingedDelivery: ['A ping that succeeded', { ...delivered, ...ping }],
    deliveryList: ['A page of deliveries', page(delivered)],
    replay: ['The deliveries that failed within an hour', { endpointId: ENDPOINT, since: at(0), until, statuses: ['failed'] }],
    replayTask: ['The task that sends the events again', pagedJob('replay', replayInput)],
  }),
  matched: taskExamples.matched,
}
