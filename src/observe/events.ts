/**
 * The event sink of a node. The log subscribes to it; metrics and traces can do so too. Emitting calls each subscriber, so a subscriber must not
 * throw or block.
 */
import type { RunRecord } from '../core/lifecycle.ts'
import type { AttemptOutcome, EventType, Millis, WorkKind } from '../core/model.ts'

/** The facts of each event, by its name. Durations are milliseconds. */
export interface EventFacts {
  /** One transaction of the store: from the call to the commit, or to the error. */
  'store.write': { readonly priority: number; readonly durationMs: Millis; readonly failed: boolean }
  /** One consistent read of the store. */
  'store.read': { readonly durationMs: Millis; readonly failed: boolean }
  /** A pump claimed work. */
  'work.claimed': { readonly kind: WorkKind; readonly claimed: number; readonly limit: number }
  /** A pump renewed its leases. `lost`: how many another node holds by now. */
  'work.renewed': { readonly kind: WorkKind; readonly renewed: number; readonly lost: number }
  /** The node lost the lease of work in progress. Its result is refused by the fence. */
  'work.lost': { readonly kind: WorkKind; readonly id: string }
  /** A try of a task ended. */
  'task.run': RunRecord
  /** A handler threw. Clients see the message of the failure, never the stack. */
  'task.threw': { readonly taskId: string; readonly type: string; readonly try: number; readonly stack: string }
  /** An attempt of a delivery ended. */
  'delivery.attempted': {
    readonly deliveryId: string
    readonly eventId: string
    readonly eventType: EventType
    readonly endpointId: string
    readonly try: number
    readonly outcome: AttemptOutcome
    readonly httpStatus: number | null
    readonly durationMs: Millis
    /** Null: this was the last one. */
    readonly nextDelayMs: Millis | null
  }
  /** The transport finished one HTTP request of a webhook. */
  'webhook.sent': {
    readonly outcome: AttemptOutcome
    readonly httpStatus: number | null
    readonly durationMs: Millis
    readonly reused: boolean
  }
  /** A route answered. `route` is its pattern, such as `/v1/tasks/{id}`. */
  'http.served': { readonly method: string; readonly route: string; readonly status: number; readonly durationMs: Millis }
  /** A request failed with an error of the server (`internal`), or was refused for lack of capacity. */
  'http.failed': { readonly code: string; readonly fields: object }
  /** A chore ran. `count`: how many rows it changed. */
  'chore.ran': { readonly chore: string; readonly count: number; readonly durationMs: Millis }
  /** Ticks of a schedule made tasks. `lagMs`: from the tick's time to its commit. */
  'schedule.ticked': { readonly scheduleId: string; readonly tasks: number; readonly lagMs: Millis }
  /** Every encrypted value is under the current master key. `count`: values that were encrypted again. */
  'secrets.reencrypted': { readonly count: number }
  /** A background activity failed and will be tried again. */
  trouble: { readonly error: unknown }
}
export type EventName = keyof EventFacts

export interface EventSink {
  emit<Name extends EventName>(name: Name, facts: EventFacts[Name]): void
  /** Returns the function that unsubscribes. */
  on<Name extends EventName>(name: Name, subscriber: (facts: EventFacts[Name]) => void): () => void
  /** Whether there are subscribers: for facts that are costly to collect. */
  has(name: EventName): boolean
}

/** @example
 * const events = createEventSink()
 * const off = events.on('chore.ran', ({ chore, count }) => console.log(chore, count))
 * events.emit('chore.ran', { chore: 'rescue', count: 3, durationMs: 12 })
 * off()
 */
export function createEventSink(): EventSink {
  const subscribers = new Map<EventName, Set<(facts: never) => void>>()
  return {
    emit(name, facts) {
      const set = subscribers.get(name)
      if (set) for (const subscriber of set) subscriber(facts as never)
    },
    on(name, subscriber) {
      const set = subscribers.get(name) ?? new Set()
      subscribers.set(name, set.add(subscriber))
      return () => set.delete(subscriber)
    },
    has: (name) => (subscribers.get(name)?.size ?? 0) > 0,
  }
}
