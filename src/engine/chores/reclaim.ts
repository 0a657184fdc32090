/** Takes back work whose lease has ended: the node or worker that held it is gone. */
import type { Clock } from '../../core/clock.ts'
import { type Backoff, decideOutcome, evaluateTimeLimits, isHeldByWorker } from '../../core/lifecycle.ts'
import type { Attempt, Delivery, Millis, Task, TryOutcome } from '../../core/model.ts'
import type { StoreWith } from '../../store/interfaces.ts'
import { exponential } from '../../tasks/define.ts'
import type { Registry } from '../../tasks/registry.ts'
import { type Chore, PAGE } from './runner.ts'

export interface ReclaimOptions {
  readonly store: StoreWith<{ tasks: 'settle'; deliveries: 'settle'; maintenance: 'findExpired' }> & { now(): Promise<Millis> }
  readonly registry: Pick<Registry, 'get'>
  readonly clock: Clock
}
/** Settles work that another boot than `bootId` holds (null: only ended leases). Returns how many rows it settled. */
export type Reclaim = (bootId: string | null) => Promise<number>

/** A lost node is not the fault of its work: the work starts again at once. Its tries bound how often. */
const NO_BACKOFF: Backoff = () => 0

export function createReclaim({ store, registry, clock }: ReclaimOptions): Reclaim {
  const outcomeOf = (task: Task, now: Millis): TryOutcome => {
    // A worker that took longer than it may has failed, lost or not.
    const late = isHeldByWorker(task) ? evaluateTimeLimits(task, now) : null
    if (late) return decideOutcome(task, late, (registry.get(task.type)?.retry ?? exponential()).delayMs, clock)
    const message = isHeldByWorker(task) ? 'The worker that ran the task was lost.' : 'The node that ran the task was lost.'
    return decideOutcome(task, { kind: 'threw', error: { code: 'worker_lost', message, details: null } }, NO_BACKOFF, clock)
  }
  const settleTasks = async (tasks: readonly Task[]) => {
    const now = tasks.some(isHeldByWorker) ? await store.now() : 0
    return Promise.all(tasks.map((task) => store.tasks.settle({ id: task.id, fence: task.fence, outcome: outcomeOf(task, now) })))
  }
  const settleDelivery = (delivery: Delivery) => {
    const message = 'the node that sent it was lost'
    return store.deliveries.settle({
      id: delivery.id,
      fence: delivery.fence,
      outcome: decideOutcome(delivery, { kind: 'threw', error: { code: 'aborted', message, details: null } }, NO_BACKOFF, clock),
      attempt: abortedAttempt(message, delivery.updatedAt, clock.now()),
      endpoint: { id: delivery.endpointId, url: null, signal: null, succeeded: null, disable: null, holdMs: null },
    })
  }
  return async (bootId) => {
    let count = 0
    for (;;) {
      const { tasks, deliveries } = await store.maintenance.findExpired(PAGE, bootId)
      const settled = [...(await settleTasks(tasks)), ...(await Promise.all(deliveries.map(settleDelivery)))]
      const changed = settled.filter(({ kind }) => kind === 'settled').length
      if (changed === 0) return count
      count += changed
    }
  }
}

/** `renew` renews the leases of this node first: a node that stalled must not take back its own work. */
export const reclaimChore = (reclaim: Reclaim, renew: () => Promise<unknown>, leaseMs: Millis): Chore => ({
  name: 'reclaim expired leases',
  everyMs: leaseMs / 3,
  async run() {
    await renew()
    return reclaim(null)
  },
})

function abortedAttempt(error: string, startedAt: Millis, now: Millis): Omit<Attempt, 'deliveryId' | 'fence'> {
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
