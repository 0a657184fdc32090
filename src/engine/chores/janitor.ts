/** Settles on behalf of the dead: leases that ended, deadlines nobody enforces, turns that were lost. Idempotent and fenced, so every node may do it. */
import type { Clock } from '../../core/clock.ts'
import { type Backoff, decideOutcome, evaluateTimeLimits, isHeldByWorker } from '../../core/lifecycle.ts'
import type { Attempt, Delivery, Millis, Task, TryOutcome } from '../../core/model.ts'
import type { Store } from '../../store/interfaces.ts'
import { exponential, type Registry } from '../../tasks/define.ts'

export interface JanitorOptions {
  readonly store: Store
  readonly clock: Clock
  readonly leaseMs: Millis
  /** How long a handler may outlive a cancel or its deadline before it is ended without it. */
  readonly graceMs: Millis
  /** Renews what this node holds: done before each sweep, lest a node that stalled rescue its own work. */
  readonly renew: () => Promise<unknown>
  readonly registry: Pick<Registry, 'get' | 'list'>
  /** The shortest time a task of any type is kept after its end. */
  readonly minRetentionMs: Millis
  /** How long news of endpoints is kept, and what is left of deleted ones. */
  readonly endpointEventRetentionMs: Millis
  /** How long an entry of the audit log is kept, and a key that has ended. */
  readonly auditRetentionMs: Millis
  /** How long a delivery may stay open. */
  readonly holdMs: Millis
  readonly onError: (error: unknown) => void
}
export interface Janitor {
  /** Settles at once what other boots had leased (null: only what has expired). Answers how many rows were settled. */
  reclaim(boot: string | null): Promise<number>
  start(): void
  stop(): void
}

/** The death of a node is not the work's fault: it starts again at once, its tries bounding how often. */
const NO_BACKOFF: Backoff = () => 0
const BATCH = 500
/** How often deadlines of pending tasks are looked at. */
const OVERDUE_EVERY_MS = 5_000
const REPAIR_EVERY_MS = 60_000
/** How often endpoints that fail, and deliveries held too long, are looked for. */
const HOLDS_EVERY_MS = 60_000
/** Endpoints that fail, told of in one commit: each is owed to every other endpoint of its client, and those may be a thousand. */
const ANNOUNCED_AT_ONCE = 1
/** How often what has served its time is looked for, and what deleted clients had. */
const RETENTION_EVERY_MS = 60_000
const ERASURE_EVERY_MS = 20_000
/** How often lanes of keys that nobody uses any more are looked for. */
const LEFTOVERS_EVERY_MS = 600_000
/** How often news of endpoints, and endpoints that were deleted, are looked at: few they are, beside tasks. */
const ENDPOINT_EVENTS_EVERY_MS = 3_600_000
/** Tasks looked at in one go; the rest waits for the next: 5,000 a second can age out. */
const MAX_WALKED = 300_000
/** How often other nodes are told which types are run here: well within the minute after which nobody is believed to run one. */
const TOUCH_TYPES_EVERY_MS = 20_000
/** How often secrets that no longer sign, and old entries of the audit log and old keys, are looked for. */
const RECORDS_EVERY_MS = 3_600_000
/** Pages of one deleted client that are erased in one go. */
const MAX_PAGES = 100
/** For so long after its deletion a request of a client that was let in before may still write. */
const LATE_MS = 600_000

export function createJanitor(options: JanitorOptions): Janitor {
  const {
    store,
    clock,
    leaseMs,
    graceMs,
    renew,
    registry,
    holdMs,
    minRetentionMs: leastKeptMs,
    endpointEventRetentionMs: newsKeptMs,
    auditRetentionMs: auditKeptMs,
    onError,
  } = options
  const runs = registry.list().flatMap(({ type, where }) => (where === 'worker' ? [] : [type]))

  /** A lost node is nobody's fault; a worker that took longer than it may has failed. */
  const judgeExpired = (task: Task, now: Millis): TryOutcome => {
    const late = isHeldByWorker(task) ? evaluateTimeLimits(task, now) : null
    if (late) return decideOutcome(task, late, (registry.get(task.type)?.retry ?? exponential()).delayMs, clock)
    const message = isHeldByWorker(task) ? 'The worker that ran the task was lost.' : 'The node that ran the task was lost.'
    return decideOutcome(task, { kind: 'threw', error: { code: 'worker_lost', message, details: null } }, NO_BACKOFF, clock)
  }
  const rescueTasks = async (expired: readonly Task[]): Promise<number> => {
    const now = expired.some(isHeldByWorker) ? await store.now() : 0
    const settled = await Promise.all(
      expired.map((task) => store.tasks.settle({ id: task.id, fence: task.fence, outcome: judgeExpired(task, now) })),
    )
    return settled.filter(({ kind }) => kind === 'settled').length
  }
  const rescueDeliveries = async (expired: readonly Delivery[]): Promise<number> => {
    const message = 'the node that sent it was lost'
    const settled = await Promise.all(
      expired.map((delivery) => {
        const error = { code: 'aborted', message, details: null }
        return store.deliveries.settle({
          id: delivery.id,
          fence: delivery.fence,
          outcome: decideOutcome(delivery, { kind: 'threw', error }, NO_BACKOFF, clock),
          attempt: cutShort(message, delivery.updatedAt, clock.now()),
          endpoint: { id: delivery.endpointId, url: null, signal: null, succeeded: null, disable: null, holdMs: null },
        })
      }),
    )
    return settled.filter(({ kind }) => kind === 'settled').length
  }
  const rescue = async (boot: string | null): Promise<number> => {
    let all = 0
    for (let found = -1; found !== 0; all += found) {
      const { tasks, deliveries } = await store.maintenance.findExpired(BATCH, boot)
      found = (await rescueTasks(tasks)) + (await rescueDeliveries(deliveries))
    }
    return all
  }

  const cancels = new Map<string, () => void>()
  /** Where the walk along the tasks goes on. */
  let walkedTo = ''
  const age = async (): Promise<void> => {
    while (await store.maintenance.pruneRecords({ limit: BATCH }));
    for (let walked = 0; walked < MAX_WALKED && cancels.size > 0; walked += BATCH) {
      const { next } = await store.maintenance.pruneTasks({ after: walkedTo, limit: BATCH, minKeptMs: leastKeptMs })
      walkedTo = next ?? ''
      if (next === null) return
    }
  }

  const sweep = async (): Promise<void> => {
    for (let after: string | null = ''; after !== null; ) after = await store.maintenance.pruneLanes({ after, limit: BATCH })
  }

  /** When each deleted client was first seen here. */
  let deleted = new Map<string, Millis>()
  const erase = async (): Promise<void> => {
    const now = clock.now()
    const seen: typeof deleted = new Map()
    for (let id = await store.maintenance.findDeletedClient(''); id !== null; id = await store.maintenance.findDeletedClient(id)) {
      const since = deleted.get(id) ?? now
      seen.set(id, since)
      for (
        let pages = 0;
        pages < MAX_PAGES && (await store.maintenance.eraseClient({ id, last: now - since >= LATE_MS })) === 'more';
        pages++
      );
    }
    deleted = seen
  }

  const every = (name: string, ms: Millis, work: () => Promise<unknown>): void => {
    // Spread, so that nodes started together do not sweep together.
    cancels.set(
      name,
      clock.after(ms * (0.9 + clock.random() / 5), () => {
        work()
          .catch(onError)
          .then(() => cancels.has(name) && every(name, ms, work))
      }),
    )
  }
  return {
    reclaim: rescue,
    start() {
      store.schedules.touchTaskTypes({ types: runs }).catch(onError)
      every('expired', leaseMs / 3, async () => {
        await renew()
        await rescue(null)
      })
      every('overdue', OVERDUE_EVERY_MS, async () => {
        while ((await store.maintenance.endOverdue({ limit: BATCH, graceMs })) >= BATCH);
      })
      every('types', TOUCH_TYPES_EVERY_MS, () => store.schedules.touchTaskTypes({ types: runs }))
      every('lanes', REPAIR_EVERY_MS, async () => {
        await store.maintenance.repairLanes({ kind: 'task' })
        await store.maintenance.repairLanes({ kind: 'delivery' })
      })
      every('retention', RETENTION_EVERY_MS, age)
      every('erasure', ERASURE_EVERY_MS, erase)
      every('leftovers', LEFTOVERS_EVERY_MS, sweep)
      every('news', ENDPOINT_EVENTS_EVERY_MS, async () => {
        for (let after: string | null = ''; after !== null; )
          after = (await store.maintenance.pruneEndpointEvents({ after, limit: BATCH, keptMs: newsKeptMs })).next
      })
      every('holds', HOLDS_EVERY_MS, async () => {
        while ((await store.maintenance.announceFailing({ limit: ANNOUNCED_AT_ONCE })) === ANNOUNCED_AT_ONCE);
        while ((await store.maintenance.expireDeliveries({ limit: BATCH, holdMs })) >= BATCH);
      })
      every('records', RECORDS_EVERY_MS, async () => {
        while ((await store.signing.erasePreviousSecrets({ limit: BATCH })) === BATCH);
        while ((await store.maintenance.pruneAuditLog({ limit: BATCH, keptMs: auditKeptMs })) === BATCH);
        while ((await store.maintenance.pruneKeys({ limit: BATCH, keptMs: auditKeptMs })) === BATCH);
      })
    },
    stop() {
      for (const cancel of cancels.values()) cancel()
      cancels.clear()
    },
  }
}

function cutShort(error: string, startedAt: Millis, now: Millis): Omit<Attempt, 'deliveryId' | 'fence'> {
  return {
    startedAt,
    durationMs: Math.max(0, now - startedAt),
    outcome: 'aborted',
    httpStatus: null,
    error,
    timings: '{"dnsMs":null,"connectMs":null,"tlsMs":null,"firstByteMs":null}',
    keyId: null,
    retryAfterSeconds: null,
    responseHeaders: '{}',
    responseExcerpt: null,
    remoteAddress: null,
  }
}
