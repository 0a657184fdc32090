/** The entry point of the pool's threads: imports the module of a task type and runs one try. */
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'
import { systemClock } from '../../core/clock.ts'
import type { TryResult } from '../../core/lifecycle.ts'
import type { Millis } from '../../core/model.ts'
import { isTaskType, type RunContext, type TaskType } from '../../tasks/define.ts'
import { resolveRingbackToThisCopy } from '../../tasks/self-import.ts'
import { Interrupted, type InterruptReason } from '../pump.ts'
import { resultOfError, runTry, type TryInput, TryTimeout } from '../run-try.ts'

export type ThreadJob =
  /** Returns the types that the module does not export. */
  | { readonly kind: 'check'; readonly module: string; readonly types: readonly string[] }
  | { readonly kind: 'run'; readonly module: string; readonly tryInput: TryInput; readonly port: MessagePort }
/** From the main thread: why the signal fires. */
export type AbortMessage =
  | { readonly kind: 'interrupted'; readonly reason: InterruptReason }
  | { readonly kind: 'expired'; readonly code: TryTimeout['code']; readonly message: string }
/** To the main thread during a run. */
export type ThreadMessage =
  | { readonly kind: 'progress'; readonly percent: number; readonly message: string | undefined }
  | { readonly kind: 'log'; readonly level: keyof RunContext['log']; readonly fields: object; readonly message: string | undefined }

/** The least time between two reports, for handlers that report in a tight loop. */
const REPORT_EVERY_MS: Millis = 50

resolveRingbackToThisCopy()

export default async function runThreadJob(job: ThreadJob): Promise<TryResult | readonly string[]> {
  if (job.kind === 'check') {
    const exported = typesOf(await import(job.module))
    return job.types.filter((type) => !exported.has(type))
  }
  const { module, tryInput, port } = job
  const { signal, listen } = signalFrom(port)
  const { progress, flush } = createReporter(port)
  const log = createLog(port)
  listen()
  try {
    const exported: unknown = await import(module).then(typesOf, (error: unknown) => error)
    const type = exported instanceof Map ? (exported.get(tryInput.task.type) as TaskType | undefined) : undefined
    if (type) return await runTry(tryInput, type, { signal, progress, log })
    // The file changed after the node started. Clients do not see its path.
    log.warn({ module, ...(exported instanceof Error && { err: exported }) }, 'a task type can no longer be loaded from its module')
    return resultOfError(new Error(`The task type ${tryInput.task.type} can no longer be loaded.`))
  } finally {
    flush()
    port.close()
  }
}

/** The task types that a module exports: directly, in an array or a record, or in the default export of a configuration file. */
function typesOf(module: Readonly<Record<string, unknown>>): ReadonlyMap<string, TaskType> {
  const { default: main, ...rest } = module
  const lists = [rest, main, (main as { tasks?: unknown } | null | undefined)?.tasks, ...Object.values(rest)]
  const found = lists.flatMap((it) => (isTaskType(it) ? [it] : typeof it === 'object' && it !== null ? Object.values(it) : []))
  return new Map(found.filter(isTaskType).map((type) => [type.type, type]))
}

/** A signal that the main thread fires. Reading `aborted` also receives pending messages, so that a loop that never awaits notices it. */
function signalFrom(port: MessagePort): { signal: AbortSignal; listen(): void } {
  const abort = new AbortController()
  const { signal } = abort
  const onMessage = (reason: AbortMessage): void => {
    abort.abort(reason.kind === 'expired' ? new TryTimeout(reason.code, reason.message) : new Interrupted(reason.reason))
  }
  const aborted = (): boolean => {
    const received = receiveMessageOnPort(port)
    if (received) onMessage(received.message)
    return Reflect.get(AbortSignal.prototype, 'aborted', signal)
  }
  Object.defineProperties(signal, {
    aborted: { get: aborted },
    throwIfAborted: {
      value() {
        if (aborted()) throw signal.reason
      },
    },
  })
  return { signal, listen: () => port.on('message', onMessage) }
}

function createReporter(port: MessagePort): { progress: RunContext['progress']; flush(): void } {
  const clock = systemClock()
  let sentAt = Number.NEGATIVE_INFINITY
  let unsent: ThreadMessage | null = null
  let cancelFlush = (): void => {}
  const flush = (): void => {
    cancelFlush()
    if (unsent !== null) port.postMessage(unsent)
    unsent = null
    sentAt = clock.now()
  }
  return {
    flush,
    progress(percent, message) {
      const isScheduled = unsent !== null
      unsent = { kind: 'progress', percent: Number(percent), message: message === undefined ? undefined : String(message) }
      const leftMs = sentAt + REPORT_EVERY_MS - clock.now()
      if (leftMs <= 0) flush()
      else if (!isScheduled) cancelFlush = clock.after(leftMs, flush)
    },
  }
}

function createLog(port: MessagePort): RunContext['log'] {
  const at = (level: keyof RunContext['log']) => (fields: object, message?: string) => {
    const toMessage = (fields: object): ThreadMessage => ({ kind: 'log', level, fields, message })
    try {
      port.postMessage(toMessage(fields))
    } catch {
      // Some member, such as a function, cannot be cloned: send what JSON can represent.
      port.postMessage(toMessage(asJson(fields)))
    }
  }
  return { info: at('info'), warn: at('warn') }
}
function asJson(fields: object): object {
  try {
    return JSON.parse(JSON.stringify(fields))
  } catch (error) {
    return { unloggable: String(error) }
  }
}
