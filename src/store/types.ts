/** Arguments and results of the store's methods, other than rows. */
import type { Allotment, SlotRefusal } from '../core/fair-share.ts'
import type {
  ApiKey,
  Attempt,
  AuditAction,
  Delivery,
  Endpoint,
  EndpointSettings,
  EventType,
  HealthSignal,
  Millis,
  Schedule,
  State,
  Task,
  TryOutcome,
} from '../core/model.ts'

/** Members of a task that the store sets. */
type SetByStore =
  | 'dueAt'
  | 'scheduleId'
  | 'state'
  | 'laneId'
  | 'tries'
  | 'fence'
  | 'leasedUntil'
  | 'leasedBy'
  | 'generation'
  | 'revision'
  | 'result'
  | 'error'
  | 'lastError'
  | 'progress'
  | 'progressMessage'
  | 'cancelRequestedAt'
  | 'createdAt'
  | 'updatedAt'
  | 'startedAt'
  | 'finishedAt'

/** A task to store. The times are the client's; the store adds its own. */
export interface NewTask extends Omit<Task, SetByStore> {
  /** Not before this time; null: at once. */
  readonly dueAt: Millis | null
  /** Default: null, no schedule created it. */
  readonly scheduleId?: string | null
}

/** `Idempotency-Key` of a create: retained for 24 h, in one commit with its tasks. */
export interface Idempotency {
  readonly clientId: string
  /** Method and path, e.g. `POST /v1/tasks`. */
  readonly scope: string
  readonly key: string
  /** SHA-256 of the RFC 8785 canonical body, hexadecimal. */
  readonly fingerprint: string
}

/** One task or a batch, stored as a whole or not at all. */
export interface TaskSubmission {
  readonly tasks: readonly NewTask[]
  readonly idempotency: Idempotency | null
}

/** `replayed`: the key was used before with the same body; the tasks are as they are now. */
export type SubmitResult =
  | { readonly kind: 'added' | 'replayed'; readonly tasks: readonly Task[] }
  | { readonly kind: 'reused' }
  | { readonly kind: 'gone' }

/** `missing`: it never existed, or belongs to another client. `gone`: it was erased, and its tombstone exists. */
export type FindResult<T> = { readonly kind: 'found'; readonly value: T } | { readonly kind: 'missing' } | { readonly kind: 'gone' }

export interface Page<T> {
  readonly items: readonly T[]
  /** Where the next page starts; null: this is the last page. */
  readonly next: Position | null
}
/** The sort key of the last row of a page. */
export interface Position {
  readonly at: Millis
  readonly id: string
}

/** The last task that a page of a count has read. */
export interface OpenTaskCursor extends Pick<Task, 'laneId' | 'id'> {
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
export interface TaskListQuery extends TaskFilter {
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

export interface EndpointInsert extends EndpointSettings, Pick<Endpoint, 'id' | 'clientId' | 'verification'> {
  /** Verified from the start: no challenge is sent. */
  readonly verified: boolean
}
/** Omitted members stay as they are. */
export type EndpointPatch = Partial<EndpointSettings & Pick<Endpoint, 'previousSecret' | 'previousSecretUntil'>> & {
  /** True: paused now. False: resumed. */
  readonly paused?: boolean
  readonly disabled?: Endpoint['disabledReason'] | false
  /** True: verified now. False: a new verification begins, and deliveries are held. */
  readonly verified?: boolean
}
export type ChangeResult<T> =
  | { readonly kind: 'changed'; readonly value: T }
  | { readonly kind: 'missing' }
  | { readonly kind: 'stale' }
  | { readonly kind: 'duplicate' }

/** `duplicate`: the client already has it. `full`: the client has as many as allowed. */
export type AddResult<T> = { readonly kind: 'added'; readonly value: T } | { readonly kind: 'duplicate' } | { readonly kind: 'full' }

export type NewSchedule = Pick<Schedule, 'id' | 'clientId' | 'type' | 'cron' | 'timezone' | 'catchUp' | 'template' | 'nextAt'> & {
  readonly paused: boolean
}
/** Omitted members stay as they are. */
export type SchedulePatch = Partial<Pick<Schedule, 'cron' | 'timezone' | 'catchUp' | 'template' | 'nextAt'>> & { readonly paused?: boolean }
/** A schedule as the cron ticker reads it. */
export interface DueSchedule extends Pick<Schedule, 'id' | 'clientId' | 'type' | 'cron' | 'timezone' | 'catchUp' | 'revision'> {
  readonly nextAt: Millis
  /** Characters of its template. */
  readonly size: number
}
/** Ticks of a schedule to create, and its next tick. Nothing happens if the schedule has changed since `due` was read. */
export interface Tick {
  readonly due: Pick<DueSchedule, 'id' | 'nextAt' | 'revision' | 'size'>
  /** One task with this `runAt` for each. None: the ticks are skipped. */
  readonly times: readonly Millis[]
  readonly nextAt: Millis | null
  /** The task type's values, for schedules that set none. */
  readonly timeoutSeconds: number
  readonly maxTries: number
}

export interface ClaimOptions {
  readonly limit: number
  readonly leaseMs: Millis
  /** The boot id of the node. */
  readonly leasedBy: string
  /** How the slots are shared among clients, called at each run of the script. Default: no client is refused. */
  readonly allot?: () => Allotment
}
/** The task types of a claim, with their limits across nodes; null: no limit. */
export interface TaskClaimOptions extends ClaimOptions {
  readonly types: readonly { readonly type: string; readonly concurrency: number | null }[]
}
/** The state of a task type that all nodes share. */
export interface QueueState {
  readonly type: string
  /** When the type was paused; null: it is not paused. */
  readonly pausedAt: Millis | null
  /** When a worker of this type was last seen, accurate to some seconds; null: never. */
  readonly workerSeenAt: Millis | null
}
/** What may keep tasks from starting, other than their time. */
export interface TaskHolds {
  readonly queues: ReadonlyMap<string, QueueState>
  /** Lanes at their concurrency limit. */
  readonly filled: ReadonlySet<string>
  /** Running tasks of each type, on all nodes. */
  readonly running: ReadonlyMap<string, number>
}
export interface ClaimResult<W> {
  readonly items: readonly W[]
  /** Milliseconds until the next known due time; null: nothing waits for a time. */
  readonly nextInMs: Millis | null
  /** There may be more claimable work: claim again as soon as a slot is free. */
  readonly more: boolean
  /** Clients and lanes with claimable work that were refused a slot: claim again as soon as one of them may have it. Default: none. */
  readonly refused?: readonly SlotRefusal[]
}
/** A delivery with everything that sending it needs. */
export interface OwedDelivery extends Delivery {
  readonly eventBody: string
  readonly endpoint: Endpoint
  readonly traceparent: string | null
  readonly tracestate: string | null
}

/**
 * Lends the free slots of a pump to the store. Work may then start in the commit that makes it claimable, which saves the claim. Earlier work is never
 * overtaken: nothing starts this way while anything waits.
 */
export interface SlotLender<W> {
  /** The boot id of the pump's node. */
  readonly leasedBy: string
  readonly leaseMs: Millis
  /** Takes up to `max` free slots. Each is used by `start` or returned by `release`. */
  reserve(max: number): number
  release(slots: number): void
  /** How the free slots and the lent ones are shared among clients. */
  allot(lent: number): Allotment
  start(items: readonly W[]): void
}

export interface ExpiredWork {
  readonly tasks: readonly Task[]
  readonly deliveries: readonly Delivery[]
}

/** The only way out of `running`. `fence` must still be the task's. */
export interface Settlement {
  readonly id: string
  readonly fence: number
  readonly outcome: TryOutcome
  /** Of a task: how its worker ended the lease. Remembered for an hour, to recognize a repeated call. Default: not remembered. */
  readonly endedAs?: LeaseEnd
}
/** How a worker over HTTP ends its lease. */
export type LeaseEnd = 'complete' | 'fail' | 'release'
/** The attempt is recorded even when the lease was lost, since the POST did happen. */
export interface DeliverySettlement extends Settlement {
  readonly attempt: Omit<Attempt, 'deliveryId' | 'fence'> | null
  readonly endpoint: {
    readonly id: string
    /** Its URL when the delivery was claimed. If the URL has changed since, the signal is ignored. Null: any URL. */
    readonly url: string | null
    /** The signal for the lane's breaker and slow start; null: none. */
    readonly signal: HealthSignal | null
    /** True clears `failingSince`; false sets it if it is clear. */
    readonly succeeded: boolean | null
    readonly disable: Endpoint['disabledReason']
    /** `Retry-After`: the whole lane waits this long. */
    readonly holdMs: Millis | null
    /** Of a verification that passed: attempts per minute that the receiver allows. Default: null, no limit. */
    readonly allowedRate?: number | null
  }
}
export type SettleResult<W> = { readonly kind: 'settled'; readonly value: W } | { readonly kind: 'stale' }
export interface ProgressReport {
  readonly kind: 'settled'
  readonly value: Task
  /** `early`: nobody was told, for that was not asked or another report was told within the second; `nobody`: the task has no follower. */
  readonly notified: 'sent' | 'early' | 'nobody'
}
export interface Progress {
  readonly id: string
  readonly fence: number
  readonly progress: number
  readonly message: string | null
  /** Whether to send an event to subscribers of progress: at most one per second and task. */
  readonly notify: boolean
}
export interface LeaseRef {
  readonly id: string
  readonly fence: number
}
/** A lease that was renewed or lost, and whether the cancel of its task was requested. */
export interface Renewal {
  readonly id: string
  readonly renewed: boolean
  readonly cancelRequested: boolean
}

/** What keeps due work of a lane from starting. */
export interface LaneState {
  readonly id: string
  readonly heldUntil: Millis
  /** The pause between probes while the breaker is open; 0: it is closed. */
  readonly probeMs: Millis
  /** The lane is at its concurrency limit. */
  readonly filled: boolean
  /** When its rate limit allows the next start; null: it has no rate limit. */
  readonly pacedUntil: Millis | null
}

export interface PrunedPage {
  readonly removed: number
  /** Where to continue; null: the rest is too young, start from the beginning next time. */
  readonly next: string | null
}
/** Selects the deliveries to send again. */
export interface ReplayFilter {
  readonly clientId: string
  /** Null: all endpoints of the client. */
  readonly endpointId: string | null
  readonly since: Millis | null
  /** Exclusive. */
  readonly until: Millis
  /** When the replay was requested. Later deliveries, such as its own, are excluded. */
  readonly asOf: Millis
  /** Ended states. */
  readonly states: readonly State[]
  readonly eventTypes: readonly EventType[] | null
}
/** The progress of a job that pages through a client's rows. */
export interface PageCheckpoint {
  /** Where the next page starts. */
  readonly after: Position | null
  readonly done: boolean
}
export interface ReplayCheckpoint extends PageCheckpoint {
  readonly replayed: number
  /** Matches that were erased, or whose endpoint was deleted. */
  readonly skipped: number
}
/** Selects the tasks to cancel or to retry. */
export interface BulkFilter extends Omit<TaskFilter, 'states' | 'batchId'> {
  readonly clientId: string
  /** Either open states (cancel) or ended states (retry), never both. */
  readonly states: readonly State[]
  /** Exclusive. */
  readonly createdBefore: Millis
}
export interface BulkCheckpoint extends PageCheckpoint {
  /** Tasks canceled, asked to end, or retried. */
  readonly changed: number
  /** Of these, the running tasks that were asked to end. */
  readonly asked: number
}

/** Takes one use of a quota with windows of `windowMs`, or returns one. */
export interface QuotaUse {
  readonly key: string
  readonly limit: number
  readonly windowMs: Millis
  /** The end of the window to return a use to; null: a use is taken. */
  readonly refundWindow: Millis | null
}
export interface QuotaWindow {
  /** Uses in this window, including this one. Above the limit: it was refused and not counted. */
  readonly used: number
  /** The end of the window by the store's clock, and the time until then. */
  readonly expire: Millis
  readonly leftMs: Millis
}

/** `full`: the client has as many active keys as allowed. `missing`: there is no such client, or no such active key. */
export type AddKeyResult =
  | { readonly kind: 'added'; readonly value: ApiKey }
  | { readonly kind: 'full'; readonly active: number }
  | { readonly kind: 'missing' }
export interface KeyRotation {
  readonly id: string
  readonly clientId: string | null
  readonly fresh: Pick<ApiKey, 'id' | 'hash' | 'hint'>
  /** How long the old key stays active. */
  readonly overlapMs: Millis
  /** Maximum active keys of the client. */
  readonly max: number
}
export type NewKey = Omit<ApiKey, 'createdAt' | 'revokedAt' | 'lastUsedAt'>

/** Omitted members match everything. */
export interface AuditQuery {
  readonly clientId?: string
  readonly actor?: string
  readonly action?: AuditAction
  readonly since?: Millis
  /** Exclusive. */
  readonly until?: Millis
  readonly limit: number
  readonly after: Position | null
}

/** The due state changes of signing keys. */
export interface SigningKeyRotation {
  /** The next key becomes active, and `retire` becomes retiring. */
  readonly activate: string | null
  readonly retire: string | null
  /** Retiring keys that leave the published set. */
  readonly remove: readonly string[]
}
export interface EncryptedValue {
  readonly place: { readonly table: string; readonly id: string; readonly column: string }
  readonly encrypted: string
}

/** The result of cancel, retry and delete. `refused` has the task as it is. */
export type TaskChange =
  | { readonly kind: 'changed' | 'unchanged' | 'refused'; readonly task: Task }
  | { readonly kind: 'missing' }
  | { readonly kind: 'gone' }
