/** Settles on behalf of the dead: leases that ended, deadlines nobody enforces, turns that were lost. Idempotent and fenced, so every node may do it. */
import type { Clock } from './clock.ts'
import { type Delays, decide } from './lifecycle.ts'
import type { Attempt, Millis } from './model.ts'
import type { Store } from './store/store.ts'

export interface JanitorOptions {
  readonly store: Store
  readonly clock: Clock
  readonly leaseMs: Millis
  /** How long a handler may outlive a cancel or its deadline before it is ended without it. */
  readonly graceMs: Millis
  /** Renews what this node holds: done before each sweep, lest a node that stalled rescue its own work. */
  readonly renew: () => Promise<unknown>
  readonly onError: (error: unknown) => void
}
export interface Janitor {
  /** Settles at once what other boots had leased (null: only what has expired). Answers how many rows were settled. */
  rescue(boot: string | null): Promise<number>
  start(): void
  stop(): void
}

/** The death of a node is not the work's fault: it starts again at once, its tries bounding how often. */
const AT_ONCE: Delays = () => 0
const BATCH = 500
/** How often deadlines of pending tasks are looked at. */
const OVERDUE_EVERY_MS = 5_000
const MEND_EVERY_MS = 60_000

export function createJanitor({ store, clock, leaseMs, graceMs, renew, onError }: JanitorOptions): Janitor {
  const rescueTasks = async (boot: string | null): Promise<number> => {
    const expired = await store.findExpiredTasks(BATCH, boot)
    const error = { code: 'worker_lost', message: 'The node that ran the task was lost.', details: null }
    const settled = await Promise.all(
      expired.map((task) => {
        return store.settleTask({ id: task.id, fence: task.fence, outcome: decide(task, { kind: 'threw', error }, AT_ONCE, clock) })
      }),
    )
    return settled.filter(({ kind }) => kind === 'settled').length
  }
  const rescueDeliveries = async (boot: string | null): Promise<number> => {
    const expired = await store.findExpiredDeliveries(BATCH, boot)
    const message = 'the node that sent it was lost'
    const settled = await Promise.all(
      expired.map((delivery) => {
        const error = { code: 'aborted', message, details: null }
        return store.settleDelivery({
          id: delivery.id,
          fence: delivery.fence,
          outcome: decide(delivery, { kind: 'threw', error }, AT_ONCE, clock),
          attempt: cutShort(message, delivery.updatedAt, clock.now()),
          endpoint: { id: delivery.endpointId, succeeded: null, disable: null, holdMs: null },
        })
      }),
    )
    return settled.filter(({ kind }) => kind === 'settled').length
  }
  const rescue = async (boot: string | null): Promise<number> => {
    let all = 0
    for (let found = -1; found !== 0; all += found) found = (await rescueTasks(boot)) + (await rescueDeliveries(boot))
    return all
  }

  const cancels = new Map<string, () => void>()
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
    rescue,
    start() {
      every('expired', leaseMs / 3, async () => {
        await renew()
        await rescue(null)
      })
      every('overdue', OVERDUE_EVERY_MS, () => store.endOverdue(BATCH, graceMs))
      every('lanes', MEND_EVERY_MS, async () => {
        await store.mendLanes('task')
        await store.mendLanes('delivery')
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
