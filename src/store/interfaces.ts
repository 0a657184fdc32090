/**
 * The store. Every method is one transaction, or one consistent read. Nothing outside `store/` opens a transaction.
 * Every mutation takes one object. A merged call never fails its neighbours: a conflict is a row of the answer, not an error.
 * `clientId: null` in a query means the operator, who may see the objects of every client.
 * `by` is the caller. When it is given, the change and its entry in the audit log are one commit. A client's changes to its own tasks make no entry.
 *
 * @throws RingbackError `temporary_reduced_capacity` from every method while the database does not answer: nothing was changed, try again later.
 */
import type { CallbackStatus } from '../core/documents.ts'
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
  Millis,
  Schedule,
  SigningKey,
  Task,
  WorkKind,
} from '../core/model.ts'
import type {
  AddKeyResult,
  AddResult,
  AuditQuery,
  BulkCheckpoint,
  BulkFilter,
  ChangeResult,
  ClaimOptions,
  ClaimResult,
  DeliveryQuery,
  DeliverySettlement,
  DueSchedule,
  EncryptedValue,
  EndpointInsert,
  EndpointPatch,
  ExpiredWork,
  FindResult,
  Idempotency,
  KeyRotation,
  LaneState,
  LeaseEnd,
  LeaseRef,
  NewKey,
  NewSchedule,
  OpenTaskCursor,
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
  Settlement,
  SettleResult,
  SigningKeyRotation,
  SlotLender,
  SubmitResult,
  TaskChange,
  TaskClaimOptions,
  TaskHolds,
  TaskListQuery,
  TaskSubmission,
  Tick,
} from './types.ts'

export type * from './types.ts'

/** One object of a client, or of any client when `clientId` is null, and who acts. */
export interface Target {
  readonly id: string
  readonly clientId: string | null
  readonly by?: Author | undefined
}
/** How many rows a page of a filter matches, and where the next page starts. */
export interface MatchedPage {
  readonly matched: number
  readonly next: Position | null
}

export interface Store {
  readonly tasks: TaskStore
  readonly deliveries: DeliveryStore
  readonly events: EventStore
  readonly endpoints: EndpointStore
  readonly schedules: ScheduleStore
  readonly access: AccessStore
  readonly signing: SigningStore
  readonly maintenance: MaintenanceStore
  readonly notifications: Notifications
  /** The store's clock. Leases and due times are compared with it. */
  now(): Promise<Millis>
  /** Why the last write failed, in words for the operator; null: it succeeded. */
  readonly refusal: string | null
  close(): Promise<void>
}

/**
 * Only these methods of the store: what a component needs, and all that its tests provide.
 * @example
 * StoreWith<{ access: 'findKey' | 'touchKey'; notifications: 'onAccess' }>
 */
export type StoreWith<Parts extends { readonly [Part in keyof Store]?: keyof Store[Part] }> = {
  readonly [Part in keyof Parts & keyof Store]: Pick<Store[Part], Parts[Part] & keyof Store[Part]>
}

export interface TaskStore {
  add(intake: TaskSubmission): Promise<SubmitResult>
  /** The answer to an earlier request with the same idempotency key, without writing; null: the key is unused. */
  findSubmitted(idempotency: Idempotency): Promise<SubmitResult | null>
  /** One page of a count of pending and running tasks, of a client or of all clients (null). The open-task limits use it. */
  countOpen(after: OpenTaskCursor | null, clientId: string | null): Promise<{ readonly n: number; readonly next: OpenTaskCursor | null }>
  find(id: string, clientId: string | null): Promise<FindResult<Task>>
  /** Tasks by id. Unknown ids are left out. */
  findMany(ids: readonly string[]): Promise<readonly Task[]>
  list(query: TaskListQuery): Promise<Page<Task>>
  cancel(target: Target): Promise<TaskChange>
  /** Starts a new generation of an ended task. */
  redo(target: Target): Promise<TaskChange>
  erase(target: Target): Promise<TaskChange>
  claim(claim: TaskClaimOptions): Promise<ClaimResult<Task>>
  settle(settlement: Settlement): Promise<SettleResult<Task>>
  /** The task as it is now, if the holder of this lease ended it this way; null: it did not, or that is no longer remembered. */
  findEnded(lease: LeaseRef, as: LeaseEnd): Promise<Task | null>
  reportProgress(progress: Progress): Promise<ProgressReport | { readonly kind: 'stale' }>
  countBulk(filter: BulkFilter, after: Position | null): Promise<MatchedPage>
  /** Cancels or retries the next page of the filter's matches and stores the checkpoint, in one commit. Null: the lease was lost. */
  runBulkPage(page: { lease: LeaseRef; filter: BulkFilter }): Promise<BulkCheckpoint | null>
}

export interface DeliveryStore {
  claim(claim: ClaimOptions): Promise<ClaimResult<OwedDelivery>>
  settle(settlement: DeliverySettlement): Promise<SettleResult<Delivery>>
  find(id: string, clientId: string | null): Promise<Delivery | null>
  list(query: DeliveryQuery): Promise<Page<Delivery>>
  listAttempts(deliveryIds: readonly string[]): Promise<readonly Attempt[]>
  /** An open delivery becomes due now. An ended one gets a new delivery of the same event. Null: it does not exist, or its body was erased. */
  redeliver(target: Target & { newId: string }): Promise<Delivery | null>
  countReplay(filter: ReplayFilter, after: Position | null): Promise<MatchedPage>
  /** Sends the next page of a running replay and stores the checkpoint, in one commit. Null: the lease was lost. */
  runReplayPage(page: { lease: LeaseRef; filter: ReplayFilter }): Promise<ReplayCheckpoint | null>
  findCallbackStatuses(tasks: readonly Task[]): Promise<ReadonlyMap<string, CallbackStatus>>
  /** What these lanes allow now. Lanes without a rule are left out. */
  findLanes(ids: readonly string[]): Promise<readonly LaneState[]>
}

export interface EventStore {
  list(query: {
    clientId: string | null
    taskId?: string
    types?: readonly EventType[]
    /** A position in the client's sequence of events. */
    after: number
    /** The last position that is read. */
    upTo?: number
    limit: number
  }): Promise<readonly Event[]>
  /** The last position that one read of the feed after `after` looks at, however few events match; null: the end. */
  findFeedReach(clientId: string, after: number): Promise<number | null>
  /** The latest position of each client's feed. Unknown ids are left out. */
  findSeqs(clientIds: readonly string[]): Promise<ReadonlyMap<string, number>>
  /** The position of an event in its client's feed; null: there is no such event. */
  findSeq(id: string, clientId: string): Promise<number | null>
  /** The envelopes of the tasks' terminal events, each of the given generation, by task id. Erased ones are left out. */
  findTerminal(tasks: readonly Pick<Task, 'id' | 'generation'>[]): Promise<ReadonlyMap<string, Json>>
  /** The revisions of tasks, for callers that wait for a change. Unknown ids are left out. */
  findRevisions(taskIds: readonly string[]): Promise<ReadonlyMap<string, number>>
}

export interface EndpointStore {
  /** `max`: how many endpoints the client may have. */
  add(insert: { endpoint: EndpointInsert; max: number; by?: Author | undefined }): Promise<AddResult<Endpoint>>
  find(id: string, clientId: string | null): Promise<Endpoint | null>
  /** Endpoints by id, of any client, deleted ones too. Unknown ids are left out. */
  findMany(ids: readonly string[]): Promise<readonly Endpoint[]>
  list(clientId: string | null, limit: number, after: Position | null): Promise<Page<Endpoint>>
  /** `revision` null: any revision. */
  change(change: Target & { patch: EndpointPatch; revision: number | null }): Promise<ChangeResult<Endpoint>>
  remove(target: Target): Promise<boolean>
  /** Records an `endpoint.*` event for this endpoint alone, with one attempt. */
  addPing(insert: {
    ping: { endpointId: string; clientId: string; eventId: string; deliveryId: string }
    by?: Author | undefined
  }): Promise<Delivery | null>
}

/** When tasks start: schedules, and the state of task types. */
export interface ScheduleStore {
  /** `max`: how many schedules the client may have. */
  add(insert: { schedule: NewSchedule; max: number }): Promise<AddResult<Schedule>>
  find(id: string, clientId: string | null): Promise<Schedule | null>
  list(clientId: string | null, limit: number, after: Position | null): Promise<Page<Schedule>>
  /** `stale`: the revision differs from that of `seen`, or the patch moves the next tick and the tick has already moved. */
  change(change: Target & { patch: SchedulePatch; seen: Pick<Schedule, 'revision' | 'nextAt'> }): Promise<ChangeResult<Schedule>>
  /** Its tasks stay. */
  remove(target: Target): Promise<boolean>
  /**
   * Schedules of these types by their next tick, due ones first, and the store's clock. Left out: those of clients that are suspended or deleted, and
   * the ids in `except`.
   */
  findDue(
    types: readonly string[],
    limit: number,
    except?: readonly string[],
  ): Promise<{ readonly now: Millis; readonly items: readonly DueSchedule[] }>
  /** Creates the tasks of ticks and moves the schedule on, in one commit. False: another node did, or the schedule has changed. */
  tick(tick: Tick): Promise<boolean>
  /** The recorded states of task types. Types without a record are left out. */
  listTaskTypes(): Promise<readonly QueueState[]>
  /** Everything that may keep these tasks from starting, in one read. */
  findHolds(tasks: readonly Pick<Task, 'type' | 'laneId'>[]): Promise<TaskHolds>
  /** Records that a worker of these types is running. */
  touchTaskTypes(seen: { types: readonly string[] }): Promise<void>
  /** Stops claims of the type on every node, or allows them again. */
  pauseTaskType(pause: { type: string; paused: boolean; by?: Author | undefined }): Promise<QueueState>
}

export interface AccessStore {
  addClient(insert: { client: { id: string; name: string }; by?: Author | undefined }): Promise<Client>
  findClient(id: string): Promise<Client | null>
  listClients(limit: number, after: Position | null): Promise<Page<Client>>
  changeClient(change: { id: string; status: 'active' | 'suspended'; by?: Author | undefined }): Promise<Client | null>
  /** Ends the client's keys, schedules and work. {@link MaintenanceStore.eraseClient} erases its rows later. Null: there is no such client. */
  removeClient(target: { id: string; by?: Author | undefined }): Promise<Client | null>
  /** `max`: how many active keys the client may have. An operator may have any number. */
  addKey(insert: { key: NewKey; max: number; by?: Author | undefined }): Promise<AddKeyResult>
  /** The key with this hash and the status of its client; null: unknown. */
  findKey(hash: string): Promise<(ApiKey & { readonly clientStatus: ClientStatus | null }) | null>
  listKeys(clientId: string | null): Promise<readonly ApiKey[]>
  revokeKey(target: Target): Promise<ApiKey | null>
  /**
   * Replaces a key. The new one takes its name, scopes, task types and lifetime; the old one ends after the overlap. `missing`: the old one has ended.
   */
  rotateKey(rotation: KeyRotation & { by?: Author | undefined }): Promise<AddKeyResult>
  /** Records that a key is in use, at most once a minute. */
  touchKey(use: { id: string }): Promise<void>
  /** Takes one use of a quota, or returns one. Concurrent uses are one statement. */
  useQuota(use: QuotaUse): Promise<QuotaWindow>
  /** The audit log, newest first. A page may hold fewer entries than match; its `next` says where to continue. */
  listAuditLog(query: AuditQuery): Promise<Page<AuditEntry>>
}

/** Signing keys, encrypted values and the installation's own settings. */
export interface SigningStore {
  listKeys(): Promise<SigningKey[]>
  addKeys(insert: { keys: readonly SigningKey[] }): Promise<SigningKey[]>
  /** Applies the due steps of the keys' lives, unless another node did. */
  rotateKeys(rotation: SigningKeyRotation): Promise<SigningKey[]>
  /** Asks that the next key becomes active as soon as it may. */
  requestRotation(request: { by?: Author | undefined }): Promise<SigningKey[]>
  /** Null: there is no such key. */
  revokeKey(target: { id: string; by?: Author | undefined }): Promise<SigningKey[] | null>
  /** Encrypted values that do not begin with `prefix`, at most `limit` of each column, without the key check. */
  findEncrypted(prefix: string, limit: number): Promise<readonly EncryptedValue[]>
  /** Replaces each value unless it changed since it was read. */
  replaceEncrypted(replacement: { values: readonly (EncryptedValue & { readonly fresh: string })[] }): Promise<void>
  /** Erases rotated endpoint secrets whose overlap ended over an hour ago. Returns how many. */
  erasePreviousSecrets(page: { limit: number }): Promise<number>
  /** Writes a setting of the installation when it is absent. Returns the stored value. */
  putSettingIfAbsent(setting: { name: string; value: string }): Promise<string>
  /** Replaces a setting that still has the value `known`. Returns whether it did. */
  compareAndSetSetting(setting: { name: string; known: string; value: string }): Promise<boolean>
}

/** What the chores of a node call. All of it is idempotent: every node may do it at any time. */
export interface MaintenanceStore {
  renew(renewal: { kind: WorkKind; leases: readonly LeaseRef[]; leaseMs: Millis }): Promise<readonly Renewal[]>
  /** Running work whose lease has ended, or that another boot than `boot` holds (null: only ended leases). At most `limit` of each kind. */
  findExpired(limit: number, boot: string | null): Promise<ExpiredWork>
  /** Ends pending tasks past `startBy` or `deadlineAt`, and running ones whose cancel was requested over `graceMs` ago. Returns how many. */
  endOverdue(page: { limit: number; graceMs: Millis }): Promise<number>
  /**
   * Looks at up to `limit` tasks created after the task `after`. Removes those that ended longer ago than their type is kept, at least `minKeptMs`, and
   * have no open delivery.
   */
  pruneTasks(page: { after: string; limit: number; minKeptMs: Millis }): Promise<PrunedPage>
  /** Removes endpoint events older than `keptMs` without an open delivery, and the rows of endpoints deleted as long ago, starting after `after`. */
  pruneEndpointEvents(page: { after: string; limit: number; keptMs: Millis }): Promise<PrunedPage>
  /** Removes expired idempotency keys and tombstones. True: there may be more. */
  pruneRecords(page: { limit: number }): Promise<boolean>
  /** Looks at up to `limit` lanes of concurrency keys after `after` and removes the idle ones. Returns where to continue; null: that was the last page. */
  pruneLanes(page: { after: string; limit: number }): Promise<string | null>
  /** Adds a turn for every lane that has claimable work and no turn. A lost turn delays work by seconds and never loses it. Returns how many. */
  repairLanes(work: { kind: WorkKind }): Promise<number>
  /** Announces endpoints that have failed for a day, once for each episode. Returns how many. */
  announceFailing(page: { limit: number }): Promise<number>
  /** Fails deliveries still open after `holdMs`, or after one day at an endpoint that was never verified. Returns how many. */
  expireDeliveries(page: { limit: number; holdMs: Millis }): Promise<number>
  /** The next deleted client after this id that may still have rows; null: none. */
  findDeletedClient(after: string): Promise<string | null>
  /**
   * Erases the next page of a deleted client. `more`: call again at once. `open`: the rest has not ended. `nothing`: no row is left; with `last` the
   * client is marked as erased.
   */
  eraseClient(page: { id: string; last: boolean }): Promise<'more' | 'open' | 'nothing'>
  /** Removes keys that ended longer ago than `keptMs`. Returns how many. */
  pruneKeys(page: { limit: number; keptMs: Millis }): Promise<number>
  /** Removes audit log entries older than `keptMs`. Returns how many. */
  pruneAuditLog(page: { limit: number; keptMs: Millis }): Promise<number>
}

/** Notifications from this node and others. A notification may be lost: polling makes up for it. Each `on…` returns the function that unsubscribes. */
export interface Notifications {
  /** Lends the free slots of the pump that runs these types. New tasks then start in the commit that stores them, unless older work waits. */
  lendTaskSlots(lender: SlotLender<Task>, types: TaskClaimOptions['types']): void
  /** Lends the free slots of the delivery pump. Deliveries then start in the commit that creates them, where their lane allows it. */
  lendDeliverySlots(lender: SlotLender<OwedDelivery>): void
  /** Work of that kind became claimable. */
  onWork(listener: (kind: WorkKind) => void): () => void
  /** The cancel of a running task was requested. The next renewal makes up for a lost notification. */
  onCancelRequest(listener: (taskId: string) => void): () => void
  /** A task type was paused or resumed. */
  onTaskTypes(listener: () => void): () => void
  /** A schedule was added or changed. */
  onSchedules(listener: () => void): () => void
  /** The signing keys changed. */
  onSigningKeys(listener: () => void): () => void
  /** A key, or every key of a client, may have changed. Null: any of them may have. */
  onAccess(listener: (id: string | null) => void): () => void
  /** A task changed. The start of a task is announced on its own node only. */
  onTask(listener: (taskId: string) => void): () => void
}
