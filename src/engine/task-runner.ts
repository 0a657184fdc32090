/** The task side: runs each try under its signal, in this thread or in one of the pool, judges how it ended, settles. */
import type { Clock } from '../core/clock.ts'
import { decideOutcome, type TryResult } from '../core/lifecycle.ts'
import type { Millis, Task } from '../core/model.ts'
import type { EventSink } from '../observe/events.ts'
import type { Store } from '../store/interfaces.ts'
import type { Registry, RunContext, TaskType } from '../tasks/define.ts'
import { Pump, settleWithRetry, toSlotLender, type WorkSource } from './pump.ts'
import { abortGraceMs, resultOfAbort, runTry, TryTimeout, toTryInput } from './run-try.ts'
import type { ThreadPool } from './threads/pool.ts'

/** Reports of one run are written at most this often; the last one always is. */
const REPORT_EVERY_MS = 100
/** Those who subscribe to progress are told this often. */
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
  /** Left out: it runs the types that run in this thread. Given: those that run in these. */
  readonly threadPool?: ThreadPool
}

export function createTaskRunner(options: TaskRunnerOptions): Pump<Task> {
  const { store, registry, clock, bootId: boot, concurrency, leaseMs, threadPool: threads, events } = options
  const place = threads ? 'thread' : 'process'
  const types = registry
    .list()
    .filter(({ where }) => where === place)
    .map(({ type, concurrency: limit }) => ({ type, concurrency: limit }))

  const source: WorkSource<Task> = {
    claim: async (limit) => {
      if (types.length === 0) return { items: [], nextInMs: null, more: false }
      return store.tasks.claim({ limit, leaseMs, leasedBy: boot, types })
    },
    renew: (held) => store.maintenance.renew({ kind: 'task', leases: held, leaseMs }),
    async process(task, signal) {
      const type = registry.get(task.type)!
      const startedAt = clock.now()
      const ended = await run(task, type, signal, options)
      const outcome = decideOutcome(task, ended, type.retry.delayMs, clock)
      const settled = await settleWithRetry(() => store.tasks.settle({ id: task.id, fence: task.fence, outcome }), signal, clock, events)
      const failure = 'error' in outcome ? outcome.error : null
      if (ended.kind === 'threw' && ended.stack)
        events.emit('task.threw', { taskId: task.id, type: task.type, try: task.tries, stack: ended.stack })
      events.emit('task.run', {
        task,
        outcome: settled.kind === 'stale' ? 'stale' : settled.value.state,
        durationMs: clock.now() - startedAt,
        waitMs: Math.max(0, startedAt - task.dueAt),
        errorCode: failure?.code ?? null,
      })
    },
  }
  const pump = new Pump(source, { kind: 'task', concurrency, leaseMs, clock, events })
  // Only one pump can lend its slots. What goes to a thread may well wait for its claim.
  if (!threads) store.notifications.lendTaskSlots(toSlotLender(pump, boot, leaseMs), types)
  return pump
}

/** Runs one try up to its end; never throws. */
async function run(task: Task, type: TaskType, outer: AbortSignal, options: TaskRunnerOptions): Promise<TryResult> {
  const { clock } = options
  const abort = new AbortController()
  const pass = (): void => abort.abort(outer.reason)
  if (outer.aborted) pass()
  else outer.addEventListener('abort', pass, { once: true })
  const timers = [
    clock.after(task.timeoutSeconds * 1000, () =>
      abort.abort(new TryTimeout('timeout', `The try took longer than its ${task.timeoutSeconds} s.`)),
    ),
  ]
  if (task.deadlineAt !== null)
    timers.push(
      clock.after(Math.max(0, task.deadlineAt - clock.now()), () =>
        abort.abort(new TryTimeout('deadline_exceeded', `The task had not ended by ${new Date(task.deadlineAt!).toISOString()}.`)),
      ),
    )
  const reports = reporter(task, options)
  try {
    const context = { signal: abort.signal, progress: reports.report, log: options.log }
    if (options.threadPool) return await options.threadPool.runTry(toTryInput(task), type, context)
    return await Promise.race([runTry(toTryInput(task), type, context), resultAfterGrace(abort.signal, timers, clock)])
  } finally {
    reports.close()
    for (const cancel of timers) cancel()
    outer.removeEventListener('abort', pass)
  }
}

/** Ends the wait for a handler that does not heed its signal: at once for its own deadlines, after a grace when it may still return. */
function resultAfterGrace(signal: AbortSignal, timers: (() => void)[], clock: Clock): Promise<TryResult> {
  return new Promise((resolve) => {
    const end = (): void => {
      const verdict = resultOfAbort(signal.reason)
      const graceMs = abortGraceMs(signal.reason)
      if (graceMs > 0) timers.push(clock.after(graceMs, () => resolve(verdict)))
      else resolve(verdict)
    }
    if (signal.aborted) end()
    else signal.addEventListener('abort', end, { once: true })
  })
}

const MAX_PROGRESS_MESSAGE = 500
/**
 * Coalesces a run's reports: the first is written at once, later ones at most every tenth of a second, none after the run. Those who subscribe are
 * told once a second, the last report among them.
 */
function reporter(task: Task, { store, clock, events }: TaskRunnerOptions): { report: RunContext['progress']; close(): void } {
  let latest: { progress: number; message: string | null } | null = null
  let fresh = false
  let tellAt = Number.NEGATIVE_INFINITY
  let followed = true
  let highest = 0
  let cancelGap: (() => void) | null = null
  let cancelTelling: (() => void) | null = null
  let closed = false
  /** Nothing newer may come: what was not told is said once more when it may be. */
  const tellLater = (): void => {
    cancelTelling?.()
    if (closed) return
    cancelTelling = clock.after(Math.max(0, tellAt - clock.now()), () => {
      // With nobody to tell, nothing is written twice; the next report asks again.
      if (followed) write()
    })
  }
  const write = (): void => {
    cancelGap?.()
    cancelTelling?.()
    const now = clock.now()
    const told = now >= tellAt
    if (told) tellAt = now + NOTIFY_EVERY_MS
    else tellLater()
    fresh = false
    cancelGap = clock.after(REPORT_EVERY_MS, () => {
      cancelGap = null
      if (fresh) write()
    })
    store.tasks.reportProgress({ id: task.id, fence: task.fence, ...latest!, notify: told }).then(
      (reported) => {
        if (!told || reported.kind === 'stale') return
        followed = reported.notified !== 'nobody'
        // Another report was told too short a time ago, by the store's clock.
        if (reported.notified === 'early') {
          tellAt = clock.now() + REPORT_EVERY_MS
          tellLater()
        }
      },
      (error: unknown) => events.emit('trouble', { error }),
    )
  }
  return {
    report(percent, message) {
      if (closed || !(percent >= 0)) return
      highest = Math.max(highest, Math.min(99.9, percent))
      latest = { progress: highest, message: message?.slice(0, MAX_PROGRESS_MESSAGE).replaceAll('\0', '\ufffd').toWellFormed() ?? null }
      fresh = true
      if (!cancelGap) write()
    },
    close() {
      closed = true
      cancelGap?.()
      cancelTelling?.()
    },
  }
}
