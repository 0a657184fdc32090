/**
 * What a store promises. Every method is one transaction (or one consistent read); nothing outside `store/` opens one.
 * A merged call is total: a conflict is a row of the answer, never an error that fails its neighbours.
 * `clientId: null` in a query means: the operator, who sees every client's objects.
 * `by` is who acts: given, the act and its entry in the audit log are one commit. What a client does to its own tasks leaves no entry.
 */
import type {
  ApiKey,
  Attempt,
  AuditEntry,
  Author,
  Client,
  ClientStatus,
  Delivery,
  Endpoint,
  Event,
  EventType,
  Json,
  Kind,
  Millis,
  Schedule,
  SigningKey,
  Task,
} from '../core/model.ts'
import type {
  Added,
  AuditQuery,
  BulkCheckpoint,
  BulkFilter,
  CallbackStatus,
  Changed,
  Claimed,
  ClaimOptions,
  DeliveryQuery,
  DeliverySettlement,
  DueSchedule,
  EncryptedValue,
  EndpointInsert,
  EndpointPatch,
  ExpiredWork,
  Found,
  Idempotency,
  Intake,
  LaneState,
  LeaseEnd,
  LeaseRef,
  NewKey,
  NewSchedule,
  OpenMark,
  OwedDelivery,
  Page,
  Position,
  Progress,
  ProgressReport,
  PrunedPage,
  QueueState,
  QuotaUse,
  QuotaWindow,
  Renewal,
  ReplayCheckpoint,
  ReplayFilter,
  SchedulePatch,
  Settled,
  Settlement,
  SigningKeyRotation,
  SlotLender,
  Submitted,
  TaskChange,
  TaskClaim,
  TaskHolds,
  TaskListQuery,
  Tick,
} from './types.ts'

export type * from './types.ts'

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
  listTasks(query: TaskListQuery): Promise<Page<Task>>
  cancelTask(id: string, clientId: string | null, by?: Author): Promise<TaskChange>
  redoTask(id: string, clientId: string | null, by?: Author): Promise<TaskChange>
  eraseTask(id: string, clientId: string | null, by?: Author): Promise<TaskChange>
  /** How many a page of the filter matches, and where the next one starts. */
  countBulk(filter: BulkFilter, after: Position | null): Promise<{ readonly matched: number; readonly next: Position | null }>
  /** Cancels or begins anew the next page of what a running task's filter matches, and keeps how far it came, in one commit. Null: the lease was lost. */
  bulkPage(lease: LeaseRef, filter: BulkFilter): Promise<BulkCheckpoint | null>
  claimTasks(claim: TaskClaim): Promise<Claimed<Task>>
  /** What was ever said of task types: of others, nothing. */
  listQueues(): Promise<readonly QueueState[]>
  /** What may hold these tasks up, read together. */
  findHolds(tasks: readonly Pick<Task, 'type' | 'laneId'>[]): Promise<TaskHolds>
  /** Somebody who runs these types is here. */
  seeTypes(types: readonly string[]): Promise<void>
  /** Has nothing more of the type claimed, on any node, or ends that: what waits starts at once. */
  pauseType(type: string, paused: boolean, by?: Author): Promise<QueueState>
  settleTask(settlement: Settlement): Promise<Settled<Task>>
  /** The task as it is now, if the holder of that lease ended it so; null: it did not, or that is forgotten. */
  findEnded(lease: LeaseRef, as: LeaseEnd): Promise<Task | null>
  reportProgress(progress: Progress): Promise<ProgressReport | { readonly kind: 'stale' }>

  claimDeliveries(claim: ClaimOptions): Promise<Claimed<OwedDelivery>>
  settleDelivery(settlement: DeliverySettlement): Promise<Settled<Delivery>>
  findDelivery(id: string, clientId: string | null): Promise<Delivery | null>
  listDeliveries(query: DeliveryQuery): Promise<Page<Delivery>>
  listAttempts(deliveryIds: readonly string[]): Promise<readonly Attempt[]>
  /** Open: due now. Ended: a new delivery of the same event. Null: none such, or its bytes were erased. */
  redeliver(id: string, newId: string, clientId: string | null, by?: Author): Promise<Delivery | null>
  /** How many a page of the filter matches, and where the next one starts. */
  countReplay(filter: ReplayFilter, after: Position | null): Promise<{ readonly matched: number; readonly next: Position | null }>
  /** Sends the next page of a running replay again, and keeps how far it came, in one commit. Null: the lease was lost. */
  replayPage(lease: LeaseRef, filter: ReplayFilter): Promise<ReplayCheckpoint | null>
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

  renew(kind: Kind, held: readonly LeaseRef[], leaseMs: Millis): Promise<readonly Renewal[]>
  /** Running work whose lease has ended, or that another boot than `boot` holds (null: by lease alone); of each kind up to `limit`. */
  findExpired(limit: number, boot: string | null): Promise<ExpiredWork>
  /** Pending tasks past `startBy` or `deadlineAt`, and running ones whose cancel was asked for over `graceMs` ago: ended by the script. */
  endOverdue(limit: number, graceMs: Millis): Promise<number>
  /**
   * Looks at up to `limit` tasks made after the one called `after`, and removes those that ended longer ago than their type is kept, `leastMs` at
   * least, and owe nobody anything.
   */
  ageTasks(after: string, limit: number, leastMs: Millis): Promise<PrunedPage>
  /** Removes news of endpoints older than `keepMs` that is owed to nobody any more, and what is left of endpoints deleted as long ago, from `after` on. */
  ageNews(after: string, limit: number, keepMs: Millis): Promise<PrunedPage>
  /** Forgets idempotency keys and tombstones whose time is over. True: there may be more. */
  forget(limit: number): Promise<boolean>
  /** Looks at up to `limit` lanes of concurrency keys after `after`, and removes the idle ones. Where to go on; null: that was all. */
  sweepLanes(after: string, limit: number): Promise<string | null>
  /** Leaves a turn for every lane that has claimable work and none: a lost turn costs seconds, not a delivery. */
  mendLanes(kind: Kind): Promise<number>

  addEndpoint(endpoint: EndpointInsert, most: number, by?: Author): Promise<Added<Endpoint>>
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
  addKey(key: NewKey, by?: Author): Promise<ApiKey | null>
  /** The key with that hash and its client's status; null when unknown. */
  findKey(hash: string): Promise<(ApiKey & { readonly clientStatus: ClientStatus | null }) | null>
  listKeys(clientId: string | null): Promise<readonly ApiKey[]>
  revokeKey(id: string, clientId: string | null, by?: Author): Promise<ApiKey | null>
  /** A key in the place of another that ends after the overlap: with its name, scopes, task types and length of life. Null: that one has ended. */
  rotateKey(
    id: string,
    clientId: string | null,
    fresh: Pick<ApiKey, 'id' | 'hash' | 'hint'>,
    overlapMs: Millis,
    by?: Author,
  ): Promise<ApiKey | null>
  /** Forgets keys that ended longer ago than `keepMs`; answers how many. */
  forgetKeys(limit: number, keepMs: Millis): Promise<number>
  /** A key is in use: written at most once a minute. */
  useKey(id: string): Promise<unknown>

  /** Uses a quota, or gives one use back: many at once are one statement. */
  useQuota(use: QuotaUse): Promise<QuotaWindow>

  listSigningKeys(): Promise<SigningKey[]>
  addSigningKeys(keys: readonly SigningKey[]): Promise<SigningKey[]>
  /** Does what is due in the keys' lives, unless another node did it first. */
  turnKeys(turn: SigningKeyRotation): Promise<SigningKey[]>
  /** The next key shall sign as soon as it may. */
  wantNextKey(by?: Author): Promise<SigningKey[]>
  /** Null: there is none such. */
  revokeSigningKey(id: string, by?: Author): Promise<SigningKey[] | null>
  /** Sealed values that do not begin with `prefix`, at most `limit` of each place; the canary is not among them. */
  findSealed(prefix: string, limit: number): Promise<readonly EncryptedValue[]>
  /** Erases secrets that were rotated away and whose overlap ended over an hour ago; answers how many. */
  erasePreviousSecrets(limit: number): Promise<number>
  /** Replaces values, each unless it changed meanwhile. */
  replaceSealed(values: readonly (EncryptedValue & { readonly fresh: string })[]): Promise<void>
  /** The audit log, newest first; a page may hold fewer than match, and say where to go on. */
  listAudit(query: AuditQuery): Promise<Page<AuditEntry>>
  /** Forgets entries older than `keepMs`; answers how many. */
  forgetAudit(limit: number, keepMs: Millis): Promise<number>
  /** A setting of the installation: writes the value when there is none; answers what is there. */
  keepSetting(name: string, value: string): Promise<string>
  /** Replaces a setting nobody changed meanwhile; answers whether it did. */
  swapSetting(name: string, known: string, value: string): Promise<boolean>

  /** Lends the slots of a pump that runs these types: their tasks start as they come in, where nothing waits before them that it could run. */
  startTasks(starter: SlotLender<Task>, types: TaskClaim['types']): void
  /** Lends a pump's slots: deliveries start with the fact they tell of, where their lane has room and nothing waits before them. */
  startDeliveries(starter: SlotLender<OwedDelivery>): void

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
