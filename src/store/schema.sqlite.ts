/** The tables. Those on PostgreSQL are derived from them in `schema.postgres.ts`. */
import { sql } from 'drizzle-orm/sql/sql'
import { customType } from 'drizzle-orm/sqlite-core/columns/custom'
import { integer } from 'drizzle-orm/sqlite-core/columns/integer'
import { real } from 'drizzle-orm/sqlite-core/columns/real'
import { text } from 'drizzle-orm/sqlite-core/columns/text'
import { index, uniqueIndex } from 'drizzle-orm/sqlite-core/indexes'
import { primaryKey } from 'drizzle-orm/sqlite-core/primary-keys'
import { sqliteTable } from 'drizzle-orm/sqlite-core/table'
import type {
  AttemptOutcome,
  AuditAction,
  CanceledReason,
  ClientStatus,
  DisabledReason,
  EndpointFormat,
  EndpointPayload,
  EventType,
  SigningKeyState,
  State,
  Trigger,
} from '../core/model.ts'

/** An integer of 8 bytes: epoch milliseconds, or a counter of the whole installation. `schema.postgres.ts` knows it by its kind. */
const millis = customType<{ data: number }>({ dataType: () => 'integer' })

export const clients = sqliteTable('clients', {
  id: text('id').primaryKey(),
  name: text('name').notNull(),
  status: text('status').$type<ClientStatus>().notNull(),
  /** The number of events so far. The transaction that records an event increments it, so the numbers are in commit order. */
  seq: millis('seq').notNull(),
  createdAt: millis('created_at').notNull(),
})

export const keys = sqliteTable(
  'keys',
  {
    id: text('id').primaryKey(),
    clientId: text('client_id'),
    name: text('name').notNull(),
    hash: text('hash').notNull(),
    hint: text('hint').notNull(),
    scopes: text('scopes').notNull(),
    /** Task types a worker's key may claim, as JSON; null: every type. */
    taskTypes: text('task_types'),
    createdAt: millis('created_at').notNull(),
    expiresAt: millis('expires_at'),
    revokedAt: millis('revoked_at'),
    lastUsedAt: millis('last_used_at'),
  },
  (t) => [uniqueIndex('keys_hash').on(t.hash), index('keys_client').on(t.clientId)],
)

/** The columns of leased work, in both of its tables. */
const work = {
  id: text('id').primaryKey(),
  clientId: text('client_id').notNull(),
  laneId: text('lane_id').notNull(),
  state: text('state').$type<State>().notNull(),
  /** 0: claimable since it was created. 1: waits for `rank`, or was tried before. */
  line: integer('line').notNull(),
  /** The order within its line: in line 0 the creation time less the priority, in line 1 the due time. */
  rank: millis('rank').notNull(),
  dueAt: millis('due_at').notNull(),
  tries: integer('tries').notNull(),
  maxTries: integer('max_tries').notNull(),
  fence: integer('fence').notNull(),
  leasedUntil: millis('leased_until'),
  leasedBy: text('leased_by'),
}

export const tasks = sqliteTable(
  'tasks',
  {
    ...work,
    type: text('type').notNull(),
    generation: integer('generation').notNull(),
    revision: integer('revision').notNull(),
    input: text('input').notNull(),
    result: text('result'),
    error: text('error'),
    lastError: text('last_error'),
    progress: real('progress').notNull(),
    progressMessage: text('progress_message'),
    metadata: text('metadata').notNull(),
    priority: integer('priority').notNull(),
    concurrencyKey: text('concurrency_key'),
    callback: text('callback'),
    batchId: text('batch_id'),
    scheduleId: text('schedule_id'),
    createdAt: millis('created_at').notNull(),
    updatedAt: millis('updated_at').notNull(),
    startedAt: millis('started_at'),
    finishedAt: millis('finished_at'),
    startBy: millis('start_by'),
    deadlineAt: millis('deadline_at'),
    timeoutSeconds: integer('timeout_seconds').notNull(),
    cancelRequestedAt: millis('cancel_requested_at'),
    expiresAt: millis('expires_at'),
    traceparent: text('traceparent'),
    tracestate: text('tracestate'),
    /** The progress of a resumable task as JSON. It belongs to its handler and is not part of any document. */
    checkpoint: text('checkpoint'),
  },
  (t) => [
    index('tasks_pending').on(t.laneId, t.line, t.rank, t.id).where(sql`state = 'pending'`),
    index('tasks_running').on(t.laneId, t.leasedUntil).where(sql`state = 'running'`),
    index('tasks_client').on(t.clientId, t.createdAt, t.id),
    index('tasks_batch').on(t.batchId).where(sql`batch_id is not null`),
    index('tasks_overdue').on(t.startBy).where(sql`state = 'pending' and start_by is not null`),
    index('tasks_deadline').on(t.deadlineAt).where(sql`state in ('pending', 'running') and deadline_at is not null`),
  ],
)

/** Metadata by key, for the one metadata filter of a list. */
export const labels = sqliteTable(
  'labels',
  {
    clientId: text('client_id').notNull(),
    name: text('name').notNull(),
    value: text('value').notNull(),
    createdAt: millis('created_at').notNull(),
    taskId: text('task_id').notNull(),
  },
  (t) => [primaryKey({ columns: [t.clientId, t.name, t.value, t.createdAt, t.taskId] }), index('labels_task').on(t.taskId)],
)

export const events = sqliteTable(
  'events',
  {
    id: text('id').primaryKey(),
    clientId: text('client_id').notNull(),
    taskId: text('task_id'),
    endpointId: text('endpoint_id'),
    type: text('type').$type<EventType>().notNull(),
    /** 1: the terminal event of a generation. There is one for each task and generation. */
    terminal: integer('terminal').notNull(),
    generation: integer('generation').notNull(),
    revision: integer('revision').notNull(),
    seq: millis('seq').notNull(),
    body: text('body').notNull(),
    createdAt: millis('created_at').notNull(),
  },
  (t) => [
    uniqueIndex('events_terminal').on(t.taskId, t.generation).where(sql`terminal = 1`),
    uniqueIndex('events_feed').on(t.clientId, t.seq),
    index('events_task').on(t.taskId).where(sql`terminal = 0`),
  ],
)

export const deliveries = sqliteTable(
  'deliveries',
  {
    ...work,
    eventId: text('event_id').notNull(),
    eventType: text('event_type').$type<EventType>().notNull(),
    taskId: text('task_id'),
    endpointId: text('endpoint_id').notNull(),
    url: text('url'),
    body: text('body'),
    retrySchedule: text('retry_schedule'),
    trigger: text('trigger').$type<Trigger>().notNull(),
    retryAfterAt: millis('retry_after_at'),
    canceledReason: text('canceled_reason').$type<CanceledReason>(),
    createdAt: millis('created_at').notNull(),
    updatedAt: millis('updated_at').notNull(),
    finishedAt: millis('finished_at'),
  },
  (t) => [
    index('deliveries_pending').on(t.laneId, t.line, t.rank, t.id).where(sql`state = 'pending'`),
    index('deliveries_running').on(t.laneId, t.leasedUntil).where(sql`state = 'running'`),
    // Only for reads by age. Its second condition keeps other queries about pending deliveries off this index.
    index('deliveries_open').on(t.createdAt).where(sql`state = 'pending' and created_at > 0`),
    index('deliveries_client').on(t.clientId, t.createdAt, t.id),
    index('deliveries_endpoint').on(t.endpointId, t.createdAt, t.id),
    index('deliveries_task').on(t.taskId),
    // The joined text keeps this index apart from that of all pending deliveries.
    index('deliveries_progress').on(t.taskId).where(sql`event_type = 'task.progress' and state || '' = 'pending'`),
  ],
)

export const attempts = sqliteTable(
  'attempts',
  {
    deliveryId: text('delivery_id').notNull(),
    fence: integer('fence').notNull(),
    startedAt: millis('started_at').notNull(),
    durationMs: millis('duration_ms').notNull(),
    outcome: text('outcome').$type<AttemptOutcome>().notNull(),
    httpStatus: integer('http_status'),
    error: text('error'),
    timings: text('timings').notNull(),
    keyId: text('key_id'),
    retryAfterSeconds: millis('retry_after_seconds'),
    responseHeaders: text('response_headers').notNull(),
    responseExcerpt: text('response_excerpt'),
    remoteAddress: text('remote_address'),
  },
  (t) => [primaryKey({ columns: [t.deliveryId, t.fence] })],
)

export const endpoints = sqliteTable(
  'endpoints',
  {
    id: text('id').primaryKey(),
    clientId: text('client_id').notNull(),
    url: text('url').notNull(),
    description: text('description').notNull(),
    events: text('events').notNull(),
    taskTypes: text('task_types').notNull(),
    /** 1: it subscribes to events that are not terminal, so those are rendered. */
    follows: integer('follows').notNull(),
    headers: text('headers'),
    headerNames: text('header_names').notNull(),
    format: text('format').$type<EndpointFormat>().notNull(),
    payload: text('payload').$type<EndpointPayload>().notNull(),
    maxPerMinute: integer('max_per_minute'),
    maxInFlight: integer('max_in_flight').notNull(),
    /** Attempts a minute that the receiver allows (`WebHook-Allowed-Rate`). */
    allowedRate: integer('allowed_rate'),
    retrySchedule: text('retry_schedule'),
    secret: text('secret').notNull(),
    secretHint: text('secret_hint').notNull(),
    previousSecret: text('previous_secret'),
    previousSecretUntil: millis('previous_secret_until'),
    verification: text('verification').$type<'challenge' | 'cloudevents' | 'none'>().notNull(),
    verifiedAt: millis('verified_at'),
    /** Set once. An endpoint that was never verified holds its deliveries for one day only. */
    firstVerifiedAt: millis('first_verified_at'),
    /** The open verification. */
    verificationDeliveryId: text('verification_delivery_id'),
    verificationError: text('verification_error'),
    verificationExpiresAt: millis('verification_expires_at'),
    pausedAt: millis('paused_at'),
    disabledAt: millis('disabled_at'),
    disabledReason: text('disabled_reason').$type<DisabledReason>(),
    failingSince: millis('failing_since'),
    /** When `endpoint.failing` announced this episode. */
    failingToldAt: millis('failing_told_at'),
    lastSuccessAt: millis('last_success_at'),
    deletedAt: millis('deleted_at'),
    createdAt: millis('created_at').notNull(),
    updatedAt: millis('updated_at').notNull(),
    revision: integer('revision').notNull(),
  },
  (t) => [
    uniqueIndex('endpoints_url').on(t.clientId, t.url).where(sql`deleted_at is null`),
    index('endpoints_client').on(t.clientId, t.createdAt, t.id),
    index('endpoints_failing').on(t.failingSince).where(sql`failing_since is not null`),
    index('endpoints_unproven').on(t.createdAt).where(sql`first_verified_at is null and deleted_at is null`),
    index('endpoints_follows').on(t.clientId).where(sql`follows = 1`),
  ],
)

/** Lanes with a rule. A lane without one gets it at its first claim. */
export const lanes = sqliteTable('lanes', {
  id: text('id').primaryKey(),
  /** The most that may run at once; null: no limit. */
  cap: integer('cap'),
  /** Milliseconds between starts; null: no pace. */
  paceMs: millis('pace_ms'),
  pacedAt: millis('paced_at').notNull(),
  /** Nothing is claimed before this time. */
  heldUntil: millis('held_until').notNull(),
  /** 1: the lane is full and has no turn. The settlement that frees a slot adds one. */
  filled: integer('filled').notNull(),
  /** How many slow start allows at once, never more than `cap`; null: no slow start. */
  windowSize: integer('window_size'),
  /** The last success, to the second. */
  succeededAt: millis('succeeded_at').notNull().default(0),
  /** Failed attempts in a row. */
  failures: integer('failures').notNull().default(0),
  /** The pause between probes while the circuit breaker is open; 0: it is closed. */
  probeMs: millis('probe_ms').notNull().default(0),
  /** Attempts in a row that were blocked by a forbidden address, and since when. */
  blocked: integer('blocked').notNull().default(0),
  blockedSince: millis('blocked_since'),
})

/** The run queue: lanes with claimable work. */
export const turns = sqliteTable(
  'turns',
  {
    seq: integer('seq').primaryKey(),
    /** `delivery`, or `task/<type>`. */
    queue: text('queue').notNull(),
    clientId: text('client_id').notNull(),
    laneId: text('lane_id').notNull(),
    /** The order among the lanes of one client; null: not queued before `alarmAt`. */
    turn: millis('turn'),
    alarmAt: millis('alarm_at'),
  },
  (t) => [
    index('turns_line').on(t.queue, t.clientId, t.turn, t.seq).where(sql`turn is not null`),
    index('turns_alarm').on(t.alarmAt).where(sql`alarm_at is not null`),
    index('turns_lane').on(t.laneId),
  ],
)

/** What nodes share about a task type. The row is locked while running tasks of a type with a limit across nodes are counted. */
export const queues = sqliteTable('queues', {
  /** `task/<type>`. */
  id: text('id').primaryKey(),
  /** Set while the type is paused: nothing of it is claimed. */
  pausedAt: millis('paused_at'),
  /** When a worker of the type was last seen, to some seconds. */
  workerSeenAt: millis('worker_seen_at'),
})

/** Recurring tasks. */
export const schedules = sqliteTable(
  'schedules',
  {
    id: text('id').primaryKey(),
    clientId: text('client_id').notNull(),
    type: text('type').notNull(),
    cron: text('cron').notNull(),
    timezone: text('timezone').notNull(),
    catchUp: text('catch_up').$type<'none' | 'one' | 'all'>().notNull(),
    /** What each tick's task is created with, as JSON, without times. */
    template: text('template').notNull(),
    pausedAt: millis('paused_at'),
    /** The next tick; null: none. The commit that moves it creates the tick's task. */
    nextAt: millis('next_at'),
    lastAt: millis('last_at'),
    createdAt: millis('created_at').notNull(),
    updatedAt: millis('updated_at').notNull(),
    revision: integer('revision').notNull(),
  },
  (t) => [
    index('schedules_due').on(t.nextAt).where(sql`next_at is not null and paused_at is null`),
    index('schedules_client').on(t.clientId, t.createdAt, t.id),
  ],
)

export const idempotency = sqliteTable(
  'idempotency',
  {
    clientId: text('client_id').notNull(),
    scope: text('scope').notNull(),
    key: text('key').notNull(),
    fingerprint: text('fingerprint').notNull(),
    /** Ids of the created tasks, as JSON. */
    taskIds: text('task_ids').notNull(),
    expiresAt: millis('expires_at').notNull(),
  },
  (t) => [primaryKey({ columns: [t.clientId, t.scope, t.key] }), index('idempotency_expiry').on(t.expiresAt)],
)

/** Erased tasks, which answer 410 instead of 404 for a week. */
export const tombstones = sqliteTable(
  'tombstones',
  { id: text('id').primaryKey(), clientId: text('client_id').notNull(), expiresAt: millis('expires_at').notNull() },
  (t) => [index('tombstones_expiry').on(t.expiresAt)],
)

export const signingKeys = sqliteTable(
  'signing_keys',
  {
    id: text('id').primaryKey(),
    state: text('state').$type<SigningKeyState>().notNull(),
    alg: text('alg').$type<'ES256'>().notNull(),
    publicJwk: text('public_jwk').notNull(),
    privateJwk: text('private_jwk').notNull(),
    createdAt: millis('created_at').notNull(),
    publishedAt: millis('published_at').notNull(),
    activatedAt: millis('activated_at'),
    retiredAt: millis('retired_at'),
    /** When the rotation to this next key was requested. */
    wantedAt: millis('wanted_at'),
  },
  (t) => [uniqueIndex('signing_keys_slot').on(t.state).where(sql`state in ('active', 'next')`)],
)

/** Privileged changes, by operators and by keys. Append-only. */
export const auditLog = sqliteTable(
  'audit_log',
  {
    id: text('id').primaryKey(),
    at: millis('at').notNull(),
    /** The id of the key; `admin-token`; `system` for what the platform did by itself. */
    actor: text('actor').notNull(),
    /** Such as `key.revoke`. */
    action: text('action').$type<AuditAction>().notNull(),
    /** The id of the changed object. */
    target: text('target'),
    /** The client that owns it; null: none. */
    clientId: text('client_id'),
    /** More facts as JSON, never a secret. */
    details: text('details').notNull(),
    requestId: text('request_id'),
    remoteAddress: text('remote_address'),
  },
  (t) => [index('audit_log_client').on(t.clientId, t.id)],
)

/** Uses of each rate limit in its current window. */
export const rateLimits = sqliteTable('rate_limits', {
  key: text('key').primaryKey(),
  points: integer('points').notNull(),
  expire: millis('expire'),
})

export const settings = sqliteTable('settings', { name: text('name').primaryKey(), value: text('value').notNull() })
