/** The task side: parses the input, runs the handler under its signal, judges how it ended, settles. */
import type { Clock } from './clock.ts'
import { RingbackError } from './errors.ts'
import { decide, type Ended } from './lifecycle.ts'
import type { Failure, Json, Millis, State, Task } from './model.ts'
import { Interrupted, lender, Pump, type Source, settleSurely } from './pump.ts'
import type { Store } from './store/store.ts'
import { Permanent, Postpone, type Registry, type RunContext, type TaskType } from './task.ts'

/** The largest result, as JSON. */
export const RESULT_LIMIT_BYTES = 8 * 1024 * 1024
/** After a client asked to cancel, how long the handler may still return a result. */
export const CANCEL_GRACE_MS = 10_000
/** Reports of one run are written at most this often; the last one always is. */
const REPORT_EVERY_MS = 100

/** One line per run: everything about it. */
export interface RunRecord {
  readonly task: Task
  /** The state the run left the task in; `stale` when its lease was lost. */
  readonly outcome: State | 'stale'
  readonly durationMs: Millis
  readonly waitMs: Millis
  readonly errorCode: string | null
}

export interface SchedulerOptions {
  readonly store: Store
  readonly registry: Registry
  readonly clock: Clock
  readonly boot: string
  readonly concurrency: number
  readonly leaseMs: Millis
  readonly onRun: (record: RunRecord) => void
  readonly onError: (error: unknown) => void
  readonly log: RunContext['log']
}

/** A run's own reasons to stop, beside the pump's. */
class Expired extends Error {
  readonly code: 'timeout' | 'deadline_exceeded'
  constructor(code: 'timeout' | 'deadline_exceeded', message: string) {
    super(message)
    this.code = code
  }
}

export function createScheduler(options: SchedulerOptions): Pump<Task> {
  const { store, registry, clock, boot, concurrency, leaseMs } = options
  const types = registry.list().map(({ type, concurrency: limit }) => ({ type, concurrency: limit }))

  const source: Source<Task> = {
    claim: async (limit) => {
      if (types.length === 0) return { items: [], nextInMs: null, more: false }
      return store.claimTasks({ limit, leaseMs, by: boot, types })
    },
    renew: (held) => store.renew('task', held, leaseMs),
    async work(task, signal) {
      const type = registry.get(task.type)!
      const startedAt = clock.now()
      const ended = await run(task, type, signal, options)
      const outcome = decide(task, ended, type.retry.delayMs, clock)
      const settled = await settleSurely(
        () => store.settleTask({ id: task.id, fence: task.fence, outcome }),
        signal,
        clock,
        options.onError,
      )
      const failure = 'error' in outcome ? outcome.error : null
      options.onRun({
        task,
        outcome: settled.kind === 'stale' ? 'stale' : settled.value.state,
        durationMs: clock.now() - startedAt,
        waitMs: Math.max(0, startedAt - task.dueAt),
        errorCode: failure?.code ?? null,
      })
    },
  }
  const pump = new Pump(source, { concurrency, leaseMs, clock, onError: options.onError })
  const unlimited = types.filter((type) => type.concurrency === null).map(({ type }) => type)
  store.startTasks(lender(pump, boot, leaseMs), new Set(unlimited))
  return pump
}

/** Runs one try up to its end; never throws. */
async function run(task: Task, type: TaskType, outer: AbortSignal, options: SchedulerOptions): Promise<Ended> {
  const { clock } = options
  const abort = new AbortController()
  const pass = (): void => abort.abort(outer.reason)
  if (outer.aborted) pass()
  else outer.addEventListener('abort', pass, { once: true })
  const timers = [
    clock.after(task.timeoutSeconds * 1000, () =>
      abort.abort(new Expired('timeout', `The try took longer than its ${task.timeoutSeconds} s.`)),
    ),
  ]
  if (task.deadlineAt !== null)
    timers.push(
      clock.after(Math.max(0, task.deadlineAt - clock.now()), () =>
        abort.abort(new Expired('deadline_exceeded', `The task had not ended by ${new Date(task.deadlineAt!).toISOString()}.`)),
      ),
    )
  const reports = reporter(task, options)
  try {
    return await Promise.race([handle(task, type, abort.signal, reports.report, options), stopped(abort.signal, timers, clock)])
  } finally {
    reports.close()
    for (const cancel of timers) cancel()
    outer.removeEventListener('abort', pass)
  }
}

/** Ends the wait for a handler that does not heed its signal: at once for its own deadlines, after a grace when it may still return. */
function stopped(signal: AbortSignal, timers: (() => void)[], clock: Clock): Promise<Ended> {
  return new Promise((resolve) => {
    const end = (): void => {
      const reason = signal.reason as unknown
      const verdict = judgeReason(reason)
      if (reason instanceof Interrupted && reason.why !== 'leaseLost')
        timers.push(clock.after(reason.why === 'canceled' ? CANCEL_GRACE_MS : 1_000, () => resolve(verdict)))
      else resolve(verdict)
    }
    if (signal.aborted) end()
    else signal.addEventListener('abort', end, { once: true })
  })
}

async function handle(
  task: Task,
  type: TaskType,
  signal: AbortSignal,
  progress: RunContext['progress'],
  options: SchedulerOptions,
): Promise<Ended> {
  try {
    const input = await parse(task, type)
    if (input.kind === 'rejected') return { kind: 'threw', permanent: true, error: input.error }
    const result: unknown = await type.run(input.value, {
      task: {
        id: task.id,
        type: task.type,
        clientId: task.clientId,
        try: task.tries,
        maxTries: task.maxTries,
        generation: task.generation,
        metadata: task.metadata === '{}' ? {} : JSON.parse(task.metadata),
        deadlineAt: task.deadlineAt,
        traceparent: task.traceparent,
        tracestate: task.tracestate,
      },
      signal,
      progress,
      log: options.log,
    })
    return serialise(result)
  } catch (error) {
    if (signal.aborted && !(error instanceof Permanent)) return judgeReason(signal.reason)
    return judgeError(error)
  }
}

/** The input is parsed again before each run, so that a deployment with a narrower schema is seen. */
async function parse(task: Task, type: TaskType): Promise<{ kind: 'parsed'; value: unknown } | { kind: 'rejected'; error: Failure }> {
  try {
    return { kind: 'parsed', value: await type.parseInput(JSON.parse(task.input)) }
  } catch (error) {
    const details = error instanceof RingbackError ? error.errors : null
    return {
      kind: 'rejected',
      error: { code: 'input_rejected', message: 'The input no longer fits the schema of its task type.', details },
    }
  }
}

function serialise(result: unknown): Ended {
  const text: Json | undefined = JSON.stringify(result ?? null)
  if (text === undefined)
    return judgeError(new Permanent(`The handler returned a ${typeof result}, which JSON cannot hold.`, { code: 'handler_error' }))
  if (text.length > RESULT_LIMIT_BYTES / 4 && Buffer.byteLength(text) > RESULT_LIMIT_BYTES)
    return {
      kind: 'threw',
      permanent: true,
      error: { code: 'result_too_large', message: `The result is over ${RESULT_LIMIT_BYTES} bytes of JSON.`, details: null },
    }
  return { kind: 'returned', result: text }
}

function judgeReason(reason: unknown): Ended {
  if (reason instanceof Expired)
    return {
      kind: 'threw',
      permanent: reason.code === 'deadline_exceeded',
      error: { code: reason.code, message: reason.message, details: null },
    }
  if (reason instanceof Interrupted && reason.why === 'canceled') return { kind: 'canceled' }
  return { kind: 'interrupted' }
}

const OWN_CODE = /^[a-z0-9_.]{1,64}$/
const MOST_MESSAGE = 2_000
function judgeError(error: unknown): Ended {
  if (error instanceof Postpone) return { kind: 'postponed', delayMs: Math.max(0, Math.round(error.delaySeconds * 1000)) }
  const message = (error instanceof Error ? error.message : String(error)).slice(0, MOST_MESSAGE).toWellFormed()
  if (!(error instanceof Permanent)) return { kind: 'threw', error: { code: 'handler_error', message, details: null } }
  const code = OWN_CODE.test(error.code) ? error.code : 'handler_error'
  return { kind: 'threw', permanent: true, error: { code, message, details: sendable(error.details) } }
}
function sendable(details: unknown): unknown {
  try {
    return JSON.parse(JSON.stringify(details ?? null))
  } catch {
    return null
  }
}

const MOST_PROGRESS_MESSAGE = 500
/** Coalesces a run's reports: the first is written at once, later ones at most every tenth of a second, none after the run. */
function reporter(task: Task, { store, clock, onError }: SchedulerOptions): { report: RunContext['progress']; close(): void } {
  let latest: { progress: number; message: string | null } | null = null
  let highest = 0
  let cancel: (() => void) | null = null
  let closed = false
  const write = (): void => {
    if (!latest || closed) return
    const report = latest
    latest = null
    store.reportProgress({ id: task.id, fence: task.fence, ...report }).catch(onError)
    cancel = clock.after(REPORT_EVERY_MS, () => {
      cancel = null
      write()
    })
  }
  return {
    report(percent, message) {
      if (closed || !(percent >= 0)) return
      highest = Math.max(highest, Math.min(99.9, percent))
      latest = { progress: highest, message: message?.slice(0, MOST_PROGRESS_MESSAGE).replaceAll('\0', '\ufffd').toWellFormed() ?? null }
      if (!cancel) write()
    },
    close() {
      closed = true
      cancel?.()
    },
  }
}
