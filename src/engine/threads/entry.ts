/** What a thread of the pool runs: loads the module of a task type, and runs one try in it. */
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'
import { systemClock } from '../../core/clock.ts'
import type { TryResult } from '../../core/lifecycle.ts'
import type { Millis } from '../../core/model.ts'
import { isTaskType, type RunContext, type TaskType } from '../../tasks/define.ts'
import { resolveRingbackToThisCopy } from '../../tasks/self-import.ts'
import { Interrupted, type InterruptReason } from '../pump.ts'
import { resultOfError, runTry, type TryInput, TryTimeout } from '../run-try.ts'

/** What a thread is told to do. */
export type ThreadJob =
  | { readonly kind: 'look'; readonly module: string; readonly types: readonly string[] }
  | { readonly kind: 'run'; readonly module: string; readonly tryInput: TryInput; readonly port: MessagePort }
/** From the node to the thread: why the signal fires. */
export type AbortMessage =
  | { readonly kind: 'interrupted'; readonly reason: InterruptReason }
  | { readonly kind: 'expired'; readonly code: TryTimeout['code']; readonly message: string }
/** From the thread to the node, while it runs. */
export type ThreadMessage =
  | { readonly kind: 'progress'; readonly percent: number; readonly message: string | undefined }
  | { readonly kind: 'log'; readonly level: keyof RunContext['log']; readonly fields: object; readonly message: string | undefined }

/** Reports are sent this far apart: a loop that reports each of its rounds must not flood the node. */
const REPORT_EVERY_MS: Millis = 50

resolveRingbackToThisCopy()

/** Answers how a run ended; of a look, which types the module does not export. */
export default async function runThreadJob(order: ThreadJob): Promise<TryResult | readonly string[]> {
  if (order.kind === 'look') {
    const exported = typesOf(await import(order.module))
    return order.types.filter((type) => !exported.has(type))
  }
  const { module, tryInput: given, port } = order
  const { signal, listen } = signalFrom(port)
  const { progress, flush } = reporter(port)
  const log = logTo(port)
  listen()
  try {
    const exported: unknown = await import(module).then(typesOf, (error: unknown) => error)
    const type = exported instanceof Map ? (exported.get(given.task.type) as TaskType | undefined) : undefined
    if (type) return await runTry(given, type, { signal, progress, log })
    // It did when the node started: the file has changed since. The client need not know where it is.
    log.warn({ module, ...(exported instanceof Error && { err: exported }) }, 'a task type is gone')
    return resultOfError(new Error(`The task type ${given.task.type} can no longer be loaded.`))
  } finally {
    flush()
    port.close()
  }
}

/** Every task type among the exports of a module: singly, in a list or a record, or as the default export of a configuration file. */
function typesOf(module: Readonly<Record<string, unknown>>): ReadonlyMap<string, TaskType> {
  const { default: main, ...rest } = module
  const lists = [rest, main, (main as { tasks?: unknown } | null | undefined)?.tasks, ...Object.values(rest)]
  const found = lists.flatMap((it) => (isTaskType(it) ? [it] : typeof it === 'object' && it !== null ? Object.values(it) : []))
  return new Map(found.filter(isTaskType).map((type) => [type.type, type]))
}

/** A signal that fires when the node says so. A loop that never awaits hears of it by asking: the signal then looks for what was sent. */
function signalFrom(port: MessagePort): { signal: AbortSignal; listen(): void } {
  const abort = new AbortController()
  const { signal } = abort
  const hear = (reason: AbortMessage): void => {
    abort.abort(reason.kind === 'expired' ? new TryTimeout(reason.code, reason.message) : new Interrupted(reason.reason))
  }
  const aborted = (): boolean => {
    const sent = receiveMessageOnPort(port)
    if (sent) hear(sent.message)
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
  return { signal, listen: () => port.on('message', hear) }
}

function reporter(port: MessagePort): { progress: RunContext['progress']; flush(): void } {
  const clock = systemClock()
  let sentAt = Number.NEGATIVE_INFINITY
  let waiting: ThreadMessage | null = null
  let disarm = (): void => {}
  const flush = (): void => {
    disarm()
    if (waiting !== null) port.postMessage(waiting)
    waiting = null
    sentAt = clock.now()
  }
  return {
    flush,
    progress(percent, message) {
      const armed = waiting !== null
      waiting = { kind: 'progress', percent: Number(percent), message: message === undefined ? undefined : String(message) }
      const leftMs = sentAt + REPORT_EVERY_MS - clock.now()
      if (leftMs <= 0) flush()
      else if (!armed) disarm = clock.after(leftMs, flush)
    },
  }
}

function logTo(port: MessagePort): RunContext['log'] {
  const at = (level: keyof RunContext['log']) => (fields: object, message?: string) => {
    const word = (fields: object): ThreadMessage => ({ kind: 'log', level, fields, message })
    try {
      port.postMessage(word(fields))
    } catch {
      // It holds what cannot be sent, such as a function: what JSON can hold of it will do.
      port.postMessage(word(asJson(fields)))
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
