/**
 * What a store promises. Every method is one transaction (or one consistent read); nothing outside `store/` opens one.
 * A merged call is total: a conflict is a row of the answer, never an error that fails its neighbours.
 * `clientId: null` in a query means: the operator, who sees every client's objects.
 */
import type {
  Attempt,
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
  /** true: verified now; false: to be verified anew, deliveries held. */
  readonly verified?: boolean
}
export type Changed<T> =
  | { readonly kind: 'changed'; readonly value: T }
  | { readonly kind: 'missing' }
  | { readonly kind: 'stale' }
  | { readonly kind: 'duplicate' }

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

/** The one door out of `running`. `fence` must still be the task's. */
export interface Settlement {
  readonly id: string
  readonly fence: number
  readonly outcome: Outcome
}
/** A delivery's settlement: the attempt is recorded even when the lease was lost, since the POST did happen. */
export interface DeliverySettlement extends Settlement {
  readonly attempt: Omit<Attempt, 'deliveryId' | 'fence'> | null
  readonly endpoint: {
    readonly id: string
    /** Success clears `failingSince`; failure sets it when clear. */
    readonly succeeded: boolean | null
    readonly disable: Endpoint['disabledReason']
    /** Retry-After: the whole lane waits this long. */
    readonly holdMs: Millis | null
  }
}
export type Settled<W> = { readonly kind: 'settled'; readonly value: W } | { readonly kind: 'stale' }
export interface Progress {
  readonly id: string
  readonly fence: number
  readonly progress: number
  readonly message: string | null
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

/** What cancel, retry and delete answer. `refused` carries the task as it is. */
export type TaskChange =
  | { readonly kind: 'changed' | 'unchanged' | 'refused'; readonly task: Task }
  | { readonly kind: 'missing' }
  | { readonly kind: 'gone' }

export interface Store {
  /** The store's clock: what leases and due times are compared with. */
  now(): Promise<Millis>

  addTasks(intake: Intake): Promise<Submitted>
  /** Looks a key up without writing; null: unused. */
  findSubmitted(idempotency: Idempotency): Promise<Submitted | null>
  /** Pending and running tasks, cheaply and roughly: for the depth limit. */
  countOpenTasks(): Promise<number>
  findTask(id: string, clientId: string | null): Promise<Found<Task>>
  /** Tasks by id, for those who wait on them. Unknown ids are left out. */
  findTasks(ids: readonly string[]): Promise<readonly Task[]>
  callbackStatuses(tasks: readonly Task[]): Promise<ReadonlyMap<string, CallbackStatus>>
  listTasks(query: TaskQuery): Promise<Page<Task>>
  cancelTask(id: string, clientId: string | null): Promise<TaskChange>
  redoTask(id: string, clientId: string | null): Promise<TaskChange>
  eraseTask(id: string, clientId: string | null): Promise<TaskChange>
  claimTasks(claim: TaskClaim): Promise<Claimed<Task>>
  settleTask(settlement: Settlement): Promise<Settled<Task>>
  reportProgress(progress: Progress): Promise<Settled<Task>>

  claimDeliveries(claim: Claim): Promise<Claimed<Owed>>
  settleDelivery(settlement: DeliverySettlement): Promise<Settled<Delivery>>
  findDelivery(id: string, clientId: string | null): Promise<Delivery | null>
  listDeliveries(query: DeliveryQuery): Promise<Page<Delivery>>
  listAttempts(deliveryIds: readonly string[]): Promise<readonly Attempt[]>
  /** Open: due now. Ended: a new delivery of the same event. Null: none such, or its bytes were erased. */
  redeliver(id: string, newId: string, clientId: string | null): Promise<Delivery | null>
  /** An `endpoint.*` event for this endpoint alone, with one attempt. */
  addPing(ping: { endpointId: string; clientId: string; eventId: string; deliveryId: string }): Promise<Delivery | null>
  listEvents(query: {
    clientId: string | null
    taskId?: string
    types?: readonly EventType[]
    /** A place in the client's own count of events. */
    after: number
    limit: number
  }): Promise<readonly Event[]>
  /** Where an event stands in its client's feed; null: it is not there. */
  findEventSeq(id: string, clientId: string): Promise<number | null>

  renew(kind: Kind, held: readonly Held[], leaseMs: Millis): Promise<readonly Renewal[]>
  /** Running work whose lease has ended, or that another boot than `boot` holds (null: by lease alone). */
  findExpiredTasks(limit: number, boot: string | null): Promise<readonly Task[]>
  findExpiredDeliveries(limit: number, boot: string | null): Promise<readonly Delivery[]>
  /** Pending tasks past `startBy` or `deadlineAt`, and running ones whose cancel was asked for over `graceMs` ago: ended by the script. */
  endOverdue(limit: number, graceMs: Millis): Promise<number>
  /** Leaves a turn for every lane that has claimable work and none: a lost turn costs seconds, not a delivery. */
  mendLanes(kind: Kind): Promise<number>

  addEndpoint(endpoint: NewEndpoint): Promise<Endpoint | null>
  findEndpoint(id: string, clientId: string | null): Promise<Endpoint | null>
  listEndpoints(clientId: string | null, limit: number, after: Position | null): Promise<Page<Endpoint>>
  /** `revision` null: whatever it is. */
  changeEndpoint(id: string, clientId: string | null, patch: EndpointPatch, revision: number | null): Promise<Changed<Endpoint>>
  removeEndpoint(id: string, clientId: string | null): Promise<boolean>

  addClient(client: { id: string; name: string }): Promise<Client>
  findClient(id: string): Promise<Client | null>
  listClients(limit: number, after: Position | null): Promise<Page<Client>>
  changeClient(id: string, status: ClientStatus): Promise<Client | null>
  addKey(key: Omit<Key, 'createdAt' | 'revokedAt' | 'lastUsedAt'>): Promise<Key | null>
  /** The key with that hash and its client's status; null when unknown. */
  findKey(hash: string): Promise<(Key & { readonly clientStatus: ClientStatus | null }) | null>
  listKeys(clientId: string | null): Promise<readonly Key[]>
  revokeKey(id: string, clientId: string | null): Promise<Key | null>

  listSigningKeys(): Promise<SigningKey[]>
  addSigningKeys(keys: readonly SigningKey[]): Promise<SigningKey[]>
  /** A setting of the installation: writes the value when there is none; answers what is there. */
  keepSetting(name: string, value: string): Promise<string>

  /** Lends a pump's slots: tasks of these types start as they come in, where nothing waits before them. */
  startTasks(starter: Starter<Task>, types: ReadonlySet<string>): void
  /** Lends a pump's slots: deliveries start with the fact they tell of, where their lane has room and nothing waits before them. */
  startDeliveries(starter: Starter<Owed>): void

  /** Work of that kind became claimable: in process, or heard from another node. */
  onWork(listener: (kind: Kind) => void): () => void
  /** The client of a running task asked to cancel it: heard here, or from another node. A lost word is made good by the next renewal. */
  onCancelRequest(listener: (taskId: string) => void): () => void
  /** A task changed: for those who wait on it. */
  onTask(listener: (taskId: string) => void): () => void
  close(): Promise<void>
}
