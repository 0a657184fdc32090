/** What goes into a store and what comes out of it, beside the rows themselves. */
import type { Allotment, SlotRefusal } from '../core/fair-share.ts'
import type {
  ApiKey,
  Attempt,
  AuditAction,
  CatchUp,
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

/** A task to be written. Times are the client's own; the store adds its clock's. */
export interface NewTask extends Omit<Task, SetByStore> {
  /** Not before this time; null: at once. */
  readonly dueAt: Millis | null
  /** Left out: no schedule made it. */
  readonly scheduleId?: string | null
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
export interface TaskSubmission {
  readonly tasks: readonly NewTask[]
  readonly idempotency: Idempotency | null
}

/** `replayed`: the key was used before with the same body; the tasks are as they are now. */
export type SubmitResult =
  | { readonly kind: 'added' | 'replayed'; readonly tasks: readonly Task[] }
  | { readonly kind: 'reused' }
  | { readonly kind: 'gone' }

/** An object, or why there is none: never there (or another client's), or erased and remembered. */
export type FindResult<T> = { readonly kind: 'found'; readonly value: T } | { readonly kind: 'missing' } | { readonly kind: 'gone' }

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
  /** Verified from the start: no ownership check is asked for. */
  readonly verified: boolean
}
/** Members left out stay as they are. */
export type EndpointPatch = Partial<EndpointSettings & Pick<Endpoint, 'previousSecret' | 'previousSecretUntil'>> & {
  /** true: now; false: cleared. */
  readonly paused?: boolean
  readonly disabled?: Endpoint['disabledReason'] | false
  /** true: verified now; false: to be verified anew: a verification begins, deliveries are held. */
  readonly verified?: boolean
}
export type ChangeResult<T> =
  | { readonly kind: 'changed'; readonly value: T }
  | { readonly kind: 'missing' }
  | { readonly kind: 'stale' }
  | { readonly kind: 'duplicate' }

/** `duplicate`: the client has one such. `full`: it has as many as it may have. */
export type AddResult<T> = { readonly kind: 'added'; readonly value: T } | { readonly kind: 'duplicate' } | { readonly kind: 'full' }

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

export interface ClaimOptions {
  readonly limit: number
  readonly leaseMs: Millis
  /** The boot that claims. */
  readonly leasedBy: string
  /** How its slots are shared out, asked each time the script runs. Left out: whoever comes. */
  readonly allot?: () => Allotment
}
/** Task types this node runs, and their limits across nodes (null: none). */
export interface TaskClaimOptions extends ClaimOptions {
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
export interface TaskHolds {
  readonly queues: ReadonlyMap<string, QueueState>
  /** Lanes in which as many run as may. */
  readonly filled: ReadonlySet<string>
  /** How many run of each type, on all nodes. */
  readonly running: ReadonlyMap<string, number>
}
export interface ClaimResult<W> {
  readonly items: readonly W[]
  /** Milliseconds until the next work falls due, as far as is known; null: nothing waits for a time. */
  readonly nextInMs: Millis | null
  /** More was claimable than the limit allowed, or lanes were busy: claim again as soon as a slot is free. */
  readonly more: boolean
  /** Those in line who were refused a slot: claim again as soon as one of them may have it. Left out: nobody. */
  readonly refused?: readonly SlotRefusal[]
}
/** A delivery with what sending it takes. */
export interface OwedDelivery extends Delivery {
  readonly eventBody: string
  readonly endpoint: Endpoint
  readonly traceparent: string | null
  readonly tracestate: string | null
}

/**
 * A pump's free slots, lent to the store: work may then start in the very commit that makes it claimable, which saves the claim.
 * Only where nothing waits before it, so that nobody is overtaken.
 */
export interface SlotLender<W> {
  /** The boot that runs what is started. */
  readonly leasedBy: string
  readonly leaseMs: Millis
  /** Takes up to `most` free slots. Each is used by `start` or given back by `release`. */
  reserve(most: number): number
  release(slots: number): void
  /** How what is free, with the slots lent, is shared out. */
  allot(lent: number): Allotment
  start(items: readonly W[]): void
}

export interface ExpiredWork {
  readonly tasks: readonly Task[]
  readonly deliveries: readonly Delivery[]
}

/** The one door out of `running`. `fence` must still be the task's. */
export interface Settlement {
  readonly id: string
  readonly fence: number
  readonly outcome: TryOutcome
  /** Of a task: by what name its holder ended the lease, remembered for an hour, so that a repetition is known as one. Left out: it is not. */
  readonly endedAs?: LeaseEnd
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
    readonly signal: HealthSignal | null
    /** Success clears `failingSince`; failure sets it when clear. */
    readonly succeeded: boolean | null
    readonly disable: Endpoint['disabledReason']
    /** Retry-After: the whole lane waits this long. */
    readonly holdMs: Millis | null
    /** Of a verification that passed: the attempts a minute its receiver allows; null or left out: any number. */
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
  /** Whether those who subscribe to progress are to be told: at most once a second of a task, whoever reports. */
  readonly notify: boolean
}
export interface LeaseRef {
  readonly id: string
  readonly fence: number
}
/** What became of a lease: renewed, or lost; and whether the client asked to cancel meanwhile. */
export interface Renewal {
  readonly id: string
  readonly renewed: boolean
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

export interface PrunedPage {
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
export interface PageCheckpoint {
  /** Where the next page starts. */
  readonly after: Position | null
  readonly done: boolean
}
export interface ReplayCheckpoint extends PageCheckpoint {
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
export interface BulkCheckpoint extends PageCheckpoint {
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
  readonly refundWindow: Millis | null
}
export interface QuotaWindow {
  /** Uses of this window, this one among them; over the limit: it was refused, and not counted. */
  readonly used: number
  /** When the window ends by the store's clock, and how long that is from now. */
  readonly expire: Millis
  readonly leftMs: Millis
}

/** `full`: the client has as many active keys as it may have. `missing`: there is no such client, or no such active key. */
export type AddKeyResult =
  | { readonly kind: 'added'; readonly value: ApiKey }
  | { readonly kind: 'full'; readonly active: number }
  | { readonly kind: 'missing' }
export interface KeyRotation {
  readonly id: string
  readonly clientId: string | null
  readonly fresh: Pick<ApiKey, 'id' | 'hash' | 'hint'>
  /** How long the old key stays active; 0: it ends at once. */
  readonly overlapMs: Millis
  /** Active keys that the client may have. */
  readonly max: number
}
export type NewKey = Omit<ApiKey, 'createdAt' | 'revokedAt' | 'lastUsedAt'>

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
export interface SigningKeyRotation {
  /** The next key, to become active as `retire` becomes retiring. */
  readonly activate: string | null
  readonly retire: string | null
  /** Retiring keys that leave the published set. */
  readonly remove: readonly string[]
}
export interface EncryptedValue {
  readonly place: { readonly table: string; readonly id: string; readonly column: string }
  readonly encrypted: string
}

/** What cancel, retry and delete answer. `refused` carries the task as it is. */
export type TaskChange =
  | { readonly kind: 'changed' | 'unchanged' | 'refused'; readonly task: Task }
  | { readonly kind: 'missing' }
  | { readonly kind: 'gone' }
