/** What requests, answers and webhooks look like: one story, told in values that fit the shapes. The document shows them; a test holds them against it. */
import { type ErrorCode, errorStatuses } from '../../core/errors.ts'
import { endpointEventTypes, taskEventTypes } from '../../core/model.ts'
import { titleOf } from '../request/problem.ts'

const BASE = 'https://tasks.example.com'
const at = (second: number): string => `2026-11-22T10:00:${String(second).padStart(2, '0')}.000Z`
const TASK = 'task_01m82a2cmhfzn9hav3yz5hh6je'
const ENDPOINT = 'endpoint_01m82a2cn5e849zvhez4f4tdy4'
const EVENT = 'event_01m82a2cn5e849zvhez4f4tdy5'
const DELIVERY = 'delivery_01m82a2cn5e849zvhez4f4tdy6'
const CLIENT = 'client_01m82a2cn5e849zvhez4f4tdy7'
const KEY = 'key_01m82a2cn5e849zvhez4f4tdy8'
const SCHEDULE = 'schedule_01m82a2cn5e849zvhez4f4tdy9'
const BATCH = 'batch_01m82a2cn5e849zvhez4f4tdya'
const KID = 'oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U'

const task = (id: string, changes: object = {}) => ({
  id,
  type: 'report.build',
  status: 'pending',
  progress: 0,
  progressMessage: null as string | null,
  result: null as unknown,
  resultUrl: null,
  error: null,
  lastError: null,
  input: { month: '2026-10' } as unknown,
  inputUrl: null,
  metadata: { orderId: 'A-17' } as Record<string, string>,
  priority: 0,
  concurrencyKey: null,
  tries: 0,
  maxTries: 5,
  generation: 1,
  revision: 1,
  batchId: null as string | null,
  scheduleId: null,
  createdAt: at(0),
  runAt: at(0),
  startedAt: null as string | null,
  updatedAt: at(0),
  finishedAt: null as string | null,
  startBy: null,
  deadlineAt: null,
  timeoutSeconds: 3_600,
  cancelRequestedAt: null,
  expiresAt: null as string | null,
  estimatedCompletionAt: null,
  waitingFor: null,
  callback: { endpointId: null, url: null, events: null, retrySchedule: null, status: 'pending' as string | null },
  links: {
    self: `${BASE}/v1/tasks/${id}`,
    events: `${BASE}/v1/tasks/${id}/events`,
    cancel: `${BASE}/v1/tasks/${id}/cancel`,
    deliveries: `${BASE}/v1/deliveries?taskId=${id}`,
  },
  ...changes,
})
const started = { status: 'running', tries: 1, startedAt: at(1), updatedAt: at(3) }
const ended = { ...started, finishedAt: at(9), updatedAt: at(9), expiresAt: '2026-11-29T10:00:09.000Z', revision: 9 }

const pending = task(TASK)
const running = task(TASK, {
  ...started,
  progress: 42.5,
  progressMessage: 'page 3 of 7',
  revision: 5,
  estimatedCompletionAt: at(9),
})
const completed = task(TASK, { ...ended, status: 'completed', progress: 100, result: { rows: 1_204 } })
const failed = task(TASK, {
  ...ended,
  status: 'failed',
  progress: 42.5,
  error: { code: 'handler_error', message: 'the ledger of 2026-10 is still open', details: null },
})
const canceled = task(TASK, { ...ended, status: 'canceled', tries: 0, startedAt: null, revision: 2 })
const walk = (type: string, input: object) =>
  task('task_01m82a2cmhfzn9hav3yz5hh6jf', {
    type: `system.${type}`,
    input,
    metadata: {},
    callback: { ...pending.callback, status: 'none' },
  })

const page = (...data: unknown[]) => ({ data, hasMore: false, nextCursor: null as string | null })

const endpoint = {
  id: ENDPOINT,
  url: 'https://app.example.net/hooks',
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
  secret: null as string | null,
  secretHint: '…r1B=',
  jwksUrl: `${BASE}/.well-known/jwks.json`,
  audience: 'https://app.example.net/hooks',
  verification: { method: 'challenge', lastError: null, expiresAt: null as string | null },
  failingSince: null,
  lastSuccessAt: at(10) as string | null,
  createdAt: at(0),
  updatedAt: at(2),
  revision: 2,
}
const asked = {
  ...endpoint,
  status: 'pendingVerification',
  verification: { ...endpoint.verification, expiresAt: '2026-11-23T10:00:00.000Z' },
  lastSuccessAt: null,
  revision: 1,
}
const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo='

const attempt = {
  number: 1,
  startedAt: at(9),
  durationMs: 38,
  outcome: 'success',
  httpStatus: 204,
  error: null,
  timings: { dnsMs: 1, connectMs: 4, tlsMs: 9, firstByteMs: 31 },
  keyId: KID,
  retryAfterSeconds: null,
  responseHeaders: {},
  responseExcerpt: null,
  remoteAddress: null,
}
const owed = {
  id: DELIVERY,
  eventId: EVENT,
  eventType: 'task.completed',
  taskId: TASK as string | null,
  endpointId: ENDPOINT,
  url: endpoint.url,
  status: 'pending',
  tries: 0,
  maxTries: 12,
  nextAttemptAt: at(9) as string | null,
  waitingFor: null,
  canceledReason: null,
  deliveredAt: null as string | null,
  trigger: 'event',
  createdAt: at(9),
  attempts: [] as object[],
}
const delivered = { ...owed, status: 'delivered', tries: 1, nextAttemptAt: null, deliveredAt: at(9), attempts: [attempt] }
const ping = { ...owed, eventType: 'endpoint.ping', taskId: null, maxTries: 1, trigger: 'ping' }

const schedule = {
  id: SCHEDULE,
  type: 'report.build',
  cron: '30 6 1 * *',
  timezone: 'Europe/Berlin',
  catchUp: 'one',
  paused: false,
  input: { month: 'last' },
  metadata: {},
  callback: null,
  timeoutSeconds: null,
  maxTries: null,
  priority: 0,
  concurrencyKey: null,
  nextAt: '2026-12-01T05:30:00.000Z',
  lastAt: null,
  upcoming: [
    '2026-12-01T05:30:00.000Z',
    '2027-01-01T05:30:00.000Z',
    '2027-02-01T05:30:00.000Z',
    '2027-03-01T05:30:00.000Z',
    '2027-04-01T04:30:00.000Z',
  ],
  createdAt: at(0),
  updatedAt: at(0),
  revision: 1,
}

const client = { id: CLIENT, name: 'The shop', status: 'active', createdAt: at(0) }
const key = {
  id: KEY,
  clientId: CLIENT as string | null,
  name: 'checkout',
  scopes: ['tasks:write', 'tasks:read'],
  taskTypes: null as string[] | null,
  hint: 'rb_…Q9r8',
  createdAt: at(0),
  expiresAt: null,
  revokedAt: null,
  lastUsedAt: null as string | null,
}
const operatorKey = { ...key, clientId: null, name: 'deputy', scopes: ['admin'] }
const lease = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const claimed = {
  id: TASK,
  type: 'report.build',
  clientId: CLIENT,
  try: 1,
  maxTries: 5,
  generation: 1,
  fence: 1,
  lease: { token: lease, expiresAt: at(31), seconds: 30 },
  deadlineAt: null,
  timeoutSeconds: 3_600,
  traceparent: null,
  tracestate: null,
  input: pending.input,
  metadata: pending.metadata,
}
const auditEntry = {
  id: 'audit_01m82a2cn5e849zvhez4f4tdyb',
  at: at(9),
  actor: 'admin-token',
  action: 'key.revoke',
  target: KEY,
  clientId: CLIENT,
  details: {},
  requestId: 'request_1YUS1JXtq1N2000005',
  remoteAddress: '192.0.2.7',
}
const token = 'rb_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTw'

const taskType = {
  name: 'report.build',
  description: 'Builds the monthly report',
  inputSchema: { type: 'object', properties: { month: { type: 'string' } }, required: ['month'] },
  resultSchema: { type: 'object', properties: { rows: { type: 'number' } }, required: ['rows'] },
  timeoutSeconds: 3_600,
  maxTries: 5,
  concurrency: 8,
  typicalDurationMs: 8_200,
  pausedAt: null as string | null,
}

const signingKeys = page(
  {
    id: KID,
    state: 'active',
    alg: 'ES256',
    createdAt: at(0),
    publishedAt: at(0),
    activatedAt: at(0),
    retiredAt: null,
    signsFrom: null,
    leavesAt: null,
  },
  {
    id: 'NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs',
    state: 'next',
    alg: 'ES256',
    createdAt: at(0),
    publishedAt: at(0),
    activatedAt: null,
    retiredAt: null,
    signsFrom: null,
    leavesAt: null,
  },
)

const trouble = { endpointId: ENDPOINT, url: endpoint.url, reason: null as string | null, failingSince: at(0) }
const told: Readonly<Record<string, unknown>> = {
  'task.created': { ...pending, callback: { ...pending.callback, status: null } },
  'task.started': { ...task(TASK, { ...started, updatedAt: at(1), revision: 2 }), callback: { ...pending.callback, status: null } },
  'task.progress': { ...running, estimatedCompletionAt: null, callback: { ...pending.callback, status: null } },
  'task.completed': { ...completed, callback: { ...pending.callback, status: null } },
  'task.failed': { ...failed, callback: { ...pending.callback, status: null } },
  'task.canceled': { ...canceled, callback: { ...pending.callback, status: null } },
  'endpoint.ping': { endpointId: ENDPOINT },
  'endpoint.verification': {
    endpointId: ENDPOINT,
    challenge: 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo',
    expiresAt: '2026-11-23T10:00:00.000Z',
  },
  'endpoint.failing': trouble,
  'endpoint.disabled': { ...trouble, reason: 'failing' },
}
const event = (type: string) => ({ type, timestamp: at(9), id: EVENT as string | null, data: told[type] })

export interface NamedExample {
  readonly summary: string
  readonly value: unknown
}

/** Named as the document names them. */
export const examples = {
  pendingTask: { summary: 'A task that waits', value: pending },
  runningTask: { summary: 'A task that runs', value: running },
  completedTask: { summary: 'A task that completed', value: completed },
  failedTask: { summary: 'A task that failed', value: failed },
  canceledTask: { summary: 'A task that was canceled', value: canceled },
  stoppingTask: { summary: 'A run that was asked to stop', value: { ...running, cancelRequestedAt: at(4), revision: 6 } },
  retriedTask: { summary: 'A new generation', value: { ...pending, generation: 2, revision: 10 } },
  replayTask: {
    summary: 'The task that sends again',
    value: walk('replay', {
      endpointId: ENDPOINT,
      since: null,
      until: at(0),
      asOf: at(0),
      states: ['failed'],
      eventTypes: null,
    }),
  },
  bulkTask: {
    summary: 'The task that walks through the others',
    value: walk('cancel', { states: ['pending'], type: 'report.build', metadata: null, createdAfter: null, createdBefore: at(0) }),
  },
  batch: { summary: 'A batch', value: { id: BATCH, data: [{ ...pending, batchId: BATCH }] } },
  taskList: { summary: 'A page, and there is more', value: { ...page(completed), hasMore: true, nextCursor: 'WzE3OTUzNDE2MDAwMDBd' } },
  taskInput: { summary: 'Its input', value: pending.input },
  taskResult: { summary: 'Its result', value: completed.result },
  matched: { summary: 'What a dry run answers', value: { matched: 1_204 } },
  eventList: { summary: 'A page of the feed', value: { ...page(event('task.completed')), nextCursor: 'Wzcd' } },
  snapshot: { summary: 'The first frame', value: { ...event('task.created'), type: 'task.snapshot', id: null, data: running } },

  createTask: { summary: 'A task', value: { type: 'report.build', input: { month: '2026-10' }, metadata: { orderId: 'A-17' } } },
  createLater: {
    summary: 'A task for later, told to one endpoint',
    value: {
      type: 'report.build',
      input: { month: '2026-10' },
      delaySeconds: 3_600,
      callback: { endpointId: ENDPOINT, events: ['task.completed', 'task.failed'] },
      maxTries: 3,
    },
  },
  createBatch: {
    summary: 'Two tasks, both or none',
    value: { tasks: ['2026-09', '2026-10'].map((month) => ({ type: 'report.build', input: { month } })) },
  },
  cancelTasks: { summary: 'Whatever waits of a type', value: { status: ['pending'], type: 'report.build' } },
  retryTasks: { summary: 'Whatever failed of an order', value: { status: ['failed'], metadata: { orderId: 'A-17' } } },

  createSchedule: {
    summary: 'Every first of the month',
    value: { cron: '30 6 1 * *', timezone: 'Europe/Berlin', type: 'report.build', input: { month: 'last' } },
  },
  patchSchedule: { summary: 'A pause', value: { paused: true } },
  schedule: { summary: 'A schedule', value: schedule },
  scheduleList: { summary: 'A page of schedules', value: page(schedule) },

  createEndpoint: {
    summary: 'A receiver with a header of its own',
    value: { url: endpoint.url, description: 'The shop', headers: { Authorization: 'Bearer the-receiver-knows-it' } },
  },
  patchEndpoint: { summary: 'Fewer events, no header', value: { events: ['task.completed'], headers: { Authorization: null } } },
  verifyEndpoint: { summary: 'The challenge that came', value: { challenge: 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo' } },
  rotateSecret: { summary: 'Both sign for an hour', value: { overlapSeconds: 3_600 } },
  endpoint: { summary: 'An endpoint', value: endpoint },
  newEndpoint: { summary: 'With its secret', value: { ...asked, secret } },
  askedEndpoint: { summary: 'It is being asked', value: asked },
  rotatedEndpoint: { summary: 'With its new secret', value: { ...endpoint, secret, revision: 3 } },
  endpointList: { summary: 'A page of endpoints', value: page(endpoint) },

  delivery: { summary: 'Delivered at the first attempt', value: delivered },
  owedDelivery: { summary: 'Not sent yet', value: owed },
  pingDelivery: { summary: 'A ping, not sent yet', value: ping },
  pingedDelivery: {
    summary: 'A ping that was taken',
    value: { ...delivered, ...{ eventType: 'endpoint.ping', taskId: null, maxTries: 1, trigger: 'ping' } },
  },
  deliveryList: { summary: 'A page of deliveries', value: page(delivered) },
  replay: {
    summary: 'What failed in an hour',
    value: { endpointId: ENDPOINT, since: at(0), until: '2026-11-22T11:00:00.000Z', statuses: ['failed'] },
  },

  createClient: { summary: 'A client', value: { name: 'The shop' } },
  client: { summary: 'A client', value: client },
  suspendedClient: { summary: 'Suspended', value: { ...client, status: 'suspended' } },
  clientList: { summary: 'A page of clients', value: page(client) },
  createKey: { summary: 'A key that can submit and read', value: { name: 'checkout', scopes: ['tasks:write', 'tasks:read'] } },
  createOperatorKey: { summary: 'A second operator', value: { name: 'deputy', scopes: ['admin'] } },
  createdKey: { summary: 'The key, this once', value: { ...key, key: token } },
  createdOperatorKey: { summary: 'The key, this once', value: { ...operatorKey, key: token } },
  keyList: { summary: 'Keys', value: page({ ...key, lastUsedAt: at(9) }) },
  operatorKeyList: { summary: 'Keys', value: page(operatorKey) },
  claimTasks: { summary: 'One task, waited for', value: { types: ['report.build'], waitSeconds: 30 } },
  claimedTasks: { summary: 'A task and its lease', value: { tasks: [claimed] } },
  heartbeat: { summary: 'Still at it', value: { lease, progress: 42.5, message: 'page 3 of 7' } },
  completeTask: { summary: 'It is done', value: { lease, result: completed.result } },
  failTask: {
    summary: 'It failed, and shall be tried again in a minute',
    value: { lease, error: { code: 'ledger_open', message: 'the ledger of 2026-10 is still open' }, retryAfterSeconds: 60 },
  },
  releaseTask: { summary: 'For somebody else', value: { lease } },
  leaseKept: { summary: 'Kept', value: { leaseExpiresAt: at(41), leaseSeconds: 30, cancelRequested: false } },
  leaseEnded: { summary: 'The task has completed', value: { status: 'completed' } },
  rotateKey: { summary: 'Both are good for an hour', value: { overlapSeconds: 3_600 } },
  auditLog: { summary: 'A page of the audit log', value: page(auditEntry) },
  signingKeyList: { summary: 'One that signs, one that will', value: signingKeys },

  taskType: { summary: 'A task type', value: taskType },
  pausedTaskType: { summary: 'Paused', value: { ...taskType, pausedAt: at(5) } },
  taskTypeList: { summary: 'Task types', value: page(taskType) },
  health: { summary: 'It is up', value: { status: 'ok' } },
  readiness: { summary: 'It can', value: { status: 'ok', checks: { store: 'ok', scheduler: 'ok', dispatcher: 'ok' } } },
  jwks: {
    summary: 'Public keys',
    value: {
      keys: [
        {
          kty: 'EC',
          crv: 'P-256',
          alg: 'ES256',
          use: 'sig',
          kid: KID,
          x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU',
          y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0',
        },
      ],
    },
  },
  ...Object.fromEntries([...taskEventTypes, ...endpointEventTypes].map((type) => [type, { summary: `\`${type}\``, value: event(type) }])),
} as Readonly<Record<string, NamedExample>>

/** A refusal with that code. */
export const problemExample = (code: ErrorCode): NamedExample => ({
  summary: titleOf(code),
  value: {
    type: `urn:ringback:problem:${code}`,
    title: titleOf(code),
    status: errorStatuses[code],
    detail: code === 'validation_failed' ? '#/input/width must be >= 1.' : `${titleOf(code)}.`,
    instance: '/v1/tasks',
    code,
    requestId: 'request_1YUS1JXtq1N2000005',
    errors: code === 'validation_failed' ? [{ pointer: '#/input/width', detail: 'must be >= 1' }] : [],
  },
})
