/**
 * What a store promises. Every method is one transaction (or one consistent read); nothing outside `store/` opens one.
 * A merged call is total: a conflict is a row of the answer, never an error that fails its neighbours.
 * `clientId: null` in a query means: the operator, who sees every client's objects.
 * `by` is who acts: given, the act and its entry in the audit log are one commit. What a client does to its own tasks leaves no entry.
 */
import type {
  Attempt,
  AuditAction,
  AuditEntry,
  Author,
  CatchUp,
  Client,
  ClientStatus,
  Delivery,
  Endpoint,
  Event,
  EventType,
  Json,
  Key,
  Kind,
  Millis,
  Outcome,
  Schedule,
  Signal,
  SigningKey,
  State,
  Task,
} from '../model.ts'

/** A task to be written. Times are the client's own; the store adds its clock's. */
export interface NewTask {
  readonly id: string
  readonly clientId: string
  readonly type: string
  readonly input: Json
  readonly metadata: Json
  readonly callback: Json | null
  /** Not before this time; null: at once. */
  readonly dueAt: Millis | null
  readonly startBy: Millis | null
  readonly deadlineAt: Millis | null
  readonly timeoutSeconds: number
  readonly maxTries: number
  readonly priority: number
  readonly concurrencyKey: string | null
  readonly batchId: string | null
  /** Left out: no schedule made it. */
  readonly scheduleId?: string | null
  readonly traceparent: string | null
  readonly tracestate: string | null
}

/** `Idempotency-Key` of a create: kept 24 h, one commit with its tasks. */
export interface Idempotency {
  readonly clientId: string
  /** Method and path, e.g. `POST /v1/tasks`. */
  readonly scope: string
  readonly key: string
  /** SHA-256 of the RFC 8785 canonical body, hexadecimal. */
  readonly fingerprint: string
}

/** What one request submits: one task, or a batch; all or nothing. */
export interface Intake {
  readonly tasks: readonly NewTask[]
  readonly idempotency: Idempotency | null
}

/** `replayed`: the key was used before with the same body; the tasks are as they are now. */
export type Submitted =
  | { readonly kind: 'added' | 'replayed'; readonly tasks: readonly Task[] }
  | { readonly kind: 'reused' }
  | { readonly kind: 'gone' }

/** An object, or why there is none: never there (or another client's), or erased and remembered. */
export type Found<T> = { readonly kind: 'found'; readonly value: T } | { readonly kind: 'missing' } | { readonly kind: 'gone' }

export type CallbackStatus = 'none' | 'pending' | 'delivered' | 'failed'

export interface Page<T> {
  readonly items: readonly T[]
  /** Where the next page starts; null: there is none. */
  readonly next: Position | null
}
/** A place in a list: the sort key of the last row given. */
export interface Position {
  readonly at: Millis
  readonly id: string
}

/** A place in the line of pending tasks, which a count has come to. */
export interface OpenMark extends Pick<Task, 'laneId' | 'id'> {
  readonly line: number
  readonly rank: Millis
}

export interface TaskFilter {
  readonly states?: readonly State[]
  readonly type?: string
  readonly batchId?: string
  readonly metadata?: { readonly key: string; readonly value: string }
  readonly createdAfter?: Millis
  readonly createdBefore?: Millis
}
export interface TaskQuery extends TaskFilter {
  readonly clientId: string | null
  readonly order: 'asc' | 'desc'
  readonly limit: number
  readonly after: Position | null
}
export interface DeliveryQuery {
  readonly clientId: string | null
  readonly endpointId?: string
  readonly taskId?: string
  readonly states?: readonly State[]
  readonly eventType?: EventType
  readonly since?: Millis
  readonly until?: Millis
  readonly limit: number
  readonly after: Position | null
}

export interface NewEndpoint {
  readonly id: string
  readonly clientId: string
  readonly url: string
  readonly description: string
  readonly events: Json
  readonly taskTypes: Json
  readonly headers: string | null
  readonly headerNames: Json
  readonly format: Endpoint['format']
  readonly payload: Endpoint['payload']
  readonly maxPerMinute: number | null
  readonly maxInFlight: number
  readonly retrySchedule: Json | null
  readonly secret: string
  readonly secretHint: string
  readonly verification: Endpoint['verification']
  /** Verified from the start: no ownership check is asked for. */
  readonly verified: boolean
}
/** Members left out stay as they are. */
export type EndpointPatch = Partial<
  Pick<
    Endpoint,
    | 'url'
    | 'description'
    | 'events'
    | 'taskTypes'
    | 'headers'
    | 'headerNames'
    | 'format'
    | 'payload'
    | 'maxPerMinute'
    | 'maxInFlight'
    | 'retrySchedule'
    | 'secret'
    | 'secretHint'
    | 'previousSecret'
    | 'previousSecretUntil'
  >
> & {
  /** true: now; false: cleared. */
  readonly paused?: boolean
  readonly disabled?: Endpoint['disabledReason'] | false
  /** true: verified now; false: to be verified anew: a verification begins, deliveries are held. */
  readonly verified?: boolean
}
export type Changed<T> =
  | { readonly kind: 'changed'; readonly value: T }
  | { readonly kind: 'missing' }
  | { readonly kind: 'stale' }
  | { readonly kind: 'duplicate' }

/** `duplicate`: the client has one such. `full`: it has as many as it may have. */
export type Added<T> = { readonly kind: 'added'; readonly value: T } | { readonly kind: 'duplicate' } | { readonly kind: 'full' }

export type NewSchedule = Pick<Schedule, 'id' | 'clientId' | 'type' | 'cron' | 'timezone' | 'catchUp' | 'template' | 'nextAt'> & {
  readonly paused: boolean
}
/** Members left out stay as they are. */
export type SchedulePatch = Partial<Pick<Schedule, 'cron' | 'timezone' | 'catchUp' | 'template' | 'nextAt'>> & { readonly paused?: boolean }
/** A schedule as whoever ticks it sees it. */
export interface DueSchedule {
  readonly id: string
  readonly clientId: string
  readonly type: string
  readonly cron: string
  readonly timezone: string
  readonly catchUp: CatchUp
  readonly nextAt: Millis
  readonly revision: number
  /** Characters of its template. */
  readonly size: number
}
/** Ticks of a schedule to be made, and where it goes on. Nothing happens when the schedule is no longer as `due` shows it. */
export interface Tick {
  readonly due: Pick<DueSchedule, 'id' | 'nextAt' | 'revision' | 'size'>
  /** A task for each, its `runAt` that time. None: they are skipped. */
  readonly times: readonly Millis[]
  readonly nextAt: Millis | null
  /** What the type says, where the schedule does not. */
  readonly timeoutSeconds: number
  readonly maxTries: number
}

export interface Claim {
  readonly limit: number
  readonly leaseMs: Millis
  /** The boot that claims. */
  readonly by: string
}
/** Task types this node runs, and their limits across nodes (null: none). */
export interface TaskClaim extends Claim {
  readonly types: readonly { readonly type: string; readonly concurrency: number | null }[]
}
/** What nodes share about a task type. */
export interface QueueState {
  readonly type: string
  /** Since when nothing of it is claimed; null: it is not paused. */
  readonly pausedAt: Millis | null
  /** When somebody who runs it was last there, to some seconds; null: never. */
  readonly workerSeenAt: Millis | null
}
/** What may hold tasks up, beside their time. */
export interface Holds {
  readonly queues: ReadonlyMap<string, QueueState>
  /** Lanes in which as many run as may. */
  readonly filled: ReadonlySet<string>
  /** How many run of each type, on all nodes. */
  readonly running: ReadonlyMap<string, number>
}
export interface Claimed<W> {
  readonly items: readonly W[]
  /** Milliseconds until the next work falls due, as far as is known; null: nothing waits for a time. */
  readonly nextInMs: Millis | null
  /** More was claimable than the limit allowed, or lanes were busy: claim again as soon as a slot is free. */
  readonly more: boolean
}
/** A delivery with what sending it takes. */
export interface Owed extends Delivery {
  readonly eventBody: string
  readonly endpoint: Endpoint
  readonly traceparent: string | null
}

/**
 * A pump's free slots, lent to the store: work may then start in the very commit that makes it claimable, which saves the claim.
 * Only where nothing waits before it, so that nobody is overtaken.
 */
export interface Starter<W> {
  /** The boot that runs what is started. */
  readonly by: string
  readonly leaseMs: Millis
  /** Takes up to `most` free slots. Each is used by `start` or given back by `release`. */
  reserve(most: number): number
  release(slots: number): void
  start(items: readonly W[]): void
}

export interface Expired {
  readonly tasks: readonly Task[]
  readonly deliveries: readonly Delivery[]
}

/** The one door out of `running`. `fence` must still be the task's. */
export interface Settlement {
  readonly id: string
  readonly fence: number
  readonly outcome: Outcome
  /** Of a task: by what name its holder ended the lease, remembered for an hour, so that a repetition is known as one. Left out: it is not. */
  readonly as?: LeaseEnd
}
/** How a worker over HTTP ends its lease. */
export type LeaseEnd = 'complete' | 'fail' | 'release'
/** A delivery's settlement: the attempt is recorded even when the lease was lost, since the POST did happen. */
export interface DeliverySettlement extends Settlement {
  readonly attempt: Omit<Attempt, 'deliveryId' | 'fence'> | null
  readonly endpoint: {
    readonly id: string
    /** Its URL when this was claimed: what was learned at another one does not count against it. Null: whatever it is. */
    readonly url: string | null
    /** What the lane's breaker and slow start hear; null: nothing. */
    readonly signal: Signal | null
    /** Success clears `failingSince`; failure sets it when clear. */
    readonly succeeded: boolean | null
    readonly disable: Endpoint['disabledReason']
    /** Retry-After: the whole lane waits this long. */
    readonly holdMs: Millis | null
    /** Of a verification that passed: the attempts a minute its receiver allows; null or left out: any number. */
    readonly allowedRate?: number | null
  }
}
export type Settled<W> = { readonly kind: 'settled'; readonly value: W } | { readonly kind: 'stale' }
export interface Reported {
  readonly kind: 'settled'
  readonly value: Task
  /** `early`: nobody was told, for that was not asked or another report was told within the second; `nobody`: the task has no follower. */
  readonly heard: 'told' | 'early' | 'nobody'
}
export interface Progress {
  readonly id: string
  readonly fence: number
  readonly progress: number
  readonly message: string | null
  /** Whether those who subscribe to progress are to be told: at most once a second of a task, whoever reports. */
  readonly told: boolean
}
export interface Held {
  readonly id: string
  readonly fence: number
}
/** What became of a lease: renewed, or lost; and whether the client asked to cancel meanwhile. */
export interface Renewal {
  readonly id: string
  readonly kept: boolean
  readonly cancelRequested: boolean
}

/** Why a lane does not take what is due. */
export interface LaneState {
  readonly id: string
  readonly heldUntil: Millis
  /** The pause between probes while the breaker is tripped; 0: it is not. */
  readonly probeMs: Millis
  /** As many run as may. */
  readonly filled: boolean
  /** Its pace lets the next one start then; null: it has no pace. */
  readonly pacedUntil: Millis | null
}

export interface Aged {
  readonly removed: number
  /** Where to go on; null: the rest is too young, begin anew. */
  readonly next: string | null
}
/** What is to be sent again. */
export interface ReplayFilter {
  readonly clientId: string
  /** Null: every endpoint of the client. */
  readonly endpointId: string | null
  readonly since: Millis | null
  /** Not counting that moment itself. */
  readonly until: Millis
  /** When it was asked for: what was made later, the replay's own deliveries for one, is not looked at. */
  readonly asOf: Millis
  /** Ended states. */
  readonly states: readonly State[]
  readonly eventTypes: readonly EventType[] | null
}
/** How far a walk along a client's rows has come. */
export interface Walked {
  /** Where the next page starts. */
  readonly after: Position | null
  readonly done: boolean
}
export interface ReplayCheckpoint extends Walked {
  readonly replayed: number
  /** Matched, but erased, or of an endpoint that was deleted. */
  readonly skipped: number
}
/** Tasks to be canceled, or to begin anew: of these states, and made before a fixed time. */
export interface BulkFilter extends Omit<TaskFilter, 'states' | 'batchId'> {
  readonly clientId: string
  /** Live ones are canceled, ended ones begin anew: never of both kinds. */
  readonly states: readonly State[]
  /** Not counting that moment itself. */
  readonly createdBefore: Millis
}
export interface BulkCheckpoint extends Walked {
  /** Tasks canceled, asked to end or begun anew. */
  readonly changed: number
  /** Those among them that were running, and asked to end. */
  readonly asked: number
}

/** One use of a quota that counts by windows of `windowMs`, or one given back. */
export interface QuotaUse {
  readonly key: string
  readonly limit: number
  readonly windowMs: Millis
  /** The end of the window that one use is given back to; null: one is taken. */
  readonly back: Millis | null
}
export interface QuotaWindow {
  /** Uses of this window, this one among them; over the limit: it was refused, and not counted. */
  readonly used: number
  /** When the window ends by the store's clock, and how long that is from now. */
  readonly expire: Millis
  readonly leftMs: Millis
}

export type NewKey = Omit<Key, 'createdAt' | 'revokedAt' | 'lastUsedAt'>

/** Members left out narrow nothing. */
export interface AuditQuery {
  readonly clientId?: string
  readonly actor?: string
  readonly action?: AuditAction
  readonly since?: Millis
  /** Not counting that moment itself. */
  readonly until?: Millis
  readonly limit: number
  readonly after: Position | null
}

/** What is due in the lives of the signing keys. */
export interface KeyTurn {
  /** The next key, to become active as `retire` becomes retiring. */
  readonly activate: string | null
  readonly retire: string | null
  /** Retiring keys that leave the published set. */
  readonly remove: readonly string[]
}
export interface SealedValue {
  readonly place: { readonly table: string; readonly id: string; readonly column: string }
  readonly sealed: string
}

/** What cancel, retry and delete answer. `refused` carries the task as it is. */
export type TaskChange =
  | { readonly kind: 'changed' | 'unchanged' | 'refused'; readonly task: Task }
  | { readonly kind: 'missing' }
  | { readonly kind: 'gone' }

export interface Store {
  /** The store's clock: what leases and due times are compared with. */
  now(): Promise<Millis>
  /** Why the database took nothing when it was last written to, in words for the operator; null: it did. */
  readonly refusal: string | null

  addTasks(intake: Intake): Promise<Submitted>
  /** Looks a key up without writing; null: unused. */
  findSubmitted(idempotency: Idempotency): Promise<Submitted | null>
  /** Pending and running tasks of a client, or of all for null, portion by portion: for the depth limits. */
  countOpenTasks(after: OpenMark | null, clientId: string | null): Promise<{ readonly n: number; readonly next: OpenMark | null }>
  findTask(id: string, clientId: string | null): Promise<Found<Task>>
  /** Tasks by id, for those who wait on them. Unknown ids are left out. */
  findTasks(ids: readonly string[]): Promise<readonly Task[]>
  /** Their revisions alone, for those who wait for a change. Unknown ids are left out. */
  findRevisions(ids: readonly string[]): Promise<ReadonlyMap<string, number>>
  /** The envelopes of their terminal events, each of the generation given, by the task's id. None of what was erased. */
  findEndings(tasks: readonly Pick<Task, 'id' | 'generation'>[]): Promise<ReadonlyMap<string, Json>>
  callbackStatuses(tasks: readonly Task[]): Promise<ReadonlyMap<string, CallbackStatus>>
  listTasks(query: TaskQuery): Promise<Page<Task>>
  cancelTask(id: string, clientId: string | null, by?: Author): Promise<TaskChange>
  redoTask(id: string, clientId: string | null, by?: Author): Promise<TaskChange>
  eraseTask(id: string, clientId: string | null, by?: Author): Promise<TaskChange>
  /** How many a page of the filter matches, and where the next one starts. */
  countBulk(filter: BulkFilter, after: Position | null): Promise<{ readonly matched: number; readonly next: Position | null }>
  /** Cancels or begins anew the next page of what a running task's filter matches, and keeps how far it came, in one commit. Null: the lease was lost. */
  bulkPage(lease: Held, filter: BulkFilter): Promise<BulkCheckpoint | null>
  claimTasks(claim: TaskClaim): Promise<Claimed<Task>>
  /** What was ever said of task types: of others, nothing. */
  listQueues(): Promise<readonly QueueState[]>
  /** What may hold these tasks up, read together. */
  findHolds(tasks: readonly Pick<Task, 'type' | 'laneId'>[]): Promise<Holds>
  /** Somebody who runs these types is here. */
  seeTypes(types: readonly string[]): Promise<void>
  /** Has nothing more of the type claimed, on any node, or ends that: what waits starts at once. */
  pauseType(type: string, paused: boolean, by?: Author): Promise<QueueState>
  settleTask(settlement: Settlement): Promise<Settled<Task>>
  /** The task as it is now, if the holder of that lease ended it so; null: it did not, or that is forgotten. */
  findEnded(lease: Held, as: LeaseEnd): Promise<Task | null>
  reportProgress(progress: Progress): Promise<Reported | { readonly kind: 'stale' }>

  claimDeliveries(claim: Claim): Promise<Claimed<Owed>>
  settleDelivery(settlement: DeliverySettlement): Promise<Settled<Delivery>>
  findDelivery(id: string, clientId: string | null): Promise<Delivery | null>
  listDeliveries(query: DeliveryQuery): Promise<Page<Delivery>>
  listAttempts(deliveryIds: readonly string[]): Promise<readonly Attempt[]>
  /** Open: due now. Ended: a new delivery of the same event. Null: none such, or its bytes were erased. */
  redeliver(id: string, newId: string, clientId: string | null, by?: Author): Promise<Delivery | null>
  /** How many a page of the filter matches, and where the next one starts. */
  countReplay(filter: ReplayFilter, after: Position | null): Promise<{ readonly matched: number; readonly next: Position | null }>
  /** Sends the next page of a running replay again, and keeps how far it came, in one commit. Null: the lease was lost. */
  replayPage(lease: Held, filter: ReplayFilter): Promise<ReplayCheckpoint | null>
  /** An `endpoint.*` event for this endpoint alone, with one attempt. */
  addPing(ping: { endpointId: string; clientId: string; eventId: string; deliveryId: string }, by?: Author): Promise<Delivery | null>
  listEvents(query: {
    clientId: string | null
    taskId?: string
    types?: readonly EventType[]
    /** A place in the client's own count of events. */
    after: number
    /** The last place that is looked at. */
    upTo?: number
    limit: number
  }): Promise<readonly Event[]>
  /** How far one look at a client's feed goes that begins after that place, whether or not it finds much; null: to the end. */
  findFeedReach(clientId: string, after: number): Promise<number | null>
  /** How many events each of these clients' feeds has counted. Unknown ids are left out. */
  findSeqs(clientIds: readonly string[]): Promise<ReadonlyMap<string, number>>
  /** Where an event stands in its client's feed; null: it is not there. */
  findEventSeq(id: string, clientId: string): Promise<number | null>

  /** What these lanes allow now; of those that have no rule, nothing. */
  findLanes(ids: readonly string[]): Promise<readonly LaneState[]>
  /** Tells of endpoints that have failed for a day, once an episode; answers how many. */
  tellFailing(limit: number): Promise<number>
  /** Fails deliveries still open after `holdMs`, or after a day where the endpoint never proved itself; answers how many. */
  expireDeliveries(limit: number, holdMs: Millis): Promise<number>

  renew(kind: Kind, held: readonly Held[], leaseMs: Millis): Promise<readonly Renewal[]>
  /** Running work whose lease has ended, or that another boot than `boot` holds (null: by lease alone); of each kind up to `limit`. */
  findExpired(limit: number, boot: string | null): Promise<Expired>
  /** Pending tasks past `startBy` or `deadlineAt`, and running ones whose cancel was asked for over `graceMs` ago: ended by the script. */
  endOverdue(limit: number, graceMs: Millis): Promise<number>
  /**
   * Looks at up to `limit` tasks made after the one called `after`, and removes those that ended longer ago than their type is kept, `leastMs` at
   * least, and owe nobody anything.
   */
  ageTasks(after: string, limit: number, leastMs: Millis): Promise<Aged>
  /** Removes news of endpoints older than `keepMs` that is owed to nobody any more, and what is left of endpoints deleted as long ago, from `after` on. */
  ageNews(after: string, limit: number, keepMs: Millis): Promise<Aged>
  /** Forgets idempotency keys and tombstones whose time is over. True: there may be more. */
  forget(limit: number): Promise<boolean>
  /** Looks at up to `limit` lanes of concurrency keys after `after`, and removes the idle ones. Where to go on; null: that was all. */
  sweepLanes(after: string, limit: number): Promise<string | null>
  /** Leaves a turn for every lane that has claimable work and none: a lost turn costs seconds, not a delivery. */
  mendLanes(kind: Kind): Promise<number>

  addEndpoint(endpoint: NewEndpoint, most: number, by?: Author): Promise<Added<Endpoint>>
  findEndpoint(id: string, clientId: string | null): Promise<Endpoint | null>
  /** Those of these ids that there are, whoever's, and deleted ones too. */
  findEndpoints(ids: readonly string[]): Promise<readonly Endpoint[]>
  listEndpoints(clientId: string | null, limit: number, after: Position | null): Promise<Page<Endpoint>>
  /** `revision` null: whatever it is. */
  changeEndpoint(
    id: string,
    clientId: string | null,
    patch: EndpointPatch,
    revision: number | null,
    by?: Author,
  ): Promise<Changed<Endpoint>>
  removeEndpoint(id: string, clientId: string | null, by?: Author): Promise<boolean>

  addSchedule(schedule: NewSchedule, most: number): Promise<Added<Schedule>>
  findSchedule(id: string, clientId: string | null): Promise<Schedule | null>
  listSchedules(clientId: string | null, limit: number, after: Position | null): Promise<Page<Schedule>>
  /** `stale`: its revision is not `seen`'s, or the patch moves the next tick and that is not `seen`'s. */
  changeSchedule(
    id: string,
    clientId: string | null,
    patch: SchedulePatch,
    seen: Pick<Schedule, 'revision' | 'nextAt'>,
    by?: Author,
  ): Promise<Changed<Schedule>>
  /** The tasks it made stay. */
  removeSchedule(id: string, clientId: string | null, by?: Author): Promise<boolean>
  /** Schedules of these types by their next tick, the ones that are due first, and the store's clock. Those of clients that may not call, and of these `but`, are left out. */
  findDueSchedules(
    types: readonly string[],
    limit: number,
    but?: readonly string[],
  ): Promise<{ readonly now: Millis; readonly items: readonly DueSchedule[] }>
  /** Makes the tasks of ticks and moves the schedule on, in one commit. False: somebody else did, or it has changed. */
  tick(tick: Tick): Promise<boolean>

  addClient(client: { id: string; name: string }, by?: Author): Promise<Client>
  findClient(id: string): Promise<Client | null>
  listClients(limit: number, after: Position | null): Promise<Page<Client>>
  changeClient(id: string, status: 'active' | 'suspended', by?: Author): Promise<Client | null>
  /** Ends its keys, its schedules and its work; {@link eraseClient} erases what it had. Null: there is none such. */
  removeClient(id: string, by?: Author): Promise<Client | null>
  /** The next deleted client, by id, of which something may be left. */
  findDeletedClient(after: string): Promise<string | null>
  /**
   * Erases the next page of what a deleted client had. `more`: go on at once; `open`: what is left has not ended; `nothing` is left, and with
   * `last` nobody looks at it again.
   */
  eraseClient(id: string, last: boolean): Promise<'more' | 'open' | 'nothing'>
  addKey(key: NewKey, by?: Author): Promise<Key | null>
  /** The key with that hash and its client's status; null when unknown. */
  findKey(hash: string): Promise<(Key & { readonly clientStatus: ClientStatus | null }) | null>
  listKeys(clientId: string | null): Promise<readonly Key[]>
  revokeKey(id: string, clientId: string | null, by?: Author): Promise<Key | null>
  /** A key in the place of another that ends after the overlap: with its name, scopes, task types and length of life. Null: that one has ended. */
  rotateKey(
    id: string,
    clientId: string | null,
    fresh: Pick<Key, 'id' | 'hash' | 'hint'>,
    overlapMs: Millis,
    by?: Author,
  ): Promise<Key | null>
  /** Forgets keys that ended longer ago than `keepMs`; answers how many. */
  forgetKeys(limit: number, keepMs: Millis): Promise<number>
  /** A key is in use: written at most once a minute. */
  useKey(id: string): Promise<unknown>

  /** Uses a quota, or gives one use back: many at once are one statement. */
  useQuota(use: QuotaUse): Promise<QuotaWindow>

  listSigningKeys(): Promise<SigningKey[]>
  addSigningKeys(keys: readonly SigningKey[]): Promise<SigningKey[]>
  /** Does what is due in the keys' lives, unless another node did it first. */
  turnKeys(turn: KeyTurn): Promise<SigningKey[]>
  /** The next key shall sign as soon as it may. */
  wantNextKey(by?: Author): Promise<SigningKey[]>
  /** Null: there is none such. */
  revokeSigningKey(id: string, by?: Author): Promise<SigningKey[] | null>
  /** Sealed values that do not begin with `prefix`, at most `limit` of each place; the canary is not among them. */
  findSealed(prefix: string, limit: number): Promise<readonly SealedValue[]>
  /** Erases secrets that were rotated away and whose overlap ended over an hour ago; answers how many. */
  erasePreviousSecrets(limit: number): Promise<number>
  /** Replaces values, each unless it changed meanwhile. */
  replaceSealed(values: readonly (SealedValue & { readonly fresh: string })[]): Promise<void>
  /** The audit log, newest first; a page may hold fewer than match, and say where to go on. */
  listAudit(query: AuditQuery): Promise<Page<AuditEntry>>
  /** Forgets entries older than `keepMs`; answers how many. */
  forgetAudit(limit: number, keepMs: Millis): Promise<number>
  /** A setting of the installation: writes the value when there is none; answers what is there. */
  keepSetting(name: string, value: string): Promise<string>
  /** Replaces a setting nobody changed meanwhile; answers whether it did. */
  swapSetting(name: string, known: string, value: string): Promise<boolean>

  /** Lends the slots of a pump that runs these types: their tasks start as they come in, where nothing waits before them that it could run. */
  startTasks(starter: Starter<Task>, types: TaskClaim['types']): void
  /** Lends a pump's slots: deliveries start with the fact they tell of, where their lane has room and nothing waits before them. */
  startDeliveries(starter: Starter<Owed>): void

  /** Work of that kind became claimable: in process, or heard from another node. */
  onWork(listener: (kind: Kind) => void): () => void
  /** The client of a running task asked to cancel it: heard here, or from another node. A lost word is made good by the next renewal. */
  onCancelRequest(listener: (taskId: string) => void): () => void
  /** A task type was paused or resumed: here, or on another node. */
  onQueues(listener: () => void): () => void
  /** A schedule was added or changed: here, or on another node. */
  onSchedules(listener: () => void): () => void
  /** The signing keys changed: here, or on another node. */
  onKeys(listener: () => void): () => void
  /** A key, or every key of a client, may not mean any more what it did: here, or on another node. Null: that may be any. */
  onAccess(listener: (id: string | null) => void): () => void
  /** A task changed: for those who wait on it. A start is heard on its own node alone, and a word may be lost. */
  onTask(listener: (taskId: string) => void): () => void
  close(): Promise<void>
}
