/** Runs tasks: each try under its signal, in this thread or in one of the pool, then settles it. */
import type { Clock } from '../core/clock.ts'
import { decideOutcome, type TryResult } from '../core/lifecycle.ts'
import type { Millis, Task } from '../core/model.ts'
import type { EventSink } from '../observe/events.ts'
import type { Store } from '../store/interfaces.ts'
import type { RunContext, TaskType } from '../tasks/define.ts'
import type { Registry } from '../tasks/registry.ts'
import { Pump, settleWithRetry, toSlotLender, type WorkSource } from './pump.ts'
import { abortGraceMs, resultOfAbort, runTry, TryTimeout, toTryInput } from './run-try.ts'
import type { ThreadPool } from './threads/pool.ts'

/** The least time between two writes of a run's progress. The last report is always written. */
const REPORT_EVERY_MS = 100
/** The least time between two notifications of progress to its subscribers. */
const NOTIFY_EVERY_MS = 1_000

export interface TaskRunnerOptions {
  readonly store: Store
  readonly registry: Registry
  readonly clock: Clock
  readonly bootId: string
  readonly concurrency: number
  readonly leaseMs: Millis
  readonly events: EventSink
  readonly log: RunContext['log']
  /** With it the runner runs the types with `where: 'thread'`, without it those of this thread. */
  readonly threadPool?: ThreadPool
}

export function createTaskRunner(options: TaskRunnerOptions): Pump<Task> {
  const { store, registry, clock, bootId, concurrency, leaseMs, threadPool, events } = options
  const place = threadPool ? 'thread' : 'process'
  const types = registry
    .list()
    .filter(({ where }) => where === place)
    .map(({ type, concurrency: limit }) => ({ type, concurrency: limit }))

  const source: WorkSource<Task> = {
    claim: async (limit) => {
      if (types.length === 0) return { items: [], nextInMs: null, more: false }
      return store.tasks.claim({ limit, leaseMs, leasedBy: bootId, types })
    },
    renew: (held) => store.maintenance.renew({ kind: 'task', leases: held, leaseMs }),
    async process(task, signal) {
      const type = registry.get(task.type)!
      const startedAt = clock.now()
      const result = await run(task, type, signal, options)
      const outcome = decideOutcome(task, result, type.retry.delayMs, clock)
      const settled = await settleWithRetry(() => store.tasks.settle({ id: task.id, fence: task.fence, outcome }), signal, clock, events)
      if (result.kind === 'threw' && result.stack)
        events.emit('task.threw', { taskId: task.id, type: task.type, try: task.tries, stack: result.stack })
      events.emit('task.run', {
        task,
        outcome: settled.kind === 'stale' ? 'stale' : settled.value.state,
        durationMs: clock.now() - startedAt,
        waitMs: Math.max(0, startedAt - task.dueAt),
        errorCode: ('error' in outcome && outcome.error?.code) || null,
      })
    },
  }
  const pump = new Pump(source, { kind: 'task', concurrency, leaseMs, clock, events })
  // Only one pump can lend its slots to the store. Tasks of threads can wait for a claim.
  if (!threadPool) store.notifications.lendTaskSlots(toSlotLender(pump, bootId, leaseMs), types)
  return pump
}

/** Runs one try. Never throws. */
async function run(task: Task, type: TaskType, pumpSignal: AbortSignal, options: TaskRunnerOptions): Promise<TryResult> {
  const { clock, threadPool, log } = options
  const abort = new AbortController()
  const { signal } = abort
  const forward = (): void => abort.abort(pumpSignal.reason)
  if (pumpSignal.aborted) forward()
  else pumpSignal.addEventListener('abort', forward, { once: true })
  const expireAfter = (ms: Millis, code: TryTimeout['code'], message: string) =>
    clock.after(ms, () => abort.abort(new TryTimeout(code, message)))
  const timers = [expireAfter(task.timeoutSeconds * 1000, 'timeout', `The try took longer than its ${task.timeoutSeconds} s.`)]
  if (task.deadlineAt !== null) {
    const message = `The task had not ended by ${new Date(task.deadlineAt).toISOString()}.`
    timers.push(expireAfter(Math.max(0, task.deadlineAt - clock.now()), 'deadline_exceeded', message))
  }
  const reporter = createReporter(task, options)
  try {
    const context = { signal, progress: reporter.report, log }
    if (threadPool) return await threadPool.runTry(toTryInput(task), type, context)
    return await Promise.race([runTry(toTryInput(task), type, context), resultAfterGrace(signal, timers, clock)])
  } finally {
    reporter.close()
    for (const cancel of timers) cancel()
    pumpSignal.removeEventListener('abort', forward)
  }
}

/** Ends the wait for a handler that ignores its signal: at once after a timeout or a lost lease, otherwise after a grace. */
function resultAfterGrace(signal: AbortSignal, timers: (() => void)[], clock: Clock): Promise<TryResult> {
  return new Promise((resolve) => {
    const onAbort = (): void => {
      const result = resultOfAbort(signal.reason)
      const graceMs = abortGraceMs(signal.reason)
      if (graceMs > 0) timers.push(clock.after(graceMs, () => resolve(result)))
      else resolve(result)
    }
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
  })
}

const MAX_PROGRESS_MESSAGE = 500
/**
 * Coalesces the reports of a run: writes the first at once, later ones at most every 100 ms, none after the run. Subscribers are notified once a
 * second; the last report always reaches them.
 */
function createReporter(task: Task, { store, clock, events }: TaskRunnerOptions): { report: RunContext['progress']; close(): void } {
  let latest: { progress: number; message: string | null } | null = null
  let isUnwritten = false
  let notifyAt = Number.NEGATIVE_INFINITY
  let hasSubscribers = true
  let highest = 0
  let cancelWrite: (() => void) | null = null
  let cancelNotify: (() => void) | null = null
  let isClosed = false
  /** Notifies of the latest report later, in case no newer one comes. */
  const notifyLater = (): void => {
    cancelNotify?.()
    if (isClosed) return
    cancelNotify = clock.after(Math.max(0, notifyAt - clock.now()), () => {
      // Without subscribers a second write is useless; the next report checks again.
      if (hasSubscribers) write()
    })
  }
  const write = (): void => {
    cancelWrite?.()
    cancelNotify?.()
    const now = clock.now()
    const notify = now >= notifyAt
    if (notify) notifyAt = now + NOTIFY_EVERY_MS
    else notifyLater()
    isUnwritten = false
    cancelWrite = clock.after(REPORT_EVERY_MS, () => {
      cancelWrite = null
      if (isUnwritten) write()
    })
    store.tasks.reportProgress({ id: task.id, fence: task.fence, ...latest!, notify }).then(
      (reported) => {
        if (!notify || reported.kind === 'stale') return
        hasSubscribers = reported.notified !== 'nobody'
        // By the clock of the store, the last notification was less than a second ago.
        if (reported.notified === 'early') {
          notifyAt = clock.now() + REPORT_EVERY_MS
          notifyLater()
        }
      },
      (error: unknown) => events.emit('trouble', { error }),
    )
  }
  return {
    report(percent, message) {
      if (isClosed || !(percent >= 0)) return
      highest = Math.max(highest, Math.min(99.9, percent))
      latest = { progress: highest, message: message?.slice(0, MAX_PROGRESS_MESSAGE).replaceAll('\0', '\ufffd').toWellFormed() ?? null }
      isUnwritten = true
      if (!cancelWrite) write()
    },
    close() {
      isClosed = true
      cancelWrite?.()
      cancelNotify?.()
    },
  }
}
